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
mod link;
mod machine;
pub mod place;
pub mod proto;
pub mod relay;
mod run;
pub mod spool;
mod terminal;
mod wake;

pub use machine::{Fault, WINDOW_BYTES};
pub use run::{Connect, End, Manner, Signals, stand};

use crate::cell::proto::Tree;
use std::ffi::{OsStr, OsString};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The exit code of a ghost whose tree is lost, as ssh has it for a lost connection.
pub const LOST_CODE: u8 = 255;

/// The whole of the program `xos-ghost`: by `<socket> <tree> <epoch>` it stands for a tree, and
/// ends as that does, by the same code or signal; by `run -- PROGRAM ARGUMENTS`, and as `xos-sh`, it
/// has a program placed ([`place`]). The first argument is the program's own name.
pub fn ghost_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let name = args.next().unwrap_or_default();
    if Path::new(&name).file_name() == Some(OsStr::new(place::SHELL_NAME)) {
        return place::shell(args);
    }
    let args: Vec<OsString> = args.collect();
    let number = |text: &OsString| text.to_str()?.parse::<u64>().ok();
    match args.as_slice() {
        [run, line, argv @ ..] if run == "run" && line == "--" && !argv.is_empty() => {
            place::place(argv)
        }
        [socket, id, epoch] => match (number(id), number(epoch)) {
            (Some(id), Some(epoch)) => {
                let socket = PathBuf::from(socket);
                let connect = Box::new(move || UnixStream::connect(&socket));
                run::run(connect, Tree { id, epoch })
            }
            _ => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    complain(
        "usage: xos-ghost <socket of the node's agent> <tree> <epoch>, or xos-ghost run -- \
         <program> <arguments>",
    );
    ExitCode::from(2)
}

#[allow(clippy::print_stderr)] // a ghost has nothing to say but this
fn complain(text: &str) {
    eprintln!("xos-ghost: {text}");
}
