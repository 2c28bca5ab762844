//! Where units go on that left a cluster.
//!
//! A unit that left runs nowhere, and its image is started from once: it is offered to one site at
//! a time, and to the next only when that one said that it will not begin with it.

use super::{CARRY_PATIENCE, CARRY_PAUSE, CARRY_ROUNDS, Facts, Pass, candidates};
use crate::host::REASON_MAX;
use crate::owner::cut;
use crate::plan::room;
use crate::state::JobTable;
use crate::state::carry::{Carry, Goal};
use crate::state::job::Job;
use crate::state::record::JobRecord;
use crate::state::runs;
use crate::state::unit::Phase;
use std::collections::BTreeMap;
use xos_api::aem::{MOVES_MAX, Refusal, TaskSpec};
use xos_base::{Millis, SiteId};

fn never(rule: &str, text: String) -> Refusal {
    Refusal { rule: rule.to_owned(), text, later: false }
}

/// Whether a site would have a unit go on from an image of another one, as far as its last word
/// goes.
fn takes(facts: &Facts, site: &SiteId, from: &SiteId) -> Result<(), Refusal> {
    let view = facts.sites.get(site).filter(|v| v.connected);
    // Who does not answer is told of elsewhere.
    let refuses = view.is_some_and(|v| !v.capacity.takes_from.contains(from));
    if site == from || !refuses {
        return Ok(());
    }
    Err(never("foreign-program", format!("it takes no running programs of {from}")))
}

/// Whether a unit that runs may be moved to a site, by what is known now.
///
/// # Errors
/// Why not, for the person.
pub fn may_move(
    table: &JobTable,
    facts: &Facts,
    (job, unit): (&Job, u32),
    to: &Goal,
    now: Millis,
) -> Result<(), Refusal> {
    let named = table.id(job.number).unit(unit);
    let refuse = |text: String| Err(never("move", text));
    let Some(u) = job.units.get(unit as usize) else {
        return refuse(format!("there is no unit {named}"));
    };
    let Phase::Running { at, .. } = &u.phase else {
        return refuse(format!("{named} does not run now"));
    };
    let task = job.task_of(unit);
    let Some(spec) = job.task_spec(task).filter(|spec| spec.checkpointable) else {
        return refuse(format!("{named} is not checkpointed: submit it with --checkpointable"));
    };
    let Some(from) = table.site_name(at.site) else {
        return refuse(format!("nobody knows where {named} is"));
    };
    if *from == to.site {
        let text = "between nodes of a cluster it moves by `xos cluster migrate`";
        return refuse(format!("{named} is at {from} already; {text}"));
    }
    if u.cancel {
        return refuse(format!("{named} is being ended"));
    }
    if u16::from(u.moves) >= MOVES_MAX {
        return refuse(format!("{named} was handed on {MOVES_MAX} times, the most"));
    }
    let serving = facts.serving.get(&job.spec.vo).map(Vec::as_slice).unwrap_or_default();
    if !candidates(&job.spec, serving).any(|site| *site == to.site) {
        let vo = &job.spec.vo;
        let text = format!("{} does not serve {vo}, or is none of the job's sites", to.site);
        return refuse(text);
    }
    takes(facts, &to.site, from)?;
    let pass = Pass { table, facts, now, out: Vec::new(), given: BTreeMap::new() };
    pass.judge_goal(job, task, spec, to)
}

fn busy(site: &SiteId) -> Refusal {
    let text = format!("all processors at {site} that it may use are in use");
    Refusal { rule: "busy".to_owned(), text, later: true }
}

