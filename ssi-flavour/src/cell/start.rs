//! A program's process, from fork to exec.
//!
//! Order: own session and default signals; control groups, network and mount namespace, while
//! still root; a keyring of its own; resource limits; groups, gid, uid, and proof that root cannot
//! come back; no new privileges; then, as the person: mask, folder, descriptors, exec. What fails
//! is written to a pipe that exec closes, so that init, which waits for nothing else, learns of
//! both.

use super::proto::{Account, Program, Refusal, Rlimit, START_MS_MAX, Stdio};
use crate::program::{Exec, OOM_SCORE, drop_to, limit, search_path};
use crate::sys::{self, Forked};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::Gid;
use std::convert::Infallible;
use std::fs::File;
use std::io::{PipeReader, Write};
use std::os::fd::{AsFd, OwnedFd};

/// The exit code of a process that did not get to its program.
pub(super) const FAILED_CODE: i32 = 127;
/// Longest name from a request that stands in a message, in characters.
const NAME_CHARS_MAX: usize = 200;

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    Setup = 1,
    Cgroup,
    Net,
    Rlimit,
    Identity,
    Cwd,
    Terminal,
    Exec,
    Proc,
}

const STAGES: [Stage; 9] = [
    Stage::Setup,
    Stage::Cgroup,
    Stage::Net,
    Stage::Rlimit,
    Stage::Identity,
    Stage::Cwd,
    Stage::Terminal,
    Stage::Exec,
    Stage::Proc,
];

pub(super) type Failure = (Stage, Errno);

/// What is to become of the process.
pub(super) struct Order<'a> {
    pub program: &'a Program,
    /// `None`: a helper, which stays root.
    pub account: Option<&'a Account>,
    /// Its own.
    pub network: Option<OwnedFd>,
    /// The helper in whose mount namespace it is.
    pub merged_proc: Option<i32>,
    pub stdio: Vec<OwnedFd>,
}

/// Makes the process. At the end of the pipe the program runs, or a failure was in it.
///
/// # Errors
/// The kernel's error: no pipe, no process, or (`EEXIST`) the pid is taken.
pub(super) fn begin(order: &Order<'_>, pid: Option<i32>) -> std::io::Result<(i32, PipeReader)> {
    let (from_child, mut to_init) = std::io::pipe()?;
    let forked = match pid {
        Some(pid) => sys::fork_as(pid)?,
        None => sys::fork()?,
    };
    match forked {
        Forked::Parent(pid) => Ok((pid, from_child)),
        Forked::Child => {
            let Err(failure) = become_program(order);
            // Init that cannot be told sees the code.
            let told = to_init.write_all(&pack(failure));
            sys::exit_now(if told.is_ok() { FAILED_CODE } else { FAILED_CODE - 1 })
        }
    }
}

fn pack((stage, errno): Failure) -> [u8; 8] {
    ((stage as u64) << 32 | u64::from(errno as u32)).to_le_bytes()
}

/// What came through the pipe; `None` when nothing did, and the program runs.
pub(super) fn unpack(bytes: &[u8]) -> Option<Failure> {
    let word = u64::from_le_bytes(bytes.try_into().ok()?);
    let stage = STAGES.into_iter().find(|s| *s as u64 == word >> 32)?;
    Some((stage, Errno::from_raw(word as u32 as i32)))
}

fn become_program(order: &Order<'_>) -> Result<Infallible, Failure> {
    let program = order.program;
    let setup = |e| (Stage::Setup, e);
    nix::unistd::setsid().map_err(setup)?;
    sys::default_signals();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(setup)?;
    // Init goes before all others; its programs do not.
    rustix::process::setpriority_process(None, 0).map_err(|e| setup(from_rustix(e)))?;
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE).map_err(|e| setup(errno(&e)))?;
    for dir in &program.cgroups {
        std::fs::write(dir.join("cgroup.procs"), "0").map_err(|e| (Stage::Cgroup, errno(&e)))?;
    }
    if let Some(network) = &order.network {
        setns(network, CloneFlags::CLONE_NEWNET).map_err(|e| (Stage::Net, e))?;
    }
    if let Some(helper) = order.merged_proc {
        // From here on /proc is that of the whole cluster.
        let mounts = File::open(format!("/proc/{helper}/ns/mnt"));
        let mounts = mounts.map_err(|e| (Stage::Proc, errno(&e)))?;
        setns(mounts, CloneFlags::CLONE_NEWNS).map_err(|e| (Stage::Proc, e))?;
    }
    sys::new_session_keyring().map_err(|e| setup(errno(&e)))?;
    rlimits(&program.rlimits).map_err(|e| (Stage::Rlimit, e))?;
    if let Some(account) = order.account {
        // The first too, as initgroups(3) has it: of a program without any CRIU leaves those that
        // it has itself.
        let all = [account.gid].into_iter().chain(account.groups.iter().copied());
        let groups: Vec<Gid> = all.map(Gid::from_raw).collect();
        drop_to(account.uid, account.gid, &groups).map_err(|e| (Stage::Identity, e))?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(program.umask));
    nix::unistd::chdir(&program.cwd).map_err(|e| (Stage::Cwd, e))?;
    stdio(program.stdio, &order.stdio)?;
    sys::close_on_exec_from(3).map_err(|e| setup(errno(&e)))?;
    let exec = Exec::new(&program.argv, &program.env).map_err(|e| (Stage::Exec, e))?;
    Err((Stage::Exec, exec.run()))
}

