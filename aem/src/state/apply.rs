//! What each record does to the table of jobs.

use super::carry::{Going, Heard};
use super::held::Held;
use super::host::Report;
use super::job::{Job, PastTry};
use super::load::Loads;
use super::names::NONE;
use super::record::JobRecord;
use super::runs;
use super::unit::{Input, Phase, Place, Unit, Used};
use super::{JobTable, Touched};
use xos_api::aem::{HostedEvent, HostedRun, Reason, Refusal, UnitEnd, UnitRun, Usage};
use xos_base::{Millis, NodeId, SiteId};

impl JobTable {
    /// Applies a record. What does not fit (a job that is forgotten, a unit that is elsewhere)
    /// changes nothing: the same record twice is as good as once.
    pub fn apply(&mut self, record: &JobRecord) -> Touched {
        let mut touched = Touched::default();
        match record {
            JobRecord::Submitted { job, at, spec, member, proof, watched } => {
                let mut new = Job::new(*job, *at, (**spec).clone(), (**member).clone());
                new.proof.clone_from(proof);
                new.watched = *watched;
                self.insert(new, *at, &mut touched);
            }
            JobRecord::Mandated { job, mandate } => self.with(*job, &mut touched, |j| {
                j.mandate = Some(mandate.as_str().into());
                j.proof = None;
                true
            }),
            JobRecord::Offered { job, site, units, attempt, .. } => {
                let site = self.sites.number(site);
                self.each(*job, units, Some(*attempt), &Input::Offer { site }, &mut touched);
            }
            JobRecord::Accepted { job, site, units, attempt } => {
                let site = self.sites.number(site);
                self.each(*job, units, Some(*attempt), &Input::Accept { site }, &mut touched);
            }
            JobRecord::Returned { job, site, units, attempt, at, refusal } => {
                self.returned(*job, site, units, *attempt, *at, refusal, &mut touched);
            }
            JobRecord::Noted { job, reason } => self.with(*job, &mut touched, |j| {
                j.note(reason.clone());
                true
            }),
            JobRecord::Refused { job, units, at } => {
                self.each(*job, units, None, &Input::NoSite { when: *at }, &mut touched);
            }
            JobRecord::Happened { site, seq, job, attempt, at, events } => {
                let number = self.sites.number(site);
                if number != NONE {
                    let seen = self.seen.entry(number).or_insert(0);
                    *seen = (*seen).max(*seq);
                }
                self.hosted(site, *job, *attempt, events, *at, &mut touched);
            }
            JobRecord::Cancelled { job, at, units, by } => {
                self.cancel(*job, *at, units.as_deref(), by, &mut touched);
            }
            JobRecord::Going { job, unit, attempt, to, at, by } => {
                self.with(*job, &mut touched, |j| {
                    let u = j.units.get(*unit as usize);
                    let runs = u.is_some_and(|u| {
                        u.attempt == *attempt && matches!(u.phase, Phase::Running { .. })
                    });
                    let (attempt, to, at, by) = (*attempt, to.clone(), *at, by.clone());
                    if runs {
                        j.going.insert(*unit, Going { attempt, to, at, by });
                    }
                    runs
                });
            }
            JobRecord::Stays { job, unit, reason } => self.with(*job, &mut touched, |j| {
                j.going.remove(unit);
                j.note(reason.clone());
                true
            }),
            JobRecord::Rests { job, unit, until, home } => self.with(*job, &mut touched, |j| {
                let carry = j.carried.get_mut(unit);
                let known = carry.is_some();
                if let Some(c) = carry {
                    (c.to, c.rest) = (None, *until);
                    c.rounds = c.rounds.saturating_add(u16::from(*home));
                    c.tried.clear();
                }
                known
            }),
            JobRecord::GivenUp { job, unit, at, reason } => {
                self.give_up(*job, *unit, *at, reason, &mut touched);
            }
            JobRecord::Dropped { job, unit, attempt } => self.with(*job, &mut touched, |j| {
                let before = j.spent.len();
                j.spent.retain(|s| (s.unit, s.attempt) != (*unit, *attempt));
                j.spent.len() < before
            }),
            JobRecord::Forgotten { job } => self.forget(*job, &mut touched),
        }
        let at = time_of(record);
        self.settle(at, &mut touched);
        touched
    }

    fn insert(&mut self, mut job: Job, at: Millis, touched: &mut Touched) {
        let number = job.number;
        if number < self.next {
            return;
        }
        // A person's jobs follow one another: their membership is kept once.
        let like = self.jobs.values().next_back().filter(|j| j.member == job.member);
        if let Some(like) = like {
            job.member = like.member.clone();
        }
        self.next = number + 1;
        for before in &job.waits_for {
            if self.jobs.get(before).is_some_and(|b| !b.state.is_final()) {
                self.dependents.entry(*before).or_default().insert(number);
            }
        }
        self.held.add(Held::of(&job.spec));
        self.jobs.insert(number, job);
        self.count_open(number, true);
        touched.jobs.insert(number);
        self.settle_job(number, at, touched);
    }

