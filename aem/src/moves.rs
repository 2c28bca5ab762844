//! Units of jobs owned here that are to leave a cluster, and what is left of those that did.

use crate::core::Core;
use crate::host::REASON_MAX;
use crate::owner::{cut, may_pass, unstored};
use crate::state::carry::{Going, Spent};
use crate::state::host::LeftRun;
use crate::state::{HostRecord, JobRecord};
use crate::work::Next;
use std::sync::Arc;
use xos_api::Done;
use xos_api::aem::{HostLeave, Reason};
use xos_api::node::units::EnvelopeId;
use xos_base::{Error, JobId, Kind, Millis, SiteId};

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
            let Going { attempt, at, .. } = going;
            let request = HostLeave { job: job.clone(), unit, attempt, at, over: false };
            let left = self.leave_at(&site, request).await;
            if self.goes(number, (unit, at), &site, left).await {
                next = Next::Later;
            }
        }
        for (spent, site) in due.spent {
            let Spent { unit, attempt, .. } = spent;
            let at = Millis(0);
            let request = HostLeave { job: job.clone(), unit, attempt, at, over: true };
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

    /// What a site answered that is to let a unit go: whether it is asked again. Until it says that
    /// the unit stays, that may leave at any time, however long it takes: where it was sent is kept
    /// as long.
    async fn goes(
        self: &Arc<Self>,
        job: u64,
        (unit, asked): (u32, Millis),
        site: &SiteId,
        left: Result<Done, Error>,
    ) -> bool {
        let why = match left {
            Ok(_) => return true,
            Err(error) if may_pass(error.kind) && error.kind != Kind::Conflict => {
                tracing::info!(%error, %site, job, unit, "a unit does not leave yet");
                return true;
            }
            Err(error) => error.to_string(),
        };
        let text = cut(&format!("unit {unit} was not moved: {why}"), REASON_MAX);
        let (at, task) = (self.now(), None);
        let (site, rule) = (Some(site.clone()), "move".to_owned());
        let reason = Reason { at, site, rule, text, task };
        let stays = self.commit(|txn| {
            // Somebody may have sent it elsewhere meanwhile.
            let jobs = &txn.state().jobs;
            let going = jobs.job(job).and_then(|j| j.going.get(&unit));
            if going.is_some_and(|g| g.at == asked) {
                txn.put(JobRecord::Stays { job, unit, reason });
            }
            Ok(())
        });
        stays.await.is_err()
    }

    /// A unit hosted here is to leave its cluster, or what is left of it is to go.
    pub(crate) async fn leave_here(self: &Arc<Self>, r: HostLeave) -> Result<Done, Error> {
        let found = self.ledger.read_stored(|s| {
            let p = s.hosted.placement(&r.job)?;
            let serial = p.serial_of(r.unit, r.attempt)?;
            let saved = p.task(r.unit).is_some_and(|t| t.spec.checkpointable);
            Some((p.envelopes.get(&serial)?.node.clone(), serial, saved))
        });
        let Some((node, serial, saved)) = found.await? else {
            // With its envelope all of it went.
            if r.over {
                return Ok(Done {});
            }
            let text = format!("unit {} of job {} does not run at {}", r.unit, r.job, self.site);
            return Err(Error::conflict(text));
        };
        let Some(clusters) = self.cluster(&node) else {
            // Only clusters get such units: it is not there yet, and may have let the unit go.
            if saved {
                return Err(Error::unavailable(format!("cluster {node} is not there now")));
            }
            let text = format!("unit {} of job {} is on {node}, no cluster", r.unit, r.job);
            return Err(Error::conflict(text).hint("units in clusters move"));
        };
        let (unit, attempt) = (r.unit, r.attempt);
        let envelope = EnvelopeId { job: r.job.clone(), serial };
        let left = clusters.leave(&node, &envelope, (unit, attempt), r.at, r.over).await?;
        if r.over {
            self.commit(|txn| {
                let is = |l: &LeftRun| (l.unit, l.attempt, l.over) == (unit, attempt, false);
                let p = txn.state().hosted.placement(&r.job);
                if p.is_some_and(|p| p.left.iter().any(is)) {
                    txn.put(HostRecord::Spent { job: r.job, unit, attempt });
                }
                Ok(())
            })
            .await?;
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests;
