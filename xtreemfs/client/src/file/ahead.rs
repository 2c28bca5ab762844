//! Reading ahead for sequential readers: a few blocks, for a short time, within bounds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::extents::Range;
use crate::limits::{READ_AHEAD_BYTES_PER_FILE, READ_AHEAD_TTL};

/// Reads this far out of order still count as sequential: the kernel sends several at a time.
const DISORDER_BYTES: u64 = 1 << 20;

/// So many sequential reads in a row start reading ahead.
const STREAK: u32 = 2;

/// A block of this size is fetched at once, or one object if objects are smaller.
const BLOCK_BYTES: u64 = 1 << 20;

/// A block under way or arrived; `None` when reading it failed (the reader then asks itself).
type Arriving = Shared<BoxFuture<'static, Option<Bytes>>>;

/// The read-ahead of one handle.
#[derive(Debug)]
pub(crate) struct Ahead {
    block: u64,
    budget: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pattern: Pattern,
    blocks: VecDeque<Block>,
}

#[derive(Debug)]
struct Block {
    range: Range,
    generation: u64,
    asked: Instant,
    data: Arriving,
    _budget: OwnedSemaphorePermit,
}

/// Recognises sequential reading.
#[derive(Debug, Default)]
struct Pattern {
    next: u64,
    streak: u32,
}

impl Pattern {
    /// Notes a read; answers where reading ahead should begin, if it should.
    fn observe(&mut self, read: &Range) -> Option<u64> {
        let near = read.start.abs_diff(self.next) <= DISORDER_BYTES;
        if near {
            self.streak = self.streak.saturating_add(1);
            self.next = self.next.max(read.end);
        } else {
            *self = Pattern { next: read.end, streak: 1 };
        }
        (self.streak >= STREAK).then_some(self.next)
    }
}

impl Ahead {
    /// For a handle of a file with such objects; `budget` counts bytes over all handles.
    pub(crate) fn new(stripe_bytes: u64, budget: Arc<Semaphore>) -> Ahead {
        let block = stripe_bytes.clamp(1, BLOCK_BYTES);
        Ahead { block, budget, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a read and starts to fetch what will probably be read next, up to `size`.
    /// `generation` is that of the content before `fetch` is called; when it has changed, blocks
    /// are thrown away.
    pub(crate) fn observe<F>(&self, read: Range, size: u64, generation: u64, fetch: F)
    where
        F: Fn(Range) -> BoxFuture<'static, Option<Bytes>>,
    {
        let now = Instant::now();
        let mut state = self.lock();
        state.blocks.retain(|b| b.generation == generation && now - b.asked < READ_AHEAD_TTL);
        let Some(from) = state.pattern.observe(&read) else { return };
        let end = from.saturating_add(READ_AHEAD_BYTES_PER_FILE).min(size);
        let mut start = from - from % self.block;
        while start < end {
            let range = Range { start, end: start.saturating_add(self.block).min(size) };
            start = start.saturating_add(self.block);
            if range.end <= from || state.blocks.iter().any(|b| b.range.start == range.start) {
                continue;
            }
            let bytes = u32::try_from(range.end - range.start).unwrap_or(u32::MAX);
            let Ok(permit) = Arc::clone(&self.budget).try_acquire_many_owned(bytes) else { return };
            let task = tokio::spawn(fetch(range));
            let data = async move { task.await.ok().flatten() }.boxed().shared();
            state.blocks.push_back(Block { range, generation, asked: now, data, _budget: permit });
        }
    }

    /// The block that holds `at`, if it was read ahead, with its start. A block that is read to
    /// its end is handed out for the last time.
    pub(crate) fn take(&self, read: Range, generation: u64) -> Option<(Range, Arriving)> {
        let now = Instant::now();
        let mut state = self.lock();
        let position = state.blocks.iter().position(|b| {
            b.range.start <= read.start
                && read.start < b.range.end
                && b.generation == generation
                && now - b.asked < READ_AHEAD_TTL
        })?;
        let block = state.blocks.get(position)?;
        let (range, data) = (block.range, block.data.clone());
        if read.end >= range.end {
            state.blocks.remove(position);
        }
        Some((range, data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_reads_do_not_start_reading_ahead() {
        let mut pattern = Pattern::default();
        for offset in [50 << 20, 3 << 20, 90 << 20, 20 << 20] {
            assert_eq!(pattern.observe(&Range::new(offset, 4096)), None);
        }
    }

    #[test]
    fn sequential_reads_start_it_also_when_slightly_out_of_order() {
        let mut pattern = Pattern::default();
        assert_eq!(pattern.observe(&Range::new(131_072, 131_072)), None);
        assert_eq!(pattern.observe(&Range::new(0, 131_072)), Some(262_144));
    }

    fn ahead(budget: usize) -> Ahead {
        Ahead::new(131_072, Arc::new(Semaphore::new(budget)))
    }

    fn fetch(range: Range) -> BoxFuture<'static, Option<Bytes>> {
        async move { Some(Bytes::from(vec![1; (range.end - range.start) as usize])) }.boxed()
    }

    #[tokio::test]
    async fn what_was_read_ahead_is_handed_out_and_ends_at_the_file() {
        let ahead = ahead(100 << 20);
        let size = 300_000;
        ahead.observe(Range::new(0, 65_536), size, 1, fetch);
        ahead.observe(Range::new(65_536, 65_536), size, 1, fetch);
        let next = Range::new(131_072, 65_536);
        let (range, data) = ahead.take(next, 1).expect("the second object was read ahead");
        assert_eq!(range, Range::new(131_072, 131_072));
        assert_eq!(data.await.map(|d| d.len()), Some(131_072));
        let (last, _) = ahead.take(Range::new(262_144, 1), 1).expect("the last object");
        assert_eq!(last.end, size, "nothing past the end is asked for");
    }

    #[tokio::test]
    async fn a_local_write_makes_it_worthless() {
        let ahead = ahead(100 << 20);
        ahead.observe(Range::new(0, 65_536), 1 << 20, 1, fetch);
        ahead.observe(Range::new(65_536, 65_536), 1 << 20, 1, fetch);
        assert!(ahead.take(Range::new(131_072, 10), 2).is_none());
    }

    #[tokio::test]
    async fn it_stays_within_the_budget() {
        let ahead = ahead(131_072);
        ahead.observe(Range::new(0, 65_536), 10 << 20, 1, fetch);
        ahead.observe(Range::new(65_536, 65_536), 10 << 20, 1, fetch);
        assert_eq!(ahead.lock().blocks.len(), 1, "one block of budget, one block");
    }
}
