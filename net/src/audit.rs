//! Where services tell what happened: the site's audit takes it.

mod limits;

pub use limits::{
    CALLER_REFUSALS_BURST, PERSON_EVENTS, REPEATED, SITE_REFUSALS_MAX, STRANGERS_REFUSALS_MAX,
    VO_EVENTS,
};

use crate::caller::{Caller, Principal};
use limits::Limits;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
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

/// The way of a service to the audit.
pub struct Teller {
    audit: Arc<dyn Audit>,
    limits: Mutex<Limits>,
}

impl Teller {
    /// To this audit.
    pub fn new(audit: Arc<dyn Audit>) -> Teller {
        Teller { audit, limits: Mutex::default() }
    }

    /// Notes how an operation went, before its caller is told: what was done is on the disk when
    /// this returns. For a refusal nobody waits. Of too many refusals, and of [`REPEATED`], only
    /// the number is noted.
    ///
    /// # Errors
    /// Those of `result`; [`xos_base::Kind::Internal`] when it was done and could not be noted.
    pub async fn end<T>(&self, event: Event, result: Result<T, Error>) -> Result<T, Error> {
        let value = match result {
            Ok(value) => value,
            Err(e) => {
                if self.limited(&event, Limits::takes_refusal) {
                    self.send(event.ended::<T>(&Err(e.clone())));
                }
                return Err(e);
            }
        };
        if !self.limited(&event, Limits::takes_done) {
            return Ok(value);
        }
        self.audit.record(event.cut()).await.map_err(|e| {
            tracing::error!(error = %e, "what was done is not in the audit");
            Error::internal("it was done, and this site's audit could not be written")
                .hint("look whether it was made; tell the site's administrator")
        })?;
        Ok(value)
    }

    /// Notes something that nobody waits for; of too many of [`REPEATED`] only the number.
    pub fn note(&self, event: Event) {
        if self.limited(&event, Limits::takes_done) {
            self.send(event);
        }
    }

    fn send(&self, event: Event) {
        let _unheard = self.audit.record(event.cut());
    }

    /// What `takes` says of an event. How many were left out is told a minute later.
    fn limited(&self, event: &Event, takes: fn(&mut Limits, &Event) -> bool) -> bool {
        let (told, taken) = {
            let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
            (limits.turn(event.time), takes(&mut limits, event))
        };
        told.into_iter().for_each(|event| self.send(event));
        taken
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a stranger or a hostile site could fill the disk of a site's core, or hide in
    /// silence what they tried.
    #[tokio::test]
    async fn refusals_are_bounded_and_the_rest_is_counted() {
        let audit = Arc::new(Remembered::default());
        let told = Teller::new(audit.clone());
        let refuse = async |second: u64, who: &str, from: u32| {
            let mut event = Event::new(Millis::from_secs(second), "sign_in");
            event.who = who.to_owned();
            event.from = Some(std::net::Ipv4Addr::from_bits(from).into());
            let refused = Err::<(), _>(Error::denied("no"));
            told.end(event, refused).await.unwrap_err();
        };
        let all = STRANGERS_REFUSALS_MAX as usize;
        for n in 0..STRANGERS_REFUSALS_MAX + 7 {
            refuse(61, "", n).await;
        }
        assert_eq!(audit.events().len(), all);
        for n in 0..SITE_REFUSALS_MAX + 3 {
            refuse(62, &format!("p{n}@pisa"), n).await;
        }
        let all = all + SITE_REFUSALS_MAX as usize;
        assert_eq!(audit.events().len(), all, "a site that invents people");
        refuse(63, "alice@rennes", 1).await;
        assert_eq!(audit.events().len(), all + 1, "others are noted all the same");
        refuse(120, "", 1).await;
        let events = audit.events();
        let counted = &events[events.len() - 2];
        assert!(counted.what == "left_out" && counted.why.starts_with("10 "), "{counted:?}");
        assert_eq!(events[events.len() - 1].what, "sign_in");
    }

    struct Full;

    impl Audit for Full {
        fn record(&self, _: Event) -> Receipt {
            let (given, receipt) = Receipt::new();
            let _unheard = given.send(Err(Error::internal("no space left")));
            receipt
        }
    }

    /// If it failed, what nobody can look up later would be answered as done.
    #[tokio::test]
    async fn what_cannot_be_noted_is_not_answered_as_done() {
        let told = Teller::new(Arc::new(Full));
        let event = || Event::new(Millis(1), "set_password");
        let e = told.end(event(), Ok(())).await.unwrap_err();
        assert!(e.message.contains("audit could not be written"), "{e}");
        let e = told.end(event(), Err::<(), _>(Error::denied("no"))).await.unwrap_err();
        assert_eq!(e.message, "no");
    }
}
