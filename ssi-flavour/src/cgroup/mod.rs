//! One control group, on v1, v2 and mixed machines: its limits, what is in it, and what that used.
//! Envelopes of a node have one each, and so have the copies of a cluster's trees.
//!
//! Limits use whichever interface holds the controller; where any v2 hierarchy is mounted (even one
//! without controllers) its `cgroup.kill` and `cgroup.freeze` are used.
//!
//! Sources: cgroups(7), kernel Documentation/admin-guide/cgroup-v2.rst.

pub mod discover;
pub mod files;
mod group;

pub use group::{Cgroup, CgroupUsage};

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// How often a cgroup's removal is tried; the kernel gives up a cgroup a moment after its last
/// process.
pub const REMOVE_TRIES_MAX: u32 = 200;
/// How many rounds of signals a v1 cgroup gets before it counts as not killable.
pub const KILL_ROUNDS_MAX: u32 = 64;
/// Most bytes read of one cgroup file.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Most processes and threads of a group when nothing else is asked for. A fork bomb stops here.
pub const PIDS_DEFAULT: u32 = 2048;
/// Smallest processor limit: the kernel takes no quota below 1 ms in 100 ms.
pub const CPU_MILLIS_MIN: u64 = 10;
/// Smallest memory limit: below it not even a process that does nothing fits.
pub const MEMORY_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// Which interface a hierarchy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// What a group may use. Absent means: no limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Processors, in thousandths of one.
    pub cpu_millis: Option<u64>,
    /// Memory, swap included where the kernel counts it, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads at a time, an envelope's init included.
    pub pids: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { cpu_millis: None, memory_bytes: None, pids: PIDS_DEFAULT }
    }
}

/// Why a control group cannot be used; the node's administrator acts.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A cgroup file or folder refused.
    #[error("control group {path}: {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A limit was asked for and no hierarchy of this machine can hold it.
    #[error(
        "this node cannot limit {0}: no such control group controller is given to xosd here \
         (with systemd: Delegate=yes; else start it in a cgroup of its own)"
    )]
    NoController(&'static str),
    /// No hierarchy at all.
    #[error("no control groups are mounted: mount cgroup2 at /sys/fs/cgroup")]
    NoHierarchy,
    /// Processes stay although they were killed.
    #[error(
        "control group {0} still has processes after they were killed: look for processes in state D"
    )]
    StillBusy(PathBuf),
}

/// One folder of a cgroup with what it can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its interface.
    pub version: Version,
    /// Which of the controllers that are used it holds.
    pub controllers: BTreeSet<String>,
    /// The folder.
    pub dir: PathBuf,
}
