//! What the program `testbed` does for the library, on its sub-commands that people do not use:
//! the first process of a host, the way into a host, the switch and the forwarders. For `main.rs`
//! only.

mod enter;
mod forward;
mod init;

use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::setsid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

pub use enter::{Entry, enter, exec};
pub use forward::forward;
pub use init::host_init;

use crate::Result;
use crate::error::Context as _;
use crate::state::State;
use crate::status::{Message, StatusWriter};
use crate::sys::{self, Side, SingleThread};

/// What a host has of its own.
const OF_A_HOST: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// What every helper is told.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The testbed's folder.
    pub dir: PathBuf,
    /// The number of the inherited pipe for answers.
    pub status_fd: RawFd,
}

impl Caller {
    /// Runs `work` and reports its failure to the caller as well as on standard error.
    fn serve(&self, work: impl FnOnce(&mut StatusWriter, State) -> Result<()>) -> Result<()> {
        let fd = sys::adopt(self.status_fd).context(|| "taking over the pipe".to_owned())?;
        let mut status = StatusWriter::new(fd);
        let done = State::load(&self.dir).and_then(|state| work(&mut status, state));
        if let Err(error) = &done {
            let told = status.send(&Message::Error(error.to_string()));
            told.context(|| format!("reporting: {error}"))?;
        }
        done
    }
}

/// `testbed switch`: holds the network namespace of the testbed's bridge.
///
/// # Errors
/// What the system refused; the caller has been told.
pub fn switch(caller: &Caller) -> Result<()> {
    caller.serve(|status, state| {
        state.cgroups.join_tools()?;
        unshare(CloneFlags::CLONE_NEWNET).context(|| "making a network".to_owned())?;
        if !leave_behind(status)? {
            return Ok(());
        }
        tell(status, &Message::Ready)?;
        wait_for_hangup(None).map(|_| ())
    })
}

/// Forks; tells the caller the child's pid. `true` in the child, which leads a session of its own.
fn leave_behind(status: &mut StatusWriter) -> Result<bool> {
    let proof = SingleThread::check().context(|| "starting a process".to_owned())?;
    match sys::fork(&proof).context(|| "starting a process".to_owned())? {
        Side::Parent(pid) => tell(status, &Message::Pid(pid)).map(|()| false),
        Side::Child => {
            setsid().context(|| "starting a session".to_owned())?;
            Ok(true)
        }
    }
}

fn tell(status: &mut StatusWriter, message: &Message) -> Result<()> {
    status.send(message).context(|| "answering".to_owned())
}

/// Waits until the process at the other end of standard input is gone (`true`), or `other` is
/// readable (`false`). Waits for ever for /dev/null to be gone.
fn wait_for_hangup(other: Option<&OwnedFd>) -> Result<bool> {
    let stdin = std::io::stdin();
    loop {
        let mut fds = vec![PollFd::new(&stdin, PollFlags::empty())];
        fds.extend(other.map(|fd| PollFd::new(fd, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context(|| "waiting".to_owned()),
        }
        if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Ok(true);
        }
        if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
            return Ok(false);
        }
    }
}
