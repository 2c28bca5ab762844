//! What keeps a tree from moving, found before anything is tried.
//!
//! Nothing that CRIU carries along is listed: threads, pipes, inotify, epoll, timers, memfd,
//! pseudo-terminals whose master is in the tree, stopped processes, and zombies below the root. A
//! Unix socket whose peer is outside is not found here: CRIU says so when it is tried.

use super::proc::{self, Process};
use crate::procs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Content of deleted files that CRIU takes along, in bytes (criu(8), `--ghost-limit`).
pub const DELETED_BYTES_MAX: u64 = 1 << 20;
/// How often who hangs in the kernel is looked at again, and when.
const LOOKS_MORE: u32 = 20;
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Obstacles that are listed, so that a large tree has a short answer.
pub const OBSTACLES_MAX: usize = 200;

/// What the machines agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Folders that have the same content on every node: shared mounts, and what the system's
    /// image holds.
    pub shared: Vec<PathBuf>,
    /// Whether trees under seccomp filters move ([`super::Feature::SeccompFilters`]).
    pub filters_move: bool,
}

impl Rules {
    fn shares(&self, path: &str) -> bool {
        // Every machine has that one, and to stand in it is all that is done with it.
        path == "/" || self.shared.iter().any(|folder| Path::new(path).starts_with(folder))
    }
}

/// Something that keeps a tree from moving.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Obstacle {
    /// The process, as the driver sees it.
    pub pid: i32,
    /// What it has or is.
    pub what: What,
}

/// What keeps a process from moving.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It has ended, and nobody has asked how.
    Ended,
    /// It hangs in the kernel (state D).
    Uninterruptible,
    /// Another process traces it.
    Traced {
        /// Which.
        by: i32,
    },
    /// It runs with the rights of another user than its own.
    OtherRights {
        /// The user's id.
        uid: u32,
    },
    /// It is another user's than the root of the tree.
    OtherOwner {
        /// The user's id.
        uid: u32,
    },
    /// It is in a pid namespace within the cell's, as in a container.
    Nested,
    /// It sees the processes of the whole cluster in `/proc`, which CRIU does not carry.
    MergedProc,
    /// Its session was begun by a process that is not in the tree.
    SessionOutside {
        /// The pid of who began it.
        leader: i32,
    },
    /// It belongs to the program, and what started it has ended: it would not go along.
    Stray,
    /// It is under seccomp filters, which cannot be read here.
    Seccomp,
    /// It answers for other processes' system calls, and those would lose it.
    SeccompListener,
    /// It has a connection over its machine's own network.
    Connection {
        /// The descriptor.
        fd: i32,
    },
    /// It has something of the kernel that cannot be carried, as io_uring or perf.
    Kernel {
        /// The kernel's name of it.
        name: String,
    },
    /// It has a device open.
    Device {
        /// Its path.
        path: String,
    },
    /// It uses a file that other nodes do not have.
    Local {
        /// Its path.
        path: String,
    },
    /// It uses a deleted file that is too large to take along.
    Deleted {
        /// The path that it had.
        path: String,
    },
    /// It shares memory with others (System V).
    SharedMemory {
        /// The kernel's name of it.
        name: String,
    },
}

