//! Keeps a call that its client gave up from being carried out later, after newer ones: of the same
//! client, and of others.
//!
//! A client that waited too long drops its connection and goes on with a new one, but the old one's
//! bytes may still be under way: in its machine's send buffer, in a relay. So each client numbers
//! its connections ([`ConnectRequest`]), and of one client only the newest is served.
//!
//! Those of other clients are newer without any order between the connections. So a request says
//! until when it counts, in time since its connection was opened, which needs no common clock.
//!
//! Nothing has to be remembered for a while, only as long as a connection lives: one that may still
//! bring requests was opened here before it was sent any (clients wait for that), and is known
//! until its stream ends. Its number stands in the gate that it shares with the newer ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::time::Instant;
use xtreemfs_proto::rpc::{ConnectRequest, INSTANCE_BYTES};
use xtreemfs_proto::{Errno, RpcError};

use crate::identity::Peer;

/// Number of the connection that is served. Held for reading while something is carried out.
type Gate = RwLock<u64>;

/// One client: an instance counts for the machine that named it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Client {
    machine: String,
    instance: [u8; INSTANCE_BYTES],
}

/// The clients of one server that have connections.
#[derive(Debug, Default)]
pub struct Fence(Mutex<HashMap<Client, Weak<Gate>>>);

impl Fence {
    fn gate(&self, client: Client) -> Arc<Gate> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(&client).and_then(Weak::upgrade) {
            return gate;
        }
        if gates.len() == gates.capacity() {
            // So there are at most about twice as many as clients with connections.
            gates.retain(|_, gate| gate.strong_count() > 0);
        }
        let gate = Arc::new(Gate::default());
        gates.insert(client, Arc::downgrade(&gate));
        gate
    }
}

/// The way in for one connection.
#[derive(Debug, Default)]
pub struct Entrance(OnceLock<Open>);

#[derive(Debug)]
struct Open {
    gate: Arc<Gate>,
    number: u64,
    /// Before the client was told.
    since: Instant,
}

/// Held while a request is carried out, also beyond the life of its connection.
#[derive(Debug)]
#[must_use]
pub struct Entered {
    _served: OwnedRwLockReadGuard<u64>,
    until: Option<Instant>,
}

impl Entered {
    /// Whether its client has given it up by now.
    pub fn is_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() > until)
    }
}

impl Entrance {
    /// Opens the connection, once what older ones of the client have begun is done.
    ///
    /// # Errors
    /// `EINVAL`; `EAGAIN` when a newer one is open.
    pub async fn connect(
        &self,
        fence: &Fence,
        peer: &Peer,
        request: &ConnectRequest,
    ) -> Result<(), RpcError> {
        let invalid = |text| RpcError::errno(Errno::EINVAL, text);
        let instance = request.instance.as_ref().try_into();
        let instance = instance.map_err(|_| invalid("a client's instance has 16 bytes"))?;
        let gate = fence.gate(Client { machine: peer.id.clone(), instance });
        let mut served = gate.write().await;
        if request.number <= *served {
            return Err(superseded());
        }
        let number = request.number;
        let open = Open { gate: gate.clone(), number, since: Instant::now() };
        self.0.set(open).map_err(|_| invalid("the connection is open already"))?;
        *served = number;
        Ok(())
    }

    /// Lets a request in, which counts until `until_ms` after the connection was opened.
    ///
    /// # Errors
    /// Nothing was done, and the client may repeat it: `EAGAIN` when it has a newer connection,
    /// `ETIMEDOUT` when it has given the request up. If it has not, the two count time differently
    /// (its machine stood still), and it makes a new connection. `EINVAL` on a connection that was
    /// not opened.
    pub async fn enter(&self, until_ms: Option<u64>) -> Result<Entered, RpcError> {
        let Some(Open { gate, number, since }) = self.0.get() else {
            let text = "open the connection first, with Connect";
            return Err(RpcError::errno(Errno::EINVAL, text));
        };
        let served = gate.clone().read_owned().await;
        if *served != *number {
            return Err(superseded());
        }
        // Times beyond what the clock counts are no limit at all.
        let until = until_ms.and_then(|until| since.checked_add(Duration::from_millis(until)));
        let entered = Entered { _served: served, until };
        if entered.is_late() { Err(late()) } else { Ok(entered) }
    }
}

