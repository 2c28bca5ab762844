//! Units on their way from one cluster to another, as the owner of their job keeps them.

use super::job::Job;
use super::unit::{Input, Place};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;
use xos_api::aem::{Carried, MOVES_KEPT, OutputStream};
use xos_base::{ClusterId, Millis, SiteId};

/// Where somebody wants a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goal {
    /// The site.
    pub site: SiteId,
    /// The cluster there; none: any.
    pub cluster: Option<ClusterId>,
}

/// A unit that its site was asked to let go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Going {
    /// The run that is meant.
    pub attempt: u16,
    /// Where to.
    pub to: Goal,
    /// When somebody asked for it.
    pub at: Millis,
    /// Who.
    pub by: String,
}

/// A unit that left a cluster and runs nowhere. Only what is here lives of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carry {
    /// What it goes on from.
    pub carried: Box<Carried>,
    /// Where it was.
    pub from: Place,
    /// The run that left.
    pub attempt: u16,
    /// When that was heard.
    pub since: Millis,
    /// Where it is to go on; none: at any site, or where it was.
    pub to: Option<Goal>,
    /// Sites that did not take it.
    pub tried: BTreeSet<u16>,
    /// Until when nobody is asked: all had refused.
    pub rest: Millis,
    /// How often all had, that where it was among them.
    #[serde(default)]
    pub rounds: u16,
}

/// What is known of a run that left besides what its site says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    /// When that was heard, by this core's clock.
    pub(super) at: Millis,
    /// Whether it was told to have begun.
    pub(super) began: bool,
}

/// Most runs of one job that left and whose output is the beginning of what their units write now.
pub const LIVE_MAX: usize = 4096;
/// How long a unit rests that left without having begun: its site gave it back as it came.
pub const RETURN_PAUSE: Duration = Duration::from_secs(60);

/// The image of a unit that is not needed any more, where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// The unit.
    pub unit: u32,
    /// The run that left.
    pub attempt: u16,
    /// The site.
    pub site: u16,
}

/// A run of a unit that left its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The unit.
    pub unit: u32,
    /// The run.
    pub attempt: u16,
    /// Where it was.
    pub from: Place,
    /// The cluster.
    pub cluster: ClusterId,
    /// When it stopped there.
    pub left: Millis,
    /// The number of its image.
    pub version: u64,
    /// How many bytes it had written then: to its output, and to its error output.
    pub wrote: [u64; 2],
    /// What it wrote there is the beginning of what it writes now.
    pub live: bool,
    /// Where it went on, and since when.
    pub to: Option<(Place, Millis)>,
    /// Why it left.
    pub why: String,
}

impl Job {
    /// A unit left, and is carried on, or is not needed any more.
    pub(super) fn leaves(
        &mut self,
        (unit, attempt): (u32, u16),
        (from, at): (Place, Millis),
        carried: &Carried,
        why: &str,
        heard: Heard,
    ) {
        let going = self.going.remove(&unit).filter(|g| g.attempt == attempt);
        let goes_on = self.units.get(unit as usize).is_some_and(|u| u.carried);
        let asked = going.as_ref().map(|g| format!("{} asked for it", g.by));
        self.moved(Moved {
            unit,
            attempt,
            from,
            cluster: carried.cluster.clone(),
            left: at,
            version: carried.version,
            wrote: [carried.stdout_bytes, carried.stderr_bytes],
            live: true,
            to: None,
            why: asked.unwrap_or_else(|| why.to_owned()),
        });
        if !goes_on {
            self.spent.push(Spent { unit, attempt, site: from.site });
            return;
        }
        let to = going.map(|g| g.to);
        let (carried, tried, rounds) = (Box::new(carried.clone()), BTreeSet::new(), 0);
        let since = heard.at;
        let rest = if heard.began { Millis(0) } else { since.plus(RETURN_PAUSE) };
        let carry = Carry { carried, from, attempt, since, to, tried, rest, rounds };
        // It left anew from where it had come to: the image before is not the last any more.
        if let Some(c) = self.carried.insert(unit, carry) {
            self.spent.push(Spent { unit, attempt: c.attempt, site: c.from.site });
        }
    }

    /// When there are many the oldest goes of those that only history knows, and of the others.
    fn moved(&mut self, moved: Moved) {
        self.moves.push(moved);
        for (live, most) in [(false, MOVES_KEPT), (true, LIVE_MAX)] {
            let like = |m: &Moved| m.live == live;
            if self.moves.iter().filter(|m| like(m)).count() > most
                && let Some(oldest) = self.moves.iter().position(like)
            {
                self.moves.remove(oldest);
            }
        }
    }

    /// What an input that changed a unit means for it as one that is carried.
    pub(super) fn keep_carried(&mut self, unit: u32, carried: bool, input: &Input, again: bool) {
        match input {
            Input::Leave { .. } => return,
            Input::Start { at, when } => {
                let mut moves = self.moves.iter_mut().rev();
                let last = moves.find(|m| m.unit == unit && m.live && m.to.is_none());
                if let Some(m) = last.filter(|_| self.carried.contains_key(&unit)) {
                    m.to = Some((*at, *when));
                }
            }
            Input::End { at, .. } => {
                self.going.remove(&unit);
                if let Some(carry) = self.carried.get_mut(&unit).filter(|_| carried) {
                    carry.tried.insert(at.site);
                } else if again {
                    // It begins anew: what it wrote before is another run's.
                    let of_unit = self.moves.iter_mut().filter(|m| m.unit == unit);
                    of_unit.for_each(|m| m.live = false);
                }
            }
            Input::Cancel { .. } => {
                self.going.remove(&unit);
            }
            _ => {}
        }
        if !carried && let Some(c) = self.carried.remove(&unit) {
            self.spent.push(Spent { unit, attempt: c.attempt, site: c.from.site });
        }
    }

    /// Units of a task that are queued and begin anew, or for the first time.
    pub fn fresh(&self, task: usize) -> u32 {
        self.tasks.get(task).map_or(0, |t| t.tally.queued().saturating_sub(t.carried))
    }

    /// The runs that left and have what a unit wrote from a byte on, in their order, each with the
    /// byte from which on the next one has it.
    pub fn wrote(
        &self,
        unit: u32,
        stream: OutputStream,
        offset: u64,
    ) -> impl Iterator<Item = (&Moved, u64)> {
        let index = match stream {
            OutputStream::Stdout => 0,
            OutputStream::Stderr => 1,
        };
        let mut from = offset;
        self.moves.iter().filter(move |m| m.unit == unit && m.live).filter_map(move |m| {
            let end = m.wrote[index];
            (end > from).then(|| {
                from = end;
                (m, end)
            })
        })
    }
}

#[cfg(test)]
mod tests;
