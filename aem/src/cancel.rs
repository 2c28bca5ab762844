//! What is cancelled of jobs owned here is brought to its end, wherever it is.

use crate::core::{Core, lock};
use crate::lost;
use crate::owner::unstored;
use crate::state::{HostRecord, Job, JobTable, runs};
use crate::work::{Next, Work};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use xos_api::aem::{CancelHosted, UnitRun};
use xos_base::{JobId, Millis, SiteId};

/// A site that has not confirmed for so long that it ended what was cancelled there: nobody waits
/// for it any longer.
const CONFIRM_MAX: Duration = Duration::from_secs(3600);

impl Core {
    /// Begins to cancel at every site that has units of the job.
    pub(crate) fn cancel_elsewhere(self: &Arc<Self>, number: u64) {
        let sites = self.ledger.read(|s| {
            s.jobs.job(number).map_or_else(Default::default, |j| cancelled_at(&s.jobs, j))
        });
        for site in sites.into_keys() {
            self.start_work(Work::Cancel(number, site));
        }
    }

    /// Asks a site to end what is cancelled, until it has ended: units that the site takes from an
    /// offer that was under way are cancelled as well.
    pub(crate) async fn do_cancel(self: &Arc<Self>, number: u64, site: &SiteId) -> Next {
        let units = self.ledger.read_stored(|s| {
            let j = s.jobs.job(number)?;
            cancelled_at(&s.jobs, j).remove(site)
        });
        let key = (number, site.clone());
        let mut units = match units.await {
            Ok(Some(units)) => units,
            Ok(None) => {
                lock(&self.unconfirmed).remove(&key);
                return Next::Rest;
            }
            Err(error) => return unstored(number, &error),
        };
        let now = self.now();
        let since = *lock(&self.unconfirmed).entry(key).or_insert(now);
        if now.since(since) >= CONFIRM_MAX {
            return self.give_up_cancelled(number, site, since).await;
        }
        let job = JobId { site: self.site.clone(), number };
        if *site == self.site {
            let stored = self.commit(|txn| {
                let p = txn.state().hosted.placement(&job);
                if p.is_some_and(|p| p.is_to_cancel(Some(&units))) {
                    txn.put(HostRecord::Cancelled { job, at: now, units: Some(units) });
                }
                Ok(())
            });
            if let Err(error) = stored.await {
                return unstored(number, &error);
            }
            return Next::Later;
        }
        // The rest comes when these have ended.
        units.truncate(runs::RUNS_MAX);
        if let Err(error) = self.world.cancel_hosted(site, CancelHosted { job, units }).await {
            tracing::info!(%error, %site, job = number, "a site does not cancel units yet");
        }
        Next::Later
    }

    /// A site does not say that it ended what is cancelled: the job does not wait for it any more.
    async fn give_up_cancelled(
        self: &Arc<Self>,
        number: u64,
        site: &SiteId,
        since: Millis,
    ) -> Next {
        let gone = self.ledger.read(|s| {
            let of = |j| lost::held(&s.jobs, j, site, |u| u.cancel);
            s.jobs.job(number).map(of).unwrap_or_default()
        });
        let reason =
            format!("{site} was asked since {since} to end it, and has not confirmed that");
        match self.lose(site, gone, &reason).await {
            Ok(()) => tracing::warn!(%site, job = number, "cancelled units are given up"),
            Err(error) => return unstored(number, &error),
        }
        // It looks once more, and forgets since when.
        Next::Later
    }
}

/// The units of a job that are cancelled and not ended, by site.
pub(crate) fn cancelled_at(table: &JobTable, job: &Job) -> BTreeMap<SiteId, Vec<UnitRun>> {
    let mut by_site: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
    for (i, u) in job.units.iter().enumerate() {
        if let (true, Some(site)) = (u.cancel, u.phase.site()) {
            by_site.entry(site).or_default().push(i as u32);
        }
    }
    let name = |(n, units): (u16, Vec<u32>)| Some((table.site_name(n)?.clone(), runs::pack(units)));
    by_site.into_iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests;
