//! Looking at jobs and units.

use super::{Want, denied};
use crate::core::Core;
use crate::state::carry::Moved;
use crate::state::job::PastTry;
use crate::state::unit::{Phase, Place};
use crate::state::{Job, JobTable};
use std::sync::Arc;
use xos_api::aem::{
    GetJob, JOB_NODES_MAX, JobEnd, JobFilter, JobPage, JobSummary, JobView, ListJobs, ListUnits,
    MOVES_KEPT, PAGE_MAX, Reason, Reasons, TaskSummary, Try, UnitEnd, UnitFilter, UnitMove,
    UnitPage, UnitState, UnitView, WhyJob,
};
use xos_api::policy::Action;
use xos_base::{Error, Kind, NodeId, SiteId};
use xos_net::Caller;

/// Items in a page when nobody says how many.
const PAGE_DEFAULT: u32 = 100;
/// Most jobs looked at for one page: a person's few among everybody's many.
const SCAN_MAX: usize = 200_000;
/// Of so many units of a job it is looked where they are, for its line in a list.
const PLACED_MAX: usize = 1000;

fn page(limit: Option<u32>) -> usize {
    limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX) as usize
}

impl Core {
    pub(crate) async fn show_job(
        self: Arc<Self>,
        caller: Caller,
        r: GetJob,
    ) -> Result<JobView, Error> {
        let grant = self.authorise(&caller, &r.job, Want::See)?;
        self.with_job(&grant, |table, job| JobView {
            summary: summary(table, job),
            spec: (*job.spec).clone(),
            tasks: job
                .tasks
                .iter()
                .zip(&job.spec.tasks)
                .map(|(t, s)| TaskSummary {
                    name: s.name.clone(),
                    first: t.first,
                    counts: t.tally.counts(),
                })
                .collect(),
            end: end(table, job),
            moves: moves(table, job),
        })
        .await
    }

    pub(crate) async fn list_jobs(
        self: Arc<Self>,
        caller: Caller,
        r: ListJobs,
    ) -> Result<JobPage, Error> {
        let person = caller.person()?;
        let member = caller.member().ok();
        // A credential of one VO shows nothing of another, also not one's own: the home of a VO
        // vouches for people in that VO only.
        if let Some(m) = member
            && r.vo.as_ref().is_some_and(|vo| *vo != m.vo)
        {
            return Err(Error::denied(format!("you signed in to {}", m.vo)));
        }
        if r.everyone && !caller.site_admin() {
            let m = caller.member()?;
            self.judge(m, Action::See).map_err(denied)?;
        }
        if r.before.as_ref().is_some_and(|b| b.site != self.site) {
            return Err(Error::invalid("`before` names a job of another site"));
        }
        let vo = match (&r.vo, caller.site_admin() && r.everyone, member) {
            (Some(vo), _, _) => Some(vo.clone()),
            (None, true, _) => None,
            (None, false, member) => member.map(|m| m.vo.clone()),
        };
        let wanted = |job: &&Job| {
            let mine = r.everyone || job.member.person == person;
            let vo = vo.as_ref().is_none_or(|vo| job.spec.vo == *vo);
            let state = match r.filter {
                JobFilter::All => true,
                JobFilter::Open => !job.state.is_final(),
                JobFilter::Ended => job.state.is_final(),
            };
            mine && vo && state
        };
        let most = page(r.limit);
        let list = self.ledger.read_stored(|s| {
            let newest = s.jobs.newest_first(r.before.as_ref().map(|b| b.number));
            let mut found: Vec<JobSummary> = newest
                .take(SCAN_MAX)
                .filter(wanted)
                .take(most + 1)
                .map(|job| summary(&s.jobs, job))
                .collect();
            let more = found.len() > most;
            found.truncate(most);
            let next = found.last().filter(|_| more).map(|j| j.job.clone());
            JobPage { jobs: found, next }
        });
        list.await
    }

