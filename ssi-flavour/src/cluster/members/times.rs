//! For how long a node may be silent, and work.

use std::time::Duration;

/// How fast or slow a clock may be, in percent. Clocks of machines stay within 0.1.
const DRIFT_PERCENT: u32 = 1;
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);
const HEARTBEAT_MAX: Duration = Duration::from_secs(10);
const DEAD_MAX: Duration = Duration::from_secs(600);

/// When a silent node is taken for what. Measured by clocks that nobody can set
/// ([`xos_base::when::Clock::up`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    heartbeat: Duration,
    suspect: Duration,
    dead: Duration,
}

/// Times that would not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimesError {
    /// The heartbeat.
    #[error("a heartbeat every {0:?} is not possible: from 100 ms to 10 s")]
    Heartbeat(Duration),
    /// Until a node is suspect.
    #[error("a node suspect after {0:?} of silence: let it be at least two heartbeats")]
    Suspect(Duration),
    /// Until a node is dead.
    #[error(
        "a node dead after {0:?} of silence: at least twice the time to suspect, at most 10 min"
    )]
    Dead(Duration),
}

impl Default for Times {
    fn default() -> Times {
        Times {
            heartbeat: Duration::from_secs(1),
            suspect: Duration::from_secs(3),
            dead: Duration::from_secs(8),
        }
    }
}

impl Times {
    /// The time from one heartbeat to the next, and of silence until a node is suspect and dead.
    ///
    /// # Errors
    /// [`TimesError`] when they do not go together.
    pub fn new(
        heartbeat: Duration,
        suspect: Duration,
        dead: Duration,
    ) -> Result<Times, TimesError> {
        if !(HEARTBEAT_MIN..=HEARTBEAT_MAX).contains(&heartbeat) {
            return Err(TimesError::Heartbeat(heartbeat));
        }
        if suspect < heartbeat * 2 {
            return Err(TimesError::Suspect(suspect));
        }
        if dead > DEAD_MAX || dead < suspect.saturating_mul(2) {
            return Err(TimesError::Dead(dead));
        }
        Ok(Times { heartbeat, suspect, dead })
    }

    /// From one heartbeat to the next.
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// Of silence until a node is suspect.
    pub fn suspect(&self) -> Duration {
        self.suspect
    }

    /// Of silence until a node's term is ended.
    pub fn dead(&self) -> Duration {
        self.dead
    }

    /// What a node has, once its lease ended, until all its copies must stand still.
    pub fn stop(&self) -> Duration {
        self.dead / 8
    }

    /// How long a node may run trees after it sent a heartbeat that was answered. With the slowest
    /// clock at the node and the fastest at the controller, its copies stand still before the
    /// controller, which heard the heartbeat no earlier than it was sent, takes it for dead.
    pub fn lease(&self) -> Duration {
        self.dead * (100 - DRIFT_PERCENT) / (100 + DRIFT_PERCENT) - self.stop()
    }
}
