//! Processes of the machine, as `/proc` tells of them (proc_pid_stat(5), proc_pid_status(5)).

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How often all processes are looked at: somebody may start new ones as fast as they are ended.
const ROUNDS_MAX: u32 = 64;
/// How many processes are ended before the next look.
const ROUND_MAX: usize = 512;
/// How long those of one look may take to end.
const ROUND_WAIT: Duration = Duration::from_millis(200);

/// When a process was started, in the kernel's ticks since its own start; `None`: it is gone.
pub(super) fn started(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, so that what follows its last bracket counts.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    // 22 in the manual's list, of which 3 is the state.
    let started = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(started)
}

/// The user ids of every process.
///
/// # Errors
/// The kernel's error when `/proc` cannot be listed.
pub(super) fn users() -> io::Result<BTreeSet<u32>> {
    let mut all = BTreeSet::new();
    for pid in pids()? {
        all.extend(uids(pid));
    }
    Ok(all)
}

/// Ends every process that runs as one of these users, until none is left. Whether none is.
///
/// # Errors
/// The kernel's error when `/proc` cannot be listed.
pub(super) fn end_all(of: &BTreeSet<u32>) -> io::Result<bool> {
    for _ in 0..ROUNDS_MAX {
        let mut ending = Vec::new();
        for pid in pids()? {
            if ending.len() >= ROUND_MAX {
                break;
            }
            ending.extend(end(pid, of));
        }
        if ending.is_empty() {
            return Ok(true);
        }
        gone(&ending)?;
    }
    Ok(false)
}

/// Ends a process if it is one of these users'; what tells its end.
fn end(pid: i32, of: &BTreeSet<u32>) -> Option<OwnedFd> {
    // Held first: what is read then is this process's, or it is gone and the signal meets nobody.
    let held = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    if !uids(pid).iter().any(|uid| of.contains(uid)) {
        return None;
    }
    match pidfd_send_signal(&held, Signal::KILL) {
        Ok(()) => Some(held),
        Err(Errno::SRCH) => None,
        Err(error) => {
            tracing::error!(pid, %error, "a process of a member who is no more cannot be ended");
            // Looked at again, so that it counts as left.
            Some(held)
        }
    }
}

/// Waits until the processes are gone, or for [`ROUND_WAIT`].
fn gone(ending: &[OwnedFd]) -> io::Result<()> {
    let end = Instant::now() + ROUND_WAIT;
    for held in ending {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut one = [PollFd::from_borrowed_fd(held.as_fd(), PollFlags::IN)];
        match poll(&mut one, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn pids() -> io::Result<impl Iterator<Item = i32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(|pid| *pid > 0))
}

/// Real, effective, saved and file system user of a process; none of one that only waits to be
/// collected, or is gone.
fn uids(pid: i32) -> Vec<u32> {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) else { return Vec::new() };
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name));
    if field("State:").is_some_and(|s| matches!(s.trim().as_bytes().first(), Some(b'Z' | b'X'))) {
        return Vec::new();
    }
    let ids = field("Uid:").unwrap_or_default().split_whitespace();
    ids.filter_map(|n| n.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command};

    const THEIRS: u32 = 1_999_990_001;
    const OTHERS: u32 = 1_999_990_002;

    fn sleeping(uid: u32) -> Child {
        Command::new("sleep").arg("600").uid(uid).spawn().unwrap()
    }

    /// If it failed, a person who was removed would go on working on the machine, or somebody else
    /// could not.
    #[test]
    fn all_processes_of_a_user_end_and_no_others() {
        if !rustix::process::getuid().is_root() {
            println!("skipped: needs root to start processes of others");
            return;
        }
        let mut theirs: Vec<Child> = (0..5).map(|_| sleeping(THEIRS)).collect();
        let mut other = sleeping(OTHERS);
        assert!(users().unwrap().is_superset(&BTreeSet::from([0, THEIRS, OTHERS])));
        assert!(end_all(&BTreeSet::from([THEIRS])).unwrap());
        assert!(!users().unwrap().contains(&THEIRS));
        assert!(started(theirs[0].id()).is_none(), "it only waits to be collected");
        for child in &mut theirs {
            assert_eq!(child.wait().unwrap().signal(), Some(9));
        }
        assert_eq!(other.try_wait().unwrap(), None);
        assert!(started(other.id()).is_some());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    /// If it failed, who starts processes as fast as they can would stay.
    #[test]
    fn who_forks_all_the_time_ends_too() {
        if !rustix::process::getuid().is_root() {
            println!("skipped: needs root to start processes of others");
            return;
        }
        let uid = THEIRS + 10;
        let script = "while :; do (sleep 600 &); (sleep 0.01); done";
        let mut forking = Command::new("sh").args(["-c", script]).uid(uid).spawn().unwrap();
        assert!(end_all(&BTreeSet::from([uid])).unwrap());
        forking.wait().unwrap();
        assert!(!users().unwrap().contains(&uid));
    }

    /// If it failed, a session's leader would be taken for gone, or another process for it.
    #[test]
    fn a_process_is_known_by_its_start() {
        let own = started(std::process::id());
        assert!(own.is_some() && own == started(std::process::id()));
        assert_eq!(started(u32::MAX), None);
    }
}
