//! Processes named by pid and start time, so that a recycled pid is never touched.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::error::Context as _;
use crate::{Error, Result};

/// How long a process that got SIGKILL may take to end.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// One process of this boot of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProcessId {
    /// Its pid as seen from the machine.
    pub(crate) pid: i32,
    /// Its start time in clock ticks since boot (proc(5), field 22 of `stat`).
    start: u64,
}

impl ProcessId {
    /// The process that has this pid now.
    pub(crate) fn of(pid: i32) -> Result<Self> {
        let start = start_time(pid)
            .and_then(|found| found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)))
            .context(|| format!("looking at process {pid}"))?;
        Ok(ProcessId { pid, start })
    }

    /// A descriptor of the process, or `None` when it has ended.
    pub(crate) fn open(&self) -> Result<Option<OwnedFd>> {
        let what = || format!("looking at process {}", self.pid);
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error).context(what),
        };
        // Read after opening: from here on the descriptor names one process for good.
        let same = start_time(self.pid).context(what)? == Some(self.start);
        Ok((same && !has_ended(&pidfd)?).then_some(pidfd))
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&self) -> Result<bool> {
        Ok(self.open()?.is_some())
    }
}

/// Sends `signal`; `false` when the process has ended already.
pub(crate) fn send(pidfd: &OwnedFd, signal: Signal) -> Result<bool> {
    match pidfd_send_signal(pidfd, signal) {
        Ok(()) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(error) => Err(error).context(|| format!("sending {signal:?}")),
    }
}

/// Waits until a process that got SIGKILL is gone.
pub(crate) fn wait_killed(pidfd: &OwnedFd, what: impl FnOnce() -> String) -> Result<()> {
    if wait_readable(pidfd, Some(Instant::now() + KILL_LIMIT))? {
        return Ok(());
    }
    Err(Error::Deadline { what: what(), limit: KILL_LIMIT })
}

/// Whether the process has ended (a zombie has).
pub(crate) fn has_ended(pidfd: &OwnedFd) -> Result<bool> {
    wait_readable(pidfd, Some(Instant::now()))
}

/// Waits until `fd` is readable or hung up; `false` at the deadline.
pub(crate) fn wait_readable(fd: impl AsFd, deadline: Option<Instant>) -> Result<bool> {
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        // A time too long for the kernel is no limit at all.
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context(|| "waiting for a process".to_owned()),
        }
    }
}

/// Field 22 of /proc/PID/stat; `None` when there is no such process.
fn start_time(pid: i32) -> io::Result<Option<u64>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => Ok(parse_start_time(&stat)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // The process ended between open and read.
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_start_time(stat: &str) -> Option<u64> {
    // The command in parentheses may hold anything, closing parentheses included.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a process whose name holds `) R 1` would be taken for another.
    #[test]
    fn start_time_ignores_the_name() {
        let rest = (3..=30).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(parse_start_time(&format!("7 (a) R 1 (b) {rest}")), Some(22));
        assert_eq!(parse_start_time("7 (a"), None);
    }

    /// If it failed, a recycled pid could be killed in the place of ours.
    #[test]
    fn another_start_time_is_another_process() {
        let me = ProcessId::of(std::process::id() as i32).unwrap();
        assert!(me.is_alive().unwrap());
        let recycled = ProcessId { start: me.start + 1, ..me };
        assert!(!recycled.is_alive().unwrap());
    }
}