    pub(crate) async fn list_units(
        self: Arc<Self>,
        caller: Caller,
        r: ListUnits,
    ) -> Result<UnitPage, Error> {
        let grant = self.authorise(&caller, &r.job, Want::See)?;
        let most = page(r.limit);
        self.with_job(&grant, |table, job| {
            let wanted = |i: &u32| {
                job.units.get(*i as usize).is_some_and(|u| match r.filter {
                    UnitFilter::All => true,
                    UnitFilter::Open => !u.phase.is_final(),
                    UnitFilter::Running => matches!(u.phase, Phase::Running { .. }),
                    UnitFilter::Failed => matches!(
                        u.phase,
                        Phase::Failed { .. } | Phase::Lost { .. } | Phase::Refused { .. }
                    ),
                })
            };
            let from = r.from.unwrap_or(0);
            let mut numbers: Vec<u32> =
                (from..job.units.len() as u32).filter(wanted).take(most + 1).collect();
            let next = if numbers.len() > most { numbers.pop() } else { None };
            let units = numbers.into_iter().filter_map(|i| unit_view(table, job, i)).collect();
            UnitPage { units, next }
        })
        .await
    }

    pub(crate) async fn why_job(
        self: Arc<Self>,
        caller: Caller,
        r: WhyJob,
    ) -> Result<Reasons, Error> {
        let grant = self.authorise(&caller, &r.job, Want::See)?;
        self.with_job(&grant, |table, job| Reasons {
            reasons: job.reasons.iter().rev().cloned().collect(),
            tries: job.tries.iter().rev().map(|t| tried(table, job, t)).collect(),
        })
        .await
    }
}

/// One line of a list.
pub(super) fn summary(table: &JobTable, job: &Job) -> JobSummary {
    JobSummary {
        job: table.id(job.number),
        name: job.spec.name.clone(),
        vo: job.spec.vo.clone(),
        person: job.member.person.clone(),
        submitted: job.submitted,
        state: job.state.clone(),
        counts: job.tally.counts(),
        seq: job.seq,
        usage: job.usage,
        nodes: nodes(table, job),
    }
}

/// Where units of a job run, or, once it has ended, ran.
fn nodes(table: &JobTable, job: &Job) -> Vec<NodeId> {
    let over = job.state.is_final();
    let place = |phase: &Phase| match phase {
        Phase::Running { at, .. } => Some(at.node),
        Phase::Done { at, .. } | Phase::Failed { at, .. } | Phase::Lost { at, .. } if over => {
            Some(at.node)
        }
        _ => None,
    };
    let mut found: Vec<&NodeId> = Vec::new();
    for number in job.units.iter().take(PLACED_MAX).filter_map(|u| place(&u.phase)) {
        let Some(node) = table.node_name(number) else { continue };
        if !found.contains(&node) {
            found.push(node);
        }
        if found.len() == JOB_NODES_MAX {
            break;
        }
    }
    found.into_iter().cloned().collect()
}

/// The result of a job that has one, without output.
pub(super) fn end(table: &JobTable, job: &Job) -> Option<JobEnd> {
    use xos_api::aem::JobState;
    let ok = match &job.state {
        JobState::Done { .. } => true,
        JobState::Failed { .. } | JobState::Cancelled { .. } => false,
        _ => return None,
    };
    if ok {
        return Some(JobEnd {
            exit_status: 0,
            unit: None,
            how: None,
            output: None,
            reasons: Vec::new(),
        });
    }
    let how = |i: u32| job.units.get(i as usize).and_then(|u| ending(&u.phase));
    let bad = match (&job.state, job.first_bad) {
        (JobState::Failed { .. }, Some(i)) => Some(i),
        _ => None,
    };
    let refused = |i: u32| {
        job.units.get(i as usize).is_some_and(|u| matches!(u.phase, Phase::Refused { .. }))
    };
    let (unit, how) = match bad.and_then(|i| Some((i, how(i)?))) {
        Some((i, how)) => (Some(table.id(job.number).unit(i)), how),
        None => (None, UnitEnd::Cancelled),
    };
    // It was not the program that could not be started: nobody can run it at all.
    let (exit_status, reasons) = match bad {
        Some(i) if refused(i) => (Kind::Unsatisfiable.exit_code(), refusals(job, job.task_of(i))),
        _ => (how.exit_status().max(1), Vec::new()),
    };
    Some(JobEnd { exit_status, unit, how: Some(how), output: None, reasons })
}

/// Why a task was given up: the latest reason of each site, or one that is no site's when that came
/// last.
fn refusals(job: &Job, task: usize) -> Vec<Reason> {
    let name = job.task_spec(task).map(|t| t.name.as_str());
    let of_task = |r: &&Reason| r.task.is_none() || r.task.as_deref() == name;
    let mut latest: Vec<Reason> = Vec::new();
    for r in job.reasons.iter().rev().filter(of_task) {
        if latest.iter().all(|l| l.site != r.site) {
            latest.push(r.clone());
        }
    }
    match latest.first() {
        Some(r) if r.site.is_none() => latest.truncate(1),
        _ => latest.retain(|r| r.site.is_some()),
    }
    latest.reverse();
    latest
}

