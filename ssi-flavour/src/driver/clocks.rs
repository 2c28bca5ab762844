//! Clocks that count from a machine's start: a program's go on where they were when it was saved.
//!
//! CRIU does that as root alone. Here a run of CRIU is started in a time namespace in which they
//! are so already; and a tree is saved by a CRIU that has the tree's clocks.

use super::images::ImageError;
use super::recorded::Images;
use super::stats::{COMMON_MAGIC, Entries};
use prost::Message;
use rustix::time::{ClockId, clock_gettime};
use std::io::{Error, ErrorKind, Result};

/// How the clocks of a tree stood that has the same as the CRIU that saved it.
const IMAGE: &str = "timens-0.img";
const MAGIC: u32 = 0x4311_4433;
/// How this process's clocks differ from the machine's.
const OFFSETS: &str = "/proc/self/timens_offsets";
const SECOND: i128 = 1_000_000_000;

/// How a tree's clocks stood when it was saved (criu: images/timens.proto).
#[derive(Clone, PartialEq, Message)]
pub(super) struct Clocks {
    #[prost(message, optional, tag = "1")]
    monotonic: Option<Time>,
    #[prost(message, optional, tag = "2")]
    boottime: Option<Time>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Time {
    #[prost(uint64, tag = "1")]
    seconds: u64,
    #[prost(uint64, tag = "2")]
    nanoseconds: u64,
}

impl Clocks {
    /// Those that images have; `None`: the kernel where they were made has no time namespaces.
    pub(super) fn read(images: &Images<'_>) -> std::result::Result<Option<Clocks>, ImageError> {
        if !images.has(IMAGE) {
            return Ok(None);
        }
        images.parse(IMAGE, parse)
    }

    /// How far they are from this machine's, as `timens_offsets` has it; `None`: no clocks but the
    /// machine's can be had here.
    pub(super) fn offsets(self) -> Result<Option<String>> {
        let own = match std::fs::read_to_string(OFFSETS) {
            Ok(own) => own,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let now = |id| {
            let now = clock_gettime(id);
            i128::from(now.tv_sec) * SECOND + i128::from(now.tv_nsec)
        };
        let mut text = String::new();
        for (number, name, id, saved) in [
            (libc::CLOCK_MONOTONIC, "monotonic", ClockId::Monotonic, self.monotonic),
            (libc::CLOCK_BOOTTIME, "boottime", ClockId::Boottime, self.boottime),
        ] {
            let Some(saved) = saved else { continue };
            let own = offset(&own, name).ok_or_else(|| {
                Error::new(ErrorKind::InvalidData, format!("{OFFSETS} has another form"))
            })?;
            let ahead = saved.nanoseconds_in_all() - (now(id) - own);
            let (seconds, rest) = (ahead.div_euclid(SECOND), ahead.rem_euclid(SECOND));
            text += &format!("{number} {seconds} {rest}\n");
        }
        Ok(Some(text).filter(|text| !text.is_empty()))
    }
}

impl Time {
    fn nanoseconds_in_all(&self) -> i128 {
        i128::from(self.seconds) * SECOND + i128::from(self.nanoseconds)
    }
}

fn parse(bytes: &[u8]) -> std::result::Result<Option<Clocks>, String> {
    let entry = Entries::of(bytes, COMMON_MAGIC, MAGIC)?.next().transpose()?;
    entry.map(Clocks::decode).transpose().map_err(|e| e.to_string())
}

/// A clock's offset in a `timens_offsets`, in nanoseconds.
fn offset(text: &str, name: &str) -> Option<i128> {
    let mut lines = text.lines().map(str::split_whitespace);
    let mut fields =
        lines.find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    let mut number = || fields.next()?.parse::<i128>().ok();
    Some(number()? * SECOND + number()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of CRIU 4.2.1.
    const TIMENS: &[u8] = &[
        0x19, 0x43, 0x56, 0x54, 0x33, 0x44, 0x11, 0x43, 0x18, 0, 0, 0, 0x0a, 0x0a, 0x08, 0xff,
        0xd3, 0x01, 0x10, 0xf5, 0xfc, 0x8f, 0xef, 0x01, 0x12, 0x0a, 0x08, 0xff, 0xd3, 0x01, 0x10,
        0x9d, 0xfd, 0x8f, 0xef, 0x01,
    ];

    /// If it failed, a program that waits for a moment would wait for hours after a move, or not
    /// at all.
    #[test]
    fn clocks_go_on_where_they_were() {
        let clocks = parse(TIMENS).unwrap().unwrap();
        let saved = clocks.monotonic.clone().unwrap().nanoseconds_in_all();
        assert_eq!(saved / SECOND, 27_135);
        let Some(text) = clocks.offsets().unwrap() else { return println!("skipped: no clocks") };
        let named = text.replace("1 ", "monotonic ").replace("7 ", "boottime ");
        assert!(text.starts_with("1 ") && text.contains("\n7 "), "{named}");
        let fields: Vec<&str> = text.lines().next().unwrap().split(' ').collect();
        let rest: i128 = fields[2].parse().unwrap();
        assert!((0..SECOND).contains(&rest), "{text}");
    }

    #[test]
    fn damaged_clocks_are_errors() {
        // wrong: images would bring a program into clocks that nobody wrote
        assert_eq!(parse(&TIMENS[..8]).unwrap(), None);
        assert!((9..TIMENS.len()).all(|cut| parse(&TIMENS[..cut]).is_err()));
        let text = "monotonic          -5         7\nboottime            3         0\n";
        assert_eq!(offset(text, "monotonic"), Some(-5 * SECOND + 7));
        assert_eq!(offset(text, "boottime"), Some(3 * SECOND));
        assert_eq!(offset("monotonic\n", "monotonic"), None);
    }
}
