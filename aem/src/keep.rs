//! How long ended jobs are kept.

use crate::core::Core;
use crate::ledger::Txn;
use crate::limits::OWNER_PART;
use crate::owner::may_pass;
use crate::state::held::Held;
use crate::state::host::Placement;
use crate::state::{HostRecord, JobRecord};
use crate::work::{Next, Work};
use std::collections::HashMap;
use std::sync::Arc;
use xos_api::aem::CancelHosted;
use xos_base::{JobId, Millis, SiteId};

/// A job of another site with a unit that left, and whose image may be all that there is of it, is
/// kept so many times longer than others of which nothing is heard.
const NEEDED_TIMES: u32 = 4;
/// Most ended jobs forgotten in one change.
pub(crate) const FORGET_MAX: usize = 200;

impl Core {
    /// Lets another site forget a job.
    pub(crate) async fn do_forget(self: &Arc<Self>, job: &JobId, site: &SiteId) -> Next {
        let request = CancelHosted { job: job.clone(), units: Vec::new() };
        match self.world.cancel_hosted(site, request).await {
            Err(e) if may_pass(e.kind) => {
                // The host forgets by itself after a while; no need to insist for ever.
                tracing::debug!(error = %e, %site, %job, "a site keeps a forgotten job for now");
                Next::Rest
            }
            _ => Next::Rest,
        }
    }

    /// Forgets ended jobs; gives the other sites that have something of them.
    pub(crate) fn forget(
        &self,
        txn: &mut Txn<'_>,
        jobs: impl IntoIterator<Item = u64>,
    ) -> Vec<(JobId, SiteId)> {
        let mut elsewhere = Vec::new();
        for number in jobs {
            let table = &txn.state().jobs;
            let Some(job) = table.job(number) else { continue };
            let (id, hosts) = (table.id(number), table.hosts_of(job));
            txn.put(JobRecord::Forgotten { job: number });
            for site in hosts {
                if site == self.site {
                    txn.put(HostRecord::Forgotten { job: id.clone() });
                } else {
                    elsewhere.push((id.clone(), site));
                }
            }
        }
        elsewhere
    }

    /// Tells other sites what was forgotten.
    pub(crate) fn tell_forgotten(self: &Arc<Self>, elsewhere: Vec<(JobId, SiteId)>) {
        for (job, site) in elsewhere {
            self.start_work(Work::Forget(job, site));
        }
    }

    /// Forgets ended jobs that were kept long enough, or are too many.
    pub(crate) async fn forget_old(self: &Arc<Self>) {
        let keep = self.config.keep_ended();
        loop {
            let now = self.now();
            let forgotten = self.commit(|txn| {
                let table = &txn.state().jobs;
                let too_many = table.ended_len().saturating_sub(self.config.keep_ended_jobs);
                let over = |(i, at): (usize, u64)| i < too_many || now.since(Millis(at)) > keep;
                let ended = table.ended().enumerate().take(FORGET_MAX);
                let old: Vec<u64> =
                    ended.take_while(|(i, (at, _))| over((*i, *at))).map(|(_, (_, n))| n).collect();
                let all = old.len() == FORGET_MAX;
                Ok((self.forget(txn, old), all))
            });
            match forgotten.await {
                Ok((elsewhere, more)) => {
                    self.tell_forgotten(elsewhere);
                    if !more {
                        return;
                    }
                }
                Err(error) => return tracing::warn!(%error, "old jobs are kept"),
            }
        }
    }

    /// Forgets jobs here that nothing is heard of any more: of other sites, whose owners never said
    /// so, twice the time that this core keeps its own after the last end, or, when all together
    /// or those of one site take more than half of the room that there is for them, those that
    /// ended first; its own, as soon as it has forgotten the job. With a job go the images of its
    /// units that left: as long as their owner may need these, only time counts, and for longer.
    pub(crate) async fn forget_hosted(self: &Arc<Self>) {
        let (now, keep) = (self.now(), self.config.keep_ended() * 2);
        let old: Vec<JobId> = self.ledger.read(|s| {
            let mut held = s.hosted.held_for_others();
            let mut of: HashMap<SiteId, Held> = HashMap::new();
            let most = (self.config.units_max / 2, self.config.job_bytes_max / 2);
            let over = |h: &Held, part: u64| h.units > most.0 / part || h.bytes > most.1 / part;
            let idle = |p: &&Placement| !p.forgotten && !s.hosted.is_active(&p.job);
            let mut ended: Vec<&Placement> = s.hosted.placements().filter(idle).collect();
            ended.sort_by_key(|p| p.last_news());
            let goes = |p: &&&Placement| {
                if p.job.site == self.site {
                    return s.jobs.find(&p.job).is_none();
                }
                if p.is_needed() {
                    return now.since(p.last_news()) > keep * NEEDED_TIMES;
                }
                let owner = &p.job.site;
                let of_one = of.entry(owner.clone()).or_insert_with(|| s.hosted.held_for(owner));
                let full = over(&held, 1) || over(of_one, OWNER_PART);
                if full {
                    held.sub(p.held());
                    of_one.sub(p.held());
                }
                full || now.since(p.last_news()) > keep
            };
            ended.iter().filter(goes).map(|p| p.job.clone()).collect()
        });
        for some in old.chunks(FORGET_MAX) {
            let stored = self.commit(|txn| {
                for job in some {
                    txn.put(HostRecord::Forgotten { job: job.clone() });
                }
                Ok(())
            });
            if let Err(error) = stored.await {
                return tracing::warn!(%error, "old hosted jobs are kept");
            }
        }
    }
}

#[cfg(test)]
mod tests;
