//! One run of CRIU: in a session of its own, with a folder for what it writes about itself.

use super::error::{DriverError, Step};
use super::sys::{self, As, Child, Rights};
use super::{Cell, images, proc};
use crate::cell::proto::{Rlimit, RlimitKind};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Error, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::process::Command;

/// Where CRIU finds what it calls.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// The folder that is CRIU's own, and its log there.
const OWN: &str = "own";
const LOG: &str = "log";
/// What it wrote outside of its log.
const OUTPUT: &str = "output";
/// The most that is read of a file that CRIU wrote about itself, in bytes.
const READ_MAX: u64 = 1 << 20;
/// From one look to the next whether CRIU is stopped, and in how many of them, one after the other,
/// it is for it to be given up.
const HALTED_LOOK: Duration = Duration::from_secs(1);
const HALTED_LOOKS: u32 = 5;
/// Folders of runs that failed, of which the newest are kept.
const LOGS_KEPT: usize = 128;

/// A run that is being prepared.
pub(super) struct Run {
    step: Step,
    limit: Duration,
    cell: Option<Cell>,
    /// A process in whose time namespace it runs.
    clocks_of: Option<i32>,
    /// Of a time namespace of its own.
    clocks: Option<String>,
    arguments: Vec<OsString>,
    cgroups: Vec<OwnedFd>,
    kept: Vec<OwnedFd>,
    network: Option<OwnedFd>,
    rights: Rights,
    /// Of processes of its person.
    processes: Option<Rlimit>,
    work: PathBuf,
}

/// A run that ended.
pub(super) struct Ended {
    /// Whether it did what it should.
    pub(super) good: bool,
    /// Whether a signal ended it.
    pub(super) killed: bool,
    /// Whose it was.
    uid: u32,
    work: PathBuf,
}

