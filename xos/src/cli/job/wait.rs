//! `xos job wait`, `xwait`.

use super::finish::report;
use super::state;
use super::watch::{Bar, Ended, INTERRUPTED, follow};
use crate::cli::output::{Failure, Outcome};
use crate::cli::session::Session;
use futures_util::{StreamExt, TryStreamExt};
use xos_api::aem::JobEvent;
use xos_base::{Error, JobId};

/// Most jobs that are watched at the same time; the others follow.
const AT_ONCE: usize = 16;

/// `xos job wait`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos job wait 12.rennes
  xos job wait 12.rennes 13.rennes && echo both went well

Exits with the job's status: 0, or that of its first unit, in order, that did not end well. Of \
several jobs, with that of the first named that did not end well.")]
pub struct Wait {
    /// The jobs, as xsub printed them.
    #[arg(required = true)]
    jobs: Vec<JobId>,
}

/// Runs `xos job wait`.
pub async fn run(s: &Session, args: Wait) -> Outcome {
    let bar = Bar::new(s.out);
    let all = futures_util::stream::iter(&args.jobs)
        .map(|job| one(s, job, &bar))
        .buffered(AT_ONCE)
        .try_collect::<Vec<Ended>>();
    let ended = tokio::select! {
        ended = all => ended,
        stop = tokio::signal::ctrl_c() => {
            stop.map_err(|e| Error::internal(format!("cannot listen for Ctrl-C: {e}")))?;
            bar.hide();
            s.out.note("The jobs go on.")?;
            return Ok(INTERRUPTED);
        }
    };
    bar.hide();
    let ended = ended?;
    if s.out.json {
        let events: Vec<&JobEvent> = ended.iter().map(|e| &e.end).collect();
        s.out.value(&events)?;
    }
    let mut status = 0;
    for e in &ended {
        let Some(end) = &e.end.end else { continue };
        if !s.out.json {
            match end.exit_status {
                0 => s.out.text(&format!("{}: {}", e.job, state(&e.end.state)))?,
                _ => report(s, &e.job, &e.end, end)?,
            }
        }
        if status == 0 {
            status = end.exit_status;
        }
    }
    Ok(status)
}

async fn one(s: &Session, job: &JobId, bar: &Bar) -> Result<Ended, Failure> {
    let member = s.member_for(job).await?;
    follow(s, member, Some(job.clone()), None, bar).await
}
