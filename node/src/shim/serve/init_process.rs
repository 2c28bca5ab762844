//! The shim's side of the envelope's init.

use super::super::init;
use super::super::launch::{LaunchError, io_error};
use crate::cgroup::EnvelopeCgroup;
use crate::proto::{FromInit, ToInit};
use crate::spec::Account;
use crate::sys::{self, Forked};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Pid, PidfdFlags};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use xos_ssi::frame::{Frames, Outbox};

/// The envelope's init as its shim sees it.
pub(super) struct InitProcess {
    pub pid: Pid,
    /// Readable when it is dead, and with it every process of the envelope.
    pub fd: OwnedFd,
    /// Gone when it hung up.
    pub socket: Option<UnixStream>,
    pub inbox: Frames,
    pub outbox: Outbox,
}

impl InitProcess {
    /// Forks init and waits until it is ready; without an account, to be adopted.
    pub(super) fn fork(
        cgroup: &EnvelopeCgroup,
        account: Option<&Account>,
    ) -> Result<InitProcess, LaunchError> {
        let (ours, theirs) = UnixStream::pair().map_err(io_error("make a socket pair"))?;
        unshare(CloneFlags::CLONE_NEWPID).map_err(io_error("make a pid namespace"))?;
        let pid = match sys::fork().map_err(io_error("fork init"))? {
            Forked::Parent(pid) => pid,
            Forked::Child => {
                // Only the socket stays; the lock and the log are the shim's.
                let keep = rustix::io::dup(&theirs).and_then(|fd| keep_only(fd, theirs, ours));
                match keep {
                    Ok(shim) => init::run(cgroup, account, shim),
                    Err(_) => sys::exit_now(3),
                }
            }
        };
        drop(theirs);
        let pid = Pid::from_raw(pid).ok_or_else(|| LaunchError::Shim("init has no pid".into()))?;
        let fd = rustix::process::pidfd_open(pid, PidfdFlags::empty());
        let mut init = InitProcess {
            pid,
            fd: fd.map_err(io_error("watch init"))?,
            socket: Some(ours),
            inbox: Frames::default(),
            outbox: Outbox::default(),
        };
        init.await_ready()?;
        Ok(init)
    }

    /// Gives the units of an init without an account to that person.
    pub(super) fn adopt(&mut self, account: &Account) -> Result<(), LaunchError> {
        let message = ToInit::Adopt { account: Box::new(account.clone()) };
        self.outbox.push(&message).map_err(io_error("speak to init"))?;
        self.await_ready()
    }

    /// Sends what is to be sent, and waits until init says that it is ready.
    fn await_ready(&mut self) -> Result<(), LaunchError> {
        let died = || LaunchError::Shim("the envelope's init died while starting".into());
        let Some(socket) = &mut self.socket else { return Err(died()) };
        socket.set_nonblocking(false).map_err(io_error("hear from init"))?;
        self.outbox.flush(socket).map_err(io_error("speak to init"))?;
        loop {
            if !self.inbox.fill(socket).map_err(io_error("hear from init"))? {
                return Err(died());
            }
            match self.inbox.next().map_err(io_error("hear from init"))? {
                None => {}
                Some(FromInit::Ready { error: None }) => break,
                Some(FromInit::Ready { error: Some(e) }) => return Err(LaunchError::Shim(e)),
                Some(FromInit::Ended { .. } | FromInit::Signalled {}) => return Err(died()),
            }
        }
        socket.set_nonblocking(true).map_err(io_error("hear from init"))
    }
}

/// In init: closes everything but standard input, output, error and the socket.
fn keep_only(fd: OwnedFd, theirs: UnixStream, ours: UnixStream) -> rustix::io::Result<UnixStream> {
    let high = rustix::io::fcntl_dupfd_cloexec(&fd, 100)?;
    drop((fd, theirs, ours));
    for n in 3..100 {
        // The owners of these numbers are the shim's values, which this process never touches.
        match nix::unistd::close(n) {
            Ok(()) | Err(nix::errno::Errno::EBADF) => {}
            Err(e) => return Err(rustix::io::Errno::from_raw_os_error(e as i32)),
        }
    }
    Ok(UnixStream::from(high))
}
