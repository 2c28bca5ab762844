//! The memory for bodies of requests: one budget for all that are being read or worked on.
//!
//! How much one holder may have depends on what is free (dynamic thresholds, Choudhury and Hahne,
//! IEEE/ACM Transactions on Networking 6(2), 1998): nobody can take all of it, and alone one may
//! have much. Who proved nothing counts by address, and whom another site vouches for by that site,
//! which can invent machines and people; all of either kind together get a part only. For small
//! bodies of callers something is kept back, so that the large ones of many do not stop them.

use crate::caller::{Caller, Principal};
use crate::guard::Proved;
use crate::places::Block;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use xos_base::{Error, SiteId};

/// Bytes of bodies that are held at a time.
pub const BODIES_MAX: usize = 64 * 1024 * 1024;
/// Of these, bytes for those who proved nothing.
pub const STRANGERS_MAX: usize = BODIES_MAX / 4;
/// Of these, bytes for whom other sites vouch for.
pub const FOREIGN_MAX: usize = BODIES_MAX / 2;
/// A proved caller may hold what is free, divided by this.
const CALLER_DIVISOR: usize = 2;
/// An address without proof may hold what is free for such, divided by this.
const ADDRESS_DIVISOR: usize = 8;
/// Bytes besides, for small bodies of callers.
pub const RESERVE: usize = 4 * 1024 * 1024;
/// The largest body that is small.
pub const SMALL_MAX: usize = 8 * 1024;
/// A caller may hold what is free of the reserve, divided by this.
const RESERVE_DIVISOR: usize = 16;

/// Who holds bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Somebody at an address, who proved nothing.
    Address(Option<Block>),
    /// A person, in whatever VO, or a machine, that this site vouches for.
    Caller(String),
    /// All that another site vouches for.
    Site(SiteId),
}

impl Holder {
    /// The holder that stands for somebody at `address`.
    pub fn at(address: Option<IpAddr>) -> Holder {
        Holder::Address(address.map(Block::of))
    }

    /// The holder that stands for a proved caller at the site `own`.
    pub fn of(caller: &Caller, own: &SiteId) -> Holder {
        let site = Proved::of(caller).site;
        if site != *own {
            return Holder::Site(site);
        }
        Holder::Caller(match caller.principal() {
            Principal::Member(m) => m.person.to_string(),
            _ => caller.describe(),
        })
    }
}

/// How much is held, in all and by whom.
#[derive(Default)]
struct Pot {
    all: usize,
    by: HashMap<Holder, usize>,
}

impl Pot {
    /// Takes `bytes`, unless `holder` would have more than `share` then.
    fn take(&mut self, holder: &Holder, bytes: usize, share: usize) -> bool {
        let has = self.by.get(holder).copied().unwrap_or(0);
        let fits = has.saturating_add(bytes) <= share;
        if fits {
            self.all += bytes;
            self.by.insert(holder.clone(), has + bytes);
        }
        fits
    }

    fn give(&mut self, holder: &Holder, bytes: usize) {
        self.all = self.all.saturating_sub(bytes);
        if let Some(has) = self.by.get_mut(holder) {
            *has = has.saturating_sub(bytes);
            if *has == 0 {
                self.by.remove(holder);
            }
        }
    }
}

#[derive(Default)]
struct Held {
    bodies: Pot,
    reserve: Pot,
    strangers: usize,
    foreign: usize,
}

impl Held {
    /// What is held of the part that `holder` shares with others of its kind, if it does.
    fn part(&mut self, holder: &Holder) -> Option<&mut usize> {
        match holder {
            Holder::Address(_) => Some(&mut self.strangers),
            Holder::Site(_) => Some(&mut self.foreign),
            Holder::Caller(_) => None,
        }
    }

