//! Moving a unit to a cluster of another site.

use super::Want;
use crate::core::{Core, lock};
use crate::plan;
use crate::state::JobRecord;
use crate::state::carry::Goal;
use crate::state::unit::Phase;
use crate::told;
use std::sync::Arc;
use xos_api::Done;
use xos_api::aem::{HostLeave, MoveUnit, UnitRun};
use xos_base::{Error, Kind};
use xos_net::Caller;
use xos_net::audit::asked;

impl Core {
    pub(crate) async fn move_unit(
        self: Arc<Self>,
        caller: Caller,
        r: MoveUnit,
    ) -> Result<Done, Error> {
        let mut event = self.of_job(&caller, "move_unit", &r.unit.job);
        let to = r.cluster.as_ref().map_or_else(|| r.site.to_string(), ToString::to_string);
        event.on = format!("{} to {to}", r.unit);
        let moved = self.unit_moves(&caller, r).await;
        self.teller.end(event, moved).await
    }

    async fn unit_moves(self: &Arc<Self>, caller: &Caller, r: MoveUnit) -> Result<Done, Error> {
        let grant = self.authorise(caller, &r.unit.job, Want::Cancel)?;
        if let Some(cluster) = r.cluster.as_ref().filter(|c| c.site() != r.site) {
            return Err(Error::invalid(format!("{cluster} is no cluster of {}", r.site)));
        }
        let (unit, now) = (r.unit.index.0, self.now());
        let to = Goal { site: r.site, cluster: r.cluster };
        self.commit(|txn| {
            let table = &txn.state().jobs;
            let Some(job) = table.find(&grant.job) else {
                return Err(Error::not_found(format!("job {} is no longer kept", grant.job)));
            };
            let may = plan::owner::may_move(table, &lock(&self.owner), (job, unit), &to, now);
            if let Err(refusal) = may {
                let kind = if refusal.later { Kind::Limited } else { Kind::Conflict };
                return Err(Error::new(kind, format!("{} stays: {}", r.unit, refusal.text))
                    .hint(format!("`xos job show {}` tells where its units are", grant.job)));
            }
            let u = job.units.get(unit as usize);
            let Some(u) = u.filter(|u| matches!(u.phase, Phase::Running { .. })) else {
                return Err(Error::conflict(format!("{} does not run now", r.unit)));
            };
            let (attempt, number) = (u.attempt, job.number);
            let by = grant.by;
            txn.put(JobRecord::Going { job: number, unit, attempt, to, at: now, by });
            Ok(Done {})
        })
        .await
    }

    pub(crate) async fn host_leave(
        self: Arc<Self>,
        caller: Caller,
        r: HostLeave,
    ) -> Result<Done, Error> {
        let mut event = asked(&caller, self.now(), "leave_cluster");
        event.on = told::named(&r.job, &[UnitRun { first: r.unit, count: 1 }]);
        let left = match self.owner_of(&caller, &r.job) {
            Ok(_) => self.leave_here(r).await,
            Err(e) => Err(e),
        };
        // That it left is told with its record; an owner asks again until then.
        match left {
            Err(e) if e.kind != Kind::Unavailable => self.teller.end(event, Err(e)).await,
            left => left,
        }
    }
}
