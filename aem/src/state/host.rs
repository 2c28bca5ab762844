//! What this core runs on its nodes, for any owner.

use super::held::{Held, JOB_BYTES, task_bytes};
use super::open::count;
use super::runs;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use xos_api::aem::{Carried, HostedEvent, TaskSpec, UnitRun};
use xos_base::{JobId, Membership, Millis, NodeId, SiteId, VoId};

/// A report to an owner, kept until it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its number.
    pub seq: u64,
    /// The job.
    pub job: JobId,
    /// The attempt of all its events.
    pub attempt: u16,
    /// What happened.
    pub events: Vec<HostedEvent>,
}

/// Reports to one owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbox {
    /// The number of the last report made.
    pub last: u64,
    /// Reports that are not acknowledged.
    pub reports: VecDeque<Report>,
}

/// A task with units here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostedTask {
    /// The task.
    pub spec: Arc<TaskSpec>,
    /// The number in the job of its first unit.
    pub first: u32,
    /// Whether short output is wanted.
    pub want_output: bool,
}

/// How far a hosted unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// For a node.
    Waiting,
    /// In an envelope; it may have started.
    Sent {
        /// The envelope.
        serial: u32,
    },
    /// Its start was reported.
    Running {
        /// The envelope.
        serial: u32,
        /// Since when, by the node's clock.
        since: Millis,
    },
    /// Its end is in a report to the owner.
    Ended {
        /// The envelope, when there was one: it holds the output.
        serial: u32,
    },
}

/// A unit of some owner's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosted {
    /// Its task's place in the job.
    pub task: u16,
    /// Its attempt.
    pub attempt: u16,
    /// How far it is.
    pub stage: Stage,
    /// Its end was asked for.
    pub cancel: bool,
}

/// A run of a unit that left its cluster: what it wrote is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftRun {
    /// The unit.
    pub unit: u32,
    /// The run.
    pub attempt: u16,
    /// The envelope.
    pub serial: u32,
    /// Its image is not needed any more: the owner said so. Until then it may be all there is.
    #[serde(default)]
    pub over: bool,
}

/// The serial that stands for no envelope.
pub const NO_ENVELOPE: u32 = 0;

/// An envelope on a node, as the host keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Where.
    pub node: NodeId,
    /// The node's boot when it was made.
    pub boot: String,
    /// Units at a time.
    pub slots: u32,
    /// Processors of one unit, thousandths.
    pub cpu_milli: u32,
    /// Memory of one unit, bytes.
    pub memory_bytes: u64,
    /// The last event stored.
    pub stored: u64,
    /// Whether the node ever answered for units in it.
    pub held: bool,
    /// The node lost it. A new one under its name would count its events from the start.
    #[serde(default)]
    pub gone: bool,
    /// Units sent and not ended.
    pub open: BTreeSet<u32>,
    /// Units whose sending the node has not confirmed.
    pub unconfirmed: BTreeSet<u32>,
    /// Units whose start was reported and that have not ended.
    #[serde(default)]
    pub running: u32,
    /// Units ended in it.
    pub ended: u32,
}

impl Envelope {
    /// Units that use the node's room now.
    pub fn busy(&self) -> u32 {
        self.slots.min(self.open.len() as u32)
    }
}

/// The units of one job here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The job.
    pub job: JobId,
    /// Its VO.
    pub vo: VoId,
    /// Its person, as the mandate says.
    pub member: Arc<Membership>,
    /// The person's authority.
    pub mandate: Arc<str>,
    /// When its first units came.
    pub since: Millis,
    /// When the last unit that ended did, by this core's clock.
    #[serde(default)]
    pub last_end: Option<Millis>,
    /// Its tasks.
    pub tasks: BTreeMap<u16, HostedTask>,
    /// Its units.
    pub units: BTreeMap<u32, Hosted>,
    /// Units that wait, in order.
    pub waiting: BTreeSet<u32>,
    /// Its envelopes by serial.
    pub envelopes: BTreeMap<u32, Box<Envelope>>,
    /// The last serial given.
    pub last_serial: u32,
    /// The owner wants nothing of it any more; it goes when its envelopes are closed.
    pub forgotten: bool,
    /// What units go on from that came from a cluster and have not begun here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub carried: BTreeMap<u32, Box<Carried>>,
    /// When these came: they do not wait here for ever.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub came: BTreeMap<u32, Millis>,
    /// Runs that left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<LeftRun>,
}

impl Placement {
    /// Units sent to nodes and not ended.
    pub fn open(&self) -> u32 {
        self.envelopes.values().map(|e| e.open.len() as u32).sum()
    }

    /// The envelope of a run that is here, or left.
    pub fn serial_of(&self, unit: u32, attempt: u16) -> Option<u32> {
        let last = self.units.get(&unit).filter(|h| h.attempt == attempt);
        match last.map(|h| h.stage) {
            Some(Stage::Waiting) => None,
            Some(
                Stage::Sent { serial } | Stage::Running { serial, .. } | Stage::Ended { serial },
            ) => Some(serial),
            None => {
                let is = |l: &&LeftRun| (l.unit, l.attempt) == (unit, attempt);
                self.left.iter().find(is).map(|l| l.serial)
            }
        }
    }

    /// Whether a unit that left may go on from an image that is here and nowhere else.
    pub fn is_needed(&self) -> bool {
        self.left.iter().any(|l| !l.over)
    }

