//! A unit's process, from fork to exec.
//!
//! Order: own session and default signals; spool files, while still root; resource limits;
//! groups, gid, uid, and proof that root cannot come back; no new privileges; then, as the
//! person: mask, folder, files, exec. What fails is left in shared memory for init to report.

use super::spool::{self, Stream};
use crate::spec::{Account, Rlimit, RlimitKind, UnitSpec};
use crate::sys::{self, Slots};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{Gid, Uid};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit as Pair};
use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The exit code of a child that did not get to its program.
pub(super) const FAILED_CODE: i32 = 127;
/// How much more readily than the rest the kernel ends a unit when memory is short; see
/// proc_pid_oom_score_adj(5).
const OOM_SCORE: &[u8] = b"300";
/// Where programs are looked for when the unit's environment has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";
/// Longest name from a unit that stands in a message, in characters.
const NAME_CHARS_MAX: usize = 200;

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    Setup = 1,
    Spool,
    Rlimit,
    Identity,
    Cwd,
    Stdin,
    Stdout,
    Stderr,
    Exec,
}

const STAGES: [Stage; 9] = [
    Stage::Setup,
    Stage::Spool,
    Stage::Rlimit,
    Stage::Identity,
    Stage::Cwd,
    Stage::Stdin,
    Stage::Stdout,
    Stage::Stderr,
    Stage::Exec,
];

type Failure = (Stage, Errno);

/// A failure as one word, never 0.
fn pack((stage, errno): Failure) -> u64 {
    (stage as u64) << 32 | u64::from(errno as u32)
}

/// What [`pack`] made; `None` for 0, which stands for no failure.
pub(super) fn unpack(word: u64) -> Option<(Stage, Errno)> {
    let stage = STAGES.into_iter().find(|s| *s as u64 == word >> 32)?;
    Some((stage, Errno::from_raw(word as u32 as i32)))
}

/// The failure in words, for the person.
pub(super) fn reason((stage, errno): Failure, unit: &UnitSpec, account: &Account) -> String {
    let why = errno.desc();
    let short = |s: &str| s.chars().take(NAME_CHARS_MAX).collect::<String>();
    let path =
        |p: Option<&Path>| format!("{:?}", short(&p.unwrap_or(&account.home).to_string_lossy()));
    let program = short(unit.argv.first().map_or("", String::as_str));
    let as_user = format!("as {}", account.name);
    match stage {
        Stage::Setup => format!("cannot prepare the unit's process: {why}"),
        Stage::Spool => format!("cannot make a file for the unit's output on this node: {why}"),
        Stage::Rlimit => format!("cannot set a resource limit that the unit asks for: {why}"),
        Stage::Identity => format!("cannot become {}: {why}", account.name),
        Stage::Cwd => format!("cannot enter folder {} {as_user}: {why}", path(unit.cwd.as_deref())),
        Stage::Stdin => {
            format!(
                "cannot read standard input from {} {as_user}: {why}",
                path(unit.stdin.as_deref())
            )
        }
        Stage::Stdout => {
            format!(
                "cannot write standard output to {} {as_user}: {why}",
                path(unit.stdout.as_deref())
            )
        }
        Stage::Stderr => {
            format!(
                "cannot write standard error to {} {as_user}: {why}",
                path(unit.stderr.as_deref())
            )
        }
        Stage::Exec if errno == Errno::ENOEXEC => {
            format!(
                "cannot run {program:?}: not a program for this machine, nor a script that begins with #!"
            )
        }
        Stage::Exec if errno == Errno::ENOENT && !program.contains('/') => {
            format!("cannot run {program:?}: not found in PATH={:?}", short(search_path(unit)))
        }
        Stage::Exec => format!("cannot run {program:?} {as_user}: {why}"),
    }
}

/// Becomes the unit. Runs in the child and does not return.
pub(super) fn run(
    unit: &UnitSpec,
    account: &Account,
    spool: BorrowedFd<'_>,
    slots: &Slots,
    slot: usize,
) -> ! {
    let Err(failure) = become_unit(unit, account, spool);
    slots.set(slot, pack(failure));
    sys::exit_now(FAILED_CODE)
}

