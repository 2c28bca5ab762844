//! Listening to the sites that may host units of this core's jobs.

use crate::core::{Core, lock};
use crate::host::REASON_MAX;
use crate::nodes::trim;
use crate::outputs::Run;
use crate::owner::cut;
use crate::plan::owner::Reach;
use crate::state::record::{self, EVENTS_MAX};
use crate::state::unit::{Phase, Unit};
use crate::state::{JobRecord, JobTable};
use futures_util::StreamExt;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use xos_api::aem::{
    AckHosted, HostEvents, HostItem, HostedEvent, HostedRun, InlineOutput, Pool, SiteCapacity,
    UNITS_MAX,
};
use xos_base::{Error, JobId, Kind, Millis, SiteId};

/// The first wait before a stream is opened again; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest wait before a stream is opened again.
const RETRY_MAX: Duration = Duration::from_secs(15);
/// A host that says nothing for so long is not reachable.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Most items taken in at once.
const ITEMS_MAX: usize = 64;
/// Most events in one report: a unit starts once and ends once under an attempt.
const REPORT_EVENTS_MAX: usize = 2 * UNITS_MAX as usize;
/// Most events taken in by one change, unless one part of a report has more.
const CHANGE_EVENTS_MAX: usize = 8 * EVENTS_MAX;
/// Most pools in a host's word of its room.
const POOLS_MAX: usize = 64;
/// How far a host's clock may be ahead; later times are brought back to now.
const SKEW: Duration = Duration::from_secs(60);
/// Most sites followed.
const SITES_MAX: usize = 1000;

/// Sites that are being followed.
pub(crate) type Followed = std::sync::Mutex<HashSet<SiteId>>;

impl Core {
    /// Follows every site that serves a VO known here.
    pub(crate) fn follow_sites(self: &Arc<Self>) {
        let mut sites = BTreeSet::new();
        for vo in self.views.vos() {
            if let Some(view) = self.views.known(&vo) {
                sites.extend(view.sites.iter().map(|s| s.site.clone()));
            }
        }
        // And those that have units of ours, whoever serves what now.
        self.ledger.read(|s| {
            for job in s.jobs.iter().filter(|j| !j.state.is_final()) {
                sites.extend(s.jobs.hosts_of(job));
            }
        });
        sites.remove(&self.site);
        let mut followed = lock(&self.followed);
        for site in sites {
            if followed.len() < SITES_MAX && followed.insert(site.clone()) {
                let core = Arc::clone(self);
                self.tasks.spawn(async move { core.follow(site).await });
            }
        }
    }

