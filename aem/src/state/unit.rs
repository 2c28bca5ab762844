//! One unit, as its owner sees it.

use super::names::NONE;
use serde::{Deserialize, Serialize};
use xos_api::aem::{MOVES_MAX, UnitEnd, Usage};
use xos_base::Millis;

/// Where a run was: site and node by their numbers ([`super::names`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The site.
    pub site: u16,
    /// The node; [`NONE`] while there is none.
    pub node: u16,
}

impl Place {
    /// At a site, on no node yet.
    pub fn at(site: u16) -> Place {
        Place { site, node: NONE }
    }
}

/// What a run used, packed: 12 bytes, saturating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    wall_ms: u32,
    cpu_ms: u32,
    memory_kib: u32,
}

impl From<Usage> for Used {
    fn from(u: Usage) -> Used {
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Used {
            wall_ms: small(u.wall_ms),
            cpu_ms: small(u.cpu_ms),
            memory_kib: small(u.memory_bytes.div_ceil(1024)),
        }
    }
}

impl From<Used> for Usage {
    fn from(u: Used) -> Usage {
        Usage {
            wall_ms: u.wall_ms.into(),
            cpu_ms: u.cpu_ms.into(),
            memory_bytes: u64::from(u.memory_kib) * 1024,
        }
    }
}

/// Where a unit stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// For tasks or jobs before it.
    Waiting,
    /// For a site.
    Queued,
    /// A site was asked and has not answered. Nobody else may be asked: it may have accepted.
    Offered {
        /// The site.
        at: Place,
    },
    /// The site accepted.
    Placed {
        /// The site.
        at: Place,
    },
    /// It runs.
    Running {
        /// Where.
        at: Place,
        /// Since when.
        since: Millis,
    },
    /// It ended with exit status 0.
    Done {
        /// Where.
        at: Place,
        /// When.
        when: Millis,
        /// What it used.
        used: Used,
    },
    /// It ended otherwise.
    Failed {
        /// Where.
        at: Place,
        /// When.
        when: Millis,
        /// How.
        how: Box<UnitEnd>,
        /// What it used.
        used: Used,
    },
    /// Nobody knows.
    Lost {
        /// Where.
        at: Place,
        /// When that was known.
        when: Millis,
        /// What is known.
        reason: Box<str>,
    },
    /// Somebody cancelled it, or what it waited for failed.
    Cancelled {
        /// When.
        when: Millis,
    },
    /// No site can run it.
    Refused {
        /// When that was known.
        when: Millis,
    },
}

/// How many phases there are.
pub const PHASES: usize = 10;

impl Phase {
    /// The place in a tally of those that run; what comes before may run yet.
    const RUNNING: usize = 4;

    /// The phase's place in a tally.
    pub fn index(&self) -> usize {
        match self {
            Phase::Waiting => 0,
            Phase::Queued => 1,
            Phase::Offered { .. } => 2,
            Phase::Placed { .. } => 3,
            Phase::Running { .. } => 4,
            Phase::Done { .. } => 5,
            Phase::Failed { .. } => 6,
            Phase::Lost { .. } => 7,
            Phase::Cancelled { .. } => 8,
            Phase::Refused { .. } => 9,
        }
    }

    /// Whether nothing follows.
    pub fn is_final(&self) -> bool {
        self.index() >= 5
    }

    /// The site where it waits for a node, as far as is known.
    pub fn pending(&self) -> Option<u16> {
        match self {
            Phase::Offered { at } | Phase::Placed { at } => Some(at.site),
            _ => None,
        }
    }

    /// The site that may have it now.
    pub fn site(&self) -> Option<u16> {
        match self {
            Phase::Offered { at } | Phase::Placed { at } | Phase::Running { at, .. } => {
                Some(at.site)
            }
            _ => None,
        }
    }
}

