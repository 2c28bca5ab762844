//! Images of trees that are elsewhere, kept here so that they outlive the node that made them.

use super::{Act, Agent};
use crate::cluster::messages::{Fact, TreeId};
use crate::pids::NodeNumber;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// An image that is being fetched, or was not to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hold {
    attempt: u64,
    pub(super) version: u64,
    /// Why there is none.
    failed: Option<String>,
}

impl Agent {
    pub(super) fn hold(
        &mut self,
        (tree, attempt): (TreeId, u64),
        version: u64,
        (from, owner): (&BTreeSet<NodeNumber>, u32),
        out: &mut Vec<Act>,
        facts: &mut Vec<Fact>,
    ) {
        if self.images.contains(&(tree, version)) {
            // One that is in memory only is said to be held once it is on the disk.
            let lasts = !self.brief.contains(&(tree, version));
            facts.extend(lasts.then_some(Fact::Holds { tree, version }));
            return;
        }
        match self.holds.get(&tree) {
            // The order is late.
            Some(h) if h.attempt > attempt => {}
            Some(Hold { attempt: of, failed, .. }) if *of == attempt => {
                let reason = failed.clone();
                facts.extend(reason.map(|reason| Fact::NotHeld { tree, attempt, reason }));
            }
            _ => {
                self.holds.insert(tree, Hold { attempt, version, failed: None });
                let from = from.clone();
                out.push(Act::Hold { tree, attempt, version, from, owner });
            }
        }
    }

    /// An image that was to be kept is here as a whole, or is not, and why. Whether it is still
    /// wanted the controller says when it hears of it.
    pub fn held(
        &mut self,
        tree: TreeId,
        attempt: u64,
        version: u64,
        done: Result<(), String>,
    ) -> Option<Act> {
        let mine = |h: &&mut Hold| h.attempt == attempt && h.failed.is_none();
        let fact = match done {
            Ok(()) => {
                if self.holds.get(&tree).is_some_and(|h| h.version == version) {
                    self.holds.remove(&tree);
                }
                self.images.insert((tree, version));
                self.brief.remove(&(tree, version));
                Fact::Holds { tree, version }
            }
            Err(reason) => {
                let h = self.holds.get_mut(&tree).filter(mine)?;
                h.failed = Some(reason.clone());
                Fact::NotHeld { tree, attempt, reason }
            }
        };
        self.say(vec![fact])
    }

    /// Nobody fetches any more.
    pub(super) fn holds_broken_off(&mut self, why: &str) -> Vec<Fact> {
        let mut facts = Vec::new();
        for (tree, h) in self.holds.iter_mut().filter(|(_, h)| h.failed.is_none()) {
            h.failed = Some(why.to_owned());
            let (tree, attempt, reason) = (*tree, h.attempt, why.to_owned());
            facts.push(Fact::NotHeld { tree, attempt, reason });
        }
        facts
    }
}
