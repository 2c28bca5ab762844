//! The end of a job that somebody waited for.

use super::ending;
use super::output::{decode, print_stream};
use crate::cli::member::Member;
use crate::cli::output::{Failure, Outcome, clean};
use crate::cli::session::Session;
use xos_api::aem::{Counts, InlineOutput, JobEnd, JobEvent, JobSpec, OutputStream, UnitEnd};
use xos_base::{Error, JobId, UnitId};

/// Prints what a job wrote and what became of it; its status is the exit status.
pub async fn finish(
    s: &Session,
    mut member: Member,
    job: &JobId,
    event: JobEvent,
    show: Show,
) -> Outcome {
    let end =
        event.end.clone().unwrap_or(JobEnd { exit_status: 0, unit: None, how: None, output: None });
    if s.out.json {
        s.out.value(&event)?;
        return Ok(end.exit_status);
    }
    match &end.output {
        Some(inline) if show.stdout || show.stderr => print_inline(s, inline)?,
        None if end.how.as_ref().is_none_or(has_run)
            && event.counts.done + event.counts.failed > 0 =>
        {
            fetch_output(s, &mut member, &job.unit(0), show).await?;
        }
        _ => {}
    }
    if let Some(kept) = show.note.filter(|_| event.counts.done > 0) {
        s.out.note(&elsewhere(job, &event.counts, kept))?;
    }
    report(s, job, &event, &end)?;
    Ok(end.exit_status)
}

/// Which streams are printed at the end: those of a single unit that no file takes.
#[derive(Clone, Copy)]
pub struct Show {
    stdout: bool,
    stderr: bool,
    /// Several units: that they are done is said instead, and with `true` where their output is.
    note: Option<bool>,
}

impl Show {
    /// What is printed of a job.
    pub fn of(spec: &JobSpec, no_output: bool) -> Show {
        match spec.tasks.as_slice() {
            _ if no_output => Show { stdout: false, stderr: false, note: None },
            [task] if task.array.len() == 1 => {
                Show { stdout: task.stdout.is_none(), stderr: task.stderr.is_none(), note: None }
            }
            tasks => {
                let kept = tasks.iter().any(|t| t.stdout.is_none());
                Show { stdout: false, stderr: false, note: Some(kept) }
            }
        }
    }
}

/// What is said in place of the output of several units.
fn elsewhere(job: &JobId, counts: &Counts, kept: bool) -> String {
    let (done, all) = (counts.done, counts.total());
    let units = match (done, all) {
        (1, 1) => "1 unit".to_owned(),
        _ if done == all => format!("{all} units"),
        _ => format!("{done} of {all} units"),
    };
    let output = if kept { format!("; output: xout {job}") } else { String::new() };
    format!("{job}: {units} done{output}")
}

/// Whether a unit that ended so can have written something.
fn has_run(how: &UnitEnd) -> bool {
    !matches!(how, UnitEnd::NotStarted { .. } | UnitEnd::Lost { .. })
}

/// Prints output that was too long to come with the end. The job's status counts, even when its
/// output cannot be had.
async fn fetch_output(
    s: &Session,
    member: &mut Member,
    unit: &UnitId,
    show: Show,
) -> Result<(), Failure> {
    let streams = [(show.stdout, OutputStream::Stdout), (show.stderr, OutputStream::Stderr)];
    for (_, stream) in streams.into_iter().filter(|(show, _)| *show) {
        match print_stream(s, member, unit, stream).await {
            Err(Failure::Error(e)) => s.out.warn(&e)?,
            other => other?,
        }
    }
    Ok(())
}

fn print_inline(s: &Session, inline: &InlineOutput) -> Result<(), Failure> {
    s.out.bytes(&decode(&inline.stdout)?)?;
    s.out.error_bytes(&decode(&inline.stderr)?)
}

/// Says aside what became of a job that did not end well.
pub fn report(s: &Session, job: &JobId, event: &JobEvent, end: &JobEnd) -> Result<(), Failure> {
    if end.exit_status == 0 {
        return Ok(());
    }
    let what = match (&end.unit, &end.how) {
        (Some(unit), Some(how)) => format!("{unit} {}", ending(how)),
        _ => format!("{job} was not carried out: it is {}", event.state.word()),
    };
    let others = event.counts.total() - event.counts.done;
    let more =
        if others > 1 { format!(" ({others} units did not end well)") } else { String::new() };
    let mut error = Error::invalid(format!("{what}{more}"));
    error = match &event.why {
        Some(why) if end.how.is_none() => error.hint(clean(&why.text)),
        _ => error.hint(format!("more: xos job why {job}")),
    };
    s.out.fail(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, an array would end without a word, or with a command that shows something
    /// else.
    #[test]
    fn several_units_say_where_their_output_is() {
        let job: JobId = "5.rennes".parse().unwrap();
        let counts = |done, failed| Counts { done, failed, ..Counts::default() };
        let of = |done, failed| elsewhere(&job, &counts(done, failed), true);
        assert_eq!(of(8, 0), "5.rennes: 8 units done; output: xout 5.rennes");
        assert_eq!(of(5, 3), "5.rennes: 5 of 8 units done; output: xout 5.rennes");
        assert_eq!(of(1, 0), "5.rennes: 1 unit done; output: xout 5.rennes");
        assert_eq!(elsewhere(&job, &counts(8, 0), false), "5.rennes: 8 units done");
    }
}