/// What can happen to a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// What it waited for has succeeded.
    Ready,
    /// A site is asked to run it.
    Offer {
        /// The site.
        site: u16,
    },
    /// The site accepted.
    Accept {
        /// The site.
        site: u16,
    },
    /// The site refused.
    Return {
        /// The site.
        site: u16,
        /// When.
        when: Millis,
    },
    /// No site will ever run it.
    NoSite {
        /// When that was known.
        when: Millis,
    },
    /// It started.
    Start {
        /// Where.
        at: Place,
        /// When.
        when: Millis,
    },
    /// It ended.
    End {
        /// Where.
        at: Place,
        /// When.
        when: Millis,
        /// How.
        how: UnitEnd,
        /// What it used.
        used: Used,
    },
    /// It stopped where it ran, and goes on elsewhere.
    Leave {
        /// Where it ran.
        at: Place,
        /// When.
        when: Millis,
    },
    /// Somebody cancels it.
    Cancel {
        /// When.
        when: Millis,
    },
}

// serde wants a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u8) -> bool {
    *n == 0
}

/// A unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Where it stands.
    pub phase: Phase,
    /// How often it was started again.
    pub attempt: u16,
    /// Its end was asked for; the site that has it has not confirmed yet.
    pub cancel: bool,
    /// It ran before, and does not begin: it goes on from an image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub carried: bool,
    /// How many of its attempts were no new runs, but handed it on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub moves: u8,
}

impl Unit {
    /// A unit at its start.
    pub fn new() -> Unit {
        Unit { phase: Phase::Waiting, attempt: 0, cancel: false, carried: false, moves: 0 }
    }

    /// Whether it waits for a cluster in which it goes on.
    pub fn waits_carried(&self) -> bool {
        self.carried && self.phase == Phase::Queued
    }

    /// How often it was started anew.
    pub fn retries(&self) -> u16 {
        self.attempt.saturating_sub(self.moves.into())
    }

    /// Whether an input has it go on from an image: it left, or no cluster began with it.
    fn is_handed(&self, input: &Input) -> bool {
        match input {
            Input::Leave { .. } => true,
            Input::End { how: UnitEnd::NotStarted { .. }, .. } => self.carried,
            _ => false,
        }
    }

    /// Takes an input; says whether it changed anything. An input that does not fit the phase
    /// (a duplicate, or one that came too late) changes nothing. `retry` is how often the unit's
    /// author lets it run again.
    pub fn on(&mut self, input: &Input, retry: u16) -> bool {
        let before = (self.phase.index(), self.attempt, self.cancel);
        if let Some(next) = self.next(input, retry) {
            let ends = matches!(input, Input::End { .. } | Input::Leave { .. });
            if ends && matches!(next, Phase::Queued) {
                self.carried = self.is_handed(input);
                self.attempt += 1;
                self.moves += u8::from(self.carried);
            }
            // Once it runs, or never will, there is nothing left to go on from.
            self.carried &= next.index() < Phase::RUNNING;
            self.phase = next;
        } else if matches!(input, Input::Cancel { .. }) && self.phase.site().is_some() {
            self.cancel = true;
        }
        (self.phase.index(), self.attempt, self.cancel) != before
    }

