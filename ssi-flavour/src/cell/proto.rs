//! What the node's agent asks a cell, and what the cell tells it.
//!
//! Both are root on one machine and of one build or two; unknown fields are refused, so that a
//! mismatch shows at once instead of half working.

use rustix::process::Resource;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// Most connections to one cell: the host has one for what it asks, one on which it hears of ends,
/// and some for what takes a while.
pub const CONNECTIONS_MAX: usize = 16;
/// How long a process may take to become its program, milliseconds; then it is ended.
pub const START_MS_MAX: u64 = 10_000;
/// Most bytes that wait for a connection that does not read; then it is dropped.
pub const OUTBOX_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most trees that run in one cell.
pub const TREES_MAX: usize = 4096;
/// Most ends that wait to be acknowledged; then no more trees are started.
pub const ENDED_MAX: usize = 65_536;
/// The lowest number of an account that belongs to a person, and of its groups: those below are
/// the system's.
pub const PERSON_ID_MIN: u32 = 1000;
/// The account that stands for those that have no number here, which is nobody's.
pub const OVERFLOW_ID: u32 = 65_534;

/// One life of a tree of processes: a program and what it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// Its number in the cluster.
    pub id: u64,
    /// Grows by one whenever it is restored somewhere; of two copies the higher one counts.
    pub epoch: u64,
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tree {} (epoch {})", self.id, self.epoch)
    }
}

/// Who a program runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

impl Account {
    /// Whether this is a person's account and not the system's.
    ///
    /// # Errors
    /// Which number it is that no person has.
    pub fn check(&self) -> Result<(), String> {
        let persons = |id: u32| id >= PERSON_ID_MIN && id != OVERFLOW_ID && id != u32::MAX;
        if !persons(self.uid) {
            return Err(format!("user {} is the system's: no program is run as it", self.uid));
        }
        match [self.gid].iter().chain(&self.groups).find(|g| !persons(**g)) {
            Some(group) => Err(format!("group {group} is the system's: no program is run in it")),
            None => Ok(()),
        }
    }
}

/// What a limit bounds; see setrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RlimitKind {
    /// Address space, bytes.
    AddressSpace,
    /// Core file, bytes.
    Core,
    /// Processor time, seconds.
    CpuSeconds,
    /// Data segment, bytes.
    Data,
    /// Size of a file, bytes.
    FileSize,
    /// Open files.
    OpenFiles,
    /// Locked memory, bytes.
    Locked,
    /// Processes of the account.
    Processes,
    /// Stack, bytes.
    Stack,
}

impl RlimitKind {
    /// What the kernel has for it.
    pub(crate) fn resource(self) -> Resource {
        match self {
            RlimitKind::AddressSpace => Resource::As,
            RlimitKind::Core => Resource::Core,
            RlimitKind::CpuSeconds => Resource::Cpu,
            RlimitKind::Data => Resource::Data,
            RlimitKind::FileSize => Resource::Fsize,
            RlimitKind::OpenFiles => Resource::Nofile,
            RlimitKind::Locked => Resource::Memlock,
            RlimitKind::Processes => Resource::Nproc,
            RlimitKind::Stack => Resource::Stack,
        }
    }
}

/// A limit of a program; never above what the node allows. `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// What is bounded.
    pub kind: RlimitKind,
    /// The limit that counts.
    pub soft: Option<u64>,
    /// How far the program may raise it.
    pub hard: Option<u64>,
}

/// What the descriptors sent along with a request become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdio {
    /// Three: standard input, output and error.
    Three,
    /// One, a terminal: all three, and the terminal that controls the program's session.
    Terminal,
}

impl Stdio {
    /// How many descriptors are sent along.
    pub fn count(self) -> usize {
        match self {
            Stdio::Three => 3,
            Stdio::Terminal => 1,
        }
    }
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The program and its arguments. A name without a slash is looked for in `PATH`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The working directory.
    pub cwd: PathBuf,
    /// The file mode creation mask.
    pub umask: u32,
    /// Limits other than the cell's.
    pub rlimits: Vec<Rlimit>,
    /// Folders of control groups that it is put into.
    pub cgroups: Vec<PathBuf>,
    /// What the descriptors sent along become.
    pub stdio: Stdio,
}

impl Program {
    /// Whether the kernel could take it.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Err("no program is named".to_owned());
        }
        if self.umask > 0o777 {
            return Err(format!("{:o} is no file mode creation mask", self.umask));
        }
        let mut texts = self.argv.iter().chain(self.env.iter().flat_map(|(n, v)| [n, v]));
        if texts.any(|t| t.contains('\0')) {
            return Err("an argument or a variable contains a zero byte".to_owned());
        }
        match self.env.iter().find(|(n, _)| n.is_empty() || n.contains('=')) {
            Some((name, _)) => Err(format!("{name:?} is no name of a variable")),
            None => Ok(()),
        }
    }
}