    fn with(&mut self, job: u64, touched: &mut Touched, f: impl FnOnce(&mut Job) -> bool) {
        if let Some(j) = self.jobs.get_mut(&job)
            && f(j)
        {
            j.seq += 1;
            touched.jobs.insert(job);
        }
    }

    /// Gives one input to units of a job; to those of `attempt` only, when given.
    fn each(
        &mut self,
        job: u64,
        units: &[UnitRun],
        attempt: Option<u16>,
        input: &Input,
        touched: &mut Touched,
    ) {
        let load = &mut self.load;
        let Some(j) = self.jobs.get_mut(&job) else { return };
        let end = j.units.len() as u32;
        let mut changed = false;
        for unit in runs::unpack(units).take_while(|u| *u < end) {
            changed |= step(j, unit, attempt, input, load);
        }
        if changed {
            j.seq += 1;
            touched.jobs.insert(job);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn returned(
        &mut self,
        job: u64,
        site: &SiteId,
        units: &[UnitRun],
        attempt: u16,
        at: Millis,
        refusal: &Refusal,
        touched: &mut Touched,
    ) {
        let number = self.sites.number(site);
        let input = Input::Return { site: number, when: at };
        self.each(job, units, Some(attempt), &input, touched);
        self.with(job, touched, |j| {
            j.note(reason_of(j, at, site, units, refusal));
            if let Some(carry) = units.first().and_then(|u| j.carried.get_mut(&u.first)) {
                // Who does not take what runs may take what begins.
                if !refusal.later {
                    carry.tried.insert(number);
                }
                return true;
            }
            let task = units.first().map_or(0, |u| j.task_of(u.first));
            if !refusal.later
                && let Some(t) = j.tasks.get_mut(task)
            {
                t.refused_by.insert(number);
            }
            true
        });
    }

    /// What this core, as host, reports to itself as owner.
    pub(super) fn apply_own(&mut self, job: u64, report: &Report, at: Millis) -> Touched {
        let mut touched = Touched::default();
        let site = self.site.clone();
        self.hosted(&site, job, report.attempt, &report.events, at, &mut touched);
        self.settle(at, &mut touched);
        touched
    }

    /// What a host says happened to its units; units that it does not have stay untouched.
    pub(super) fn hosted(
        &mut self,
        site: &SiteId,
        job: u64,
        attempt: u16,
        events: &[HostedEvent],
        heard: Millis,
        touched: &mut Touched,
    ) {
        let number = self.sites.number(site);
        let (nodes, load) = (&mut self.nodes, &mut self.load);
        let Some(j) = self.jobs.get_mut(&job) else { return };
        let mut place = |node: Option<&NodeId>| Place {
            site: number,
            node: node.filter(|n| n.site() == *site).map_or(NONE, |n| nodes.number(n)),
        };
        let mut changed = false;
        let here = |j: &Job, unit: u32| {
            let held = |u: &Unit| u.attempt == attempt && u.phase.site() == Some(number);
            j.units.get(unit as usize).is_some_and(held)
        };
        for e in events {
            // Before its node gets a number: a site names no nodes for units that it has not.
            if !here(j, e.unit) {
                continue;
            }
            changed |= match &e.what {
                HostedRun::Started { node } => {
                    let at = place(Some(node));
                    let input = Input::Start { at, when: e.at };
                    step(j, e.unit, Some(attempt), &input, load)
                }
                HostedRun::Left { node, usage, carried, why } => {
                    let at = place(Some(node));
                    let input = Input::Leave { at, when: e.at };
                    let unit = j.units.get(e.unit as usize);
                    let began = unit.is_some_and(|u| matches!(u.phase, Phase::Running { .. }));
                    let hit = step(j, e.unit, Some(attempt), &input, load);
                    if hit {
                        j.charge(*usage);
                        let heard = Heard { at: heard, began };
                        j.leaves((e.unit, attempt), (at, e.at), carried, why, heard);
                    }
                    hit
                }
                HostedRun::Ended { node, how, usage, .. } => {
                    let at = place(node.as_ref());
                    let used = Used::from(*usage);
                    let input = Input::End { at, when: e.at, how: how.clone(), used };
                    let hit = step(j, e.unit, Some(attempt), &input, load);
                    if hit {
                        j.charge(Usage::from(used));
                    }
                    hit
                }
            };
        }
        if changed {
            j.seq += 1;
            touched.jobs.insert(job);
        }
    }

    /// A unit that left is lost, or begun anew where its author lets it: nobody has it.
    fn give_up(&mut self, job: u64, unit: u32, when: Millis, reason: &str, touched: &mut Touched) {
        let Some(j) = self.jobs.get(&job) else { return };
        if !j.units.get(unit as usize).is_some_and(Unit::waits_carried) {
            return;
        }
        let Some(at) = j.carried.get(&unit).map(|c| c.from) else { return };
        let how = UnitEnd::Lost { reason: reason.to_owned() };
        let input = Input::End { at, when, how, used: Used::default() };
        self.each(job, &[UnitRun { first: unit, count: 1 }], None, &input, touched);
    }

    fn cancel(
        &mut self,
        job: u64,
        at: Millis,
        units: Option<&[UnitRun]>,
        by: &str,
        touched: &mut Touched,
    ) {
        let all = [UnitRun { first: 0, count: u32::MAX }];
        self.with(job, touched, |j| {
            if j.state.is_final() {
                return false;
            }
            j.cancelled |= units.is_none();
            let text = format!("{by} cancelled {}", if units.is_some() { "units" } else { "it" });
            j.note(Reason { at, site: None, rule: "cancelled".into(), text, task: None });
            true
        });
        self.each(job, units.unwrap_or(&all), None, &Input::Cancel { when: at }, touched);
    }

    fn forget(&mut self, job: u64, touched: &mut Touched) {
        if self.jobs.get(&job).is_some_and(|j| !j.state.is_final()) {
            return;
        }
        if let Some(j) = self.jobs.remove(&job) {
            self.held.sub(Held::of(&j.spec));
            if let Some(at) = ended_at(&j) {
                self.ended.remove(&(at.0, job));
            }
            self.dependents.remove(&job);
            touched.jobs.insert(job);
        }
    }
}

/// When a job came to its end.
pub(super) fn ended_at(job: &Job) -> Option<Millis> {
    use xos_api::aem::JobState as S;
    match &job.state {
        S::Done { at } | S::Failed { at } | S::Cancelled { at } => Some(*at),
        _ => None,
    }
}

fn time_of(record: &JobRecord) -> Millis {
    match record {
        JobRecord::Submitted { at, .. }
        | JobRecord::Returned { at, .. }
        | JobRecord::Refused { at, .. }
        | JobRecord::Happened { at, .. }
        | JobRecord::GivenUp { at, .. }
        | JobRecord::Cancelled { at, .. } => *at,
        _ => Millis(0),
    }
}

fn reason_of(job: &Job, at: Millis, site: &SiteId, units: &[UnitRun], r: &Refusal) -> Reason {
    let task = units.first().and_then(|u| job.task_spec(job.task_of(u.first)));
    Reason {
        at,
        site: Some(site.clone()),
        rule: r.rule.clone(),
        text: r.text.clone(),
        task: task.map(|t| t.name.clone()),
    }
}

/// One input to one unit, with all that hangs on it.
pub(super) fn step(
    job: &mut Job,
    unit: u32,
    attempt: Option<u16>,
    input: &Input,
    load: &mut Loads,
) -> bool {
    let task = job.task_of(unit);
    let Some(spec) = job.spec.tasks.get(task) else { return false };
    let Some(u) = job.units.get_mut(unit as usize) else { return false };
    if attempt.is_some_and(|a| a != u.attempt) {
        return false;
    }
    let (before, pending, tried) = (u.phase.index(), u.phase.pending(), u.attempt);
    let waited = u.waits_carried();
    if !u.on(input, spec.retry) {
        return false;
    }
    let (after, again, carried) = (u.phase.index(), u.attempt > tried, u.carried);
    let waits = u.waits_carried();
    load.moved(pending, u.phase.pending(), &spec.resources);
    let bad = matches!(u.phase, Phase::Failed { .. } | Phase::Lost { .. } | Phase::Refused { .. });
    if bad {
        job.first_bad = Some(job.first_bad.map_or(unit, |first| first.min(unit)));
    }
    if let (true, Input::End { at, when, how, .. }) = (again, input) {
        job.tried(PastTry { unit, attempt: tried, at: *at, when: *when, how: how.clone() });
    }
    job.keep_carried(unit, carried, input, again);
    job.tally.step(before, after);
    if let Some(t) = job.tasks.get_mut(task) {
        t.tally.step(before, after);
        t.carried = (t.carried + u32::from(waits)).saturating_sub(u32::from(waited));
        if after == Phase::Queued.index() {
            t.cursor = t.cursor.min(unit);
        }
    }
    true
}