fn become_unit(
    unit: &UnitSpec,
    account: &Account,
    spool: BorrowedFd<'_>,
) -> Result<Infallible, Failure> {
    let setup = |e| (Stage::Setup, e);
    nix::unistd::setsid().map_err(setup)?;
    sys::default_signals();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(setup)?;
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE).map_err(|e| setup(errno(&e)))?;
    let spooled = |stream: Stream, path: &Option<_>| match path {
        Some(_) => Ok(None),
        None => {
            let name = stream.file_name(&unit.key);
            let made = spool::create(spool, &name, account.uid, account.gid);
            made.map(Some).map_err(|e| (Stage::Spool, from_rustix(e)))
        }
    };
    let out = spooled(Stream::Stdout, &unit.stdout)?;
    let err = spooled(Stream::Stderr, &unit.stderr)?;
    rlimits(&unit.rlimits).map_err(|e| (Stage::Rlimit, e))?;
    drop_to(account).map_err(|e| (Stage::Identity, e))?;

    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(unit.umask.unwrap_or(0o022)));
    let cwd = unit.cwd.as_deref().unwrap_or(&account.home);
    if unit.make_cwd && !cwd.is_dir() {
        std::fs::create_dir_all(cwd).map_err(|e| (Stage::Cwd, errno(&e)))?;
    }
    nix::unistd::chdir(cwd).map_err(|e| (Stage::Cwd, e))?;
    stdio(unit, out, err)?;
    sys::close_from(3).map_err(|e| setup(errno(&e)))?;
    Err((Stage::Exec, exec(unit)))
}

/// Gives up root for good.
fn drop_to(account: &Account) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    let groups: Vec<Gid> = account.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    nix::unistd::setgroups(&groups)?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    rustix::thread::set_no_new_privs(true).map_err(from_rustix)?;
    let now_uid = nix::unistd::getresuid()?;
    let now_gid = nix::unistd::getresgid()?;
    let caps = rustix::thread::capabilities(None).map_err(from_rustix)?;
    let dropped = [now_uid.real, now_uid.effective, now_uid.saved].iter().all(|u| *u == uid)
        && [now_gid.real, now_gid.effective, now_gid.saved].iter().all(|g| *g == gid)
        && caps.effective.is_empty()
        && caps.permitted.is_empty()
        && nix::unistd::setuid(Uid::from_raw(0)).is_err();
    if dropped { Ok(()) } else { Err(Errno::EPERM) }
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
        let hard = rustix::process::getrlimit(resource).maximum;
        let least = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let current = least(r.value, hard);
        let maximum = if *r == none { hard } else { current };
        let pair = Pair { current, maximum };
        rustix::process::setrlimit(resource, pair).map_err(from_rustix)?;
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

fn search_path(unit: &UnitSpec) -> &str {
    unit.env.iter().find(|(n, _)| n == "PATH").map_or(PATH_DEFAULT, |(_, v)| v)
}

/// Runs the program; returns why not. As execvp(3), without its shell for files that are no
/// program.
fn exec(unit: &UnitSpec) -> Errno {
    let text = |s: String| CString::new(s).map_err(|_| Errno::EINVAL);
    let argv: Result<Vec<_>, _> = unit.argv.iter().map(|a| text(a.clone())).collect();
    let env: Result<Vec<_>, _> = unit.env.iter().map(|(n, v)| text(format!("{n}={v}"))).collect();
    let (argv, env) = match (argv, env) {
        (Ok(argv), Ok(env)) => (argv, env),
        _ => return Errno::EINVAL,
    };
    let Some(program) = unit.argv.first() else { return Errno::ENOENT };
    let attempt = |path: String| match text(path) {
        Ok(path) => sys::exec(&path, &argv, &env),
        Err(e) => e,
    };
    if program.contains('/') {
        return attempt(program.clone());
    }
    let mut worst = Errno::ENOENT;
    for dir in search_path(unit).split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        match attempt(format!("{dir}/{program}")) {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => worst = Errno::EACCES,
            other => return other,
        }
    }
    worst
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
    fn failures_survive_the_shared_word() {
        // wrong: a unit that could not start would be reported as "exit 127"
        assert_eq!(unpack(0), None);
        for stage in STAGES {
            assert_eq!(unpack(pack((stage, Errno::ENOENT))), Some((stage, Errno::ENOENT)));
        }
    }

    #[test]
    fn reasons_are_bounded_and_name_the_thing() {
        // wrong: a 100 kB program name would make a log line that no reader accepts
        let unit: UnitSpec = serde_json::from_value(serde_json::json!({
            "key": "1.a:0", "argv": ["x".repeat(100_000)], "env": [["PATH", "/p".repeat(9000)]],
        }))
        .unwrap();
        let account = Account {
            uid: 70000,
            gid: 70000,
            groups: vec![],
            name: "ann.demo".into(),
            home: "/home/ann".into(),
        };
        let text = reason((Stage::Exec, Errno::ENOENT), &unit, &account);
        assert!(text.len() < 1000 && text.contains("PATH="), "{text}");
        let text = reason((Stage::Cwd, Errno::EACCES), &unit, &account);
        assert!(text.contains("/home/ann") && text.contains("Permission denied"), "{text}");
    }
}
