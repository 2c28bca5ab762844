//! What shells have placed is in memory only while it is young: most of it ends before a disk could
//! have kept it, and nobody waits for that.
//!
//! It is known as a whole or not at all: the disk has nothing of such a tree when this process is
//! killed, so that neither its start nor its end is half known. Its node then ends it, as it ends
//! all that its controller does not know, and after that its ghost is told
//! ([`Order::Forsake`](crate::cluster::messages::Order::Forsake)). Its number is never given again:
//! numbers are kept as given before they are.

use super::one::Cluster;
use crate::cluster::messages::TreeId;
use crate::cluster::trees::TreeRecord;
use std::collections::BTreeSet;
use std::time::Duration;
use xos_base::Millis;

/// How old it is when it is kept, with the next turn.
const YOUNG_MAX: Duration = Duration::from_millis(250);
/// How many numbers are kept as given at a time.
const NUMBERS_AHEAD: u64 = 256;

/// What is known of young trees.
#[derive(Clone, Debug)]
pub(super) struct Brief {
    /// Of which nothing is on the disk.
    young: BTreeSet<TreeId>,
    /// The last number that the disk has as given.
    given: u64,
    /// Whether there were some.
    used: bool,
    /// Whether there are none any more.
    over: bool,
}

impl Brief {
    /// Of a cluster that was kept with this number as the last one given.
    pub fn new(given: TreeId) -> Brief {
        Brief { young: BTreeSet::new(), given: given.0, used: false, over: false }
    }

    /// Whether nothing of a tree is to be kept yet.
    pub fn is_young(&self, tree: TreeId) -> bool {
        self.young.contains(&tree)
    }

    /// Whether the disk has a number as given.
    pub fn is_given(&self, tree: TreeId) -> bool {
        tree.0 <= self.given
    }

    /// The number that is to be kept as the last one given.
    pub fn ahead(&self, last: TreeId) -> TreeId {
        let ahead = if self.used { NUMBERS_AHEAD } else { 0 };
        TreeId(last.0.saturating_add(ahead).max(self.given))
    }

    /// It is.
    pub fn gave(&mut self, last: TreeId) {
        self.given = self.ahead(last).0;
    }

    /// A tree changes. All but its beginning and its end is of more than this node and its ghost.
    pub fn changes(&mut self, r: &TreeRecord) {
        let simple = matches!(
            r,
            TreeRecord::Placed { .. }
                | TreeRecord::Runs { .. }
                | TreeRecord::Ended { .. }
                | TreeRecord::Lost { .. }
                | TreeRecord::Forgotten { .. }
        );
        if !simple {
            self.young.remove(&r.tree());
        }
    }

    /// A tree is no more. Whether the disk has nothing of it.
    pub fn forget(&mut self, tree: TreeId) -> bool {
        self.young.remove(&tree)
    }
}

impl Cluster {
    /// A tree was placed that may be lost with this process. To be said before it is kept.
    pub fn begins_young(&mut self, tree: TreeId) {
        if !self.brief.over {
            self.brief.used = true;
            self.brief.young.insert(tree);
        }
    }

    /// What has lived for a while is to be kept, and numbers before they are needed.
    pub fn ripen(&mut self, now: Millis) {
        let since = &self.since;
        let young = |tree: &TreeId| since.get(tree).is_some_and(|at| now.since(*at) < YOUNG_MAX);
        self.brief.young.retain(young);
        let left = self.brief.given.saturating_sub(self.last_number().0);
        if self.brief.used && left < NUMBERS_AHEAD / 2 {
            self.numbers_run_out();
        }
    }

    /// All is to be kept from now on, before anybody is told.
    pub fn keeps_all(&mut self) {
        self.brief.young.clear();
        self.brief.over = true;
    }
}
