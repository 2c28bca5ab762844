//! Saving trees of processes to images and starting them again from there: whatever does it.
//!
//! [`criu`] does it for real, [`fake`] in memory for tests. [`why`] says beforehand what would not move.

pub mod absent;
mod account;
mod clocks;
pub mod criu;
mod error;
mod explain;
mod external;
pub mod fake;
pub mod files;
mod gate;
pub mod images;
mod limits;
mod look;
mod memory;
mod net;
mod person;
mod proc;
mod recorded;
mod restore;
mod rlimits;
mod run;
mod stats;
#[allow(unsafe_code)]
mod sys;
pub mod why;

use crate::cell::proto::Rlimit;
use crate::driver::images::{Manifest, OpenFile, Origin};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::{DriverError, Step};
pub use external::ExternalFd;
pub(crate) use memory::memory_bytes;
pub(crate) use net::Network;
pub use person::Person;

/// The pid, as this process sees it, of the process that has `inner` in the pid namespace of process
/// `cell`; `None` for `cell`: in this process's own.
///
/// # Errors
/// Those of the system.
pub(crate) fn outer_pid(cell: Option<i32>, inner: i32) -> std::io::Result<Option<i32>> {
    proc::outer_pid(cell, inner)
}

/// The pid of a process, as this process sees it, in the innermost of its pid namespaces.
///
/// # Errors
/// Those of the system; that it has ended is one.
pub(crate) fn inner_pid(outer: i32) -> std::io::Result<i32> {
    proc::inner_pid(outer)
}

/// What saves trees and starts them again. Every call ends within its limit.
#[async_trait]
pub trait Checkpointer: Send + Sync {
    /// What it can do on this machine.
    ///
    /// # Errors
    /// When it can do nothing here: none is there, it is too old, or the kernel lacks what it needs.
    async fn probe(&self) -> Result<Abilities, DriverError>;

    /// Writes a tree to an image folder. On an error the tree goes on as it was.
    ///
    /// # Errors
    /// When it cannot be saved, with the reason.
    async fn dump(&self, order: &DumpOrder) -> Result<Dumped, DriverError>;

    /// Writes down what an image folder holds: without that it is never restored. It reads all
    /// files, and needs no frozen tree.
    ///
    /// # Errors
    /// When the folder is not as [`Checkpointer::dump`] left it.
    async fn seal(&self, folder: &Path, origin: Origin) -> Result<Manifest, DriverError>;

    /// The same for images that only travel to another machine, sealed on their way: they are no
    /// checkpoint, so that nothing is read or brought to the disk.
    ///
    /// # Errors
    /// As [`Checkpointer::seal`].
    async fn seal_to_travel(&self, folder: &Path, origin: Origin) -> Result<Manifest, DriverError>;

    /// Starts a tree from an image folder that is whole and its owner's, if it has no more then
    /// than its owner may have. On an error nothing of it runs.
    ///
    /// # Errors
    /// When the images are refused, or it cannot be started, with the reason.
    async fn restore(&self, order: RestoreOrder) -> Result<Restored, DriverError>;
}

/// What a driver can do on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// The program's version, as 4.2.1.
    pub version: String,
    /// What it can do beyond the plain, or why not.
    pub features: BTreeMap<Feature, Ability>,
    /// What it saves of this machine's registers: a word that is another one where a tree cannot go
    /// on for that. Empty: it says nothing of them.
    pub registers: String,
}

impl Abilities {
    /// Whether `feature` can be had here.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.get(&feature) == Some(&Ability::Present)
    }
}

/// Whether something can be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ability {
    /// It can.
    Present,
    /// It cannot, for this reason.
    Missing(String),
}

/// What depends on the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// Connections (TCP) move, for trees with a network of their own, also those of which one side
    /// has ended.
    Tcp,
    /// Trees under seccomp filters move.
    SeccompFilters,
    /// Clocks that count from the machine's start go on without a leap.
    TimeNamespaces,
}

impl Feature {
    /// All of them.
    pub const ALL: [Feature; 3] = [Feature::Tcp, Feature::SeccompFilters, Feature::TimeNamespaces];
}

