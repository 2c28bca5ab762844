//! The owner's part: mandates, offers to sites, their answers.

use crate::core::{Core, lock};
use crate::host::REASON_MAX;
use crate::ledger::Txn;
use crate::plan;
use crate::plan::owner::Reach;
use crate::state::record::Proof;
use crate::state::unit::{Phase, Unit};
use crate::state::{Job, JobRecord, JobTable, State, runs};
use crate::work::Next;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use xos_api::aem::{
    Carried, HOST_BATCH_MAX, HostReply, HostUnits, JobSpec, Outline, Reason, Refusal, UnitRun,
};
use xos_api::cda::{IssueMandate, MandateProof};
use xos_base::{Error, Kind, Millis, SiteId};

/// How long a host may take to read an offer, by its own clock.
const OFFER_LIFE: Duration = Duration::from_secs(30);
/// How far clocks of sites may differ.
const SKEW: Duration = Duration::from_secs(60);
/// How long a site that said "later" is not asked again for that task.
const HOLD: Duration = Duration::from_secs(2);
/// The end of an offer that is over before it is sent: the site takes nothing, and says which of
/// the units it took from an earlier one.
const OVER: Millis = Millis(0);
/// Longest mandate, bytes.
const MANDATE_MAX: usize = 64 * 1024;

impl Core {
    pub(crate) async fn do_mandate(self: &Arc<Self>, number: u64) -> Next {
        let wanted = self.ledger.read_stored(|s| {
            let j = s.jobs.job(number).filter(|j| !j.state.is_final() && j.mandate.is_none())?;
            let proof = match j.proof.clone() {
                Some(Proof::Signed(jws)) => Some(MandateProof::Submission(jws)),
                Some(Proof::Token(token)) => Some(MandateProof::Token(token)),
                None => None,
            };
            Some((s.jobs.id(number), j.spec.clone(), proof))
        });
        let (job, spec, proof) = match wanted.await {
            Ok(Some(wanted)) => wanted,
            Ok(None) => return Next::Rest,
            Err(error) => return unstored(number, &error),
        };
        let Some(proof) = proof else { return self.no_mandate(number, "nobody vouched").await };
        let (vo, digest) = match crate::digest(&spec) {
            Ok(digest) => (spec.vo.clone(), digest),
            Err(e) => return self.no_mandate(number, &e.to_string()).await,
        };
        // So that the plan that follows knows who serves the VO.
        if let Err(error) = self.views.view(&*self.world, &vo, self.now()).await {
            tracing::debug!(%error, %vo, "the VO is not known yet");
            return Next::Later;
        }
        match self.world.mandate(IssueMandate { job, vo, digest, proof }).await {
            Ok(mandate) if mandate.len() > MANDATE_MAX => {
                self.no_mandate(number, "its mandate is too long").await
            }
            Ok(mandate) => {
                let stored = self
                    .commit(|txn| {
                        txn.put(JobRecord::Mandated { job: number, mandate });
                        self.place(txn, Reach::Job(number));
                        Ok(())
                    })
                    .await;
                if stored.is_ok() { Next::Rest } else { Next::Later }
            }
            Err(e) if may_pass(e.kind) => {
                tracing::info!(error = %e, job = number, "no mandate yet");
                Next::Later
            }
            Err(e) => self.no_mandate(number, &e.to_string()).await,
        }
    }

    async fn no_mandate(self: &Arc<Self>, number: u64, why: &str) -> Next {
        let at = self.now();
        let why = cut(why, REASON_MAX);
        let text = format!("the VO's home did not confirm the submission: {why}");
        let reason = Reason { at, site: None, rule: "mandate".into(), text, task: None };
        let stored = self
            .commit(|txn| {
                let Some(j) = txn.state().jobs.job(number) else { return Ok(()) };
                let units = vec![UnitRun { first: 0, count: j.units.len() as u32 }];
                txn.put(JobRecord::Noted { job: number, reason });
                txn.put(JobRecord::Refused { job: number, units, at });
                Ok(())
            })
            .await;
        if stored.is_ok() { Next::Rest } else { Next::Later }
    }

