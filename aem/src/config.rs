//! The section `[aem]` of a core's `xosd.toml`.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// How a core runs jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder of the job journal. Default: `aem` in the state folder.
    pub dir: PathBuf,
    /// How long an ended job is kept with its output, in seconds. Default 604800 (a week).
    pub keep_ended_s: u64,
    /// Most ended jobs kept; the oldest go first. Default 10000.
    pub keep_ended_jobs: usize,
    /// How long a node may be silent before the units on it count as lost, in seconds. Default 600.
    pub node_lost_s: u64,
    /// How long another site may be silent before the units it accepted count as lost, in seconds.
    /// Default 86400 (a day).
    pub site_lost_s: u64,
    /// Most units, waiting or running, that this site accepts for one VO. Default 200000.
    pub units_per_vo: u32,
    /// Most jobs that have not ended, of one member. Default 10000.
    pub jobs_per_member: usize,
    /// Most units of one member's jobs that have not ended. Default 200000.
    pub units_per_member: u64,
    /// Most memory for one member's jobs that have not ended, besides their units, in bytes: that
    /// is their descriptions. Default 67108864 (64 MiB).
    pub job_bytes_per_member: u64,
    /// Most units that this core keeps, of all jobs that it owns, and as many again that it keeps
    /// for other sites; about 180 bytes each. Ended jobs make way for new ones; one member's others
    /// take at most a third, one VO's half, of what the rest leaves. Those of VOs of all other
    /// homes together take at most half, and of that one home's half of what other homes' leave.
    /// Default 1000000.
    pub units_max: u64,
    /// Most memory for all jobs that this core owns, besides their units, and as much again for
    /// those of other sites, in bytes; the parts are as of the units. Default 536870912 (512 MiB).
    pub job_bytes_max: u64,
    /// Time between SIGTERM and SIGKILL when units are cancelled, in milliseconds. Default 2000.
    pub kill_grace_ms: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            dir: "/var/lib/xos/aem".into(),
            keep_ended_s: 7 * 24 * 3600,
            keep_ended_jobs: 10_000,
            node_lost_s: 600,
            site_lost_s: 24 * 3600,
            units_per_vo: 200_000,
            jobs_per_member: 10_000,
            units_per_member: 200_000,
            job_bytes_per_member: 64 << 20,
            units_max: 1_000_000,
            job_bytes_max: 512 << 20,
            kill_grace_ms: 2000,
        }
    }
}

impl Config {
    /// [`Config::keep_ended_s`].
    pub fn keep_ended(&self) -> Duration {
        Duration::from_secs(self.keep_ended_s)
    }

    /// [`Config::node_lost_s`].
    pub fn node_lost(&self) -> Duration {
        Duration::from_secs(self.node_lost_s)
    }

    /// [`Config::site_lost_s`].
    pub fn site_lost(&self) -> Duration {
        Duration::from_secs(self.site_lost_s)
    }
}
