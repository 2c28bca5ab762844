//! Images of trees that are elsewhere, kept here so that they outlive the node that made them, and
//! what the trees had written by then.

use super::{Act, Agent};
use crate::cluster::messages::{Fact, TreeId, Written};
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
        (from, owner, output): (&BTreeSet<NodeNumber>, u32, Option<&Written>),
        out: &mut Vec<Act>,
        facts: &mut Vec<Fact>,
    ) {
        let image = (tree, version);
        if self.brief.contains(&image) && self.images.contains(&image) {
            // It is said to be held once it is on the disk.
            return;
        }
        let written = self.written.contains(&image);
        if self.images.contains(&image) && (written || output.is_none()) {
            facts.push(Fact::Holds { tree, version, output: written });
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
                let (from, output) = (from.clone(), output.cloned());
                out.push(Act::Hold { tree, attempt, version, from, owner, output });
            }
        }
    }

    /// An image that was to be kept is here as a whole, and the output until then if that was to
    /// be kept (`Ok(true)`); or is not, and why. Whether it is still wanted the controller says
    /// when it hears of it.
    pub fn held(
        &mut self,
        tree: TreeId,
        attempt: u64,
        version: u64,
        done: Result<bool, String>,
    ) -> Option<Act> {
        let mine = |h: &&mut Hold| h.attempt == attempt && h.failed.is_none();
        let fact = match done {
            Ok(output) => {
                if self.holds.get(&tree).is_some_and(|h| h.version == version) {
                    self.holds.remove(&tree);
                }
                self.images.insert((tree, version));
                self.brief.remove(&(tree, version));
                if output {
                    self.written.insert((tree, version));
                }
                Fact::Holds { tree, version, output }
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
