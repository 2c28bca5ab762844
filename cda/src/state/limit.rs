//! How often somebody may try a password.
//!
//! Three budgets: per name and address (strict), per name (generous, against many addresses), per
//! address (against many names). Who signed in from an address before is only bound by the first,
//! so that others who try the name cannot lock them out. A try that succeeds costs nothing.
//! Passwords typed at machines have budgets of their own, with the machine for the address.
//!
//! The tables have a fixed size and are indexed by a keyed hash: neither memory nor an earlier
//! refusal can be washed out by inventing names; a collision costs an honest person a wait at most.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use xos_base::{Millis, NodeId, PersonId};

/// Slots of each table.
pub(crate) const SLOTS: usize = 64 * 1024;

/// A budget: `burst` tries at once, then one each `every`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) every: Duration,
}

/// Per name and address.
pub(crate) const PAIR: Rate = Rate { burst: 5, every: Duration::from_secs(30) };
/// Per name.
pub(crate) const NAME: Rate = Rate { burst: 100, every: Duration::from_secs(10) };
/// Per address.
pub(crate) const ADDRESS: Rate = Rate { burst: 50, every: Duration::from_secs(2) };
/// Registrations per address.
pub(crate) const REGISTER: Rate = Rate { burst: 5, every: Duration::from_secs(60) };

/// Sign-ins at a provider that are begun, per address. Many people may share one.
pub(crate) const BEGIN: Rate = Rate { burst: 60, every: Duration::from_secs(2) };

/// Codes of other devices that a person tries.
pub(crate) const CODE: Rate = Rate { burst: 5, every: Duration::from_secs(60) };
/// The same per address, for people who tried wrong ones lately.
pub(crate) const CODE_ADDRESS: Rate = Rate { burst: 50, every: Duration::from_secs(10) };

/// Logins to one machine that are begun for a person.
pub(crate) const NODE_LOGIN: Rate = Rate { burst: 10, every: Duration::from_secs(30) };
/// The same to all machines of one site, which can invent some.
pub(crate) const SITE_LOGIN: Rate = Rate { burst: 60, every: Duration::from_secs(5) };

/// For each slot the time at which its whole budget is there again (GCRA, ITU-T I.371).
struct Table {
    rate: Rate,
    full_at_ms: Mutex<Box<[u64]>>,
}

impl Table {
    fn new(rate: Rate) -> Table {
        Table { rate, full_at_ms: Mutex::new(vec![0; SLOTS].into_boxed_slice()) }
    }

    fn every_ms(&self) -> u64 {
        u64::try_from(self.rate.every.as_millis()).unwrap_or(u64::MAX)
    }

    /// Spends one try, or says how long to wait for one.
    fn take(&self, slot: usize, now: Millis) -> Result<(), Duration> {
        let mut slots = self.full_at_ms.lock().unwrap_or_else(PoisonError::into_inner);
        let every = self.every_ms();
        let spare = every.saturating_mul(u64::from(self.rate.burst.saturating_sub(1)));
        let full_at = slots[slot].max(now.0);
        let wait = full_at.saturating_sub(now.0).saturating_sub(spare);
        if wait > 0 {
            return Err(Duration::from_millis(wait));
        }
        slots[slot] = full_at.saturating_add(every);
        Ok(())
    }

    fn give_back(&self, slot: usize) {
        let mut slots = self.full_at_ms.lock().unwrap_or_else(PoisonError::into_inner);
        slots[slot] = slots[slot].saturating_sub(self.every_ms());
    }

    /// Whether nothing of the budget is spent.
    fn is_whole(&self, slot: usize, now: Millis) -> bool {
        self.full_at_ms.lock().unwrap_or_else(PoisonError::into_inner)[slot] <= now.0
    }
}

/// The budgets of all names, and of all places from which passwords come.
pub(crate) struct Guesses {
    hash: RandomState,
    pair: Table,
    name: Table,
    from: Table,
    /// Hashes of pairs that signed in; a newer one takes the place of an older one.
    known: Mutex<Box<[u64]>>,
}

/// All budgets.
pub(crate) struct Limiter {
    hash: RandomState,
    at_sign_in: Guesses,
    /// Of passwords that nodes pass on.
    pub(crate) at_nodes: Guesses,
    register: Table,
    begin: Table,
    site_login: Table,
    code: Table,
    code_address: Table,
    node_login: Table,
}

/// A try that was allowed.
#[derive(Debug)]
pub(crate) struct Attempt {
    pair_hash: u64,
    name: Option<usize>,
    from: Option<usize>,
}

/// A try of a code that was allowed.
#[derive(Debug)]
pub(crate) struct CodeAttempt {
    person: usize,
    address: Option<usize>,
}

fn slot(hash: u64) -> usize {
    // SLOTS is a power of two, so the cast keeps what matters.
    (hash as usize) & (SLOTS - 1)
}

/// Who counts as one: an IPv4 address, or an IPv6 network of 64 bits, which one host commands.
fn network(address: Option<IpAddr>) -> [u8; 8] {
    let mut out = [0; 8];
    match address.map(|a| a.to_canonical()) {
        None => {}
        Some(IpAddr::V4(a)) => {
            out[0] = 4;
            out[4..].copy_from_slice(&a.octets());
        }
        Some(IpAddr::V6(a)) => out.copy_from_slice(&a.octets()[..8]),
    }
    out
}

