//! Which sites are asked to run an owner's queued units.

mod carry;

pub use carry::may_move;

use super::pace::Pace;
use super::room::{self, Room};
use crate::check::few;
use crate::state::JobTable;
use crate::state::job::Job;
use crate::state::record::JobRecord;
use crate::state::runs;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use xos_api::aem::{HOST_BATCH_MAX, JobSpec, Reason, Refusal, SiteCapacity, TaskSpec};
use xos_base::{Millis, SiteId, VoId};

/// Most jobs of a kind (none at a site yet, some at sites) looked at in one pass, members in turn.
/// The next whole pass goes on behind them.
pub const JOBS_PER_PASS: usize = 1000;
/// So many waiting jobs in a row that got nothing end a quick pass.
pub const MISSES_MAX: u32 = 16;
/// A job that found all processors in use is told so after this long.
pub const BUSY_AFTER: Duration = Duration::from_secs(1);
/// A job is not given up for lack of room before it is this old, nor because of a site that was not
/// heard of for so long: nodes may still be connecting. Who waits is told the reasons meanwhile.
///
/// What nodes that connect cannot change is not waited for: a site that refused for good is struck
/// at once, and a job for sites that do not serve its VO is not taken ([`nobody`]).
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long a unit that left waits for a site that said "later" to have it go on, until it goes on
/// where it was.
pub const CARRY_PATIENCE: Duration = Duration::from_secs(30);
/// How long one rests that no site takes, until all are asked again.
pub const CARRY_PAUSE: Duration = Duration::from_secs(60);
/// In so many such rounds that where it was has to refuse it as well until it is given up. While
/// that site is away it waits for it.
pub const CARRY_ROUNDS: u16 = 100;

/// What is known of a site.
#[derive(Clone, Debug, Default)]
pub struct SiteView {
    /// Its events stream is open, so that it can be asked.
    pub connected: bool,
    /// Since when: after its start its nodes come one by one.
    pub since: Millis,
    /// The room that it last told of.
    pub capacity: SiteCapacity,
}

/// Where units of which task were, for [`Pace`] and holds.
pub type At = (u64, usize, SiteId);

/// Everything that the choice looks at besides the jobs.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The sites.
    pub sites: BTreeMap<SiteId, SiteView>,
    /// The sites that serve each VO; a VO that is not in it is not known yet.
    pub serving: HashMap<VoId, Vec<SiteId>>,
    /// How fast units end.
    pub pace: Pace<At>,
    /// Sites that said "later", until when they are not asked again.
    pub holds: HashMap<At, Millis>,
    /// When this core began to hear of nodes and sites.
    pub since: Millis,
    /// Where the next whole pass begins.
    pub turn: Turn,
}

/// A place among the waiting jobs: so many idle ones, and busy ones, come before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    idle: usize,
    busy: usize,
}

impl Turn {
    /// Where a whole pass ends that began here: in front, when it looked at all.
    #[must_use]
    pub fn next(self, table: &JobTable) -> Turn {
        let on = |at: usize, len: usize| match len <= JOBS_PER_PASS {
            true => 0,
            false => (at + JOBS_PER_PASS) % len,
        };
        let (idle, busy) = table.placing();
        Turn { idle: on(self.idle, idle), busy: on(self.busy, busy) }
    }
}

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One job that just came: what others could not use before is free for it.
    Job(u64),
    /// What is likely to find room: after each change.
    Quick,
    /// All of it, [`JOBS_PER_PASS`] at a time: now and then, so that small jobs pass large ones
    /// that wait.
    Whole,
}

/// Chooses sites for what is queued. Records to be journalled before anybody is asked.
pub fn plan(table: &JobTable, facts: &Facts, reach: Reach, now: Millis) -> Vec<JobRecord> {
    let mut pass = Pass { table, facts, now, out: Vec::new(), given: BTreeMap::new() };
    if let Reach::Job(number) = reach {
        if let Some(job) = table.job(number) {
            pass.job(job);
        }
        return pass.out;
    }
    let turn = match reach {
        Reach::Whole => facts.turn,
        _ => Turn::default(),
    };
    // Whoever has least running comes first.
    let mut misses = 0;
    for job in from(|| table.idle(), turn.idle) {
        misses = if pass.job(job) { 0 } else { misses + 1 };
        if reach == Reach::Quick && misses >= MISSES_MAX {
            break;
        }
    }
    let mut busy: Vec<&Job> = from(|| table.busy(), turn.busy).collect();
    busy.sort_by_key(|j| (j.tally.out(), j.number));
    for job in busy {
        pass.job(job);
    }
    pass.out
}