/// The namespaces in which a tree lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The pid, as the driver sees it, of a process in them that nobody but root made: its init.
    pub pid: i32,
    /// Whether the tree has a network of its own, and not the driver's. Its loopback is down while
    /// it is saved, for which the tree should stand still already, and nothing else may come in
    /// then; a copy gets another one ([`RestoreOrder::network`]).
    pub own_net: bool,
}

/// What becomes of a tree that was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leave {
    /// It goes on at once.
    Running,
    /// It stands still (SIGSTOP) until SIGCONT or SIGKILL.
    Stopped,
    /// It is gone.
    Killed,
}

/// What becomes of connections (TCP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tcp {
    /// A tree that has some is not saved.
    None,
    /// They go on, for trees with a network of their own ([`Cell::own_net`]): nothing else keeps
    /// packets away from them meanwhile.
    Established,
}

/// Which tree to save, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpOrder {
    /// The pid of its root, as the driver sees it.
    pub root: i32,
    /// Where it lives; `None`: in the driver's own namespaces.
    pub cell: Option<Cell>,
    /// An empty folder that only the driver's user can enter (0700). Its files get 0600.
    pub folder: PathBuf,
    /// What becomes of the tree.
    pub leave: Leave,
    /// Descriptors whose other end is outside, which whoever restores it gives again.
    pub externals: Vec<ExternalFd>,
    /// What becomes of connections.
    pub tcp: Tcp,
    /// How long it may take.
    pub limit: Duration,
}

/// A tree that was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dumped {
    /// Its root's pid in its cell.
    pub pid: i32,
    /// How long it stood still, in microseconds; with [`Leave::Stopped`], until the images were
    /// written.
    pub frozen_us: u64,
    /// Pages of memory that were written.
    pub pages: u64,
    /// What the images take, in bytes.
    pub size_bytes: u64,
    /// Files that were open for writing, and their sizes then.
    pub open_files: Vec<OpenFile>,
    /// The version of what wrote them.
    pub version: String,
}

/// A descriptor that takes the place of an outer one.
#[derive(Debug)]
pub struct Inherited {
    /// The one that the tree had, as it was saved.
    pub key: ExternalFd,
    /// What it gets.
    pub fd: OwnedFd,
}

/// Whose word images are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// This site's: a node of a cluster of its own made them.
    OwnSite,
    /// Another site's, which may be hostile. Nothing is done for them that takes more of root's
    /// rights than CRIU has for any program: a tree with connections ([`Tcp::Established`]) is
    /// refused.
    Foreign,
}

/// What to start, and where.
#[derive(Debug)]
pub struct RestoreOrder {
    /// The image folder. As long as the tree is made, the person's group may read it: those above
    /// it must be closed to others.
    pub folder: PathBuf,
    /// Who made the images.
    pub trust: Trust,
    /// Whose tree it must be; it gets no other rights, and is made with no others but two of
    /// CRIU's (`restore.rs`).
    pub owner: Person,
    /// Where it will live; `None`: in the driver's own namespaces. Its root becomes a child of
    /// the init there, which must reap it.
    pub cell: Option<Cell>,
    /// The control groups to enter: a folder of each hierarchy.
    pub cgroups: Vec<PathBuf>,
    /// What each of its processes may have at most (`hard`), whatever the images say.
    pub rlimits: Vec<Rlimit>,
    /// What takes the place of outer descriptors.
    pub inherited: Vec<Inherited>,
    /// Its network, for a tree with one of its own; without it, a new one with nothing but a
    /// loopback.
    pub network: Option<OwnedFd>,
    /// What becomes of connections: as in the dump.
    pub tcp: Tcp,
    /// Whether it stands still (SIGSTOP, all of its processes) until SIGCONT.
    pub stopped: bool,
    /// How long it may take, beyond checking the images.
    pub limit: Duration,
}

/// A tree that runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Its root's pid in its cell, the same as before.
    pub pid: i32,
    /// The same process's pid as the driver sees it; `None`: it has ended since.
    pub outer_pid: Option<i32>,
}
