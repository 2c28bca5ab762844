//! What is said to the core, and what its answers show of this node's clock.

use crate::agent::Agent;
use std::sync::PoisonError;
use std::time::Duration;
use xos_base::Error;
use xos_ssi::cluster::clock::ClockSeen;
use xos_ssi::wire::{ClusterHeard, ClusterSay};

/// An answer that took longer says too little of the clock.
const ROUND_MAX: Duration = Duration::from_secs(5);

impl Agent {
    /// Says something to the core, and with it how this node's clock stood at the last answer.
    ///
    /// # Errors
    /// What the core says, or that it is not reached.
    pub(super) async fn say(&self, mut say: ClusterSay) -> Result<ClusterHeard, Error> {
        let clock = self.cluster.as_ref().map(|clustered| &clustered.clock);
        say.clock = clock.and_then(|c| *c.lock().unwrap_or_else(PoisonError::into_inner));
        let asked = self.clock.up();
        let heard = self.core()?.call(say).await?;
        let (now, round) = (self.now(), self.clock.up().since(asked));
        if let (Some(clock), Some(core), true) = (clock, heard.now, round <= ROUND_MAX) {
            let seen = ClockSeen::at(now, round, core);
            *clock.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        }
        Ok(heard)
    }
}