    fn take(&mut self, holder: &Holder, bytes: usize) -> Option<Source> {
        let free = BODIES_MAX.saturating_sub(self.bodies.all);
        let share = match holder {
            Holder::Caller(_) => free / CALLER_DIVISOR,
            Holder::Site(_) => free.min(FOREIGN_MAX.saturating_sub(self.foreign)) / CALLER_DIVISOR,
            Holder::Address(_) => {
                free.min(STRANGERS_MAX.saturating_sub(self.strangers)) / ADDRESS_DIVISOR
            }
        };
        if self.bodies.take(holder, bytes, share) {
            if let Some(part) = self.part(holder) {
                *part += bytes;
            }
            return Some(Source::Bodies);
        }
        if bytes > SMALL_MAX || matches!(holder, Holder::Address(_)) {
            return None;
        }
        let share = RESERVE.saturating_sub(self.reserve.all) / RESERVE_DIVISOR;
        self.reserve.take(holder, bytes, share).then_some(Source::Reserve)
    }
}

/// What bytes were taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Bodies,
    Reserve,
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
        let from = held.take(&holder, bytes).ok_or_else(|| {
            Error::unavailable("too many large requests are being read")
                .hint("try again in a moment")
        })?;
        drop(held);
        Ok(Taken { bodies: self.clone(), holder, bytes, from })
    }
}

/// Bytes of the budget; free again when dropped.
pub struct Taken {
    bodies: Bodies,
    holder: Holder,
    bytes: usize,
    from: Source,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut held = self.bodies.0.lock().unwrap_or_else(PoisonError::into_inner);
        match self.from {
            Source::Reserve => held.reserve.give(&self.holder, self.bytes),
            Source::Bodies => {
                held.bodies.give(&self.holder, self.bytes);
                if let Some(part) = held.part(&self.holder) {
                    *part = part.saturating_sub(self.bytes);
                }
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
        assert_eq!((held.bodies.all, held.strangers, held.bodies.by.len()), (0, 0, 0));
    }

    #[test]
    fn other_sites_leave_half_and_small_bodies_get_in_whatever_is_held() {
        // Else a hostile site, or some rooted nodes, keep everybody's requests out.
        let bodies = Bodies::new();
        let site = |i: usize| Holder::Site(format!("s{i}").parse().unwrap());
        let foreign: Vec<_> = (0..100).flat_map(|i| fill(&bodies, &site(i))).collect();
        assert!(foreign.len() * PIECE <= FOREIGN_MAX, "other sites take the own site's part");
        let own = |i: usize| Holder::Caller(format!("node n{i}"));
        let first = fill(&bodies, &own(0));
        assert!(first.len() * PIECE >= BODIES_MAX / 8, "the own site has little left");
        let rest: Vec<_> = (1..100).flat_map(|i| fill(&bodies, &own(i))).collect();
        assert!(bodies.take(own(100), PIECE).is_err(), "it is not full: the test shows nothing");
        let mut small = Vec::new();
        for i in 0..30 {
            while let Ok(taken) = bodies.take(own(i), SMALL_MAX) {
                small.push(taken);
                assert!(small.len() * SMALL_MAX <= BODIES_MAX, "no limit holds");
            }
        }
        let one = bodies.take(Holder::Caller("alice@rennes".into()), SMALL_MAX);
        assert!(one.is_ok(), "a small body is kept out");
        let stranger = Holder::at(Some([10, 0, 0, 1].into()));
        drop((first, rest, small, foreign, one));
        drop(fill(&bodies, &stranger));
        let held = bodies.0.lock().unwrap();
        assert_eq!((held.bodies.all, held.reserve.all, held.foreign, held.strangers), (0, 0, 0, 0));
        assert!(held.bodies.by.is_empty() && held.reserve.by.is_empty(), "it grows for ever");
    }

    #[test]
    fn one_address_leaves_room_for_the_next() {
        let bodies = Bodies::new();
        let first = fill(&bodies, &Holder::at(Some([10, 0, 0, 1].into())));
        assert!(first.len() * PIECE <= STRANGERS_MAX / ADDRESS_DIVISOR);
        assert!(bodies.take(Holder::at(Some([10, 0, 0, 2].into())), PIECE).is_ok());
    }
}
