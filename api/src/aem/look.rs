//! The requests of people who look at jobs and units.

use super::{Counts, JobEnd, JobSpec, JobState, Reason, UnitEnd, UnitMove, UnitState};
use crate::request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{JobId, Millis, NodeId, PersonId, SiteId, UnitId, VoId};

/// Most runs that are kept of a job which were followed by another.
pub const TRIES_MAX: usize = 8;
/// Most nodes that a line in a list of jobs names.
pub const JOB_NODES_MAX: usize = 8;

/// One job, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetJob {
    /// The job.
    pub job: JobId,
}
request!(GetJob => JobView, Get "/v1/jobs/{job}");

/// A job with its description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobView {
    /// What lists show.
    pub summary: JobSummary,
    /// As it was submitted.
    pub spec: JobSpec,
    /// Each task.
    pub tasks: Vec<TaskSummary>,
    /// Its result, once it has one (without output).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<JobEnd>,
    /// Moves of its units from one site's cluster to another's, newest first, at most
    /// [`super::MOVES_KEPT`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<UnitMove>,
}

/// One line in a list of jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSummary {
    /// The job.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// Its VO.
    pub vo: VoId,
    /// Who submitted it.
    pub person: PersonId,
    /// When.
    pub submitted: Millis,
    /// Where it stands.
    pub state: JobState,
    /// How many of its units are where.
    pub counts: Counts,
    /// The [`super::JobEvent::seq`] of its last change.
    pub seq: u64,
    /// What its units used so far (memory: the most of any one).
    pub usage: super::Usage,
    /// Where its units run, or, once it has ended, ran: nodes, or clusters as such, at most 8 of
    /// those of its first 1000 units.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeId>,
}

/// One task of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskSummary {
    /// Its name.
    pub name: String,
    /// The number in the job of its first unit; the others follow.
    pub first: u32,
    /// How many of its units are where.
    pub counts: Counts,
}

/// Which jobs a list shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobFilter {
    /// All that are still known.
    #[default]
    All,
    /// Those that have not come to their end.
    Open,
    /// Those that have.
    Ended,
}

/// The jobs that this core owns, newest first: the caller's own; for an administrator of the VO
/// those of every member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListJobs {
    /// Only those of this VO. A list of other people's jobs needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vo: Option<VoId>,
    /// Whether an administrator sees the jobs of every member.
    #[serde(default)]
    pub everyone: bool,
    /// Which.
    #[serde(default)]
    pub filter: JobFilter,
    /// Only those older than this one: the [`JobPage::next`] of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<JobId>,
    /// Most items in the answer, at most 1000; without it 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
request!(ListJobs => JobPage, Get "/v1/jobs");

/// One page of jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobSummary>,
    /// Set when there are more: ask again with it as [`ListJobs::before`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<JobId>,
}

/// Which units a list shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnitFilter {
    /// All.
    #[default]
    All,
    /// Those that have not come to their end.
    Open,
    /// Those that run.
    Running,
    /// Those that failed, were lost or refused.
    Failed,
}

/// The units of a job, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListUnits {
    /// The job.
    pub job: JobId,
    /// Which.
    #[serde(default)]
    pub filter: UnitFilter,
    /// Only units from this number on: the [`UnitPage::next`] of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
    /// Most items in the answer, at most 1000; without it 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
request!(ListUnits => UnitPage, Get "/v1/jobs/{job}/units");

/// One page of units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnitPage {
    /// The units.
    pub units: Vec<UnitView>,
    /// Set when there are more: ask again with it as [`ListUnits::from`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}

/// One unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnitView {
    /// The unit.
    pub unit: UnitId,
    /// Its task.
    pub task: String,
    /// Its index in the task's array.
    pub index: u32,
    /// Where it stands.
    pub state: UnitState,
    /// How often it was started again.
    pub retries: u16,
}

/// Why a job, or its units, stand where they stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhyJob {
    /// The job.
    pub job: JobId,
}
request!(WhyJob => Reasons, Get "/v1/jobs/{job}/why");

/// What is recorded of why a job stands where it stands: at most 64 reasons, and the latest
/// [`TRIES_MAX`] runs that were followed by another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reasons {
    /// The reasons, newest first.
    pub reasons: Vec<Reason>,
    /// Runs of units that did not end well, after which the unit was tried again, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tries: Vec<Try>,
}

/// A run of a unit that did not end well, after which it was tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Try {
    /// The unit.
    pub unit: UnitId,
    /// Which run of it: 0 is the first.
    pub attempt: u16,
    /// When it ended.
    pub at: Millis,
    /// At which site it was.
    pub site: SiteId,
    /// On which node, where it came that far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// How it ended.
    pub end: UnitEnd,
}
