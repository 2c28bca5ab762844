//! What the node knows of the VOs it serves: their accounts, kept in files so that a restart without
//! the core still knows them.

mod bounds;
mod file;
mod find;
mod gathering;
mod index;
mod kept;
mod lease;
mod members;
mod narrower;
mod short;

pub use find::Found;
pub use gathering::Gathering;
pub use kept::{Kept, kept_vos};
pub use lease::Heard;
pub use members::Members;

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use xos_api::vom::{AccountMember, AccountState, AccountTerms, VoAccounts};
use xos_base::{Group, GroupNumber, LocalName, MemberNumber, Millis, VoId};

/// The shell of an account where nobody signs in: none. A unit that got the machine's sshd to let
/// it in would be outside its envelope. Units have a `SHELL` of their own.
pub const NO_SHELL: &str = "/usr/sbin/nologin";

/// One VO on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vo {
    /// Number of the last log entry that this shows.
    pub number: u64,
    /// Local uid = base + member number, local gid = base + group number.
    pub base: u32,
    /// How many numbers from `base` on are the VO's.
    pub size: u32,
    /// Whether the VO works here.
    pub state: AccountState,
    /// Members by number.
    #[serde(serialize_with = "short::members")]
    pub members: BTreeMap<MemberNumber, AccountMember>,
    /// Groups by number.
    pub groups: BTreeMap<GroupNumber, Group>,
    /// For how many seconds all this counts when the core is unheard; absent: an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u64>,
    /// For how many seconds work is held after that until it is ended; absent: a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u64>,
    /// The terms of use that members' consents lapse by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<AccountTerms>,
    /// The groups that members were in and are not any more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    left: BTreeMap<MemberNumber, BTreeSet<GroupNumber>>,
    #[serde(skip)]
    index: index::Index,
}

/// All VOs of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vos {
    vos: BTreeMap<VoId, Vo>,
    /// Those whose lease is over, until the core has told of them and all others again, and whether
    /// the grace is too.
    #[serde(skip)]
    lapsed: BTreeMap<VoId, bool>,
    /// Those of which the core has told since the stream to it began.
    #[serde(skip)]
    fresh: BTreeSet<VoId>,
    /// Those of which something else is known than was taken to be kept.
    #[serde(skip)]
    changed: BTreeSet<VoId>,
}

impl Vos {
    /// Takes a whole list, or what changed. A VO whose numbers are not all of the grid's
    /// ([`xos_base::accounts::ID_RANGE`]) has no accounts here. Whether something was taken from a
    /// member.
    pub fn apply(&mut self, mut accounts: VoAccounts) -> bool {
        self.fresh.insert(accounts.vo.clone());
        self.changed.insert(accounts.vo.clone());
        if !bounds::bound(&mut accounts) {
            self.lapsed.remove(&accounts.vo);
            return self.vos.remove(&accounts.vo).is_some();
        }
        self.take_names(&accounts.members);
        let vo = self.vos.entry(accounts.vo).or_insert_with(|| Vo {
            number: 0,
            base: accounts.base,
            size: accounts.size,
            state: accounts.state,
            members: BTreeMap::new(),
            groups: BTreeMap::new(),
            lease_s: None,
            grace_s: None,
            terms: None,
            left: BTreeMap::new(),
            index: index::Index::default(),
        });
        (vo.lease_s, vo.grace_s) = (accounts.lease_s, accounts.grace_s);
        if vo.terms != accounts.terms {
            vo.terms = accounts.terms;
            vo.index();
        }
        let mut before = BTreeMap::new();
        if accounts.full {
            before = std::mem::take(&mut vo.members);
            vo.index = index::Index::default();
            vo.groups.clear();
        }
        (vo.number, vo.base, vo.size, vo.state) =
            (accounts.number, accounts.base, accounts.size, accounts.state);
        let mut narrower = false;
        for m in accounts.members {
            narrower |= vo.take_member(before.remove(&m.number), m);
        }
        for g in accounts.groups {
            vo.groups.insert(g.number, g);
        }
        for gone in accounts.groups_gone {
            vo.groups.remove(&gone);
        }
        narrower || !before.is_empty()
    }

