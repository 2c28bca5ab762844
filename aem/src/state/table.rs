//! All jobs that this core owns.

use super::held::Held;
use super::job::Job;
use super::lanes::Lanes;
use super::load::{Load, Loads};
use super::names::Names;
use super::open::Open;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use xos_base::{JobId, NodeId, SiteId, VoId};

/// The table of jobs. Changes only by [`JobTable::apply`].
#[derive(Clone, Debug, PartialEq)]
pub struct JobTable {
    pub(super) site: SiteId,
    pub(super) next: u64,
    pub(super) jobs: BTreeMap<u64, Job>,
    pub(super) sites: Names<SiteId>,
    pub(super) nodes: Names<NodeId>,
    /// The last report stored, by host.
    pub(super) seen: HashMap<u16, u64>,
    /// Jobs with queued units and a mandate, of which none is at a site.
    pub(super) idle: Lanes,
    /// Jobs with queued units, and others at sites.
    pub(super) busy: Lanes,
    /// Jobs that wait for the key.
    pub(super) dependents: BTreeMap<u64, BTreeSet<u64>>,
    /// What jobs that have not ended take.
    pub(super) open: Open,
    /// What all jobs take that are kept.
    pub(super) held: Held,
    /// What waits at each site.
    pub(super) load: Loads,
    /// Ended jobs, by when they did.
    pub(super) ended: BTreeSet<(u64, u64)>,
}

impl JobTable {
    /// An empty table for the core of `site`.
    pub fn new(site: SiteId) -> JobTable {
        JobTable {
            site,
            next: 1,
            jobs: BTreeMap::new(),
            sites: Names::default(),
            nodes: Names::default(),
            seen: HashMap::new(),
            idle: Lanes::default(),
            busy: Lanes::default(),
            dependents: BTreeMap::new(),
            open: Open::default(),
            held: Held::default(),
            load: Loads::default(),
            ended: BTreeSet::new(),
        }
    }

    /// This core's site.
    pub fn site(&self) -> &SiteId {
        &self.site
    }

    /// The number that the next job gets.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// How many jobs are kept.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The job with this number.
    pub fn job(&self, number: u64) -> Option<&Job> {
        self.jobs.get(&number)
    }

    /// The job, when it is owned here.
    pub fn find(&self, id: &JobId) -> Option<&Job> {
        if id.site == self.site { self.jobs.get(&id.number) } else { None }
    }

    /// All jobs, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Job> {
        self.jobs.values()
    }

    /// Jobs older than `before` (all, without it), newest first.
    pub fn newest_first(&self, before: Option<u64>) -> impl Iterator<Item = &Job> {
        self.jobs.range(..before.unwrap_or(u64::MAX)).rev().map(|(_, j)| j)
    }

    /// Jobs with units to place of which none is at a site yet: the oldest of each member of each
    /// VO in turn, then the next of each. Whoever has many does not keep the others waiting.
    pub fn idle(&self) -> impl Iterator<Item = &Job> {
        self.idle.in_turn().filter_map(|n| self.jobs.get(&n))
    }

    /// Jobs with units to place and others at sites, in the same order.
    pub fn busy(&self) -> impl Iterator<Item = &Job> {
        self.busy.in_turn().filter_map(|n| self.jobs.get(&n))
    }

    /// How many jobs [`JobTable::idle`] and [`JobTable::busy`] give.
    pub fn placing(&self) -> (usize, usize) {
        (self.idle.len(), self.busy.len())
    }

    /// The VOs of jobs with units to place.
    pub fn placing_vos(&self) -> BTreeSet<VoId> {
        self.idle.vos().chain(self.busy.vos()).cloned().collect()
    }

    /// Keeps [`JobTable::idle`] and [`JobTable::busy`] true for a job that changed.
    pub(super) fn rank(&mut self, number: u64) {
        let Some(j) = self.jobs.get(&number) else { return };
        let (vo, person) = (&j.spec.vo, &j.member.person);
        // Without its mandate nobody takes it.
        let places = j.tally.queued() > 0 && j.mandate.is_some();
        self.idle.set(vo, person, number, places && j.tally.out() == 0);
        self.busy.set(vo, person, number, places && j.tally.out() > 0);
    }

    /// The id of a job here.
    pub fn id(&self, number: u64) -> JobId {
        JobId { site: self.site.clone(), number }
    }

    pub(super) fn count_open(&mut self, job: u64, up: bool) {
        let Some(j) = self.jobs.get(&job) else { return };
        self.open.count(&j.spec.vo, &j.member.person, Held::of(&j.spec), up);
    }

    /// The site with this number.
    pub fn site_name(&self, number: u16) -> Option<&SiteId> {
        self.sites.name(number)
    }

    /// The number of a site, when it ever was asked.
    pub fn site_number(&self, site: &SiteId) -> Option<u16> {
        self.sites.known(site)
    }

    /// The node with this number.
    pub fn node_name(&self, number: u16) -> Option<&NodeId> {
        self.nodes.name(number)
    }

    /// What this core's jobs have waiting at a site.
    pub fn load(&self, site: &SiteId) -> Load {
        self.sites.known(site).map_or_else(Load::default, |n| self.load.at(n))
    }

    /// What jobs take that have not ended.
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// What all jobs take that are kept, ended or not.
    pub fn held(&self) -> Held {
        self.held
    }

    /// How many ended jobs are kept.
    pub fn ended_len(&self) -> usize {
        self.ended.len()
    }

    /// The last report of a host that is stored here.
    pub fn seen(&self, site: &SiteId) -> u64 {
        self.sites.known(site).and_then(|n| self.seen.get(&n)).copied().unwrap_or(0)
    }

    /// Ended jobs, those that ended first in front: when, and the number.
    pub fn ended(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ended.iter().copied()
    }

    /// The hosts that have or had units of a job.
    pub fn hosts_of(&self, job: &Job) -> BTreeSet<SiteId> {
        // Looked at for all jobs every second: many units, few sites.
        let mut has = vec![false; self.sites.all().len()];
        for u in &job.units {
            use super::unit::Phase as P;
            match &u.phase {
                P::Offered { at }
                | P::Placed { at }
                | P::Running { at, .. }
                | P::Done { at, .. }
                | P::Failed { at, .. }
                | P::Lost { at, .. } => {
                    if let Some(has) = has.get_mut(usize::from(at.site)) {
                        *has = true;
                    }
                }
                _ => {}
            }
        }
        // What it wrote at a site that it left is there still.
        for m in &job.moves {
            if let Some(has) = has.get_mut(usize::from(m.from.site)) {
                *has = true;
            }
        }
        let names = self.sites.all().iter().zip(has);
        names.filter(|(_, has)| *has).map(|(name, _)| name.clone()).collect()
    }
}
