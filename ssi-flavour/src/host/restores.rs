//! Who may restore copies, and how many at a time. CRIU runs as the person whose copy it makes, so
//! that what a person has in the cell can hold it up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Copies that are restored at a time, and those of one person.
pub(super) const RESTORES_MAX: usize = 4;
const OF_ONE_MAX: usize = 2;

/// The turns of a cell.
pub(super) struct Restores {
    all: Semaphore,
    /// Of each person who restores or waits, by uid.
    persons: Mutex<HashMap<u32, Weak<Semaphore>>>,
}

/// A turn, as long as it lives.
pub(super) struct Turn<'a> {
    _all: SemaphorePermit<'a>,
    _own: OwnedSemaphorePermit,
}

impl Restores {
    pub(super) fn new() -> Restores {
        Restores { all: Semaphore::new(RESTORES_MAX), persons: Mutex::default() }
    }

    /// Waits for a turn of a person's. Who has all of theirs keeps nobody else waiting.
    ///
    /// # Errors
    /// None: nobody closes them.
    pub(super) async fn turn(&self, uid: u32) -> Result<Turn<'_>, AcquireError> {
        let own = self.own(uid).acquire_owned().await?;
        Ok(Turn { _all: self.all.acquire().await?, _own: own })
    }

    fn own(&self, uid: u32) -> Arc<Semaphore> {
        let mut persons = self.persons.lock().unwrap_or_else(PoisonError::into_inner);
        persons.retain(|_, own| own.strong_count() > 0);
        if let Some(own) = persons.get(&uid).and_then(Weak::upgrade) {
            return own;
        }
        let own = Arc::new(Semaphore::new(OF_ONE_MAX));
        persons.insert(uid, Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A turn, if it is to be had at once.
    async fn now(restores: &Restores, uid: u32) -> Option<Turn<'_>> {
        tokio::select! {
            biased;
            turn = restores.turn(uid) => turn.ok(),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn one_person_does_not_take_all_turns() {
        // wrong: who stops the CRIUs that make their copies would keep a node from taking any
        let restores = Restores::new();
        let first = now(&restores, 70_001).await.unwrap();
        let _second = now(&restores, 70_001).await.unwrap();
        assert!(now(&restores, 70_001).await.is_none());
        let _others =
            [now(&restores, 70_002).await.unwrap(), now(&restores, 70_003).await.unwrap()];
        assert!(now(&restores, 70_004).await.is_none(), "more than there are");
        drop(first);
        let _again = now(&restores, 70_001).await.unwrap();
        assert_eq!(restores.persons.lock().unwrap().len(), 3, "who waits no more is forgotten");
    }
}
