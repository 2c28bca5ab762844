//! What a person asks for.

use super::Array;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use xos_base::{JobId, SiteId, VoId};

/// Processors of a unit that asks for none, in thousandths of one.
pub const DEFAULT_CPU_MILLI: u32 = 1000;
/// Memory of a unit that asks for none, in bytes.
pub const DEFAULT_MEMORY_BYTES: u64 = 256 * 1024 * 1024;

/// A job as it is submitted. The service checks it against the limits of [`super`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// The VO in which it runs and whose share it uses.
    pub vo: VoId,
    /// What lists show: 1 to 128 bytes, no control characters and none that is not shown.
    pub name: String,
    /// At least one task, at most 256.
    pub tasks: Vec<TaskSpec>,
    /// Jobs of the same core and VO that must have succeeded before this one starts; when one
    /// fails, this one is cancelled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after_jobs: Vec<JobId>,
    /// The sites that may run it; empty: every site that serves the VO.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<SiteId>,
}

/// One task: a program with its arguments, run once for each index of its array.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Its name, unique in the job: 1 to 128 of letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The program and its arguments. A program without a slash is looked up in the PATH of the
    /// person's account on the node.
    pub argv: Vec<String>,
    /// Variables set besides those of the account and of XOS (`XOS_…`, which cannot be set).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The working directory: absolute, or relative to the person's home on the node; without it,
    /// that home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Standard input is read from this file; without it, it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Standard output goes to this file; without it, it is kept for `xout`. In the three paths
    /// `%j` stands for the job, `%i` for the array index and `%%` for a percent sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// Standard error, as [`TaskSpec::stdout`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// Its array of units.
    #[serde(default, skip_serializing_if = "Array::is_single")]
    pub array: Array,
    /// Tasks of this job of which every unit must have succeeded before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// What each unit needs.
    #[serde(default)]
    pub resources: Resources,
    /// Limits of each process (setrlimit(2)).
    #[serde(default, skip_serializing_if = "ProcessLimits::is_none")]
    pub limits: ProcessLimits,
    /// How often a unit that failed or was lost may run again. With 0, each unit runs once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry: u16,
    /// Its units run in clusters only, where they are checkpointed, go on from that on another node
    /// when theirs fails, and move.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checkpointable: bool,
    /// Files put in place before the unit starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stage_in: Vec<Stage>,
    /// Files taken away after the unit ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stage_out: Vec<Stage>,
}

// serde wants a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
pub(super) fn is_zero(n: &u16) -> bool {
    *n == 0
}

/// What each unit of a task needs and may use at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Processors in thousandths of one; default 1000.
    pub cpu_milli: u32,
    /// Memory in bytes; default 256 MiB.
    pub memory_bytes: u64,
    /// The processor architecture as JSDL names it (`x86_64`, `arm`, …); without it, any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// The longest time from start to end, in seconds; then the unit is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_time_s: Option<u64>,
}

impl Default for Resources {
    fn default() -> Resources {
        Resources {
            cpu_milli: DEFAULT_CPU_MILLI,
            memory_bytes: DEFAULT_MEMORY_BYTES,
            arch: None,
            wall_time_s: None,
        }
    }
}

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Limits of each process, as JSDL's POSIX application names them. Absent: the node's
        /// default. Each becomes the soft and the hard limit, never above the node's hard limit.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct ProcessLimits {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")]
            pub $name: Option<u64>,)*
        }

        impl ProcessLimits {
            /// Whether no limit is set.
            pub fn is_none(&self) -> bool {
                *self == ProcessLimits::default()
            }
        }
    };
}

limits! {
    /// Longest file written, bytes (RLIMIT_FSIZE).
    file_size,
    /// Longest core dump, bytes (RLIMIT_CORE).
    core_size,
    /// Data segment, bytes (RLIMIT_DATA).
    data,
    /// Locked memory, bytes (RLIMIT_MEMLOCK).
    locked_memory,
    /// Open files (RLIMIT_NOFILE).
    open_files,
    /// Stack, bytes (RLIMIT_STACK).
    stack,
    /// Processor time, seconds (RLIMIT_CPU).
    cpu_time_s,
    /// Processes and threads of the unit together. The cgroup's pids.max is that of all units of
    /// the job that run on the node at a time; a node that does not have so many refuses the unit.
    processes,
    /// Address space, bytes (RLIMIT_AS).
    virtual_memory,
}

/// What happens to a file that is in the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StageMode {
    /// It is replaced.
    #[default]
    Overwrite,
    /// The new content is put behind the old.
    Append,
    /// It stays, and nothing is copied.
    DontOverwrite,
}

/// One file that travels between the VO's volume and the unit's working directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Where it is in the working directory: a relative path without `..`.
    pub name: String,
    /// Where it is on the VO's volume: a path from the volume's root without `..`. Taken from
    /// there before the unit, or put there after it.
    pub volume: String,
    /// What happens to a file in the way.
    #[serde(default)]
    pub mode: StageMode,
    /// Whether the copy in the working directory is removed when the unit ended.
    #[serde(default)]
    pub delete: bool,
}
