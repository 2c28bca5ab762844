//! Checkpoints of units that run in clusters.

use super::{Array, UnitRun};
use crate::request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::JobId;

/// Most units in one answer.
pub const CHECKPOINTS_MAX: usize = 1000;

/// Has units that run in clusters checkpointed now. What it answers is how they stood: a checkpoint
/// takes a moment, and [`ListCheckpoints`] tells of it then. For who may cancel the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointUnits {
    /// The job.
    pub job: JobId,
    /// The numbers of the units in the job, as in `0-15,20`; absent: all that run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<Array>,
}
request!(CheckpointUnits => Checkpoints, Post "/v1/jobs/{job}/checkpoints");

/// The last checkpoints of the units of a job that run in clusters. For who may see the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListCheckpoints {
    /// The job.
    pub job: JobId,
}
request!(ListCheckpoints => Checkpoints, Get "/v1/jobs/{job}/checkpoints");

/// The owner of a job asks a host about the checkpoints of its units there. Only a core may ask,
/// and only for jobs of its own site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostCheckpoints {
    /// The job.
    pub job: JobId,
    /// The units; those that do not run there in a cluster are left out of the answer.
    pub units: Vec<UnitRun>,
    /// Whether they are to be checkpointed now.
    pub save: bool,
}
request!(HostCheckpoints => Checkpoints, Post "/v1/hosted/{job}/checkpoints");

/// Units that run in clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checkpoints {
    /// By number, at most [`CHECKPOINTS_MAX`].
    pub units: Vec<UnitCheckpoint>,
    /// There are more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// Sites that did not answer, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trouble: Vec<String>,
}

/// How a unit that runs in a cluster stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnitCheckpoint {
    /// Its number in the job.
    pub unit: u32,
    /// The number of its last checkpoint, growing; absent: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The size of that, bytes.
    #[serde(default)]
    pub bytes: u64,
    /// For how long the unit stood still for it, milliseconds.
    #[serde(default)]
    pub freeze_ms: u64,
    /// How old that is, milliseconds; absent: from before the host's core was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// Whether one is being made.
    #[serde(default)]
    pub saving: bool,
    /// Why the last try came to nothing, when it did; at most 512 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
}
