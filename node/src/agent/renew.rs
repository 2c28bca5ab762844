//! Asks the core for the tickets that work here lacks.
//!
//! The core renews tickets before they lapse. It cannot see when one is of no use any more: the
//! member was suspended and resumed, or had rights taken away (a new epoch), or this daemon was
//! restarted and has none. Until there is a new one, work that goes on has no right to the volume.

use super::Agent;
use super::tickets::Tickets;
use super::vos::Vos;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinSet};
use xos_api::node::units::{EnvelopeId, RenewTicket};
use xos_api::vom::AccountState;
use xos_base::{Kind, Millis, SiteId};
use xos_net::control::Control;

/// How often tickets are looked at while nothing changes.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How many tickets of VOs of one home are asked for at a time. A home that does not answer holds
/// up its own only.
const HOME_MAX: usize = 4;

/// A ticket that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Missing {
    /// Work of the person who lacks it.
    envelope: EnvelopeId,
    /// The person's local account.
    uid: u32,
    /// Who signs it.
    home: SiteId,
}

/// Who is asked for, and who is to be asked for next.
#[derive(Debug, Default)]
struct Asking {
    waiting: VecDeque<Missing>,
    under_way: BTreeSet<u32>,
    homes: BTreeMap<SiteId, usize>,
}

impl Asking {
    /// What is missing now; what is asked for already is not asked for twice.
    fn look(&mut self, missing: Vec<Missing>) {
        self.waiting = missing.into();
        self.waiting.retain(|m| !self.under_way.contains(&m.uid));
    }

    /// The next to ask for now.
    fn next(&mut self) -> Option<Missing> {
        let free = |m: &Missing| self.homes.get(&m.home).is_none_or(|n| *n < HOME_MAX);
        let at = self.waiting.iter().position(free)?;
        let next = self.waiting.remove(at)?;
        self.under_way.insert(next.uid);
        *self.homes.entry(next.home.clone()).or_default() += 1;
        Some(next)
    }

    /// There is an answer, or none will come.
    fn done(&mut self, asked: &Missing) {
        self.under_way.remove(&asked.uid);
        if let Some(n) = self.homes.get_mut(&asked.home) {
            *n -= 1;
            if *n == 0 {
                self.homes.remove(&asked.home);
            }
        }
    }
}

impl Agent {
    /// Asks on `control` for what is missing, until this future is dropped.
    pub(super) async fn renew_tickets(self: Arc<Agent>, control: Arc<Control>) {
        let mut accounts = self.accounts_changed.subscribe();
        let mut asking = Asking::default();
        let mut calls = JoinSet::new();
        let mut of: HashMap<Id, Missing> = HashMap::new();
        loop {
            accounts.mark_unchanged();
            asking.look({
                let live = self.units.live();
                lacking(live, &self.lock_vos(), &self.tickets, self.now())
            });
            let look = tokio::time::sleep(LOOK_EVERY);
            tokio::pin!(look);
            loop {
                while let Some(next) = asking.next() {
                    let (agent, control, envelope) =
                        (self.clone(), control.clone(), next.envelope.clone());
                    let call = calls.spawn(async move { agent.renew(&control, envelope).await });
                    of.insert(call.id(), next);
                }
                tokio::select! {
                    changed = accounts.changed() => if changed.is_err() { return } else { break },
                    () = &mut look => break,
                    Some(ended) = calls.join_next_with_id() => {
                        let id = ended.map_or_else(|e| e.id(), |(id, ())| id);
                        if let Some(asked) = of.remove(&id) {
                            asking.done(&asked);
                        }
                    }
                }
            }
        }
    }

    async fn renew(&self, control: &Control, envelope: EnvelopeId) {
        let job = envelope.job.clone();
        let got = match control.call(RenewTicket { envelope }).await {
            Ok(renewed) => self.take_ticket(&renewed.ticket).map(drop),
            Err(e) if e.kind == Kind::NotFound => {
                tracing::debug!(%job, error = %e, "the core has no ticket for it");
                Ok(())
            }
            Err(e) => Err(e),
        };
        if let Err(error) = got {
            tracing::warn!(%job, %error, "work goes on without a right to the volume");
        }
    }
}

