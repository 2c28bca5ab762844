//! The merged `/proc` of a cluster shell: that of the cell, and what runs on the other nodes, so
//! that ps, top, free and uptime as they are show the whole cluster.
//!
//! ```text
//! agent --asks the cell for--> keeper (root, low pid), in a mount namespace of its own
//!   ^                            |  which the shell joins before its exec: Start::merged_proc
//!   |                            +-- mounts on /proc:        FUSE: texts, remote processes
//!   +------ View, each second -- server (in the cell's own mount namespace)
//!                                +-- mounts on /proc/.local: the cell's real /proc
//! ```
//!
//! What is of this node are links into the real `/proc` below `.local`: the kernel itself decides
//! who may read what, and root's server reads no local process for anybody, but for the three links
//! `cwd`, `exe` and `root`, whose text is told to the process's own user.
//!
//! When the server dies, the keeper takes the dead mount away at once, so that the real `/proc` is
//! there again, and starts a new one. When the keeper dies, the server does that. A server that
//! could go on with the old connection would have to keep its state beside the processes that may
//! die; a mount that is taken away needs none. What had files of the old mount open gets errors
//! for those. Only this shell's processes are in that mount namespace: what moves by CRIU sees none
//! of it, and a shell does not move ([`crate::driver::why::What::MergedProc`]).

mod feed;
mod fs;
mod inode;
mod keep;
mod local;
pub mod look;
mod process;
mod system;
mod view;

pub use feed::{CONNECTIONS_MAX, serve};
pub use keep::proc_main;
pub use view::{NodeView, Seen, VIEW_PROCESSES_MAX, View, Views};

use crate::cell::proto::{Program, Stdio};
use crate::ghost::place::SOCKET_VARIABLE;
use crate::pids::NodeNumber;
use std::path::Path;

/// The type of file system that mountinfo shows; see proc_pid_mountinfo(5).
pub(crate) const FILE_SYSTEM: &str = "fuse.xos-proc";
/// What the keeper writes on standard output once the merged `/proc` is there.
pub const READY: &str = "ready\n";

/// The keeper of a shell's `/proc`, to be asked of the cell by [`crate::cell::proto::Ask::Help`];
/// `program` is `xos-proc`, `socket` where [`serve`] listens, `uid` whose shell it is. The shell is
/// started with the helper's pid in [`crate::cell::proto::Start::merged_proc`] once [`READY`] came,
/// and the helper gets SIGTERM when it is over.
pub fn keeper(program: &Path, socket: &Path, uid: u32, here: NodeNumber) -> Program {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Program {
        argv: vec![text(program), text(socket), uid.to_string(), here.to_string()],
        env: Vec::new(),
        cwd: "/".into(),
        umask: 0o077,
        rlimits: Vec::new(),
        cgroups: Vec::new(),
        stdio: Stdio::Three,
    }
}

/// What a cluster shell has in its environment besides: where its programs are placed, and for
/// nproc(1), which looks at no `/proc`, how many processors the cluster has.
pub fn environment(socket: &Path, view: &View) -> Vec<(String, String)> {
    let cpus: u32 = view.nodes.iter().map(|n| n.cpus).fold(0, u32::saturating_add);
    vec![
        (SOCKET_VARIABLE.to_owned(), socket.to_string_lossy().into_owned()),
        ("OMP_NUM_THREADS".to_owned(), cpus.max(1).to_string()),
    ]
}
