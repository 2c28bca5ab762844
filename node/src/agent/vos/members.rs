//! Where the members of a VO stand, for those who act by it: the object server.

use super::{Vos, has_expired};
use std::collections::{HashMap, HashSet};
use xos_api::vom::AccountState;
use xos_base::{Millis, VoId};

/// What a node knows of the members of one VO, by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Who may act, with their epochs: what was signed under a smaller one is void.
    pub acting: HashMap<u32, u64>,
    /// Who is a member and may not act now; they may be let in again.
    pub held: HashSet<u32>,
    /// The highest number of which was heard; 0: of none.
    pub last: u32,
}

impl Members {
    /// Whether a number was that of somebody who left. Numbers are given in order and never twice:
    /// one up to the last that no member has is nobody's again.
    pub fn has_left(&self, number: u32) -> bool {
        (1..=self.last).contains(&number)
            && !self.acting.contains_key(&number)
            && !self.held.contains(&number)
    }
}

impl Vos {
    /// The members of a VO as they stand at `now`.
    pub fn members(&self, vo: &VoId, now: Millis) -> Members {
        let Some(v) = self.vos.get(vo) else { return Members::default() };
        let works = v.state == AccountState::Active && !self.lapsed.contains_key(vo);
        let last = v.members.last_key_value().map_or(0, |(number, _)| number.0);
        let mut members = Members { last, ..Members::default() };
        for m in v.members.values() {
            let acts = works && !has_expired(m, now) && !v.has_lapsed(m, now);
            match m.state {
                AccountState::Active if acts => {
                    members.acting.insert(m.number.0, m.epoch.0);
                }
                AccountState::Active | AccountState::Suspended => {
                    members.held.insert(m.number.0);
                }
                AccountState::Ended => {}
            }
        }
        members
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{accounts, member};
    use xos_api::vom::{AccountMember, VoAccounts};

    /// If it failed, an object server would let those wait who were removed, or take a file from
    /// those who are let in again or were admitted a moment ago.
    #[test]
    fn who_left_is_told_from_who_is_held_and_who_is_not_heard_of() {
        let vo: VoId = "demo.rennes".parse().unwrap();
        let mut vos = Vos::default();
        assert!(!vos.members(&vo, Millis(1)).has_left(1), "nothing was heard");
        let ends = AccountMember { expires: Some(Millis(50)), ..member(6, "eve", "active") };
        let told = [(2, "bob", "ended"), (4, "dan", "suspended"), (5, "ann", "active")];
        let told = told.map(|(number, name, state)| member(number, name, state));
        vos.apply(accounts(told.into_iter().chain([ends]).collect()));
        let left = |vos: &Vos, now| {
            let members = vos.members(&vo, Millis(now));
            (0..=8).filter(|n| members.has_left(*n)).collect::<Vec<u32>>()
        };
        // 1 and 3 were gone when this node heard of the VO for the first time.
        assert_eq!(left(&vos, 1), [1, 2, 3]);
        assert_eq!(vos.members(&vo, Millis(1)).acting, HashMap::from([(5, 4), (6, 4)]));
        assert_eq!(vos.members(&vo, Millis(50)).held, HashSet::from([4, 6]));
        assert_eq!(left(&vos, 50), [1, 2, 3], "its end may have been put off");
        let part = |m| VoAccounts { full: false, ..accounts(vec![m]) };
        vos.apply(part(member(6, "eve", "ended")));
        assert_eq!(left(&vos, 1), [1, 2, 3, 6]);
        // A VO that stands still has members all the same.
        vos.apply(VoAccounts {
            state: AccountState::Suspended,
            ..part(member(7, "zoe", "active"))
        });
        assert_eq!(left(&vos, 1), [1, 2, 3, 6]);
        assert!(vos.members(&vo, Millis(1)).acting.is_empty());
    }
}
