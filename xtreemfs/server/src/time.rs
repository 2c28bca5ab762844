//! Time as a parameter.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where a server takes the time from.
pub trait Clock: Send + Sync + 'static {
    /// Time since 1970.
    fn now(&self) -> Duration;

    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX)
    }

    /// Nanoseconds since 1970.
    fn now_ns(&self) -> i64 {
        i64::try_from(self.now().as_nanos()).unwrap_or(i64::MAX)
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        // A clock before 1970 counts as 1970.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}