    fn next(&self, input: &Input, retry: u16) -> Option<Phase> {
        match (&self.phase, input) {
            (Phase::Waiting, Input::Ready) => Some(Phase::Queued),
            (Phase::Waiting | Phase::Queued, Input::Cancel { when }) => {
                Some(Phase::Cancelled { when: *when })
            }
            (Phase::Queued, Input::Offer { site }) => Some(Phase::Offered { at: Place::at(*site) }),
            (Phase::Waiting | Phase::Queued, Input::NoSite { when }) => {
                Some(Phase::Refused { when: *when })
            }
            (Phase::Offered { at }, Input::Accept { site }) if at.site == *site => {
                Some(Phase::Placed { at: *at })
            }
            // What a site has accepted it cannot give back: a late answer must not free the unit.
            (Phase::Offered { at }, Input::Return { site, when }) if at.site == *site => {
                Some(if self.cancel { Phase::Cancelled { when: *when } } else { Phase::Queued })
            }
            (
                Phase::Offered { at: here } | Phase::Placed { at: here },
                Input::Start { at, when },
            ) if here.site == at.site => Some(Phase::Running { at: *at, since: *when }),
            (
                Phase::Offered { at: here }
                | Phase::Placed { at: here }
                | Phase::Running { at: here, .. },
                Input::End { at, when, how, used },
            ) if here.site == at.site => Some(self.ended(*at, *when, how, *used, retry)),
            // No site has it: this core gives it up.
            (Phase::Queued, Input::End { at, when, how, used }) if self.carried => {
                Some(self.ended(*at, *when, how, *used, retry))
            }
            (
                Phase::Offered { at: here }
                | Phase::Placed { at: here }
                | Phase::Running { at: here, .. },
                Input::Leave { at, when },
            ) if here.site == at.site => Some(self.left(*at, *when)),
            _ => None,
        }
    }

    fn ended(&self, at: Place, when: Millis, how: &UnitEnd, used: Used, retry: u16) -> Phase {
        let again = !self.cancel && self.retries() < retry;
        match how {
            UnitEnd::Exit { code: 0 } => Phase::Done { at, when, used },
            UnitEnd::Cancelled => Phase::Cancelled { when },
            UnitEnd::NotStarted { .. } if self.carried => self.left(at, when),
            _ if again => Phase::Queued,
            UnitEnd::Lost { reason } => Phase::Lost { at, when, reason: reason.as_str().into() },
            other => Phase::Failed { at, when, how: Box::new(other.clone()), used },
        }
    }
}

impl Unit {
    /// Nothing of it runs; its image is there.
    fn left(&self, at: Place, when: Millis) -> Phase {
        if self.cancel {
            return Phase::Cancelled { when };
        }
        if u16::from(self.moves) < MOVES_MAX {
            return Phase::Queued;
        }
        let reason = format!("it was handed on {MOVES_MAX} times, and nobody went on with it");
        Phase::Lost { at, when, reason: reason.into() }
    }
}