    /// A name that is told anew of one account is no other's any more, in whatever order the lists
    /// of VOs come.
    fn take_names(&mut self, members: &[AccountMember]) {
        let given: HashSet<&LocalName> = members.iter().filter_map(|m| m.given.as_ref()).collect();
        if given.is_empty() {
            return;
        }
        for (id, vo) in &mut self.vos {
            for m in vo.members.values_mut() {
                if m.given.as_ref().is_some_and(|name| given.contains(name)) {
                    m.given = None;
                    self.changed.insert(id.clone());
                }
            }
        }
    }

    /// One VO.
    pub fn vo(&self, vo: &VoId) -> Option<&Vo> {
        self.vos.get(vo)
    }

    fn found(&self, uid: u32) -> Option<(&VoId, &Vo, &AccountMember)> {
        self.vos.iter().find_map(|(id, vo)| {
            let number = uid.checked_sub(vo.base).filter(|n| *n < vo.size)?;
            Some((id, vo, vo.members.get(&MemberNumber(number))?))
        })
    }

    /// The member with the local uid, and of which VO.
    pub fn member_of(&self, uid: u32) -> Option<(&VoId, &AccountMember)> {
        self.found(uid).map(|(id, _, member)| (id, member))
    }

    /// Where the member with the local uid stands at `now`, by the core's word and the lease;
    /// `None` for a uid that is nobody's.
    pub fn state_of(&self, uid: u32, now: Millis) -> Option<AccountState> {
        self.found(uid).map(|(id, vo, member)| match (vo.state, member.state) {
            (AccountState::Ended, _) | (_, AccountState::Ended) => AccountState::Ended,
            _ if has_expired(member, now) || self.lapsed.get(id) == Some(&true) => {
                AccountState::Ended
            }
            (AccountState::Suspended, _) | (_, AccountState::Suspended) => AccountState::Suspended,
            _ if vo.has_lapsed(member, now) => AccountState::Suspended,
            _ if self.lapsed.contains_key(id) => AccountState::Suspended,
            _ => AccountState::Active,
        })
    }

    /// Whether a local uid was an earlier member's of `vo` and is nobody's now, as seen by who was
    /// admitted as `admitted`. Numbers are given in order and never twice, so a lower one that no
    /// member has belongs to somebody who left.
    pub fn is_former(&self, vo: &VoId, uid: u32, admitted: MemberNumber) -> bool {
        let number = |v: &Vo| uid.checked_sub(v.base).filter(|n| *n < v.size).map(MemberNumber);
        let mut of = self.vos.iter().filter_map(|(id, v)| Some((id, v, number(v)?)));
        let (Some((id, v, n)), None) = (of.next(), of.next()) else { return false };
        let left = || v.members.get(&n).is_none_or(|m| m.state == AccountState::Ended);
        id == vo && n.0 >= 1 && n < admitted && left()
    }

    /// Every VO.
    pub fn iter(&self) -> impl Iterator<Item = (&VoId, &Vo)> {
        self.vos.iter()
    }
}

/// Whether the membership has ended by itself.
pub(super) fn has_expired(member: &AccountMember, now: Millis) -> bool {
    member.expires.is_some_and(|at| at <= now)
}

/// The number of the group `members`.
const GROUP_MEMBERS: u32 = 1;

impl Vo {
    /// A member's local uid.
    pub fn uid(&self, number: MemberNumber) -> u32 {
        self.base + number.0
    }

    /// A group's local gid.
    pub fn gid(&self, number: GroupNumber) -> u32 {
        self.base + number.0
    }

    /// From when on a member must agree to the VO's terms of use before they act again.
    pub fn lapses(&self, member: &AccountMember) -> Option<Millis> {
        self.terms.as_ref()?.lapses(member)
    }

