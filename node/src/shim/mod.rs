//! The process that owns an envelope.
//!
//! ```text
//! daemon --spawns--> launcher --forks--> shim (own session, outlives both)
//!                                          |  socket, log, queue, timers; outside the cgroup
//!                                          +-- init: pid 1 of the envelope's pid namespace,
//!                                                |   in its cgroup, with its own /proc, shared
//!                                                |   memory and IPC namespace
//!                                                +-- units, as the person
//! ```
//!
//! A shell is a shim that was started ahead, without a plan: init is in its cgroup and waits. It
//! ends by itself when the daemon that holds it does, or becomes an envelope when told to.
//!
//! When the shim dies the kernel kills init (parent death signal), and with init everything in
//! its pid namespace. No process of an envelope survives it.

mod child;
mod init;
pub(crate) mod launch;
mod log;
mod machine;
mod procs;
mod serve;
mod spool;

pub use spool::Stream;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// The first argument that makes `xosd` a shim.
pub const SHIM_ARG: &str = "shim";
/// In an envelope's folder: what it is to be, for the shim.
pub const PLAN_FILE: &str = "plan.json";
/// In the folder of a shell that was started ahead and is nobody's yet: what is made already.
pub const SHELL_FILE: &str = "shell.json";
/// In an envelope's folder: the record of its units.
pub const LOG_FILE: &str = "units.log";
/// In an envelope's folder: locked by the shim while it lives.
pub const LOCK_FILE: &str = "shim.lock";
/// In an envelope's folder: the shim's socket.
pub const SOCKET_FILE: &str = "shim.sock";
/// In an envelope's folder: output of units.
pub const SPOOL_DIR: &str = "spool";
/// In an envelope's folder: what the shim has to say that nobody asked for.
pub const NOTES_FILE: &str = "shim.notes";

/// Runs the shim for an envelope's folder. To be called before any thread exists: as the whole of
/// the program `xos-shim <folder>`, or from `xosd shim <folder>` first thing in `main`.
///
/// Returns in the launcher, when the shim is ready (0) or could not start (1, reason on standard
/// error), and in the shim when the envelope is over.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (Some(dir), None) = (args.next(), args.next()) else {
        complain("usage: xos-shim <folder of an envelope>; started by xosd, not by hand");
        return ExitCode::from(2);
    };
    match launch::run(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain(&e.to_string());
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr)] // this is the program's only output
fn complain(text: &str) {
    eprintln!("{text}");
}
