//! Trees are stopped and ended as wholes, and what they leave behind ends with them.

use super::Init;
use super::hold::{LOOKS_MAX, now_ms, of_root};
use crate::cell::proto::{Dying, Refusal, Tree};
use crate::procs::{self, Process, Standing};
use crate::sys;
use libc::{SIGKILL, SIGSTOP};
use std::collections::BTreeSet;

/// From one look to the next at what is being ended, milliseconds.
const LOOK_MS: u64 = 500;
/// The same when the last one still found new processes, milliseconds.
const HURRY_MS: u64 = 5;

/// What may be left of trees whose first process has ended.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Those first processes: their numbers are nobody else's as long as a session or a process
    /// group is called so.
    firsts: BTreeSet<i32>,
    /// What was sent its end and has not ended.
    sent: BTreeSet<i32>,
    /// A person's last tree may have ended.
    forsaken: bool,
    /// When it is looked next.
    at_ms: u64,
}

impl Rest {
    /// A tree's first process has ended.
    pub(super) fn of(&mut self, first: i32) {
        self.firsts.insert(first);
        (self.forsaken, self.at_ms) = (true, 0);
    }

    /// The number is that of another tree's first process.
    pub(super) fn is_anothers(&mut self, first: i32) {
        self.firsts.remove(&first);
    }
}

impl Init {
    /// Has all of a tree stand still.
    pub(super) fn halt(&self, tree: Tree) -> Result<(), Refusal> {
        match self.first(tree).map(|first| signal_all(first, SIGSTOP)) {
            None | Some((_, true)) => Ok(()),
            Some((_, false)) => Err(Refusal::System(format!(
                "{tree} makes processes faster than they can be stopped"
            ))),
        }
    }

    /// Ends all of a tree, as far as it can be found.
    pub(super) fn kill(&mut self, tree: Tree) -> Dying {
        let mut known = self.dying.remove(&tree).unwrap_or_default();
        let starting = self.starting.iter().find(|(_, s)| s.tree == Some(tree));
        let starting = starting.map(|(pid, _)| *pid);
        let first = self.first(tree);
        let mut found: BTreeSet<i32> = starting.into_iter().collect();
        if let Some(first) = first {
            // What is stopped makes no others, so that none gets away while its parents end.
            found.extend(signal_all(first, SIGSTOP).0);
        }
        for pid in &found {
            send(*pid, SIGKILL);
        }
        known.extend(found);
        // That it ended is seen here before it is nobody's.
        let is_ours = |pid: i32| Some(pid) == first || Some(pid) == starting;
        known.retain(|pid| is_ours(*pid) || !procs::is_over(*pid));
        let left = known.iter().copied().collect();
        if !known.is_empty() {
            self.dying.insert(tree, known);
        }
        Dying { left }
    }

    /// The first process of a tree that runs.
    fn first(&self, tree: Tree) -> Option<i32> {
        self.watched.iter().find(|(_, of)| **of == Some(tree)).map(|(pid, _)| *pid)
    }

    /// Ends what is left of trees that have ended. When to look again, in milliseconds.
    pub(super) fn look_at_rest(&mut self) -> u64 {
        if self.rest.firsts.is_empty() && !self.rest.forsaken {
            self.rest.sent.clear();
            return u64::MAX;
        }
        let now = now_ms();
        if now < self.rest.at_ms {
            return self.rest.at_ms - now;
        }
        self.rest.sent.retain(|pid| !procs::is_over(*pid));
        let new = self.end_rest() | self.end_forsaken();
        let again_ms = if new { HURRY_MS } else { LOOK_MS };
        self.rest.at_ms = now.saturating_add(again_ms);
        again_ms
    }

    /// Whether something was found that was not sent its end before.
    fn end_rest(&mut self) -> bool {
        let Rest { firsts, sent, .. } = &mut self.rest;
        if firsts.is_empty() {
            return false;
        }
        let mut any = false;
        for _ in 0..LOOKS_MAX {
            let mut new = false;
            let mut end = |pid: i32| {
                if sent.insert(pid) {
                    send(pid, SIGKILL);
                    new = true;
                }
            };
            // Who hops from process to process is hit where it is seen.
            let all = procs::scan(|p| {
                if is_in(p, firsts) {
                    end(p.pid);
                }
            });
            let rest = rest(&all, firsts);
            rest.iter().for_each(|pid| end(*pid));
            any |= new;
            if !new {
                let lives = |p: &&Process| rest.contains(&p.pid) && !procs::is_over(p.pid);
                let live: Vec<&Process> = all.iter().filter(lives).collect();
                firsts.retain(|first| live.iter().any(|p| p.in_session(*first)));
                break;
            }
        }
        any
    }