    /// This core offers to itself: decided and journalled in the same change.
    pub(crate) fn accept_own(
        &self,
        txn: &mut Txn<'_>,
        number: u64,
        task: u16,
        units: Vec<UnitRun>,
        attempt: u16,
        now: Millis,
    ) {
        let offer = txn.state().jobs.job(number).and_then(|j| {
            let spec = j.task_spec(task.into())?.clone();
            Some(HostUnits {
                job: txn.state().jobs.id(number),
                vo: j.spec.vo.clone(),
                mandate: j.mandate.as_deref().unwrap_or_default().to_owned(),
                task,
                task_first: j.tasks.get(usize::from(task))?.first,
                spec,
                // Nobody looks at it: what is owned here was checked when it was submitted.
                outline: unsigned(&j.spec),
                units: units.clone(),
                attempt,
                until: now.plus(OFFER_LIFE),
                want_output: j.watched && j.units.len() == 1,
                moves: units.first().and_then(|u| j.units.get(u.first as usize))?.moves.into(),
                carried: units.first().and_then(|u| carried(j, u.first, &self.site)),
            })
        });
        let Some(offer) = offer else { return };
        let site = self.site.clone();
        match self.judge_offer(&txn.state().hosted, &offer, now) {
            Ok(member) => {
                let accepted = self.take(txn, &offer, member, now);
                txn.put(JobRecord::Accepted { job: number, site, units: accepted, attempt });
            }
            Err(refusal) => {
                self.hold(number, task, &site, &refusal, now);
                let (job, at) = (number, now);
                txn.put(JobRecord::Returned { job, site, units, attempt, at, refusal });
            }
        }
    }

    fn hold(&self, job: u64, task: u16, site: &SiteId, refusal: &Refusal, now: Millis) {
        if refusal.later {
            let key = (job, usize::from(task), site.clone());
            lock(&self.owner).holds.insert(key, now.plus(HOLD));
        }
    }

    pub(crate) async fn do_offer(self: &Arc<Self>, number: u64, site: &SiteId) -> Next {
        loop {
            let until = self.now().plus(OFFER_LIFE);
            let offer = self.ledger.read_stored(|s| {
                Some((next_offer(s, number, site, until)?, s.jobs.job(number)?.spec.clone()))
            });
            let (mut request, spec) = match offer.await {
                Ok(Some(offer)) => offer,
                Ok(None) => return Next::Rest,
                Err(error) => return unstored(number, &error),
            };
            request.outline = match crate::outline(&spec) {
                Ok(outline) => outline,
                Err(error) => {
                    tracing::error!(%error, job = number, "a job cannot be offered");
                    return Next::Later;
                }
            };
            let key = (number, site.clone());
            let reply = match self.world.host_units(site, request.clone()).await {
                Ok(reply) => reply,
                Err(e) if e.kind == Kind::Unavailable || e.kind == Kind::Internal => {
                    // It may have arrived: only the site itself can say now.
                    lock(&self.doubts).insert(key, self.now().plus(OFFER_LIFE).plus(SKEW));
                    tracing::info!(error = %e, %site, job = number, "an offer got no answer");
                    return Next::Later;
                }
                Err(e) => HostReply {
                    accepted: Vec::new(),
                    refusal: Some(Refusal {
                        rule: "site".into(),
                        text: e.to_string(),
                        later: may_pass(e.kind),
                    }),
                },
            };
            let doubt = lock(&self.doubts).get(&key).copied();
            if reply.refusal.is_some() && doubt.is_some_and(|t| t > self.now()) {
                // An earlier try, still on its way, may yet be accepted.
                return Next::Later;
            }
            lock(&self.doubts).remove(&key);
            if self.answered(number, site, &request, reply).await.is_err() {
                return Next::Later;
            }
        }
    }

    async fn answered(
        self: &Arc<Self>,
        number: u64,
        site: &SiteId,
        o: &HostUnits,
        reply: HostReply,
    ) -> Result<(), Error> {
        let asked: std::collections::BTreeSet<u32> = runs::unpack(&o.units).collect();
        let taken: std::collections::BTreeSet<u32> = match runs::total(&reply.accepted, u32::MAX) {
            Some(_) => runs::unpack(&reply.accepted)
                .take(HOST_BATCH_MAX as usize)
                .filter(|u| asked.contains(u))
                .collect(),
            None => Default::default(),
        };
        let rest = runs::pack(asked.difference(&taken).copied());
        let refusal = reply.refusal.unwrap_or_else(|| Refusal {
            rule: "site".into(),
            text: "it did not take all units".into(),
            later: true,
        });
        let refusal = if o.until == OVER {
            let text = "it was cancelled before the site took it".into();
            Refusal { rule: "cancelled".into(), text, later: true }
        } else {
            let (rule, text) = (cut(&refusal.rule, 64), cut(&refusal.text, REASON_MAX));
            Refusal { rule, text, ..refusal }
        };
        let at = self.now();
        if !rest.is_empty() && o.until != OVER {
            self.hold(number, o.task, site, &refusal, at);
        }
        let (job, attempt) = (number, o.attempt);
        self.commit(|txn| {
            if !taken.is_empty() {
                let units = runs::pack(taken.iter().copied());
                txn.put(JobRecord::Accepted { job, site: site.clone(), units, attempt });
            }
            if !rest.is_empty() {
                let (site, units) = (site.clone(), rest);
                txn.put(JobRecord::Returned { job, site, units, attempt, at, refusal });
            }
            self.place(txn, Reach::Quick);
            Ok(())
        })
        .await
    }

