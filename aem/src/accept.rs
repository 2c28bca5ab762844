//! Whether this host takes units, and how.

use crate::core::{Core, lock};
use crate::ledger::Txn;
use crate::owner::may_pass;
use crate::plan::owner::PATIENCE;
use crate::plan::room;
use crate::state::held::{Held, task_bytes};
use crate::state::host::HostedTask;
use crate::state::load::Load;
use crate::state::record::Who;
use crate::state::{HostRecord, HostTable, runs};
use std::sync::Arc;
use xos_api::aem::{Carried, HOST_BATCH_MAX, HostUnits, MOVES_MAX, Refusal, UnitRun};
use xos_api::cda;
use xos_api::policy::Action;
use xos_base::{Error, Membership, Millis, NodeId};
use xos_net::Clusters;

fn never(rule: &str, text: String) -> Refusal {
    Refusal { rule: rule.to_owned(), text, later: false }
}

fn later(rule: &str, text: String) -> Refusal {
    Refusal { rule: rule.to_owned(), text, later: true }
}

impl Core {
    /// Whether this site runs what an owner offers; gives the person. Uses what is known of the
    /// VO: [`crate::views::Views::view`] comes before.
    pub(crate) fn judge_offer(
        &self,
        table: &HostTable,
        offer: &HostUnits,
        now: Millis,
    ) -> Result<Membership, Refusal> {
        let wrong = |text: String| never("malformed", text);
        if now > offer.until {
            return Err(later(
                "late",
                "the offer arrived too late; check the sites' clocks".into(),
            ));
        }
        crate::check::task(&offer.spec).map_err(|e| wrong(e.to_string()))?;
        let end = offer
            .task_first
            .checked_add(offer.spec.array.len())
            .filter(|end| *end <= xos_api::aem::UNITS_MAX)
            .ok_or_else(|| wrong("the task has too many units".into()))?;
        let count = runs::total(&offer.units, end)
            .filter(|n| *n <= HOST_BATCH_MAX && offer.units.len() <= runs::RUNS_MAX)
            .filter(|_| offer.units.iter().all(|u| u.first >= offer.task_first))
            .ok_or_else(|| wrong("the units are malformed, or too many for one request".into()))?;
        let member = self.person_of(table, offer, now)?;
        let view = self
            .views
            .known(&offer.vo)
            .ok_or_else(|| later("vo", format!("{} is not known here yet", offer.vo)))?;
        if let Some(why) = view.state.halted() {
            return Err(later("suspended", format!("{} {why}", offer.vo)));
        }
        let share =
            view.own.as_ref().filter(|own| own.serving).and_then(|own| own.accepted.as_ref());
        let Some(share) = share else {
            let trouble = view.own.as_ref().and_then(|own| own.trouble.clone());
            let why = trouble.unwrap_or_else(|| "no share is agreed".into());
            return Err(never("no-share", format!("this site does not serve {}: {why}", offer.vo)));
        };
        self.judge(&member, Action::Run)?;
        if let Some(carried) = &offer.carried {
            if count != 1 || !offer.spec.checkpointable {
                return Err(wrong("one unit goes on from an image, and is checkpointed".into()));
            }
            self.judge_carried(carried)?;
        }
        let r = &offer.spec.resources;
        if u64::from(r.cpu_milli) > share.cpu_milli || r.memory_bytes > share.memory_bytes {
            let cpus = room::cpus(u32::try_from(share.cpu_milli).unwrap_or(u32::MAX));
            let memory = room::mib(share.memory_bytes);
            let text =
                format!("one unit asks for more than the VO's share: {cpus} processors, {memory}");
            return Err(never("share", text));
        }
        // After a start nodes come one by one.
        let young = now.since(lock(&self.owner).since) < PATIENCE;
        lock(&self.host)
            .judge_kind(&offer.spec)
            .map_err(|r| Refusal { later: r.later || young, ..r })?;
        if let Some(carried) = &offer.carried {
            let (facts, only) = (lock(&self.host), carried.to.as_ref());
            crate::plan::host::has_room(table, &facts, &offer.vo, &offer.spec, only)?;
        }
        // What its own core offers was chosen by the room that there is, in the same change.
        if offer.job.site != self.site {
            let vos = [offer.vo.clone()];
            let facts = lock(&self.host);
            let capacity = crate::plan::host::capacity(table, &facts, &offer.job.site, &vos);
            drop(facts);
            room::judge(&capacity, None, r, Load::default())
                .map_err(|r| Refusal { later: r.later || young, ..r })?;
            let task =
                table.placement(&offer.job).is_some_and(|p| p.tasks.contains_key(&offer.task));
            let bytes = if task { 0 } else { task_bytes(&offer.spec) };
            let new = Held { jobs: 0, units: count.into(), bytes };
            crate::limits::host(table, &self.config, &offer.job.site, new)?;
        }
        if table.open_units(&offer.vo).saturating_add(count) > self.config.units_per_vo {
            let text =
                format!("{} has {} units here, the most", offer.vo, self.config.units_per_vo);
            return Err(later("units", text));
        }
        Ok(member)
    }

