//! How many searches of the audit one may make, and when each has its turn.

use super::applications::Limiter;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedMutexGuard, Semaphore, SemaphorePermit};
use xos_base::{Error, Millis, SiteId};
use xos_net::{Caller, Principal};

/// Most searches of one person in an hour.
const SEARCHES_PER_HOUR: u32 = 3600;
/// The same of all people that one other site vouches for, which can invent as many as it likes.
const SEARCHES_PER_SITE_AND_HOUR: u32 = 20_000;
/// Most searches that read files at a time.
const SEARCHES_AT_ONCE: usize = 4;
/// How many more the site's administrators have a place for.
const KEPT_FOR_ADMINS: usize = 1;

/// Who searches.
pub(super) struct Searches {
    limiter: Mutex<Limiter>,
    /// One search of each caller runs at a time.
    callers: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    running: Semaphore,
    kept: Semaphore,
}

impl Default for Searches {
    fn default() -> Searches {
        Searches {
            limiter: Mutex::default(),
            callers: Mutex::default(),
            running: Semaphore::new(SEARCHES_AT_ONCE),
            kept: Semaphore::new(KEPT_FOR_ADMINS),
        }
    }
}

/// The turn of a search; it ends when this is dropped.
pub(super) struct Turn<'a> {
    _own: OwnedMutexGuard<()>,
    _place: SemaphorePermit<'a>,
}

impl Searches {
    /// Counts a search. Administrators of the site are let in also when more people than can be
    /// counted have searched.
    ///
    /// # Errors
    /// [`xos_base::Kind::Limited`] when it is one too many.
    pub(super) fn count(&self, caller: &Caller, own: &SiteId, now: Millis) -> Result<(), Error> {
        let who = format!("searches of {}", caller.describe());
        let vouching = match caller.principal() {
            Principal::Member(m) => m.vo.site(),
            Principal::Person(person) => person.site(),
            Principal::Core(site) => site.clone(),
            Principal::Node(node) => node.site(),
        };
        let people = format!("searches of people of {vouching}");
        let mut whom = vec![(who.as_str(), SEARCHES_PER_HOUR)];
        if vouching != *own {
            whom.push((people.as_str(), SEARCHES_PER_SITE_AND_HOUR));
        }
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        if caller.site_admin() {
            limiter.count_if_room(&whom, now)
        } else {
            limiter.count(&whom, now)
        }
    }

    /// Waits until the caller `who` has no other search and there is a place.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when the core stops.
    pub(super) async fn turn(&self, who: String, admin: bool) -> Result<Turn<'_>, Error> {
        let own = {
            let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
            // Who neither searches nor waits is held by nobody else.
            callers.retain(|_, one| Arc::strong_count(one) > 1);
            callers.entry(who).or_default().clone()
        };
        let own = own.lock_owned().await;
        let stopping = |_| Error::unavailable("the core is stopping");
        let place = match self.running.try_acquire() {
            Ok(place) => place,
            Err(_) if admin => {
                tokio::select! {
                    place = self.running.acquire() => place.map_err(stopping)?,
                    place = self.kept.acquire() => place.map_err(stopping)?,
                }
            }
            Err(_) => self.running.acquire().await.map_err(stopping)?,
        };
        Ok(Turn { _own: own, _place: place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    /// If it failed, one person could take all places, or many of them keep the administrator who
    /// looks for what they do from looking.
    #[tokio::test]
    async fn each_has_one_search_and_administrators_a_place() {
        let searches = Searches::default();
        let turn = |who: &str, admin| searches.turn(who.to_owned(), admin);
        let first = turn("bob", false).await.unwrap();
        assert!(turn("bob", false).now_or_never().is_none(), "two searches of one caller");
        drop(first);
        let mut running = Vec::new();
        for n in 0..SEARCHES_AT_ONCE {
            running.push(turn(&n.to_string(), false).await.unwrap());
        }
        assert!(turn("bob", false).now_or_never().is_none(), "more than fit");
        let root = turn("root", true).now_or_never().expect("the place that is kept").unwrap();
        assert!(turn("other", true).now_or_never().is_none());
        drop((root, running.pop()));
        assert!(turn("bob", false).now_or_never().is_some());
        assert!(searches.callers.lock().unwrap().len() <= SEARCHES_AT_ONCE + 1);
    }
}