impl What {
    /// What the person can do.
    pub fn next(&self) -> &'static str {
        match self {
            What::Ended => "nothing: what started it asks for its result",
            What::Uninterruptible => "wait until its input and output go on",
            What::Traced { .. } => "end the debugger",
            What::OtherRights { .. } => "run it without setuid programs",
            What::OtherOwner { .. } => "start what another user runs apart from it",
            What::Nested => "start it outside of the container",
            What::MergedProc => "start it by xos cluster run instead of in a cluster shell",
            What::SessionOutside { .. } => "move what began the session, or start it by setsid",
            What::Stray => "end it, or start it so that what starts it waits for it",
            What::Seccomp | What::SeccompListener => "run it without its sandbox",
            What::Connection { .. } => {
                "end the connection, or, when its other end is in a program of yours in the \
                 cluster, run both by xos cluster run --net own"
            }
            What::Kernel { .. } => "run it with that turned off",
            What::Device { .. } => "close the device",
            What::Local { .. } => "use a folder of the volume, as below ~/vo",
            What::Deleted { .. } => "close the file, or use one that is not deleted",
            What::SharedMemory { .. } => "run it with files on the volume instead",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Ended => write!(f, "it has ended already"),
            What::Uninterruptible => write!(f, "it hangs in the kernel (state D)"),
            What::Traced { by } => write!(f, "process {by} traces it"),
            What::OtherRights { uid } => write!(f, "it has the rights of user {uid}"),
            What::OtherOwner { uid } => write!(f, "it is user {uid}'s"),
            What::Nested => write!(f, "it is in a pid namespace of its own, as in a container"),
            What::MergedProc => {
                write!(f, "it is of a cluster shell, whose /proc shows the whole cluster")
            }
            What::SessionOutside { leader } => {
                write!(f, "its session belongs to process {leader}, which would stay")
            }
            What::Stray => {
                write!(f, "what started it has ended, so that it would stay behind and be ended")
            }
            What::Seccomp => write!(f, "it is under seccomp filters, which cannot be read here"),
            What::SeccompListener => write!(f, "it watches other processes by seccomp"),
            What::Connection { fd } => {
                write!(f, "it has a connection over this machine's network (descriptor {fd})")
            }
            What::Kernel { name } => write!(f, "it uses {name}, which cannot be carried"),
            What::Device { path } => write!(f, "it has the device {path} open"),
            What::Local { path } => write!(f, "it uses {path}, which other nodes do not have"),
            What::Deleted { path } => {
                write!(f, "it uses a large file that was deleted, once {path}")
            }
            What::SharedMemory { name } => write!(f, "it shares memory (System V, {name})"),
        }
    }
}

/// What keeps the tree below process `root`, as this process sees it, from moving. Nothing is
/// stopped for that, so that a tree that changes meanwhile may have others. Who waits for a disk or
/// a volume does so for a moment mostly: that is looked at for up to a second.
///
/// # Errors
/// Those of the system; [`std::io::ErrorKind::NotFound`] when there is no such process.
pub fn why(root: i32, rules: &Rules) -> std::io::Result<Vec<Obstacle>> {
    let mut found = look(root, rules)?;
    for _ in 0..LOOKS_MORE {
        if !found.iter().any(|o| o.what == What::Uninterruptible) {
            break;
        }
        std::thread::sleep(LOOK_PAUSE);
        found = look(root, rules)?;
    }
    Ok(found)
}

fn look(root: i32, rules: &Rules) -> std::io::Result<Vec<Obstacle>> {
    let mut tree = Vec::new();
    for pid in proc::tree(root)? {
        match proc::process(pid) {
            Ok(process) => tree.push(process),
            Err(e) if proc::ended(&e) && pid != root => {}
            Err(e) => return Err(e),
        }
    }
    // Connections of a network of its own go along.
    let connected = if proc::own_net(root)? { BTreeSet::new() } else { proc::connections(root)? };
    let mut found = strays(root)?;
    found.extend(obstacles(&tree, &connected, rules));
    found.truncate(OBSTACLES_MAX);
    Ok(found)
}

/// The processes that end with the tree below process `root`, as they are in its session or group
/// or descend from such, and do not descend from it: they would be in no image.
///
/// # Errors
/// Those of the system; [`std::io::ErrorKind::NotFound`] when there is no such process.
pub fn strays(root: i32) -> std::io::Result<Vec<Obstacle>> {
    // Who is made after this look descends from one that is in it.
    let members = procs::members(&procs::all(), root);
    let tree: BTreeSet<i32> = proc::tree(root)?.into_iter().collect();
    let stray = |pid: &i32| {
        let alive = proc::stat(*pid).is_ok_and(|stat| !matches!(stat.state, 'Z' | 'X'));
        alive && !tree.contains(pid)
    };
    let found = members.into_iter().filter(stray);
    Ok(found.map(|pid| Obstacle { pid, what: What::Stray }).collect())
}

