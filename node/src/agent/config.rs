//! The section `[node]`.

use serde::Deserialize;
use std::path::PathBuf;

/// The section `[node]`: this machine runs units.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The node's label, unique at its site: 1 to 24 of a-z, 0-9 and '-'.
    pub name: String,
    /// Processors that units may use, in thousandths of one. Default: all of the machine.
    pub cpu_milli: Option<u32>,
    /// Memory that units may use, in bytes. Default: nine tenths of the machine's.
    pub memory_bytes: Option<u64>,
    /// A control group (v2) that was given to `xosd` for the units, as a path below the mount point,
    /// such as `/system.slice/xos-units.service`; it must hold no process. Without it they are made
    /// below the control group in which `xosd` was started; systemd can then not start `xosd` again
    /// while units run.
    pub cgroup: Option<PathBuf>,
    /// Where homes of grid accounts are made. Default `/home/xos`.
    #[serde(default = "default_homes")]
    pub homes: PathBuf,
}

fn default_homes() -> PathBuf {
    PathBuf::from("/home/xos")
}
