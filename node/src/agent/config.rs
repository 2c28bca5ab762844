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
    /// Processes and threads that the units of one job may have on this node at a time, all together.
    /// Who asks for more in each unit has fewer units run at a time, or none. Default: a quarter of
    /// what the kernel can have.
    pub processes: Option<u32>,
    /// Where homes of grid accounts are made. Default `/home/xos`.
    #[serde(default = "default_homes")]
    pub homes: PathBuf,
}

fn default_homes() -> PathBuf {
    PathBuf::from("/home/xos")
}
