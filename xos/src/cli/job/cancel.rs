//! `xos job cancel`, `xkill`.

use super::because;
use crate::cli::member::Member;
use crate::cli::output::Outcome;
use crate::cli::session::Session;
use serde::Serialize;
use std::str::FromStr;
use xos_api::aem::{Array, CancelJob, CancelUnits, GetJob, JobState, Reason, WhyJob};
use xos_base::{Error, JobId};

/// `xos job cancel`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos job cancel 12.rennes
  xos job cancel 12.rennes:7 13.rennes:0-3")]
pub struct Cancel {
    /// Jobs as 12.rennes, or units of them as 12.rennes:7 or 12.rennes:0-3.
    #[arg(required = true)]
    jobs: Vec<Target>,
}

/// A job, or some of its units.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) job: JobId,
    pub(super) units: Option<Array>,
}

impl FromStr for Target {
    type Err = String;
    fn from_str(text: &str) -> Result<Target, String> {
        let (job, units) = match text.split_once(':') {
            Some((job, units)) => (job, Some(units.parse().map_err(|e| format!("{e}"))?)),
            None => (text, None),
        };
        Ok(Target { job: job.parse().map_err(|e| format!("{e}"))?, units })
    }
}

#[derive(Serialize)]
struct Line {
    job: JobId,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
}

/// Runs `xos job cancel`: every job is tried; the exit code is that of the first that failed.
pub async fn run(s: &Session, args: Cancel) -> Outcome {
    let mut failed: Option<Error> = None;
    let mut lines = Vec::new();
    for target in args.jobs {
        let job = target.job.clone();
        match one(s, target).await {
            Ok((units, said)) => {
                if !s.out.json {
                    s.out.text(&said)?;
                }
                lines.push(Line { job, cancelled: Some(units), error: None });
            }
            Err(e) => {
                if !s.out.json {
                    s.out.fail(&e)?;
                }
                failed.get_or_insert(e.clone());
                lines.push(Line { job, cancelled: None, error: Some(e) });
            }
        }
    }
    if s.out.json {
        s.out.value(&lines)?;
    }
    Ok(failed.map_or(0, |e| e.kind.exit_code()))
}

/// Cancels, and says how many units of the job, or that there were none and why.
async fn one(s: &Session, target: Target) -> Result<(u32, String), Error> {
    let Target { job, units } = target;
    let mut member = s.member_for(&job).await?;
    let done = match units {
        Some(units) => member.call(s, CancelUnits { job: job.clone(), units }).await?,
        None => member.call(s, CancelJob { job: job.clone() }).await?,
    };
    let said = match done.units {
        0 => {
            let (state, why) = stands(s, &mut member, &job).await?;
            format!("{job}: nothing was left to cancel: {}", over(&state, why.as_ref()))
        }
        1 => format!("{job}: 1 unit is being ended"),
        n => format!("{job}: {n} units are being ended"),
    };
    Ok((done.units, said))
}

/// Where a job stands, and the latest reason for it.
async fn stands(
    s: &Session,
    member: &mut Member,
    job: &JobId,
) -> Result<(JobState, Option<Reason>), Error> {
    let state = member.call(s, GetJob { job: job.clone() }).await?.summary.state;
    let reasons = member.call(s, WhyJob { job: job.clone() }).await?.reasons;
    Ok((state, reasons.into_iter().next()))
}

/// Why nothing is left to cancel of a job, or of the units that were named.
fn over(state: &JobState, why: Option<&Reason>) -> String {
    match (state, why) {
        (JobState::Queued | JobState::Running { .. }, _) => "it has ended already".to_owned(),
        (JobState::Cancelled { .. }, Some(why)) => format!("it is cancelled: {}", because(why)),
        (state, _) => format!("it is {}", state.word()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_base::Millis;

    #[test]
    fn targets_are_jobs_or_units() {
        // A misread range would end other people's patience: units that should go on.
        let t: Target = "12.rennes:0-3,7".parse().unwrap();
        assert_eq!((t.job.number, t.units.unwrap().len()), (12, 5));
        assert!("12.rennes".parse::<Target>().unwrap().units.is_none());
        for bad in ["12", "12.rennes:", "12.rennes:a", ":3"] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?} was taken");
        }
    }

    /// If it failed, who cancels a job and one that waits for it would not learn that the second
    /// went with the first.
    #[test]
    fn what_is_over_says_why() {
        let at = Millis(1);
        let text = "job 11.rennes, which this one waited for, was cancelled".to_owned();
        let (site, rule, task) = (None, "after".to_owned(), None);
        let why = Reason { at, site, rule, text, task };
        assert_eq!(
            over(&JobState::Cancelled { at }, Some(&why)),
            "it is cancelled: job 11.rennes, which this one waited for, was cancelled"
        );
        assert_eq!(over(&JobState::Done { at }, Some(&why)), "it is done");
        assert_eq!(over(&JobState::Queued, None), "it has ended already");
    }
}
