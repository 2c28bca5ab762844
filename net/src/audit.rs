//! Where services tell what happened: the site's audit takes it.

use crate::caller::{Caller, Principal};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::oneshot;
use xos_api::audit::Event;
use xos_base::{Error, Millis};

/// Takes events. Implemented by the site's audit, and on a node by its spool.
pub trait Audit: Send + Sync {
    /// Notes an event. Never blocks; the line is on the disk when the receipt says so. A receipt
    /// that is dropped changes nothing.
    fn record(&self, event: Event) -> Receipt;
}

/// The word that an event is on the disk.
#[derive(Debug)]
#[must_use = "await it before the caller is told, or drop it by name"]
pub struct Receipt(oneshot::Receiver<Result<(), Error>>);

impl Receipt {
    /// A receipt and the end by which it is given.
    pub fn new() -> (oneshot::Sender<Result<(), Error>>, Receipt) {
        let (given, receipt) = oneshot::channel();
        (given, Receipt(receipt))
    }
}

impl Future for Receipt {
    /// Why the event is not on the disk, if it is not.
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|stored| stored.unwrap_or_else(|_| Err(Error::internal("the audit has ended"))))
    }
}

/// An event of which `caller` is the maker: what was asked of this machine, from where.
pub fn asked(caller: &Caller, now: Millis, what: impl Into<String>) -> Event {
    let mut event = Event::new(now, what);
    event.from = caller.address();
    match caller.principal() {
        Principal::Member(m) => {
            event.who = m.person.to_string();
            (event.person, event.vo) = (Some(m.person.clone()), Some(m.vo.clone()));
        }
        Principal::Person(person) => {
            event.who = person.to_string();
            event.person = Some(person.clone());
        }
        Principal::Core(site) => event.who = format!("core of {site}"),
        Principal::Node(node) => event.who = format!("node {node}"),
    }
    event
}

/// Notes how an operation went, before its caller is told: what was done is on the disk when this
/// returns; for a refusal nobody waits.
///
/// # Errors
/// Those of `result`; [`xos_base::Kind::Internal`] when it was done and could not be noted.
pub async fn tell<T>(
    audit: &dyn Audit,
    event: Event,
    result: Result<T, Error>,
) -> Result<T, Error> {
    let noted = audit.record(event.ended(&result).cut());
    let value = result?;
    noted.await.map_err(|e| {
        tracing::error!(error = %e, "what was done is not in the audit");
        Error::internal("it was done, and this site's audit could not be written")
            .hint("look whether it was made; tell the site's administrator")
    })?;
    Ok(value)
}

/// Notes something that nobody waits for.
pub fn note(audit: &dyn Audit, event: Event) {
    let _unheard = audit.record(event.cut());
}

/// An audit in memory, for tests of what is noted.
#[derive(Debug, Default)]
pub struct Remembered(Mutex<Vec<Event>>);

impl Remembered {
    /// What was noted so far.
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Audit for Remembered {
    fn record(&self, event: Event) -> Receipt {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        let (given, receipt) = Receipt::new();
        // Nobody may wait for it.
        let _unheard = given.send(Ok(()));
        receipt
    }
}
