//! How often a tree is checkpointed.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The shortest interval that is chosen by itself.
pub const INTERVAL_MIN: Duration = Duration::from_secs(10);
/// The longest interval that is chosen by itself.
pub const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// The mean time between failures of a node of which nothing is known.
pub const MTBF_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);
/// What a checkpoint is taken to cost before one was made.
pub const COST_DEFAULT: Duration = Duration::from_millis(100);

/// What was wished for a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interval {
    /// By what a checkpoint costs and how often nodes fail.
    #[default]
    Best,
    /// So long.
    Every(Duration),
    /// No checkpoints by themselves.
    Never,
}

/// The time from one checkpoint to the next, by Young's first-order formula sqrt(2 C M) (J. W.
/// Young, CACM 17(9), 1974): `cost` for which the tree stood still, `mtbf` the mean time between
/// failures of its node.
pub fn between(wish: Interval, cost: Option<Duration>, mtbf: Duration) -> Option<Duration> {
    match wish {
        Interval::Never => None,
        // Never shorter than what the checkpoint itself takes.
        Interval::Every(every) => Some(every.max(cost.unwrap_or_default().saturating_mul(2))),
        Interval::Best => {
            let cost = cost.unwrap_or(COST_DEFAULT).as_secs_f64();
            let best = (2.0 * cost * mtbf.as_secs_f64()).sqrt();
            // The bounds come first: an interval of no sensible length is no Duration.
            let (least, most) = (INTERVAL_MIN.as_secs_f64(), INTERVAL_MAX.as_secs_f64());
            Some(Duration::from_secs_f64(best.clamp(least, most)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn costly_checkpoints_are_rarer() {
        // sqrt(2 * 0.025 * 86400) = 65.7 s; sqrt(2 * 0.6 * 86400) = 322 s
        let best = |ms| between(Interval::Best, Some(Duration::from_millis(ms)), DAY).unwrap();
        assert_eq!(best(25).as_secs(), 65);
        assert_eq!(best(600).as_secs(), 321);
    }

    #[test]
    fn the_interval_has_bounds() {
        let best = |cost, mtbf| between(Interval::Best, Some(cost), mtbf).unwrap();
        assert_eq!(best(Duration::ZERO, DAY), INTERVAL_MIN);
        assert_eq!(best(Duration::from_secs(1), Duration::ZERO), INTERVAL_MIN);
        assert_eq!(best(Duration::MAX, Duration::MAX), INTERVAL_MAX);
    }

    #[test]
    fn a_wish_is_followed() {
        let every = Duration::from_secs(5);
        let cost = Some(Duration::from_millis(20));
        assert_eq!(between(Interval::Every(every), cost, DAY), Some(every));
        let slow = Some(Duration::from_secs(4));
        let got = between(Interval::Every(every), slow, DAY);
        assert_eq!(got, Some(Duration::from_secs(8)), "it would do nothing but checkpoints");
        assert_eq!(between(Interval::Never, cost, DAY), None);
    }
}
