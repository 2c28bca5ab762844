//! Ends of trees that nobody has acknowledged yet.

use super::proto::{ENDED_MAX, Ended, Exit, Tree, Usage};
use std::collections::VecDeque;

/// How many orphans are remembered that ended before somebody asked for them.
const ORPHANS_MAX: usize = 256;

/// Ends in their order, from the first that is not acknowledged.
#[derive(Default)]
pub(super) struct Kept {
    seq: u64,
    waiting: VecDeque<Ended>,
}

impl Kept {
    /// Numbers an end and keeps it.
    pub(super) fn push(&mut self, tree: Option<Tree>, pid: i32, exit: Exit, usage: Usage) -> Ended {
        self.seq += 1;
        let ended = Ended { seq: self.seq, tree, pid, exit, usage };
        self.waiting.push_back(ended);
        ended
    }

    /// Forgets those up to a number.
    pub(super) fn acknowledge(&mut self, seq: u64) {
        while self.waiting.front().is_some_and(|e| e.seq <= seq) {
            self.waiting.pop_front();
        }
    }

    /// Those that wait.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Ended> {
        self.waiting.iter()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no more trees are to be started, so that this stays bounded.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= ENDED_MAX
    }
}

/// Ends of processes that were nobody's: a restored tree may be over before it is adopted.
#[derive(Default)]
pub(super) struct Orphans(VecDeque<(i32, Exit, Usage)>);

impl Orphans {
    /// Remembers one, and forgets the oldest.
    pub(super) fn push(&mut self, pid: i32, exit: Exit, usage: Usage) {
        self.0.retain(|o| o.0 != pid);
        if self.0.len() == ORPHANS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((pid, exit, usage));
    }

    /// Takes the end of a process.
    pub(super) fn take(&mut self, pid: i32) -> Option<(Exit, Usage)> {
        let at = self.0.iter().position(|o| o.0 == pid)?;
        self.0.remove(at).map(|(_, exit, usage)| (exit, usage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_kept_until_it_is_acknowledged() {
        // wrong: a restarted agent would never learn that a tree is over, or learn it twice
        let mut kept = Kept::default();
        let pids = |kept: &Kept| kept.waiting().map(|e| (e.seq, e.pid)).collect::<Vec<_>>();
        for pid in [10, 11, 12] {
            kept.push(None, pid, Exit::Code(0), Usage::default());
        }
        assert_eq!(pids(&kept), [(1, 10), (2, 11), (3, 12)]);
        kept.acknowledge(2);
        kept.acknowledge(1);
        assert_eq!(pids(&kept), [(3, 12)]);
        kept.acknowledge(9);
        kept.push(None, 13, Exit::Signal(9), Usage::default());
        assert_eq!(pids(&kept), [(4, 13)]);
    }

    #[test]
    fn of_orphans_the_newest_counts_and_few_are_remembered() {
        // wrong: a tree would be given the end of an older process with its pid
        let mut orphans = Orphans::default();
        orphans.push(7, Exit::Code(1), Usage::default());
        orphans.push(7, Exit::Code(2), Usage::default());
        assert_eq!(orphans.take(7), Some((Exit::Code(2), Usage::default())));
        assert_eq!(orphans.take(7), None);
        for pid in 0..=ORPHANS_MAX as i32 {
            orphans.push(pid, Exit::Code(0), Usage::default());
        }
        assert_eq!((orphans.take(0), orphans.take(1).is_some()), (None, true));
    }
}
