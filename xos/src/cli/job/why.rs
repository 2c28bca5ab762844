//! `xos job why`.

use super::output::beginning;
use super::{JobArg, ending, must_be};
use crate::cli::member::Member;
use crate::cli::output::{Outcome, Table, clean, when};
use crate::cli::session::Session;
use serde::Serialize;
use xos_api::aem::{
    Counts, GetJob, JobSpec, JobView, ListUnits, OutputStream, Reason, Reasons, Try, UnitEnd,
    UnitFilter, UnitState, UnitView, WhyJob,
};
use xos_base::UnitId;

/// Most units that failed of which the ending is told.
const FAILED_SHOWN: u32 = 10;
/// How much of a unit's standard error is searched for what its staging said, in bytes.
const STAGING_READ: usize = 1024 * 1024;
/// The exit status of a unit whose files could not be staged.
const STAGING_STATUS: u8 = 74;

/// `xos job why`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  xos job why 12.rennes\n  xos job why 12.rennes:7")]
pub struct Why {
    /// The job, or one of its units as 12.rennes:7.
    job: JobArg,
}

#[derive(Serialize)]
struct Answer {
    reasons: Vec<Reason>,
    units: Vec<UnitView>,
    counts: Counts,
    /// Earlier runs of units that were tried again.
    tries: Vec<Try>,
    /// Which files of units could not be staged, and why.
    staging: Vec<Staging>,
}

#[derive(Serialize)]
struct Staging {
    unit: UnitId,
    text: String,
}

/// Runs `xos job why`.
pub async fn run(s: &Session, args: Why) -> Outcome {
    let JobArg { job, unit } = args.job;
    let mut member = s.member_for(&job).await?;
    let Reasons { mut reasons, mut tries } = member.call(s, WhyJob { job: job.clone() }).await?;
    let (filter, from, limit) = match &unit {
        Some(unit) => (UnitFilter::All, Some(unit.index.0), 1),
        None => (UnitFilter::Failed, None, FAILED_SHOWN),
    };
    let ask = ListUnits { job: job.clone(), filter, from, limit: Some(limit) };
    let units = member.call(s, ask).await?.units;
    if let Some(unit) = &unit {
        must_be(unit, &units)?;
        tries.retain(|t| t.unit == *unit);
        let task = units.first().map(|u| u.task.clone());
        reasons.retain(|r| r.task.is_none() || r.task == task);
        for u in &units {
            if let UnitState::Refused { reasons: own, .. } = &u.state {
                reasons.extend(
                    own.iter().filter(|r| !reasons.contains(r)).cloned().collect::<Vec<_>>(),
                );
            }
        }
    }
    let view = member.call(s, GetJob { job: job.clone() }).await?;
    let mut staging = Vec::new();
    for u in units.iter().filter(|u| may_be_staging(&view.spec, u)) {
        staging.push(staged(s, &mut member, u).await);
    }
    let staging: Vec<Staging> = staging.into_iter().flatten().collect();
    let answer = Answer { reasons, units, counts: view.summary.counts, tries, staging };
    s.out.show(&answer, || {
        let mut text = String::new();
        for u in &answer.units {
            if let Some(line) = told(u) {
                text.push_str(&format!("{} {line}\n", u.unit));
            }
            for failed in answer.staging.iter().filter(|f| f.unit == u.unit) {
                text.push_str(&format!("    {}\n", clean(&failed.text)));
            }
        }
        for t in &answer.tries {
            text.push_str(&format!("{}\n", before(t, &when(t.at, s.now()))));
        }
        let mut table = Table::new(&["WHEN", "SITE", "TASK", "RULE", "REASON"]);
        for r in &answer.reasons {
            table.row([
                when(r.at, s.now()),
                r.site.as_ref().map(ToString::to_string).unwrap_or_default(),
                clean(r.task.as_deref().unwrap_or_default()),
                clean(&r.rule),
                clean(&r.text),
            ]);
        }
        let none = if text.is_empty() { standing(&view) } else { String::new() };
        format!("{text}{}", table.text(&none))
    })?;
    Ok(0)
}

/// Where a job stands that nobody has refused.
fn standing(view: &JobView) -> String {
    let c = view.summary.counts;
    let jobs: Vec<String> = view.spec.after_jobs.iter().map(ToString::to_string).collect();
    let others = match jobs.as_slice() {
        [] => "for other tasks".to_owned(),
        jobs => format!("until {} has ended well, or for other tasks", jobs.join(", ")),
    };
    let parts = [
        (c.running, "running".to_owned()),
        (c.placed, "waiting for a free node".to_owned()),
        (c.queued, "waiting for a site that takes them".to_owned()),
        (c.waiting, format!("waiting {others}")),
        (c.done, "done".to_owned()),
        (c.cancelled, "cancelled".to_owned()),
    ];
    let told: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let begin = if c.open() == 0 { "It has ended" } else { "No site has refused it" };
    format!("{begin}. Of {} units: {}.", c.total(), told.join(", "))
}

