//! One job: where it stands, its units, why, its output; cancelling it.

use super::output::{self, Tail};
use crate::view::{
    Badge, Frame, When, bytes_text, counts_text, cpus_text, end_text, page, sentence, span_text,
};
use crate::visit::{Reply, Shown, Stop, Visit, done};
use crate::{command_line, live};
use askama::Template;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;
use xos_api::aem::{
    CancelJob, GetJob, JobEvent, JobView, ListUnits, OutputStream, Reason, UnitFilter, UnitState,
    UnitView, WatchJob, WhyJob,
};
use xos_base::{Error, JobId, VoId};

/// Units in one part of the list.
const LIST_MAX: u32 = 100;
/// Most tasks that are described.
const TASKS_SHOWN: usize = 32;
/// Longest command line that is shown, in characters.
const COMMAND_SHOWN: usize = 2000;

#[derive(Template)]
#[template(path = "job.html")]
struct View {
    frame: Frame,
    vo: String,
    id: String,
    name: String,
    person: String,
    submitted: When,
    state: Badge,
    over: bool,
    counts: String,
    ended: u32,
    total: u32,
    seq: u64,
    used: String,
    result: Option<String>,
    reasons: Vec<ReasonRow>,
    tasks: Vec<TaskRow>,
    tasks_cut: bool,
    units: Vec<UnitRow>,
    filter: &'static str,
    next: Option<u32>,
    outputs: Vec<Tail>,
}

struct ReasonRow {
    at: When,
    by: Option<String>,
    text: String,
}

struct TaskRow {
    name: String,
    command: String,
    array: String,
    cpus: String,
    memory: String,
    time: String,
    counts: String,
}

struct UnitRow {
    id: String,
    task: String,
    index: u32,
    site: String,
    node: String,
    state: Badge,
    exit: String,
    time: String,
    at: Option<When>,
    retries: u16,
}

fn names(visit: &Visit) -> Result<(VoId, JobId), Stop> {
    Ok((visit.vo()?, visit.place("job")?))
}

/// The page of one job.
pub(crate) async fn show(visit: Visit) -> Shown {
    let (vo, job) = names(&visit)?;
    let view = visit.ask_member(&vo, GetJob { job: job.clone() }).await?;
    let filter = match visit.query.text("show") {
        "open" => UnitFilter::Open,
        "running" => UnitFilter::Running,
        "failed" => UnitFilter::Failed,
        _ => UnitFilter::All,
    };
    let from = visit.query.number("from", "the first unit")?;
    let r = ListUnits { job: job.clone(), filter, from, limit: Some(LIST_MAX) };
    let units = visit.ask_member(&vo, r).await?;
    let why = visit.ask_member(&vo, WhyJob { job: job.clone() }).await?;
    let mut outputs = Vec::new();
    if view.summary.counts.total() == 1 {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            outputs.push(output::tail(&visit, &vo, &job.unit(0), stream).await?);
        }
    }
    let frame = Frame::of(&visit, &format!("Job {job}"), "jobs").await;
    let (name, person) = (view.summary.name.clone(), view.summary.person.to_string());
    let counts = view.summary.counts;
    page(&View {
        frame,
        vo: view.summary.vo.to_string(),
        id: job.to_string(),
        name,
        person,
        submitted: view.summary.submitted.into(),
        state: (&view.summary.state).into(),
        over: view.summary.state.is_final(),
        counts: counts_text(&counts),
        ended: counts.ended(),
        total: counts.total(),
        seq: view.summary.seq,
        used: used_text(&view),
        result: result_text(&view),
        reasons: why.reasons.into_iter().map(reason_row).collect(),
        tasks: task_rows(&view),
        tasks_cut: view.tasks.len() > TASKS_SHOWN,
        units: units.units.iter().map(unit_row).collect(),
        filter: filter_word(filter),
        next: units.next,
        outputs,
    })
}

fn filter_word(filter: UnitFilter) -> &'static str {
    match filter {
        UnitFilter::All => "all",
        UnitFilter::Open => "open",
        UnitFilter::Running => "running",
        UnitFilter::Failed => "failed",
    }
}

fn used_text(view: &JobView) -> String {
    let u = &view.summary.usage;
    if u.cpu_ms == 0 && u.memory_bytes == 0 {
        return String::new();
    }
    let cpu = span_text(u.cpu_ms);
    format!("{cpu} of processor time, {} of memory at most", bytes_text(u.memory_bytes))
}

fn result_text(view: &JobView) -> Option<String> {
    let end = view.end.as_ref()?;
    let how = end.how.as_ref().map(|how| format!(", {}", end_text(how))).unwrap_or_default();
    Some(match &end.unit {
        Some(unit) => format!("exit status {}, from unit {unit}{how}", end.exit_status),
        None => format!("exit status {}", end.exit_status),
    })
}

fn reason_row(r: Reason) -> ReasonRow {
    ReasonRow {
        at: r.at.into(),
        by: r.site.map(|s| format!("{s}, rule {}", r.rule)),
        text: sentence(&r.text),
    }
}

