//! Connections to services: one per service, made anew when lost, with the people on it.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use xtreemfs_proto::rpc::{Authenticate, AuthenticateRequest, ConnectRequest, INSTANCE_BYTES};
use xtreemfs_proto::{CallError, Channel, mrc, osd};

use crate::connect::{Connector, Tickets};
use crate::limits::{
    ANSWER_DEADLINE, CONNECT_DEADLINE, CONNECTION_AGE_MAX, CONNECTIONS_MAX, RETRY_PAUSE_MAX,
    SLOTS_PER_CONNECTION,
};
use crate::{Member, Peer};

/// Why there is no connection or no slot on it. Nothing was sent yet, so that trying again is safe.
#[derive(Debug, Clone)]
pub(crate) enum LinkError {
    /// Try again later.
    Later(Arc<str>),
    /// This peer can never be reached.
    Never(Arc<str>),
}

/// All connections of a client.
pub(crate) struct Links {
    connector: Arc<dyn Connector>,
    pub(crate) tickets: Arc<dyn Tickets>,
    /// How long an operation may take.
    pub(crate) deadline: Duration,
    places: Mutex<HashMap<Peer, Arc<Place>>>,
    silent: Silent,
    /// Names this client to the services.
    instance: Bytes,
    /// Number of the last connection.
    last: AtomicU64,
}

/// Services that have not answered lately, and since when.
#[derive(Debug, Default)]
struct Silent {
    since: Mutex<HashMap<Peer, Instant>>,
    /// How many there are; spares the lock while all is well.
    count: AtomicUsize,
}

impl Silent {
    fn lock(&self) -> MutexGuard<'_, HashMap<Peer, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

/// Where the connection to one service is kept; its lock is held while connecting, so that many
/// who want it make one attempt together.
type Place = tokio::sync::Mutex<Kept>;

#[derive(Debug, Default)]
struct Kept {
    link: Option<Arc<Link>>,
    failure: Option<(Instant, LinkError)>,
}

/// A connection and the slots that people have on it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) channel: Channel,
    slots: Mutex<HashMap<Member, Arc<tokio::sync::Mutex<Option<Slot>>>>>,
    /// Whether somebody stopped waiting for a call's answer.
    given_up: AtomicBool,
}

/// While it lives a call waits for its answer.
pub(crate) struct Waiting<'a>(Option<&'a Link>);

impl Waiting<'_> {
    /// The call came to its end.
    pub(crate) fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.0 {
            link.given_up.store(true, Ordering::Release);
        }
    }
}

/// A person's slot, valid for one version of the ticket.
#[derive(Debug, Clone, Copy)]
struct Slot {
    number: u32,
    version: u64,
    until: Instant,
}

impl Links {
    pub(crate) fn new(
        connector: Arc<dyn Connector>,
        tickets: Arc<dyn Tickets>,
        deadline: Duration,
    ) -> Links {
        let (places, silent) = (Mutex::default(), Silent::default());
        let (instance, last) = (new_instance(), AtomicU64::new(0));
        Links { connector, tickets, deadline, places, silent, instance, last }
    }

    /// Notes that a service answered.
    pub(crate) fn answered(&self, peer: &Peer) {
        if self.silent.count.load(Ordering::Acquire) > 0 {
            let mut since = self.silent.lock();
            since.remove(peer);
            self.silent.count.store(since.len(), Ordering::Release);
        }
    }

    /// Notes that a service did not answer. True when it has been silent for about as long as an
    /// operation may take: then further operations try once and do not wait, so that a dead OSD
    /// costs its users one deadline and not one for each request.
    pub(crate) fn is_dead(&self, peer: &Peer) -> bool {
        let mut since = self.silent.lock();
        if since.len() >= CONNECTIONS_MAX {
            since.clear();
        }
        let first = *since.entry(peer.clone()).or_insert_with(Instant::now);
        self.silent.count.store(since.len(), Ordering::Release);
        first.elapsed() >= self.deadline.saturating_sub(RETRY_PAUSE_MAX)
    }

