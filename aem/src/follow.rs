//! Listening to the sites that may host units of this core's jobs.

use crate::core::{Core, lock};
use crate::nodes::trim;
use crate::plan::owner::Reach;
use crate::state::unit::{Phase, Unit};
use crate::state::{JobRecord, JobTable};
use futures_util::StreamExt;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;
use xos_api::aem::{
    AckHosted, HostEvents, HostItem, HostedEvent, HostedRun, InlineOutput, Pool, SiteCapacity,
};
use xos_base::{Error, JobId, Kind, Millis, SiteId, UnitId};

/// The first wait before a stream is opened again; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest wait before a stream is opened again.
const RETRY_MAX: Duration = Duration::from_secs(15);
/// A host that says nothing for so long is not reachable.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Most items taken in at once.
const ITEMS_MAX: usize = 64;
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
        capacity.pools.retain(|p: &Pool| p.arch.len() <= 64);
        {
            let mut facts = lock(&self.owner);
            let view = facts.sites.entry(site.clone()).or_default();
            view.connected = true;
            view.capacity = capacity;
        }
        lock(&self.silent_sites).remove(site);
        self.wake.notify_one();
    }

    /// Takes in reports in order; what was seen before is left out, a gap ends the stream. Of a
    /// report counts what is of units that the site holds: the rest is as if it never came.
    pub(crate) async fn take_in(
        self: &Arc<Self>,
        site: &SiteId,
        reports: Vec<HostReport>,
    ) -> Result<u64, Error> {
        let now = self.now();
        self.commit(|txn| {
            let mut last = txn.state().jobs.seen(site);
            let mut fresh = Vec::new();
            for r in reports {
                if r.seq <= last {
                    continue;
                }
                if r.seq != last + 1 || r.job.site != self.site {
                    let text = format!(
                        "{site} sent report {} of job {} after report {last}",
                        r.seq, r.job
                    );
                    return Err(Error::new(Kind::Internal, text));
                }
                last = r.seq;
                fresh.push(r);
            }
            // Of reports without anything that counts only the last number is kept.
            let mut quiet = None;
            for r in fresh {
                let (seq, job, attempt, at) = (r.seq, r.job.number, r.attempt, now);
                let (events, outputs) = matched(&txn.state().jobs, site, r, now);
                let ended = events.iter().filter(|e| matches!(e.what, HostedRun::Ended { .. }));
                self.paced(&txn.state().jobs, job, site, ended.map(|e| e.unit));
                for (unit, output) in outputs {
                    lock(&self.outputs).put(unit, output);
                }
                let (site, none) = (site.clone(), events.is_empty());
                let record = JobRecord::Happened { site, seq, job, attempt, at, events };
                if none {
                    quiet = Some(record);
                } else {
                    quiet = None;
                    txn.put(record);
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

    /// Units at sites that are silent for too long are lost.
    pub(crate) async fn give_up_sites(self: &Arc<Self>) {
        use crate::state::runs;
        use xos_api::aem::UnitEnd;
        let (now, limit) = (self.now(), self.config.site_lost());
        let silent: Vec<(SiteId, Millis)> = {
            let silent = lock(&self.silent_sites);
            let over = silent.iter().filter(|(_, since)| now.since(**since) >= limit);
            over.map(|(s, t)| (s.clone(), *t)).collect()
        };
        for (site, since) in silent {
            let held: Vec<(u64, u16, Vec<u32>)> = self.ledger.read(|s| {
                let Some(n) = s.jobs.site_number(&site) else { return Vec::new() };
                let mut list = Vec::new();
                for j in s.jobs.iter().filter(|j| !j.state.is_final()) {
                    let mut by_attempt: std::collections::BTreeMap<u16, Vec<u32>> =
                        Default::default();
                    for (i, u) in j.units.iter().enumerate() {
                        if u.phase.site() == Some(n) {
                            by_attempt.entry(u.attempt).or_default().push(i as u32);
                        }
                    }
                    list.extend(by_attempt.into_iter().map(|(a, u)| (j.number, a, u)));
                }
                list
            });
            if held.is_empty() {
                continue;
            }
            let seq = self.ledger.read(|s| s.jobs.seen(&site));
            let reason = format!("site {site} is silent since {since}");
            let lost = |unit| HostedEvent {
                unit,
                at: now,
                what: HostedRun::Ended {
                    node: None,
                    started: None,
                    how: UnitEnd::Lost { reason: reason.clone() },
                    usage: Default::default(),
                    output: None,
                },
            };
            let stored = self
                .commit(|txn| {
                    for (job, attempt, units) in held {
                        let events = runs::unpack(&runs::pack(units)).map(lost).collect();
                        let (site, at) = (site.clone(), now);
                        txn.put(JobRecord::Happened { site, seq, job, attempt, at, events });
                    }
                    self.place(txn, Reach::Quick);
                    Ok(())
                })
                .await;
            if let Err(error) = stored {
                tracing::warn!(%error, "units of a silent site are not given up yet");
            }
        }
    }
}

/// A host's word on units of one job.
pub(crate) struct HostReport {
    pub(crate) seq: u64,
    pub(crate) job: JobId,
    pub(crate) attempt: u16,
    pub(crate) events: Vec<HostedEvent>,
}

/// What of a report is of units that the site holds under that attempt, with times and texts as
/// they may be stored, and the output that somebody waits for.
fn matched(
    jobs: &JobTable,
    site: &SiteId,
    report: HostReport,
    now: Millis,
) -> (Vec<HostedEvent>, Vec<(UnitId, InlineOutput)>) {
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
                HostedRun::Ended { how, output, .. } => {
                    trim(how);
                    let wanted = job.watched && job.units.len() == 1;
                    let output = output.take().filter(|_| wanted);
                    outputs.extend(output.map(|o| (report.job.unit(e.unit), o)));
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
mod tests;
