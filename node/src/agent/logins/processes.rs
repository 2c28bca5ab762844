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

/// Whether a process has ended, all of its threads included.
pub(super) fn has_ended(held: &OwnedFd) -> bool {
    let mut one = [PollFd::from_borrowed_fd(held.as_fd(), PollFlags::IN)];
    poll(&mut one, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// Every process.
///
/// # Errors
/// The kernel's error when `/proc` cannot be listed.
pub(super) fn pids() -> io::Result<impl Iterator<Item = i32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(|pid| *pid > 0))
}

/// Real, effective, saved and file system user of a process; none of one that only waits to be
/// collected, or is gone.
fn uids(pid: i32) -> Vec<u32> {
    let Some((_, text)) = living(pid) else { return Vec::new() };
    let ids = field(&text, "Uid:").split_whitespace();
    ids.filter_map(|n| n.parse().ok()).collect()
}

/// The one user whose process it is, by all four of its ids; `None`: there are several, or it is
/// gone.
pub(super) fn owner(pid: i32) -> Option<u32> {
    let all = uids(pid);
    let first = *all.first()?;
    all.iter().all(|uid| *uid == first).then_some(first)
}

/// A thread of a process that has not ended, and whether it is stopped by a signal.
pub(super) fn thread(pid: i32) -> Option<(i32, bool)> {
    living(pid).map(|(thread, text)| (thread, state(&text) == Some(b'T')))
}

/// The process that began a process.
pub(super) fn parent(pid: i32) -> Option<i32> {
    living(pid).and_then(|(_, text)| field(&text, "PPid:").parse().ok())
}

/// A thread that has not ended, with its `status`. The first one may have, and then the process
/// looks as if it only waited to be collected, while the others work on.
fn living(pid: i32) -> Option<(i32, String)> {
    let lives = |thread: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).ok()?;
        (!matches!(state(&text), Some(b'Z' | b'X'))).then_some((thread, text))
    };
    lives(pid).or_else(|| {
        let all = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
        all.filter_map(|e| e.file_name().to_str()?.parse().ok()).find_map(lives)
    })
}

fn state(status: &str) -> Option<u8> {
    field(status, "State:").bytes().next()
}

/// What stands behind a name in a `status`; empty: nothing.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim()
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

    /// If it failed, a program could hide from its end by ending its first thread.
    #[test]
    fn who_ends_the_first_thread_only_ends_too() {
        let python = "/usr/bin/python3";
        if !rustix::process::getuid().is_root() || !std::path::Path::new(python).exists() {
            println!("skipped: needs root to start processes of others, and {python}");
            return;
        }
        let uid = THEIRS + 20;
        let script = "import ctypes, threading, time\n\
            threading.Thread(target=time.sleep, args=(600,)).start()\n\
            ctypes.CDLL(None).pthread_exit(None)\n";
        let mut hiding = Command::new(python).args(["-c", script]).uid(uid).spawn().unwrap();
        let pid = i32::try_from(hiding.id()).unwrap();
        let looks_over = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        while state(&looks_over()) != Some(b'Z') {
            assert_eq!(hiding.try_wait().unwrap(), None);
            std::thread::yield_now();
        }
        assert!(thread(pid).is_some_and(|(thread, _)| thread != pid));
        assert_eq!((owner(pid), parent(pid)), (Some(uid), i32::try_from(std::process::id()).ok()));
        assert!(end_all(&BTreeSet::from([uid])).unwrap());
        assert_eq!(hiding.wait().unwrap().signal(), Some(9));
    }

    /// If it failed, a session's leader would be taken for gone, or another process for it.
    #[test]
    fn a_process_is_known_by_its_start() {
        let own = started(std::process::id());
        assert!(own.is_some() && own == started(std::process::id()));
        assert_eq!(started(u32::MAX), None);
    }
}
