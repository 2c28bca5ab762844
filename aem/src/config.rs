//! The section `[aem]` of a core's `xosd.toml`.

use crate::policy::Rule;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// How a core runs jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder of the job journal. Default: `aem` in the state folder.
    pub dir: PathBuf,
    /// How long an ended job is kept with its output, in seconds. Default 86400 (a day).
    pub keep_ended_s: u64,
    /// Most ended jobs kept; the oldest go first: each keeps two small
    /// processes on its nodes. Default 200.
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
    /// Time between SIGTERM and SIGKILL when units are cancelled, in milliseconds. Default 2000.
    pub kill_grace_ms: u64,
    /// This site's own rules; a rule that denies wins over everything that a VO allows.
    pub rules: Vec<Rule>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            dir: "/var/lib/xos/aem".into(),
            keep_ended_s: 24 * 3600,
            keep_ended_jobs: 200,
            node_lost_s: 600,
            site_lost_s: 24 * 3600,
            units_per_vo: 200_000,
            jobs_per_member: 10_000,
            kill_grace_ms: 2000,
            rules: Vec::new(),
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
