//! What a unit is asked to be.

use super::{SpecError, UnitKey, absolute, at_most};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Most bytes of arguments and environment together in one unit.
pub const ARGS_BYTES_MAX: usize = 512 * 1024;
/// Longest single argument or environment string; Linux: `MAX_ARG_STRLEN` is 128 KiB.
pub const ARG_BYTES_MAX: usize = 128 * 1024 - 1;
/// Most resource limits in one unit.
pub const RLIMITS_MAX: usize = 16;

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

#[cfg(test)]
mod tests {
    use super::*;

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