impl Guesses {
    fn new() -> Guesses {
        Guesses {
            hash: RandomState::new(),
            pair: Table::new(PAIR),
            name: Table::new(NAME),
            from: Table::new(ADDRESS),
            known: Mutex::new(vec![0; SLOTS].into_boxed_slice()),
        }
    }

    /// Allows a try of `name` from a place, or says how long to wait.
    pub(crate) fn attempt(
        &self,
        name: &str,
        from: &impl Hash,
        now: Millis,
    ) -> Result<Attempt, Duration> {
        let pair_hash = self.hash.hash_one((name, from)) | 1;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner)[slot(pair_hash >> 1)]
            == pair_hash;
        self.pair.take(slot(pair_hash >> 1), now)?;
        if known {
            return Ok(Attempt { pair_hash, name: None, from: None });
        }
        let from = slot(self.hash.hash_one(from));
        if let Err(wait) = self.from.take(from, now) {
            self.pair.give_back(slot(pair_hash >> 1));
            return Err(wait);
        }
        let name = slot(self.hash.hash_one(name));
        if let Err(wait) = self.name.take(name, now) {
            self.pair.give_back(slot(pair_hash >> 1));
            self.from.give_back(from);
            return Err(wait);
        }
        Ok(Attempt { pair_hash, name: Some(name), from: Some(from) })
    }

    /// The try succeeded: it costs nothing, and the pair is known from now on.
    pub(crate) fn succeeded(&self, attempt: Attempt) {
        self.undo(&attempt);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known[slot(attempt.pair_hash >> 1)] = attempt.pair_hash;
    }

    /// The try was not made after all.
    pub(crate) fn undo(&self, attempt: &Attempt) {
        self.pair.give_back(slot(attempt.pair_hash >> 1));
        if let Some(name) = attempt.name {
            self.name.give_back(name);
        }
        if let Some(from) = attempt.from {
            self.from.give_back(from);
        }
    }
}

impl Limiter {
    pub(crate) fn new() -> Limiter {
        Limiter {
            hash: RandomState::new(),
            at_sign_in: Guesses::new(),
            at_nodes: Guesses::new(),
            register: Table::new(REGISTER),
            begin: Table::new(BEGIN),
            site_login: Table::new(SITE_LOGIN),
            code: Table::new(CODE),
            code_address: Table::new(CODE_ADDRESS),
            node_login: Table::new(NODE_LOGIN),
        }
    }

    /// Allows a try of `name` from `address`, or says how long to wait.
    pub(crate) fn attempt(
        &self,
        name: &str,
        address: Option<IpAddr>,
        now: Millis,
    ) -> Result<Attempt, Duration> {
        self.at_sign_in.attempt(name, &network(address), now)
    }

    /// As [`Guesses::succeeded`].
    pub(crate) fn succeeded(&self, attempt: Attempt) {
        self.at_sign_in.succeeded(attempt);
    }

    /// As [`Guesses::undo`].
    pub(crate) fn undo(&self, attempt: &Attempt) {
        self.at_sign_in.undo(attempt);
    }

    /// Allows a registration from `address`, or says how long to wait.
    pub(crate) fn register(&self, address: Option<IpAddr>, now: Millis) -> Result<(), Duration> {
        self.register.take(slot(self.hash.hash_one(network(address))), now)
    }

    /// Allows a sign-in at a provider to begin, or says how long to wait.
    pub(crate) fn begin(&self, address: Option<IpAddr>, now: Millis) -> Result<(), Duration> {
        self.begin.take(slot(self.hash.hash_one(network(address))), now)
    }

    /// Allows a person, who signed in, to try a code, or says how long to wait. Who tried no wrong
    /// one lately is not held up by others at their address.
    pub(crate) fn code(
        &self,
        person: &PersonId,
        address: Option<IpAddr>,
        now: Millis,
    ) -> Result<CodeAttempt, Duration> {
        let person = slot(self.hash.hash_one(person));
        let first = self.code.is_whole(person, now);
        self.code.take(person, now)?;
        if first {
            return Ok(CodeAttempt { person, address: None });
        }
        let address = slot(self.hash.hash_one(network(address)));
        if let Err(wait) = self.code_address.take(address, now) {
            self.code.give_back(person);
            return Err(wait);
        }
        Ok(CodeAttempt { person, address: Some(address) })
    }

    /// Allows a login of a person to a machine to begin, or says how long to wait. One site takes
    /// nothing from another's budget, and one machine no more than its own from its site's.
    pub(crate) fn node_login(
        &self,
        person: &PersonId,
        node: &NodeId,
        now: Millis,
    ) -> Result<(), Duration> {
        let own = slot(self.hash.hash_one((person, node)));
        self.node_login.take(own, now)?;
        let site = slot(self.hash.hash_one((person, node.site())));
        self.site_login.take(site, now).inspect_err(|_| self.node_login.give_back(own))
    }

    /// The code was right: the try costs nothing.
    pub(crate) fn right_code(&self, attempt: &CodeAttempt) {
        self.code.give_back(attempt.person);
        if let Some(address) = attempt.address {
            self.code_address.give_back(address);
        }
    }
}

#[cfg(test)]
mod tests;
