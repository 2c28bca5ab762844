//! What is asked of a VO's accounts again and again, without a walk over them.

use super::{Vo, Vos};
use std::collections::BTreeSet;
use xos_api::vom::{AccountMember, AccountState};
use xos_base::{MemberNumber, Millis, VoId};

/// Follows from the members, so that it is not kept with them, and two are never told apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// When memberships and consents end by themselves.
    ends: BTreeSet<(Millis, MemberNumber)>,
    /// Who is held by the core's word, or kept out by rules.
    held: BTreeSet<MemberNumber>,
}

impl PartialEq for Index {
    fn eq(&self, _: &Index) -> bool {
        true
    }
}

impl Eq for Index {}

impl Index {
    /// Forgets what was known of a member.
    pub(super) fn remove(&mut self, m: &AccountMember, lapses: Option<Millis>) {
        for at in [m.expires, lapses].into_iter().flatten() {
            self.ends.remove(&(at, m.number));
        }
        self.held.remove(&m.number);
    }

    /// Takes up a member.
    pub(super) fn add(&mut self, m: &AccountMember, lapses: Option<Millis>) {
        if m.state == AccountState::Ended {
            return;
        }
        let ends = [m.expires, lapses].into_iter().flatten();
        self.ends.extend(ends.map(|at| (at, m.number)));
        if m.state == AccountState::Suspended || m.refused.is_some() {
            self.held.insert(m.number);
        }
    }

    /// The first end after `now`.
    fn next(&self, now: Millis) -> Option<Millis> {
        let first = (Millis(now.0.saturating_add(1)), MemberNumber(0));
        self.ends.range(first..).next().map(|(at, _)| *at)
    }

    fn first(&self) -> Option<Millis> {
        self.ends.first().map(|(at, _)| *at)
    }
}

impl Vo {
    /// Makes the index of a VO that was read, or whose terms of use are others.
    pub(super) fn index(&mut self) {
        let mut index = Index::default();
        for m in self.members.values() {
            index.add(m, self.lapses(m));
        }
        self.index = index;
    }
}

impl Vos {
    /// The same of all that were read from a file.
    pub fn indexed(mut self) -> Vos {
        self.vos.values_mut().for_each(Vo::index);
        self
    }

    /// When the next membership or consent ends by itself after `now`.
    pub fn next_expiry(&self, now: Millis) -> Option<Millis> {
        self.vos.values().filter_map(|vo| vo.index.next(now)).min()
    }

    /// The VOs of which a membership or consent has ended by itself after `from`, until `now`.
    pub fn passed(&self, from: Millis, now: Millis) -> Vec<VoId> {
        let has = |vo: &Vo| vo.index.next(from).is_some_and(|at| at <= now);
        self.vos.iter().filter(|(_, vo)| has(vo)).map(|(id, _)| id.clone()).collect()
    }

    /// Whether somebody is held at `now`, or has no membership any more by time alone: something
    /// may be started under their uid.
    pub fn somebody_is_out(&self, now: Millis) -> bool {
        self.vos.iter().any(|(id, vo)| {
            (vo.state == AccountState::Suspended && !vo.members.is_empty())
                || self.lapsed.contains_key(id)
                || !vo.index.held.is_empty()
                || vo.index.first().is_some_and(|at| at <= now)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{BASE, accounts, member};

    /// If it failed, a membership would not end when it does, or its capabilities go on.
    #[test]
    fn the_index_follows_the_members() {
        let vo: VoId = "demo.rennes".parse().unwrap();
        let ending = |n: u32, at: u64| AccountMember {
            expires: Some(Millis(at)),
            ..member(n, "ann", "active")
        };
        let mut vos = Vos::default();
        vos.apply(accounts(vec![ending(1, 50), ending(2, 70), member(3, "carol", "active")]));
        assert!(!vos.somebody_is_out(Millis(49)) && vos.somebody_is_out(Millis(50)));
        assert_eq!(vos.next_expiry(Millis(50)), Some(Millis(70)));
        assert_eq!(vos.passed(Millis(40), Millis(50)), std::slice::from_ref(&vo));
        assert!(vos.passed(Millis(50), Millis(60)).is_empty());
        let numbers = |vos: &Vos, now| {
            let mut all: Vec<u32> = vos.members(&vo, Millis(now)).acting.into_keys().collect();
            all.sort_unstable();
            all
        };
        assert_eq!(numbers(&vos, 49), [1, 2, 3]);
        assert_eq!(numbers(&vos, 50), [2, 3], "who has expired may act");
        let part = |m| xos_api::vom::VoAccounts { full: false, ..accounts(vec![m]) };
        vos.apply(part(member(1, "ann", "active")));
        assert!(!vos.somebody_is_out(Millis(60)), "what is no more was not forgotten");
        vos.apply(part(member(3, "carol", "suspended")));
        assert!(vos.somebody_is_out(Millis(1)));
        assert_eq!(vos.held([BASE + 1, BASE + 3, 1000], Millis(1)), BTreeSet::from([BASE + 3]));
        let text = serde_json::to_string(&vos).unwrap();
        let read = serde_json::from_str::<Vos>(&text).unwrap().indexed();
        assert_eq!(read.next_expiry(Millis(1)), Some(Millis(70)));
        assert!(read.somebody_is_out(Millis(1)));
        // The lease is over.
        vos.lapse(Millis(0), Millis::from_secs(4000));
        assert!(numbers(&vos, 1).is_empty());
    }
}
