//! Tickets for the persons whose programs run here in a cluster, as long as they do. The core knows
//! whose programs are here, and has the mandates and envelopes: it is asked by account, which is
//! known after a restart too, from the agent.

use crate::agent::Agent;
use crate::agent::mandates::lacks;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};
use xos_api::node::units::RenewTicket;
use xos_base::{Error, Membership, Millis};
use xos_net::control::Control;
use xos_ssi::wire::{ClusterRight, PersonRight};

/// How often tickets are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How long a program waits for its person's first ticket: a home that does not answer stops
/// nobody's work. After one in vain programs of the person do not wait again for so long.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const NOT_AGAIN: Duration = Duration::from_secs(15);
/// How long a person counts who has no copy here yet.
const COMES_WITHIN: Duration = Duration::from_secs(60);
/// How many tickets are asked for at a time.
const ASKED_MAX: usize = 64;

/// Held by who asks for a person's first ticket: others wait for that. In it is when one was asked
/// for in vain last.
type Turn = Arc<tokio::sync::Mutex<Option<Millis>>>;

struct Person {
    /// When a program of theirs was told of last.
    came: Millis,
    turn: Turn,
}

/// The persons with programs here, by account.
#[derive(Default)]
pub(super) struct People {
    known: Mutex<BTreeMap<u32, Person>>,
    changed: Notify,
}

impl People {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Person>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A program of this one is to be started here.
    fn comes(&self, uid: u32, now: Millis) -> Turn {
        let mut known = self.lock();
        let person =
            known.entry(uid).or_insert_with(|| Person { came: now, turn: Turn::default() });
        person.came = now;
        person.turn.clone()
    }

    /// The agent has copies of these. Who has none, and none that comes, is forgotten.
    pub(super) fn seen(&self, uids: &BTreeSet<u32>, now: Millis) {
        let mut new = false;
        {
            let mut known = self.lock();
            known.retain(|uid, p| uids.contains(uid) || now.since(p.came) < COMES_WITHIN);
            for uid in uids {
                known.entry(*uid).or_insert_with(|| {
                    new = true;
                    Person { came: now, turn: Turn::default() }
                });
            }
        }
        if new {
            self.changed.notify_one();
        }
    }

    fn uids(&self) -> Vec<u32> {
        self.lock().keys().copied().collect()
    }
}

impl Agent {
    /// Gets the ticket of a person whose program is to be started here, if it comes in time.
    /// Without it the program runs all the same, and has no right to the volume yet.
    pub(super) async fn first_right(&self, m: &Membership, uid: u32) {
        let Ok(clustered) = self.clustered() else { return };
        let turn = clustered.people.comes(uid, self.now());
        let mut vain = turn.lock().await;
        let now = self.now();
        let held = self.tickets.find(&m.vo, m.number, now);
        if held.is_some_and(|t| t.membership.epoch >= m.epoch)
            || vain.is_some_and(|at| now.since(at) < NOT_AGAIN)
        {
            return;
        }
        let late = |_| Err(Error::unavailable("the VO's home does not answer in time"));
        let got = match self.core() {
            Ok(core) => {
                let asked = tokio::time::timeout(FIRST_WAIT, self.ask_right(&core, uid));
                asked.await.unwrap_or_else(late)
            }
            Err(e) => Err(e),
        };
        *vain = got.is_err().then(|| self.now());
        if let Err(error) = got {
            tracing::info!(person = %m.person, %error, "a program has no right to the volume yet");
        }
    }

    async fn ask_right(&self, core: &Control, uid: u32) -> Result<(), Error> {
        let seated = self.clustered()?.seated().clone();
        let seated = seated.ok_or_else(|| Error::unavailable("this node is in no cluster"))?;
        let ask = ClusterRight { cluster: seated.seat.cluster, uid };
        let ticket = match core.call(ask).await? {
            PersonRight::Ticket { ticket } => ticket,
            PersonRight::Unit { envelope } => core.call(RenewTicket { envelope }).await?.ticket,
        };
        self.take_ticket(&ticket).map(drop)
    }

    /// Whose tickets are to be asked for now.
    fn due_in_cluster(&self) -> Vec<u32> {
        let Some(clustered) = &self.cluster else { return Vec::new() };
        let (now, vos) = (self.now(), self.lock_vos());
        let due = |uid: &u32| lacks(&vos, &self.tickets, *uid, now);
        clustered.people.uids().into_iter().filter(due).collect()
    }

    /// Asks on `control` for the tickets of people with programs here, until this future is
    /// dropped.
    pub(in crate::agent) async fn renew_in_cluster(self: Arc<Agent>, control: Arc<Control>) {
        let Some(clustered) = &self.cluster else { return };
        let mut accounts = self.accounts_changed.subscribe();
        let mut calls = JoinSet::new();
        let (mut of, mut asked) = (HashMap::<Id, u32>::new(), BTreeSet::new());
        loop {
            accounts.mark_unchanged();
            for uid in self.due_in_cluster() {
                if calls.len() >= ASKED_MAX || !asked.insert(uid) {
                    continue;
                }
                let (agent, control) = (self.clone(), control.clone());
                let call = calls.spawn(async move {
                    if let Err(error) = agent.ask_right(&control, uid).await {
                        tracing::info!(uid, %error, "a person's programs have no right to the volume");
                    }
                });
                of.insert(call.id(), uid);
            }
            let look = tokio::time::sleep(LOOK_EVERY);
            tokio::pin!(look);
            loop {
                tokio::select! {
                    changed = accounts.changed() => if changed.is_err() { return } else { break },
                    () = &mut look => break,
                    () = clustered.people.changed.notified() => break,
                    Some(ended) = calls.join_next_with_id() => {
                        let id = ended.map_or_else(|e| e.id(), |(id, ())| id);
                        if let Some(uid) = of.remove(&id) {
                            asked.remove(&uid);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, programs that run on would lose their volume when the node's daemon is
    /// restarted, or whoever ran something once keep it for ever.
    #[test]
    fn who_has_copies_here_is_known_from_the_agent() {
        let people = People::default();
        let at = |s: u64| Millis(s * 1000);
        people.seen(&BTreeSet::from([7, 8]), at(0));
        assert_eq!(people.uids(), [7, 8], "a daemon that was restarted");
        let _turn = people.comes(9, at(0));
        people.seen(&BTreeSet::from([8]), at(59));
        assert_eq!(people.uids(), [7, 8, 9], "something of theirs is to begin");
        people.seen(&BTreeSet::from([8]), at(60));
        assert_eq!(people.uids(), [8]);
    }

    /// If it failed, a home that does not answer would be asked once for each line of a make, and
    /// each wait for it.
    #[test]
    fn who_asks_for_a_person_is_one_at_a_time() {
        let people = People::default();
        let turn = people.comes(7, Millis(0));
        let mut vain = turn.try_lock().unwrap();
        assert!(people.comes(7, Millis(1)).try_lock().is_err());
        assert!(people.comes(8, Millis(1)).try_lock().is_ok());
        *vain = Some(Millis(1));
        drop(vain);
        assert_eq!(*people.comes(7, Millis(2)).try_lock().unwrap(), Some(Millis(1)));
    }
}
