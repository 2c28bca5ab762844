//! Points in time as XOS stores and sends them.

use rustix::time::{ClockId, clock_gettime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
///
/// On the wire a plain integer. Text form is RFC 3339 in UTC.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// The given system time; times before 1970 become 0.
    pub fn of(t: SystemTime) -> Millis {
        let ms = t.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Millis(u64::try_from(ms).unwrap_or(u64::MAX))
    }

    /// This time plus `d`, saturating.
    pub fn plus(self, d: Duration) -> Millis {
        Millis(self.0.saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This time minus `d`, not below 0.
    pub fn minus(self, d: Duration) -> Millis {
        Millis(self.0.saturating_sub(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Millis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds since 1970.
    pub fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// From whole seconds since 1970.
    pub fn from_secs(secs: u64) -> Millis {
        Millis(secs.saturating_mul(1000))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = i64::try_from(self.secs())
            .ok()
            .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok())
            .and_then(|t| t.format(&Rfc3339).ok());
        match text {
            Some(t) => f.write_str(&t),
            None => write!(f, "{} ms", self.0),
        }
    }
}

/// Where a service reads the time; tests pass their own.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Millis;

    /// Since the machine was started, what it slept included. Nobody can set it.
    fn up(&self) -> Millis {
        let up = clock_gettime(ClockId::Boottime);
        let whole = Duration::from_secs(up.tv_sec.try_into().unwrap_or_default());
        Millis(0).plus(whole + Duration::from_nanos(up.tv_nsec.try_into().unwrap_or_default()))
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        Millis::of(SystemTime::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_rfc3339() {
        assert_eq!(Millis(1_000).to_string(), "1970-01-01T00:00:01Z");
        assert_eq!(Millis(u64::MAX).to_string(), format!("{} ms", u64::MAX));
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Millis(5).minus(Duration::from_secs(1)), Millis(0));
        assert_eq!(Millis(u64::MAX).plus(Duration::from_secs(1)), Millis(u64::MAX));
        assert_eq!(Millis(5).since(Millis(9)), Duration::ZERO);
    }
}
