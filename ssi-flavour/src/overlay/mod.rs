//! The network between trees that have one of their own, whatever node they are on.
//!
//! Each such tree has an address for life ([`address`]) on a device of which the agent has the
//! other end. The core says which node has which tree ([`Place`]); packets for another node go over
//! a stream to that, one for each direction. Trees of one person in one VO reach one another, and
//! nobody else does. What does not get through is lost, as on any network.

mod ways;

use crate::driver::Network;
use crate::host::Peers;
use crate::pids::NodeNumber;
use crate::wire::Place;
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use ways::Ways;

/// What of an address is the same for all: 10.0.0.0/8.
const MASK: Ipv4Addr = Ipv4Addr::new(255, 0, 0, 0);
/// Largest packet, in bytes: with its frame, one of a usual local network holds it.
const PACKET_BYTES_MAX: u16 = 1400;
/// Shortest header of a packet (RFC 791), in bytes.
const HEADER_BYTES: usize = 20;

/// The address of a tree that has a network of its own: 10, and the last three bytes of its number.
pub fn address(tree: u64) -> Ipv4Addr {
    let [.., a, b, c] = tree.to_be_bytes();
    Ipv4Addr::new(10, a, b, c)
}

/// Where a packet comes from and goes to; `None`: it is none of IPv4.
fn ends(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let address = |at: usize| {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    let whole = packet.len() >= HEADER_BYTES && packet.first()? >> 4 == 4;
    whole.then(|| Some((address(12)?, address(16)?))).flatten()
}

/// A node's part of the network of its cluster.
pub struct Overlay {
    here: NodeNumber,
    ways: Ways,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    places: HashMap<Ipv4Addr, Place>,
    devices: HashMap<Ipv4Addr, Arc<Device>>,
    /// Who sends to this node: one stream each.
    comers: HashMap<NodeNumber, UnixStream>,
}

/// The agent's end of a copy's device.
struct Device {
    address: Ipv4Addr,
    uid: u32,
    file: File,
    open: AtomicBool,
}

impl Device {
    fn put(&self, packet: &[u8]) {
        if self.open.load(Ordering::SeqCst) {
            // A device that takes nothing now is a network that loses it.
            let _lost = (&self.file).write(packet);
        }
    }
}

/// A copy's connection to the network, closed at first. Dropped, it is gone.
pub struct Link {
    overlay: Arc<Overlay>,
    device: Arc<Device>,
    _ends: PipeWriter,
}

impl Link {
    /// Lets packets through, or loses them: of a copy that is not the tree, or is being saved, none
    /// may come or go.
    pub fn open(&self, open: bool) {
        self.device.open.store(open, Ordering::SeqCst);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.open(false);
        let mut state = self.overlay.state();
        let own = |d: &Arc<Device>| Arc::ptr_eq(d, &self.device);
        if state.devices.get(&self.device.address).is_some_and(own) {
            state.devices.remove(&self.device.address);
        }
    }
}

impl Overlay {
    /// That of a node which reaches others by `peers`.
    pub fn new(here: NodeNumber, peers: Arc<dyn Peers>) -> Overlay {
        Overlay { here, ways: Ways::new(peers), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A network for a copy of a tree of an account, and its link; a node that cannot have the
    /// device gives it a loopback alone. Waits.
    ///
    /// # Errors
    /// The kernel's, when there is no network.
    pub fn network(self: &Arc<Self>, tree: u64, uid: u32) -> io::Result<(OwnedFd, Option<Link>)> {
        let (network, address) = (Network::new()?, address(tree));
        let device = network.device(address, MASK, PACKET_BYTES_MAX);
        let link = device.and_then(|file| {
            let open = AtomicBool::new(false);
            self.link(Device { address, uid, file, open })
        });
        if let Err(error) = &link {
            tracing::warn!(tree, %error, "a tree's own network is not connected to others'");
        }
        Ok((network.file()?, link.ok()))
    }

    fn link(self: &Arc<Self>, device: Device) -> io::Result<Link> {
        let (device, overlay) = (Arc::new(device), self.clone());
        let (end, ends) = io::pipe()?;
        let of = device.clone();
        let thread = std::thread::Builder::new().name(format!("net-{}", device.address));
        thread.spawn(move || overlay.read(&of, &end))?;
        self.state().devices.insert(device.address, device.clone());
        Ok(Link { overlay: self.clone(), device, _ends: ends })
    }

    /// Carries what a copy sends, until its link is gone.
    fn read(&self, device: &Device, end: &PipeReader) {
        let mut packet = [0; PACKET_BYTES_MAX as usize];
        loop {
            let mut fds =
                [PollFd::new(&device.file, PollFlags::IN), PollFd::new(end, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
            }
            if !fds[1].revents().is_empty() {
                return;
            }
            match (&device.file).read(&mut packet) {
                Ok(n) => self.sent(device, &packet[..n]),
                Err(e) if [ErrorKind::Interrupted, ErrorKind::WouldBlock].contains(&e.kind()) => {}
                Err(_) => return,
            }
        }
    }

    /// A copy here sent a packet.
    fn sent(&self, device: &Device, packet: &[u8]) {
        let Some((from, to)) = ends(packet) else { return };
        // Nobody says that they are somebody else.
        if from != device.address || !device.open.load(Ordering::SeqCst) {
            return;
        }
        let state = self.state();
        let Some(place) = state.places.get(&to).filter(|p| p.uid == device.uid) else { return };
        let node = place.node;
        let near = state.devices.get(&to).filter(|d| node == self.here && d.uid == device.uid);
        let near = near.cloned();
        drop(state);
        match near {
            Some(near) => near.put(packet),
            None if node != self.here => self.ways.send(node, packet),
            None => {}
        }
    }

    /// A node sent a packet: it counts where the core says that its sender is there.
    fn arrived(&self, node: NodeNumber, packet: &[u8]) {
        let Some((from, to)) = ends(packet) else { return };
        let state = self.state();
        let sender = state.places.get(&from).filter(|p| p.node == node);
        let device = state.devices.get(&to).filter(|d| sender.is_some_and(|p| p.uid == d.uid));
        let device = device.cloned();
        drop(state);
        if let Some(device) = device {
            device.put(packet);
        }
    }

    /// The core said which trees are where.
    pub fn places(&self, places: Vec<Place>) {
        let by_address = places.into_iter().map(|place| (address(place.tree.0), place)).collect();
        self.state().places = by_address;
    }

    /// A stream by which another node sends to this one, instead of the one that it had.
    pub fn receive(self: &Arc<Self>, node: NodeNumber, socket: UnixStream) {
        let overlay = self.clone();
        let begun = socket.try_clone().and_then(|kept| {
            if let Some(old) = self.state().comers.insert(node, kept) {
                let _gone = old.shutdown(std::net::Shutdown::Both);
            }
            let thread = std::thread::Builder::new().name(format!("net-{node}"));
            thread.spawn(move || {
                let mut socket = socket;
                let mut packet = Vec::new();
                while ways::next(&mut socket, &mut packet).is_ok() {
                    overlay.arrived(node, &packet);
                }
            })
        });
        if let Err(error) = begun {
            tracing::warn!(%node, %error, "what a node sends does not arrive");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::proto::Tree;
    use crate::cluster::messages::{Stretch, TreeId};
    use crate::host::Brought;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Weak;
    use xos_base::NodeId;

    const UID: u32 = 70_001;

    /// Nodes in one process.
    #[derive(Default)]
    struct Site(Mutex<HashMap<NodeNumber, Weak<Overlay>>>);

    /// How one of them reaches the others.
    struct Way(NodeNumber, Arc<Site>);

    impl Peers for Way {
        fn image(&self, _: NodeNumber, _: TreeId, _: u64) -> io::Result<UnixStream> {
            Err(ErrorKind::NotFound.into())
        }

        fn output(&self, _: NodeNumber, _: Tree, _: [u64; 2]) -> io::Result<UnixStream> {
            Err(ErrorKind::NotFound.into())
        }

        fn written(&self, _: NodeNumber, _: TreeId, _: &Stretch) -> io::Result<UnixStream> {
            Err(ErrorKind::NotFound.into())
        }

        fn carried(&self, _: &NodeId, _: &Brought) -> io::Result<UnixStream> {
            Err(ErrorKind::NotFound.into())
        }

        fn packets(&self, to: NodeNumber) -> io::Result<UnixStream> {
            let all = self.1.0.lock().unwrap();
            let (one, other) = UnixStream::pair()?;
            all[&to].upgrade().ok_or(ErrorKind::NotConnected)?.receive(self.0, other);
            Ok(one)
        }
    }

    fn node(number: u8) -> NodeNumber {
        NodeNumber::try_from(number).unwrap()
    }

    fn place(tree: u64, on: u8, uid: u32) -> Place {
        Place { tree: TreeId(tree), node: node(on), uid }
    }

    #[test]
    fn addresses_are_those_of_trees_and_only_packets_have_ends() {
        // wrong: two trees would have one address, or a short packet end the agent
        assert_eq!(address(7), Ipv4Addr::new(10, 0, 0, 7));
        assert_eq!(address(70_000), Ipv4Addr::new(10, 1, 17, 112));
        let mut packet = [0; HEADER_BYTES];
        assert_eq!(ends(&packet), None);
        packet[0] = 0x45;
        packet[15] = 1;
        packet[19] = 2;
        let of = |last| Ipv4Addr::new(0, 0, 0, last);
        assert_eq!(ends(&packet), Some((of(1), of(2))));
        assert_eq!(ends(&packet[..HEADER_BYTES - 1]), None);
        assert_eq!(ends(&[]), None);
    }

    #[test]
    fn trees_of_one_person_reach_one_another_and_no_others() {
        // wrong: connections between nodes would not come up, or reach into another person's tree
        let site = Arc::new(Site::default());
        let overlays = [1, 2].map(|n| {
            let way = Arc::new(Way(node(n), site.clone()));
            let overlay = Arc::new(Overlay::new(node(n), way));
            site.0.lock().unwrap().insert(node(n), Arc::downgrade(&overlay));
            overlay
        });
        let places = vec![place(1, 1, UID), place(2, 2, UID), place(3, 2, UID + 1)];
        let mut made = Vec::new();
        for p in &places {
            let overlay = &overlays[usize::from(p.node != node(1))];
            let (network, link) = match overlay.network(p.tree.0, p.uid) {
                Ok((network, Some(link))) => (network, link),
                _ => return println!("skipped: needs root and /dev/net/tun"),
            };
            link.open(true);
            made.push((network, link));
        }
        for overlay in &overlays {
            overlay.places(places.clone());
        }
        let within = |at: usize, work: Box<dyn FnOnce() -> io::Result<()> + Send>| {
            let network = made[at].0.try_clone().unwrap();
            let thread = std::thread::spawn(move || {
                nix::sched::setns(&network, nix::sched::CloneFlags::CLONE_NEWNET)?;
                work()
            });
            thread.join().unwrap()
        };
        let (listening, listens) = std::sync::mpsc::channel();
        let server = made[1].0.try_clone().unwrap();
        let served = std::thread::spawn(move || -> io::Result<()> {
            nix::sched::setns(&server, nix::sched::CloneFlags::CLONE_NEWNET)?;
            let server = TcpListener::bind((address(2), 7000))?;
            listening.send(()).map_err(io::Error::other)?;
            let mut one = server.accept()?.0;
            io::copy(&mut one.try_clone()?, &mut one).map(drop)
        });
        listens.recv().unwrap();
        let limit = std::time::Duration::from_millis(500);
        let reach = move || TcpStream::connect_timeout(&(address(2), 7000).into(), limit).map(drop);
        assert!(within(2, Box::new(reach)).is_err(), "it is another person's");
        let talk = || -> io::Result<()> {
            let mut one = TcpStream::connect((address(2), 7000))?;
            let sent = vec![7; 300_000];
            let mut writes = one.try_clone()?;
            let bytes = sent.clone();
            let writing = std::thread::spawn(move || {
                writes.write_all(&bytes)?;
                writes.shutdown(std::net::Shutdown::Write)
            });
            let mut got = Vec::new();
            one.read_to_end(&mut got)?;
            writing.join().unwrap()?;
            assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
            Ok(())
        };
        within(0, Box::new(talk)).unwrap();
        served.join().unwrap().unwrap();
    }
}
