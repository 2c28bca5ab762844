//! One mount process.

use super::MountSpec;
use crate::agent::{Agent, keep};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use xos_base::Error;

/// How long a process may take to mount: its VO's home must answer.
const MOUNT_WAIT: Duration = Duration::from_secs(60);
/// How long a mount that is ended tries to write back what its people wrote.
pub const FLUSH_WITHIN: Duration = Duration::from_secs(30);
/// How long its process may take to end: for that, and a little.
const END_WAIT: Duration = FLUSH_WITHIN.saturating_add(Duration::from_secs(5));

/// A mount process that was started; kept in a file, so that a new `xosd` finds it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Running {
    pub(super) pid: u32,
    /// Field 22 of `/proc/<pid>/stat`: no other process has both.
    pub(super) started: u64,
    pub(super) spec: MountSpec,
}

impl Agent {
    pub(super) async fn begin(&self, spec: MountSpec) -> Result<Running, Error> {
        let fail = |what: &str, e: std::io::Error| {
            Error::internal(format!("cannot {what} for the mount of {}: {e}", spec.vo))
        };
        // What a crashed mount left behind answers every call with ENOTCONN.
        unmount(&spec.at).await?;
        std::fs::create_dir_all(&spec.at).map_err(|e| fail("make a folder", e))?;
        let file = self.volumes.folder.join(format!("{}.json", spec.vo));
        keep::write(&file, &spec)?;
        let log = self.volumes.folder.join(format!("{}.log", spec.vo));
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|e| fail("open a log", e))?;
        let program = std::env::current_exe().map_err(|e| fail("find xosd", e))?;
        let mut child = tokio::process::Command::new(program)
            .arg("mount")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(|e| fail("start a process", e))?;
        // Nobody has waited for it yet, so that it has a number and a place in /proc.
        let known = child.id().and_then(|pid| Some((pid, start_time(pid)?)));
        let (pid, started) =
            known.ok_or_else(|| fail("find the process", std::io::ErrorKind::NotFound.into()))?;
        let running = Running { pid, started, spec: spec.clone() };
        keep::write(&self.volumes.record(&spec.vo), &running)?;
        // The process says "mounted" once, or ends.
        let mut line = String::new();
        let heard = async {
            match child.stdout.take() {
                Some(out) => BufReader::new(out).read_line(&mut line).await,
                None => Ok(0),
            }
        };
        let heard = tokio::time::timeout(MOUNT_WAIT, heard).await;
        if heard.is_err() {
            child.start_kill().map_err(|e| fail("end a process that hangs", e))?;
        }
        let said = line.trim().to_owned();
        tokio::spawn(async move {
            match child.wait().await {
                Ok(status) => tracing::info!(pid, %status, "a mount process ended"),
                Err(e) => tracing::warn!(pid, error = %e, "a mount process was lost"),
            }
        });
        if said == "mounted" {
            return Ok(running);
        }
        match heard {
            Err(_) => Err(Error::unavailable(format!(
                "it was not mounted in {} s: is the VO's home reachable? see {}.log",
                MOUNT_WAIT.as_secs(),
                spec.vo
            ))),
            Ok(Err(e)) => Err(fail("hear from the process", e)),
            Ok(Ok(_)) => Err(Error::unavailable(format!("its process ended: see {}.log", spec.vo))),
        }
    }

    pub(super) async fn end(&self, r: &Running) -> Result<(), Error> {
        unmount(&r.spec.at).await?;
        finish(r.pid, r.started, END_WAIT).await;
        match std::fs::remove_file(self.volumes.record(&r.spec.vo)) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::internal(format!("cannot forget a mount: {e}"))),
        }
    }
}

/// Ends a mount process. What its people wrote last may still be with it alone: it is told to end,
/// and killed only when it has not done so within `wait`.
async fn finish(pid: u32, started: u64, wait: Duration) {
    match tokio::task::spawn_blocking(move || try_finish(pid, started, wait)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(pid, %error, "cannot end a mount process"),
        Err(error) => tracing::error!(pid, %error, "ending a mount process failed"),
    }
}

fn try_finish(pid: u32, started: u64, wait: Duration) -> std::io::Result<()> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let process = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    // Looked at only now, when the number can no longer become another process's.
    if !alive(pid, started) {
        return Ok(());
    }
    let signal = |signal| match pidfd_send_signal(&process, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(e) => Err(std::io::Error::from(e)),
    };
    signal(Signal::TERM)?;
    let deadline = Instant::now() + wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(std::io::Error::other)?;
        // It becomes readable when the process ends.
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
            Ok(0) => {
                tracing::warn!(pid, ?wait, "a mount process does not end, and is killed");
                return signal(Signal::KILL);
            }
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Whether a mount process lives and its file system is there.
pub(super) fn stands(r: &Running) -> bool {
    alive(r.pid, r.started) && mounted(&r.spec.at)
}

/// Field 22 of `/proc/<pid>/stat`, in clock ticks since boot (proc(5)).
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is in parentheses and may hold anything.
    let rest = stat.rsplit_once(')')?.1;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn alive(pid: u32, started: u64) -> bool {
    start_time(pid) == Some(started)
}

/// Whether a file system is mounted at `at`. Read from the mount table: asking the file system
/// itself could wait for a server.
fn mounted(at: &Path) -> bool {
    match std::fs::read_to_string("/proc/self/mountinfo") {
        Ok(text) => {
            let wanted = at.to_string_lossy();
            text.lines().any(|l| l.split(' ').nth(4) == Some(wanted.as_ref()))
        }
        Err(e) => {
            tracing::error!(error = %e, "cannot read the mount table");
            false
        }
    }
}

/// Takes away whatever is mounted at `at`, also while files there are open.
async fn unmount(at: &Path) -> Result<(), Error> {
    let at = at.to_owned();
    let task = tokio::task::spawn_blocking(move || {
        while mounted(&at) {
            let flags = nix::mount::MntFlags::MNT_DETACH;
            nix::mount::umount2(&at, flags)
                .map_err(|e| Error::internal(format!("cannot unmount {}: {e}", at.display())))?;
        }
        Ok(())
    });
    task.await.unwrap_or_else(|e| Err(Error::internal(format!("unmounting failed: {e}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A process that says when it is ready, and what it does when it is told to end.
    async fn process(folder: &Path, on_end: &str) -> (u32, u64, tokio::task::JoinHandle<()>) {
        let script = format!("trap '{on_end}' TERM; echo ready; while :; do sleep 0.02; done");
        let mut child = tokio::process::Command::new("sh")
            .args(["-c", &script])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).await.unwrap();
        let wait = tokio::spawn(async move { drop(child.wait().await) });
        (pid, start_time(pid).unwrap(), wait)
    }

    #[tokio::test]
    async fn a_mount_process_writes_back_before_it_ends_and_one_that_hangs_is_killed() {
        // wrong: what people wrote last, and were told was written, would be lost
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("flushed");
        let (pid, started, wait) =
            process(folder.path(), "sleep 0.5; echo all > flushed; exit").await;
        finish(pid, started, END_WAIT).await;
        assert_eq!(std::fs::read_to_string(path).unwrap(), "all\n");
        wait.await.unwrap();
        assert!(!alive(pid, started));
        // A number that is another process's by now.
        let own = std::process::id();
        finish(own, start_time(own).unwrap() + 1, END_WAIT).await;
        let (pid, started, wait) = process(folder.path(), "").await;
        finish(pid, started, Duration::from_millis(300)).await;
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it is killed").unwrap();
    }
}
