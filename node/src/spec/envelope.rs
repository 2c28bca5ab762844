//! What an envelope is asked to be, and whose it is.

use super::{EnvelopeId, SpecError, absolute, at_least, at_most};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use xos_base::{Epoch, GroupNumber, Membership, RoleName};

pub use xos_ssi::cgroup::{CPU_MILLIS_MIN, Limits, MEMORY_BYTES_MIN, PIDS_DEFAULT};

/// Fewest processes: the envelope's init, one unit and one child.
pub const PIDS_MIN: u32 = 3;
/// Most units that one envelope runs at a time.
pub const SLOTS_MAX: u32 = 1024;
/// Largest spool file of a unit when nothing else is asked for.
pub const SPOOL_BYTES_DEFAULT: u64 = 256 * 1024 * 1024;
/// Most bytes of all spool files of one envelope when nothing else is asked for.
pub const SPOOL_TOTAL_BYTES_DEFAULT: u64 = 4 * 1024 * 1024 * 1024;
/// How long an envelope without work keeps its processes, when nothing else is asked for,
/// milliseconds: long enough for the next task of its job to come, short enough for ended jobs to
/// cost nothing.
pub const REST_AFTER_MS_DEFAULT: u64 = 3_000;
/// Most supplementary groups of an account.
pub const GROUPS_MAX: usize = 1024;

/// A local account as units run under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// Local name.
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
}

impl Account {
    /// Whether units may run under this account at all.
    ///
    /// # Errors
    /// [`SpecError::SystemAccount`] for root and for ids below 1000 or the overflow id.
    pub fn check(&self) -> Result<(), SpecError> {
        let system = |id: u32| id < 1000 || id == 65534 || id == u32::MAX;
        let bad = self.groups.iter().copied().chain([self.gid]).find(|g| system(*g));
        if system(self.uid) || bad.is_some() {
            let gid = bad.unwrap_or(self.gid);
            return Err(SpecError::SystemAccount { uid: self.uid, gid });
        }
        at_most("the number of groups", self.groups.len() as u64, GROUPS_MAX as u64)?;
        absolute("the home directory", &self.home)
    }
}

/// Whether the kernel can take these limits and something can run in them.
pub(crate) fn check_limits(limits: &Limits) -> Result<(), SpecError> {
    at_least("the processor limit (thousandths)", limits.cpu_millis, CPU_MILLIS_MIN)?;
    at_least("the memory limit (bytes)", limits.memory_bytes, MEMORY_BYTES_MIN)?;
    at_least("the process limit", Some(limits.pids.into()), PIDS_MIN.into())
}

/// With which part of a membership something was begun: it ends when some of that is taken from the
/// member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carries {
    /// The membership's epoch then.
    pub epoch: Epoch,
    /// Groups.
    pub groups: Vec<GroupNumber>,
    /// Roles.
    pub roles: Vec<RoleName>,
}

impl From<&Membership> for Carries {
    fn from(m: &Membership) -> Carries {
        let groups = m.groups.iter().map(|g| g.number).collect();
        Carries { epoch: m.epoch, groups, roles: m.roles.clone() }
    }
}

/// A job's part on one node: account, cgroup, pid namespace and shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeSpec {
    /// Its id; one that was used and not forgotten is refused.
    pub id: EnvelopeId,
    /// Who the units run as.
    pub account: Account,
    /// What all units together may use.
    #[serde(default)]
    pub limits: Limits,
    /// How many units run at the same time.
    pub slots: u32,
    /// Largest spool file of one unit, in bytes. See [`crate::output`] for how it is kept.
    #[serde(default = "spool_default")]
    pub spool_bytes_max: u64,
    /// Most bytes of all spool files together, of units that ended too.
    #[serde(default = "spool_total_default")]
    pub spool_total_bytes_max: u64,
    /// How long it may be without units that run or wait before its shim ends, in milliseconds.
    /// It can be opened again; processes that units left behind end then.
    #[serde(default = "rest_default")]
    pub rest_after_ms: u64,
    /// The part of its member's membership that its job carries; absent: it is no member's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carries: Option<Carries>,
}

fn rest_default() -> u64 {
    REST_AFTER_MS_DEFAULT
}

fn spool_default() -> u64 {
    SPOOL_BYTES_DEFAULT
}

fn spool_total_default() -> u64 {
    SPOOL_TOTAL_BYTES_DEFAULT
}

impl EnvelopeSpec {
    /// Whether this can become an envelope.
    ///
    /// # Errors
    /// [`SpecError`] names the first thing that is wrong.
    pub fn check(&self) -> Result<(), SpecError> {
        self.account.check()?;
        check_limits(&self.limits)?;
        at_least("the number of slots", Some(self.slots.into()), 1)?;
        at_most("the number of slots", self.slots.into(), SLOTS_MAX.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_accounts_are_refused() {
        // wrong: a unit would run as root or in root's group
        let ok = Account {
            uid: 70000,
            gid: 70000,
            groups: vec![70001],
            name: "a".into(),
            home: "/home/a".into(),
        };
        assert_eq!(ok.check(), Ok(()));
        for (uid, gid, group) in [(0, 70000, 70001), (70000, 0, 70001), (70000, 70000, 0)] {
            let a = Account { uid, gid, groups: vec![group], ..ok.clone() };
            assert!(a.check().is_err(), "{a:?}");
        }
        assert!(Account { uid: u32::MAX, ..ok }.check().is_err(), "-1 means unchanged to setuid");
    }
}
