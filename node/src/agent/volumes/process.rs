//! One mount process.

use super::MountSpec;
use crate::agent::{Agent, keep};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use xos_base::Error;

/// How long a process may take to mount: its VO's home must answer.
const MOUNT_WAIT: Duration = Duration::from_secs(60);

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
        if alive(r.pid, r.started) {
            // Unmounting ends the process by itself; one that hangs is killed.
            let pid = nix::unistd::Pid::from_raw(i32::try_from(r.pid).unwrap_or(i32::MAX));
            match nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(e) => tracing::warn!(pid = r.pid, error = %e, "cannot end a mount process"),
            }
        }
        match std::fs::remove_file(self.volumes.record(&r.spec.vo)) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::internal(format!("cannot forget a mount: {e}"))),
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
