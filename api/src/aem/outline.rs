//! What a person signs of a job: all of it, so that each part can be shown by itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{JobId, SiteId, VoId};

/// A [`super::JobSpec`] with a digest in place of each task. The digest that a person signs is
/// that of this outline: a host that is shown the outline and one task can tell whether the person
/// asked for that task, without the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outline {
    /// [`super::JobSpec::vo`].
    pub vo: VoId,
    /// [`super::JobSpec::name`].
    pub name: String,
    /// Its tasks, in their order.
    pub tasks: Vec<TaskDigest>,
    /// [`super::JobSpec::after_jobs`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after_jobs: Vec<JobId>,
    /// [`super::JobSpec::sites`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<SiteId>,
}

/// One task of an [`Outline`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskDigest {
    /// SHA-256 of the task, 64 hexadecimal digits.
    pub digest: String,
    /// How many units it has: the numbers of the units of the tasks behind it follow.
    pub units: u32,
}
