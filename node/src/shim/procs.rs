//! Which processes belong to a unit, and signalling them. Runs in the envelope's init, whose
//! `/proc` shows the envelope's processes only.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{getpriority_process, setpriority_process};
use std::collections::BTreeSet;

/// The priority of what goes before all others; see setpriority(2).
const FIRST: i32 = -20;
/// How often the processes are looked for while they are being stopped.
const STOP_ROUNDS_MAX: u32 = 16;

/// A process and what it descends from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
    session: i32,
}

impl Process {
    /// Whether it is in a unit's session, or in its process group.
    fn in_session(&self, leader: i32) -> bool {
        (self.session == leader || self.group == leader) && self.pid > 1
    }
}

/// Signals the unit's processes: its session, its process group and every descendant.
///
/// For KILL they are stopped first until no new one appears, so that none forks out of reach. A
/// process that left the session and whose parents have ended is not found; it ends with the
/// envelope.
///
/// Init shares the envelope's processors with all of them: while it looks for some thousands that
/// run, it goes before them.
pub(super) fn signal(leader: i32, killing: bool) {
    let usual = getpriority_process(None);
    // Fails only where init is not allowed to, and then it takes longer.
    let first = usual.and_then(|_| setpriority_process(None, FIRST)).is_ok();
    signal_all(leader, killing);
    if let (Ok(usual), true) = (usual, first) {
        // Lowering is always allowed.
        let back = setpriority_process(None, usual);
        debug_assert!(back.is_ok(), "{back:?}");
    }
}

fn signal_all(leader: i32, killing: bool) {
    if !killing {
        for pid in members(&scan(|_| {}), leader) {
            send(pid, Signal::SIGTERM);
            // A stopped process would not see the TERM.
            send(pid, Signal::SIGCONT);
        }
        return;
    }
    let mut found = BTreeSet::from([leader]);
    send(leader, Signal::SIGSTOP);
    for _ in 0..STOP_ROUNDS_MAX {
        // Most are in its session, and stopped where they are seen.
        let all = scan(|p| {
            if p.in_session(leader) && !found.contains(&p.pid) {
                send(p.pid, Signal::SIGSTOP);
            }
        });
        let new: Vec<i32> =
            members(&all, leader).into_iter().filter(|p| found.insert(*p)).collect();
        if new.is_empty() {
            break;
        }
        new.into_iter().for_each(|p| send(p, Signal::SIGSTOP));
    }
    found.into_iter().for_each(|p| send(p, Signal::SIGKILL));
}

fn send(pid: i32, signal: Signal) {
    match kill(Pid::from_raw(pid), signal) {
        // It ended meanwhile, which is what was wanted.
        Ok(()) | Err(Errno::ESRCH) => {}
        // Init is root and signals its own pid namespace: nothing else is possible.
        Err(e) => debug_assert!(false, "kill {pid}: {e}"),
    }
}

fn members(all: &[Process], leader: i32) -> BTreeSet<i32> {
    let mut found = BTreeSet::from([leader]);
    loop {
        let before = found.len();
        for p in all {
            if p.in_session(leader) || found.contains(&p.parent) && p.pid > 1 {
                found.insert(p.pid);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// All processes, each shown as it is found.
fn scan(mut each: impl FnMut(&Process)) -> Vec<Process> {
    let Ok(dir) = std::fs::read_dir("/proc") else { return Vec::new() };
    dir.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        let pid: i32 = name.to_str()?.parse().ok()?;
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        parse(pid, &stat).inspect(&mut each)
    })
    .collect()
}

/// proc_pid_stat(5): `pid (name) state ppid pgrp session ...`, the name holding anything.
fn parse(pid: i32, stat: &[u8]) -> Option<Process> {
    let after = stat.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(stat.get(after + 1..)?).ok()?;
    let mut numbers = rest.split_whitespace().skip(1).map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Process { pid, parent: next()?, group: next()?, session: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_its_ancestry() {
        // wrong: a process called ") S 1 1 1" would escape the kill, or draw it on another
        let p = parse(7, b"7 (a) S 1 1 1 (x) R 5 6 7 0 -1").unwrap();
        assert_eq!(p, Process { pid: 7, parent: 5, group: 6, session: 7 });
        assert_eq!(parse(7, b"7 (a S 1"), None);
        assert_eq!(parse(7, b"7 (a) S 1"), None);
    }

    #[test]
    fn members_are_session_group_and_descendants_and_never_init() {
        // wrong: a left-over child would go on, or another unit be hit
        let p = |pid, parent, group, session| Process { pid, parent, group, session };
        let all = [
            p(1, 0, 0, 0),
            p(10, 1, 10, 10),
            p(11, 10, 11, 11), // own session, but a child
            p(12, 11, 11, 11),
            p(13, 1, 13, 10), // orphan in the session
            p(20, 1, 20, 20), // another unit
            p(21, 20, 20, 20),
        ];
        assert_eq!(members(&all, 10), BTreeSet::from([10, 11, 12, 13]));
    }
}