/// The obstacles of a tree, its root first; `connected`: inodes of sockets that are connected over
/// the machine's own network.
fn obstacles(tree: &[Process], connected: &BTreeSet<u64>, rules: &Rules) -> Vec<Obstacle> {
    let Some(root) = tree.first() else { return Vec::new() };
    let pids: BTreeSet<i32> = tree.iter().map(|process| process.pid).collect();
    let mut found = BTreeSet::new();
    for process in tree {
        let mut add = |what| found.insert(Obstacle { pid: process.pid, what });
        for what in itself(process, root, &pids, rules) {
            add(what);
        }
        for descriptor in &process.descriptors {
            let fd = descriptor.number;
            if inode(&descriptor.what).is_some_and(|inode| connected.contains(&inode)) {
                add(What::Connection { fd });
            }
            if let Some(what) = file(&descriptor.what, descriptor.stored_bytes, rules) {
                add(what);
            }
        }
        for name in &process.mapped {
            if let Some(what) = file(name, 0, rules) {
                add(what);
            }
        }
        if process.folder.starts_with('/') && !rules.shares(&process.folder) {
            add(What::Local { path: process.folder.clone() });
        }
    }
    found.into_iter().take(OBSTACLES_MAX).collect()
}

/// What is wrong with a process itself.
fn itself(process: &Process, root: &Process, pids: &BTreeSet<i32>, rules: &Rules) -> Vec<What> {
    let (stat, status) = (&process.stat, &process.status);
    let mut found = Vec::new();
    match stat.state {
        // Below the root they move.
        'Z' | 'X' if process.pid == root.pid => return vec![What::Ended],
        'Z' | 'X' => return found,
        'D' => found.push(What::Uninterruptible),
        _ => {}
    }
    if status.tracer != 0 {
        found.push(What::Traced { by: status.tracer });
    }
    let owner = status.uids[0];
    if owner != root.status.uids[0] {
        found.push(What::OtherOwner { uid: owner });
    }
    if let Some(uid) = status.uids.into_iter().find(|uid| *uid != owner) {
        found.push(What::OtherRights { uid });
    }
    if status.pids.len() > root.status.pids.len() {
        found.push(What::Nested);
    }
    if process.merged_proc {
        found.push(What::MergedProc);
    }
    if !pids.contains(&stat.session) {
        found.push(What::SessionOutside { leader: stat.session });
    }
    if status.seccomp == 2 && !rules.filters_move {
        found.push(What::Seccomp);
    }
    found
}

/// The inode in a descriptor's link, as in `socket:[7]`.
fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// What is wrong with an open or mapped file.
fn file(name: &str, stored_bytes: u64, rules: &Rules) -> Option<What> {
    /// Of `anon_inode:`, with or without brackets (criu: criu/files.c, criu/proc_parse.c).
    const CARRIED: [&str; 8] =
        ["eventfd", "eventpoll", "inotify", "fanotify", "signalfd", "timerfd", "pidfd", "[pidfd]"];
    /// What the kernel calls memory that belongs to no file (mm/shmem.c, ipc/shm.c, fs/aio.c).
    const MEMORY: [&str; 4] = ["/memfd:", "/dev/zero", "/[aio]", "/anon_hugepage"];
    const DEVICES: [&str; 7] = [
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/random",
        "/dev/urandom",
        "/dev/tty",
        "/dev/ptmx",
    ];
    let path = || name.to_owned();
    if let Some(kind) = name.strip_prefix("anon_inode:") {
        let kind = kind.trim_matches(['[', ']']);
        return match kind {
            kind if CARRIED.contains(&kind) => None,
            "seccomp notify" => Some(What::SeccompListener),
            kind => Some(What::Kernel { name: kind.to_owned() }),
        };
    }
    if name.starts_with("/SYSV") {
        let name = name.trim_end_matches(" (deleted)").to_owned();
        return Some(What::SharedMemory { name });
    }
    // Pipes, sockets, [heap], [vdso] and the like.
    if !name.starts_with('/') || MEMORY.iter().any(|memory| name.starts_with(memory)) {
        return None;
    }
    if let Some(path) = name.strip_suffix(" (deleted)") {
        let large = stored_bytes > DELETED_BYTES_MAX;
        return large.then(|| What::Deleted { path: path.to_owned() });
    }
    let device = name.starts_with("/dev/");
    // Folders of files in memory.
    let files = ["/dev/shm/", "/dev/mqueue/", "/dev/hugepages/"];
    if device && !files.iter().any(|folder| name.starts_with(folder)) {
        let carried = DEVICES.contains(&name) || name.starts_with("/dev/pts/");
        return (!carried).then(|| What::Device { path: path() });
    }
    (!rules.shares(name)).then(|| What::Local { path: path() })
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
