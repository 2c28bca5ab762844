//! Cells: the processes of a cluster on one of its nodes.
//!
//! ```text
//! agent --spawns--> launcher --forks--> init: pid 1 of the cell's pid namespace,
//!   |                                     |   with its own /proc, shared memory, IPC namespace;
//!   +------- socket in the folder --------+   outlives launcher and agent
//!                                         +-- trees, as their persons
//! ```
//!
//! Pids that are born in a cell are of its node's range, so that a tree keeps its pid wherever in
//! the cluster it goes. When init dies the kernel kills all of the cell. What ends while no agent
//! is connected is told to the next one.
//!
//! Trees run until the time that the agent said last ([`proto::Ask::Lease`]). Then init stops them
//! by itself, so that no copy runs on while the cluster takes the node for dead and starts another
//! one elsewhere. It never lets anything go on: the agent does.

mod client;
pub(crate) mod frame;
mod init;
mod kept;
mod launch;
mod lease;
mod own;
pub mod proto;
mod range;
mod start;

pub use client::{CallError, Client, Event, launch};
pub use frame::FDS_MAX;

use crate::pids::NodeNumber;
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::ExitCode;

/// Pids of helpers: below those to which the kernel goes back at the end (300, `RESERVED_PIDS`).
pub(crate) const HELPER_PIDS: RangeInclusive<i32> = 2..=299;

/// In a cell's folder: its socket.
pub const SOCKET_FILE: &str = "cell.sock";
/// In a cell's folder: locked by init while it lives.
pub const LOCK_FILE: &str = "cell.lock";

/// Starts a cell: the whole of the program `xos-cell <folder> <number of the node>`.
///
/// Returns in the launcher, when the cell takes requests (0) or could not start (1, reason on
/// standard error).
pub fn cell_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let node = |text: OsString| NodeNumber::try_from(text.to_str()?.parse::<u8>().ok()?).ok();
    let (Some(dir), Some(Some(node)), None) = (args.next(), args.next().map(node), args.next())
    else {
        complain(
            "usage: xos-cell <folder of a cell> <node, 1 to 127>; started by the node's agent",
        );
        return ExitCode::from(2);
    };
    match launch::run(Path::new(&dir), node) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain(&e);
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr)] // this is the program's only output
fn complain(text: &str) {
    eprintln!("{text}");
}
