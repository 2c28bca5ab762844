//! The process that is a seat's agent: known by the lock that it holds, and killed when it hangs.

use super::LOCK_FILE;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the kernel may take to end a process that was killed.
const DEATH_MAX: Duration = Duration::from_secs(20);
/// How often a lock is tried.
const LOOK: Duration = Duration::from_millis(20);

/// Writes down which process this is, in the lock that it holds.
///
/// # Errors
/// Those of the disk.
pub(super) fn note(mut lock: &File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.write_all(std::process::id().to_string().as_bytes())
}

/// Waits until no agent holds the lock of a folder, at most so long; whether that is so.
///
/// # Errors
/// Those of the disk.
pub(super) fn is_gone(folder: &Path, within: Duration) -> io::Result<bool> {
    let Some(lock) = open(folder)? else { return Ok(true) };
    let until = Instant::now() + within;
    loop {
        if is_free(&lock)? {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        std::thread::sleep(LOOK);
    }
}

/// Kills the agent of a folder, if one lives. Waits.
///
/// # Errors
/// That it is not known which process it is, or that it does not end.
pub(super) fn kill(folder: &Path) -> io::Result<()> {
    let Some(lock) = open(folder)? else { return Ok(()) };
    if is_free(&lock)? {
        return Ok(());
    }
    let unknown = || {
        let file = folder.join(LOCK_FILE);
        io::Error::other(format!("the agent that holds {file:?} is not known: end it by hand"))
    };
    let text = std::fs::read_to_string(folder.join(LOCK_FILE))?;
    let pid = text.trim().parse::<i32>().ok().filter(|pid| *pid > 0).ok_or_else(unknown)?;
    let of = Pid::from_raw(pid).ok_or_else(unknown)?;
    // From here on it is this process, even if its pid is another one's later.
    let process = pidfd_open(of, PidfdFlags::empty()).map_err(|_| unknown())?;
    if !holds(pid, &lock)? {
        return Err(unknown());
    }
    tracing::warn!(pid, "an agent that hangs is killed");
    pidfd_send_signal(&process, Signal::KILL)?;
    let most = Timespec::try_from(DEATH_MAX).unwrap_or_default();
    let ended = rustix::io::retry_on_intr(|| {
        rustix::event::poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&most))
    })?;
    match ended {
        0 => Err(io::Error::other(format!("process {pid}, a killed agent, does not end"))),
        _ => Ok(()),
    }
}

fn open(folder: &Path) -> io::Result<Option<File>> {
    match File::open(folder.join(LOCK_FILE)) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn is_free(lock: &File) -> io::Result<bool> {
    match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            rustix::fs::flock(lock, FlockOperation::Unlock)?;
            Ok(true)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Whether a process has the file open.
fn holds(pid: i32, file: &File) -> io::Result<bool> {
    let wanted = file.metadata()?;
    let entries = match std::fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let same = |path: &Path| {
        let found = std::fs::metadata(path);
        found.is_ok_and(|m| (m.dev(), m.ino()) == (wanted.dev(), wanted.ino()))
    };
    Ok(entries.flatten().any(|entry| same(&entry.path())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};

    fn lock(folder: &Path) -> File {
        let mut how = File::options();
        how.read(true).write(true).create(true).truncate(false);
        let file = how.open(folder.join(LOCK_FILE)).unwrap();
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        file
    }

    /// A process that never ends by itself, with this as its input.
    fn hangs(input: Stdio) -> Child {
        Command::new("tail").args(["-f", "/dev/null"]).stdin(input).spawn().unwrap()
    }

    #[test]
    fn who_holds_the_lock_is_killed() {
        // wrong: a node whose agent hangs would stay out of its cluster until it is rebooted
        let dir = tempfile::tempdir().unwrap();
        assert!(is_gone(dir.path(), Duration::ZERO).unwrap(), "there never was one");
        let held = lock(dir.path());
        let mut agent = hangs(held.into());
        std::fs::write(dir.path().join(LOCK_FILE), agent.id().to_string()).unwrap();
        assert!(!is_gone(dir.path(), Duration::ZERO).unwrap());
        kill(dir.path()).unwrap();
        assert_eq!(agent.wait().unwrap().signal(), Some(9));
        assert!(is_gone(dir.path(), DEATH_MAX).unwrap());
        kill(dir.path()).unwrap();
    }

    #[test]
    fn nobody_else_is_killed() {
        // wrong: a pid of long ago would have any process of the machine killed
        let dir = tempfile::tempdir().unwrap();
        let _held = lock(dir.path());
        let mut other = hangs(Stdio::null());
        for text in [other.id().to_string(), String::new(), "x".into(), "0".into(), "-1".into()] {
            std::fs::write(dir.path().join(LOCK_FILE), text).unwrap();
            assert!(kill(dir.path()).is_err());
        }
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn an_agent_says_which_process_it_is() {
        // wrong: one that hangs could not be found
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LOCK_FILE), "4194304 of before").unwrap();
        note(&lock(dir.path())).unwrap();
        let text = std::fs::read_to_string(dir.path().join(LOCK_FILE)).unwrap();
        assert_eq!(text, std::process::id().to_string());
    }
}
