//! Which processes belong to a tree, as the cell's own `/proc` shows them.

use std::collections::BTreeSet;

/// A process and what it descends from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: i32,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
}

/// All processes of the cell.
pub(super) fn all() -> Vec<Process> {
    let Ok(dir) = std::fs::read_dir("/proc") else { return Vec::new() };
    dir.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter_map(one).collect()
}

/// One process; `None` when there is none.
pub(super) fn one(pid: i32) -> Option<Process> {
    parse(pid, &std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The tree of a first process: its session, its process group and all descendants.
pub(super) fn members(all: &[Process], first: i32) -> BTreeSet<i32> {
    let mut found = BTreeSet::from([first]);
    loop {
        let before = found.len();
        for p in all.iter().filter(|p| p.pid > 1) {
            if p.session == first || p.group == first || found.contains(&p.parent) {
                found.insert(p.pid);
            }
        }
        if found.len() == before {
            return found;
        }
    }
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
        // wrong: a process called ") S 1 1 1" would be shown as nobody's
        let p = parse(7, b"7 (a) S 1 1 1 (x) R 5 6 7 0 -1").unwrap();
        assert_eq!(p, Process { pid: 7, parent: 5, group: 6, session: 7 });
        assert_eq!(parse(7, b"7 (a S 1"), None);
        assert_eq!(parse(7, b"7 (a) S 1"), None);
    }

    #[test]
    fn a_tree_is_session_group_and_descendants() {
        // wrong: part of a tree would be left behind when it moves, or another one moved with it
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
}