/// One envelope for each person who may work, has work here, and has no ticket of the present
/// epoch. `live` are envelopes and the uids they run as.
fn lacking(
    live: Vec<(EnvelopeId, u32)>,
    vos: &Vos,
    tickets: &Tickets,
    now: Millis,
) -> Vec<Missing> {
    let mut seen = BTreeSet::new();
    let lacks = |(envelope, uid): (EnvelopeId, u32)| {
        let (vo, member) = vos.member_of(uid)?;
        let good = |epoch| epoch >= member.epoch;
        let held = tickets.find(vo, member.number, now);
        let lacks = vos.state_of(uid, now) == Some(AccountState::Active)
            && !held.is_some_and(|t| good(t.membership.epoch));
        (lacks && seen.insert(uid)).then(|| Missing { envelope, uid, home: vo.site() })
    };
    live.into_iter().filter_map(lacks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{self, BASE, member, membership};
    use crate::agent::tickets::Held;
    use xos_api::vom::{AccountMember, VoAccounts};
    use xos_base::{Epoch, MemberNumber, Membership};

    /// The VO with members of these numbers, states and epochs.
    fn accounts(states: &[(u32, &str, u64)]) -> VoAccounts {
        let one = |&(number, state, epoch): &(u32, &str, u64)| AccountMember {
            epoch: Epoch(epoch),
            ..member(number, &format!("p{number}"), state)
        };
        testing::accounts(states.iter().map(one).collect())
    }

    fn ticket(number: u32, epoch: u64) -> Held {
        let (number, epoch) = (MemberNumber(number), Epoch(epoch));
        let membership = Membership { number, epoch, ..membership() };
        Held { jws: String::new(), membership, expires: Millis(100) }
    }

    #[test]
    fn work_that_goes_on_after_a_change_asks_for_a_ticket() {
        // wrong: resumed work would be kept out of the volume until the core renews by the clock
        let envelope = |serial| EnvelopeId { job: "1.rennes".parse().unwrap(), serial };
        let live =
            || vec![(envelope(1), BASE + 1), (envelope(2), BASE + 1), (envelope(3), BASE + 2)];
        let (mut vos, tickets) = (Vos::default(), Tickets::default());
        let look = |vos: &Vos, tickets: &Tickets, now| {
            let missing = lacking(live(), vos, tickets, Millis(now)).into_iter();
            missing.map(|m| m.envelope).collect::<Vec<_>>()
        };
        vos.apply(accounts(&[(1, "active", 1), (2, "active", 1)]));
        tickets.put(ticket(1, 1));
        tickets.put(ticket(2, 1));
        assert_eq!(look(&vos, &tickets, 50), []);
        // held: nothing is asked for; resumed: the old ticket is of no use
        vos.apply(accounts(&[(1, "suspended", 2), (2, "active", 1)]));
        assert_eq!(look(&vos, &tickets, 50), []);
        vos.apply(accounts(&[(1, "active", 2), (2, "active", 1)]));
        assert_eq!(look(&vos, &tickets, 50), [envelope(1)]);
        tickets.put(ticket(1, 2));
        assert_eq!(look(&vos, &tickets, 50), []);
        // lapsed, or a daemon that was restarted
        assert_eq!(look(&vos, &tickets, 100), [envelope(1), envelope(3)]);
        assert_eq!(look(&vos, &Tickets::default(), 50), [envelope(1), envelope(3)]);
        // the core is unheard for too long
        assert!(vos.lapse(Millis(0), Millis::from_secs(3600)));
        assert_eq!(look(&vos, &Tickets::default(), 50), []);
        // who left, and uids that are nobody's
        vos.apply(accounts(&[(1, "ended", 9)]));
        assert_eq!(look(&vos, &Tickets::default(), 50), []);
    }
    #[test]
    fn a_home_that_does_not_answer_holds_up_its_own_only_and_nobody_is_asked_for_twice() {
        // wrong: a hostile home would keep everybody on the node out of their volumes
        let missing = |uid: u32, home: &str| Missing {
            envelope: EnvelopeId { job: "1.rennes".parse().unwrap(), serial: uid },
            uid,
            home: home.parse().unwrap(),
        };
        let mute: Vec<_> = (0..10).map(|uid| missing(uid, "mute")).collect();
        let all = || [mute.clone(), vec![missing(100, "pisa")]].concat();
        let mut asking = Asking::default();
        let take = |asking: &mut Asking| {
            std::iter::from_fn(|| asking.next()).map(|m| m.uid).collect::<Vec<_>>()
        };
        asking.look(all());
        assert_eq!(take(&mut asking), [0, 1, 2, 3, 100]);
        asking.look(all());
        assert!(take(&mut asking).is_empty(), "all that may be are under way");
        asking.done(&missing(100, "pisa"));
        asking.done(&missing(2, "mute"));
        assert_eq!(take(&mut asking), [4]);
        asking.look(all());
        assert_eq!(take(&mut asking), [100], "it got none, and is asked for again");
    }
}
