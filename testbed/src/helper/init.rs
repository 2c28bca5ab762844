use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sched::unshare;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::sethostname;

use super::{Caller, OF_A_HOST, leave_behind, tell, wait_for_hangup};
use crate::cgroup::INIT;
use crate::error::Context as _;
use crate::rootfs::{Plan, enter_new_root};
use crate::state::{HostState, State};
use crate::status::Message;
use crate::testbed::HOSTS_DIR;
use crate::{HostName, Result, etc};

/// `testbed host-init`: becomes the first process of a host.
///
/// # Errors
/// What the system refused; the caller has been told.
pub fn host_init(caller: &Caller, name: &HostName) -> Result<()> {
    caller.serve(|status, state| {
        let host = state.host(name)?;
        umask(Mode::from_bits_truncate(0o022));
        let entrance = state.cgroups.entrance(name, INIT)?;
        // The cgroup at this moment becomes the root of the host's cgroup namespace.
        state.cgroups.join_host(name)?;
        unshare(OF_A_HOST).context(|| "making the host's namespaces".to_owned())?;
        if !leave_behind(status)? {
            return Ok(());
        }
        entrance.join()?;
        drop(entrance);
        set_up(&caller.dir, &state, host)?;
        // Before the answer: a child that ends right afterwards is reaped too.
        let signals = child_signals()?;
        tell(status, &Message::Ready)?;
        reap(&signals)
    })
}

fn set_up(dir: &Path, state: &State, host: &HostState) -> Result<()> {
    let name = host.name.as_str();
    let host_dir = dir.join(HOSTS_DIR).join(name);
    std::fs::create_dir_all(&host_dir).context(|| format!("making {}", host_dir.display()))?;
    enter_new_root(&Plan {
        dir,
        host_dir: &host_dir,
        helper: &state.helper,
        shares: &state.shares,
        hierarchies: &state.cgroups.hierarchies,
    })?;
    sethostname(name).context(|| "setting the hostname".to_owned())?;
    write_etc(state, host)
}

/// The files in /etc that make the host a machine of its own.
fn write_etc(state: &State, host: &HostState) -> Result<()> {
    let present = match std::fs::read("/etc/hosts") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other.context(|| "reading /etc/hosts".to_owned())?,
    };
    let hosts = etc::hosts_file(&String::from_utf8_lossy(&present), state);
    replace("/etc/hosts", &hosts)?;
    replace("/etc/hostname", &format!("{}\n", host.name))?;
    replace("/etc/machine-id", &format!("{}\n", etc::machine_id(state, host)))?;
    replace("/etc/resolv.conf", "# There is no name server in a testbed; see /etc/hosts.\n")
}

/// Replaces a file, or a link that would lead elsewhere.
fn replace(path: &str, text: &str) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other.context(|| format!("replacing {path}"))?,
    }
    std::fs::write(path, text).context(|| format!("writing {path}"))
}

fn child_signals() -> Result<SignalFd> {
    let what = || "preparing to wait for processes".to_owned();
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set.thread_block().context(what)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context(what)
}

/// Collects orphans until the testbed's creator is gone, if that is to be noticed. The end of this
/// process is the end of all others in the host.
fn reap(signals: &SignalFd) -> Result<()> {
    let fd = std::os::fd::AsFd::as_fd(signals);
    let fd: OwnedFd = fd.try_clone_to_owned().context(|| "copying a descriptor".to_owned())?;
    loop {
        while signals.read_signal().context(|| "reading a signal".to_owned())?.is_some() {}
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context(|| "waiting for a process".to_owned()),
            }
        }
        if wait_for_hangup(Some(&fd))? {
            return Ok(());
        }
    }
}
