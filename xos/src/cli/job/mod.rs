//! `xos job`: submit, look, wait, cancel, read output.

mod cancel;
mod checkpoint;
mod file;
mod finish;
mod list;
mod moves;
mod output;
mod send;
mod show;
mod submit;
mod wait;
mod watch;
pub mod why;

pub use watch::INTERRUPTED;

use super::output::{Outcome, Style, clean};
use super::session::Session;
use std::str::FromStr;
use xos_api::aem::{JobState, Reason, UnitEnd, UnitView};
use xos_base::{Error, JobId, UnitId};

/// `xos job …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run a program at a site of your VO (also: xsub).
    Submit(Box<submit::Submit>),
    /// Show your jobs, newest first (also: xps).
    List(list::List),
    /// Show one job with its tasks and units.
    Show(show::Show),
    /// Wait until jobs have ended; exits with their status (also: xwait).
    Wait(wait::Wait),
    /// Cancel jobs, or some of their units (also: xkill).
    Cancel(cancel::Cancel),
    /// Have units that run in clusters checkpointed now.
    Checkpoint(checkpoint::Checkpoint),
    /// Move a unit that runs in a cluster to another site's cluster.
    Move(moves::Move),
    /// Print what a job wrote (also: xout).
    Output(output::OutputArgs),
    /// Say why a job waits, was refused or failed.
    Why(why::Why),
}

/// Runs a command of this group.
///
/// # Errors
/// What the core says.
pub async fn run(s: &Session, command: Command) -> Outcome {
    match command {
        Command::Submit(args) => submit::run(s, *args).await,
        Command::List(args) => list::run(s, &args).await,
        Command::Show(args) => show::run(s, args).await,
        Command::Wait(args) => wait::run(s, args).await,
        Command::Cancel(args) => cancel::run(s, args).await,
        Command::Checkpoint(args) => checkpoint::run(s, args).await,
        Command::Move(args) => moves::run(s, args).await,
        Command::Output(args) => output::run(s, args).await,
        Command::Why(args) => why::run(s, args).await,
    }
}

/// A job or one of its units on the command line: `12.rennes` or `12.rennes:7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobArg {
    job: JobId,
    unit: Option<UnitId>,
}

impl FromStr for JobArg {
    type Err = String;
    fn from_str(text: &str) -> Result<JobArg, String> {
        if text.contains(':') {
            let unit: UnitId = text.parse().map_err(|e| format!("{e}"))?;
            return Ok(JobArg { job: unit.job.clone(), unit: Some(unit) });
        }
        Ok(JobArg { job: text.parse().map_err(|e| format!("{e}"))?, unit: None })
    }
}

/// Whether a page of units that was to begin with `unit` does.
fn must_be(unit: &UnitId, page: &[UnitView]) -> Result<(), Error> {
    if page.first().is_some_and(|u| u.unit == *unit) {
        return Ok(());
    }
    Err(Error::not_found(format!("job {} has no unit {}", unit.job, unit.index.0))
        .hint(format!("`xos job show {}` tells how many it has", unit.job)))
}

/// A job's state, coloured.
fn state(state: &JobState) -> String {
    match state {
        JobState::Queued => state.word().to_owned(),
        JobState::Running { .. } => Style::Busy.mark(state.word()),
        JobState::Done { .. } => Style::Good.mark(state.word()),
        JobState::Failed { .. } | JobState::Cancelled { .. } => Style::Bad.mark(state.word()),
    }
}

/// A reason in one line: which site gives it, and what it says.
fn because(reason: &Reason) -> String {
    let text = clean(&reason.text);
    reason.site.as_ref().map_or_else(|| text.clone(), |site| format!("{site}: {text}"))
}

/// How a unit ended, as a sentence goes on: "… failed with exit status 3".
fn ending(end: &UnitEnd) -> String {
    match end {
        UnitEnd::Exit { code: 0 } => "ended well".to_owned(),
        UnitEnd::Exit { code } => format!("failed with exit status {code}"),
        UnitEnd::Signal { signal } => format!("was ended by signal {}", signal_name(*signal)),
        UnitEnd::OutOfMemory => {
            "used more memory than it asked for (ask for more with --memory)".to_owned()
        }
        UnitEnd::ProcessLimit { status } => format!(
            "reached its limit of processes and failed with exit status {status} (start fewer at a \
             time, or ask for more with limits.processes in a job file)"
        ),
        UnitEnd::WallTime => "ran longer than its time (ask for more with --time)".to_owned(),
        UnitEnd::NotStarted { reason } => format!("could not be started: {}", clean(reason)),
        UnitEnd::StageOut { reason } => {
            format!("ended well, but a file could not be put on the volume: {}", clean(reason))
        }
        UnitEnd::Cancelled => "was cancelled".to_owned(),
        UnitEnd::Lost { reason } => format!("is lost: {}", clean(reason)),
    }
}

fn signal_name(signal: u8) -> String {
    nix::sys::signal::Signal::try_from(i32::from(signal))
        .map_or_else(|_| signal.to_string(), |s| format!("{signal} ({})", s.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_units_are_told_apart() {
        let arg: JobArg = "12.rennes:7".parse().unwrap();
        assert_eq!(arg.unit.unwrap().to_string(), "12.rennes:7");
        assert_eq!("12.rennes".parse::<JobArg>().unwrap().unit, None);
        for bad in ["", "12", "rennes", "12.rennes:", "12.rennes:x", "12.rennes\n"] {
            assert!(bad.parse::<JobArg>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn endings_read_as_sentences() {
        assert_eq!(ending(&UnitEnd::Signal { signal: 9 }), "was ended by signal 9 (SIGKILL)");
        assert_eq!(ending(&UnitEnd::Exit { code: 3 }), "failed with exit status 3");
        let full = ending(&UnitEnd::ProcessLimit { status: 2 });
        let begin = "reached its limit of processes and failed with exit status 2 (start fewer";
        assert!(full.starts_with(begin), "{full}");
    }
}
