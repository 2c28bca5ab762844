//! What an envelope and a unit are asked to be.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use xos_base::UnitId;

/// Longest [`EnvelopeId`] or [`UnitKey`], in bytes.
pub const KEY_MAX: usize = 96;
/// Most bytes of arguments and environment together in one unit.
pub const ARGS_BYTES_MAX: usize = 512 * 1024;
/// Longest single argument or environment string; Linux: `MAX_ARG_STRLEN` is 128 KiB.
pub const ARG_BYTES_MAX: usize = 128 * 1024 - 1;
/// Most processes and threads of an envelope when nothing else is asked for. A fork bomb stops
/// here.
pub const PIDS_DEFAULT: u32 = 2048;
/// Smallest processor limit: the kernel takes no quota below 1 ms in 100 ms.
pub const CPU_MILLIS_MIN: u64 = 10;
/// Smallest memory limit: below it not even the envelope's own init fits.
pub const MEMORY_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// Fewest processes: the envelope's init, one unit and one child.
pub const PIDS_MIN: u32 = 3;
/// Most units that one envelope runs at a time.
pub const SLOTS_MAX: u32 = 1024;
/// Most resource limits in one unit.
pub const RLIMITS_MAX: usize = 16;
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

/// Why a specification is refused; the caller changes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A name that becomes part of a path has a character or length that it may not have.
    #[error(
        "{0:?} is not an id: 1 to 96 of a-z, A-Z, 0-9, '.', ':', '@', '_', '-', first a letter or digit"
    )]
    Key(String),
    /// A unit without a program.
    #[error("the unit has no program to run: give at least one argument")]
    NoProgram,
    /// A string for the kernel holds a NUL byte, or an environment name an equals sign.
    #[error("{0} holds a character that the kernel does not take: remove it")]
    Character(&'static str),
    /// Something is larger than its stated limit.
    #[error("{what} is {is}, the most is {max}: make it smaller")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        is: u64,
        /// The limit.
        max: u64,
    },
    /// Something is smaller than can work.
    #[error("{what} is {is}, the least is {min}: ask for more")]
    TooSmall {
        /// What is too small.
        what: &'static str,
        /// How small it is.
        is: u64,
        /// The limit.
        min: u64,
    },
    /// An account that units must never run as.
    #[error("uid {uid} gid {gid} may not run units: it belongs to the system")]
    SystemAccount {
        /// The account's uid.
        uid: u32,
        /// The account's gid, or the group that is the system's.
        gid: u32,
    },
    /// A path that must be absolute is not.
    #[error("{0} must be an absolute path")]
    NotAbsolute(&'static str),
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The id as text; safe as one component of a path.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = SpecError;
            fn from_str(s: &str) -> Result<Self, SpecError> {
                let ok = |b: &u8| b.is_ascii_alphanumeric() || b".:@_-".contains(b);
                let first = s.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
                if first && s.len() <= KEY_MAX && s.as_bytes().iter().all(ok) {
                    Ok($name(s.into()))
                } else {
                    Err(SpecError::Key(s.chars().take(KEY_MAX).collect()))
                }
            }
        }
        impl TryFrom<String> for $name {
            type Error = SpecError;
            fn try_from(s: String) -> Result<Self, SpecError> {
                s.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

key!(
    /// An envelope on this node, such as `1234.rennes`. Names a folder and a cgroup.
    EnvelopeId
);
key!(
    /// One run of a unit in its envelope: `1234.rennes:7`, or `1234.rennes:7@2` where a second
    /// attempt is allowed. What was recorded under a key never runs again under it.
    UnitKey
);

impl From<&UnitId> for UnitKey {
    fn from(id: &UnitId) -> UnitKey {
        UnitKey(id.to_string().into())
    }
}

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

/// What an envelope may use. Absent means: no limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Processors, in thousandths of one.
    pub cpu_millis: Option<u64>,
    /// Memory, swap included where the kernel counts it, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads at a time, the envelope's init included.
    pub pids: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { cpu_millis: None, memory_bytes: None, pids: PIDS_DEFAULT }
    }
}

impl Limits {
    /// Whether the kernel can take these limits and something can run in them.
    ///
    /// # Errors
    /// [`SpecError::TooSmall`].
    pub fn check(&self) -> Result<(), SpecError> {
        at_least("the processor limit (thousandths)", self.cpu_millis, CPU_MILLIS_MIN)?;
        at_least("the memory limit (bytes)", self.memory_bytes, MEMORY_BYTES_MIN)?;
        at_least("the process limit", Some(self.pids.into()), PIDS_MIN.into())
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
        self.limits.check()?;
        at_least("the number of slots", Some(self.slots.into()), 1)?;
        at_most("the number of slots", self.slots.into(), SLOTS_MAX.into())
    }
}

/// A kernel resource limit that a unit may ask for; see setrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RlimitKind {
    /// Size of the address space, bytes.
    AddressSpace,
    /// Size of a core file, bytes; 0 unless asked for.
    Core,
    /// Processor time, seconds.
    CpuSeconds,
    /// Size of the data segment, bytes.
    Data,
    /// Size of a file, bytes; holds for the unit's own files too.
    FileSize,
    /// Open file descriptors.
    OpenFiles,
    /// Locked memory, bytes.
    Locked,
    /// Size of the stack, bytes.
    Stack,
}

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// Which.
    pub kind: RlimitKind,
    /// The limit, soft and hard; absent means unlimited.
    pub value: Option<u64>,
}