    fn place(&self, peer: &Peer) -> Arc<Place> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get(peer) {
            return Arc::clone(place);
        }
        if places.len() >= CONNECTIONS_MAX {
            // In use are those that somebody holds: the place itself or its link.
            places.retain(|_, place| Arc::strong_count(place) > 1 || in_use(place));
        }
        Arc::clone(places.entry(peer.clone()).or_default())
    }

    /// The connection to a service, made now if there is none.
    pub(crate) async fn link(&self, peer: &Peer) -> Result<Arc<Link>, LinkError> {
        let asked = Instant::now();
        let place = self.place(peer);
        let mut kept = place.lock().await;
        if let Some(link) = kept.link.as_ref().filter(|link| link.is_usable()) {
            return Ok(Arc::clone(link));
        }
        kept.link = None;
        if let Some((at, error)) = &kept.failure
            && *at > asked
        {
            return Err(error.clone());
        }
        match self.connect(peer).await {
            Ok(link) => {
                *kept = Kept { link: Some(Arc::clone(&link)), failure: None };
                Ok(link)
            }
            Err(error) => {
                kept.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect(&self, peer: &Peer) -> Result<Arc<Link>, LinkError> {
        let connecting = async {
            let stream =
                self.connector.connect(peer).await.map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidInput => LinkError::Never(error.to_string().into()),
                    _ => LinkError::Later(error.to_string().into()),
                })?;
            let channel = Channel::new(stream);
            let opened = self.open(peer, &channel).await;
            opened.map_err(|error| LinkError::Later(error.to_string().into()))?;
            channel.opened();
            Ok(Arc::new(Link {
                channel,
                slots: Mutex::default(),
                given_up: AtomicBool::new(false),
            }))
        };
        let late = |_| LinkError::Later("no connection in time".into());
        timeout(CONNECT_DEADLINE, connecting).await.map_err(late)?
    }

    /// Makes the service refuse what older connections still bring: calls that were given up must
    /// not be carried out after newer ones.
    async fn open(&self, peer: &Peer, channel: &Channel) -> Result<(), CallError> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let request = ConnectRequest { instance: self.instance.clone(), number };
        let (none, limit) = (Bytes::new(), CONNECT_DEADLINE);
        match peer {
            // Clients change nothing there.
            Peer::Dir(_) => Ok(()),
            Peer::Mrc(_) => {
                channel.call::<mrc::Connect>(None, &request, none, limit).await.map(drop)
            }
            Peer::Osd(_) => {
                channel.call::<osd::Connect>(None, &request, none, limit).await.map(drop)
            }
        }
    }

    /// Takes a connection out of use, if it still is the one in use. Calls under way on it go on.
    pub(crate) async fn discard(&self, peer: &Peer, link: &Arc<Link>) {
        let place = self.place(peer);
        let mut kept = place.lock().await;
        if kept.link.as_ref().is_some_and(|l| Arc::ptr_eq(l, link)) {
            kept.link = None;
        }
    }
}

/// Random bytes; each hasher has keys of its own.
fn new_instance() -> Bytes {
    let halves =
        [RandomState::new(), RandomState::new()].map(|keys| keys.hash_one(0).to_le_bytes());
    const { assert!(INSTANCE_BYTES == 2 * size_of::<u64>()) };
    Bytes::copy_from_slice(halves.as_flattened())
}

fn in_use(place: &Place) -> bool {
    match place.try_lock() {
        Ok(kept) => kept.link.as_ref().is_some_and(|link| Arc::strong_count(link) > 1),
        Err(_) => true,
    }
}

/// What became of the attempt to get a slot.
pub(crate) enum SlotError {
    /// The service refused the ticket, or the call failed.
    Call(CallError),
    /// The connection serves as many people as it may.
    Full,
}

impl Link {
    fn is_usable(&self) -> bool {
        // The longer it lasts, the farther the two clocks that count its time are apart.
        let young = self.channel.age().is_none_or(|age| age < CONNECTION_AGE_MAX);
        young && !self.channel.is_closed() && !self.given_up.load(Ordering::Acquire)
    }

    /// To be held while a call that changes something waits for its answer. When nobody waits any
    /// more, the connection serves no further calls: they might overtake that one.
    pub(crate) fn waiting(&self) -> Waiting<'_> {
        Waiting(Some(self))
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Member, Arc<tokio::sync::Mutex<Option<Slot>>>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The person's slot, by showing the ticket if it is new here.
    pub(crate) async fn slot(
        &self,
        member: Member,
        ticket: &crate::Ticket,
    ) -> Result<u32, SlotError> {
        let place = {
            let mut slots = self.slots();
            if slots.len() >= SLOTS_PER_CONNECTION && !slots.contains_key(&member) {
                return Err(SlotError::Full);
            }
            Arc::clone(slots.entry(member).or_default())
        };
        let mut slot = place.lock().await;
        let now = Instant::now();
        if let Some(s) = slot.filter(|s| s.version == ticket.version && now < s.until) {
            return Ok(s.number);
        }
        let replace = slot.map(|s| s.number);
        let request = AuthenticateRequest { ticket: ticket.bytes.clone(), replace };
        let (reply, _) = self
            .channel
            .call::<Authenticate>(None, &request, Bytes::new(), ANSWER_DEADLINE)
            .await
            .map_err(SlotError::Call)?;
        let valid = Duration::from_millis(reply.valid_ms);
        let until = now.checked_add(valid).unwrap_or(now);
        *slot = Some(Slot { number: reply.slot, version: ticket.version, until });
        Ok(reply.slot)
    }

    /// Forgets a slot that the service no longer accepts.
    pub(crate) async fn forget(&self, member: Member, number: u32) {
        let place = self.slots().get(&member).cloned();
        if let Some(place) = place {
            let mut slot = place.lock().await;
            if slot.is_some_and(|s| s.number == number) {
                *slot = None;
            }
        }
    }
}
