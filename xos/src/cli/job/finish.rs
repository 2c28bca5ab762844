//! The end of a job that somebody waited for.

use super::output::{decode, print_stream};
use super::{because, ending};
use crate::cli::member::Member;
use crate::cli::output::{Failure, Outcome};
use crate::cli::session::Session;
use xos_api::aem::{Counts, InlineOutput, JobEnd, JobEvent, JobSpec, OutputStream, UnitEnd};
use xos_base::{Error, JobId, UnitId};

/// Most sites of which the reason is told at the end; `xos job why` tells all.
const SITES_SHOWN: usize = 8;

/// Prints what a job wrote and what became of it; its status is the exit status.
pub async fn finish(
    s: &Session,
    mut member: Member,
    job: &JobId,
    event: JobEvent,
    show: Show,
) -> Outcome {
    let end = event.end.clone().unwrap_or(JobEnd {
        exit_status: 0,
        unit: None,
        how: None,
        output: None,
        reasons: Vec::new(),
    });
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
    s.out.fail(&trouble(job, event, end))
}

/// What became of a job that did not end well, and why.
fn trouble(job: &JobId, event: &JobEvent, end: &JobEnd) -> Error {
    let what = match (&end.unit, &end.how, &event.why) {
        (Some(unit), Some(how), _) => format!("{unit} {}", ending(how)),
        (.., Some(why)) => format!("{job} is {}: {}", event.state.word(), because(why)),
        (.., None) => format!("{job} is {}", event.state.word()),
    };
    let others = event.counts.total() - event.counts.done;
    let more =
        if others > 1 { format!(" ({others} units did not end well)") } else { String::new() };
    let mut hint: Vec<String> = end.reasons.iter().take(SITES_SHOWN).map(because).collect();
    if end.reasons.len() > SITES_SHOWN {
        hint.push(format!("and so on at {} more sites", end.reasons.len() - SITES_SHOWN));
    }
    hint.push(format!("more: xos job why {job}"));
    Error::invalid(format!("{what}{more}")).hint(hint.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::aem::{JobState, Reason};
    use xos_base::Millis;

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

    fn reason(site: Option<&str>, text: &str) -> Reason {
        Reason {
            at: Millis(0),
            site: site.map(|s| s.parse().unwrap()),
            rule: "memory".into(),
            text: text.into(),
            task: None,
        }
    }

    /// If it failed, who waits for a job that can never run would not be told why.
    #[test]
    fn the_end_names_each_sites_reason() {
        let job: JobId = "5.rennes".parse().unwrap();
        let refused = |sites: usize| JobEnd {
            exit_status: 69,
            unit: Some(job.unit(0)),
            how: Some(UnitEnd::NotStarted { reason: "no site can run it".into() }),
            output: None,
            reasons: (0..sites).map(|n| reason(Some(&format!("s{n}")), "too small")).collect(),
        };
        let event = JobEvent {
            job: job.clone(),
            seq: 3,
            state: JobState::Failed { at: Millis(1) },
            counts: Counts { refused: 1, ..Counts::default() },
            why: None,
            end: None,
        };
        assert_eq!(
            trouble(&job, &event, &refused(2)).to_string(),
            "5.rennes:0 could not be started: no site can run it; \
             s0: too small; s1: too small; more: xos job why 5.rennes"
        );
        let many = trouble(&job, &event, &refused(64)).to_string();
        assert!(many.contains("s7: too small; and so on at 56 more sites; more:"), "{many}");
    }

    /// If it failed, a job that ends with another one would seem to have been cancelled by nobody.
    #[test]
    fn a_job_that_ends_with_another_says_so() {
        let job: JobId = "12.rennes".parse().unwrap();
        let text = "job 11.rennes, which this one waited for, was cancelled";
        let event = JobEvent {
            job: job.clone(),
            seq: 3,
            state: JobState::Cancelled { at: Millis(1) },
            counts: Counts { cancelled: 1, ..Counts::default() },
            why: Some(reason(None, text)),
            end: None,
        };
        let (unit, how, output) = (None, Some(UnitEnd::Cancelled), None);
        let end = JobEnd { exit_status: 130, unit, how, output, reasons: vec![] };
        let told = trouble(&job, &event, &end).to_string();
        assert_eq!(told, format!("12.rennes is cancelled: {text}; more: xos job why 12.rennes"));
    }
}
