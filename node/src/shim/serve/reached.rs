//! Which limits of its envelope a unit ran into, by the kernel's own counters.

use super::super::machine::Reached;
use super::Serve;
use crate::event::Outcome;
use std::collections::HashMap;

/// What was counted when it was last looked.
#[derive(Default)]
pub(super) struct Counted {
    /// Processes that were ended for want of memory.
    oom_kills: u64,
    /// How often a process had been refused when the unit in a place was started.
    refused_before: HashMap<u32, u64>,
}

impl Serve<'_> {
    /// The unit in a place is about to be started.
    pub(super) fn count_from_here(&mut self, slot: u32) {
        self.counted.refused_before.insert(slot, self.plan.cgroup.forks_refused());
    }

    /// What the unit in a place that ended like that ran into. For one that ended well nothing is
    /// looked up.
    pub(super) fn reached(&mut self, slot: u32, outcome: &Outcome) -> Reached {
        let before = self.counted.refused_before.remove(&slot);
        let (memory, processes) = match outcome {
            Outcome::Signaled { signal: 9, .. } | Outcome::Exited { code: 137, .. } => (true, true),
            Outcome::Signaled { .. } => (false, true),
            Outcome::Exited { code, .. } => (false, *code != 0),
            _ => (false, false),
        };
        Reached {
            memory: memory && self.oom_rose(),
            processes: processes
                && before.is_some_and(|before| before < self.plan.cgroup.forks_refused()),
        }
    }

    /// Whether processes were ended for want of memory since this was asked last.
    pub(super) fn oom_rose(&mut self) -> bool {
        let seen = self.plan.cgroup.oom_kills();
        std::mem::replace(&mut self.counted.oom_kills, seen) < seen
    }
}
