//! A unit's process, from fork to exec.
//!
//! Order: own session and default signals; spool files, while still root; resource limits;
//! groups, gid, uid, and proof that root cannot come back; no new privileges; then, as the
//! person: mask, folder, files, exec. What fails is left in shared memory for init to report.
//!
//! Two ways lead there. A unit that touches nothing but the system's own programs and its home
//! is made in init's memory (`vfork`), at half the price. All others are forked: opening a file
//! of the person can wait for ever (a FIFO, a volume), and init must not wait with it. Between
//! the change of identity and exec such a process has root's memory and the person's uid; nobody
//! looks into it, since a change of identity makes memory undumpable (credentials(7), ptrace(2)),
//! and init's is so from the start. A process of the same person can stop it there, and init with
//! it: the shim ends an init that does not carry out a kill.

mod failure;

pub(super) use failure::{Failure, Stage, pack, reason, unpack};

use super::spool::{self, Stream};
use crate::spec::{Account, Rlimit, RlimitKind, UnitSpec};
use crate::sys;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::Gid;
use rustix::fs::{Mode, OFlags};
use rustix::process::Resource;
use std::convert::Infallible;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use xos_ssi::program::{Exec, drop_to, limit};

/// The exit code of a child that did not get to its program.
pub(super) const FAILED_CODE: i32 = 127;
/// How much more readily than the rest the kernel ends a unit when memory is short; see
/// proc_pid_oom_score_adj(5).
const OOM_SCORE: &[u8] = b"300";
/// Folders of the system: root's, local, and reached without waiting for anybody.
const SYSTEM_DIRS: [&str; 6] =
    ["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// What a unit's process needs, made before there is one: in init's memory it must take none.
pub(super) struct Ready<'a> {
    unit: &'a UnitSpec,
    account: &'a Account,
    groups: Vec<Gid>,
    spools: [String; 2],
    exec: Exec,
}

impl<'a> Ready<'a> {
    /// Prepares a unit.
    ///
    /// # Errors
    /// `EINVAL` for texts that the kernel does not take, which the checks of a unit refuse.
    pub(super) fn new(unit: &'a UnitSpec, account: &'a Account) -> Result<Ready<'a>, Errno> {
        Ok(Ready {
            unit,
            account,
            groups: account.groups.iter().map(|g| Gid::from_raw(*g)).collect(),
            spools: [Stream::Stdout, Stream::Stderr].map(|s| s.file_name(&unit.key)),
            exec: Exec::new(&unit.argv, &unit.env)?,
        })
    }

    /// Whether becoming the unit waits for nobody.
    pub(super) fn is_quick(&self) -> bool {
        let u = self.unit;
        let home = u.cwd.as_ref().is_none_or(|cwd| *cwd == self.account.home);
        let system = |p: &CStr| {
            let dir = p.to_str().ok().and_then(|p| p.rsplit_once('/'));
            dir.is_some_and(|(dir, _)| SYSTEM_DIRS.contains(&dir))
        };
        home && !u.make_cwd
            && (&u.stdin, &u.stdout, &u.stderr) == (&None, &None, &None)
            && self.exec.programs().iter().all(|p| system(p))
    }

    /// Becomes the unit; runs in the child. Returns why not.
    pub(super) fn run(&self, spool: BorrowedFd<'_>) -> Failure {
        let Err(failure) = self.become_unit(spool);
        failure
    }

    fn become_unit(&self, spool: BorrowedFd<'_>) -> Result<Infallible, Failure> {
        let (unit, account) = (self.unit, self.account);
        let setup = |e| (Stage::Setup, e);
        nix::unistd::setsid().map_err(setup)?;
        // The only signal that init does not leave at its default.
        sys::default_pipe();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(setup)?;
        std::fs::write("/proc/self/oom_score_adj", OOM_SCORE).map_err(|e| setup(errno(&e)))?;
        let spooled = |name: &String, path: &Option<_>| match path {
            Some(_) => Ok(None),
            None => {
                let made = spool::create(spool, name, account.uid, account.gid);
                made.map(Some).map_err(|e| (Stage::Spool, from_rustix(e)))
            }
        };
        let out = spooled(&self.spools[0], &unit.stdout)?;
        let err = spooled(&self.spools[1], &unit.stderr)?;
        rlimits(&unit.rlimits).map_err(|e| (Stage::Rlimit, e))?;
        let dropped = drop_to(account.uid, account.gid, &self.groups);
        dropped.map_err(|e| (Stage::Identity, e))?;

        let mask = unit.umask.unwrap_or(0o022);
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
        let cwd = unit.cwd.as_deref().unwrap_or(&account.home);
        if unit.make_cwd && !cwd.is_dir() {
            std::fs::create_dir_all(cwd).map_err(|e| (Stage::MakeCwd, errno(&e)))?;
        }
        nix::unistd::chdir(cwd).map_err(|e| (Stage::Cwd, e))?;
        stdio(unit, out, err)?;
        sys::close_from(3).map_err(|e| setup(errno(&e)))?;
        Err((Stage::Exec, self.exec.run()))
    }
}

