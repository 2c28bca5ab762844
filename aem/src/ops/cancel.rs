//! Cancelling.

use super::{Grant, Want};
use crate::core::Core;
use crate::plan::owner::Reach;
use crate::state::{JobRecord, runs};
use std::collections::BTreeSet;
use std::sync::Arc;
use xos_api::aem::{CancelJob, CancelUnits, Cancelled};
use xos_api::audit::Event;
use xos_base::{Error, JobId};
use xos_net::Caller;
use xos_net::audit::asked;

impl Core {
    pub(crate) async fn cancel_job(
        self: Arc<Self>,
        caller: Caller,
        r: CancelJob,
    ) -> Result<Cancelled, Error> {
        let event = self.of_job(&caller, "cancel_job", &r.job);
        let cancelled = match self.authorise(&caller, &r.job, Want::Cancel) {
            Ok(grant) => self.cancel(grant, None).await,
            Err(e) => Err(e),
        };
        self.teller.end(event, cancelled).await
    }

    /// What somebody wants with a job of whom.
    pub(super) fn of_job(&self, caller: &Caller, what: &str, job: &JobId) -> Event {
        let mut event = asked(caller, self.now(), what);
        event.on = format!("job {job}");
        if let Ok((vo, person)) = self.whose(job) {
            (event.vo, event.person) = (Some(vo), Some(person));
        }
        event
    }

    pub(crate) async fn cancel_units(
        self: Arc<Self>,
        caller: Caller,
        r: CancelUnits,
    ) -> Result<Cancelled, Error> {
        let mut event = self.of_job(&caller, "cancel_units", &r.job);
        event.on = format!("{}:{}", r.job, r.units);
        let cancelled = self.units_cancelled(&caller, r).await;
        self.teller.end(event, cancelled).await
    }

    async fn units_cancelled(
        self: &Arc<Self>,
        caller: &Caller,
        r: CancelUnits,
    ) -> Result<Cancelled, Error> {
        let grant = self.authorise(caller, &r.job, Want::Cancel)?;
        let units: BTreeSet<u32> = r.units.iter().collect();
        let count = self.with_job(&grant, |_, job| job.units.len() as u32).await?;
        if let Some(unit) = units.iter().find(|u| **u >= count) {
            let last = count.saturating_sub(1);
            return Err(Error::not_found(format!("job {} has no unit {unit}", r.job))
                .hint(format!("its units are 0 to {last}")));
        }
        self.cancel(grant, Some(units)).await
    }

    async fn cancel(
        self: &Arc<Self>,
        grant: Grant,
        units: Option<BTreeSet<u32>>,
    ) -> Result<Cancelled, Error> {
        let at = self.now();
        self.commit(|txn| {
            let Some(job) = txn.state().jobs.find(&grant.job) else {
                return Err(Error::not_found(format!("job {} is no longer kept", grant.job)));
            };
            let open = job.units.iter().enumerate().filter(|(i, u)| {
                !u.phase.is_final() && units.as_ref().is_none_or(|set| set.contains(&(*i as u32)))
            });
            let count = open.count() as u32;
            if count > 0 {
                let units = units.map(runs::pack);
                let (job, by) = (grant.job.number, grant.by);
                txn.put(JobRecord::Cancelled { job, at, units, by });
                self.place(txn, Reach::Quick);
            }
            Ok(Cancelled { units: count })
        })
        .await
    }
}
