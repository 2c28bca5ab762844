//! The state as bytes, so that the journal can be cut.

use super::held::Held;
use super::host::{Outbox, Placement};
use super::job::Job;
use super::names::Names;
use super::record::{VERSION, is_read};
use super::{HostTable, JobTable, State};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use xos_base::{Error, Membership, NodeId, SiteId};

#[derive(Serialize, Deserialize)]
struct Whole<'a> {
    v: u32,
    site: Cow<'a, SiteId>,
    next: u64,
    jobs: Cow<'a, [Job]>,
    sites: Cow<'a, [SiteId]>,
    nodes: Cow<'a, [NodeId]>,
    seen: Vec<(u16, u64)>,
    placements: Cow<'a, [Placement]>,
    outboxes: Cow<'a, BTreeMap<SiteId, Outbox>>,
}

impl State {
    /// The state as bytes.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when it cannot be encoded.
    pub fn to_snapshot(&self) -> Result<Vec<u8>, Error> {
        let jobs: Vec<Job> = self.jobs.jobs.values().cloned().collect();
        let placements: Vec<Placement> = self.hosted.placements.values().cloned().collect();
        let mut seen: Vec<(u16, u64)> = self.jobs.seen.iter().map(|(k, v)| (*k, *v)).collect();
        seen.sort_unstable();
        let whole = Whole {
            v: VERSION,
            site: Cow::Borrowed(&self.jobs.site),
            next: self.jobs.next,
            jobs: jobs.into(),
            sites: self.jobs.sites.all().into(),
            nodes: self.jobs.nodes.all().into(),
            seen,
            placements: placements.into(),
            outboxes: Cow::Borrowed(&self.hosted.outboxes),
        };
        serde_json::to_vec(&whole)
            .map_err(|e| Error::internal(format!("cannot encode the job snapshot: {e}")))
    }

    /// Reads a snapshot of the core of `site`.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when it is damaged, of another version or of another site.
    pub fn from_snapshot(site: &SiteId, bytes: &[u8]) -> Result<State, Error> {
        let bad = |why: String| {
            Error::internal(format!("the job snapshot cannot be read: {why}"))
                .hint("keep a copy of the journal's folder and restore it from a backup")
        };
        let whole: Whole<'static> =
            serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        if !is_read(whole.v) {
            return Err(bad(format!("it has version {}, known is {VERSION}", whole.v)));
        }
        if *whole.site != *site {
            return Err(bad(format!("it is of site {}, not of {site}", whole.site)));
        }
        // Each membership once, however many jobs have it.
        let mut people: HashSet<Arc<Membership>> = HashSet::new();
        let mut once = |m: &mut Arc<Membership>| match people.get(m) {
            Some(known) => *m = known.clone(),
            None => drop(people.insert(m.clone())),
        };
        let mut jobs = BTreeMap::new();
        for mut job in whole.jobs.into_owned() {
            once(&mut job.member);
            jobs.insert(job.number, job);
        }
        let mut table = JobTable::new(site.clone());
        table.next = whole.next;
        table.sites = Names::of(whole.sites.into_owned());
        table.nodes = Names::of(whole.nodes.into_owned());
        table.seen = whole.seen.into_iter().collect::<HashMap<_, _>>();
        table.jobs = jobs;
        table.index();
        let placements = whole.placements.into_owned();
        let mut hosted = HostTable::new(site.clone());
        hosted.outboxes = whole.outboxes.into_owned();
        for mut p in placements {
            once(&mut p.member);
            let job = p.job.clone();
            hosted.hold(&p.job.site, p.held(), true);
            hosted.placements.insert(job.clone(), p);
            hosted.reindex(&job);
        }
        Ok(State { jobs: table, hosted })
    }
}

impl JobTable {
    /// Rebuilds what follows from the jobs.
    fn index(&mut self) {
        let open: Vec<u64> =
            self.jobs.values().filter(|j| !j.state.is_final()).map(|j| j.number).collect();
        for number in open {
            self.count_open(number, true);
            self.rank(number);
        }
        for (number, job) in &self.jobs {
            self.held.add(Held::of(&job.spec));
            if job.state.is_final() {
                if let Some(at) = super::apply::ended_at(job) {
                    self.ended.insert((at.0, *number));
                }
                continue;
            }
            for (i, unit) in job.units.iter().enumerate() {
                if unit.phase.pending().is_some()
                    && let Some(spec) = job.task_spec(job.task_of(i as u32))
                {
                    self.load.moved(None, unit.phase.pending(), &spec.resources);
                }
            }
            for before in &job.waits_for {
                if self.jobs.get(before).is_some_and(|b| !b.state.is_final()) {
                    self.dependents.entry(*before).or_default().insert(*number);
                }
            }
        }
    }
}