fn rlimits(asked: &[Rlimit]) -> Result<(), Errno> {
    let none = Rlimit { kind: RlimitKind::Core, value: Some(0) };
    for r in [none].iter().chain(asked) {
        let resource = match r.kind {
            RlimitKind::AddressSpace => Resource::As,
            RlimitKind::Core => Resource::Core,
            RlimitKind::CpuSeconds => Resource::Cpu,
            RlimitKind::Data => Resource::Data,
            RlimitKind::FileSize => Resource::Fsize,
            RlimitKind::OpenFiles => Resource::Nofile,
            RlimitKind::Locked => Resource::Memlock,
            RlimitKind::Stack => Resource::Stack,
        };
        // Within the node's hard limit only the soft one moves down with the hard one; a core
        // limit of 0 stays changeable for the person.
        let hard = if *r == none { None } else { r.value };
        limit(resource, r.value, hard)?;
    }
    Ok(())
}

fn stdio(unit: &UnitSpec, out: Option<OwnedFd>, err: Option<OwnedFd>) -> Result<(), Failure> {
    let open = |path: &Path, flags: OFlags| {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        rustix::fs::open(path, flags, Mode::from_raw_mode(0o666)).map_err(from_rustix)
    };
    let write = |path: &Path| open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC);
    let input = unit.stdin.as_deref().unwrap_or(Path::new("/dev/null"));
    let input = open(input, OFlags::RDONLY).map_err(|e| (Stage::Stdin, e))?;
    let out = match (&unit.stdout, out) {
        (Some(path), _) => write(path).map_err(|e| (Stage::Stdout, e))?,
        (None, Some(fd)) => fd,
        (None, None) => return Err((Stage::Stdout, Errno::EBADF)),
    };
    let shared = unit.stderr.is_some() && unit.stderr == unit.stdout;
    let err = match (&unit.stderr, err) {
        (Some(_), _) if shared => out.try_clone().map_err(|e| (Stage::Stderr, errno(&e)))?,
        (Some(path), _) => write(path).map_err(|e| (Stage::Stderr, e))?,
        (None, Some(fd)) => fd,
        (None, None) => return Err((Stage::Stderr, Errno::EBADF)),
    };
    let setup = |e| (Stage::Setup, e);
    // None of the three is below 3: init keeps those open on /dev/null.
    nix::unistd::dup2_stdin(input.as_fd()).map_err(setup)?;
    nix::unistd::dup2_stdout(out.as_fd()).map_err(setup)?;
    nix::unistd::dup2_stderr(err.as_fd()).map_err(setup)
}

fn from_rustix(e: rustix::io::Errno) -> Errno {
    Errno::from_raw(e.raw_os_error())
}

fn errno(e: &std::io::Error) -> Errno {
    Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))
}