    /// Whether this site has a unit go on that left a cluster: what runs there is another site's
    /// program with all that is in its memory.
    fn judge_carried(&self, carried: &Carried) -> Result<(), Refusal> {
        let from = carried.cluster.site();
        if !carried.is_of(&from) {
            return Err(never("malformed", "what the unit is to go on from is malformed".into()));
        }
        let takes = |clusters: &Arc<dyn Clusters>| clusters.takes_from().contains(&from);
        if from != self.site && !self.world.clusters().is_some_and(takes) {
            return Err(never(
                "foreign-program",
                format!("{} takes no running programs of {from}", self.site),
            ));
        }
        let Some(to) = &carried.to else { return Ok(()) };
        let known = to.as_str().parse::<NodeId>().is_ok_and(|node| self.cluster(&node).is_some());
        match known {
            true => Ok(()),
            false => Err(never("cluster", format!("{} has no cluster {to}", self.site))),
        }
    }

    /// The mandate's person, with the right that is left of it here and now.
    fn person_of(
        &self,
        table: &HostTable,
        offer: &HostUnits,
        now: Millis,
    ) -> Result<Membership, Refusal> {
        let refuse = |e: Error| Refusal {
            rule: "mandate".into(),
            later: may_pass(e.kind),
            text: e.to_string(),
        };
        // What its own core offers was checked when it was submitted.
        let own = offer.job.site == self.site;
        if offer.moves > MOVES_MAX || offer.attempt.saturating_sub(offer.moves) > offer.spec.retry {
            let most = offer.spec.retry;
            let text = format!("the person lets a unit run again {most} times at most");
            return Err(never("mandate", text));
        }
        let placed = table.placement(&offer.job);
        if placed.is_some_and(|p| p.forgotten) {
            // When its envelopes are closed, the job is a new one here.
            return Err(later("forgotten", "what was here of the job is being removed".into()));
        }
        let task = placed.and_then(|p| p.tasks.get(&offer.task));
        if task.is_some_and(|t| *t.spec != offer.spec || t.first != offer.task_first) {
            return Err(never("mandate", "the task is known here as another one".into()));
        }
        let known = placed.filter(|p| *p.mandate == *offer.mandate && (own || task.is_some()));
        let membership = match known {
            Some(p) => (*p.member).clone(),
            None => {
                let m = self.world.check_mandate(&offer.mandate, now).map_err(refuse)?;
                let (job, digest) = match &m.work {
                    cda::Work::Job { job, digest, .. } => (Some(job), digest.as_str()),
                    cda::Work::Login { .. } | cda::Work::Cluster { .. } => (None, ""),
                };
                if job != Some(&offer.job) || m.membership.vo != offer.vo {
                    return Err(never("mandate", "the mandate is for another job".into()));
                }
                if !own {
                    crate::outline::check(offer, digest, &self.site)
                        .map_err(|why| never("mandate", format!("it is refused: {why}")))?;
                }
                m.membership
            }
        };
        let other = table
            .placement(&offer.job)
            .is_some_and(|p| p.vo != offer.vo || p.member.person != membership.person);
        if other {
            return Err(never("mandate", "the job is known here as another one".into()));
        }
        self.standing.effective(&membership, now).map_err(|e| Refusal {
            rule: "member".into(),
            later: may_pass(e.kind),
            text: e.to_string(),
        })
    }

    /// Accepts units; gives those that are here under this attempt now.
    pub(crate) fn take(
        &self,
        txn: &mut Txn<'_>,
        offer: &HostUnits,
        member: Membership,
        now: Millis,
    ) -> Vec<UnitRun> {
        let known = |txn: &Txn<'_>, u: u32| {
            let p = txn.state().hosted.placement(&offer.job);
            p.and_then(|p| p.units.get(&u)).is_some_and(|h| h.attempt >= offer.attempt)
        };
        if !runs::unpack(&offer.units).all(|u| known(txn, u)) {
            let record = took(&txn.state().hosted, offer, member, now);
            txn.put(record);
        }
        here(&txn.state().hosted, offer)
    }
}

/// The record of an acceptance; says only once who and what.
pub(crate) fn took(
    table: &HostTable,
    offer: &HostUnits,
    member: Membership,
    now: Millis,
) -> HostRecord {
    let known = table.placement(&offer.job);
    let who = known.is_none().then(|| {
        let (vo, mandate) = (offer.vo.clone(), offer.mandate.clone());
        Box::new(Who { vo, member, mandate })
    });
    let what = known.is_none_or(|p| !p.tasks.contains_key(&offer.task)).then(|| {
        Box::new(HostedTask {
            spec: Arc::new(offer.spec.clone()),
            first: offer.task_first,
            want_output: offer.want_output,
        })
    });
    HostRecord::Took {
        job: offer.job.clone(),
        at: now,
        who,
        task: offer.task,
        what,
        units: offer.units.clone(),
        attempt: offer.attempt,
        carried: offer.carried.clone(),
    }
}

/// The offered units that this host has under the offer's attempt. They were accepted, whatever
/// would be decided today.
pub(crate) fn here(table: &HostTable, offer: &HostUnits) -> Vec<UnitRun> {
    let Some(p) = table.placement(&offer.job) else { return Vec::new() };
    let here = |u: &u32| p.units.get(u).is_some_and(|h| h.attempt == offer.attempt);
    let end = p.units.keys().next_back().map_or(0, |u| u.saturating_add(1));
    let most = HOST_BATCH_MAX as usize;
    runs::pack(runs::unpack(&offer.units).take_while(|u| *u < end).take(most).filter(here))
}