fn task_rows(view: &JobView) -> Vec<TaskRow> {
    let tasks = view.tasks.iter().zip(&view.spec.tasks).take(TASKS_SHOWN);
    tasks
        .map(|(summary, spec)| TaskRow {
            name: summary.name.clone(),
            command: command_line::typed(&spec.argv, COMMAND_SHOWN),
            array: if spec.array.is_single() { String::new() } else { spec.array.to_string() },
            cpus: cpus_text(u64::from(spec.resources.cpu_milli)),
            memory: bytes_text(spec.resources.memory_bytes),
            time: spec
                .resources
                .wall_time_s
                .map(|s| span_text(s.saturating_mul(1000)))
                .unwrap_or_default(),
            counts: counts_text(&summary.counts),
        })
        .collect()
}

fn unit_row(u: &UnitView) -> UnitRow {
    let mut row = UnitRow {
        id: u.unit.to_string(),
        task: u.task.clone(),
        index: u.index,
        site: String::new(),
        node: String::new(),
        state: (&u.state).into(),
        exit: String::new(),
        time: String::new(),
        at: None,
        retries: u.retries,
    };
    let name = |n: &Option<xos_base::NodeId>| n.as_ref().map(ToString::to_string);
    match &u.state {
        UnitState::Waiting | UnitState::Queued => {}
        UnitState::Placed { site } => row.site = site.to_string(),
        UnitState::Running { site, node, since } => {
            (row.site, row.node) = (site.to_string(), node.to_string());
            row.at = Some((*since).into());
        }
        UnitState::Done { site, node, at, usage } => {
            (row.site, row.node) = (site.to_string(), node.to_string());
            row.exit = "exit 0".into();
            row.time = span_text(usage.wall_ms);
            row.at = Some((*at).into());
        }
        UnitState::Failed { site, node, at, end, usage } => {
            (row.site, row.node) = (site.to_string(), name(node).unwrap_or_default());
            row.exit = end_text(end);
            row.time = span_text(usage.wall_ms);
            row.at = Some((*at).into());
        }
        UnitState::Lost { site, node, at, reason } => {
            (row.site, row.node) = (site.to_string(), name(node).unwrap_or_default());
            row.exit.clone_from(reason);
            row.at = Some((*at).into());
        }
        UnitState::Cancelled { at } => row.at = Some((*at).into()),
        UnitState::Refused { at, reasons } => {
            row.exit = reasons.iter().map(|r| r.text.as_str()).collect::<Vec<_>>().join("; ");
            row.at = Some((*at).into());
        }
    }
    row
}

/// One line of a job's event stream, for the page's script.
#[derive(Serialize)]
struct Event {
    seq: u64,
    state: &'static str,
    counts: String,
    ended: u32,
    total: u32,
    over: bool,
}

fn event_line(item: Result<JobEvent, Error>) -> Bytes {
    let text = match item {
        Ok(e) => serde_json::to_vec(&Event {
            seq: e.seq,
            state: e.state.word(),
            counts: counts_text(&e.counts),
            ended: e.counts.ended(),
            total: e.counts.total(),
            over: e.end.is_some() || e.state.is_final(),
        }),
        Err(e) => serde_json::to_vec(&serde_json::json!({ "error": e.message })),
    };
    // Numbers and texts always have a JSON form; an empty line is a heartbeat.
    let mut line = text.unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// The job's event stream: JSON texts, a line each.
pub(crate) async fn events(visit: Visit) -> Shown {
    let (vo, job) = names(&visit)?;
    let after = visit.query.number("after", "the last change")?;
    let items = visit.follow(&vo, WatchJob { job, after }).await?;
    Ok(Reply::Lines(live::lines(&visit, items.map(event_line).boxed())?))
}

#[derive(Template)]
#[template(path = "job_cancel.html")]
struct Cancel {
    frame: Frame,
    vo: String,
    id: String,
    name: String,
    open: u32,
    over: bool,
}

/// Asks whether the job shall really be cancelled.
pub(crate) async fn confirm_cancel(visit: Visit) -> Shown {
    let (vo, job) = names(&visit)?;
    let view = visit.ask_member(&vo, GetJob { job: job.clone() }).await?;
    page(&Cancel {
        frame: Frame::of(&visit, &format!("Cancel job {job}"), "jobs").await,
        vo: vo.to_string(),
        id: job.to_string(),
        name: view.summary.name,
        open: view.summary.counts.open(),
        over: view.summary.state.is_final(),
    })
}

/// Cancels the job.
pub(crate) async fn cancel(visit: Visit) -> Shown {
    let (vo, job) = names(&visit)?;
    let reached = visit.ask_member(&vo, CancelJob { job: job.clone() }).await?.units;
    let notice = match reached {
        0 => "The job had come to its end already.".to_owned(),
        1 => "The job is cancelled: one unit is being ended.".to_owned(),
        n => format!("The job is cancelled: {n} units are being ended."),
    };
    done(&visit, format!("/vo/{vo}/job/{job}"), notice)
}
