//! One job, as its owner keeps it.

use super::carry::{Carry, Going, Moved, Spent};
use super::record::Proof;
use super::unit::{PHASES, Phase, Place, Unit};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xos_api::aem::{Counts, JobSpec, JobState, Reason, TRIES_MAX, TaskSpec, UnitEnd, Usage};
use xos_base::{Membership, Millis};

/// Most reasons kept for one job; the oldest go first.
pub const REASONS_MAX: usize = 64;

/// How many units are in which phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally([u32; PHASES]);

impl Tally {
    pub(super) fn add(&mut self, phase: &Phase, n: u32) {
        self.0[phase.index()] += n;
    }

    pub(super) fn step(&mut self, from: usize, to: usize) {
        self.0[from] -= 1;
        self.0[to] += 1;
    }

    /// All units.
    pub fn total(&self) -> u32 {
        self.0.iter().sum()
    }

    /// Units that wait for others.
    pub fn waiting(&self) -> u32 {
        self.0[0]
    }

    /// Units that may be offered.
    pub fn queued(&self) -> u32 {
        self.0[1]
    }

    /// Units that a site may have now.
    pub fn out(&self) -> u32 {
        self.0[2] + self.0[3] + self.0[4]
    }

    /// Units that succeeded.
    pub fn done(&self) -> u32 {
        self.0[5]
    }

    /// Units that came to another end than success.
    pub fn bad(&self) -> u32 {
        self.0[6] + self.0[7] + self.0[8] + self.0[9]
    }

    /// Units that came to their end.
    pub fn ended(&self) -> u32 {
        self.done() + self.bad()
    }

    /// As people see it: an offered unit is still queued for them.
    pub fn counts(&self) -> Counts {
        let t = &self.0;
        Counts {
            waiting: t[0],
            queued: t[1] + t[2],
            placed: t[3],
            running: t[4],
            done: t[5],
            failed: t[6],
            lost: t[7],
            cancelled: t[8],
            refused: t[9],
        }
    }
}

/// A task of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The number of its first unit.
    pub first: u32,
    /// Its units by phase.
    pub tally: Tally,
    /// No unit below this number is queued.
    pub cursor: u32,
    /// Sites that will never run it.
    #[serde(default)]
    pub refused_by: BTreeSet<u16>,
    /// Of its queued units those that go on from an image.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub carried: u32,
}

// serde wants a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its number at this core.
    pub number: u64,
    /// What was asked for.
    pub spec: Arc<JobSpec>,
    /// Who asked.
    pub member: Arc<Membership>,
    /// When.
    pub submitted: Millis,
    /// Their word, until there is a mandate.
    pub proof: Option<Proof>,
    /// The VO's home's word that they authorised it.
    pub mandate: Option<Arc<str>>,
    /// Jobs of this core that have to succeed first and have not yet. One that has is struck at
    /// that moment: it may be forgotten long before the others end.
    pub waits_for: Vec<u64>,
    /// Somebody watched from the start.
    pub watched: bool,
    /// Where it stands.
    pub state: JobState,
    /// Its tasks, in the order of the description.
    pub tasks: Vec<Task>,
    /// Its units.
    pub units: Vec<Unit>,
    /// All units by phase.
    pub tally: Tally,
    /// Its cancellation was asked for.
    pub cancelled: bool,
    /// Why things did not go on, oldest first.
    pub reasons: Vec<Reason>,
    /// Grows with each change.
    pub seq: u64,
    /// What its runs used together.
    pub usage: Usage,
    /// The first unit, by number, that failed, was lost or was refused.
    pub first_bad: Option<u32>,
    /// The latest runs that were followed by another, oldest first.
    #[serde(default)]
    pub tries: Vec<PastTry>,
    /// Units that their sites were asked to let go.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub going: BTreeMap<u32, Going>,
    /// Units that left a cluster and have not begun in another.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub carried: BTreeMap<u32, Carry>,
    /// Images that are not needed any more, and of which their sites do not know that yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spent: Vec<Spent>,
    /// Runs that left a cluster, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<Moved>,
}

/// A run of a unit that did not end well, after which it was tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastTry {
    /// The unit.
    pub unit: u32,
    /// Which run of it: 0 is the first.
    pub attempt: u16,
    /// Where it was.
    pub at: Place,
    /// When it ended.
    pub when: Millis,
    /// How it ended.
    pub how: UnitEnd,
}

impl Job {
    /// A job at its start: every unit waits.
    pub fn new(number: u64, at: Millis, spec: JobSpec, member: Membership) -> Job {
        let mut tasks = Vec::with_capacity(spec.tasks.len());
        let mut first = 0;
        let mut tally = Tally::default();
        for t in &spec.tasks {
            let len = t.array.len();
            let mut own = Tally::default();
            own.add(&Phase::Waiting, len);
            tally.add(&Phase::Waiting, len);
            let refused_by = BTreeSet::new();
            tasks.push(Task { first, tally: own, cursor: first, refused_by, carried: 0 });
            first += len;
        }
        Job {
            number,
            waits_for: spec.after_jobs.iter().map(|id| id.number).collect(),
            spec: Arc::new(spec),
            member: Arc::new(member),
            submitted: at,
            proof: None,
            mandate: None,
            watched: false,
            state: JobState::Queued,
            tasks,
            units: vec![Unit::new(); first as usize],
            tally,
            cancelled: false,
            reasons: Vec::new(),
            seq: 1,
            usage: Usage::default(),
            first_bad: None,
            tries: Vec::new(),
            going: BTreeMap::new(),
            carried: BTreeMap::new(),
            spent: Vec::new(),
            moves: Vec::new(),
        }
    }

