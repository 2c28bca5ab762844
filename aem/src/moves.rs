//! Units of jobs owned here that are to leave a cluster, and what is left of those that did.

use crate::core::Core;
use crate::host::REASON_MAX;
use crate::owner::{cut, may_pass, unstored};
use crate::state::JobRecord;
use crate::state::carry::{Going, Spent};
use crate::work::Next;
use std::sync::Arc;
use std::time::Duration;
use xos_api::Done;
use xos_api::aem::{HostLeave, Reason};
use xos_api::node::units::EnvelopeId;
use xos_base::{Error, JobId, Kind, Millis, SiteId};

/// How long a unit may take to leave, until nobody waits for it any longer. It may leave later:
/// then it goes on wherever it can.
const LEAVE_MAX: Duration = Duration::from_secs(600);

/// What is to be done about the units of a job.
#[derive(Default)]
struct Due {
    going: Vec<(u32, SiteId, Going)>,
    spent: Vec<(Spent, SiteId)>,
}

impl Core {
    /// Asks sites to let units of a job go, and to drop images that are not needed, until that is
    /// done.
    pub(crate) async fn do_moves(self: &Arc<Self>, number: u64) -> Next {
        let due = self.ledger.read_stored(|s| {
            let Some(job) = s.jobs.job(number) else { return Due::default() };
            let going = job.going.iter().filter_map(|(unit, g)| {
                let at = job.units.get(*unit as usize)?.phase.site()?;
                Some((*unit, s.jobs.site_name(at)?.clone(), g.clone()))
            });
            let spent = job.spent.iter();
            let spent = spent.filter_map(|x| Some((*x, s.jobs.site_name(x.site)?.clone())));
            Due { going: going.collect(), spent: spent.collect() }
        });
        let due = match due.await {
            Ok(due) => due,
            Err(error) => return unstored(number, &error),
        };
        let job = JobId { site: self.site.clone(), number };
        let mut next = Next::Rest;
        for (unit, site, going) in due.going {
            let request = HostLeave { job: job.clone(), unit, attempt: going.attempt, over: false };
            let left = self.leave_at(&site, request).await;
            if self.goes(number, unit, &site, going.at, left).await {
                next = Next::Later;
            }
        }
        for (spent, site) in due.spent {
            let Spent { unit, attempt, .. } = spent;
            let request = HostLeave { job: job.clone(), unit, attempt, over: true };
            let record = match self.leave_at(&site, request).await {
                Err(error) if may_pass(error.kind) => {
                    tracing::info!(%error, %site, %job, unit, "an image is not dropped yet");
                    next = Next::Later;
                    continue;
                }
                _ => JobRecord::Dropped { job: number, unit, attempt },
            };
            if self.put(record).await.is_err() {
                next = Next::Later;
            }
        }
        next
    }

    async fn leave_at(self: &Arc<Self>, site: &SiteId, r: HostLeave) -> Result<Done, Error> {
        if *site == self.site {
            return self.leave_here(r).await;
        }
        self.world.host_leave(site, r).await
    }

    async fn put(self: &Arc<Self>, record: JobRecord) -> Result<(), Error> {
        self.commit(|txn| {
            txn.put(record);
            Ok(())
        })
        .await
    }

    /// What a site answered that is to let a unit go: whether it is asked again.
    async fn goes(
        self: &Arc<Self>,
        job: u64,
        unit: u32,
        site: &SiteId,
        since: Millis,
        left: Result<Done, Error>,
    ) -> bool {
        let at = self.now();
        let late = at.since(since) >= LEAVE_MAX;
        let passes = |e: &Error| may_pass(e.kind) && e.kind != Kind::Conflict;
        let why = match left {
            Ok(_) if !late => return true,
            Err(error) if !late && passes(&error) => {
                tracing::info!(%error, %site, job, unit, "a unit does not leave yet");
                return true;
            }
            Ok(_) => format!("it did not leave within {LEAVE_MAX:?}"),
            Err(error) => error.to_string(),
        };
        let text = cut(&format!("unit {unit} was not moved: {why}"), REASON_MAX);
        let (site, rule, task) = (Some(site.clone()), "move".to_owned(), None);
        let reason = Reason { at, site, rule, text, task };
        self.put(JobRecord::Stays { job, unit, reason }).await.is_err()
    }

    /// A unit hosted here is to leave its cluster, or what is left of it is to go.
    pub(crate) async fn leave_here(self: &Arc<Self>, r: HostLeave) -> Result<Done, Error> {
        let found = self.ledger.read_stored(|s| {
            let p = s.hosted.placement(&r.job)?;
            let serial = p.serial_of(r.unit, r.attempt)?;
            Some((p.envelopes.get(&serial)?.node.clone(), serial))
        });
        let Some((node, serial)) = found.await? else {
            // With its envelope all of it went.
            if r.over {
                return Ok(Done {});
            }
            let text = format!("unit {} of job {} does not run at {}", r.unit, r.job, self.site);
            return Err(Error::conflict(text));
        };
        let Some(clusters) = self.cluster(&node) else {
            let text = format!("unit {} of job {} is on {node}, no cluster", r.unit, r.job);
            return Err(Error::conflict(text).hint("units in clusters move"));
        };
        let envelope = EnvelopeId { job: r.job, serial };
        clusters.leave(&node, &envelope, (r.unit, r.attempt), r.over).await
    }
}
