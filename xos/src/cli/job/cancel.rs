//! `xos job cancel`, `xkill`.

use crate::cli::output::Outcome;
use crate::cli::session::Session;
use serde::Serialize;
use std::str::FromStr;
use xos_api::aem::{Array, CancelJob, CancelUnits, Cancelled};
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
struct Target {
    job: JobId,
    units: Option<Array>,
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
            Ok(c) => {
                if !s.out.json {
                    s.out.text(&said(&job, c))?;
                }
                lines.push(Line { job, cancelled: Some(c.units), error: None });
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

fn said(job: &JobId, c: Cancelled) -> String {
    match c.units {
        0 => format!("{job}: nothing was left to cancel"),
        1 => format!("{job}: 1 unit is being ended"),
        n => format!("{job}: {n} units are being ended"),
    }
}

async fn one(s: &Session, target: Target) -> Result<Cancelled, Error> {
    let mut member = s.member_for(&target.job).await?;
    match target.units {
        Some(units) => member.call(s, CancelUnits { job: target.job, units }).await,
        None => member.call(s, CancelJob { job: target.job }).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
