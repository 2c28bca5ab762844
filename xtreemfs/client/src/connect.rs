//! What the client needs from the program it lives in: streams to services, and tickets.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

/// A person in the volume's organization, by member number (a local uid minus the uid base).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member(pub u32);

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A service to talk to. The text is opaque to the client: it came from the configuration (DIR),
/// from the DIR (MRC) or from a file's layout (OSD), and only the [`Connector`] understands it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A directory service.
    Dir(Arc<str>),
    /// A metadata server.
    Mrc(Arc<str>),
    /// An object store.
    Osd(Arc<str>),
}

impl Peer {
    /// The opaque address or id.
    pub fn address(&self) -> &str {
        match self {
            Peer::Dir(text) | Peer::Mrc(text) | Peer::Osd(text) => text,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Peer::Dir(_) => "DIR",
            Peer::Mrc(_) => "MRC",
            Peer::Osd(_) => "OSD",
        };
        write!(f, "{kind} {}", self.address())
    }
}

/// A byte stream to a service, already secured as the embedding program sees fit.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Opens streams to services.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// Opens a new stream to the service.
    ///
    /// # Errors
    /// The reason why it cannot be reached now; the client tries again within its deadline.
    /// `InvalidInput` means that this peer can never be reached: the client gives up at once.
    async fn connect(&self, peer: &Peer) -> io::Result<Box<dyn Stream>>;
}

/// Proof that this machine may act for a person, as the services understand it.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// The ticket as the services read it.
    pub bytes: Bytes,
    /// Grows with each renewal: a connection that showed an older version shows this one before
    /// its next request.
    pub version: u64,
}

/// Keeps the tickets of the people who may work on this machine.
#[async_trait]
pub trait Tickets: Send + Sync + 'static {
    /// The person's present ticket. Called for every request, so it answers from memory when it
    /// holds a valid one.
    ///
    /// # Errors
    /// The reason why the person has none; the operation then fails with `EACCES`.
    async fn ticket(&self, member: Member) -> Result<Ticket, NoTicket>;

    /// A service did not take the person's ticket, or forgot it: there may be a newer one, as after
    /// a change of their membership. Those that remember no tickets have nothing to do.
    fn refused(&self, _member: Member) {}
}

/// The person has no ticket here.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct NoTicket(
    /// Why, in words for the log.
    pub String,
);
