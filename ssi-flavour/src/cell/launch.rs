//! From the agent to a cell that stands alone.

use super::{LOCK_FILE, SOCKET_FILE, init};
use crate::alone::{forget_login, listen, lock, no};
use crate::pids::NodeNumber;
use crate::sys::{self, Forked};
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// What init says to the launcher when it takes requests; anything else is why not.
const READY: &str = "ready";

/// Starts the cell of a folder; see [`super::cell_main`].
pub(super) fn run(dir: &Path, node: NodeNumber) -> Result<(), String> {
    sys::close_from(3).map_err(no("close what was inherited"))?;
    sys::ignore_pipe();
    // Relative names from here on: a socket's must be short.
    std::env::set_current_dir(dir).map_err(no("enter the cell's folder"))?;
    let lock = lock(LOCK_FILE)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let listener = listen(SOCKET_FILE)?;
    listener.set_nonblocking(true).map_err(no("make the cell's socket"))?;
    let (mut from_init, to_launcher) = std::io::pipe().map_err(no("make a pipe"))?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(no("make a pid namespace"))?;
    match sys::fork().map_err(no("fork the cell's init"))? {
        Forked::Parent(_) => {
            drop(to_launcher);
            let mut said = String::new();
            from_init.read_to_string(&mut said).map_err(no("hear from the cell's init"))?;
            match said.as_str() {
                READY => Ok(()),
                "" => Err("the cell's init died while starting".to_owned()),
                why => Err(why.to_owned()),
            }
        }
        Forked::Child => {
            drop(from_init);
            let mut launcher = Some(to_launcher);
            let result = detach().and_then(|()| {
                init::run(node, listener, || match launcher.take() {
                    Some(mut to) => to.write_all(READY.as_bytes()).map_err(no("tell the launcher")),
                    None => Ok(()),
                })
            });
            if let (Err(why), Some(mut to)) = (&result, launcher) {
                // The launcher repeats it; without a launcher nobody asks.
                let told = to.write_all(why.as_bytes());
                debug_assert!(told.is_ok(), "{told:?}");
            }
            drop(lock);
            sys::exit_now(if result.is_ok() { 0 } else { 1 })
        }
    }
}

fn detach() -> Result<(), String> {
    nix::unistd::setsid().map_err(no("leave the session"))?;
    forget_login();
    sys::default_signals();
    sys::ignore_pipe();
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(no("open /dev/null"))?;
    nix::unistd::dup2_stdin(&null).map_err(no("let go of standard input"))?;
    nix::unistd::dup2_stdout(&null).map_err(no("let go of standard output"))?;
    nix::unistd::dup2_stderr(&null).map_err(no("let go of standard error"))?;
    rustix::thread::set_name(c"xos-cell").map_err(no("take a name"))
}
