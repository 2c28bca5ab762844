//! Streams without a network: each connect makes an in-memory pipe to a server, and can be cut.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::DuplexStream;
use tokio::task::AbortHandle;
use xtreemfs_client::{Connector, Member, NoTicket, Peer, Stream, Ticket, Tickets};
use xtreemfs_proto::{Handler, serve};

/// Bytes that a pipe holds.
const PIPE_BYTES: usize = 64 << 10;

type Accept = Box<dyn Fn(DuplexStream) -> AbortHandle + Send + Sync>;

/// Servers by peer, and their connections.
#[derive(Default)]
pub struct Memory {
    servers: Mutex<HashMap<Peer, Accept>>,
    connections: Mutex<Vec<(Peer, AbortHandle)>>,
    pub connects: AtomicUsize,
}

impl Memory {
    /// Serves a peer: every connection gets a handler of its own.
    pub fn serve<H: Handler>(
        &self,
        peer: Peer,
        handler: impl Fn() -> Arc<H> + Send + Sync + 'static,
    ) {
        let accept = move |stream: DuplexStream| {
            let handler = handler();
            tokio::spawn(async move { drop(serve::serve(stream, handler).await) }).abort_handle()
        };
        self.servers.lock().unwrap().insert(peer, Box::new(accept));
    }

    /// Takes a peer away: nobody reaches it any more.
    pub fn stop(&self, peer: &Peer) {
        self.servers.lock().unwrap().remove(peer);
        self.cut(peer);
    }

    /// Cuts every connection to a peer in the middle of whatever it does.
    pub fn cut(&self, peer: &Peer) {
        self.connections.lock().unwrap().retain(|(p, connection)| {
            if p == peer {
                connection.abort();
            }
            p != peer
        });
    }
}

#[async_trait]
impl Connector for Memory {
    async fn connect(&self, peer: &Peer) -> io::Result<Box<dyn Stream>> {
        self.connects.fetch_add(1, Ordering::Relaxed);
        let servers = self.servers.lock().unwrap();
        let accept = servers.get(peer).ok_or(io::ErrorKind::ConnectionRefused)?;
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        self.connections.lock().unwrap().push((peer.clone(), accept(theirs)));
        Ok(Box::new(ours))
    }
}

/// Version of a ticket at which the keeper of tickets panics.
pub const PANIC: u64 = u64::MAX;

/// Tickets that name the member; people are added and taken away.
#[derive(Default)]
pub struct People(pub Mutex<HashMap<Member, u64>>);

impl People {
    pub fn new(members: impl IntoIterator<Item = u32>) -> Arc<People> {
        Arc::new(People(Mutex::new(members.into_iter().map(|n| (Member(n), 1)).collect())))
    }
}

#[async_trait]
impl Tickets for People {
    async fn ticket(&self, member: Member) -> Result<Ticket, NoTicket> {
        let version = self.0.lock().unwrap().get(&member).copied();
        let version = version.ok_or(NoTicket("not signed in here".into()))?;
        assert_ne!(version, PANIC, "told to panic");
        Ok(Ticket { bytes: Bytes::from(member.0.to_le_bytes().to_vec()), version })
    }
}
