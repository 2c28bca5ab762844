//! A node's clock against its core's. Leases go by clocks that nobody can set; but certificates,
//! tickets and the times of files go by this one, and a program takes all of that along.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::time::Duration;
use xos_base::Millis;

/// How a node's clock stands, as one question and its answer showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClockSeen {
    /// How far it is ahead of the core's, if both ways took the same time; negative: behind.
    /// Milliseconds.
    pub ahead_ms: i64,
    /// By how much that may be wrong: half of what question and answer took. Milliseconds.
    pub give_ms: u64,
}

impl ClockSeen {
    /// By a question that was answered at `now` of the node's clock, `round` after it was asked,
    /// and with the time that it was at the core.
    pub fn at(now: Millis, round: Duration, core: Millis) -> ClockSeen {
        let half = u64::try_from(round.as_millis() / 2).unwrap_or(u64::MAX);
        let ahead = i128::from(now.0) - i128::from(half) - i128::from(core.0);
        let far = if ahead < 0 { i64::MIN } else { i64::MAX };
        ClockSeen { ahead_ms: i64::try_from(ahead).unwrap_or(far), give_ms: half }
    }

    /// Whether it is surely more than `most` off, or surely not; none: that cannot be said.
    pub fn is_wrong(&self, most: Duration) -> Option<bool> {
        let (off, most) = (u128::from(self.ahead_ms.unsigned_abs()), most.as_millis());
        let give = u128::from(self.give_ms);
        if off > most + give {
            Some(true)
        } else if off + give <= most {
            Some(false)
        } else {
            None
        }
    }

    /// What is told of one that is more than `most` off.
    pub fn trouble(&self, most: Duration) -> String {
        let way = match self.ahead_ms.cmp(&0) {
            Ordering::Less => "behind",
            Ordering::Equal | Ordering::Greater => "ahead of",
        };
        let (off, most) = (self.ahead_ms.unsigned_abs() / 1000, most.as_secs());
        format!(
            "its clock is {off} s {way} the core's, and {most} s is the most: set one of them right"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(60);

    /// If it failed, a slow network would make clocks wrong, or hide that one is.
    #[test]
    fn what_the_way_took_is_no_fault_of_the_clock() {
        let round = Duration::from_secs(2);
        let seen = ClockSeen::at(Millis(101_000), round, Millis(100_000));
        assert_eq!(seen, ClockSeen { ahead_ms: 0, give_ms: 1000 });
        assert_eq!(seen.is_wrong(MOST), Some(false));
        let off = |ahead: u64| ClockSeen::at(Millis(101_000 + ahead), round, Millis(100_000));
        assert_eq!(off(59_000).is_wrong(MOST), Some(false));
        assert_eq!(off(60_000).is_wrong(MOST), None);
        assert_eq!(off(61_001).is_wrong(MOST), Some(true));
        let behind = ClockSeen::at(Millis(0), Duration::ZERO, Millis(90_000));
        assert_eq!((behind.ahead_ms, behind.is_wrong(MOST)), (-90_000, Some(true)));
        assert!(behind.trouble(MOST).contains("90 s behind"), "{}", behind.trouble(MOST));
    }

    /// If it failed, a node could bring the core down by what it says of its clock.
    #[test]
    fn no_figure_is_too_large() {
        let far = ClockSeen { ahead_ms: i64::MIN, give_ms: u64::MAX };
        assert_eq!(far.is_wrong(MOST), None);
        assert!(!far.trouble(MOST).is_empty());
        let seen = ClockSeen::at(Millis(u64::MAX), Duration::MAX, Millis(0));
        assert_eq!(seen.give_ms, u64::MAX);
        assert_eq!(ClockSeen::at(Millis(u64::MAX), MOST, Millis(0)).ahead_ms, i64::MAX);
    }
}