impl Pass<'_> {
    /// Offers a unit that left to a site, if one may take it now.
    pub(super) fn carry(&mut self, job: &Job, unit: u32, carry: &Carry, serving: &[SiteId]) {
        let waits = job.units.get(unit as usize).is_some_and(|u| u.waits_carried());
        if !waits || carry.rest > self.now {
            return;
        }
        let home = carry.carried.cluster.site();
        let table = self.table;
        let tried = |s: &SiteId| table.site_number(s).is_some_and(|n| carry.tried.contains(&n));
        let elsewhere: Vec<SiteId> = match &carry.to {
            Some(to) => vec![to.site.clone()],
            None => candidates(&job.spec, serving).filter(|s| **s != home).cloned().collect(),
        };
        let mut soon = false;
        for site in elsewhere.iter().filter(|s| !tried(s)) {
            let cluster = carry.to.as_ref().and_then(|to| to.cluster.clone());
            let goal = Goal { site: site.clone(), cluster };
            match self.judge_carried(job, unit, &goal, &home) {
                Ok(()) => return self.hand(job, unit, goal.site),
                Err(r) => {
                    soon |= r.later;
                    self.note(job, job.task_of(unit), Some(site), &r);
                }
            }
        }
        if soon && self.now.since(carry.since) < CARRY_PATIENCE {
            return;
        }
        // Nobody else: it goes on where it was.
        if !tried(&home) {
            let goal = Goal { site: home.clone(), cluster: None };
            match self.judge_carried(job, unit, &goal, &home) {
                Ok(()) => return self.hand(job, unit, home),
                Err(r) => {
                    self.note(job, job.task_of(unit), Some(&home), &r);
                    if r.later {
                        return self.ask_anew(job, unit, carry);
                    }
                }
            }
        }
        if carry.rounds >= CARRY_ROUNDS {
            return self.give_up(job, unit);
        }
        let until = self.now.plus(CARRY_PAUSE);
        self.out.push(JobRecord::Rests { job: job.number, unit, until, home: true });
    }

    /// Where it was may take it later: until then all others are asked again now and then.
    fn ask_anew(&mut self, job: &Job, unit: u32, carry: &Carry) {
        if self.now.since(carry.since.max(carry.rest)) >= CARRY_PAUSE {
            let (job, until) = (job.number, self.now);
            self.out.push(JobRecord::Rests { job, unit, until, home: false });
        }
    }

    fn give_up(&mut self, job: &Job, unit: u32) {
        let task = job.task_spec(job.task_of(unit)).map(|t| &t.name);
        let mut said = job.reasons.iter().rev();
        let last = said.find(|r| r.site.is_some() && r.task.as_ref() == task);
        let last = last.map_or("nobody said why", |r| r.text.as_str());
        let reason = format!("no site went on with it, asked {CARRY_ROUNDS} times: {last}");
        let (job, at, reason) = (job.number, self.now, cut(&reason, REASON_MAX));
        self.out.push(JobRecord::GivenUp { job, unit, at, reason });
    }

    fn judge_carried(
        &self,
        job: &Job,
        unit: u32,
        goal: &Goal,
        home: &SiteId,
    ) -> Result<(), Refusal> {
        takes(self.facts, &goal.site, home)?;
        let task = job.task_of(unit);
        let spec = job.task_spec(task);
        let spec = spec.ok_or_else(|| never("malformed", "the unit has no task".to_owned()))?;
        self.judge_goal(job, task, spec, goal)
    }

    /// Whether a site has room for a unit that goes on from an image, in a cluster.
    fn judge_goal(
        &self,
        job: &Job,
        task: usize,
        spec: &TaskSpec,
        goal: &Goal,
    ) -> Result<(), Refusal> {
        if self.judge(job, task, spec, &goal.site)?.now == 0 {
            return Err(busy(&goal.site));
        }
        let Some(view) = self.facts.sites.get(&goal.site) else { return Ok(()) };
        room::judge_clusters(&view.capacity, &spec.resources, goal.cluster.as_ref())
    }

    fn hand(&mut self, job: &Job, unit: u32, site: SiteId) {
        let task = job.task_of(unit);
        let (Some(u), Some(spec)) = (job.units.get(unit as usize), job.task_spec(task)) else {
            return;
        };
        let given = self.given.entry(site.clone()).or_default();
        given.units += 1;
        given.cpu_milli += u64::from(spec.resources.cpu_milli);
        given.memory_bytes += spec.resources.memory_bytes;
        let (units, attempt) = (runs::pack([unit]), u.attempt);
        let (job, task) = (job.number, task as u16);
        self.out.push(JobRecord::Offered { job, task, site, units, attempt });
    }
}

#[cfg(test)]
mod tests;
