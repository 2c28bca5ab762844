//! Processes of the machine, as `/proc` tells of them (proc_pid_stat(5), proc_pid_status(5)).

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// For how long processes are ended before somebody else's turn comes: who starts new ones as fast
/// as they are ended must not hold up what is done about others.
const END_MAX: Duration = Duration::from_secs(3);
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

/// Who a process runs as.
struct Ids {
    /// Real, effective, saved and file system user.
    users: Vec<u32>,
    /// The same of groups, and the supplementary ones.
    groups: Vec<u32>,
}

/// Which processes are to end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ending {
    /// All of these users'.
    pub(super) users: BTreeSet<u32>,
    /// Those of these users' which are in no unit.
    pub(super) beside_units: BTreeSet<u32>,
    /// Of these users' those which are in one of the groups.
    pub(super) groups: BTreeMap<u32, BTreeSet<u32>>,
}

impl Ending {
    /// Whether none is.
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty() && self.beside_units.is_empty() && self.groups.is_empty()
    }

    fn names(&self, pid: i32, ids: &Ids, in_unit: &impl Fn(i32) -> bool) -> bool {
        let in_group = |user: &u32| {
            self.groups.get(user).is_some_and(|left| ids.groups.iter().any(|g| left.contains(g)))
        };
        ids.users.iter().any(|user| self.users.contains(user) || in_group(user))
            || (ids.users.iter().any(|user| self.beside_units.contains(user)) && !in_unit(pid))
    }
}

/// A process that does not end.
#[derive(Debug)]
pub(super) struct Left {
    /// Its number.
    pub(super) pid: i32,
    /// Whether it is in uninterruptible sleep: it waits for a disk or a file server, and ends as
    /// soon as that answers.
    pub(super) waits: bool,
}

/// The users of every process, and the groups that those of each are in.
///
/// # Errors
/// The kernel's error when `/proc` cannot be listed.
pub(super) fn users() -> io::Result<BTreeMap<u32, BTreeSet<u32>>> {
    let mut all: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for ids in pids()?.filter_map(ids) {
        for user in ids.users {
            all.entry(user).or_default().extend(&ids.groups);
        }
    }
    Ok(all)
}

/// Ends processes until a look finds none that is to end, for 3 seconds at most; those that are
/// left. `in_unit` says whether a process is in a unit.
///
/// # Errors
/// The kernel's error when `/proc` cannot be listed.
pub(super) fn end_all(ending: &Ending, in_unit: impl Fn(i32) -> bool) -> io::Result<Vec<Left>> {
    let until = Instant::now() + END_MAX;
    loop {
        let mut killed = Vec::new();
        for pid in pids()? {
            if killed.len() >= ROUND_MAX {
                break;
            }
            killed.extend(end(pid, ending, &in_unit));
        }
        gone(&killed)?;
        let left = left(ending, &in_unit)?;
        // What only waits for a disk got its signal: another one does not hurry it.
        if left.iter().all(|l| l.waits) || Instant::now() >= until {
            return Ok(left);
        }
    }
}

/// The processes that are to end and are still there.
fn left(ending: &Ending, in_unit: &impl Fn(i32) -> bool) -> io::Result<Vec<Left>> {
    let left = |pid| {
        let (_, text) = living(pid)?;
        let waits = state(&text) == Some(b'D');
        ending.names(pid, &ids_in(&text), in_unit).then_some(Left { pid, waits })
    };
    Ok(pids()?.filter_map(left).collect())
}

