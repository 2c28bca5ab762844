//! Networks of trees that have one of their own.
//!
//! CRIU would lock connections by netfilter, which a node may not have and which needs more rights
//! than root has in many containers. Here the loopback is down while a tree is saved: its packets
//! are lost, as on any network, and sent again (RFC 9293, 3.8.1). The tree stands still, so that
//! none of its programs sees that. A copy is made in a network in which nothing else is: nobody
//! sends there before all of its connections are back. What comes from other networks is kept away
//! by whoever carries it ([`crate::overlay`]).

use crate::sys;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::{Error, Result};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

/// A network; it lasts as long as somebody has it open or is in it.
pub(crate) struct Network(File);

impl Network {
    /// A new one, with a loopback.
    pub(crate) fn new() -> Result<Network> {
        apart(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            sys::loopback(true)?;
            File::open("/proc/thread-self/ns/net").map(Network)
        })
    }

    /// That of a process.
    pub(super) fn of(pid: i32) -> Result<Network> {
        File::open(format!("/proc/{pid}/ns/net")).map(Network)
    }

    /// A device in it for packets; see [`sys::packet_device`].
    pub(crate) fn device(&self, address: Ipv4Addr, mask: Ipv4Addr, mtu: u16) -> Result<File> {
        self.within(|| sys::packet_device(address, mask, mtu))
    }

    /// A descriptor of it.
    pub(crate) fn file(&self) -> Result<OwnedFd> {
        self.0.try_clone().map(OwnedFd::from)
    }

    /// Has nothing sent on its loopback as long as what is returned lives.
    pub(super) fn quiet(&self) -> Result<Quiet<'_>> {
        self.within(|| sys::loopback(false))?;
        Ok(Quiet(self))
    }

    fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        apart(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }
}

/// A network on whose loopback nothing is sent.
pub(super) struct Quiet<'a>(&'a Network);

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.within(|| sys::loopback(true)) {
            tracing::warn!(%error, "the loopback of a program's own network stays down");
        }
    }
}

/// In a thread of its own, which ends with that: another one's network stays as it is.
fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("network".to_owned());
        let ended = thread.spawn_scoped(scope, work)?.join();
        ended.unwrap_or_else(|_| Err(Error::other("the thread of a network died")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    #[test]
    fn a_network_is_quiet_and_then_not() {
        // wrong: connections would lose bytes while they are saved, or never go on again
        let network = match Network::new() {
            Ok(network) => network,
            Err(error) => return println!("skipped: {error}"),
        };
        let connect = || {
            network.within(|| {
                let server = TcpListener::bind("127.0.0.1:0")?;
                // What is lost is sent again for minutes.
                let wait = Duration::from_millis(500);
                TcpStream::connect_timeout(&server.local_addr()?, wait).map(drop)
            })
        };
        connect().unwrap();
        let quiet = network.quiet().unwrap();
        assert!(connect().is_err());
        drop(quiet);
        connect().unwrap();
        assert!(Network::of(i32::MAX).is_err());
    }
}
