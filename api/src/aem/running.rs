//! Who runs what in a VO, at the site asked.

use crate::request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{JobId, Millis, NodeId, PersonId, VoId};

/// Most lines in one [`RunningPage`].
pub const RUNNING_MAX: usize = 1000;

/// The units of a VO's jobs that this site's nodes run now, or that wait here for a node, and the
/// sessions of its members that are open on the nodes: for those whom the VO's and the site's rules
/// let see other members' jobs. Others see their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListRunning {
    /// The VO.
    pub vo: VoId,
    /// Only jobs after this one: the [`RunningPage::next`] of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<JobId>,
}
request!(ListRunning => RunningPage, Get "/v1/vos/{vo}/running");

/// One page of what runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunningPage {
    /// By job, then by node; what waits comes last of each job. About [`RUNNING_MAX`], as a job's
    /// lines stay together.
    pub running: Vec<Running>,
    /// Set when there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<JobId>,
    /// Open sessions, by node; on the first page only. The nodes are asked for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<RunningSession>,
    /// Nodes whose sessions are missing above, all or some: they did not answer in time, or have
    /// more than one answer holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unheard: Vec<NodeId>,
}

/// A session of a member that is open on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunningSession {
    /// Whose.
    pub person: PersonId,
    /// The node.
    pub node: NodeId,
    /// The PAM service that opened it: `sshd`, `login`, `cron`.
    pub service: String,
    /// Since when.
    pub since: Millis,
}

/// Units of one job on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Running {
    /// Whose.
    pub person: PersonId,
    /// The job.
    pub job: JobId,
    /// The node; absent: they wait for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// How many units.
    pub units: u32,
    /// Processors that they hold, thousandths; 0 of what waits.
    pub cpu_milli: u64,
    /// Memory that they hold, bytes; 0 of what waits.
    pub memory_bytes: u64,
    /// When the job's first units came to this site.
    pub since: Millis,
}
