//! Tickets for people who are signed in here: under the mandate that they brought, renewed as long
//! as they have a session or a stream.

use super::Agent;
use super::tickets::{Held, Tickets};
use super::vos::Vos;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};
use xos_api::cda::{IssueTicket, Mandate, TICKET_LIFE_MAX_S, Work};
use xos_api::vom::AccountState;
use xos_base::local::Account;
use xos_base::{Epoch, Error, Millis};
use xos_net::control::Control;
use xos_net::ticket::verify_mandate;

/// How often tickets are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How long a login waits for its first ticket: a home that does not answer keeps nobody out.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// How much of its life a ticket has left when it is renewed: a third.
const LEFT_MIN: Duration = Duration::from_secs(TICKET_LIFE_MAX_S / 3);
/// How many are asked for at a time: a home that does not answer holds up few others.
const ASKED_MAX: usize = 64;

/// How long one is kept for a session that is to begin.
const SESSION_WAIT: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Kept {
    jws: String,
    /// Of the membership in it: a narrower one made those of before void.
    epoch: Epoch,
    until: Millis,
    /// When the person brought it.
    brought: Millis,
}

/// The mandates of one kind of work, by uid.
#[derive(Default)]
pub(in crate::agent) struct Mandates {
    kept: Mutex<BTreeMap<u32, Kept>>,
    changed: Notify,
}

impl Mandates {
    /// Keeps a mandate that was verified, unless the one that is kept is of a newer epoch, or of
    /// the same and lasts longer.
    fn put(&self, uid: u32, new: Kept) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.get_mut(&uid).filter(|k| (k.epoch, k.until) > (new.epoch, new.until)) {
            Some(better) => better.brought = new.brought,
            None => {
                kept.insert(uid, new);
                self.changed.notify_one();
            }
        }
    }

    /// Forgets those that have ended, and those of people whom `stays` does not name, unless they
    /// brought it a moment ago.
    pub(in crate::agent) fn retain(&self, now: Millis, stays: impl Fn(u32) -> bool) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |k: &Kept| now < k.brought.plus(SESSION_WAIT);
        kept.retain(|uid, k| k.until > now && (fresh(k) || stays(*uid)));
    }

    fn all(&self) -> BTreeMap<u32, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether a person may work here, and has no ticket, or none that lasts.
pub(super) fn lacks(vos: &Vos, tickets: &Tickets, uid: u32, now: Millis) -> bool {
    let Some(found) = vos.by_uid(uid) else { return false };
    let held = tickets.find(found.id, found.member.number, now);
    let good =
        |t: Held| t.membership.epoch >= found.member.epoch && t.expires.since(now) > LEFT_MIN;
    vos.state_of(uid, now) == Some(AccountState::Active) && !held.is_some_and(good)
}

/// Whether a mandate is for this work of this account.
fn fits(mandate: &Mandate, account: &Account, wanted: &Work) -> Result<(), Error> {
    let m = &mandate.membership;
    let refused = |why: &str| Error::denied(format!("a mandate is refused: {why}"));
    if mandate.work != *wanted {
        return Err(refused(match &mandate.work {
            Work::Login { .. } => "it is for logins to another machine",
            Work::Job { .. } => "it is a job's",
            Work::Cluster { .. } => "it is for programs in another cluster",
        }));
    }
    if m.vo != account.vo || m.person != account.person || m.number != account.number {
        return Err(refused("it is another person's"));
    }
    if m.epoch < account.epoch {
        return Err(refused("it is of before the membership was changed"));
    }
    Ok(())
}

impl Agent {
    /// Those of logins, if there are any here.
    pub(super) fn mandates(&self) -> Option<Arc<Mandates>> {
        self.logins.as_ref().map(|l| l.mandates.clone())
    }

    /// Verifies the mandate of some work, keeps it among `mandates`, and gets the first ticket under
    /// it. Without a ticket the person can work all the same.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] or [`xos_base::Kind::Unauthenticated`] when the mandate is not
    /// good for this work.
    pub(in crate::agent) async fn take_mandate(
        &self,
        mandates: &Mandates,
        work: &Work,
        account: &Account,
        jws: String,
    ) -> Result<(), Error> {
        let mandate = verify_mandate(&self.trust, &jws, self.now())?;
        fits(&mandate, account, work)?;
        let late = |_| Err(Error::unavailable("the VO's home does not answer in time"));
        let got = match self.core() {
            Ok(control) => {
                let asked = self.ask_ticket(&control, jws.clone());
                tokio::time::timeout(FIRST_WAIT, asked).await.unwrap_or_else(late)
            }
            Err(e) => Err(e),
        };
        if let Err(error) = got {
            tracing::warn!(person = %account.person, %error, "a person's work has no ticket yet");
        }
        let (epoch, until) = (mandate.membership.epoch, mandate.until);
        mandates.put(account.uid, Kept { jws, epoch, until, brought: self.now() });
        Ok(())
    }

    async fn ask_ticket(&self, control: &Control, mandate: String) -> Result<(), Error> {
        let (node, node_key) = (self.node.clone(), self.key.clone());
        let issued = control.call(IssueTicket { mandate, node, node_key }).await?;
        self.take_ticket(&issued.ticket).map(drop)
    }