fn ending(phase: &Phase) -> Option<UnitEnd> {
    match phase {
        Phase::Failed { how, .. } => Some((**how).clone()),
        Phase::Lost { reason, .. } => Some(UnitEnd::Lost { reason: reason.to_string() }),
        Phase::Refused { .. } => {
            Some(UnitEnd::NotStarted { reason: "no site can run it".to_owned() })
        }
        _ => None,
    }
}

fn unit_view(table: &JobTable, job: &Job, i: u32) -> Option<UnitView> {
    let unit = job.units.get(i as usize)?;
    let task = job.task_of(i);
    let spec = job.task_spec(task)?;
    let first = job.tasks.get(task)?.first;
    let reasons: Vec<Reason> = match unit.phase {
        Phase::Refused { .. } => {
            let of_task = |r: &&Reason| r.task.as_ref().is_none_or(|t| *t == spec.name);
            job.reasons.iter().filter(of_task).cloned().collect()
        }
        _ => Vec::new(),
    };
    Some(UnitView {
        unit: table.id(job.number).unit(i),
        task: spec.name.clone(),
        index: spec.array.index(i - first)?,
        state: unit_state(table, &unit.phase, reasons),
        retries: unit.retries(),
    })
}

/// A run that was followed by another, with names for numbers.
fn tried(table: &JobTable, job: &Job, past: &PastTry) -> Try {
    Try {
        unit: table.id(job.number).unit(past.unit),
        attempt: past.attempt,
        at: past.when,
        site: site_of(table, &past.at),
        node: table.node_name(past.at.node).cloned(),
        end: past.how.clone(),
    }
}

/// Moves of a job's units, newest first, with names for numbers.
fn moves(table: &JobTable, job: &Job) -> Vec<UnitMove> {
    let view = |m: &Moved| UnitMove {
        unit: table.id(job.number).unit(m.unit),
        attempt: m.attempt,
        from: site_of(table, &m.from),
        cluster: m.cluster.clone(),
        left: m.left,
        checkpoint: m.version,
        to: m.to.and_then(|(at, _)| table.node_name(at.node).cloned()),
        arrived: m.to.map(|(_, at)| at),
        why: m.why.clone(),
    };
    job.moves.iter().rev().take(MOVES_KEPT).map(view).collect()
}

fn site_of(table: &JobTable, place: &Place) -> SiteId {
    table.site_name(place.site).cloned().unwrap_or_else(|| table.site().clone())
}

/// A unit's state with names for numbers.
fn unit_state(table: &JobTable, phase: &Phase, reasons: Vec<Reason>) -> UnitState {
    let site = |p: &Place| site_of(table, p);
    let node = |p: &Place| -> Option<NodeId> { table.node_name(p.node).cloned() };
    match phase {
        Phase::Waiting => UnitState::Waiting,
        Phase::Queued | Phase::Offered { .. } => UnitState::Queued,
        Phase::Placed { at } => UnitState::Placed { site: site(at) },
        Phase::Running { at, since } => match node(at) {
            Some(node) => UnitState::Running { site: site(at), node, since: *since },
            None => UnitState::Placed { site: site(at) },
        },
        // A host that names no node of its own, or too many, still ran it somewhere.
        Phase::Done { at, when, used } => {
            match node(at).or_else(|| site(at).node("unknown").ok()) {
                Some(node) => {
                    UnitState::Done { site: site(at), node, at: *when, usage: (*used).into() }
                }
                None => UnitState::Placed { site: site(at) },
            }
        }
        Phase::Failed { at, when, how, used } => UnitState::Failed {
            site: site(at),
            node: node(at),
            at: *when,
            end: (**how).clone(),
            usage: (*used).into(),
        },
        Phase::Lost { at, when, reason } => UnitState::Lost {
            site: site(at),
            node: node(at),
            at: *when,
            reason: reason.to_string(),
        },
        Phase::Cancelled { when } => UnitState::Cancelled { at: *when },
        Phase::Refused { when } => UnitState::Refused { at: *when, reasons },
    }
}

#[cfg(test)]
mod tests;
