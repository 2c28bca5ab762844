//! Memory for the answers to reads, shared fairly: a machine that asks and does not take its answers
//! holds its own share only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use xtreemfs_proto::record::DATA_BYTES_MAX;

/// Most bytes of answers to reads that are held at once, over all connections.
pub const READ_BYTES_MAX: usize = 256 << 20;
/// The same over all connections of one machine.
pub const READ_BYTES_PER_MACHINE_MAX: usize = 32 << 20;
/// Unit in which they are counted.
const BYTES_UNIT: usize = 1024;

/// One machine's share.
pub(super) type Share = Arc<Semaphore>;

/// What an answer holds until it has left.
pub(super) type Held = [OwnedSemaphorePermit; 2];

#[derive(Debug)]
pub(super) struct ReadBudget {
    all: Arc<Semaphore>,
    shares: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl ReadBudget {
    pub(super) fn new() -> Self {
        const { assert!(READ_BYTES_PER_MACHINE_MAX > DATA_BYTES_MAX) };
        let all = Arc::new(Semaphore::new(READ_BYTES_MAX / BYTES_UNIT));
        Self { all, shares: Mutex::default() }
    }

    /// The share of a machine; to be kept by each of its connections.
    pub(super) fn share(&self, machine: &str) -> Share {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(machine).and_then(Weak::upgrade) {
            return share;
        }
        if shares.len() == shares.capacity() {
            // So there are at most about twice as many as machines with connections.
            shares.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(READ_BYTES_PER_MACHINE_MAX / BYTES_UNIT));
        shares.insert(machine.to_owned(), Arc::downgrade(&share));
        share
    }

    /// Waits for room for `bytes`, at most [`DATA_BYTES_MAX`]; `None` never comes, as nobody closes
    /// the semaphores.
    pub(super) async fn take(&self, share: &Share, bytes: usize) -> Option<Held> {
        let units = (bytes / BYTES_UNIT + 1) as u32;
        // The own share first: who waits for it holds nothing that others wait for.
        let own = share.clone().acquire_many_owned(units).await.ok()?;
        Some([own, self.all.clone().acquire_many_owned(units).await.ok()?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else one machine that does not take its answers keeps all others from reading.
    #[test]
    fn a_machine_that_takes_no_answers_holds_its_own_share_only() {
        let budget = ReadBudget::new();
        let (greedy, other) = (budget.share("greedy"), budget.share("other"));
        let take = |share: &Share| polled_once(budget.take(share, DATA_BYTES_MAX));
        let held: Vec<_> = std::iter::from_fn(|| take(&greedy)).collect();
        assert!(held.len() * DATA_BYTES_MAX <= READ_BYTES_PER_MACHINE_MAX);
        assert!(take(&budget.share("greedy")).is_none(), "another connection, another share");
        assert!(take(&other).is_some());
        drop(held);
        assert!(take(&greedy).is_some());
    }

    /// What a future gives when it is polled once.
    fn polled_once<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => None,
        }
    }
}