    /// Whose tickets are to be asked for now.
    fn due(&self, mandates: &Mandates) -> Vec<(u32, String)> {
        let (now, vos) = (self.now(), self.lock_vos());
        let due = |uid, kept: &Kept| kept.until > now && lacks(&vos, &self.tickets, uid, now);
        let all = mandates.all().into_iter();
        all.filter(|(uid, kept)| due(*uid, kept)).map(|(uid, kept)| (uid, kept.jws)).collect()
    }

    /// Asks on `control` for the tickets of people under their mandates, until this future is
    /// dropped.
    pub(in crate::agent) async fn renew_under(
        self: Arc<Agent>,
        mandates: Arc<Mandates>,
        control: Arc<Control>,
    ) {
        let mut calls = JoinSet::new();
        let (mut of, mut asked) = (HashMap::<Id, u32>::new(), BTreeSet::new());
        loop {
            for (uid, jws) in self.due(&mandates) {
                if calls.len() >= ASKED_MAX || !asked.insert(uid) {
                    continue;
                }
                let (agent, control) = (self.clone(), control.clone());
                let call = calls.spawn(async move {
                    if let Err(error) = agent.ask_ticket(&control, jws).await {
                        tracing::warn!(uid, %error, "a person's work has no right to the volume");
                    }
                });
                of.insert(call.id(), uid);
            }
            let look = tokio::time::sleep(LOOK_EVERY);
            tokio::pin!(look);
            loop {
                tokio::select! {
                    () = &mut look => break,
                    () = mandates.changed.notified() => break,
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
    use crate::agent::testing::{account, membership};
    use xos_base::{MemberNumber, Membership};

    fn mandate(work: Work, edit: impl FnOnce(&mut Membership)) -> Mandate {
        let mut membership = membership();
        edit(&mut membership);
        Mandate { work, membership, issued: Millis(1), until: Millis(100) }
    }

    fn login(node: &str) -> Work {
        Work::Login { node: node.parse().unwrap() }
    }

    /// If it failed, a node could get a ticket for somebody who is not signed in there.
    #[test]
    fn a_mandate_is_for_one_person_and_one_node() {
        let check = |m: Mandate| fits(&m, &account(), &login("n1.rennes")).map_err(|e| e.message);
        assert_eq!(check(mandate(login("n1.rennes"), |_| {})), Ok(()));
        let job = Work::Job {
            job: "1.rennes".parse().unwrap(),
            owner: "rennes".parse().unwrap(),
            digest: String::new(),
        };
        for (what, bad) in [
            ("another node", mandate(login("n2.rennes"), |_| {})),
            ("a job", mandate(job, |_| {})),
            ("a cluster", mandate(Work::Cluster { cluster: "n1.rennes".parse().unwrap() }, |_| {})),
            ("a person", mandate(login("n1.rennes"), |m| m.person = "eve@rennes".parse().unwrap())),
            ("a VO", mandate(login("n1.rennes"), |m| m.vo = "demo.pisa".parse().unwrap())),
            ("a number", mandate(login("n1.rennes"), |m| m.number = MemberNumber(8))),
            ("an epoch", mandate(login("n1.rennes"), |m| m.epoch = Epoch(3))),
        ] {
            assert!(check(bad).is_err(), "{what}");
        }
    }

    fn kept(jws: &str, epoch: u64, until: Millis, brought: Millis) -> Kept {
        Kept { jws: jws.into(), epoch: Epoch(epoch), until, brought }
    }

    /// If it failed, who was narrowed and signs in again would have no volume, since the node would
    /// go on asking by the mandate that became void.
    #[test]
    fn a_newer_membership_voids_a_mandate_that_lasts_longer() {
        let all = Mandates::default();
        all.put(7, kept("void", 4, Millis(900), Millis(1)));
        all.put(7, kept("good", 5, Millis(500), Millis(1)));
        assert_eq!(all.all()[&7].jws, "good");
        all.put(7, kept("void", 4, Millis(900), Millis(2)));
        assert_eq!(all.all()[&7].jws, "good", "brought late, by another session");
    }

    /// If it failed, a node would get tickets for people who have left, or lose those of others.
    #[test]
    fn mandates_last_as_long_as_they_and_the_sessions_do() {
        let all = Mandates::default();
        let (begin, end) = (Millis(1), Millis(1).plus(2 * SESSION_WAIT));
        all.put(7, kept("long", 4, end, begin));
        all.put(7, kept("short", 4, Millis(50), begin));
        all.put(8, kept("ended", 4, Millis(10), begin));
        all.put(9, kept("gone", 4, end, begin));
        assert_eq!(all.all()[&7].jws, "long");
        let people = || all.all().into_keys().collect::<Vec<_>>();
        all.retain(Millis(10), |uid| uid == 7);
        assert_eq!(people(), [7, 9], "a session is to begin");
        all.retain(begin.plus(SESSION_WAIT), |uid| uid == 7);
        assert_eq!(people(), [7]);
    }
}
