//! Stand-in operations on jobs: 1 runs, 3 never changes, all others failed.

use super::{Fake, id};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use xos_api::aem::*;
use xos_base::{Error, JobId, Millis};
use xos_net::Caller;

impl Fake {
    pub fn summary(&self, job: &JobId) -> JobSummary {
        let (state, counts) = match job.number {
            1 => {
                let counts = Counts { running: 1, ..Counts::default() };
                (JobState::Running { since: Millis(1_794_999_000_000) }, counts)
            }
            _ => {
                let counts =
                    Counts { done: 1, failed: 1, lost: 1, refused: 1, ..Counts::default() };
                (JobState::Failed { at: Millis(1_794_999_900_000) }, counts)
            }
        };
        JobSummary {
            job: job.clone(),
            name: self.t(),
            vo: id("demo.rennes"),
            person: id("milo@rennes"),
            submitted: Millis(1_794_998_000_000),
            state,
            counts,
            seq: 4,
            usage: Usage { wall_ms: 2000, cpu_ms: 1500, memory_bytes: 5 << 20 },
            nodes: Vec::new(),
        }
    }

    pub fn jobs(&self, caller: &Caller) -> Result<JobPage, Error> {
        caller.member()?;
        let jobs = ["2.rennes", "1.rennes"].map(|j| self.summary(&id(j))).to_vec();
        Ok(JobPage { jobs, next: None })
    }

    pub fn job(&self, caller: &Caller, job: &JobId) -> Result<JobView, Error> {
        caller.member()?;
        if job.number > 7 {
            return Err(Error::not_found(format!("no job {job}: {}", self.text)));
        }
        let summary = self.summary(job);
        let task = TaskSpec {
            name: "main".into(),
            argv: vec!["sh".into(), "-c".into(), self.t()],
            ..TaskSpec::default()
        };
        let end = summary.state.is_final().then(|| JobEnd {
            exit_status: 126,
            unit: Some(job.unit(1)),
            how: Some(UnitEnd::NotStarted { reason: self.t() }),
            output: None,
            reasons: self.reasons(),
        });
        let tasks = vec![TaskSummary { name: "main".into(), first: 0, counts: summary.counts }];
        let spec = JobSpec {
            vo: summary.vo.clone(),
            name: self.t(),
            tasks: vec![task],
            after_jobs: vec![],
            sites: vec![],
        };
        Ok(JobView { summary, spec, tasks, end, moves: Vec::new() })
    }

    pub fn reasons(&self) -> Vec<Reason> {
        vec![Reason {
            at: Millis(1_794_998_500_000),
            site: Some(id("pisa")),
            rule: self.t(),
            text: self.t(),
            task: None,
        }]
    }

    pub fn units(&self, caller: &Caller, job: &JobId) -> Result<UnitPage, Error> {
        caller.member()?;
        let (site, node) = (self.site.clone(), id("n1.rennes"));
        let at = Millis(1_794_999_000_000);
        let usage = Usage::default();
        let states = match job.number {
            1 => vec![UnitState::Running { site, node, since: at }],
            _ => vec![
                UnitState::Done { site: site.clone(), node, at, usage },
                UnitState::Failed {
                    site: site.clone(),
                    node: None,
                    at,
                    end: UnitEnd::NotStarted { reason: self.t() },
                    usage,
                },
                UnitState::Lost { site, node: None, at, reason: self.t() },
                UnitState::Refused { at, reasons: self.reasons() },
            ],
        };
        let unit = |(i, state): (u32, UnitState)| UnitView {
            unit: job.unit(i),
            task: self.t(),
            index: i,
            state,
            retries: 0,
        };
        Ok(UnitPage { units: (0..).zip(states).map(unit).collect(), next: None })
    }

    pub fn read(&self, r: &ReadOutput) -> Result<OutputPart, Error> {
        if r.stream == OutputStream::Stderr {
            return Err(Error::not_found(format!("no standard error: {}", self.text)));
        }
        let all = self.output.lock().unwrap();
        let from = usize::try_from(r.offset).unwrap().min(all.len());
        let to = (from + r.limit.unwrap_or(OUTPUT_PART_MAX) as usize).min(all.len());
        Ok(OutputPart::new(STANDARD.encode(&all[from..to]), to == all.len()))
    }

    pub fn watch(
        &self,
        caller: &Caller,
        r: &WatchJob,
    ) -> Result<BoxStream<'static, Result<JobEvent, Error>>, Error> {
        caller.member()?;
        let event = |seq, state: JobState, counts| JobEvent {
            job: r.job.clone(),
            seq,
            state,
            counts,
            why: None,
            end: None,
        };
        let running = Counts { running: 1, ..Counts::default() };
        let done = Counts { done: 1, ..Counts::default() };
        let at = Millis(1_795_000_000_000);
        let items = vec![
            Ok(event(5, JobState::Running { since: at }, running)),
            Ok(event(6, JobState::Done { at }, done)),
        ];
        // Job 3 never changes and never ends.
        Ok(if r.job.number == 3 { stream::pending().boxed() } else { stream::iter(items).boxed() })
    }
}