    /// When something began or ended last.
    pub fn last_news(&self) -> Millis {
        self.last_end.map_or(self.since, |end| end.max(self.since))
    }

    /// Whether to cancel these units (none: all) would change anything.
    pub fn is_to_cancel(&self, units: Option<&[UnitRun]>) -> bool {
        let open = |h: &Hosted| match h.stage {
            Stage::Ended { .. } => false,
            Stage::Waiting => true,
            Stage::Sent { .. } | Stage::Running { .. } => !h.cancel,
        };
        match units {
            Some(runs) => runs.iter().any(|r| {
                let mut known = self.units.range(r.first..r.first.saturating_add(r.count));
                known.any(|(_, h)| open(h))
            }),
            None => self.units.values().any(open),
        }
    }

    /// Those of the units that are in an envelope under that attempt and have not ended.
    pub fn sent(&self, serial: u32, attempt: u16, units: &[UnitRun]) -> Vec<u32> {
        let there = |u: &u32| {
            self.units.get(u).is_some_and(|h| match h.stage {
                Stage::Sent { serial: s } | Stage::Running { serial: s, .. } => {
                    s == serial && h.attempt == attempt
                }
                Stage::Waiting | Stage::Ended { .. } => false,
            })
        };
        let end = self.units.keys().next_back().map_or(0, |u| u.saturating_add(1));
        runs::unpack(units).take_while(|u| *u < end).filter(there).collect()
    }

    /// What it takes of this core's memory.
    pub fn held(&self) -> Held {
        let tasks: u64 = self.tasks.values().map(|t| task_bytes(&t.spec)).sum();
        let bytes = tasks + self.mandate.len() as u64 + JOB_BYTES;
        Held { jobs: 1, units: self.units.len() as u64, bytes }
    }

    /// What the task of a unit is.
    pub fn task(&self, unit: u32) -> Option<&HostedTask> {
        self.tasks.get(&self.units.get(&unit)?.task)
    }
}

/// Everything hosted here. Changes only by [`HostTable::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTable {
    pub(super) site: SiteId,
    pub(super) placements: BTreeMap<JobId, Placement>,
    pub(super) outboxes: BTreeMap<SiteId, Outbox>,
    /// Jobs with units that wait or are open.
    pub(super) active: BTreeSet<JobId>,
    /// What each other site's jobs take here.
    pub(super) held: HashMap<SiteId, Held>,
}

/// What a change of the host's table asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// Reports for the own core as owner, to be taken in at once.
    pub own: Vec<Report>,
    /// Owners with new reports.
    pub owners: BTreeSet<SiteId>,
}

impl HostTable {
    /// An empty table for the core of `site`.
    pub fn new(site: SiteId) -> HostTable {
        let outboxes = BTreeMap::new();
        let (placements, active, held) = Default::default();
        HostTable { site, placements, outboxes, active, held }
    }

    /// The units of a job here.
    pub fn placement(&self, job: &JobId) -> Option<&Placement> {
        self.placements.get(job)
    }

    /// All of them.
    pub fn placements(&self) -> impl Iterator<Item = &Placement> {
        self.placements.values()
    }

    /// What an owner has not acknowledged, after a number.
    pub fn reports(&self, owner: &SiteId, after: u64) -> impl Iterator<Item = &Report> {
        let reports = self.outboxes.get(owner).into_iter().flat_map(|o| o.reports.iter());
        reports.filter(move |r| r.seq > after)
    }

    /// The jobs that have units waiting or at nodes.
    pub fn active(&self) -> impl Iterator<Item = &Placement> {
        self.active.iter().filter_map(|j| self.placements.get(j))
    }

    /// Units accepted and not ended, of a VO.
    pub fn open_units(&self, vo: &VoId) -> u32 {
        let of_vo = self.active().filter(|p| p.vo == *vo);
        of_vo.map(|p| p.open() + p.waiting.len() as u32).sum()
    }

    /// Whether units of a job wait or are at nodes.
    pub fn is_active(&self, job: &JobId) -> bool {
        self.active.contains(job)
    }

    /// What jobs of other sites take here, ended or not.
    pub fn held_for_others(&self) -> Held {
        let mut all = Held::default();
        self.held.values().for_each(|of_one| all.add(*of_one));
        all
    }

    /// What jobs of one other site take here, ended or not.
    pub fn held_for(&self, owner: &SiteId) -> Held {
        self.held.get(owner).copied().unwrap_or_default()
    }

    /// How many events an owner has not acknowledged.
    pub fn unheard(&self, owner: &SiteId) -> usize {
        self.outboxes.get(owner).map_or(0, |o| o.reports.iter().map(|r| r.events.len()).sum())
    }

    /// Counts what comes (`up`) or goes of a site's jobs; the own ones are counted elsewhere.
    pub(super) fn hold(&mut self, owner: &SiteId, what: Held, up: bool) {
        if *owner != self.site {
            count(&mut self.held, owner.clone(), what, up);
        }
    }

    /// Keeps [`HostTable::active`] true for a job that changed.
    pub(super) fn reindex(&mut self, job: &JobId) {
        let active = self.placements.get(job).is_some_and(|p| {
            !p.waiting.is_empty() || p.envelopes.values().any(|e| !e.open.is_empty())
        });
        if active {
            self.active.insert(job.clone());
        } else {
            self.active.remove(job);
        }
    }
}
