//! `xos job show`.

use super::checkpoint::remark;
use super::list::units as unit_counts;
use super::{JobArg, ending, must_be, state};
use crate::cli::output::{Outcome, Style, Table, clean, cpus, fields, list, size, span, when};
use crate::cli::session::Session;
use serde::Serialize;
use xos_api::aem::{
    GetJob, JobView, ListCheckpoints, ListUnits, PAGE_MAX, UnitCheckpoint, UnitState, UnitView,
};
use xos_base::Millis;

/// How many units are shown without --units.
const UNITS_SHOWN: u32 = 20;

/// `xos job show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  xos job show 12.rennes\n  xos job show 12.rennes --units")]
pub struct Show {
    /// The job, as xsub printed it.
    job: JobArg,
    /// Show all units, not only the first.
    #[arg(long)]
    units: bool,
}

#[derive(Serialize)]
struct Whole {
    job: JobView,
    units: Vec<UnitView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checkpoints: Vec<UnitCheckpoint>,
}

/// Runs `xos job show`.
pub async fn run(s: &Session, args: Show) -> Outcome {
    let mut member = s.member_for(&args.job.job).await?;
    let job = member.call(s, GetJob { job: args.job.job.clone() }).await?;
    let mut units = Vec::new();
    let mut from = args.job.unit.as_ref().map(|u| u.index.0);
    loop {
        let limit = match (&args.job.unit, args.units) {
            (Some(_), _) => 1,
            (None, true) => PAGE_MAX,
            (None, false) => UNITS_SHOWN,
        };
        let ask = ListUnits {
            job: args.job.job.clone(),
            filter: xos_api::aem::UnitFilter::All,
            from,
            limit: Some(limit),
        };
        let page = member.call(s, ask).await?;
        units.extend(page.units);
        match page.next {
            Some(next) if args.units && args.job.unit.is_none() => from = Some(next),
            _ => break,
        }
    }
    if let Some(unit) = &args.job.unit {
        must_be(unit, &units)?;
    }
    let mut checkpoints = Vec::new();
    if job.spec.tasks.iter().any(|task| task.checkpointable) {
        let told = member.call(s, ListCheckpoints { job: args.job.job.clone() }).await?;
        checkpoints = told.units;
    }
    let whole = Whole { job, units, checkpoints };
    s.out.show(&whole, || describe(&whole, s.now()))?;
    let shown = whole.units.len() as u64;
    if args.job.unit.is_none() && shown < u64::from(whole.job.summary.counts.total()) {
        s.out.note(&format!("There are more units: xos job show {} --units", args.job.job))?;
    }
    Ok(0)
}

fn describe(whole: &Whole, now: Millis) -> String {
    let (j, spec) = (&whole.job.summary, &whole.job.spec);
    let end = whole.job.end.as_ref().and_then(|e| {
        e.unit.as_ref().zip(e.how.as_ref()).map(|(u, how)| format!("{u} {}", ending(how)))
    });
    let used = if j.usage.cpu_ms > 0 || j.usage.wall_ms > 0 {
        let memory = match j.usage.memory_bytes {
            0 => String::new(),
            bytes => format!(", at most {} memory", size(bytes)),
        };
        format!("{} of processor time{memory}", span(j.usage.cpu_ms / 1000))
    } else {
        String::new()
    };
    let mut text = fields(&[
        ("job", Style::Head.mark(&j.job.to_string())),
        ("name", clean(&j.name)),
        ("VO", j.vo.to_string()),
        ("person", j.person.to_string()),
        ("submitted", when(j.submitted, now)),
        ("state", state(&j.state)),
        ("units", unit_counts(&j.counts)),
        ("used", used),
        ("after", list(&spec.after_jobs)),
        ("sites", list(&spec.sites)),
        ("result", end.unwrap_or_default()),
    ]);
    let mut tasks = Table::new(&["TASK", "UNITS", "CPUS", "MEMORY", "TIME", "PROGRAM"]);
    for (summary, task) in whole.job.tasks.iter().zip(&spec.tasks) {
        let r = &task.resources;
        let program: String = clean(&task.argv.join(" ")).chars().take(60).collect();
        tasks.row([
            clean(&summary.name),
            unit_counts(&summary.counts),
            cpus(u64::from(r.cpu_milli)),
            size(r.memory_bytes),
            r.wall_time_s.map(span).unwrap_or_default(),
            program,
        ]);
    }
    text = format!("{text}\n\n{}", tasks.text("No tasks."));
    let mut units = Table::new(&["UNIT", "TASK", "INDEX", "STATE", "WHERE", "TIME", "REMARK"]);
    for u in &whole.units {
        let mut row = unit_row(u, now);
        if let Some(c) = whole.checkpoints.iter().find(|c| c.unit == u.unit.index.0) {
            row[6] = remark(c);
        }
        units.row(row);
    }
    text = format!("{text}\n\n{}", units.text("No units."));
    if whole.job.moves.is_empty() {
        return text;
    }
    let mut moves = Table::new(&["MOVED", "FROM", "LEFT", "CHECKPOINT", "TO", "ARRIVED", "WHY"]);
    for m in &whole.job.moves {
        moves.row([
            m.unit.to_string(),
            m.cluster.to_string(),
            when(m.left, now),
            m.checkpoint.to_string(),
            m.to.as_ref().map_or_else(|| "nobody took it yet".to_owned(), ToString::to_string),
            m.arrived.map(|at| when(at, now)).unwrap_or_default(),
            clean(&m.why),
        ]);
    }
    format!("{text}\n\n{}", moves.text("No moves."))
}

fn unit_row(u: &UnitView, now: Millis) -> [String; 7] {
    let none = String::new;
    let place = |site: &xos_base::SiteId, node: &Option<xos_base::NodeId>| {
        node.as_ref().map_or(format!("({site})"), ToString::to_string)
    };
    let (word, place, time, remark) = match &u.state {
        UnitState::Waiting => ("waiting".to_owned(), none(), none(), none()),
        UnitState::Queued => ("queued".to_owned(), none(), none(), none()),
        UnitState::Placed { site } => ("placed".to_owned(), format!("({site})"), none(), none()),
        UnitState::Running { node, since, .. } => {
            let time = span(now.since(*since).as_secs());
            (Style::Busy.mark("running"), node.to_string(), time, none())
        }
        UnitState::Done { node, usage, .. } => {
            (Style::Good.mark("done"), node.to_string(), span(usage.wall_ms / 1000), none())
        }
        UnitState::Failed { site, node, end, usage, .. } => {
            let time = span(usage.wall_ms / 1000);
            (Style::Bad.mark("failed"), place(site, node), time, ending(end))
        }
        UnitState::Lost { site, node, reason, .. } => {
            (Style::Bad.mark("lost"), place(site, node), none(), clean(reason))
        }
        UnitState::Cancelled { .. } => (Style::Bad.mark("cancelled"), none(), none(), none()),
        UnitState::Refused { reasons, .. } => {
            let why = reasons.first().map(|r| clean(&r.text)).unwrap_or_default();
            (Style::Bad.mark("refused"), none(), none(), why)
        }
    };
    let again = match u.retries {
        0 => remark,
        n => format!("{remark}{}started again {n}x", if remark.is_empty() { "" } else { "; " }),
    };
    [u.unit.to_string(), clean(&u.task), u.index.to_string(), word, place, time, again]
}