/// A tree to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Which.
    pub tree: Tree,
    /// The pid that it has in the cluster; without one it is born here and takes one of the node's.
    pub pid: Option<i32>,
    /// As whom.
    pub account: Account,
    /// Whether it has a network namespace of its own, whose descriptor comes after the streams.
    pub own_net: bool,
    /// The pid of the helper `xos-proc` whose `/proc`, that of the whole cluster, it sees
    /// ([`crate::procfs`]). Such a tree does not move. Absent: the cell's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_proc: Option<i32>,
    /// What.
    pub program: Program,
}

/// A request with its number; the reply carries the same.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Chosen by the caller, above 0.
    pub id: u64,
    /// What is asked.
    pub ask: Ask,
}

/// Requests to a cell. The comment names the reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// Start a tree; its descriptors come with the request. Reply: [`Started`], once the program
    /// runs, or a refusal within [`START_MS_MAX`]. The same life of a tree asked for again is not
    /// started twice.
    Start(Box<Start>),
    /// Run a helper of the cell's own, as root, with a pid below all nodes' ranges. Reply:
    /// [`Started`].
    Help(Box<Program>),
    /// Signal a process of the cell. Reply: `()`.
    Signal {
        /// Which.
        pid: i32,
        /// The signal's number.
        signal: i32,
        /// Its whole process group instead.
        group: bool,
    },
    /// Have all of a tree stand still; one that has ended does. Reply: `()`.
    Halt {
        /// Which.
        tree: Tree,
    },
    /// End all of a tree, also while it is being started. Reply: [`Dying`]; it is asked for again
    /// until nothing is left.
    Kill {
        /// Which.
        tree: Tree,
    },
    /// Reply: [`Status`].
    Status,
    /// Trees may run until then; the last word counts. Without one, or past it, init stops every
    /// process of a person, starts no trees and refuses to send SIGCONT; it lets nothing go on by
    /// itself. Reply: [`Leased`].
    Lease {
        /// By the clock that [`xos_base::when::Clock::up`] is, milliseconds; 0: not at all.
        until_ms: u64,
        /// After standing still for so long, in milliseconds, they are ended if no agent is
        /// connected; absent: never.
        end_after_ms: Option<u64>,
    },
    /// A restored tree has become init's child: watch it from now on. Reply: [`Started`].
    Adopt {
        /// Which.
        tree: Tree,
        /// Its first process.
        pid: i32,
    },
    /// The tree goes on elsewhere: its end here is not told. Reply: `()`.
    Release {
        /// Its first process.
        pid: i32,
    },
    /// Let pids of nodes with higher numbers be restored here, until it is taken back or the
    /// connection ends. Reply: `()`.
    Widen {
        /// Let, or no longer.
        on: bool,
    },
    /// Ends up to this number are on file with the agent. Reply: `()`.
    Acknowledge {
        /// The number.
        seq: u64,
    },
    /// Kill every process of the cell, and the cell. Reply: `()`, when it begins; the end of the
    /// connection says that init is dying.
    End,
}

/// A tree runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// Its first process.
    pub pid: i32,
    /// Whether it ran before this request.
    pub known: bool,
}

/// A tree is being ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dying {
    /// Its processes that have not ended yet. One that hangs in the kernel ends when that lets it.
    pub left: Vec<i32>,
}

/// A lease was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leased {
    /// Whether all had to stand still before: what is to go on must be let.
    pub held: bool,
    /// What init itself stopped, nobody let go on since, and may go on now. Empty unless all had to
    /// stand still before, and have not to now.
    pub stopped: Vec<i32>,
}

/// What a cell sends: replies, and without being asked what happens to trees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Tell {
    /// The answer to the call of that number.
    Reply {
        /// The call's number.
        id: u64,
        /// The answer.
        value: serde_json::Value,
    },
    /// The call of that number was refused.
    Refused {
        /// The call's number.
        id: u64,
        /// Why.
        refusal: Refusal,
    },
    /// A tree is over; what is left of it is being ended. Told to each new connection again until
    /// it is acknowledged.
    Ended(Ended),
    /// A tree's first process was stopped. Told once.
    Stopped {
        /// Which.
        pid: i32,
        /// By which signal.
        signal: i32,
    },
    /// A stopped one goes on. Told once.
    Continued {
        /// Which.
        pid: i32,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// From the raw status of wait(2); `None` when the process has not ended.
    pub fn of(status: i32) -> Option<Exit> {
        if libc::WIFEXITED(status) {
            Some(Exit::Code(libc::WEXITSTATUS(status) as u8))
        } else if libc::WIFSIGNALED(status) {
            Some(Exit::Signal(libc::WTERMSIG(status)))
        } else {
            None
        }
    }
}

