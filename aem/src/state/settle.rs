//! What follows from a change: tasks and jobs that waited, and the jobs' own states.

use super::apply::{ended_at, step};
use super::job::Job;
use super::load::Loads;
use super::unit::Input;
use super::{JobTable, Touched};
use xos_api::aem::{JobState, Reason};
use xos_base::Millis;

/// Whether what something waits for has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Ready,
    NotYet,
    Never,
}

impl JobTable {
    /// Brings every touched job, and those that wait for it, to rest.
    pub(super) fn settle(&mut self, at: Millis, touched: &mut Touched) {
        let mut todo: Vec<u64> = touched.jobs.iter().copied().collect();
        while let Some(number) = todo.pop() {
            let before = self.jobs.get(&number).map(|j| j.state.is_final());
            self.settle_job(number, at, touched);
            let after = self.jobs.get(&number).map(|j| j.state.is_final());
            if before == Some(false) && after == Some(true) {
                self.unlink(number);
                // Only older jobs are waited for, so this ends.
                todo.extend(self.dependents.remove(&number).unwrap_or_default());
            }
        }
    }

    /// An ended job waits for nothing any more.
    fn unlink(&mut self, number: u64) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        for before in std::mem::take(&mut job.waits_for) {
            if let Some(set) = self.dependents.get_mut(&before) {
                set.remove(&number);
                if set.is_empty() {
                    self.dependents.remove(&before);
                }
            }
        }
    }

    pub(super) fn settle_job(&mut self, number: u64, at: Millis, touched: &mut Touched) {
        let Some(job) = self.jobs.get(&number) else { return };
        if job.state.is_final() {
            return;
        }
        let at = if at == Millis(0) { job.submitted } else { at };
        let done: Vec<u64> =
            job.waits_for.iter().copied().filter(|before| self.is_done(*before)).collect();
        let jobs_before = self.jobs_before(job);
        let load = &mut self.load;
        let Some(job) = self.jobs.get_mut(&number) else { return };
        job.waits_for.retain(|before| !done.contains(before));
        let mut changed = false;
        if job.tally.waiting() > 0 {
            if let (Wait::Never, Some(text)) = &jobs_before {
                let text = text.clone();
                job.note(Reason { at, site: None, rule: "after".into(), text, task: None });
            }
            changed |= release(job, jobs_before.0, at, load);
        }
        let state = job.derive(at);
        if state != job.state {
            job.state = state;
            changed = true;
        }
        if job.state.is_final() {
            // Nobody is asked for anything any more.
            (job.proof, job.mandate) = (None, None);
            job.reasons.shrink_to_fit();
            job.tries.shrink_to_fit();
        }
        if changed {
            job.seq += 1;
            touched.jobs.insert(number);
        }
        let ended = ended_at(job);
        self.rank(number);
        if let Some(at) = ended {
            self.ended.insert((at.0, number));
            self.count_open(number, false);
        }
    }

    fn is_done(&self, number: u64) -> bool {
        self.jobs.get(&number).is_some_and(|j| matches!(j.state, JobState::Done { .. }))
    }

    fn jobs_before(&self, job: &Job) -> (Wait, Option<String>) {
        let mut wait = Wait::Ready;
        for number in &job.waits_for {
            let id = self.id(*number);
            match self.jobs.get(number).map(|j| &j.state) {
                Some(JobState::Done { .. }) => {}
                Some(s) if !s.is_final() => wait = Wait::NotYet,
                Some(s) => {
                    let end = match s {
                        JobState::Cancelled { .. } => "was cancelled",
                        _ => "failed",
                    };
                    let text = format!("job {id}, which this one waited for, {end}");
                    return (Wait::Never, Some(text));
                }
                // Submission saw it, and it is forgotten only when it has ended.
                None => {
                    let text = format!("job {id}, which this one waited for, is no longer known");
                    return (Wait::Never, Some(text));
                }
            }
        }
        (wait, None)
    }
}

