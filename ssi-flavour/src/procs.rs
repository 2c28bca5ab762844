//! Which processes there are and what they descend from, as the `/proc` of an init shows them: that
//! of a cell, or of a node's envelope.

use std::collections::BTreeSet;
use std::io::ErrorKind;

/// A process and what it descends from, by proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
}

impl Process {
    /// Whether it is in the session or the process group of a first process; init never is.
    pub fn in_session(&self, first: i32) -> bool {
        (self.session == first || self.group == first) && self.pid > 1
    }
}

/// How a process stands, by proc_pid_status(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its pid.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// With whose rights it works: its effective user.
    pub uid: u32,
    /// Who traces it; 0: nobody who is seen from here.
    pub tracer: i32,
    /// Whether it is stopped, and not by who traces it.
    pub stopped: bool,
}

/// All processes that are seen.
pub fn all() -> Vec<Process> {
    scan(|_| {})
}

/// All processes that are seen, each shown as it is found.
pub fn scan(mut each: impl FnMut(&Process)) -> Vec<Process> {
    pids().filter_map(|pid| one(pid).inspect(&mut each)).collect()
}

/// One process; `None` when there is none.
pub fn one(pid: i32) -> Option<Process> {
    parse(pid, &std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether a process has ended, also when nobody asked yet how: one that waits for that takes
/// nothing and does nothing.
pub fn is_over(pid: i32) -> bool {
    match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => is_zombie(&stat),
        Err(e) => e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH),
    }
}

/// proc_pid_stat(5): the state is the letter after the name.
fn is_zombie(stat: &[u8]) -> bool {
    let name_end = stat.iter().rposition(|b| *b == b')');
    let state = name_end.and_then(|at| stat.get(at + 2));
    matches!(state, Some(b'Z' | b'X'))
}

/// How all processes that are seen stand, each shown as it is found.
pub fn standing(mut each: impl FnMut(&Standing)) -> Vec<Standing> {
    let status = |pid| std::fs::read(format!("/proc/{pid}/status")).ok();
    pids().filter_map(|pid| parse_status(pid, &status(pid)?).inspect(&mut each)).collect()
}

/// What belongs to a first process: its session, its process group and all descendants; never init.
pub fn members(all: &[Process], first: i32) -> BTreeSet<i32> {
    let mut found = BTreeSet::from([first]);
    loop {
        let before = found.len();
        for p in all {
            if p.in_session(first) || found.contains(&p.parent) && p.pid > 1 {
                found.insert(p.pid);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// proc_pid_stat(5): `pid (name) state ppid pgrp session ...`, the name holding anything.
fn parse(pid: i32, stat: &[u8]) -> Option<Process> {
    let after = stat.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(stat.get(after + 1..)?).ok()?;
    let mut numbers = rest.split_whitespace().skip(1).map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Process { pid, parent: next()?, group: next()?, session: next()? })
}

/// proc_pid_status(5): lines `key:\tvalue`; in the name, which holds anything, the kernel writes an
/// end of line as `\n`.
fn parse_status(pid: i32, status: &[u8]) -> Option<Standing> {
    let text = String::from_utf8_lossy(status);
    let of = |key: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
    };
    Some(Standing {
        pid,
        parent: of("PPid")?.parse().ok()?,
        // Real, effective, saved, of file systems.
        uid: of("Uid")?.split_whitespace().nth(1)?.parse().ok()?,
        tracer: of("TracerPid")?.parse().ok()?,
        stopped: of("State")?.starts_with('T'),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_its_ancestry() {
        // wrong: a process called ") S 1 1 1" would escape a kill, or draw it on another
        let p = parse(7, b"7 (a) S 1 1 1 (x) R 5 6 7 0 -1").unwrap();
        assert_eq!(p, Process { pid: 7, parent: 5, group: 6, session: 7 });
        assert_eq!(parse(7, b"7 (a S 1"), None);
        assert_eq!(parse(7, b"7 (a) S 1"), None);
    }

    #[test]
    fn members_are_session_group_and_descendants_and_never_init() {
        // wrong: part of a tree would be left behind when it moves, a left-over child of a unit go
        // on, or another one be hit
        let p = |pid, parent, group, session| Process { pid, parent, group, session };
        let all = [
            p(1, 0, 0, 0),
            p(10, 1, 10, 10),
            p(11, 10, 11, 11), // own session, but a child
            p(12, 11, 11, 11),
            p(13, 1, 13, 10), // orphan in the session
            p(20, 1, 20, 20), // another tree
            p(21, 20, 20, 20),
        ];
        assert_eq!(members(&all, 10), BTreeSet::from([10, 11, 12, 13]));
    }

    #[test]
    fn a_name_cannot_forge_how_it_stands() {
        // wrong: a process would pass for root's, or for a stopped one, and run without a lease
        let text = "Name:\tx\\nUid:\t0\t0\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t7\n\
                    PPid:\t5\nTracerPid:\t3\nUid:\t70001\t70002\t70001\t70002\n";
        let p = Standing { pid: 7, parent: 5, uid: 70_002, tracer: 3, stopped: false };
        assert_eq!(parse_status(7, text.as_bytes()), Some(p));
        let stopped = text.replace("S (sleeping)", "T (stopped)");
        assert!(parse_status(7, stopped.as_bytes()).unwrap().stopped);
        // by who traces it, who lets it go on as they like
        let traced = text.replace("S (sleeping)", "t (tracing stop)");
        assert!(!parse_status(7, traced.as_bytes()).unwrap().stopped);
        assert_eq!(parse_status(7, b"Name:\tx\n"), None);
    }

    #[test]
    fn who_ended_is_known_by_its_state_alone() {
        // wrong: a node would wait for ever for a process whose parent does not ask how it ended,
        // or not at all for one that calls itself so
        assert!(is_zombie(b"7 (a) Z 5 6 7") && is_zombie(b"7 (a) X 5 6 7"));
        assert!(!is_zombie(b"7 (a) Z (b) R 5 6 7") && !is_zombie(b"7 (a"));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // It ends, and nobody asks how.
        while !is_over(pid) {
            std::thread::yield_now();
        }
        assert!(one(pid).is_some());
        child.wait().unwrap();
        assert!(is_over(pid) && !is_over(i32::try_from(std::process::id()).unwrap()));
    }

    #[test]
    fn this_process_is_seen() {
        // wrong: the kernel writes it otherwise than is read here, and nothing would be found
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(all().iter().any(|p| p.pid == own));
        let found = standing(|_| {}).into_iter().find(|p| p.pid == own).unwrap();
        assert_eq!(found.uid, rustix::process::geteuid().as_raw());
        assert_eq!((found.parent, found.stopped), (one(own).unwrap().parent, false));
    }
}
