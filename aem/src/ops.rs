//! The operations, one file each. `authorise` gives a [`Grant`]; what needs a right takes one.

mod cancel;
mod checkpoint;
mod host;
mod moves;
mod output;
mod running;
mod show;
mod submit;
mod watch;

#[cfg(test)]
pub(crate) use watch::Right;

use crate::core::Core;
use crate::state::Job;
use crate::state::job::Job as OwnedJob;
use std::sync::Arc;
use xos_api::Done;
use xos_api::aem::{
    AckHosted, CancelHosted, CancelJob, CancelUnits, CheckpointUnits, GetJob, HostCheckpoints,
    HostEvents, HostLeave, HostOutput, HostUnits, ListCheckpoints, ListJobs, ListRunning,
    ListUnits, MoveUnit, ReadOutput, Refusal, SubmitAndWatch, SubmitJob, WatchJob, WhyJob,
};
use xos_api::node::Hello;
use xos_api::node::units::{RenewTicket, UnitEvents};
use xos_api::policy::Action;
use xos_base::{Error, JobId, Membership, PersonId, VoId};
use xos_net::{Caller, Router};

/// The right to do one thing with one job: exists only after the policy allowed it.
pub(crate) struct Grant {
    pub(crate) job: JobId,
    /// Who has it, for records.
    pub(crate) by: String,
}

/// What a person reads whom the policy refuses, with who can change that.
fn denied(refusal: Refusal) -> Error {
    Error::denied(refusal.text)
        .hint("`xos vo rules show VO` shows the VO's rules; ask its or the site's administrator")
}

/// What is wanted of a job that exists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    See,
    Cancel,
}

impl Core {
    /// Whether the caller may do something with a job. Somebody who may not see it is told that
    /// it does not exist.
    pub(crate) fn authorise(
        &self,
        caller: &Caller,
        job: &JobId,
        want: Want,
    ) -> Result<Grant, Error> {
        if job.site != self.site {
            return Err(Error::not_found(format!("job {job} is not owned by {}", self.site))
                .hint(format!("ask the core of {}", job.site)));
        }
        self.whose(job)?;
        if !caller.site_admin() {
            self.may(caller.member()?, job, want)?;
        }
        Ok(Grant { job: job.clone(), by: caller.describe() })
    }

    /// Whether a member may do something with a job owned here.
    pub(crate) fn may(&self, member: &Membership, job: &JobId, want: Want) -> Result<(), Error> {
        let (vo, owner) = self.whose(job)?;
        if member.vo != vo {
            return Err(self.unknown(job));
        }
        if member.person == owner {
            return Ok(());
        }
        self.judge(member, Action::See).map_err(|_| self.unknown(job))?;
        if want == Want::Cancel {
            self.judge(member, Action::Cancel).map_err(denied)?;
        }
        Ok(())
    }

    fn whose(&self, job: &JobId) -> Result<(VoId, PersonId), Error> {
        let of = |j: &OwnedJob| (j.spec.vo.clone(), j.member.person.clone());
        self.ledger.read(|s| s.jobs.find(job).map(of)).ok_or_else(|| self.unknown(job))
    }

    fn unknown(&self, job: &JobId) -> Error {
        Error::not_found(format!("no job {job} of yours is known at {}", self.site))
            .hint("`xps` lists your jobs")
    }

    /// Reads the job that a grant is for; what is told of it is stored.
    pub(crate) async fn with_job<T>(
        &self,
        grant: &Grant,
        f: impl FnOnce(&crate::state::JobTable, &Job) -> T,
    ) -> Result<T, Error> {
        self.ledger
            .read_stored(|s| s.jobs.find(&grant.job).map(|j| f(&s.jobs, j)))
            .await?
            .ok_or_else(|| Error::not_found(format!("job {} is no longer kept", grant.job)))
    }
}

macro_rules! serve {
    ($router:ident, $core:ident, $($request:ty => $method:ident),* $(,)?) => {$({
        let core = Arc::clone($core);
        $router.on::<$request, _, _>(move |caller, r| {
            let core = Arc::clone(&core);
            async move { core.$method(caller, r).await }
        });
    })*};
}

macro_rules! stream {
    ($router:ident, $core:ident, $($request:ty => $method:ident),* $(,)?) => {$({
        let core = Arc::clone($core);
        $router.stream::<$request, _, _, _>(move |caller, r| {
            let core = Arc::clone(&core);
            async move { core.$method(caller, r).await }
        });
    })*};
}

/// Registers every operation.
pub(crate) fn register(core: &Arc<Core>, router: &mut Router) {
    serve!(router, core,
        SubmitJob => submit_job,
        GetJob => show_job,
        ListJobs => list_jobs,
        ListUnits => list_units,
        WhyJob => why_job,
        ListRunning => list_running,
        CancelJob => cancel_job,
        CancelUnits => cancel_units,
        CheckpointUnits => checkpoint_units,
        ListCheckpoints => list_checkpoints,
        MoveUnit => move_unit,
        ReadOutput => read_output,
        HostUnits => host_units,
        CancelHosted => cancel_hosted,
        AckHosted => ack_hosted,
        HostOutput => host_output,
        HostCheckpoints => host_checkpoints,
        HostLeave => host_leave,
        Hello => node_hello,
        UnitEvents => node_events,
        RenewTicket => renew_ticket,
    );
    stream!(router, core,
        SubmitAndWatch => submit_and_watch,
        WatchJob => watch_job,
        HostEvents => host_events,
    );
}

impl Core {
    async fn node_hello(self: Arc<Self>, caller: Caller, r: Hello) -> Result<Done, Error> {
        if *caller.node()? != r.node || r.node.site() != self.site {
            return Err(Error::denied(format!("{} is not node {}", caller.describe(), r.node)));
        }
        let key = |k: &str| k.len() == 64 && k.bytes().all(|b| b.is_ascii_hexdigit());
        if !key(&r.key) || r.capacity.arch.len() > 32 {
            return Err(Error::invalid("the key's fingerprint or the architecture is malformed"));
        }
        self.hello(r)?;
        Ok(Done {})
    }

    async fn node_events(
        self: Arc<Self>,
        caller: Caller,
        r: UnitEvents,
    ) -> Result<xos_api::node::units::EventsAck, Error> {
        let node = caller.node()?.clone();
        if node.site() != self.site {
            return Err(Error::denied(format!("{node} is not a node of {}", self.site)));
        }
        if r.events.len() > xos_api::node::units::BATCH_MAX {
            return Err(Error::too_large("too many events in one report"));
        }
        self.unit_events(&node, r).await
    }

    async fn ack_hosted(self: Arc<Self>, caller: Caller, r: AckHosted) -> Result<Done, Error> {
        let owner = caller.core()?.clone();
        let record = crate::state::HostRecord::Acknowledged { owner: owner.clone(), seq: r.seq };
        self.commit(|txn| {
            let some = txn.state().hosted.reports(&owner, 0).any(|x| x.seq <= r.seq);
            if some {
                txn.put(record);
            }
            Ok(Done {})
        })
        .await
    }
}
