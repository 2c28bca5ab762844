//! Trees stand still when the node's lease is over, also when its agent is dead.

use super::Init;
use crate::cell::lease::Due;
use crate::cell::proto::Leased;
use crate::procs::{self, Standing};
use crate::sys;
use libc::{SIGKILL, SIGSTOP};
use std::collections::{BTreeMap, BTreeSet};
use xos_base::when::{Clock, SystemClock};

/// From one look to the next at what stands still, milliseconds.
const LOOK_MS: u64 = 100;
/// The same when the last one still found new processes, milliseconds.
const HURRY_MS: u64 = 1;
/// How often it is looked for new processes before requests are again.
pub(super) const LOOKS_MAX: u32 = 16;

/// Now, by the clock of leases.
pub(super) fn now_ms() -> u64 {
    SystemClock.up().0
}

impl Init {
    /// Takes a lease. One that is over holds at once: when this returns, everybody is stopped.
    pub(super) fn take_lease(&mut self, until_ms: u64, end_after_ms: Option<u64>) -> Leased {
        let now = now_ms();
        let held = self.lease.take(until_ms, end_after_ms, now);
        self.hold_at_ms = 0;
        self.look_at_lease();
        let told = held && !self.lease.is_held(now);
        if told {
            // Init does not hear of the end of what is not its child, as of what came in.
            self.halted.retain(|pid| !procs::is_over(*pid));
        }
        let stopped = if told { self.halted.iter().copied().collect() } else { Vec::new() };
        Leased { held, stopped }
    }

    /// Has all trees stand still, or ends them, when that is due. When to look again, in
    /// milliseconds.
    pub(super) fn look_at_lease(&mut self) -> u64 {
        let now = now_ms();
        let ending = match self.lease.due(now) {
            Due::Run { left_ms } => {
                self.hold_at_ms = 0;
                return left_ms;
            }
            Due::Hold => false,
            // An agent that lives knows better whether they run elsewhere.
            Due::End => self.connections.is_empty(),
        };
        if self.childless {
            return u64::MAX;
        }
        if now < self.hold_at_ms {
            return self.hold_at_ms - now;
        }
        let again_ms = if self.hold(ending) { LOOK_MS } else { HURRY_MS };
        self.hold_at_ms = now + again_ms;
        again_ms
    }

    /// Stops or ends what runs. Whether the last look found nothing new: a process to which a
    /// signal was sent makes no others (copy_process() of the kernel), so that none was missed.
    fn hold(&mut self, ending: bool) -> bool {
        let signal = if ending { SIGKILL } else { SIGSTOP };
        let restoring = self.connections.iter().any(|c| c.wide);
        let (starting, halted) = (&self.starting, &mut self.halted);
        let mut seen = BTreeSet::new();
        let mut send = |pid: i32| {
            // What is no program yet would keep its agent waiting.
            if starting.contains_key(&pid) || !seen.insert(pid) {
                return false;
            }
            // One that ended meanwhile is not to be found; nothing else can be refused to root.
            if sys::kill(pid, signal).is_ok() && !ending {
                halted.insert(pid);
            }
            true
        };
        for _ in 0..LOOKS_MAX {
            let mut new = false;
            // Who hops from process to process, each the last one's orphan, is hit where it is
            // seen, or would be another one by the time that all are seen.
            let all = procs::standing(|p| {
                if is_orphan(p) {
                    new |= send(p.pid);
                }
            });
            for pid in persons(&all, ending, restoring) {
                new |= send(pid);
            }
            if !new {
                return true;
            }
        }
        false
    }
}

/// Whether it is a person's that runs, init's child, and nobody's work.
fn is_orphan(p: &Standing) -> bool {
    p.pid > 1 && p.uid != 0 && p.parent == 1 && p.tracer == 0 && !p.stopped
}