/// One task, started once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitSpec {
    /// Under which key it is recorded.
    pub key: UnitKey,
    /// Program and arguments; a program without a slash is searched in the unit's own `PATH`.
    pub argv: Vec<String>,
    /// The whole environment; nothing is added.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Working directory; absent: the home directory.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// Whether the working directory is made, as the user, when it is not there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub make_cwd: bool,
    /// Standard input; absent: nothing to read. Opened as the user.
    #[serde(default)]
    pub stdin: Option<PathBuf>,
    /// Standard output; absent: a spool file. Opened (and emptied) as the user; a relative path
    /// counts from the working directory.
    #[serde(default)]
    pub stdout: Option<PathBuf>,
    /// Standard error; absent: a spool file. The same path as `stdout` shares its descriptor.
    #[serde(default)]
    pub stderr: Option<PathBuf>,
    /// File mode creation mask; absent: 022.
    #[serde(default)]
    pub umask: Option<u32>,
    /// Resource limits.
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    /// Longest run, in milliseconds; then TERM, and KILL after a grace period. Time during which
    /// the envelope is frozen does not count.
    #[serde(default)]
    pub wall_ms: Option<u64>,
}

impl UnitSpec {
    /// Whether this can be handed to the kernel.
    ///
    /// # Errors
    /// [`SpecError`] names the first thing that is wrong.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(SpecError::NoProgram);
        }
        let mut bytes = 0u64;
        let mut text = |what: &'static str, len: usize, nul: bool| {
            bytes += len as u64 + 1;
            at_most(what, len as u64, ARG_BYTES_MAX as u64)?;
            if nul { Err(SpecError::Character(what)) } else { Ok(()) }
        };
        for a in &self.argv {
            text("an argument", a.len(), a.contains('\0'))?;
        }
        for (name, value) in &self.env {
            let bad = name.is_empty() || name.contains(['\0', '=']) || value.contains('\0');
            text("an environment variable", name.len() + 1 + value.len(), bad)?;
        }
        at_most("arguments and environment together", bytes, ARGS_BYTES_MAX as u64)?;
        at_most("the number of resource limits", self.rlimits.len() as u64, RLIMITS_MAX as u64)?;
        if let Some(cwd) = &self.cwd {
            absolute("the working directory", cwd)?;
        }
        let paths = [&self.cwd, &self.stdin, &self.stdout, &self.stderr];
        for p in paths.into_iter().flatten() {
            let len = p.as_os_str().len();
            at_most("a path", len as u64, libc::PATH_MAX as u64 - 1)?;
            if p.as_os_str().as_encoded_bytes().contains(&0) || len == 0 {
                return Err(SpecError::Character("a path"));
            }
        }
        at_most("the umask", self.umask.unwrap_or(0).into(), 0o777)
    }
}

fn absolute(what: &'static str, path: &Path) -> Result<(), SpecError> {
    if path.is_absolute() { Ok(()) } else { Err(SpecError::NotAbsolute(what)) }
}

fn at_most(what: &'static str, is: u64, max: u64) -> Result<(), SpecError> {
    if is <= max { Ok(()) } else { Err(SpecError::TooLarge { what, is, max }) }
}

fn at_least(what: &'static str, is: Option<u64>, min: u64) -> Result<(), SpecError> {
    match is {
        Some(is) if is < min => Err(SpecError::TooSmall { what, is, min }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cannot_leave_their_folder() {
        // wrong: a key that is a path would let a request write outside the envelope's folder
        for bad in ["", ".", "..", "a/b", "/a", ".a", "a\n", "a b", "é", &"a".repeat(97)] {
            assert!(bad.parse::<UnitKey>().is_err(), "{bad:?}");
        }
        assert_eq!("12.rennes:7@2".parse::<UnitKey>().unwrap().as_str(), "12.rennes:7@2");
    }

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

    #[test]
    fn unit_limits_hold() {
        // wrong: execve or the frame limit would fail late, without a reason for the person
        let unit: UnitSpec = serde_json::from_str(r#"{"key":"1.a:0","argv":["true"]}"#).unwrap();
        assert_eq!(unit.check(), Ok(()));
        let with = |f: fn(&mut UnitSpec)| {
            let mut u = unit.clone();
            f(&mut u);
            u.check()
        };
        assert_eq!(with(|u| u.argv.clear()), Err(SpecError::NoProgram));
        assert!(with(|u| u.argv.push("a\0b".into())).is_err());
        assert!(with(|u| u.argv.push("x".repeat(ARG_BYTES_MAX + 1))).is_err());
        assert!(with(|u| u.argv = vec!["x".repeat(1000); 600]).is_err());
        assert!(with(|u| u.env.push(("A=B".into(), String::new()))).is_err());
        assert!(with(|u| u.cwd = Some("relative".into())).is_err());
        assert!(with(|u| u.umask = Some(0o7777)).is_err());
    }
}