/// The refusal of a request that its client has given up.
pub fn late() -> RpcError {
    let text = "this request was under way for longer than its client waits";
    RpcError::errno(Errno::ETIMEDOUT, text)
}

fn superseded() -> RpcError {
    let text = "this client has a newer connection: repeat the request there";
    RpcError::errno(Errno::EAGAIN, text)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::identity::Role;

    fn machine(id: &str) -> Peer {
        Peer { id: id.into(), key: String::new(), role: Role::Client }
    }

    async fn opened(fence: &Fence, id: &str, number: u64) -> Result<Entrance, Errno> {
        let request = ConnectRequest { instance: Bytes::from_static(&[7; 16]), number };
        let entrance = Entrance::default();
        let done = entrance.connect(fence, &machine(id), &request).await;
        done.map(|()| entrance).map_err(|error| error.errno)
    }

    /// Else a request of an older connection takes effect after newer ones, also when it is the
    /// `Connect` of the older that comes late; or one machine stops another's client.
    #[tokio::test]
    async fn only_the_newest_connection_of_a_client_is_served() {
        let fence = Fence::default();
        let first = opened(&fence, "node-1", 1).await.unwrap();
        let other = opened(&fence, "node-2", 1).await.unwrap();
        drop(first.enter(None).await.unwrap());
        let third = opened(&fence, "node-1", 3).await.unwrap();
        assert_eq!(first.enter(None).await.unwrap_err().errno, Errno::EAGAIN);
        assert_eq!(opened(&fence, "node-1", 2).await.unwrap_err(), Errno::EAGAIN);
        drop(third.enter(None).await.unwrap());
        drop(other.enter(None).await.unwrap());
        let unopened = Entrance::default().enter(None).await.unwrap_err();
        assert_eq!(unopened.errno, Errno::EINVAL);
    }

    /// Else a request that lay in a relay while its client gave it up overwrites what another
    /// client has written and synced since.
    #[tokio::test(start_paused = true)]
    async fn a_request_counts_for_as_long_as_its_client_waits() {
        let entrance = opened(&Fence::default(), "node-1", 1).await.unwrap();
        tokio::time::advance(Duration::from_millis(900)).await;
        drop(entrance.enter(Some(900)).await.unwrap());
        let late = entrance.enter(Some(899)).await.unwrap_err();
        assert_eq!(late.errno, Errno::ETIMEDOUT);
        drop(entrance.enter(None).await.unwrap());
        let entered = entrance.enter(Some(u64::MAX)).await.unwrap();
        assert!(!entered.is_late());
    }

    /// The newer connection's requests must not run beside what the older one's have begun, even
    /// when that one's stream has ended meanwhile.
    #[tokio::test]
    async fn a_newer_connection_waits_for_what_was_begun() {
        let fence = Fence::default();
        let first = opened(&fence, "node-1", 1).await.unwrap();
        let running = first.enter(None).await.unwrap();
        drop(first);
        let mut second = Box::pin(opened(&fence, "node-1", 2));
        assert!(polled_once(&mut second).await.is_none(), "it did not wait");
        drop(running);
        assert!(second.await.is_ok());
    }

    /// What a future gives when it is polled once.
    async fn polled_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        std::future::poll_fn(|context| {
            let polled = std::pin::Pin::new(&mut *future).poll(context);
            std::task::Poll::Ready(match polled {
                std::task::Poll::Ready(value) => Some(value),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }

    /// A machine that connects again and again must not fill the server's memory.
    #[tokio::test]
    async fn clients_without_connections_are_forgotten() {
        let fence = Fence::default();
        for n in 0..1000u128 {
            let instance = Bytes::copy_from_slice(&n.to_le_bytes());
            let request = ConnectRequest { instance, number: 1 };
            let entrance = Entrance::default();
            entrance.connect(&fence, &machine("node-1"), &request).await.unwrap();
        }
        let held = fence.0.lock().unwrap().len();
        assert!(held <= 8, "{held} clients are remembered");
    }
}
