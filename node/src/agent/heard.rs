//! When something was heard, so that a clock that is set makes no lease longer.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use xos_base::Millis;
use xos_base::when::{Clock, SystemClock};

/// A moment by two clocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Moment {
    /// By the wall's clock, which can be set.
    pub(super) wall: Millis,
    /// Since the machine was started, what it slept included. Nobody can set it.
    pub(super) up: Millis,
    /// The kernel's name of the machine's run that `up` counts from.
    pub(super) boot: String,
}

impl Moment {
    /// Now, where the wall's clock says `wall`, in this run of the machine.
    pub(super) fn at(wall: Millis, boot: &str) -> Moment {
        Moment { wall, up: SystemClock.up(), boot: boot.to_owned() }
    }

    /// How long ago it was: by that clock which says more.
    pub(super) fn elapsed(&self, now: &Moment) -> Duration {
        let by_wall = now.wall.since(self.wall);
        if now.boot == self.boot { by_wall.max(now.up.since(self.up)) } else { by_wall }
    }

    /// How long ago it was for certain: by the clock that nobody can set, unless the machine was
    /// started since.
    pub(super) fn elapsed_surely(&self, now: &Moment) -> Duration {
        if now.boot == self.boot { now.up.since(self.up) } else { now.wall.since(self.wall) }
    }

    /// This moment, kept in a file, as seen from the start of a daemon. After another start of the
    /// machine, with the wall's clock set back, it counts as that start.
    pub(super) fn seen_from(self, now: Moment) -> Moment {
        if self.boot == now.boot { self } else { Moment { wall: self.wall.min(now.wall), ..now } }
    }
}
