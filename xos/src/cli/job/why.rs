//! `xos job why`.

use super::{JobArg, ending, must_be};
use crate::cli::output::{Outcome, Table, clean, when};
use crate::cli::session::Session;
use serde::Serialize;
use xos_api::aem::{
    Counts, GetJob, JobView, ListUnits, Reason, Reasons, UnitFilter, UnitState, UnitView, WhyJob,
};

/// Most units that failed of which the ending is told.
const FAILED_SHOWN: u32 = 10;

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
}

/// Runs `xos job why`.
pub async fn run(s: &Session, args: Why) -> Outcome {
    let JobArg { job, unit } = args.job;
    let mut member = s.member_for(&job).await?;
    let Reasons { mut reasons } = member.call(s, WhyJob { job: job.clone() }).await?;
    let (filter, from, limit) = match &unit {
        Some(unit) => (UnitFilter::All, Some(unit.index.0), 1),
        None => (UnitFilter::Failed, None, FAILED_SHOWN),
    };
    let ask = ListUnits { job: job.clone(), filter, from, limit: Some(limit) };
    let units = member.call(s, ask).await?.units;
    if let Some(unit) = &unit {
        must_be(unit, &units)?;
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
    let answer = Answer { reasons, units, counts: view.summary.counts };
    s.out.show(&answer, || {
        let mut text = String::new();
        for u in &answer.units {
            if let Some(line) = told(u) {
                text.push_str(&format!("{} {line}\n", u.unit));
            }
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