/// What a process used, and those that it waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// User processor time, microseconds.
    pub user_us: u64,
    /// System processor time, microseconds.
    pub system_us: u64,
    /// Largest resident set, bytes.
    pub max_rss_bytes: u64,
}

/// The end of a tree's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// Its place among all ends of this cell, from 1.
    pub seq: u64,
    /// Which; `None` for a helper.
    pub tree: Option<Tree>,
    /// Its pid.
    pub pid: i32,
    /// How.
    pub exit: Exit,
    /// What it used.
    pub usage: Usage,
}

/// A tree that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeStatus {
    /// Which; `None` for a helper.
    pub tree: Option<Tree>,
    /// Its first process.
    pub pid: i32,
    /// All that can be found of it: its session, its process group, its descendants.
    pub processes: Vec<i32>,
}

/// How a cell is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The node's number.
    pub node: crate::pids::NodeNumber,
    /// The pid of the cell's init, as the node sees it.
    pub init_pid: i32,
    /// The pid that was given out last.
    pub last_pid: i32,
    /// How often pids had left the node's range before they were set back.
    pub strayed: u64,
    /// Trees that run.
    pub trees: Vec<TreeStatus>,
    /// Processes that belong to no tree any more.
    pub others: Vec<i32>,
    /// Ends that wait to be acknowledged.
    pub ended: usize,
    /// Until when trees may run, as it was said last; see [`Ask::Lease`].
    pub lease_until_ms: u64,
    /// Whether they may not now.
    pub held: bool,
}

/// Why a cell refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The request makes no sense; its sender has a fault.
    #[error("{0}")]
    Invalid(String),
    /// A process of this cell has the pid.
    #[error("pid {0} is taken on this node: end that process, or wait until it has ended")]
    PidTaken(i32),
    /// The tree runs here in another life.
    #[error("{0} runs on this node already: end it before another life of it is started")]
    Running(Tree),
    /// This life of the tree is over; its end waits to be acknowledged.
    #[error("{0} has ended on this node")]
    Over(Tree),
    /// The lease is over: it may be asked for again with the next one.
    #[error(
        "this node may run nothing of its cluster until the core is reached: nothing starts or \
         goes on"
    )]
    Held,
    /// There is no such process here.
    #[error("no process {0} is in this cell")]
    NoSuchProcess(i32),
    /// The program did not come to run; the text is for its person.
    #[error("{0}")]
    Program(String),
    /// No more fits.
    #[error("the cell takes no more: {0}")]
    Full(String),
    /// The machine refused; the node's administrator looks.
    #[error("{0}")]
    System(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_nobodys_account() {
        // wrong: a person would be root, a member of group disk, or, by -1, whoever init is
        let account = |uid, gid, groups: &[u32]| Account { uid, gid, groups: groups.to_vec() };
        assert_eq!(account(70_000, 70_000, &[70_000, 70_001]).check(), Ok(()));
        for bad in [
            account(0, 70_000, &[]),
            account(999, 70_000, &[]),
            account(OVERFLOW_ID, 70_000, &[]),
            account(u32::MAX, 70_000, &[]),
            account(70_000, 0, &[]),
            account(70_000, u32::MAX, &[]),
            account(70_000, 70_000, &[70_001, 6]),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_exec_cannot_take_is_refused_before() {
        // wrong: a variable could end early and smuggle in another
        let good = Program {
            argv: vec!["true".into()],
            env: vec![("A".into(), "b=c".into())],
            cwd: "/".into(),
            umask: 0o22,
            rlimits: vec![],
            cgroups: vec![],
            stdio: Stdio::Three,
        };
        assert_eq!(good.check(), Ok(()));
        let bad = |change: fn(&mut Program)| {
            let mut program = good.clone();
            change(&mut program);
            program.check().unwrap_err()
        };
        bad(|p| p.argv.clear());
        bad(|p| p.argv.push("a\0b".into()));
        bad(|p| p.env.push(("A=B".into(), "c".into())));
        bad(|p| p.env.push(("A".into(), "b\0C=d".into())));
        bad(|p| p.umask = 0o1777);
    }
}