impl Default for Unit {
    fn default() -> Unit {
        Unit::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place = Place { site: 1, node: 1 };

    fn phases() -> Vec<(&'static str, Phase)> {
        let (at, when, used) = (HERE, Millis(5), Used::default());
        vec![
            ("waiting", Phase::Waiting),
            ("queued", Phase::Queued),
            ("offered", Phase::Offered { at }),
            ("placed", Phase::Placed { at }),
            ("running", Phase::Running { at, since: when }),
            ("done", Phase::Done { at, when, used }),
            ("failed", Phase::Failed { at, when, how: Box::new(UnitEnd::WallTime), used }),
            ("lost", Phase::Lost { at, when, reason: "".into() }),
            ("cancelled", Phase::Cancelled { when }),
            ("refused", Phase::Refused { when }),
        ]
    }

    fn inputs() -> Vec<(&'static str, Input)> {
        let when = Millis(9);
        let end = |site, how| Input::End {
            at: Place { site, node: 1 },
            when,
            how,
            used: Used::default(),
        };
        vec![
            ("ready", Input::Ready),
            ("offer", Input::Offer { site: 1 }),
            ("accept", Input::Accept { site: 1 }),
            ("accept-other", Input::Accept { site: 2 }),
            ("return", Input::Return { site: 1, when }),
            ("return-other", Input::Return { site: 2, when }),
            ("no-site", Input::NoSite { when }),
            ("start", Input::Start { at: HERE, when }),
            ("start-other", Input::Start { at: Place { site: 2, node: 1 }, when }),
            ("exit-0", end(1, UnitEnd::Exit { code: 0 })),
            ("exit-1", end(1, UnitEnd::Exit { code: 1 })),
            ("signal", end(1, UnitEnd::Signal { signal: 9 })),
            ("killed", end(1, UnitEnd::Cancelled)),
            ("gone", end(1, UnitEnd::Lost { reason: String::new() })),
            ("end-other", end(2, UnitEnd::Exit { code: 0 })),
            ("leave", Input::Leave { at: HERE, when }),
            ("leave-other", Input::Leave { at: Place { site: 2, node: 1 }, when }),
            ("cancel", Input::Cancel { when }),
        ]
    }

    /// The whole table of transitions. If it differs from the golden file, jobs behave otherwise
    /// than people were told; `XOS_BLESS=1` writes it anew.
    #[test]
    fn transitions_are_those_of_the_golden_table() {
        let names: Vec<_> = phases().iter().map(|(n, _)| *n).collect();
        let mut text = String::from("phase      cancel retry input        -> phase\n");
        for (name, phase) in phases() {
            for (cancel, retry) in [(false, 0), (true, 0), (false, 1), (true, 1)] {
                if phase.site().is_none() && (cancel || retry > 0) {
                    continue;
                }
                for (input_name, input) in inputs() {
                    let mut unit = Unit { phase: phase.clone(), cancel, ..Unit::new() };
                    if unit.on(&input, retry) {
                        let flag = if unit.cancel && !cancel { " +cancel" } else { "" };
                        let again = if unit.attempt > 0 { " +attempt" } else { "" };
                        let to = names[unit.phase.index()];
                        text += &format!(
                            "{name:10} {:6} {retry:5} {input_name:12} -> {to}{flag}{again}\n",
                            if cancel { "yes" } else { "no" },
                        );
                    }
                }
            }
        }
        crate::golden::check("unit-transitions.txt", &text);
    }

    /// If it failed, a unit that moved would have used up its retries, be started anew though its
    /// image is there, or be handed on for ever.
    #[test]
    fn moves_are_no_retries_and_end_some_day() {
        let when = Millis(9);
        let not = || UnitEnd::NotStarted { reason: String::new() };
        let end = |how| Input::End { at: HERE, when, how, used: Used::default() };
        let mut u = Unit { phase: Phase::Running { at: HERE, since: when }, ..Unit::new() };
        assert!(u.on(&Input::Leave { at: HERE, when }, 1) && u.carried);
        for _ in 1..MOVES_MAX {
            u.on(&Input::Offer { site: 1 }, 1);
            assert!(u.on(&end(not()), 1) && u.carried && u.phase == Phase::Queued);
        }
        assert_eq!((u.attempt, u.retries()), (MOVES_MAX, 0));
        u.on(&Input::Offer { site: 1 }, 1);
        let mut last = u.clone();
        last.on(&end(not()), 1);
        assert!(matches!(last.phase, Phase::Lost { .. }));
        // It runs, and fails: that is one of its retries.
        u.on(&Input::Start { at: HERE, when }, 1);
        assert!(!u.carried);
        u.on(&end(UnitEnd::Exit { code: 1 }), 1);
        assert!(u.phase == Phase::Queued && !u.carried && u.retries() == 1);
        u.on(&Input::Offer { site: 1 }, 1);
        u.on(&end(not()), 1);
        assert!(matches!(u.phase, Phase::Failed { .. }));
    }

    #[test]
    fn a_unit_is_small() {
        // 10,000 finished units must cost little.
        assert!(size_of::<Unit>() <= 48, "{}", size_of::<Unit>());
    }

    #[test]
    fn usage_saturates() {
        let u = Usage { wall_ms: u64::MAX, cpu_ms: 3, memory_bytes: 1 };
        assert_eq!(
            Usage::from(Used::from(u)),
            Usage { wall_ms: u32::MAX.into(), cpu_ms: 3, memory_bytes: 1024 }
        );
    }
}