/// Whether a unit failed as one does whose files could not be staged.
fn may_be_staging(spec: &JobSpec, u: &UnitView) -> bool {
    let ended =
        matches!(&u.state, UnitState::Failed { end: UnitEnd::Exit { code: STAGING_STATUS }, .. });
    let task = spec.tasks.iter().find(|t| t.name == u.task);
    ended && task.is_some_and(|t| !t.stage_in.is_empty() || !t.stage_out.is_empty())
}

/// Which file of a unit could not be staged, and why: its standard error says so. `None`: that is
/// there, and speaks of no staging.
async fn staged(s: &Session, member: &mut Member, u: &UnitView) -> Option<Staging> {
    let stderr = beginning(s, member, &u.unit, OutputStream::Stderr, STAGING_READ).await;
    let text = match stderr {
        Ok(bytes) => match staging_line(&String::from_utf8_lossy(&bytes)) {
            None if bytes.len() >= STAGING_READ => {
                let more = format!("xout --stderr {}", u.unit);
                format!(
                    "its standard error is longer than what is searched; the end of `{more}` may say why"
                )
            }
            line => line?,
        },
        Err(e) => format!("its standard error, which says more, cannot be read now: {e}"),
    };
    Some(Staging { unit: u.unit.clone(), text })
}

/// The last line by which the node says that it could not stage a file.
fn staging_line(stderr: &str) -> Option<String> {
    let said = |line: &str| {
        let text = line.strip_prefix("xos: ")?;
        text.starts_with("staging ").then(|| text.to_owned())
    };
    stderr.lines().rev().find_map(said)
}

/// An earlier run, in a line; `when` is when it ended.
fn before(t: &Try, when: &str) -> String {
    let at = t.node.as_ref().map_or_else(|| t.site.to_string(), ToString::to_string);
    format!("{} before, try {}: {} (on {at}, {when})", t.unit, t.attempt + 1, ending(&t.end))
}

fn told(u: &UnitView) -> Option<String> {
    match &u.state {
        UnitState::Failed { end, node, .. } => {
            let at = node.as_ref().map(|n| format!(" (on {n})")).unwrap_or_default();
            Some(format!("{}{at}", ending(end)))
        }
        UnitState::Lost { reason, .. } => Some(format!("is lost: {}", clean(reason))),
        UnitState::Refused { .. } => Some("was refused by every site".to_owned()),
        UnitState::Waiting => Some("waits for other tasks or jobs".to_owned()),
        UnitState::Queued => Some("waits for a site that takes it".to_owned()),
        UnitState::Placed { site } => Some(format!("waits for a free node of {site}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::aem::{Stage, TaskSpec, Usage};
    use xos_base::Millis;

    /// If it failed, who asks why would be shown one exit status of several runs.
    #[test]
    fn an_earlier_try_is_told_in_a_line() {
        let t = Try {
            unit: "12.rennes:7".parse().unwrap(),
            attempt: 0,
            at: Millis(1),
            site: "pisa".parse().unwrap(),
            node: Some("n1.pisa".parse().unwrap()),
            end: UnitEnd::Exit { code: 3 },
        };
        let text = "12.rennes:7 before, try 1: failed with exit status 3 (on n1.pisa, 2 h ago)";
        assert_eq!(before(&t, "2 h ago"), text);
        let lost = Try { node: None, end: UnitEnd::Lost { reason: "it fell".into() }, ..t };
        let text = "12.rennes:7 before, try 1: is lost: it fell (on pisa, 2 h ago)";
        assert_eq!(before(&lost, "2 h ago"), text);
    }

    /// If it failed, a missing input file would show as a number alone, or a program's own 74 as a
    /// file that is missing.
    #[test]
    fn what_could_not_be_staged_is_found() {
        let line = "staging in: cannot copy /xtreemfs/demo.rennes/a to /home/a: No such file";
        let stderr = format!("warning\nxos: {line}\n");
        assert_eq!(staging_line(&stderr).as_deref(), Some(line));
        assert_eq!(staging_line("xos: cannot start x\nstaging in: no\n"), None);
        let unit = |code| UnitView {
            unit: "12.rennes:0".parse().unwrap(),
            task: "main".into(),
            index: 0,
            state: UnitState::Failed {
                site: "pisa".parse().unwrap(),
                node: None,
                at: Millis(1),
                end: UnitEnd::Exit { code },
                usage: Usage::default(),
            },
            retries: 0,
        };
        let spec = |stage_in: Vec<Stage>| JobSpec {
            vo: "demo.rennes".parse().unwrap(),
            name: "x".into(),
            tasks: vec![TaskSpec { name: "main".into(), stage_in, ..TaskSpec::default() }],
            after_jobs: vec![],
            sites: vec![],
        };
        assert!(may_be_staging(&spec(vec![Stage::default()]), &unit(74)));
        assert!(!may_be_staging(&spec(vec![Stage::default()]), &unit(1)));
        assert!(!may_be_staging(&spec(vec![]), &unit(74)));
    }
}