impl Run {
    /// A run with a new folder below `logs`, by root.
    pub(super) fn new(logs: &Path, step: Step, limit: Duration) -> Result<Run, DriverError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let failed = || DriverError::system(format!("make a folder in {}", logs.display()));
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder.recursive(true).create(logs).map_err(failed())?;
        prune(logs).map_err(failed())?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let work = logs.join(format!("{step:?}-{}-{number}", std::process::id()).to_lowercase());
        builder.recursive(false).create(&work).map_err(failed())?;
        builder.create(work.join(OWN)).map_err(failed())?;
        Ok(Run {
            step,
            limit,
            cell: None,
            clocks_of: None,
            clocks: None,
            arguments: Vec::new(),
            cgroups: Vec::new(),
            kept: Vec::new(),
            network: None,
            rights: Rights::Root { person: None, real: None },
            processes: None,
            work,
        })
    }

    /// Has it run in the namespaces of `cell`.
    pub(super) fn within(&mut self, cell: Option<Cell>) {
        self.cell = cell;
    }

    /// Has it run with these rights, and write about itself with them.
    pub(super) fn with(&mut self, rights: Rights) -> Result<(), DriverError> {
        if let Rights::Person(As { uid, gid, .. }) = &rights {
            let own = self.work.join(OWN);
            let given = chown(&own, Some(*uid), Some(*gid));
            given.map_err(DriverError::system(format!("give {} away", own.display())))?;
        }
        self.rights = rights;
        Ok(())
    }

    /// Has a person's have no more of these limits than their program, as far as they hold for all
    /// of the person's processes. Others are not meant for CRIU, which needs more files and memory.
    pub(super) fn limited(&mut self, most: &[Rlimit]) {
        self.processes = most.iter().find(|limit| limit.kind == RlimitKind::Processes).copied();
    }

    /// Has it run in this network instead of the driver's; only in a cell.
    pub(super) fn in_network(&mut self, network: OwnedFd) {
        self.network = Some(network);
    }

    /// Has it run by the clocks of a process.
    pub(super) fn by_clocks_of(&mut self, pid: i32) {
        self.clocks_of = Some(pid);
    }

    /// Has it run by clocks of its own, which are so far from the machine's
    /// (`/proc/PID/timens_offsets`, time_namespaces(7)).
    pub(super) fn by_clocks(&mut self, offsets: Option<String>) {
        self.clocks = offsets;
    }

    /// Has it run in the control group with this folder, also what it starts.
    pub(super) fn in_cgroup(&mut self, folder: &Path) -> Result<(), DriverError> {
        let procs = folder.join("cgroup.procs");
        let file = OpenOptions::new().write(true).open(&procs);
        let doing = format!("enter the control group {}", folder.display());
        self.cgroups.push(file.map_err(DriverError::system(doing))?.into());
        Ok(())
    }

    /// Adds arguments.
    pub(super) fn arguments<I: IntoIterator<Item: Into<OsString>>>(&mut self, arguments: I) {
        self.arguments.extend(arguments.into_iter().map(Into::into));
    }

    /// Hands a descriptor on; returns the number that it has there.
    pub(super) fn keep(&mut self, fd: OwnedFd) -> i32 {
        let number = fd.as_raw_fd();
        self.kept.push(fd);
        number
    }

    /// Writes a program for the run beside its log; returns what CRIU, which is in that folder,
    /// finds it by.
    pub(super) fn script(&self, name: &str, text: &str) -> Result<String, DriverError> {
        let path = self.work.join(OWN).join(name);
        let failed = || DriverError::system(format!("write {}", path.display()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path);
        let written = file.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            // Whoever comes to it may run it; nobody else does.
            file.set_permissions(Permissions::from_mode(0o755))
        });
        written.map_err(failed())?;
        Ok(format!("./{name}"))
    }

    /// Hands the folder that is CRIU's own on.
    fn keep_own(&mut self) -> Result<String, DriverError> {
        let path = self.work.join(OWN);
        let how = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let folder = OpenOptions::new().read(true).custom_flags(how).open(&path);
        let folder = folder.map_err(DriverError::system(format!("open {}", path.display())))?;
        Ok(format!("/proc/self/fd/{}", self.keep(folder.into())))
    }

    /// Adds what every run on images has, for `command`.
    pub(super) fn command(&mut self, command: &[&str], images: &Path) -> Result<(), DriverError> {
        let images = images::Folder::open(images)?.into_fd();
        let images = format!("/proc/self/fd/{}", self.keep(images));
        let work = self.keep_own()?;
        self.arguments(command.iter().copied());
        self.arguments(["--no-default-config", "--images-dir", &images, "--work-dir", &work]);
        self.arguments(["--log-file", LOG, "-v2"]);
        Ok(())
    }

    /// Runs `program`.
    ///
    /// # Errors
    /// When it cannot be started or is broken off; that it failed stands in [`Ended`].
    pub(super) async fn run(mut self, program: &Path) -> Result<Ended, DriverError> {
        let starting = || DriverError::system(format!("run {}", program.display()));
        let output = self.work.join(OUTPUT);
        let output = OpenOptions::new().write(true).create_new(true).mode(0o600).open(output);
        let output = output.map_err(starting())?;
        let errors = output.try_clone().map_err(starting())?;
        let namespaces = self.namespaces();
        let namespaces = namespaces.map_err(DriverError::system("open the namespaces of CRIU"))?;
        let uid = match &self.rights {
            Rights::Root { .. } => rustix::process::geteuid().as_raw(),
            Rights::Person(of) => of.uid,
        };
        let mut command = Command::new(program);
        command.args(&self.arguments).env_clear().env("PATH", PATH);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = Child {
            cgroups: self.cgroups,
            kept: self.kept,
            namespaces,
            clocks: self.clocks,
            rights: self.rights,
            processes: self.processes,
        };
        let below = child.clocks.is_some() || !child.namespaces.is_empty();
        sys::prepare(&mut command, child);
        let mut child = command.spawn().map_err(|e| match e.kind() {
            ErrorKind::NotFound => {
                DriverError::Unable { why: format!("there is no {}", program.display()) }
            }
            _ => starting()(e),
        })?;
        // The descriptors that it has now would keep pipes open.
        drop(command);
        let mut session = Session::of(child.id());
        let broken_off = {
            let halted = halted(session.0, below);
            tokio::select! {
                ended = tokio::time::timeout(self.limit, child.wait()) => ended.map_err(|_| {
                    DriverError::TimedOut { step: self.step, limit: self.limit }
                }),
                after = halted => Err(DriverError::Halted { step: self.step, after }),
            }
        };
        let status = match broken_off {
            Ok(status) => status.map_err(starting())?,
            Err(error) => {
                drop(session);
                child.wait().await.map_err(starting())?;
                return Err(error);
            }
        };
        session.0 = None;
        let killed = status.code().is_none_or(|code| code >= sys::SIGNAL_CODE);
        Ok(Ended { good: status.success(), killed, uid, work: self.work })
    }

    /// Those that it enters.
    fn namespaces(&mut self) -> std::io::Result<Vec<OwnedFd>> {
        let open = |pid: i32, name: &str| File::open(format!("/proc/{pid}/ns/{name}"));
        let mut all = Vec::new();
        if let Some(cell) = self.cell {
            for name in ["ipc", "pid", "mnt"] {
                all.push(open(cell.pid, name)?.into());
            }
            all.extend(self.network.take());
        }
        if let Some(pid) = self.clocks_of {
            match open(pid, "time") {
                Ok(clocks) => all.push(clocks.into()),
                // A kernel that has none.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(all)
    }
}

impl Ended {
    /// A file that it wrote about itself, bounded; empty when there is none.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, DriverError> {
        let path = self.work.join(OWN).join(name);
        read(&path, self.uid).map_err(DriverError::system(format!("read {}", path.display())))
    }

    /// What it said, in its log and elsewhere.
    pub(super) fn said(&self) -> Result<String, DriverError> {
        let path = self.work.join(OUTPUT);
        let output = read(&path, rustix::process::geteuid().as_raw());
        let output = output.map_err(DriverError::system(format!("read {}", path.display())))?;
        let bytes = [self.read(LOG)?, output].concat();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Where its log is.
    pub(super) fn log(&self) -> PathBuf {
        self.work.join(OWN).join(LOG)
    }

    /// Removes what it wrote about itself.
    pub(super) fn forget(self) -> Result<(), DriverError> {
        let doing = format!("remove {}", self.work.display());
        std::fs::remove_dir_all(&self.work).map_err(DriverError::system(doing))
    }
}

/// A plain file of this user's. Who runs with a person's rights may have put anything in its place.
fn read(path: &Path, uid: u32) -> std::io::Result<Vec<u8>> {
    let how = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(how).open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.uid() != uid {
        return Err(Error::new(ErrorKind::InvalidData, "it is not what CRIU wrote"));
    }
    let mut bytes = Vec::new();
    file.take(READ_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns once CRIU was found stopped (`T`, proc_pid_stat(5)) again and again, and for how long:
/// with a person's rights it can be stopped by what they run, and would be waited for to the limit.
/// `below`: CRIU is the child of the run's process, `leader`, which waits for it.
async fn halted(leader: Option<Pid>, below: bool) -> Duration {
    let Some(leader) = leader else { return std::future::pending().await };
    let mut looks = 0;
    while looks < HALTED_LOOKS {
        tokio::time::sleep(HALTED_LOOK).await;
        looks = if stands(leader.as_raw(), below) { looks + 1 } else { 0 };
    }
    HALTED_LOOK * looks
}

/// Whether CRIU is stopped just now.
fn stands(leader: i32, below: bool) -> bool {
    let pid = match below {
        true => {
            let children = proc::text(&proc::of(leader, &format!("task/{leader}/children")));
            let first = |all: String| all.split_whitespace().next()?.parse::<i32>().ok();
            children.ok().and_then(first)
        }
        false => Some(leader),
    };
    // One that has ended is waited for.
    pid.is_some_and(|pid| proc::stat(pid).is_ok_and(|stat| stat.state == 'T'))
}

/// The session that a run's process leads: ended with all that is in it, when it is not awaited
/// to its end.
struct Session(Option<Pid>);

impl Session {
    fn of(leader: Option<u32>) -> Session {
        Session(leader.and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(leader) = self.0 else { return };
        // The leader was not waited for, so that the number is still its own.
        if let Err(error) = killpg(leader, Signal::SIGKILL) {
            tracing::warn!(%leader, %error, "cannot end CRIU");
        }
    }
}

/// Removes the oldest folders of runs.
fn prune(logs: &Path) -> std::io::Result<()> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(logs)? {
        let entry = entry?;
        match entry.metadata().and_then(|metadata| metadata.modified()) {
            Ok(modified) => found.push((modified, entry.path())),
            // Another run ended.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    found.sort();
    let many = found.len().saturating_sub(LOGS_KEPT);
    for (_, path) in found.drain(..many) {
        match std::fs::remove_dir_all(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
