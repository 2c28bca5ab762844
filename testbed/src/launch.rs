//! Starting the helper program.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::Context as _;
use crate::identity::ProcessId;
use crate::status::{Message, StatusReader};
use crate::{Error, Result, sys};

/// The helper program's name.
const HELPER: &str = "testbed";
/// How long a helper may take to set something up; machines under test are busy.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(60);
/// Folders above the running program in which the helper is looked for: `target/debug/deps`.
const FOLDERS_UP_MAX: usize = 3;

/// The pipe that ends a testbed's processes with the process that holds this.
#[derive(Debug)]
pub(crate) struct Lifeline {
    read: OwnedFd,
    _write: OwnedFd,
}

impl Lifeline {
    pub(crate) fn new() -> Result<Self> {
        let (read, write) = std::io::pipe().context(|| "making a pipe".to_owned())?;
        Ok(Lifeline { read: read.into(), _write: write.into() })
    }

    /// The standard input of a process that shall end with the holder, if there is one.
    pub(crate) fn stdin(lifeline: Option<&Self>) -> Result<Stdio> {
        match lifeline {
            None => Ok(Stdio::null()),
            Some(line) => {
                let end = line.read.try_clone().context(|| "copying a pipe".to_owned())?;
                Ok(Stdio::from(end))
            }
        }
    }
}

/// Finds the helper program.
pub(crate) fn find_helper(configured: Option<&Path>) -> Result<PathBuf> {
    let tried: Vec<PathBuf> = match configured {
        Some(path) => vec![path.to_owned()],
        None => {
            let own = std::env::current_exe().context(|| "finding this program".to_owned())?;
            own.ancestors().skip(1).take(FOLDERS_UP_MAX).map(|dir| dir.join(HELPER)).collect()
        }
    };
    match tried.iter().find(|path| path.is_file()) {
        Some(path) => path.canonicalize().context(|| format!("finding {}", path.display())),
        None => Err(Error::NoHelper { tried }),
    }
}

/// A call of the helper program: `testbed <action> --dir <dir> --status-fd <n> ...`.
pub(crate) struct Call {
    pub(crate) command: Command,
    status: StatusReader,
}

impl Call {
    /// `action` for the testbed in `dir`, without standard input, its words to the testbed's log.
    pub(crate) fn new(helper: &Path, action: &str, dir: &Path) -> Result<Self> {
        let (read, write) = std::io::pipe().context(|| "making a pipe".to_owned())?;
        let log = open_log(&dir.join("logs/testbed.log"))?;
        let err = log.try_clone().context(|| "copying a log".to_owned())?;
        let mut command = Command::new(helper);
        let number = sys::inherit(&mut command, write.into());
        command.arg(action).arg("--dir").arg(dir).args(["--status-fd", &number.to_string()]);
        command.env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(log).stderr(err);
        Ok(Call { command, status: StatusReader::new(read.into()) })
    }

    /// Adds an argument.
    pub(crate) fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.command.arg(arg);
        self
    }

    /// Runs the helper until it, or the process it leaves behind, is ready; answers that process.
    pub(crate) fn run(self, what: impl Fn() -> String) -> Result<Started> {
        let Call { mut command, mut status } = self;
        let mut child = command.spawn().context(|| "starting the helper program".to_owned())?;
        // Its copy of the pipe's writing end: without this the end of the helper is never seen.
        drop(command);
        let answer = answer(&mut status, &what);
        let waiting = || "waiting for the helper program".to_owned();
        if answer.is_err() {
            child.kill().context(waiting)?;
        }
        // The helper leaves a process behind and ends, so this does not wait long.
        let ended = child.wait().context(waiting);
        let pid = answer?;
        ended?;
        Ok(Started { process: ProcessId::of(pid), pid, status })
    }
}

/// What a helper left behind.
pub(crate) struct Started {
    /// Its identity; an error if it has ended already.
    pub(crate) process: Result<ProcessId>,
    pub(crate) pid: i32,
    pub(crate) status: StatusReader,
}

fn answer(status: &mut StatusReader, what: &impl Fn() -> String) -> Result<i32> {
    let failed = |reason: String| Error::Start { what: what(), reason };
    let deadline = Instant::now() + START_LIMIT;
    // Parent and child of the helper answer each for itself: in any order.
    let (mut pid, mut ready) = (None, false);
    loop {
        if let (Some(pid), true) = (pid, ready) {
            return Ok(pid);
        }
        match status.next(Some(deadline))? {
            None => return Err(Error::Deadline { what: what(), limit: START_LIMIT }),
            Some(Message::Pid(number)) => pid = Some(number),
            Some(Message::Ready) => ready = true,
            Some(Message::Error(reason)) => return Err(failed(reason)),
            Some(other) => return Err(failed(format!("unexpected answer {other:?}"))),
        }
    }
}

/// Opens a log for appending, making its folder.
pub(crate) fn open_log(path: &Path) -> Result<File> {
    let what = || format!("opening the log {}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).context(what)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o644).open(path).context(what)
}
