//! Streams of packets to other nodes: two bytes of a length, and the packet.

use super::PACKET_BYTES_MAX;
use crate::host::Peers;
use crate::pids::NodeNumber;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Packets that wait for a stream to a node; more are lost.
const WAITING_MAX: usize = 256;
/// After a stream broke, until it is made anew.
const RETRY: Duration = Duration::from_millis(200);

/// The ways to all other nodes, each made when it is needed first.
pub(super) struct Ways {
    peers: Arc<dyn Peers>,
    ways: Mutex<HashMap<NodeNumber, SyncSender<Vec<u8>>>>,
}

impl Ways {
    pub(super) fn new(peers: Arc<dyn Peers>) -> Ways {
        Ways { peers, ways: Mutex::default() }
    }

    /// Sends a packet, or loses it.
    pub(super) fn send(&self, to: NodeNumber, packet: &[u8]) {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        let way = match ways.entry(to) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => match self.begin(to) {
                Ok(way) => new.insert(way),
                Err(error) => {
                    tracing::warn!(%to, %error, "nothing is sent to a node");
                    return;
                }
            },
        };
        let _lost = way.try_send(packet.to_vec());
    }

    fn begin(&self, to: NodeNumber) -> io::Result<SyncSender<Vec<u8>>> {
        let (way, packets) = sync_channel(WAITING_MAX);
        let peers = self.peers.clone();
        let thread = std::thread::Builder::new().name(format!("net-to-{to}"));
        thread.spawn(move || carry(&*peers, to, &packets)).map(|_| way)
    }
}

fn carry(peers: &dyn Peers, to: NodeNumber, packets: &Receiver<Vec<u8>>) {
    let mut stream: Option<UnixStream> = None;
    while let Ok(packet) = packets.recv() {
        let made = stream.take().map_or_else(|| peers.packets(to), Ok);
        match made.and_then(|mut made| write(&mut made, &packet).map(|()| made)) {
            Ok(made) => stream = Some(made),
            Err(error) => {
                tracing::debug!(%to, %error, "a node is not reached now");
                std::thread::sleep(RETRY);
            }
        }
    }
}

fn write(to: &mut UnixStream, packet: &[u8]) -> io::Result<()> {
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    to.write_all(&[&length.to_be_bytes(), packet].concat())
}

/// The next packet of a stream.
///
/// # Errors
/// The stream's; `InvalidData` for one that is too long.
pub(super) fn next(from: &mut UnixStream, packet: &mut Vec<u8>) -> io::Result<()> {
    let mut length = [0; 2];
    from.read_exact(&mut length)?;
    let length = u16::from_be_bytes(length);
    if length > PACKET_BYTES_MAX {
        return Err(ErrorKind::InvalidData.into());
    }
    packet.resize(length.into(), 0);
    from.read_exact(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_as_they_were_sent_and_none_is_too_long() {
        // wrong: packets would run into one another, or a node fill another one's memory
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let mut packet = Vec::new();
        for sent in [&b"one"[..], b"", b"three"] {
            write(&mut one, sent).unwrap();
            next(&mut other, &mut packet).unwrap();
            assert_eq!(packet, sent);
        }
        write(&mut one, &vec![0; usize::from(PACKET_BYTES_MAX) + 1]).unwrap();
        assert_eq!(next(&mut other, &mut packet).unwrap_err().kind(), ErrorKind::InvalidData);
        let (one, mut other) = UnixStream::pair().unwrap();
        drop(one);
        assert!(next(&mut other, &mut packet).is_err());
    }
}