    async fn follow(self: Arc<Self>, site: SiteId) {
        let mut wait = RETRY_MIN;
        while !self.stop.is_cancelled() {
            let began = self.now();
            let end = tokio::select! {
                end = self.listen(&site) => end,
                () = self.stop.cancelled() => return,
            };
            if let Some(view) = lock(&self.owner).sites.get_mut(&site) {
                view.connected = false;
            }
            lock(&self.silent_sites).entry(site.clone()).or_insert_with(|| self.now());
            if let Err(error) = end {
                tracing::info!(%error, %site, "not connected to a host site");
            }
            if self.now().since(began) > RETRY_MAX {
                wait = RETRY_MIN;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return,
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    async fn listen(self: &Arc<Self>, site: &SiteId) -> Result<(), Error> {
        let after = self.ledger.read(|s| s.jobs.seen(site));
        let items = self.world.host_events(site, HostEvents { after }).await?;
        let mut items = items.ready_chunks(ITEMS_MAX);
        loop {
            let next = tokio::time::timeout(SILENCE_MAX, items.next()).await;
            let chunk = next.map_err(|_| Error::unavailable(format!("{site} says nothing")))?;
            let Some(chunk) = chunk else { return Ok(()) };
            let mut reports = Vec::new();
            for item in chunk {
                match item? {
                    HostItem::Capacity { capacity } => self.heard(site, capacity),
                    HostItem::Units { seq, job, attempt, events } => {
                        reports.push(HostReport { seq, job, attempt, events });
                    }
                }
            }
            if !reports.is_empty() {
                let seq = self.take_in(site, reports).await?;
                // What is not acknowledged now is with the next report.
                if let Err(error) = self.world.ack_hosted(site, AckHosted { seq }).await {
                    tracing::debug!(%error, %site, "reports are not acknowledged yet");
                }
            }
        }
    }

    /// A site told of its room.
    fn heard(&self, site: &SiteId, mut capacity: SiteCapacity) {
        capacity.pools.truncate(POOLS_MAX);
        capacity.shares.truncate(POOLS_MAX);
        capacity.takes_from.truncate(SITES_MAX);
        capacity.clusters.truncate(POOLS_MAX);
        capacity.clusters.retain(|c| c.arch.len() <= 64 && c.cluster.site() == *site);
        capacity.pools.retain(|p: &Pool| p.arch.len() <= 64);
        {
            let mut facts = lock(&self.owner);
            let view = facts.sites.entry(site.clone()).or_default();
            if !view.connected {
                view.since = self.now();
            }
            view.connected = true;
            view.capacity = capacity;
        }
        lock(&self.silent_sites).remove(site);
        self.wake.notify_one();
    }

    /// Takes in reports in order; what was seen before is left out, a gap ends the stream. Of a
    /// report counts what is of units that the site holds: the rest is as if it never came. However
    /// long a report is, its records fit into the journal; it counts as seen with the last of them.
    pub(crate) async fn take_in(
        self: &Arc<Self>,
        site: &SiteId,
        reports: Vec<HostReport>,
    ) -> Result<u64, Error> {
        let mut parts = VecDeque::new();
        for r in reports {
            parts.extend(r.cut(site)?);
        }
        let mut last = 0;
        while !parts.is_empty() {
            let mut events = 0;
            let fits = |p: &&Part| {
                events += p.events.len();
                events <= CHANGE_EVENTS_MAX
            };
            let n = parts.iter().take_while(fits).count().max(1);
            last = self.take_parts(site, parts.drain(..n).collect()).await?;
        }
        Ok(last)
    }

    async fn take_parts(self: &Arc<Self>, site: &SiteId, parts: Vec<Part>) -> Result<u64, Error> {
        let now = self.now();
        self.commit(|txn| {
            let mut last = txn.state().jobs.seen(site);
            let mut fresh = Vec::new();
            for p in parts {
                if p.seq <= last {
                    continue;
                }
                if p.seq != last + 1 || p.job.site != self.site {
                    let text = format!(
                        "{site} sent report {} of job {} after report {last}",
                        p.seq, p.job
                    );
                    return Err(Error::new(Kind::Internal, text));
                }
                if p.whole {
                    last = p.seq;
                }
                fresh.push((last, p));
            }
            // Of reports without anything that counts only the last number is kept.
            let mut quiet = None;
            for (seq, p) in fresh {
                let (job, attempt, at, whole) = (p.job.number, p.attempt, now, p.whole);
                let (events, outputs) = matched(&txn.state().jobs, site, p, now);
                let ended = events.iter().filter(|e| matches!(e.what, HostedRun::Ended { .. }));
                self.paced(&txn.state().jobs, job, site, ended.map(|e| e.unit));
                for (run, output) in outputs {
                    lock(&self.outputs).put(run, output);
                }
                let (site, none) = (site.clone(), events.is_empty());
                let record = JobRecord::Happened { site, seq, job, attempt, at, events };
                if !none {
                    quiet = None;
                    txn.put(record);
                } else if whole {
                    quiet = Some(record);
                }
            }
            if let Some(record) = quiet {
                txn.put(record);
            }
            self.place(txn, Reach::Quick);
            Ok(last)
        })
        .await
    }
}

/// A host's word on units of one job.
pub(crate) struct HostReport {
    pub(crate) seq: u64,
    pub(crate) job: JobId,
    pub(crate) attempt: u16,
    pub(crate) events: Vec<HostedEvent>,
}

/// As much of a report as goes into one record.
struct Part {
    seq: u64,
    job: JobId,
    attempt: u16,
    events: Vec<HostedEvent>,
    /// Whether the report is seen with it.
    whole: bool,
}

impl HostReport {
    fn cut(self, site: &SiteId) -> Result<Vec<Part>, Error> {
        let HostReport { seq, job, attempt, events } = self;
        if events.len() > REPORT_EVENTS_MAX {
            let text = format!("{site} sent {} events in one report", events.len());
            return Err(Error::new(Kind::TooLarge, text));
        }
        let part = |events| Part { seq, job: job.clone(), attempt, events, whole: false };
        let mut parts: Vec<Part> = record::cut(events).into_iter().map(part).collect();
        parts.iter_mut().next_back().into_iter().for_each(|last| last.whole = true);
        Ok(parts)
    }
}

/// What of a report is of units that the site holds under that attempt, with times and texts as
/// they may be stored, and the output that somebody waits for.
fn matched(
    jobs: &JobTable,
    site: &SiteId,
    report: Part,
    now: Millis,
) -> (Vec<HostedEvent>, Vec<(Run, InlineOutput)>) {
    let mut outputs = Vec::new();
    let mut events = Vec::new();
    let (Some(job), Some(number)) = (jobs.job(report.job.number), jobs.site_number(site)) else {
        return (events, outputs);
    };
    let (mut started, mut ended) = (HashSet::new(), HashSet::new());
    for mut e in report.events {
        let held = |u: &&Unit| u.attempt == report.attempt && u.phase.site() == Some(number);
        let Some(unit) = job.units.get(e.unit as usize).filter(held) else { continue };
        if e.at > now.plus(SKEW) {
            e.at = now;
        }
        let new = !ended.contains(&e.unit)
            && match &mut e.what {
                HostedRun::Started { .. } => {
                    !matches!(unit.phase, Phase::Running { .. }) && started.insert(e.unit)
                }
                HostedRun::Left { carried, why, .. } => {
                    *why = cut(why, REASON_MAX);
                    // Of what has another form nobody could go on.
                    carried.to = None;
                    carried.is_of(site) && ended.insert(e.unit)
                }
                HostedRun::Ended { how, output, .. } => {
                    trim(how);
                    let wanted = job.watched && job.units.len() == 1;
                    let output = output.take().filter(|_| wanted);
                    let run = (report.job.unit(e.unit), report.attempt);
                    outputs.extend(output.map(|o| (run, o)));
                    ended.insert(e.unit)
                }
            };
        if new {
            events.push(e);
        }
    }
    (events, outputs)
}

#[cfg(test)]
pub(crate) mod tests;