    /// Counts ends for the pace of a task at a site.
    pub(crate) fn paced(
        &self,
        table: &JobTable,
        job: u64,
        site: &SiteId,
        units: impl IntoIterator<Item = u32>,
    ) {
        let mut by_task: BTreeMap<usize, u32> = BTreeMap::new();
        if let Some(j) = table.job(job) {
            for u in units {
                *by_task.entry(j.task_of(u)).or_default() += 1;
            }
        }
        let (now, mut facts) = (self.now(), lock(&self.owner));
        for (task, n) in by_task {
            let key: plan::owner::At = (job, task, site.clone());
            facts.pace.ended(key, n, now);
        }
    }
}

/// What a site is to be asked next about a job: units of one task and one attempt that are
/// offered to it. Of cancelled ones only whether it has them.
pub(crate) fn next_offer(
    s: &State,
    number: u64,
    site: &SiteId,
    until: Millis,
) -> Option<HostUnits> {
    let j = s.jobs.job(number)?;
    let at = s.jobs.site_number(site)?;
    let offered = |u: &u32| {
        j.units
            .get(*u as usize)
            .filter(|u| matches!(&u.phase, Phase::Offered { at: place } if place.site == at))
    };
    let first = (0..j.units.len() as u32).find(|u| offered(u).is_some())?;
    let task = j.task_of(first);
    let kind = |u: &Unit| (u.attempt, u.cancel, u.moves);
    let (attempt, cancel, moves) = offered(&first).map(kind)?;
    let carried = carried(j, first, site);
    // What goes on from an image goes alone.
    let alone = |n: u32, u: &Unit| n == first || (carried.is_none() && !u.carried);
    let like =
        |n: &u32| offered(n).is_some_and(|u| kind(u) == (attempt, cancel, moves) && alone(*n, u));
    let until = if cancel { OVER } else { until };
    let units = (first..j.units_of(task).end).filter(like).take(HOST_BATCH_MAX as usize);
    let mut units = runs::pack(units);
    units.truncate(runs::RUNS_MAX);
    Some(HostUnits {
        job: s.jobs.id(number),
        vo: j.spec.vo.clone(),
        mandate: j.mandate.as_deref()?.to_owned(),
        task: task as u16,
        task_first: j.tasks.get(task)?.first,
        spec: j.task_spec(task)?.clone(),
        outline: unsigned(&j.spec),
        units,
        attempt,
        until,
        want_output: j.watched && j.units.len() == 1,
        moves: moves.into(),
        carried,
    })
}

/// What a unit goes on from at a site, and in which cluster: where it was it may go on in any.
pub(crate) fn carried(job: &Job, unit: u32, site: &SiteId) -> Option<Box<Carried>> {
    let carry = job.carried.get(&unit)?;
    let mut carried = carry.carried.clone();
    let to = carry.to.as_ref().filter(|to| to.site == *site);
    carried.to = to.and_then(|to| to.cluster.clone());
    Some(carried)
}

/// An outline without its tasks, whose digests take a while.
fn unsigned(spec: &JobSpec) -> Outline {
    let (vo, name) = (spec.vo.clone(), String::new());
    Outline { vo, name, tasks: Vec::new(), after_jobs: Vec::new(), sites: Vec::new() }
}

/// What follows from it is done when it is stored.
pub(crate) fn unstored(job: u64, error: &Error) -> Next {
    tracing::info!(%error, job, "what is to be done for a job is not stored yet");
    Next::Later
}

/// Whether the same may go well later.
pub(crate) fn may_pass(kind: Kind) -> bool {
    matches!(kind, Kind::Unavailable | Kind::Limited | Kind::Internal | Kind::Conflict)
}

/// At most `max` bytes of a text of somebody else, without control characters.
pub(crate) fn cut(text: &str, max: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() + c.len_utf8() > max {
            break;
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}
