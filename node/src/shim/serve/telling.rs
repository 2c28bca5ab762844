//! When the daemon hears that the log has grown: at once as a rule, and always when nothing is left
//! to run, for then somebody waits; in steps while one unit ends after the other. Each telling
//! costs the daemon, the core and its disk about as much as a short unit costs this machine.

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

    /// When it is time to tell; `idle`: no unit runs or waits.
    pub(super) fn due(&self, idle: bool) -> Option<u64> {
        let (since, ended) = self.grown?;
        let calm = if ended { since } else { since + START_MS };
        let step = (self.full_at + STEP_MS).saturating_sub(BURST * STEP_MS);
        Some(if idle { calm } else { calm.max(step) })
    }

    /// Whether it is time; then it counts as told.
    pub(super) fn is_due(&mut self, now: u64, idle: bool) -> bool {
        let due = self.due(idle).is_some_and(|at| at <= now);
        if due {
            self.grown = None;
            self.full_at = (self.full_at.max(now) + STEP_MS).min(now + BURST * STEP_MS);
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
        assert!(t.due(false).is_none() && !t.is_due(1000, false));
        t.grown(1000, false);
        assert_eq!(t.due(false), Some(1000 + START_MS));
        assert!(!t.is_due(1001, false));
        t.grown(1001, true);
        assert!(t.is_due(1001, false));
        assert!(t.due(false).is_none());
        t.grown(2000, false);
        assert!(t.is_due(2000 + START_MS, false), "a long unit's start is never told");
    }

    #[test]
    fn a_stream_of_ends_is_told_in_steps() {
        // wrong: a thousand short units would be a thousand reports
        let mut t = Telling::default();
        let mut told = Vec::new();
        for now in 5000..6000 {
            t.grown(now, true);
            if t.is_due(now, false) {
                told.push(now);
            }
        }
        let burst = usize::try_from(BURST).unwrap();
        assert!(told.iter().take(burst).eq(&(5000..5000 + BURST).collect::<Vec<_>>()), "{told:?}");
        assert!(told[burst + 1..].windows(2).all(|w| w[1] - w[0] == STEP_MS), "{told:?}");
        let late = t.due(false).unwrap();
        assert!(late <= 6000 + STEP_MS, "the last one is told too");
        assert!(t.is_due(late, false));
        t.grown(late + BURST * STEP_MS, true);
        assert!(t.is_due(late + BURST * STEP_MS, false), "after a pause it is at once again");
    }
    #[test]
    fn the_last_end_is_told_at_once() {
        // wrong: who runs one short job after the other would wait a step for each
        let mut t = Telling::default();
        for now in (1000..2000).step_by(2) {
            t.grown(now, true);
            assert!(t.is_due(now, true), "{now}");
        }
        t.grown(2000, true);
        assert!(
            t.due(false).is_some_and(|at| at <= 2000 + BURST * STEP_MS),
            "it has fallen behind"
        );
    }
}
