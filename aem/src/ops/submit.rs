//! Submitting a job.

use super::{Grant, denied};
use crate::check;
use crate::core::Core;
use crate::limits;
use crate::plan::owner::nobody;
use crate::policy::Action;
use crate::state::JobRecord;
use crate::state::record::Proof;
use std::sync::Arc;
use xos_api::aem::{JobSpec, Refusal, SubmitJob, Submitted};
use xos_api::vom::{VoSnapshot, VoState};
use xos_base::{Error, JobId, SiteId};
use xos_net::Caller;
use xos_net::audit::asked;

impl Core {
    pub(crate) async fn submit_job(
        self: Arc<Self>,
        caller: Caller,
        r: SubmitJob,
    ) -> Result<Submitted, Error> {
        let grant = self.submit(&caller, r.spec, r.proof, false).await?;
        Ok(Submitted { job: grant.job })
    }

    /// Checks, authorises, journals. The answer means: acknowledged.
    pub(crate) async fn submit(
        self: &Arc<Self>,
        caller: &Caller,
        spec: JobSpec,
        proof: Option<String>,
        watched: bool,
    ) -> Result<Grant, Error> {
        let mut event = asked(caller, self.now(), "submit_job");
        event.vo = Some(spec.vo.clone());
        let submitted = self.submitted(caller, spec, proof, watched).await;
        if let Ok(grant) = &submitted {
            event.on = format!("job {}", grant.job);
        }
        self.teller.end(event, submitted).await
    }

    async fn submitted(
        self: &Arc<Self>,
        caller: &Caller,
        spec: JobSpec,
        proof: Option<String>,
        watched: bool,
    ) -> Result<Grant, Error> {
        check::job(&spec)?;
        let member = caller.member()?.clone();
        if member.vo != spec.vo {
            return Err(Error::denied(format!(
                "the job is for {}, and you signed in to {}",
                spec.vo, member.vo
            ))
            .hint(format!("`xos login --vo {}`", spec.vo)));
        }
        self.policy.judge(&member, Action::Submit).map_err(denied)?;
        self.check_vo(&spec).await?;
        let proof = self.proof(caller, &spec, proof)?;
        let at = self.now();
        let by = caller.describe();
        let site = self.site.clone();
        let waited: Vec<u64> = spec.after_jobs.iter().map(|id| id.number).collect();
        let change = self.commit(|txn| {
            let jobs = &txn.state().jobs;
            for id in &spec.after_jobs {
                let known = jobs.find(id).filter(|j| j.spec.vo == spec.vo);
                if known.is_none() {
                    return Err(Error::invalid(format!(
                        "job {id}, to be waited for, is not known here in {}",
                        spec.vo
                    )));
                }
            }
            let way = limits::admit(jobs, &self.config, &member, &spec)?;
            let number = jobs.next();
            txn.put(JobRecord::Submitted {
                job: number,
                at,
                spec: Box::new(spec),
                member: Box::new(member),
                proof: Some(proof),
                watched,
            });
            let gone = self.forget(txn, way.into_iter().filter(|n| !waited.contains(n)));
            Ok((Grant { job: JobId { site, number }, by }, gone))
        });
        let (grant, gone) = change.await?;
        self.tell_forgotten(gone);
        Ok(grant)
    }

    /// Whether the VO works, and is served by a site that may run the job.
    async fn check_vo(&self, spec: &JobSpec) -> Result<(), Error> {
        let vo = &spec.vo;
        let view = self.views.view(&*self.world, vo, self.now()).await?;
        if let VoState::Suspended { reason, .. } = &view.state {
            let text = format!("{vo} is suspended: {reason}");
            return Err(Error::denied(text).hint("ask the VO's administrator"));
        }
        // Only a VO's home is certain who serves it: other cores hear of a new share later. A job
        // that names no site waits until one serves the VO.
        let certain = vo.site() == self.site && !spec.sites.is_empty();
        if !certain || none_serves(spec, &view).is_none() {
            return Ok(());
        }
        let view = self.views.anew(&*self.world, vo, self.now()).await?;
        match none_serves(spec, &view) {
            Some(refusal) => Err(Error::unsatisfiable(refusal.text)
                .hint("name others by --on, or none: then each site that serves the VO is asked")),
            None => Ok(()),
        }
    }

    /// The person's word that will get the mandate.
    fn proof(
        &self,
        caller: &Caller,
        spec: &JobSpec,
        given: Option<String>,
    ) -> Result<Proof, Error> {
        if let Some(jws) = given {
            let digest = self.world.check_submission(&jws, &spec.vo, self.now())?;
            if digest != crate::digest(spec)? {
                return Err(Error::unauthenticated(
                    "the signed submission is for another job description",
                )
                .hint("submit the job again"));
            }
            return Ok(Proof::Signed(jws));
        }
        match caller.token() {
            Some(token) => Ok(Proof::Token(token.to_owned())),
            None => Err(Error::invalid("the job comes without its signed submission")
                .hint("submit with xsub, or with a bearer token")),
        }
    }
}

fn none_serves(spec: &JobSpec, view: &VoSnapshot) -> Option<Refusal> {
    let serving: Vec<SiteId> = view.sites.iter().map(|s| s.site.clone()).collect();
    nobody(spec, &serving)
}
