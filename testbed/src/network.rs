//! The switch and its cables, made with `ip` (iproute2) inside the testbed's own namespaces.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sched::CloneFlags;

use crate::error::Context as _;
use crate::state::{HostState, Lock, State};
use crate::{Error, HostName, Prefix, Result, sys};

/// A host's cable to the switch. Delay and loss will be set here.
#[derive(Clone, Debug)]
pub struct Link {
    pub(crate) dir: PathBuf,
    pub(crate) host: HostName,
}

impl Link {
    /// Pulls the cable: packets vanish both ways, connections stay open. Stays so over a restart of
    /// the host.
    ///
    /// # Errors
    /// When the host or the switch is gone, or `ip` refuses.
    pub fn cut(&self) -> Result<()> {
        self.set(true)
    }

    /// Plugs the cable in again.
    ///
    /// # Errors
    /// As for [`Link::cut`].
    pub fn heal(&self) -> Result<()> {
        self.set(false)
    }

    fn set(&self, cut: bool) -> Result<()> {
        let _lock = Lock::take(&self.dir)?;
        let mut state = State::load(&self.dir)?;
        let host = state.host_mut(&self.host)?;
        host.cut = cut;
        let (up, port) = (host.init.is_some(), host.port);
        if up {
            let direction = if cut { "down" } else { "up" };
            ip(&switch(&state)?, &format!("link set h{port} {direction}"))?;
        }
        state.save(&self.dir)
    }
}

/// The running switch.
pub(crate) fn switch(state: &State) -> Result<OwnedFd> {
    let gone = || Error::Start {
        what: format!("using the network of the testbed {}", state.name),
        reason: "its switch has ended; destroy the testbed and make it anew".to_owned(),
    };
    state.switch.ok_or_else(gone)?.open()?.ok_or_else(gone)
}

/// Sets the bridge up in the namespace of the new switch.
pub(crate) fn set_up_switch(switch: &OwnedFd, prefix: Prefix) -> Result<()> {
    let (address, bits) = (prefix.switch(), prefix.bits());
    let mac = mac(address);
    let script = format!(
        "link set lo up\n\
         link add br0 address {mac} type bridge\n\
         addr add {address}/{bits} dev br0\n\
         link set br0 up"
    );
    ip(switch, &script)
}

/// Connects the host whose first process is `init` (pid and descriptor).
pub(crate) fn plug(state: &State, host: &HostState, init: (i32, &OwnedFd)) -> Result<()> {
    let HostState { port, address, .. } = host;
    let switch = switch(state)?;
    unplug(&switch, *port)?;
    // A fixed hardware address: a restarted host is reached although others remember the old one.
    let (mac, pid, bits) = (mac(*address), init.0, state.prefix.bits());
    let direction = if host.cut { "down" } else { "up" };
    let script = format!(
        "link add h{port} type veth peer name eth0 address {mac} netns {pid}\n\
         link set h{port} master br0\n\
         link set h{port} {direction}"
    );
    ip(&switch, &script)?;
    let script = format!(
        "link set lo up\n\
         addr add {address}/{bits} dev eth0\n\
         link set eth0 up"
    );
    ip(init.1, &script)
}

/// Removes the cable of a host that has ended: the kernel does so itself, but later.
pub(crate) fn unplug(switch: &OwnedFd, port: u32) -> Result<()> {
    match ip(switch, &format!("link del h{port}")) {
        Err(Error::Network { stderr, .. }) if stderr.contains("Cannot find device") => Ok(()),
        other => other,
    }
}

/// Runs `ip` on a batch of commands in the network namespace of a process.
fn ip(process: &OwnedFd, script: &str) -> Result<()> {
    let what = || "running `ip` (iproute2); is it installed?".to_owned();
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    sys::enter(&mut command, process.try_clone().context(what)?, CloneFlags::CLONE_NEWNET);
    let mut child = command.spawn().context(what)?;
    let fed = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(format!("{script}\n").as_bytes()),
        None => Ok(()),
    };
    let output = child.wait_with_output().context(what)?;
    if output.status.success() {
        return fed.context(what);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Network { script: script.to_owned(), stderr })
}

/// A locally administered hardware address made from the network address.
fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}
