//! Networks of trees that have one of their own, with nothing but a loopback.
//!
//! CRIU would lock connections by netfilter, which a node may not have and which needs more rights
//! than root has in many containers. Here the loopback is down while a tree is saved: its packets
//! are lost, as on any network, and sent again (RFC 9293, 3.8.1). The tree stands still, so that
//! none of its programs sees that. A copy is made in a network in which nothing else is: nobody
//! sends there before all of its connections are back.

use super::Cell;
use super::error::DriverError;
use crate::sys;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::OwnedFd;

/// A network; it lasts as long as somebody has it open or is in it.
pub(super) struct Network(File);

impl Network {
    /// That of process `root`; `None`: the tree has the driver's.
    pub(super) fn of(
        cell: Option<Cell>,
        root: i32,
    ) -> std::result::Result<Option<Network>, DriverError> {
        if !own(cell) {
            return Ok(None);
        }
        let opened = File::open(format!("/proc/{root}/ns/net"));
        let doing = format!("open the network of process {root}");
        opened.map(|file| Some(Network(file))).map_err(DriverError::system(doing))
    }

    /// A new one for a copy; `None`: the tree has the driver's.
    pub(super) fn anew(cell: Option<Cell>) -> std::result::Result<Option<Network>, DriverError> {
        if !own(cell) {
            return Ok(None);
        }
        let made = apart(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            sys::loopback(true)?;
            File::open("/proc/thread-self/ns/net")
        });
        made.map(|file| Some(Network(file))).map_err(DriverError::system("make a network"))
    }

    /// A descriptor of it.
    pub(super) fn file(&self) -> std::result::Result<OwnedFd, DriverError> {
        let file = self.0.try_clone().map_err(DriverError::system("keep a network open"))?;
        Ok(file.into())
    }

    /// Has nothing sent in it as long as what is returned lives.
    pub(super) fn quiet(&self) -> std::result::Result<Quiet<'_>, DriverError> {
        self.link(false).map_err(DriverError::system("keep its network still"))?;
        Ok(Quiet(self))
    }

    fn link(&self, up: bool) -> Result<()> {
        apart(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            sys::loopback(up)
        })
    }
}

fn own(cell: Option<Cell>) -> bool {
    cell.is_some_and(|cell| cell.own_net)
}

/// A network in which nothing is sent.
pub(super) struct Quiet<'a>(&'a Network);

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.link(true) {
            tracing::warn!(%error, "a program's own network stays down");
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

    const CELL: Cell = Cell { pid: 1, own_net: true };

    #[test]
    fn a_network_is_quiet_and_then_not() {
        // wrong: connections would lose bytes while they are saved, or never go on again
        let network = match Network::anew(Some(CELL)) {
            Ok(network) => network.unwrap(),
            Err(error) => return println!("skipped: {error}"),
        };
        let up = || {
            apart(|| {
                setns(&network.0, CloneFlags::CLONE_NEWNET)?;
                let server = std::net::TcpListener::bind("127.0.0.1:0")?;
                std::net::TcpStream::connect(server.local_addr()?).map(drop)
            })
        };
        up().unwrap();
        let quiet = network.quiet().unwrap();
        assert!(up().is_err());
        drop(quiet);
        up().unwrap();
    }

    #[test]
    fn a_tree_without_one_gets_none() {
        // wrong: a tree would lose the network of its node
        let shared = Some(Cell { own_net: false, ..CELL });
        assert!(Network::anew(shared).unwrap().is_none() && Network::anew(None).unwrap().is_none());
        assert!(Network::of(shared, i32::MAX).unwrap().is_none());
        assert!(Network::of(Some(CELL), i32::MAX).is_err());
    }
}
