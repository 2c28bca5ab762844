//! Ghosts: what stands at a tree's birth node while the tree runs elsewhere.
//!
//! ```text
//! parent --wait--- ghost --socket-- agent ~~~ agent --socket-- relay --pipes, pty--- tree
//! terminal, pipes --+   birth node                the node it runs on
//! ```
//!
//! The ghost has the tree's pid, parent and descriptors. Both ends keep what the other has not
//! acknowledged, with its place in the stream, so that a connection that breaks, and a tree that
//! moves, lose and double nothing. After a restart from a checkpoint the tree writes again what it
//! had written since; the ghost drops that.
//!
//! A person's ghost need not be there all the time, nor at the birth node: it attaches to the tree's
//! spool there ([`spool`]), from anywhere, and another one after it.
//!
//! A ghost reads ahead of the program: what it has read of a standard input that it shares with
//! other programs is not theirs any more.

mod escape;
pub mod inject;
mod link;
mod machine;
pub mod proto;
pub mod relay;
mod run;
pub mod spool;
mod terminal;
mod wake;

pub use machine::{Fault, WINDOW_BYTES};
pub use run::{Connect, End, Manner, Signals, stand};

use crate::cell::proto::Tree;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// The exit code of a ghost whose tree is lost, as ssh has it for a lost connection.
pub const LOST_CODE: u8 = 255;

/// Stands for a tree: the whole of the program `xos-ghost <socket> <tree> <epoch>`. Ends as the
/// tree does, by the same code or signal.
pub fn ghost_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (socket, id, epoch, more) = (args.next(), args.next(), args.next(), args.next());
    let number = |text: Option<OsString>| text?.to_str()?.parse::<u64>().ok();
    let (Some(socket), Some(id), Some(epoch), None) = (socket, number(id), number(epoch), more)
    else {
        complain("usage: xos-ghost <socket of the node's agent> <tree> <epoch>");
        return ExitCode::from(2);
    };
    run::run(PathBuf::from(socket), Tree { id, epoch })
}

#[allow(clippy::print_stderr)] // a ghost has nothing to say but this
fn complain(text: &str) {
    eprintln!("xos-ghost: {text}");
}