fn rlimits(asked: &[Rlimit]) -> Result<(), Errno> {
    for r in asked {
        limit(r.kind.resource(), r.soft, r.hard)?;
    }
    Ok(())
}

fn stdio(kind: Stdio, fds: &[OwnedFd]) -> Result<(), Failure> {
    let of = |at: usize| fds.get(at).ok_or((Stage::Setup, Errno::EBADF));
    let (input, out, err) = match kind {
        Stdio::Three => (of(0)?, of(1)?, of(2)?),
        Stdio::Terminal => (of(0)?, of(0)?, of(0)?),
    };
    let setup = |e| (Stage::Setup, e);
    // None of them is below 3: init keeps those open on /dev/null.
    nix::unistd::dup2_stdin(input.as_fd()).map_err(setup)?;
    nix::unistd::dup2_stdout(out.as_fd()).map_err(setup)?;
    nix::unistd::dup2_stderr(err.as_fd()).map_err(setup)?;
    if kind == Stdio::Terminal {
        let taken = rustix::process::ioctl_tiocsctty(input);
        taken.map_err(|e| (Stage::Terminal, from_rustix(e)))?;
    }
    Ok(())
}

fn program_name(program: &Program) -> &str {
    program.argv.first().map_or("", String::as_str)
}

/// The failure in words, for the person.
pub(super) fn reason((stage, errno): Failure, program: &Program) -> Refusal {
    let why = errno.desc();
    let short = |s: &str| s.chars().take(NAME_CHARS_MAX).collect::<String>();
    let name = short(program_name(program));
    match stage {
        Stage::Setup => Refusal::System(format!("cannot prepare the program's process: {why}")),
        Stage::Cgroup => Refusal::System(format!("cannot enter its control group: {why}")),
        Stage::Net => Refusal::System(format!("cannot enter a network of its own: {why}")),
        Stage::Rlimit => Refusal::Program(format!("cannot set a resource limit: {why}")),
        Stage::Identity => Refusal::System(format!("cannot become its account: {why}")),
        Stage::Cwd => {
            let cwd = short(&program.cwd.to_string_lossy());
            Refusal::Program(format!("cannot enter folder {cwd:?} on this node: {why}"))
        }
        Stage::Terminal => Refusal::System(format!("cannot take the terminal: {why}")),
        Stage::Proc => {
            Refusal::System(format!("cannot see the processes of the whole cluster: {why}"))
        }
        Stage::Exec if errno == Errno::ENOEXEC => Refusal::Program(format!(
            "cannot run {name:?}: not a program for this machine, nor a script that begins with #!"
        )),
        Stage::Exec if errno == Errno::ENOENT && !name.contains('/') => {
            let path = short(search_path(&program.env));
            Refusal::Program(format!("cannot run {name:?}: not found in PATH={path:?}"))
        }
        // RLIMIT_NPROC, which execve(2) looks at.
        Stage::Exec if errno == Errno::EAGAIN => Refusal::Program(format!(
            "cannot run {name:?} on this node: its person has as many processes here as they may"
        )),
        Stage::Exec => Refusal::Program(format!("cannot run {name:?} on this node: {why}")),
    }
}

/// It did not become its program in time, in words for the person.
pub(super) fn late(program: &Program) -> Refusal {
    let short = |s: &str| s.chars().take(NAME_CHARS_MAX).collect::<String>();
    let (name, cwd) = (short(program_name(program)), short(&program.cwd.to_string_lossy()));
    Refusal::Program(format!(
        "cannot run {name:?} on this node: it did not begin within {} s; see whether the volume \
         answers on which it, or the folder {cwd:?}, lies",
        START_MS_MAX / 1000
    ))
}

fn from_rustix(e: rustix::io::Errno) -> Errno {
    Errno::from_raw(e.raw_os_error())
}

fn errno(e: &std::io::Error) -> Errno {
    Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_survive_the_pipe() {
        // wrong: a program that could not start would be reported as running
        assert_eq!(unpack(&[]), None);
        assert_eq!(unpack(&[1, 2, 3]), None);
        for stage in STAGES {
            assert_eq!(unpack(&pack((stage, Errno::ENOENT))), Some((stage, Errno::ENOENT)));
        }
    }
}