    /// Whether that is so.
    pub fn has_lapsed(&self, member: &AccountMember, now: Millis) -> bool {
        self.lapses(member).is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing;
    use xos_api::vom::AccountConsent;

    fn member(n: u32, name: &str) -> AccountMember {
        testing::member(n, name, "active")
    }

    fn accounts(full: bool, members: Vec<AccountMember>) -> VoAccounts {
        VoAccounts { full, ..testing::accounts(members) }
    }

    #[test]
    fn a_uid_stands_where_its_member_and_vo_stand() {
        let mut vos = Vos::default();
        let mut bob = member(2, "bob");
        bob.state = AccountState::Suspended;
        vos.apply(accounts(true, vec![member(1, "alice"), bob]));
        let state = |vos: &Vos, n: u32| vos.state_of(1_900_000_000 + n, Millis(9));
        assert_eq!(state(&vos, 1), Some(AccountState::Active));
        assert_eq!(state(&vos, 2), Some(AccountState::Suspended));
        assert_eq!(state(&vos, 3), None);
        let mut all = accounts(false, vec![]);
        all.state = AccountState::Suspended;
        vos.apply(all);
        assert_eq!(state(&vos, 1), Some(AccountState::Suspended));
    }

    #[test]
    fn a_membership_ends_by_itself() {
        // wrong: work would go on for people whose time in the VO is over
        let mut vos = Vos::default();
        let until =
            |n: u32, at: u64| AccountMember { expires: Some(Millis(at)), ..member(n, "alice") };
        let mut held = until(3, 40);
        held.state = AccountState::Suspended;
        vos.apply(accounts(true, vec![until(1, 50), member(2, "bob"), held]));
        let state = |n: u32, now: u64| vos.state_of(1_900_000_000 + n, Millis(now)).unwrap();
        assert_eq!((state(1, 49), state(1, 50)), (AccountState::Active, AccountState::Ended));
        assert_eq!((state(3, 39), state(3, 40)), (AccountState::Suspended, AccountState::Ended));
        assert_eq!(state(2, 99), AccountState::Active);
        let next = |now: u64| vos.next_expiry(Millis(now)).map(|at| at.0);
        assert_eq!((next(0), next(40), next(50)), (Some(40), Some(50), None));
    }

    /// If it failed, work of somebody who never agreed to the VO's terms would go on, or end for
    /// good where it is to be held.
    #[test]
    fn a_consent_that_lapses_suspends() {
        const DAY: u64 = 24 * 60 * 60 * 1000;
        let mut vos = Vos::default();
        let told = |full, members, set: Vec<u64>| {
            let set = set.into_iter().map(Millis).collect();
            let terms = Some(AccountTerms { set, grace_days: 1 });
            VoAccounts { terms, ..accounts(full, members) }
        };
        vos.apply(told(true, vec![member(1, "alice")], vec![50]));
        let state = |vos: &Vos, now: u64| vos.state_of(1_900_000_001, Millis(now)).unwrap();
        assert_eq!(state(&vos, DAY + 49), AccountState::Active);
        assert_eq!(state(&vos, DAY + 50), AccountState::Suspended);
        assert_eq!(vos.next_expiry(Millis(0)), Some(Millis(DAY + 50)));
        let consent = Some(AccountConsent { version: 1, until: None });
        let agreed = AccountMember { consent, ..member(1, "alice") };
        vos.apply(told(false, vec![agreed], vec![50]));
        assert_eq!(state(&vos, DAY + 50), AccountState::Active, "she agreed");
        vos.apply(told(false, vec![], vec![50, 90]));
        assert_eq!(state(&vos, DAY + 90), AccountState::Suspended, "and not to the next version");
    }

    #[test]
    fn former_is_only_who_left_this_vo() {
        // wrong: a living member's folder, or that of another VO's, could be moved away
        let mut vos = Vos::default();
        let mut gone = member(2, "bob");
        gone.state = AccountState::Ended;
        let mut held = member(3, "carol");
        held.state = AccountState::Suspended;
        let all = vec![member(1, "alice"), gone, held, member(5, "bob")];
        vos.apply(accounts(true, all));
        let mut other = accounts(true, vec![]);
        other.vo = "other.pisa".parse().unwrap();
        other.base = 1_900_065_536;
        vos.apply(other);
        let vo = "demo.rennes".parse().unwrap();
        let former = |uid: u32| vos.is_former(&vo, uid, MemberNumber(5));
        let base = 1_900_000_000;
        assert!(former(base + 2), "removed");
        assert!(former(base + 4), "removed before this node heard of the VO");
        for uid in [0, 1000, base, base + 1, base + 3, base + 5, base + 6, base + 65_536 + 2] {
            assert!(!former(uid), "{uid}");
        }
    }
}
