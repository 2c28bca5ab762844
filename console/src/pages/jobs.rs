//! My jobs, of one VO or of all.

use super::sign_in::kindly;
use crate::view::{Badge, Frame, When, counts_text, memberships, page};
use crate::visit::{Shown, Stop, Visit};
use askama::Template;
use xos_api::aem::{JobFilter, JobPage, JobSummary, ListJobs};
use xos_base::{JobId, VoId};

/// Jobs in one part of the list.
const LIST_MAX: u32 = 50;
/// Most VOs whose jobs come together in one list.
const VOS_MAX: usize = 20;

#[derive(Template)]
#[template(path = "jobs.html")]
struct View {
    frame: Frame,
    /// The VO whose jobs these are; empty: all.
    vo: String,
    jobs: Vec<Row>,
    /// Where the next part of one VO's jobs begins.
    next: Option<String>,
    /// There may be more, in the list of a single VO.
    cut: bool,
    troubles: Vec<String>,
}

/// A job in a list.
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) vo: String,
    pub(crate) name: String,
    pub(crate) submitted: When,
    pub(crate) state: Badge,
    pub(crate) counts: String,
    pub(crate) ended: u32,
    pub(crate) total: u32,
}

impl From<&JobSummary> for Row {
    fn from(j: &JobSummary) -> Row {
        Row {
            id: j.job.to_string(),
            vo: j.vo.to_string(),
            name: j.name.clone(),
            submitted: j.submitted.into(),
            state: (&j.state).into(),
            counts: counts_text(&j.counts),
            ended: j.counts.ended(),
            total: j.counts.total(),
        }
    }
}

/// The list of jobs.
pub(crate) async fn show(visit: Visit) -> Shown {
    match visit.query.id_if("vo")? {
        Some(vo) => of_one(&visit, &vo).await,
        None => of_all(&visit).await,
    }
}

async fn list(visit: &Visit, vo: &VoId, before: Option<JobId>) -> Result<JobPage, Stop> {
    let ask = ListJobs {
        vo: Some(vo.clone()),
        everyone: false,
        filter: JobFilter::All,
        before,
        limit: Some(LIST_MAX),
    };
    visit.ask_member(vo, ask).await
}

async fn of_one(visit: &Visit, vo: &VoId) -> Shown {
    let part = list(visit, vo, visit.query.id_if("before")?).await?;
    page(&View {
        frame: Frame::of(visit, &format!("My jobs in {vo}"), "jobs").await,
        vo: vo.to_string(),
        jobs: part.jobs.iter().map(Row::from).collect(),
        next: part.next.map(|j| j.to_string()),
        cut: false,
        troubles: Vec::new(),
    })
}

async fn of_all(visit: &Visit) -> Shown {
    let memberships = memberships(visit).await?;
    let (mut jobs, mut troubles) = (Vec::new(), Vec::new());
    let mut cut = memberships.len() > VOS_MAX;
    for m in memberships.iter().take(VOS_MAX) {
        match list(visit, &m.vo, None).await {
            Ok(part) => {
                cut |= part.next.is_some();
                jobs.extend(part.jobs);
            }
            Err(Stop::Failed(e)) => troubles.push(format!("{}: {}", m.vo, kindly(&e))),
            Err(stop) => return Err(stop),
        }
    }
    jobs.sort_by_key(|j| std::cmp::Reverse((j.submitted, j.job.number)));
    cut |= jobs.len() > LIST_MAX as usize;
    jobs.truncate(LIST_MAX as usize);
    page(&View {
        frame: Frame::with(visit, "My jobs", "jobs", &memberships),
        vo: String::new(),
        jobs: jobs.iter().map(Row::from).collect(),
        next: None,
        cut,
        troubles,
    })
}
