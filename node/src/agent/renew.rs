//! Asks the core for the tickets that work here lacks.
//!
//! The core renews tickets before they lapse. It cannot see when one is of no use any more: the
//! member was suspended and resumed, or had rights taken away (a new epoch), or this daemon was
//! restarted and has none. Until there is a new one, work that goes on has no right to the volume.

use super::Agent;
use super::tickets::Tickets;
use super::vos::Vos;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use xos_api::node::units::{EnvelopeId, RenewTicket};
use xos_api::vom::AccountState;
use xos_base::{Kind, Millis};
use xos_net::control::Control;

/// How often tickets are looked at while nothing changes.
const LOOK_EVERY: Duration = Duration::from_secs(15);

impl Agent {
    /// Asks on `control` for what is missing, until this future is dropped.
    pub(super) async fn renew_tickets(self: Arc<Agent>, control: Arc<Control>) {
        let mut accounts = self.accounts_changed.subscribe();
        loop {
            accounts.mark_unchanged();
            let live = self.units.live();
            let missing = {
                let vos = self.lock_vos();
                lacking(live, &vos, &self.tickets, self.now())
            };
            for envelope in missing {
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
            tokio::select! {
                changed = accounts.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
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
) -> Vec<EnvelopeId> {
    let mut seen = BTreeSet::new();
    let lacks = |uid: u32| {
        let Some((vo, member)) = vos.member_of(uid) else { return false };
        let good = |epoch| epoch >= member.epoch;
        vos.state_of(uid) == AccountState::Active
            && !tickets.find(vo, member.number, now).is_some_and(|t| good(t.membership.epoch))
    };
    live.into_iter()
        .filter(|(_, uid)| lacks(*uid) && seen.insert(*uid))
        .map(|(envelope, _)| envelope)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::tickets::Held;
    use xos_api::vom::VoAccounts;
    use xos_base::Membership;

    const BASE: u32 = 1_900_000_000;

    fn accounts(states: &[(u32, &str, u64)]) -> VoAccounts {
        let members: Vec<_> = states
            .iter()
            .map(|(n, state, epoch)| {
                serde_json::json!({
                    "number": n, "person": format!("p{n}@rennes"), "name": format!("p{n}.demo"),
                    "state": state, "epoch": epoch, "groups": [1],
                })
            })
            .collect();
        serde_json::from_value(serde_json::json!({
            "vo": "demo.rennes", "number": 1, "full": true, "more": false, "base": BASE,
            "size": 65_536, "state": "active", "members": members,
            "groups": [{"name": "members", "number": 1}], "groups_gone": [],
        }))
        .unwrap()
    }

    fn ticket(member: u32, epoch: u64) -> Held {
        let membership: Membership = serde_json::from_value(serde_json::json!({
            "vo": "demo.rennes", "person": format!("p{member}@rennes"), "number": member,
            "epoch": epoch, "groups": [{"name": "members", "number": 1}], "roles": [],
        }))
        .unwrap();
        Held { jws: String::new(), membership, expires: Millis(100) }
    }

    #[test]
    fn work_that_goes_on_after_a_change_asks_for_a_ticket() {
        // wrong: resumed work would be kept out of the volume until the core renews by the clock
        let envelope = |serial| EnvelopeId { job: "1.rennes".parse().unwrap(), serial };
        let live =
            || vec![(envelope(1), BASE + 1), (envelope(2), BASE + 1), (envelope(3), BASE + 2)];
        let (mut vos, tickets) = (Vos::default(), Tickets::default());
        let look = |vos: &Vos, tickets: &Tickets, now| lacking(live(), vos, tickets, Millis(now));
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
        // who left, and uids that are nobody's
        vos.apply(accounts(&[(1, "ended", 9)]));
        assert_eq!(look(&vos, &Tickets::default(), 50), []);
    }
}
