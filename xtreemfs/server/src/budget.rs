//! Memory of a server, shared fairly over all its connections: a machine that asks for much and
//! does not go on holds its own share only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use xtreemfs_proto::Room;

/// Unit in which bytes are counted.
const BYTES_UNIT: usize = 1024;

/// Of a budget the machines of one site have one part in so many: a site can invent machines.
const SITE_PART: usize = 4;

/// One machine's share, and its site's; to be kept by each of its connections.
#[derive(Debug, Clone)]
pub struct Share {
    machine: Arc<Semaphore>,
    site: Arc<Semaphore>,
}

/// What is held of a budget, until it is dropped.
#[derive(Debug)]
pub struct Held {
    _permits: [OwnedSemaphorePermit; 3],
}

/// So many bytes for all machines together, for those of one site, and for one.
#[derive(Debug)]
pub struct Budget {
    all: Arc<Semaphore>,
    share_units: usize,
    site_units: usize,
    machines: Shares,
    sites: Shares,
}

/// Those that somebody has a connection for.
#[derive(Debug, Default)]
struct Shares(Mutex<HashMap<String, Weak<Semaphore>>>);

impl Shares {
    fn of(&self, name: &str, units: usize) -> Arc<Semaphore> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(name).and_then(Weak::upgrade) {
            return share;
        }
        if shares.len() == shares.capacity() {
            // So there are at most about twice as many as have connections.
            shares.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(units));
        shares.insert(name.to_owned(), Arc::downgrade(&share));
        share
    }
}

/// The site in a machine's name, as in `n1.rennes`; one without is its own.
fn site_of(machine: &str) -> &str {
    machine.split_once('.').map_or(machine, |(_, site)| site)
}

impl Budget {
    /// A budget of `bytes`, of which one machine gets at most `machine_bytes`.
    pub fn new(bytes: usize, machine_bytes: usize) -> Self {
        let all = Arc::new(Semaphore::new(bytes / BYTES_UNIT));
        let share_units = machine_bytes.min(bytes) / BYTES_UNIT;
        let site_units = (bytes / SITE_PART / BYTES_UNIT).max(share_units);
        let (machines, sites) = Default::default();
        Self { all, share_units, site_units, machines, sites }
    }

    /// The share of a machine.
    pub fn share(&self, machine: &str) -> Share {
        let site = self.sites.of(site_of(machine), self.site_units);
        Share { machine: self.machines.of(machine, self.share_units), site }
    }

    /// Waits for room for `bytes`; more than a whole share counts as that. `None` never comes, as
    /// nobody closes the semaphores.
    pub async fn take(&self, share: &Share, bytes: usize) -> Option<Held> {
        let units = (bytes / BYTES_UNIT + 1).min(self.share_units);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        // The own share first: who waits for it holds nothing that others wait for.
        let own = share.machine.clone().acquire_many_owned(units).await.ok()?;
        let site = share.site.clone().acquire_many_owned(units).await.ok()?;
        let all = self.all.clone().acquire_many_owned(units).await.ok()?;
        Some(Held { _permits: [own, site, all] })
    }

    /// The same, as a request holds it.
    pub async fn room(&self, share: &Share, bytes: usize) -> Room {
        Room::of(self.take(share, bytes).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xtreemfs_proto::record::DATA_BYTES_MAX;

    const SHARE: usize = 32 << 20;

    /// Else one machine that does not take its answers keeps all others from reading, or one that
    /// does not go on sending keeps them from writing.
    #[test]
    fn a_machine_that_takes_no_answers_holds_its_own_share_only() {
        let budget = Budget::new(8 * SHARE, SHARE);
        let (greedy, other) = (budget.share("greedy"), budget.share("other"));
        let take = |share: &Share| polled_once(budget.take(share, DATA_BYTES_MAX));
        let held: Vec<_> = std::iter::from_fn(|| take(&greedy)).collect();
        assert!(held.len() * DATA_BYTES_MAX <= SHARE);
        assert!(take(&budget.share("greedy")).is_none(), "another connection, another share");
        assert!(take(&other).is_some());
        drop(held);
        assert!(take(&greedy).is_some());
    }

    /// Else one site, which can invent machines, keeps those of all others from reading and
    /// writing.
    #[test]
    fn the_machines_of_a_site_hold_its_share_only() {
        let budget = Budget::new(16 * SHARE, SHARE);
        let greedy: Vec<_> = (0..16).map(|n| budget.share(&format!("n{n}.greedy"))).collect();
        let take = |share: &Share| polled_once(budget.take(share, SHARE));
        let held: Vec<_> = greedy.iter().filter_map(take).collect();
        assert_eq!(held.len(), 4);
        assert!(take(&budget.share("n1.other")).is_some());
    }

    /// Else many machines together hold more than the server has.
    #[test]
    fn all_machines_together_have_so_much() {
        let budget = Budget::new(2 * SHARE, SHARE);
        let shares: Vec<_> = (0..3).map(|n| budget.share(&format!("m{n}"))).collect();
        let take = |n: usize| polled_once(budget.take(&shares[n], 2 * SHARE));
        let (first, second) = (take(0), take(1));
        assert!(first.is_some() && second.is_some(), "more than a share waits for ever");
        assert!(take(2).is_none());
        drop(first);
        assert!(take(2).is_some());
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