    /// Ends what left its tree by a session of its own, once its person has no tree here any more:
    /// nothing else says whose it is. Whether something was found that was not sent its end before.
    fn end_forsaken(&mut self) -> bool {
        // What is being started or restored is nobody's yet.
        let busy = !self.starting.is_empty() || self.connections.iter().any(|c| c.wide);
        if busy || !self.rest.forsaken {
            return false;
        }
        let watched: BTreeSet<i32> = self.watched.keys().copied().collect();
        let trees = self.watched.iter().filter(|(_, tree)| tree.is_some());
        let trees: BTreeSet<i32> = trees.map(|(pid, _)| *pid).collect();
        let all = procs::standing(|_| {});
        let found = forsaken(&all, &watched, &trees);
        let mut new = false;
        for pid in &found {
            if self.rest.sent.insert(*pid) {
                send(*pid, SIGKILL);
                new = true;
            }
        }
        self.rest.forsaken = found.iter().any(|pid| !procs::is_over(*pid));
        new
    }
}

/// One that ended meanwhile is not to be found; nothing else can be refused to root.
fn send(pid: i32, signal: i32) {
    let _ended = sys::kill(pid, signal);
}

/// Sends all of a tree a signal, each process once. Which they are, and whether the last look found
/// no new one: a process to which SIGSTOP or SIGKILL was sent makes no others (copy_process() of
/// the kernel), so that none was missed.
fn signal_all(first: i32, signal: i32) -> (BTreeSet<i32>, bool) {
    let mut found = BTreeSet::new();
    for _ in 0..LOOKS_MAX {
        let before = found.len();
        let mut see = |pid: i32| {
            if found.insert(pid) {
                send(pid, signal);
            }
        };
        // Who hops from process to process is hit where it is seen.
        let all = procs::scan(|p| {
            if p.in_session(first) {
                see(p.pid);
            }
        });
        procs::members(&all, first).into_iter().for_each(&mut see);
        if found.len() == before {
            return (found, true);
        }
    }
    (found, false)
}

fn is_in(p: &Process, firsts: &BTreeSet<i32>) -> bool {
    p.pid > 1 && (firsts.contains(&p.session) || firsts.contains(&p.group))
}

/// What is in the session or the process group of one of these, and all descendants of it.
fn rest(all: &[Process], firsts: &BTreeSet<i32>) -> BTreeSet<i32> {
    let mut found: BTreeSet<i32> = all.iter().filter(|p| is_in(p, firsts)).map(|p| p.pid).collect();
    loop {
        let before = found.len();
        let more: Vec<i32> =
            all.iter().filter(|p| p.pid > 1 && found.contains(&p.parent)).map(|p| p.pid).collect();
        found.extend(more);
        if found.len() == before {
            return found;
        }
    }
}

/// The processes of persons who have no tree. What descends from one that is watched, or is root's
/// work, is not theirs.
fn forsaken(all: &[Standing], watched: &BTreeSet<i32>, trees: &BTreeSet<i32>) -> Vec<i32> {
    let mut kept = of_root(all);
    kept.extend(watched);
    loop {
        let before = kept.len();
        let more: Vec<i32> =
            all.iter().filter(|p| kept.contains(&p.parent)).map(|p| p.pid).collect();
        kept.extend(more);
        if kept.len() == before {
            break;
        }
    }
    let persons: BTreeSet<u32> =
        all.iter().filter(|p| trees.contains(&p.pid)).map(|p| p.uid).collect();
    let theirs = all.iter().filter(|p| p.pid > 1 && p.uid != 0 && !kept.contains(&p.pid));
    theirs.filter(|p| !persons.contains(&p.uid)).map(|p| p.pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_tree_is_its_session_its_group_and_their_children() {
        // wrong: a program would run on where nobody sees or ends it, or another one be ended
        let p = |pid, parent, group, session| Process { pid, parent, group, session };
        let all = [
            p(1, 0, 0, 0),
            p(11, 1, 11, 10),  // in the background
            p(12, 11, 12, 12), // its child, in a session of its own
            p(13, 1, 10, 14),
            p(20, 1, 20, 20), // another tree
            p(21, 20, 20, 20),
        ];
        assert_eq!(rest(&all, &BTreeSet::from([10])), BTreeSet::from([11, 12, 13]));
        assert!(rest(&all, &BTreeSet::from([30])).is_empty());
    }

    #[test]
    fn what_left_its_tree_ends_with_its_persons_last_one() {
        // wrong: `setsid` would be a way to run without a job, for good; or a program, a shell's
        // keeper or what CRIU works at would be ended with somebody else's tree
        let p = |pid, parent, uid| Standing { pid, parent, uid, tracer: 0, stopped: false };
        let all = [
            p(1, 0, 0),
            p(40, 1, 70_001), // a tree
            p(41, 40, 70_001),
            p(42, 1, 70_001), // left it
            p(50, 1, 70_002), // left a tree that has ended
            p(51, 50, 70_002),
            p(60, 1, 0), // CRIU
            p(61, 60, 70_003),
            p(2, 1, 70_004), // a keeper
            p(3, 2, 70_004),
        ];
        let watched = BTreeSet::from([2, 40]);
        assert_eq!(forsaken(&all, &watched, &BTreeSet::from([40])), [50, 51]);
        let none = forsaken(&all, &BTreeSet::from([2]), &BTreeSet::new());
        assert_eq!(none, [40, 41, 42, 50, 51]);
    }
}
