//! Codes that browsers carry from the console to a client: a bounded table in memory. A restart
//! of the core forgets them.
//!
//! A code is good once, for a minute. It is remembered a while longer: when it comes again,
//! somebody else has it, and what was issued for it ends (RFC 6749, 4.1.2).

use super::grants::Approval;
use super::secret;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use xos_base::{Error, Millis, PersonId};
use xos_net::identity::sha256;

/// Most codes at a time. When it is full the oldest goes.
const CODES_MAX: usize = 16 * 1024;
/// How long a code is good.
const CODE_LIFE: Duration = Duration::from_secs(60);
/// How long it is remembered.
const CODE_KEPT: Duration = Duration::from_secs(10 * 60);

/// What a code is good for.
pub(super) struct Ticket {
    pub(super) client: String,
    pub(super) redirect: String,
    /// Of PKCE.
    pub(super) challenge: String,
    pub(super) nonce: Option<String>,
    pub(super) approval: Approval,
}

/// A grant that a code was exchanged for.
#[derive(Clone)]
struct Exchanged {
    person: PersonId,
    grant: String,
}

struct Entry {
    begun: Millis,
    /// Until it is exchanged.
    ticket: Option<Ticket>,
    exchanged: Option<Exchanged>,
    /// It came a second time.
    spoiled: bool,
}

/// What comes of a code.
pub(super) enum Taken {
    /// It is good.
    Good(Ticket),
    /// It was used: the grant of that person ends.
    Used(PersonId, String),
    /// It never was, or is too old.
    Gone,
}

/// All codes, by digests.
#[derive(Default)]
pub(super) struct Codes(Mutex<HashMap<[u8; 32], Entry>>);

impl Codes {
    fn table(&self) -> MutexGuard<'_, HashMap<[u8; 32], Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new code.
    pub(super) fn put(&self, ticket: Ticket, now: Millis) -> Result<String, Error> {
        let code = secret()?;
        let mut table = self.table();
        if table.len() >= CODES_MAX {
            table.retain(|_, e| now < e.begun.plus(CODE_KEPT));
        }
        if table.len() >= CODES_MAX {
            tracing::warn!(limit = CODES_MAX, "too many codes: the oldest goes");
            let oldest = table.iter().min_by_key(|(_, e)| e.begun).map(|(k, _)| *k);
            if let Some(oldest) = oldest {
                table.remove(&oldest);
            }
        }
        let entry = Entry { begun: now, ticket: Some(ticket), exchanged: None, spoiled: false };
        table.insert(sha256(code.as_bytes()), entry);
        Ok(code)
    }

    /// Takes what a code is good for, for the grant of that id.
    pub(super) fn take(&self, code: &str, grant: &str, now: Millis) -> Taken {
        let mut table = self.table();
        let Some(entry) = table.get_mut(&sha256(code.as_bytes())) else { return Taken::Gone };
        if now >= entry.begun.plus(CODE_KEPT) {
            return Taken::Gone;
        }
        if let Some(used) = entry.exchanged.clone() {
            entry.spoiled = true;
            return Taken::Used(used.person, used.grant);
        }
        match entry.ticket.take() {
            Some(ticket) if now < entry.begun.plus(CODE_LIFE) => {
                let person = ticket.approval.person.clone();
                entry.exchanged = Some(Exchanged { person, grant: grant.to_owned() });
                Taken::Good(ticket)
            }
            _ => Taken::Gone,
        }
    }

    /// Voids what a person allowed a client and it has not fetched; whether there was any.
    pub(super) fn forget(&self, person: &PersonId, client: &str, now: Millis) -> bool {
        let mut any = false;
        for entry in self.table().values_mut() {
            let of = |t: &Ticket| t.client == client && t.approval.person == *person;
            if entry.ticket.as_ref().is_some_and(of) {
                any |= now < entry.begun.plus(CODE_LIFE);
                entry.ticket = None;
            }
        }
        any
    }

    /// Whether a code came again while it was exchanged.
    pub(super) fn is_spoiled(&self, code: &str) -> bool {
        self.table().get(&sha256(code.as_bytes())).is_some_and(|e| e.spoiled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            client: "c".into(),
            redirect: "https://a.example".into(),
            challenge: "x".into(),
            nonce: None,
            approval: Approval {
                person: "alice@rennes".parse().unwrap(),
                signed_in: Millis(1),
                until: Millis(2),
                scopes: Vec::new(),
                in_vo: None,
            },
        }
    }

    /// If it failed, a code from a browser's history would be good for a thief.
    #[test]
    fn a_code_is_good_once_and_for_a_minute() {
        let (codes, now) = (Codes::default(), Millis(1_000_000));
        let code = codes.put(ticket(), now).unwrap();
        assert!(matches!(codes.take("x", "g", now), Taken::Gone));
        assert!(matches!(codes.take(&code, "g", now), Taken::Good(_)));
        assert!(!codes.is_spoiled(&code));
        assert!(matches!(codes.take(&code, "h", now), Taken::Used(_, g) if g == "g"));
        assert!(codes.is_spoiled(&code), "the first holder is not told");
        let code = codes.put(ticket(), now).unwrap();
        assert!(matches!(codes.take(&code, "g", now.plus(CODE_LIFE)), Taken::Gone));
        assert!(matches!(codes.take(&code, "g", now), Taken::Gone), "an old code came to life");
    }

    /// If it failed, what a person took back could still be fetched, or another's would go with it.
    #[test]
    fn a_code_that_is_taken_back_is_gone() {
        let (codes, now) = (Codes::default(), Millis(1_000_000));
        let (alice, bob) = ("alice@rennes".parse().unwrap(), "bob@rennes".parse().unwrap());
        let code = codes.put(ticket(), now).unwrap();
        assert!(!codes.forget(&bob, "c", now) && !codes.forget(&alice, "d", now));
        assert!(codes.forget(&alice, "c", now) && !codes.forget(&alice, "c", now));
        assert!(matches!(codes.take(&code, "g", now), Taken::Gone));
        let late = codes.put(ticket(), now).unwrap();
        assert!(!codes.forget(&alice, "c", now.plus(CODE_LIFE)), "it was over by itself");
        assert!(matches!(codes.take(&late, "g", now), Taken::Gone));
    }

    /// If it failed, a client could fill the core's memory.
    #[test]
    fn the_table_is_bounded_and_the_oldest_goes() {
        let codes = Codes::default();
        let first = codes.put(ticket(), Millis(1)).unwrap();
        for _ in 0..CODES_MAX {
            codes.put(ticket(), Millis(2)).unwrap();
        }
        assert_eq!(codes.table().len(), CODES_MAX);
        assert!(matches!(codes.take(&first, "g", Millis(3)), Taken::Gone));
    }
}
