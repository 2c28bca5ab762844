//! One run of CRIU: in a session of its own, with a folder for what it writes about itself.

use super::error::{DriverError, Step};
use super::limits::RealIds;
use super::{Cell, images, sys};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::process::Command;

/// Of util-linux.
const NSENTER: &str = "/usr/bin/nsenter";
/// Where CRIU finds what it calls.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// CRIU's log, and what it wrote outside of it.
const LOG: &str = "log";
const OUTPUT: &str = "output";
/// The most that is read of a file that CRIU wrote about itself, in bytes.
const READ_MAX: u64 = 1 << 20;
/// Folders of runs that failed, of which the newest are kept.
const LOGS_KEPT: usize = 128;

/// A run that is being prepared.
pub(super) struct Run {
    step: Step,
    limit: Duration,
    cell: Option<Cell>,
    arguments: Vec<OsString>,
    cgroups: Vec<OwnedFd>,
    kept: Vec<OwnedFd>,
    /// The number of a descriptor of a network.
    network: Option<i32>,
    person: Option<u32>,
    real: Option<RealIds>,
    work: PathBuf,
}

/// A run that ended.
pub(super) struct Ended {
    /// Whether it did what it should.
    pub(super) good: bool,
    work: PathBuf,
}

impl Run {
    /// A run with a new folder below `logs`.
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
        let (cgroups, kept) = (Vec::new(), Vec::new());
        let arguments = Vec::new();
        Ok(Run {
            step,
            limit,
            cell: None,
            arguments,
            cgroups,
            kept,
            network: None,
            person: None,
            real: None,
            work,
        })
    }

    /// Has it run in the namespaces of `cell`.
    pub(super) fn within(&mut self, cell: Option<Cell>) {
        self.cell = cell;
    }

    /// Has it act for this person, by their uid, on volumes.
    pub(super) fn for_person(&mut self, uid: u32) {
        self.person = Some(uid);
    }

    /// Has it run in this network instead of the driver's; only in a cell.
    pub(super) fn in_network(&mut self, network: OwnedFd) {
        self.network = Some(self.keep(network));
    }

    /// Has it run with these real ids, and root's effective ones.
    pub(super) fn with_real(&mut self, ids: Option<RealIds>) {
        self.real = ids;
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

    /// Hands a folder on, wherever it is: returns its path in any cell.
    fn keep_folder(&mut self, folder: &Path) -> Result<String, DriverError> {
        let fd = images::Folder::open(folder)?.into_fd();
        Ok(format!("/proc/self/fd/{}", self.keep(fd)))
    }

    /// Adds what every run on images has, for `command`.
    pub(super) fn command(&mut self, command: &[&str], images: &Path) -> Result<(), DriverError> {
        let images = self.keep_folder(images)?;
        let work = self.keep_folder(&self.work.clone())?;
        self.arguments(command.iter().copied());
        self.arguments(["--no-default-config", "--images-dir", &images, "--work-dir", &work]);
        self.arguments(["--log-file", LOG, "-v2"]);
        Ok(())
    }

    /// Runs `program`.
    ///
    /// # Errors
    /// When it cannot be started or is broken off; that it failed stands in [`Ended`].
    pub(super) async fn run(self, program: &Path) -> Result<Ended, DriverError> {
        let starting = || DriverError::system(format!("run {}", program.display()));
        let output = self.work.join(OUTPUT);
        let output = OpenOptions::new().write(true).create_new(true).mode(0o600).open(output);
        let output = output.map_err(starting())?;
        let errors = output.try_clone().map_err(starting())?;
        let mut command = match self.cell {
            None => Command::new(program),
            Some(cell) => {
                let mut command = Command::new(NSENTER);
                command.arg("--target").arg(cell.pid.to_string()).args(["--pid", "--mount"]);
                command.args(self.network.map(|fd| format!("--net=/proc/self/fd/{fd}")));
                command.arg("--").arg(program);
                command
            }
        };
        command.args(&self.arguments).env_clear().env("PATH", PATH);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        sys::prepare(&mut command, self.cgroups, self.kept, self.person, self.real);
        let mut child = command.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                DriverError::Unable { why: format!("there is no {}", program.display()) }
            }
            _ => starting()(e),
        })?;
        // The descriptors that it has now would keep pipes open.
        drop(command);
        let mut session = Session::of(child.id());
        let status = tokio::time::timeout(self.limit, child.wait()).await;
        let Ok(status) = status else {
            drop(session);
            child.wait().await.map_err(starting())?;
            return Err(DriverError::TimedOut { step: self.step, limit: self.limit });
        };
        let status = status.map_err(starting())?;
        session.0 = None;
        Ok(Ended { good: status.success(), work: self.work })
    }
}

impl Ended {
    /// A file that it wrote about itself, bounded; empty when there is none.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, DriverError> {
        let path = self.work.join(name);
        let failed = || DriverError::system(format!("read {}", path.display()));
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => file.take(READ_MAX).read_to_end(&mut bytes).map_err(failed())?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
            Err(e) => return Err(failed()(e)),
        };
        Ok(bytes)
    }

    /// What it said, in its log and elsewhere.
    pub(super) fn said(&self) -> Result<String, DriverError> {
        let bytes = [self.read(LOG)?, self.read(OUTPUT)?].concat();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Where its log is.
    pub(super) fn log(&self) -> PathBuf {
        self.work.join(LOG)
    }

    /// Removes what it wrote about itself.
    pub(super) fn forget(self) -> Result<(), DriverError> {
        let doing = format!("remove {}", self.work.display());
        std::fs::remove_dir_all(&self.work).map_err(DriverError::system(doing))
    }
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
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    found.sort();
    let many = found.len().saturating_sub(LOGS_KEPT);
    for (_, path) in found.drain(..many) {
        match std::fs::remove_dir_all(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