    /// The task that a unit belongs to.
    pub fn task_of(&self, unit: u32) -> usize {
        self.tasks.partition_point(|t| t.first <= unit).saturating_sub(1)
    }

    /// The description of a task.
    pub fn task_spec(&self, task: usize) -> Option<&TaskSpec> {
        self.spec.tasks.get(task)
    }

    /// The units of a task.
    pub fn units_of(&self, task: usize) -> std::ops::Range<u32> {
        match (self.tasks.get(task), self.spec.tasks.get(task)) {
            (Some(t), Some(s)) => t.first..t.first + s.array.len(),
            _ => 0..0,
        }
    }

    /// The first queued units of a task that share one attempt and begin anew: at most `most`, with
    /// that attempt.
    pub fn queued(&self, task: usize, most: u32) -> (u16, Vec<u32>) {
        let range = self.units_of(task);
        let from = self.tasks.get(task).map_or(range.end, |t| t.cursor).max(range.start);
        let mut found = (0, Vec::new());
        let mut moves = 0;
        for unit in from..range.end {
            if found.1.len() as u32 >= most {
                break;
            }
            let Some(u) = self.units.get(unit as usize) else { break };
            let like = found.1.is_empty() || (found.0, moves) == (u.attempt, u.moves);
            if u.phase == Phase::Queued && !u.carried && like {
                (found.0, moves) = (u.attempt, u.moves);
                found.1.push(unit);
            }
        }
        found
    }

    /// Records why something did not go on. The same again only moves its time.
    pub fn note(&mut self, reason: Reason) {
        let same =
            |r: &Reason| r.site == reason.site && r.rule == reason.rule && r.task == reason.task;
        self.reasons.retain(|r| !same(r));
        if self.reasons.len() >= REASONS_MAX {
            self.reasons.remove(0);
        }
        self.reasons.push(reason);
    }

    /// Keeps a run that is followed by another; the oldest goes when there are many.
    pub(super) fn tried(&mut self, past: PastTry) {
        if self.tries.len() >= TRIES_MAX {
            self.tries.remove(0);
        }
        self.tries.push(past);
    }

    /// Adds a run's use.
    pub(super) fn charge(&mut self, used: Usage) {
        self.usage.wall_ms = self.usage.wall_ms.saturating_add(used.wall_ms);
        self.usage.cpu_ms = self.usage.cpu_ms.saturating_add(used.cpu_ms);
        self.usage.memory_bytes = self.usage.memory_bytes.max(used.memory_bytes);
    }

    /// The state that follows from the units, at `now`.
    pub(super) fn derive(&self, now: Millis) -> JobState {
        if self.state.is_final() {
            return self.state.clone();
        }
        let t = &self.tally;
        if t.ended() < t.total() {
            let started = t.counts().running > 0 || t.done() > 0 || self.first_bad.is_some();
            return match &self.state {
                JobState::Queued if started => JobState::Running { since: now },
                same => same.clone(),
            };
        }
        let c = t.counts();
        if self.cancelled && c.cancelled > 0 {
            JobState::Cancelled { at: now }
        } else if c.failed + c.lost + c.refused > 0 {
            JobState::Failed { at: now }
        } else if c.cancelled > 0 {
            JobState::Cancelled { at: now }
        } else {
            JobState::Done { at: now }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// Which state a job of two units has, for every pair of phases and whether it was cancelled.
    #[test]
    fn job_states_are_those_of_the_golden_table() {
        let at = super::super::unit::Place::at(0);
        let (when, used) = (Millis(1), super::super::unit::Used::default());
        let phases = [
            ("queued", Phase::Queued),
            ("running", Phase::Running { at, since: when }),
            ("done", Phase::Done { at, when, used }),
            ("failed", Phase::Failed { at, when, how: Box::new(UnitEnd::WallTime), used }),
            ("lost", Phase::Lost { at, when, reason: "".into() }),
            ("cancelled", Phase::Cancelled { when }),
            ("refused", Phase::Refused { when }),
        ];
        let mut text = String::from("units                 cancel asked -> job\n");
        for (i, (a, pa)) in phases.iter().enumerate() {
            for (b, pb) in &phases[i..] {
                for cancelled in [false, true] {
                    let mut job = testing::job(1, testing::spec(&[("main", "0-1", &[])]));
                    job.tally = Tally::default();
                    job.tally.add(pa, 1);
                    job.tally.add(pb, 1);
                    job.cancelled = cancelled;
                    let pair = format!("{a}+{b}");
                    let asked = if cancelled { "yes" } else { "no" };
                    text += &format!("{pair:21} {asked:12} -> {}\n", job.derive(when).word());
                }
            }
        }
        crate::golden::check("job-states.txt", &text);
    }

    #[test]
    fn a_unit_finds_its_task() {
        let job = testing::job(
            1,
            testing::spec(&[("a", "0-2", &[]), ("b", "5", &[]), ("c", "1,9", &[])]),
        );
        let tasks: Vec<_> = (0..6).map(|u| job.task_of(u)).collect();
        assert_eq!(tasks, [0, 0, 0, 1, 2, 2]);
        assert_eq!(job.units_of(2), 4..6);
    }
}
