//! When to try again, and when to give up.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{ATTEMPTS_MAX, RETRY_PAUSE, RETRY_PAUSE_MAX};

/// The time and the attempts one operation has left.
#[derive(Debug)]
pub(crate) struct Patience {
    until: Instant,
    pause: Duration,
    attempts: u32,
}

impl Patience {
    /// A whole operation's patience, from now on.
    pub(crate) fn new(deadline: Duration) -> Patience {
        let until = Instant::now() + deadline;
        Patience { until, pause: RETRY_PAUSE, attempts: ATTEMPTS_MAX }
    }

    /// When the operation must have ended.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Waits before the next attempt; `false` when there must be none.
    pub(crate) async fn again(&mut self) -> bool {
        let Some(pause) = self.next_pause(Instant::now()) else { return false };
        tokio::time::sleep(pause).await;
        true
    }

    fn next_pause(&mut self, now: Instant) -> Option<Duration> {
        self.attempts = self.attempts.checked_sub(1)?;
        let pause = self.pause;
        self.pause = (pause * 2).min(RETRY_PAUSE_MAX);
        (now + pause < self.until).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::OPERATION_DEADLINE;

    #[test]
    fn pauses_grow_to_a_limit_and_end_at_the_deadline() {
        let mut patience = Patience::new(OPERATION_DEADLINE);
        let start = Instant::now();
        assert_eq!(patience.next_pause(start), Some(RETRY_PAUSE));
        assert_eq!(patience.next_pause(start), Some(RETRY_PAUSE * 2));
        for _ in 0..10 {
            assert!(patience.next_pause(start).is_some_and(|p| p <= RETRY_PAUSE_MAX));
        }
        assert_eq!(patience.next_pause(start + OPERATION_DEADLINE), None, "past the deadline");
    }

    #[test]
    fn attempts_are_counted_also_when_time_stands_still() {
        let mut patience = Patience::new(OPERATION_DEADLINE);
        let now = Instant::now();
        let tries = std::iter::from_fn(|| patience.next_pause(now)).count();
        assert_eq!(tries, ATTEMPTS_MAX as usize);
    }
}
