//! Units of jobs owned here of which their site will not be heard again.

use crate::core::{Core, lock};
use crate::plan::owner::Reach;
use crate::state::record;
use crate::state::unit::Unit;
use crate::state::{Job, JobRecord, JobTable};
use std::collections::BTreeMap;
use std::sync::Arc;
use xos_api::aem::{HostedEvent, HostedRun, UnitEnd};
use xos_base::{Error, Millis, SiteId};

/// Most records of lost units in one change.
const RECORDS_MAX: usize = 8;

/// Units of one job under one attempt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    job: u64,
    attempt: u16,
    units: Vec<u32>,
}

/// The units of a job that a site has and that `which` chooses.
pub(crate) fn held(
    jobs: &JobTable,
    job: &Job,
    site: &SiteId,
    which: fn(&Unit) -> bool,
) -> Vec<Gone> {
    let Some(site) = jobs.site_number(site) else { return Vec::new() };
    let mut by_attempt: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
    for (i, u) in job.units.iter().enumerate() {
        if u.phase.site() == Some(site) && which(u) {
            by_attempt.entry(u.attempt).or_default().push(i as u32);
        }
    }
    let gone = |(attempt, units)| Gone { job: job.number, attempt, units };
    by_attempt.into_iter().map(gone).collect()
}

impl Core {
    /// Units at sites that are silent for too long are lost.
    pub(crate) async fn give_up_sites(self: &Arc<Self>) {
        let (now, limit) = (self.now(), self.config.site_lost());
        let silent: Vec<(SiteId, Millis)> = {
            let silent = lock(&self.silent_sites);
            let over = silent.iter().filter(|(_, since)| now.since(**since) >= limit);
            over.map(|(s, t)| (s.clone(), *t)).collect()
        };
        for (site, since) in silent {
            let gone: Vec<Gone> = self.ledger.read(|s| {
                let open = s.jobs.iter().filter(|j| !j.state.is_final());
                open.flat_map(|j| held(&s.jobs, j, &site, |_| true)).collect()
            });
            let reason = format!("site {site} is silent since {since}");
            if let Err(error) = self.lose(&site, gone, &reason).await {
                tracing::warn!(%error, "units of a silent site are not given up yet");
            }
        }
    }

    /// Ends units that a site has, as lost.
    ///
    /// # Errors
    /// Why that is not stored; some of them may be lost already.
    pub(crate) async fn lose(
        self: &Arc<Self>,
        site: &SiteId,
        gone: Vec<Gone>,
        reason: &str,
    ) -> Result<(), Error> {
        let at = self.now();
        let lost = |unit| {
            let how = UnitEnd::Lost { reason: reason.to_owned() };
            let (node, started, usage, output) = Default::default();
            HostedEvent { unit, at, what: HostedRun::Ended { node, started, how, usage, output } }
        };
        let parts = |g: Gone| {
            let events = g.units.into_iter().map(lost).collect();
            record::cut(events).into_iter().map(move |events| (g.job, g.attempt, events))
        };
        let parts: Vec<_> = gone.into_iter().flat_map(parts).collect();
        for some in parts.chunks(RECORDS_MAX) {
            self.commit(|txn| {
                let seq = txn.state().jobs.seen(site);
                for (job, attempt, events) in some.iter().cloned() {
                    let site = site.clone();
                    txn.put(JobRecord::Happened { site, seq, job, attempt, at, events });
                }
                self.place(txn, Reach::Quick);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
