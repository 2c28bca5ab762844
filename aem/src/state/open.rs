//! What jobs take that have not ended: of each member, of each VO, of each home's VOs, of all.

use super::held::Held;
use std::collections::HashMap;
use std::hash::Hash;
use xos_base::{Membership, PersonId, SiteId, VoId};

/// The sums.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Open {
    all: Held,
    members: HashMap<(VoId, PersonId), Held>,
    vos: HashMap<VoId, Held>,
    homes: HashMap<SiteId, Held>,
}

impl Open {
    /// Of all members.
    pub fn all(&self) -> Held {
        self.all
    }

    /// Of a member of a VO.
    pub fn of(&self, member: &Membership) -> Held {
        let key = (member.vo.clone(), member.person.clone());
        self.members.get(&key).copied().unwrap_or_default()
    }

    /// Of all members of a VO.
    pub fn of_vo(&self, vo: &VoId) -> Held {
        self.vos.get(vo).copied().unwrap_or_default()
    }

    /// Of all members of all VOs whose home a site is.
    pub fn of_home(&self, site: &SiteId) -> Held {
        self.homes.get(site).copied().unwrap_or_default()
    }

    /// Counts a member's job that begins (`up`) or has ended.
    pub(super) fn count(&mut self, vo: &VoId, person: &PersonId, what: Held, up: bool) {
        count(&mut self.members, (vo.clone(), person.clone()), what, up);
        count(&mut self.vos, vo.clone(), what, up);
        count(&mut self.homes, vo.site(), what, up);
        match up {
            true => self.all.add(what),
            false => self.all.sub(what),
        }
    }
}

/// Adds to (`up`) or takes from one sum; one without jobs goes.
pub(super) fn count<K: Hash + Eq + Clone>(
    map: &mut HashMap<K, Held>,
    key: K,
    what: Held,
    up: bool,
) {
    let held = map.entry(key.clone()).or_default();
    match up {
        true => held.add(what),
        false => held.sub(what),
    }
    if held.jobs == 0 {
        map.remove(&key);
    }
}
