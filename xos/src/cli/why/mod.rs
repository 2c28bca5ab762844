//! `xos why`: why somebody cannot sign in, a job waits or was refused, a file is denied.
//!
//! Exit codes: 0 when nothing stands in the way, 1 when a step failed; those of every command when
//! the question itself cannot be asked.

mod computer;
mod file;
mod login;

use super::job;
use super::output::{Failure, Outcome, Style, Table, clean};
use super::session::Session;
use serde::Serialize;
use xos_api::vom::{WhyOutcome, WhyPlace, WhyStep};
use xos_base::{Error, Kind};

/// `xos why …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Say why you, or a member whom you look after, can sign in to a node or cannot.
    Login(login::Login),
    /// Say why a job waits, was refused or failed (as `xos job why`).
    #[command(after_help = "Examples:\n  xos why job 12.rennes\n  xos why job 12.rennes:7")]
    Job(job::why::Why),
    /// Say why you may use a file on a VO's volume or may not.
    File(file::FileArgs),
}

/// Runs a command of this group.
///
/// # Errors
/// Why nothing could be asked.
pub async fn run(s: &Session, command: Command) -> Outcome {
    match command {
        Command::Login(args) => login::run(s, args).await,
        Command::Job(args) => match job::why::run(s, args).await {
            Err(Failure::Error(e)) if not_in_force(&e) => tell(s, &nobody(s, &e).await?),
            told => told,
        },
        Command::File(args) => file::run(s, &args),
    }
}

/// Whether it is the asker, and not the job, that a core refuses.
fn not_in_force(e: &Error) -> bool {
    matches!(e.kind, Kind::Denied | Kind::Unauthenticated)
}

/// Why a core takes somebody for no member: what is on this computer, then what it said.
async fn nobody(s: &Session, e: &Error) -> Result<Vec<WhyStep>, Error> {
    let mut steps = match s.ssh_vo().await {
        Ok(vo) => computer::steps(s, &vo)?,
        Err(_) => Vec::new(),
    };
    steps.push(step_of(WhyPlace::Home, "membership", e));
    Ok(steps)
}

/// The exit code when a step failed.
const FAILED_CODE: u8 = 1;

/// What is printed as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    /// No step failed.
    ok: bool,
    /// Which step failed first, counted from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failed: Option<usize>,
    steps: &'a [WhyStep],
}

fn first_failed(steps: &[WhyStep]) -> Option<usize> {
    steps.iter().position(|step| step.outcome == WhyOutcome::Failed)
}

/// Prints a chain of steps; the exit code.
fn tell(s: &Session, steps: &[WhyStep]) -> Outcome {
    let first_failed = first_failed(steps);
    let answer = Answer { ok: first_failed.is_none(), first_failed, steps };
    s.out.show(&answer, || text(steps))?;
    Ok(if answer.ok { 0 } else { FAILED_CODE })
}

fn text(steps: &[WhyStep]) -> String {
    let mut table = Table::new(&["", "WHERE", "WHAT", "HOW IT IS"]);
    for step in steps {
        let mark = match step.outcome {
            WhyOutcome::Ok => Style::Good.mark(step.outcome.word()),
            WhyOutcome::Failed => Style::Bad.mark(step.outcome.word()),
            WhyOutcome::Unknown => Style::Busy.mark(step.outcome.word()),
        };
        table.row([mark, step.at.word().to_owned(), clean(&step.what), clean(&step.text)]);
    }
    format!("{}\n\n{}", table.text(""), reason(steps))
}

/// What stands in the way first, and what to do.
fn reason(steps: &[WhyStep]) -> String {
    let unknown = steps.iter().filter(|step| step.outcome == WhyOutcome::Unknown).count();
    let Some(step) = first_failed(steps).and_then(|at| steps.get(at)) else {
        return match unknown {
            0 => "Nothing stands in the way.".to_owned(),
            n => format!("Nothing that could be found out stands in the way; not known: {n}."),
        };
    };
    let first = format!("{}: {}", Style::Bad.mark("The reason"), clean(&step.text));
    match &step.hint {
        Some(hint) => format!("{first}\nWhat to do: {}", clean(hint)),
        None => first,
    }
}

/// A step that an error tells of: one that says no fails, and of others nothing is known.
fn step_of(at: WhyPlace, what: &str, e: &Error) -> WhyStep {
    let step = match e.kind {
        Kind::Unavailable | Kind::Internal | Kind::Limited => {
            WhyStep::unknown(at, what, &e.message)
        }
        _ => WhyStep::failed(at, what, &e.message),
    };
    match &e.hint {
        Some(hint) => step.hint(hint),
        None => step,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, the reason would be lost among what follows from it, or an unreachable site
    /// would pass for a refusal.
    #[test]
    fn the_first_step_that_failed_is_the_reason() {
        let mut steps = vec![WhyStep::ok(WhyPlace::Home, "VO", "demo.rennes is active")];
        assert_eq!(reason(&steps), "Nothing stands in the way.");
        let away = Error::unavailable("pisa does not answer");
        steps.push(step_of(WhyPlace::Site, "answer", &away));
        assert_eq!((first_failed(&steps), steps[1].outcome), (None, WhyOutcome::Unknown));
        assert!(reason(&steps).contains("not known: 1"));
        let no = Error::denied("you are suspended").hint("ask vera@rennes");
        steps.push(step_of(WhyPlace::Home, "membership", &no));
        steps.push(WhyStep::failed(WhyPlace::Node, "admission", "held"));
        assert_eq!(first_failed(&steps), Some(2));
        let told = reason(&steps);
        assert!(told.contains("you are suspended\nWhat to do: ask vera@rennes"), "{told}");
        let table = text(&steps);
        assert!(table.contains("home of the VO") && table.contains("not known"), "{table}");
    }
}
