//! Whose copies a node has. The agent outlives `xosd`, so that this is known after a restart of it.

use crate::cluster::messages::TreeId;
use crate::host::Job;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a tree counts that was told of, until there is a copy of it.
const COMES_WITHIN: Duration = Duration::from_secs(60);

/// The accounts of trees, and when they were told of.
#[derive(Default)]
pub(super) struct People(Mutex<BTreeMap<TreeId, (u32, Instant)>>);

impl People {
    /// These may be started here.
    pub(super) fn told(&self, jobs: &[(TreeId, Job)], now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(jobs.iter().map(|(tree, job)| (*tree, (job.account.uid, now))));
    }

    /// Whose these copies are, that the node has now. Trees without one are forgotten.
    pub(super) fn of(&self, copies: &[(TreeId, u64)], now: Instant) -> BTreeSet<u32> {
        let copies: BTreeSet<TreeId> = copies.iter().map(|(tree, _)| *tree).collect();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let comes = |at: &Instant| now.saturating_duration_since(*at) < COMES_WITHIN;
        all.retain(|tree, (_, at)| copies.contains(tree) || comes(at));
        all.iter().filter(|(tree, _)| copies.contains(tree)).map(|(_, (uid, _))| *uid).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::job;

    #[test]
    fn whose_copies_there_are_does_not_hang_on_what_they_do() {
        // wrong: one member with many busy processes would have others lose their volume, or a
        // person keep it for ever who runs nothing any more
        let (people, start) = (People::default(), Instant::now());
        let jobs: Vec<_> = (0..2000).map(|n| (TreeId(u64::from(n)), job(70_000 + n % 3))).collect();
        people.told(&jobs, start);
        let of = |trees: &[u64], after: u64| {
            let copies: Vec<_> = trees.iter().map(|tree| (TreeId(*tree), 1)).collect();
            let uids = people.of(&copies, start + Duration::from_secs(after));
            uids.into_iter().collect::<Vec<_>>()
        };
        assert!(of(&[], 1).is_empty());
        assert_eq!(of(&[0, 1, 1999], 1), [70_000, 70_001]);
        assert_eq!(of(&[0, 2], 90), [70_000, 70_002]);
        assert_eq!(of(&[0, 1], 91), [70_000], "it went meanwhile");
    }
}
