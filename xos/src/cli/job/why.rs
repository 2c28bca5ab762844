//! `xos job why`.

use super::{JobArg, ending, must_be};
use crate::cli::output::{Outcome, Table, clean, when};
use crate::cli::session::Session;
use serde::Serialize;
use xos_api::aem::{ListUnits, Reason, Reasons, UnitFilter, UnitState, UnitView, WhyJob};

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
    let answer = Answer { reasons, units };
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
        let none = if text.is_empty() { "Nothing stands in the way of this job." } else { "" };
        format!("{text}{}", table.text(none))
    })?;
    Ok(0)
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