/// The processes of persons that are to be stopped, or ended. What is root's is a helper's, or a
/// CRIU's that saves; while the host restores (`restoring`), what came in is a CRIU that makes a
/// copy, with its person's rights. What these make or hold is theirs until they let go of it, and
/// is looked at then: a half of a copy that was stopped would go on with the next lease.
fn persons(all: &[Standing], ending: bool, restoring: bool) -> Vec<i32> {
    let came = all.iter().filter(|p| restoring && came_in(p)).map(|p| p.pid);
    let works: BTreeSet<i32> = roots(all).chain(came).collect();
    let made = made_by(all, works.clone());
    let runs = |p: &Standing| !p.stopped && !works.contains(&p.tracer) && !made.contains(&p.pid);
    let found = all.iter().filter(|p| p.pid > 1 && p.uid != 0 && (ending || runs(p)));
    found.map(|p| p.pid).collect()
}

fn roots(all: &[Standing]) -> impl Iterator<Item = i32> {
    all.iter().filter(|p| p.pid > 1 && p.uid == 0).map(|p| p.pid)
}

/// Whether who made it is outside of the cell: it came in as only root lets somebody (setns(2)).
/// What loses its parent is init's child, so that no program becomes one.
fn came_in(p: &Standing) -> bool {
    p.pid > 1 && p.parent == 0
}

/// What is root's in a cell, and all that descends from it.
pub(super) fn of_root(all: &[Standing]) -> BTreeSet<i32> {
    made_by(all, roots(all).collect())
}

/// These and all that descends from them.
fn made_by(all: &[Standing], mut made: BTreeSet<i32>) -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for p in all {
        children.entry(p.parent).or_default().push(p.pid);
    }
    let mut left: Vec<i32> = made.iter().copied().collect();
    while let Some(pid) = left.pop() {
        let new = children.get(&pid).into_iter().flatten().filter(|child| made.insert(**child));
        left.extend(new);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_persons_run_is_stopped_and_what_root_works_at_is_not() {
        // wrong: a process would run on by leaving its tree or by having itself traced; or a
        // checkpoint be damaged that is just being made
        let p = |pid, parent, uid, tracer| Standing { pid, parent, uid, tracer, stopped: false };
        let stopped = |p: Standing| Standing { stopped: true, ..p };
        let all = [
            p(1, 0, 0, 0),
            p(40, 1, 70_001, 0),          // a tree
            p(41, 40, 70_001, 0),         // its child
            p(42, 1, 70_001, 0),          // left its tree
            p(43, 40, 70_001, 42),        // traced by its own
            p(44, 1, 70_001, 1),          // by init, which traces nobody
            stopped(p(45, 1, 70_001, 0)), // stands still
            p(50, 0, 0, 0),               // a CRIU that saves
            p(51, 50, 70_002, 0),         // of its own
            p(53, 1, 70_002, 50),         // what it saves
            p(2, 1, 0, 0),                // a helper
        ];
        assert_eq!(persons(&all, false, false), [40, 41, 42, 43, 44]);
        assert_eq!(persons(&all, false, true), [40, 41, 42, 43, 44]);
        assert_eq!(persons(&all, true, false), [40, 41, 42, 43, 44, 45, 51, 53]);
        // a list that was torn while it was read: no look goes round for ever
        assert_eq!(persons(&[p(60, 61, 70_001, 0), p(61, 60, 70_001, 0)], false, true), [60, 61]);
    }

    #[test]
    fn a_copy_that_is_made_is_its_criu_s_until_that_is_over() {
        // wrong: CRIU, which is the person's, would be stopped in the middle of a copy, and that go
        // on with the next lease before it is anybody's; or what came in run on for ever
        let p = |pid, parent, tracer| Standing { pid, parent, uid: 70_002, tracer, stopped: false };
        let all = [
            Standing { uid: 0, ..p(1, 0, 0) },
            p(40, 1, 0),   // a tree
            p(41, 40, 0),  // its child
            p(50, 0, 0),   // CRIU
            p(51, 50, 50), // what it restores
            p(52, 51, 50),
            p(53, 50, 0), // what it asks by
            p(54, 1, 50), // what lost its parent meanwhile
        ];
        assert_eq!(persons(&all, false, true), [40, 41]);
        assert_eq!(persons(&all, false, false), [40, 41, 50, 51, 52, 53, 54]);
    }
}
