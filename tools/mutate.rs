//! Good bytes made bad, and a check that reading them costs little: included by the tests of every
//! decoder that reads bytes of strangers.
//!
//! The seed is fixed, so that a failure comes again; it is printed with the input.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Where the dice begin.
const SEED: u64 = 0x5eed;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Counts what each thread holds.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn grown(bytes: usize) {
    let live = LIVE.get().wrapping_add(bytes);
    LIVE.set(live);
    // What another thread gave away may be freed here: then the count is below nothing.
    if live < usize::MAX / 2 && live > PEAK.get() {
        PEAK.set(live);
    }
}

fn shrunk(bytes: usize) {
    LIVE.set(LIVE.get().wrapping_sub(bytes));
}

// SAFETY: everything is handed to the system's allocator as it came; only counts are kept.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: as for the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        shrunk(layout.size());
        // SAFETY: as for the caller.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grown(size);
        shrunk(layout.size());
        // SAFETY: as for the caller.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// SplitMix64, Steele, Lea and Flood 2014.
pub struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        (self.roll() % n as u64) as usize
    }
}

/// What lengths and counts lie with, and what texts open with.
const LIES: [&[u8]; 16] = [
    &[0; 4],
    &[0xff; 4],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0xff; 10],
    &[0x80; 9],
    &[0x84, 0xff, 0xff, 0xff, 0xff],
    &[0x30, 0x80],
    b"99999999999999999999",
    b"-1",
    b"1e308",
    b"\"\\ud800\"",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":",
    b"null",
    b"\xff\xfe",
    b"..",
];

/// One to four changes of one of `samples`: bits, bytes, lies, cuts, repeats, pieces of others.
fn mutated(dice: &mut Dice, samples: &[Vec<u8>]) -> Vec<u8> {
    let mut out = samples[dice.below(samples.len())].clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(out.len() + 1);
        match dice.below(9) {
            0 | 1 if at < out.len() => out[at] ^= 1 << dice.below(8),
            2 if at < out.len() => out[at] = dice.roll() as u8,
            3 => out.truncate(at),
            4 => {
                let end = (at + 1 + dice.below(16)).min(out.len());
                out.drain(at.min(end)..end);
            }
            5 => {
                let lie = LIES[dice.below(LIES.len())];
                let end = (at + lie.len()).min(out.len());
                out.splice(at..end, lie.iter().copied());
            }
            6 => {
                let lie = LIES[dice.below(LIES.len())];
                out.splice(at..at, lie.iter().copied());
            }
            7 => {
                let end = (at + 1 + dice.below(64)).min(out.len());
                let piece = out[at.min(end)..end].to_vec();
                for _ in 0..1 << dice.below(6) {
                    out.splice(at..at, piece.iter().copied());
                }
            }
            _ => {
                let other = &samples[dice.below(samples.len())];
                let from = dice.below(other.len() + 1);
                out.truncate(at);
                out.extend_from_slice(&other[from..]);
            }
        }
    }
    out
}

/// Gives `read` so many changed copies of `samples`, and the samples themselves. It must not panic,
/// and not hold more than `bytes_max(length of the input)` bytes at any time.
pub fn survives(
    samples: &[Vec<u8>],
    rounds: usize,
    bytes_max: impl Fn(usize) -> usize,
    mut read: impl FnMut(&[u8]),
) {
    let mut dice = Dice(SEED);
    for round in 0..rounds + samples.len() {
        let input = match samples.get(round) {
            Some(sample) => sample.clone(),
            None => mutated(&mut dice, samples),
        };
        LIVE.set(0);
        PEAK.set(0);
        let result = catch_unwind(AssertUnwindSafe(|| read(&input)));
        let (peak, most) = (PEAK.get(), bytes_max(input.len()));
        let shown = || format!("round {round} of seed {SEED:#x}: {}", input.escape_ascii());
        // Its own message stands above this one.
        assert!(result.is_ok(), "panic in {}", shown());
        assert!(peak <= most, "{peak} bytes held, {most} allowed, in {}", shown());
    }
}

/// What a decoder may hold for an input of `length` bytes: a start, and some copies of it.
pub fn modest(length: usize) -> usize {
    (256 << 10) + 64 * length
}