/// The jobs of a pass that begins at a place; those before it come last, if there is room.
fn from<'a, I: Iterator<Item = &'a Job>>(
    all: impl Fn() -> I,
    first: usize,
) -> impl Iterator<Item = &'a Job> {
    all().skip(first).chain(all().take(first)).take(JOBS_PER_PASS)
}

struct Pass<'a> {
    table: &'a JobTable,
    facts: &'a Facts,
    now: Millis,
    out: Vec<JobRecord>,
    /// What this pass has given to sites already.
    given: BTreeMap<SiteId, crate::state::load::Load>,
}

impl Pass<'_> {
    /// Says whether units of the job were offered to somebody.
    fn job(&mut self, job: &Job) -> bool {
        let before = self.given.values().map(|g| g.units).sum::<u32>();
        if let (Some(_), Some(serving)) = (&job.mandate, self.facts.serving.get(&job.spec.vo)) {
            for (unit, carry) in &job.carried {
                self.carry(job, *unit, carry, serving);
            }
            for task in 0..job.tasks.len() {
                if job.fresh(task) > 0 {
                    self.task(job, task, serving);
                }
            }
        }
        self.given.values().map(|g| g.units).sum::<u32>() > before
    }

    fn task(&mut self, job: &Job, task: usize, serving: &[SiteId]) {
        let Some(spec) = job.task_spec(task) else { return };
        let mut allowed: Vec<(SiteId, u32)> = Vec::new();
        let mut refusals: Vec<(Option<SiteId>, Refusal)> = Vec::new();
        for site in candidates(&job.spec, serving) {
            match self.judge(job, task, spec, site) {
                Ok(room) => {
                    let key = (job.number, task, site.clone());
                    let pending = self.pending(site).units;
                    let ahead = self.facts.pace.ahead(&key, self.now).saturating_sub(pending);
                    allowed.push((site.clone(), room.now.max(ahead)));
                }
                Err(r) => refusals.push((Some(site.clone()), r)),
            }
        }
        if allowed.is_empty() {
            // A share may have ended since the submission; or one was just agreed, of which a core
            // that is not the VO's home hears a moment later.
            if let Some(refusal) = nobody(&job.spec, serving) {
                refusals.push((None, refusal));
            }
            return self.refuse(job, task, refusals);
        }
        self.offer(job, task, spec, allowed);
    }

    fn pending(&self, site: &SiteId) -> crate::state::load::Load {
        let mut load = self.table.load(site);
        if let Some(given) = self.given.get(site) {
            load.units += given.units;
            load.cpu_milli += given.cpu_milli;
            load.memory_bytes += given.memory_bytes;
        }
        load
    }

    fn judge(
        &self,
        job: &Job,
        task: usize,
        spec: &TaskSpec,
        site: &SiteId,
    ) -> Result<Room, Refusal> {
        let said = |r: &&Reason| {
            r.site.as_ref() == Some(site) && r.task.as_deref() == Some(spec.name.as_str())
        };
        let refused = self
            .table
            .site_number(site)
            .is_some_and(|n| job.tasks.get(task).is_some_and(|t| t.refused_by.contains(&n)));
        if refused {
            let last = job.reasons.iter().rev().find(said);
            return Err(Refusal {
                rule: last.map_or_else(|| "site-policy".to_owned(), |r| r.rule.clone()),
                text: last.map_or_else(|| "it refused".to_owned(), |r| r.text.clone()),
                later: false,
            });
        }
        if self.facts.holds.get(&(job.number, task, site.clone())).is_some_and(|t| *t > self.now) {
            let last = job.reasons.iter().rev().find(said);
            return Err(Refusal {
                rule: last.map_or_else(|| "busy".to_owned(), |r| r.rule.clone()),
                text: last.map_or_else(|| "it said later".to_owned(), |r| r.text.clone()),
                later: true,
            });
        }
        let view = self.facts.sites.get(site).filter(|v| v.connected).ok_or_else(|| Refusal {
            rule: "unreachable".to_owned(),
            text: "its core does not answer now".to_owned(),
            later: true,
        })?;
        let share = view.capacity.shares.iter().find(|s| s.vo == job.spec.vo);
        let young = self.now.since(view.since) < PATIENCE;
        room::judge(&view.capacity, share, &spec.resources, self.pending(site))
            .map_err(|r| Refusal { later: r.later || young, ..r })
    }

    fn offer(&mut self, job: &Job, task: usize, spec: &TaskSpec, mut allowed: Vec<(SiteId, u32)>) {
        let tally = job.tasks[task].tally;
        let at_once = spec.array.at_once().map_or(u32::MAX, |n| n.saturating_sub(tally.out()));
        let mut left = job.fresh(task).min(at_once);
        let mut sum: u64 = allowed.iter().map(|(_, n)| u64::from(*n)).sum();
        if sum == 0 {
            let waits = self.now.since(job.submitted) >= BUSY_AFTER;
            if tally.out() == 0 && left > 0 && waits {
                let text = "all processors that it may use are in use".to_owned();
                let busy = Refusal { rule: "busy".to_owned(), text, later: true };
                self.note(job, task, None, &busy);
            }
            return;
        }
        // The site with most room first; each in proportion to its room.
        allowed.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let (attempt, units) = job.queued(task, left.min(HOST_BATCH_MAX * 4));
        let mut units = units.into_iter();
        left = left.min(units.len() as u32);
        for (site, room) in allowed {
            if left == 0 || room == 0 {
                break;
            }
            let part = (u64::from(left) * u64::from(room)).div_ceil(sum.max(1));
            let part = u32::try_from(part).unwrap_or(left).min(room).min(left).min(HOST_BATCH_MAX);
            let batch: Vec<u32> = units.by_ref().take(part as usize).collect();
            left -= batch.len() as u32;
            sum -= u64::from(room);
            let given = self.given.entry(site.clone()).or_default();
            given.units += batch.len() as u32;
            given.cpu_milli += u64::from(spec.resources.cpu_milli) * batch.len() as u64;
            given.memory_bytes += spec.resources.memory_bytes * batch.len() as u64;
            let units = runs::pack(batch);
            let (job, task) = (job.number, task as u16);
            self.out.push(JobRecord::Offered { job, task, site, units, attempt });
        }
    }

    /// Nobody can now: says why, and gives up when nobody ever can.
    fn refuse(&mut self, job: &Job, task: usize, refusals: Vec<(Option<SiteId>, Refusal)>) {
        let old_enough = self.now.since(job.submitted) >= PATIENCE
            && self.now.since(self.facts.since) >= PATIENCE;
        let by_sites = job.tasks[task].refused_by.len();
        let never = refusals.iter().all(|(_, r)| !r.later);
        for (site, r) in &refusals {
            self.note(job, task, site.as_ref(), r);
        }
        if never && (old_enough || by_sites == refusals.len()) {
            let (_, units) = job.queued(task, u32::MAX);
            self.out.push(JobRecord::Refused {
                job: job.number,
                units: runs::pack(units),
                at: self.now,
            });
        }
    }

    /// Records a reason, unless it is the last that this site gave.
    fn note(&mut self, job: &Job, task: usize, site: Option<&SiteId>, r: &Refusal) {
        let name = job.task_spec(task).map(|t| t.name.clone());
        let last = job.reasons.iter().rev().find(|k| k.site.as_ref() == site && k.task == name);
        if last.is_none_or(|k| k.rule != r.rule || k.text != r.text) {
            self.out.push(JobRecord::Noted {
                job: job.number,
                reason: Reason {
                    at: self.now,
                    site: site.cloned(),
                    rule: r.rule.clone(),
                    text: r.text.clone(),
                    task: name,
                },
            });
        }
    }
}

fn candidates<'a>(spec: &'a JobSpec, serving: &'a [SiteId]) -> impl Iterator<Item = &'a SiteId> {
    serving.iter().filter(|s| spec.sites.is_empty() || spec.sites.contains(s))
}

/// Why no site can be asked for a job, when none of those that serve its VO may run it.
pub fn nobody(spec: &JobSpec, serving: &[SiteId]) -> Option<Refusal> {
    if candidates(spec, serving).next().is_some() {
        return None;
    }
    let vo = &spec.vo;
    let text = match (spec.sites.as_slice(), serving) {
        ([], _) => format!("no site serves {vo} now"),
        (asked, []) => {
            let asked = few(asked.iter().map(SiteId::as_str));
            format!("none of the sites asked for ({asked}) serves {vo}, nor does another now")
        }
        (asked, serving) => {
            let asked = few(asked.iter().map(SiteId::as_str));
            let others = few(serving.iter().map(SiteId::as_str));
            format!(
                "none of the sites asked for ({asked}) serves {vo}; sites that serve it: {others}"
            )
        }
    };
    Some(Refusal { rule: "no-share".to_owned(), text, later: false })
}

#[cfg(test)]
mod tests;
