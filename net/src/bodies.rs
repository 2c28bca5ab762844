//! The memory for bodies of requests: one budget for all that are being read or worked on.
//!
//! How much one holder may have depends on what is free (dynamic thresholds, Choudhury and Hahne,
//! IEEE/ACM Transactions on Networking 6(2), 1998): nobody can take all of it, and alone one may
//! have much. Who proved nothing counts by address, and all of them together get a part only.

use crate::caller::{Caller, Principal};
use crate::places::Block;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use xos_base::Error;

/// Bytes of bodies that are held at a time.
pub const BODIES_MAX: usize = 64 * 1024 * 1024;
/// Of these, bytes for those who proved nothing.
pub const STRANGERS_MAX: usize = BODIES_MAX / 4;
/// A proved caller may hold what is free, divided by this.
const CALLER_DIVISOR: usize = 2;
/// An address without proof may hold what is free for such, divided by this.
const ADDRESS_DIVISOR: usize = 8;

/// Who holds bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Somebody at an address, who proved nothing.
    Address(Option<Block>),
    /// A person, in whatever VO, or a machine.
    Caller(String),
}

impl Holder {
    /// The holder that stands for somebody at `address`.
    pub fn at(address: Option<IpAddr>) -> Holder {
        Holder::Address(address.map(Block::of))
    }

    /// The holder that stands for a proved caller.
    pub fn of(caller: &Caller) -> Holder {
        Holder::Caller(match caller.principal() {
            Principal::Member(m) => m.person.to_string(),
            _ => caller.describe(),
        })
    }
}

#[derive(Default)]
struct Held {
    all: usize,
    strangers: usize,
    by: HashMap<Holder, usize>,
}

/// The budget. Cheap to clone.
#[derive(Clone, Default)]
pub struct Bodies(Arc<Mutex<Held>>);

impl Bodies {
    /// Nothing is held yet.
    pub fn new() -> Bodies {
        Bodies::default()
    }

    /// Takes `bytes` for `holder`.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when the budget, or the holder's share of it, is used up.
    pub fn take(&self, holder: Holder, bytes: usize) -> Result<Taken, Error> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free = BODIES_MAX.saturating_sub(held.all);
        let share = match holder {
            Holder::Caller(_) => free / CALLER_DIVISOR,
            Holder::Address(_) => {
                free.min(STRANGERS_MAX.saturating_sub(held.strangers)) / ADDRESS_DIVISOR
            }
        };
        let has = held.by.get(&holder).copied().unwrap_or(0);
        if has + bytes > share {
            return Err(Error::unavailable("too many large requests are being read")
                .hint("try again in a moment"));
        }
        held.all += bytes;
        if let Holder::Address(_) = holder {
            held.strangers += bytes;
        }
        *held.by.entry(holder.clone()).or_default() += bytes;
        Ok(Taken { bodies: self.clone(), holder, bytes })
    }
}

/// Bytes of the budget; free again when dropped.
pub struct Taken {
    bodies: Bodies,
    holder: Holder,
    bytes: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut held = self.bodies.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.all = held.all.saturating_sub(self.bytes);
        if let Holder::Address(_) = self.holder {
            held.strangers = held.strangers.saturating_sub(self.bytes);
        }
        if let Some(has) = held.by.get_mut(&self.holder) {
            *has = has.saturating_sub(self.bytes);
            if *has == 0 {
                held.by.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 64 * 1024;

    fn fill(bodies: &Bodies, holder: &Holder) -> Vec<Taken> {
        let mut held = Vec::new();
        while let Ok(taken) = bodies.take(holder.clone(), PIECE) {
            held.push(taken);
            assert!(held.len() * PIECE <= BODIES_MAX, "no limit holds");
        }
        held
    }

    #[test]
    fn nobody_takes_all_and_what_is_dropped_is_free_again() {
        let bodies = Bodies::new();
        let address = |i: u8| Holder::at(Some(IpAddr::from([10, 0, 0, i])));
        let mut strangers = Vec::new();
        for i in 0..250 {
            strangers.extend(fill(&bodies, &address(i)));
        }
        assert!(strangers.len() * PIECE <= STRANGERS_MAX, "strangers take the callers' part");
        let one = fill(&bodies, &Holder::Caller("alice@rennes".into()));
        assert!(one.len() * PIECE >= BODIES_MAX / 8, "a caller alone gets little");
        let other = fill(&bodies, &Holder::Caller("bob@rennes".into()));
        assert!(!other.is_empty(), "one caller took all");
        drop((strangers, one, other));
        let held = bodies.0.lock().unwrap();
        assert_eq!((held.all, held.strangers, held.by.len()), (0, 0, 0));
    }

    #[test]
    fn one_address_leaves_room_for_the_next() {
        let bodies = Bodies::new();
        let first = fill(&bodies, &Holder::at(Some([10, 0, 0, 1].into())));
        assert!(first.len() * PIECE <= STRANGERS_MAX / ADDRESS_DIVISOR);
        assert!(bodies.take(Holder::at(Some([10, 0, 0, 2].into())), PIECE).is_ok());
    }
}
