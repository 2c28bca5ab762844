//! Numbers of the files of a merged `/proc`. Each says by itself which file it is, so that nothing
//! is kept for files that the kernel knows.

use super::process::File;
use super::system::System;

/// Names of files of the real `/proc` that can be told apart.
pub(super) const NAMES_MAX: usize = 1 << NAME_BITS;
const NAME_BITS: u32 = 14;
/// `PID_MAX_LIMIT` of 64-bit Linux.
const PID_BITS: u32 = 22;

/// A link of a process that says something of it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Cwd,
    Exe,
    Root,
}

/// All of them.
pub(super) const LINKS: [(Link, &str); 3] =
    [(Link::Cwd, "cwd"), (Link::Exe, "exe"), (Link::Root, "root")];

/// A file. A `name` is a number that stands for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Root,
    /// The folder on which the real `/proc` is mounted.
    Real,
    /// `self`.
    Myself,
    /// `thread-self`.
    MyThread,
    /// A text about the whole cluster.
    System(System),
    /// Anything else that is of no process.
    Top {
        name: u16,
    },
    /// A process of this node.
    Process {
        pid: i32,
    },
    /// What is in its folder.
    Entry {
        pid: i32,
        name: u16,
    },
    Tasks {
        pid: i32,
    },
    Thread {
        pid: i32,
        tid: i32,
    },
    ThreadEntry {
        pid: i32,
        tid: i32,
        name: u16,
    },
    /// A process of another node.
    Remote {
        pid: i32,
    },
    RemoteText {
        pid: i32,
        file: File,
    },
    RemoteLink {
        pid: i32,
        link: Link,
    },
    RemoteFds {
        pid: i32,
    },
    RemoteTasks {
        pid: i32,
    },
    /// Its first thread: others are not known.
    RemoteThread {
        pid: i32,
    },
    RemoteThreadText {
        pid: i32,
        file: File,
    },
}

fn pack(tag: u64, pid: i32, tid: i32, name: u16) -> u64 {
    let bits = |id: i32| u64::try_from(id).unwrap_or(0) & ((1 << PID_BITS) - 1);
    let name = u64::from(name) & ((1 << NAME_BITS) - 1);
    tag << (2 * PID_BITS + NAME_BITS)
        | bits(pid) << (PID_BITS + NAME_BITS)
        | bits(tid) << NAME_BITS
        | name
}

impl Node {
    /// Its number.
    pub(super) fn number(self) -> u64 {
        match self {
            Node::Root => 1,
            Node::Real => 2,
            Node::Myself => 3,
            Node::MyThread => 4,
            Node::System(system) => pack(1, 0, 0, system as u16),
            Node::Top { name } => pack(2, 0, 0, name),
            Node::Process { pid } => pack(3, pid, 0, 0),
            Node::Entry { pid, name } => pack(4, pid, 0, name),
            Node::Tasks { pid } => pack(5, pid, 0, 0),
            Node::Thread { pid, tid } => pack(6, pid, tid, 0),
            Node::ThreadEntry { pid, tid, name } => pack(7, pid, tid, name),
            Node::Remote { pid } => pack(8, pid, 0, 0),
            Node::RemoteText { pid, file } => pack(9, pid, 0, file as u16),
            Node::RemoteLink { pid, link } => pack(10, pid, 0, link as u16),
            Node::RemoteFds { pid } => pack(11, pid, 0, 0),
            Node::RemoteTasks { pid } => pack(12, pid, 0, 0),
            Node::RemoteThread { pid } => pack(13, pid, 0, 0),
            Node::RemoteThreadText { pid, file } => pack(14, pid, 0, file as u16),
        }
    }

    /// The file that a number stands for.
    pub(super) fn of(number: u64) -> Option<Node> {
        let part = |shift: u32, bits: u32| (number >> shift) & ((1 << bits) - 1);
        let id = |shift| i32::try_from(part(shift, PID_BITS)).unwrap_or(0);
        let name = u16::try_from(part(0, NAME_BITS)).unwrap_or(0);
        let (pid, tid) = (id(PID_BITS + NAME_BITS), id(NAME_BITS));
        let file = || File::ALL.get(usize::from(name)).map(|(file, _)| *file);
        Some(match number >> (2 * PID_BITS + NAME_BITS) {
            0 => match number {
                1 => Node::Root,
                2 => Node::Real,
                3 => Node::Myself,
                4 => Node::MyThread,
                _ => return None,
            },
            1 => Node::System(System::ALL.get(usize::from(name))?.0),
            2 => Node::Top { name },
            3 => Node::Process { pid },
            4 => Node::Entry { pid, name },
            5 => Node::Tasks { pid },
            6 => Node::Thread { pid, tid },
            7 => Node::ThreadEntry { pid, tid, name },
            8 => Node::Remote { pid },
            9 => Node::RemoteText { pid, file: file()? },
            10 => Node::RemoteLink { pid, link: LINKS.get(usize::from(name))?.0 },
            11 => Node::RemoteFds { pid },
            12 => Node::RemoteTasks { pid },
            13 => Node::RemoteThread { pid },
            14 => Node::RemoteThreadText { pid, file: file()? },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_file_has_a_number_of_its_own() {
        // wrong: a program would read another process's file than the one that it opened
        let (pid, tid, name) = (4_194_303, 4_194_302, 16_383);
        let mut all = vec![
            Node::Root,
            Node::Real,
            Node::Myself,
            Node::MyThread,
            Node::Top { name },
            Node::Process { pid },
            Node::Entry { pid, name },
            Node::Tasks { pid },
            Node::Thread { pid, tid },
            Node::ThreadEntry { pid, tid, name },
            Node::Remote { pid },
            Node::RemoteFds { pid },
            Node::RemoteTasks { pid },
            Node::RemoteThread { pid },
        ];
        all.extend(System::ALL.map(|(system, _)| Node::System(system)));
        all.extend(LINKS.map(|(link, _)| Node::RemoteLink { pid, link }));
        all.extend(File::ALL.map(|(file, _)| Node::RemoteText { pid, file }));
        all.extend(File::ALL.map(|(file, _)| Node::RemoteThreadText { pid, file }));
        for (i, node) in all.iter().enumerate() {
            assert_eq!(Node::of(node.number()), Some(*node));
            assert!(all[..i].iter().all(|other| other.number() != node.number()), "{node:?}");
        }
    }

    proptest! {
        #[test]
        fn any_number_is_read(number: u64) {
            // wrong: a number that nobody gave out would end the server
            if let Some(node) = Node::of(number) {
                prop_assert_eq!(Node::of(node.number()), Some(node));
            }
        }
    }
}
