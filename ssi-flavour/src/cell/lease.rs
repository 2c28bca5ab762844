//! Until when the trees of a cell may run, as its agent said last.
//!
//! Times are those of a clock that nobody can set and that goes on while the machine sleeps
//! ([`xos_base::when::Clock::up`], `CLOCK_BOOTTIME`), in milliseconds.

/// What is to become of the trees now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// They run, for so long yet.
    Run { left_ms: u64 },
    /// They stand still.
    Hold,
    /// They stood still for so long that others run in their place.
    End,
}

/// A cell's lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    until_ms: u64,
    /// From when on nothing may run.
    held_from_ms: u64,
    end_after_ms: Option<u64>,
}

impl Lease {
    /// None yet: nothing may run.
    pub(super) fn none(now_ms: u64) -> Lease {
        Lease { until_ms: 0, held_from_ms: now_ms, end_after_ms: None }
    }

    /// Takes a new one, and says whether all had to stand still before it.
    pub(super) fn take(&mut self, until_ms: u64, end_after_ms: Option<u64>, now_ms: u64) -> bool {
        let held = self.is_held(now_ms);
        // What stands still gets no more time by another lease that is over.
        if !held || until_ms > now_ms {
            self.held_from_ms = until_ms.max(now_ms);
        }
        (self.until_ms, self.end_after_ms) = (until_ms, end_after_ms);
        held
    }

    /// As it was said last; 0: never, or that nothing may run.
    pub(super) fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// Whether nothing may run.
    pub(super) fn is_held(&self, now_ms: u64) -> bool {
        now_ms >= self.held_from_ms
    }

    /// What is to become of the trees.
    pub(super) fn due(&self, now_ms: u64) -> Due {
        if !self.is_held(now_ms) {
            return Due::Run { left_ms: self.held_from_ms - now_ms };
        }
        let held_ms = now_ms - self.held_from_ms;
        let over = self.end_after_ms.is_some_and(|after_ms| held_ms >= after_ms);
        if over { Due::End } else { Due::Hold }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_runs_without_a_lease_or_after_it() {
        // wrong: two copies of a tree would run at once, on two nodes
        let mut lease = Lease::none(1000);
        assert_eq!((lease.due(1000), lease.until_ms()), (Due::Hold, 0));
        assert!(lease.take(1500, None, 1100), "nothing was said before");
        assert_eq!(lease.due(1499), Due::Run { left_ms: 1 });
        assert_eq!(lease.due(1500), Due::Hold);
        assert!(!lease.take(1600, None, 1499), "it was extended in time");
        assert!(lease.take(1800, None, 1600), "it was not");
        assert_eq!(lease.due(1700), Due::Run { left_ms: 100 });
        // The last word counts, a shorter one too.
        assert!(!lease.take(0, None, 1700));
        assert_eq!(lease.due(1700), Due::Hold);
    }

    #[test]
    fn what_stood_still_for_long_ends_and_nothing_else() {
        // wrong: copies that are nobody's would hold memory for ever, or be ended while they are
        // the tree
        let mut lease = Lease::none(0);
        assert_eq!(lease.due(u64::MAX), Due::Hold, "nobody said after how long");
        lease.take(2000, Some(500), 1000);
        assert_eq!((lease.due(2499), lease.due(2500)), (Due::Hold, Due::End));
        // a word that gives no time to run gives none to stand still either
        lease.take(0, Some(500), 2400);
        assert_eq!((lease.due(2499), lease.due(2500)), (Due::Hold, Due::End));
        lease.take(3000, Some(500), 2600);
        assert_eq!(lease.due(2999), Due::Run { left_ms: 1 });
        lease.take(0, Some(500), 2700);
        // from when it was said
        assert_eq!((lease.due(3199), lease.due(3200)), (Due::Hold, Due::End));
    }
}
