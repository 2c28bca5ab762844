//! How long ended jobs are kept.

use crate::core::Core;
use crate::owner::may_pass;
use crate::state::{HostRecord, JobRecord};
use crate::work::{Next, Work};
use std::sync::Arc;
use xos_api::aem::CancelHosted;
use xos_base::{JobId, Millis, SiteId};

/// Most ended jobs forgotten in one pass.
const FORGET_MAX: usize = 200;

impl Core {
    pub(crate) async fn do_forget(self: &Arc<Self>, job: &JobId, site: &SiteId) -> Next {
        if *site == self.site {
            let job = job.clone();
            let stored = self
                .commit(|txn| {
                    txn.put(HostRecord::Forgotten { job });
                    Ok(())
                })
                .await;
            return if stored.is_ok() { Next::Rest } else { Next::Later };
        }
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

    /// Forgets ended jobs that were kept long enough, or are too many.
    pub(crate) async fn forget_old(self: &Arc<Self>) {
        let (now, keep) = (self.now(), self.config.keep_ended());
        let old: Vec<(JobId, Vec<SiteId>)> = self.ledger.read(|s| {
            let ended: Vec<(u64, u64)> = s.jobs.ended().collect();
            let too_many = ended.len().saturating_sub(self.config.keep_ended_jobs);
            let old = ended
                .iter()
                .enumerate()
                .filter(|(i, (at, _))| *i < too_many || now.since(Millis(*at)) > keep);
            old.take(FORGET_MAX)
                .filter_map(|(_, (_, n))| {
                    let hosts = s.jobs.hosts_of(s.jobs.job(*n)?).into_iter().collect();
                    Some((s.jobs.id(*n), hosts))
                })
                .collect()
        });
        if old.is_empty() {
            return;
        }
        let stored = self
            .commit(|txn| {
                for (job, _) in &old {
                    txn.put(JobRecord::Forgotten { job: job.number });
                }
                Ok(())
            })
            .await;
        if let Err(error) = stored {
            tracing::warn!(%error, "old jobs are kept");
            return;
        }
        for (job, sites) in old {
            for site in sites {
                self.start_work(Work::Forget(job.clone(), site));
            }
        }
    }
}