/// Lets go, or cancels, tasks that waited. Says whether anything changed.
fn release(job: &mut Job, before: Wait, at: Millis, load: &mut Loads) -> bool {
    let mut any = false;
    // Each round settles at least one task, or is the last.
    for _ in 0..=job.tasks.len() {
        let mut changed = false;
        for task in 0..job.tasks.len() {
            if job.tasks[task].tally.waiting() == 0 {
                continue;
            }
            let wait = if before == Wait::Ready { tasks_before(job, task) } else { before };
            let input = match wait {
                Wait::NotYet => continue,
                Wait::Ready => Input::Ready,
                Wait::Never => Input::Cancel { when: at },
            };
            if wait == Wait::Never && before == Wait::Ready {
                let name = job.spec.tasks[task].name.clone();
                let text = format!("a task that {name} waited for did not succeed");
                let rule = "after".into();
                job.note(Reason { at, site: None, rule, text, task: Some(name) });
            }
            for unit in job.units_of(task) {
                let waits = job.units[unit as usize].phase == super::unit::Phase::Waiting;
                changed |= waits && step(job, unit, None, &input, load);
            }
        }
        any |= changed;
        if !changed {
            break;
        }
    }
    any
}

fn tasks_before(job: &Job, task: usize) -> Wait {
    let mut wait = Wait::Ready;
    for name in &job.spec.tasks[task].after {
        let Some(i) = job.spec.tasks.iter().position(|t| t.name == *name) else {
            return Wait::Never;
        };
        let t = &job.tasks[i].tally;
        if t.bad() > 0 {
            return Wait::Never;
        }
        if t.done() < t.total() {
            wait = Wait::NotYet;
        }
    }
    wait
}

#[cfg(test)]
mod tests {
    use crate::state::{JobRecord, Record, State};
    use crate::testing;
    use xos_api::aem::{HostedEvent, HostedRun, UnitEnd};
    use xos_base::Millis;

    fn submitted(job: u64, after: &[&str]) -> Record {
        let mut spec = testing::spec(&[("main", "0", &[])]);
        spec.after_jobs = after.iter().map(|id| id.parse().unwrap()).collect();
        let (at, spec, member) = (Millis(job), Box::new(spec), Box::new(testing::alice()));
        JobRecord::Submitted { job, at, spec, member, proof: None, watched: false }.into()
    }

    /// The job's one unit succeeds.
    fn succeeds(s: &mut State, job: u64) {
        let site: xos_base::SiteId = "pisa".parse().unwrap();
        let (units, attempt) = (vec![testing::UNIT], 0);
        let how = UnitEnd::Exit { code: 0 };
        let (node, started, usage, output) = Default::default();
        let what = HostedRun::Ended { node, started, how, usage, output };
        let at = Millis(50);
        let events = vec![HostedEvent { unit: 0, at, what }];
        let offered = JobRecord::Offered { job, task: 0, site: site.clone(), units, attempt };
        s.apply(&offered.into());
        s.apply(&JobRecord::Happened { site, seq: job, job, attempt, at, events }.into());
        assert_eq!(s.jobs.job(job).unwrap().state.word(), "done");
    }

    /// If it failed, a job would be cancelled although all that it waited for succeeded, because
    /// one of them is no longer kept.
    #[test]
    fn a_forgotten_job_that_succeeded_holds_nobody_up() {
        let mut s = State::new("rennes".parse().unwrap());
        s.apply(&submitted(1, &[]));
        s.apply(&submitted(2, &[]));
        s.apply(&submitted(3, &["1.rennes", "2.rennes"]));
        succeeds(&mut s, 1);
        s.apply(&submitted(4, &["1.rennes", "2.rennes"]));
        s.apply(&JobRecord::Forgotten { job: 1 }.into());
        let mut s = State::from_snapshot(s.jobs.site(), &s.to_snapshot().unwrap()).unwrap();
        succeeds(&mut s, 2);
        for waited in [3, 4] {
            let job = s.jobs.job(waited).unwrap();
            assert_eq!((job.tally.queued(), job.tally.bad()), (1, 0), "{:?}", job.reasons);
        }
    }
}
