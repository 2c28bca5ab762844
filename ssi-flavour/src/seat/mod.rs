//! A node's agent in a cluster: a process of its own, `xos-agent`, which outlives the node's
//! `xosd`, holds the ends of the programs' streams and stops what runs when the lease ends.
//!
//! ```text
//! xosd --agent.sock-- agent --cell.sock-- init of the cell
//!   |                   +-- CRIU
//!   +-- core, other nodes
//! ```
//!
//! Only `xosd` speaks with other machines: what the agent says to the controller, and streams to
//! other nodes, go through it.

mod begin;
mod border;
mod client;
mod holder;
mod launch;
mod looks;
mod people;
mod place;
mod proto;
mod serve;
mod shell;
#[cfg(test)]
mod testing;
mod way;

pub use begin::{begin, end, kill};
pub use client::{Begun, Client, Wanted};
pub use proto::{Placing, Plan, Want, Where};

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// In a seat's folder: the agent's socket.
pub const SOCKET_FILE: &str = "agent.sock";
/// In a seat's folder: [`Plan`].
pub const PLAN_FILE: &str = "seat.json";
/// In a seat's folder: what trees wrote that were born here ([`crate::ghost::spool`]).
pub const SPOOLS_FOLDER: &str = "spools";
/// In a seat's folder: the socket by which the merged `/proc`s of shells learn of other nodes.
pub const VIEWS_FILE: &str = "views.sock";
/// In a seat's folder: locked by the agent while it lives; in it is its pid.
pub const LOCK_FILE: &str = "agent.lock";

/// Starts an agent: the whole of the program `xos-agent <folder>`.
///
/// Returns in the launcher, when the agent can be connected to (0) or could not start (1, reason on
/// standard error).
pub fn agent_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (Some(folder), None) = (args.next(), args.next()) else {
        complain("usage: xos-agent <folder of a seat>; started by xosd");
        return ExitCode::from(2);
    };
    match launch::run(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain(&e);
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr)] // the launcher's only output
fn complain(text: &str) {
    eprintln!("{text}");
}
