//! When the daemon hears that the log has grown: at once as a rule, in steps when units end one
//! after the other. Each telling costs the daemon, the core and its disk about as much as a short
//! unit costs this machine.

/// How long a start is kept back for its end, milliseconds: a short unit is told once.
const START_MS: u64 = 4;
/// Tellings that may follow one another at once.
const BURST: u64 = 8;
/// After those, the time from one to the next, milliseconds.
const STEP_MS: u64 = 20;

/// What has grown and was not told yet, and how much was told lately.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// Since when something is to be told, and whether a unit's end is among it.
    grown: Option<(u64, bool)>,
    /// When all tellings of a burst are there again.
    full_at: u64,
}

impl Telling {
    /// The log has grown, by the end of a unit or without.
    pub(super) fn grown(&mut self, now: u64, ended: bool) {
        let (_, any) = self.grown.get_or_insert((now, false));
        *any |= ended;
    }

    /// When it is time to tell.
    pub(super) fn due(&self) -> Option<u64> {
        let (since, ended) = self.grown?;
        let calm = if ended { since } else { since + START_MS };
        Some(calm.max((self.full_at + STEP_MS).saturating_sub(BURST * STEP_MS)))
    }

    /// Whether it is time; then it counts as told.
    pub(super) fn is_due(&mut self, now: u64) -> bool {
        let due = self.due().is_some_and(|at| at <= now);
        if due {
            self.grown = None;
            self.full_at = self.full_at.max(now) + STEP_MS;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_at_once_and_a_start_waits_for_it() {
        // wrong: people would wait for the end of a short job, or it would be reported twice
        let mut t = Telling::default();
        assert!(t.due().is_none() && !t.is_due(1000));
        t.grown(1000, false);
        assert_eq!(t.due(), Some(1000 + START_MS));
        assert!(!t.is_due(1001));
        t.grown(1001, true);
        assert!(t.is_due(1001));
        assert!(t.due().is_none());
        t.grown(2000, false);
        assert!(t.is_due(2000 + START_MS), "a long unit's start is never told");
    }

    #[test]
    fn a_stream_of_ends_is_told_in_steps() {
        // wrong: a thousand short units would be a thousand reports
        let mut t = Telling::default();
        let mut told = Vec::new();
        for now in 5000..6000 {
            t.grown(now, true);
            if t.is_due(now) {
                told.push(now);
            }
        }
        let burst = usize::try_from(BURST).unwrap();
        assert!(told.iter().take(burst).eq(&(5000..5000 + BURST).collect::<Vec<_>>()), "{told:?}");
        assert!(told[burst + 1..].windows(2).all(|w| w[1] - w[0] == STEP_MS), "{told:?}");
        let late = t.due().unwrap();
        assert!(late <= 6000 + STEP_MS, "the last one is told too");
        assert!(t.is_due(late));
        t.grown(late + BURST * STEP_MS, true);
        assert!(t.is_due(late + BURST * STEP_MS), "after a pause it is at once again");
    }
}
