//! Turns to ask the core whether somebody may have a stream: whoever opens many waits for their own
//! answers, and holds up nobody else's.

use crate::agent::Agent;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use xos_base::{Error, SiteId};
use xos_net::{Caller, Principal};
use xos_ssi::wire::ClusterMay;

/// Most questions without an answer for one node of this site or one member, and for all nodes of
/// another site.
const ASKED_MAX: usize = 64;
const FOREIGN_MAX: usize = 16;
/// How long a stream waits for its turn.
const TURN_MAX: Duration = Duration::from_secs(20);

/// For whom the core is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Asker {
    /// A node of this site, or a member.
    One(String),
    /// The nodes of another site, of which it can have as many as it likes.
    Site(SiteId),
}

impl Asker {
    fn of(caller: &Caller, own: &SiteId) -> Asker {
        match caller.principal() {
            Principal::Node(node) if node.site() != *own => Asker::Site(node.site()),
            _ => Asker::One(caller.describe()),
        }
    }

    fn share(&self) -> usize {
        match self {
            Asker::One(_) => ASKED_MAX,
            Asker::Site(_) => FOREIGN_MAX,
        }
    }
}

/// Who has questions without an answer.
#[derive(Default)]
pub(super) struct Asking(Mutex<HashMap<Asker, Arc<Semaphore>>>);

impl Asking {
    /// Waits for a turn, which lasts until what is returned is dropped.
    async fn turn(&self, who: Asker) -> Result<OwnedSemaphorePermit, Error> {
        let share = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Who has a turn, or waits for one, holds theirs.
            all.retain(|_, share| Arc::strong_count(share) > 1);
            let new = || Arc::new(Semaphore::new(who.share()));
            all.entry(who.clone()).or_insert_with(new).clone()
        };
        let turn = timeout(TURN_MAX, share.acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            Error::limited("too many streams of theirs wait for the core's word")
                .hint("try again later")
        })
    }
}

impl Agent {
    /// Asks the core whether a caller may have a stream.
    pub(super) async fn may(&self, caller: &Caller, asked: ClusterMay) -> Result<(), Error> {
        let who = Asker::of(caller, &self.node.site());
        let _turn = self.clustered()?.asking.turn(who).await?;
        self.core()?.call(asked).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a node could fill the core's queue and this node's memory with questions, or
    /// hold up the streams of all others by its own.
    #[tokio::test(start_paused = true)]
    async fn who_asks_much_waits_for_themselves_alone() {
        let asking = Asking::default();
        let node = Asker::One("node n2.rennes".to_owned());
        let site = Asker::Site("pisa".parse().unwrap());
        let mut turns = Vec::new();
        for (who, most) in [(&node, ASKED_MAX), (&site, FOREIGN_MAX)] {
            for _ in 0..most {
                turns.push(asking.turn(who.clone()).await.unwrap());
            }
            let error = asking.turn(who.clone()).await.unwrap_err();
            assert_eq!(error.kind, xos_base::Kind::Limited);
        }
        let other = asking.turn(Asker::One("node n3.rennes".to_owned())).await.unwrap();
        turns.pop();
        turns.push(asking.turn(site).await.unwrap());
        drop((turns, other));
        let _again = asking.turn(node).await.unwrap();
        assert_eq!(asking.0.lock().unwrap().len(), 1, "who has no question is not remembered");
    }
}
