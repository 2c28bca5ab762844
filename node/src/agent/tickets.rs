//! The tickets that this node holds: whom it may act for, and until when.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use tokio::sync::watch;
use xos_base::{MemberNumber, Membership, Millis, VoId};

/// A ticket that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The ticket as it came, to be shown to file servers.
    pub jws: String,
    /// Whom it speaks for.
    pub membership: Membership,
    /// When it lapses.
    pub expires: Millis,
}

/// All tickets of the node.
#[derive(Debug)]
pub struct Tickets {
    held: RwLock<HashMap<(VoId, MemberNumber), Held>>,
    changed: watch::Sender<u64>,
}

impl Default for Tickets {
    fn default() -> Tickets {
        Tickets { held: RwLock::default(), changed: watch::channel(0).0 }
    }
}

impl Tickets {
    /// Takes a verified ticket. One that lapses sooner than the one held, under the same epoch,
    /// changes nothing.
    pub fn put(&self, ticket: Held) {
        let key = (ticket.membership.vo.clone(), ticket.membership.number);
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let newer = held.get(&key).is_none_or(|old| {
            ticket.membership.epoch > old.membership.epoch
                || (ticket.membership.epoch == old.membership.epoch && ticket.expires > old.expires)
        });
        if newer {
            held.insert(key, ticket);
            drop(held);
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// The ticket of a member that is good at `now`.
    pub fn find(&self, vo: &VoId, member: MemberNumber, now: Millis) -> Option<Held> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(&(vo.clone(), member)).filter(|t| t.expires > now).cloned()
    }

    /// Drops what has lapsed.
    pub fn sweep(&self, now: Millis) {
        self.held.write().unwrap_or_else(PoisonError::into_inner).retain(|_, t| t.expires > now);
    }

    /// Counts the tickets that came.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::membership;
    use xos_base::Epoch;

    fn ticket(epoch: u64, expires: u64) -> Held {
        let membership = Membership { epoch: Epoch(epoch), ..membership() };
        Held { jws: format!("{epoch}/{expires}"), membership, expires: Millis(expires) }
    }

    #[test]
    fn the_newest_counts_and_lapsed_ones_are_none() {
        let tickets = Tickets::default();
        let vo = "demo.rennes".parse().unwrap();
        let find = |now| tickets.find(&vo, MemberNumber(7), Millis(now)).map(|t| t.jws);
        tickets.put(ticket(1, 100));
        tickets.put(ticket(1, 50));
        assert_eq!(find(60).as_deref(), Some("1/100"));
        tickets.put(ticket(2, 80));
        assert_eq!(find(60).as_deref(), Some("2/80"));
        tickets.put(ticket(1, 900));
        assert_eq!(find(60).as_deref(), Some("2/80"), "an older epoch came back");
        assert_eq!(find(80), None);
        tickets.sweep(Millis(80));
        assert_eq!(find(10), None);
    }
}