/// Ends a process if it is to end; what tells its end.
fn end(pid: i32, ending: &Ending, in_unit: &impl Fn(i32) -> bool) -> Option<OwnedFd> {
    // Held first: what is read then is this process's, or it is gone and the signal meets nobody.
    let held = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    if !ending.names(pid, &ids(pid)?, in_unit) {
        return None;
    }
    match pidfd_send_signal(&held, Signal::KILL) {
        Ok(()) => Some(held),
        Err(Errno::SRCH) => None,
        Err(error) => {
            tracing::error!(pid, %error, "a process of a member cannot be ended");
            None
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

/// Who a process runs as; `None`: it only waits to be collected, or is gone.
fn ids(pid: i32) -> Option<Ids> {
    living(pid).map(|(_, text)| ids_in(&text))
}

fn ids_in(status: &str) -> Ids {
    let numbers = |name| field(status, name).split_whitespace().filter_map(|n| n.parse().ok());
    Ids {
        users: numbers("Uid:").collect(),
        groups: numbers("Gid:").chain(numbers("Groups:")).collect(),
    }
}

/// The one user whose process it is, by all four of its ids; `None`: there are several, or it is
/// gone.
pub(super) fn owner(pid: i32) -> Option<u32> {
    let all = ids(pid)?.users;
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

/// The process that traces a process; `None`: there is none, or it is gone.
pub(super) fn tracer(pid: i32) -> Option<i32> {
    let (_, text) = living(pid)?;
    field(&text, "TracerPid:").parse().ok().filter(|tracer| *tracer > 0)
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

    /// Ends all of a user's; whether none is left.
    fn all_end(uid: u32) -> bool {
        let ending = Ending { users: BTreeSet::from([uid]), ..Ending::default() };
        end_all(&ending, |_| false).unwrap().is_empty()
    }

    /// If it failed, what runs with a group that its member lost would go on, or what runs without
    /// it would be ended, or units that have another membership.
    #[test]
    fn of_a_narrowed_member_only_what_carries_it_ends() {
        if !rustix::process::getuid().is_root() {
            println!("skipped: needs root to start processes of others");
            return;
        }
        let uid = THEIRS + 30;
        let with = |groups: &str| {
            let options = [format!("--reuid={uid}"), format!("--regid={uid}")];
            let mut sleep = Command::new("setpriv");
            let sleep = sleep.args(options).arg(format!("--groups={groups}"));
            sleep.args(["sleep", "600"]).spawn().unwrap()
        };
        let (has, had) = (THEIRS + 31, THEIRS + 32);
        let mut stays = with(&has.to_string());
        let mut goes = with(&format!("{has},{had}"));
        while users().unwrap().get(&uid).is_none_or(|g| !g.contains(&has) || !g.contains(&had)) {
            std::thread::yield_now();
        }
        let groups = BTreeMap::from([(uid, BTreeSet::from([had]))]);
        let ending = Ending { groups, ..Ending::default() };
        assert!(end_all(&ending, |_| false).unwrap().is_empty());
        assert_eq!(goes.wait().unwrap().signal(), Some(9));
        assert_eq!(stays.try_wait().unwrap(), None);
        let unit = i32::try_from(stays.id()).unwrap();
        let ending = Ending { beside_units: BTreeSet::from([uid]), ..Ending::default() };
        let mut shell = sleeping(uid);
        assert!(end_all(&ending, |pid| pid == unit).unwrap().is_empty());
        assert_eq!(shell.wait().unwrap().signal(), Some(9));
        assert_eq!(stays.try_wait().unwrap(), None, "it is a unit");
        assert!(all_end(uid));
        stays.wait().unwrap();
    }

    /// If it failed, a process that cannot end now would hold up the end of all others, or nobody
    /// would be told of it.
    #[test]
    fn ids_and_sleep_are_read_as_the_kernel_tells_them() {
        let status = "Name:\tx y\nState:\tD (disk sleep)\nUid:\t1\t2\t3\t4\n\
                      Gid:\t5\t6\t7\t8\nGroups:\t9 10 \n";
        let ids = ids_in(status);
        assert_eq!((ids.users, ids.groups), (vec![1, 2, 3, 4], (5..=10).collect()));
        assert_eq!(state(status), Some(b'D'));
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
        let running = users().unwrap();
        assert!([0, THEIRS, OTHERS].iter().all(|user| running.contains_key(user)));
        assert!(all_end(THEIRS));
        assert!(!users().unwrap().contains_key(&THEIRS));
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
        assert!(all_end(uid));
        forking.wait().unwrap();
        assert!(!users().unwrap().contains_key(&uid));
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
        assert!(all_end(uid));
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
