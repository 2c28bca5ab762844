//! Looking for accounts by their local names and ids.

use super::{Vo, Vos};
use std::collections::{BTreeSet, HashSet};
use xos_api::vom::{AccountMember, AccountState};
use xos_base::local::{Account, FoundUser};
use xos_base::{Group, GroupNumber, MemberNumber, Membership, Millis, VoId};

/// An account that was found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Its VO.
    pub id: &'a VoId,
    /// What is known of it.
    pub vo: &'a Vo,
    /// Whose it is.
    pub member: &'a AccountMember,
}

impl Found<'_> {
    /// The local uid.
    pub fn uid(&self) -> u32 {
        self.vo.uid(self.member.number)
    }

    /// The account as the node's local socket tells of it.
    pub fn account(&self, homes: &str, local: &HashSet<String>) -> Account {
        let name = self.vo.account_name(self.member, local);
        Account {
            home: format!("{homes}/{name}"),
            name,
            uid: self.uid(),
            gid: self.vo.gid(GroupNumber(super::GROUP_MEMBERS)),
            person: self.member.person.clone(),
            vo: self.id.clone(),
            number: self.member.number,
            epoch: self.member.epoch,
            expires: self.member.expires,
        }
    }

    /// The account as libc knows it.
    pub fn user(&self, (homes, shell): (&str, &str), local: &HashSet<String>) -> FoundUser {
        let account = self.account(homes, local);
        FoundUser {
            name: account.name,
            uid: account.uid,
            gid: account.gid,
            gecos: format!("{} in {}", account.person, account.vo),
            home: account.home,
            shell: shell.to_owned(),
        }
    }

    /// What the core says of the member, as far as it tells nodes: no roles.
    pub fn membership(&self) -> Membership {
        let named = |n: &GroupNumber| self.vo.groups.get(n).cloned();
        let numbers =
            std::iter::once(&GroupNumber(super::GROUP_MEMBERS)).chain(&self.member.groups);
        let groups: Vec<Group> = numbers.filter_map(named).collect();
        Membership {
            vo: self.id.clone(),
            person: self.member.person.clone(),
            number: self.member.number,
            epoch: self.member.epoch,
            groups,
            roles: Vec::new(),
            expires: self.member.expires,
        }
    }
}

impl Vos {
    /// The account with the uid, also one that has ended.
    pub fn by_uid(&self, uid: u32) -> Option<Found<'_>> {
        self.found(uid).map(|(id, vo, member)| Found { id, vo, member })
    }

    /// The account with the local name; one that has ended only where no other has the name.
    pub fn by_name(&self, name: &str, local: &HashSet<String>) -> Option<Found<'_>> {
        let named = |f: &Found| {
            if local.contains(&f.member.name) {
                name == format!("u{}", f.uid())
            } else {
                f.member.name == name
            }
        };
        let mut all = self.all().filter(named);
        let first = all.next()?;
        if first.member.state != AccountState::Ended {
            return Some(first);
        }
        Some(all.find(|f| f.member.state != AccountState::Ended).unwrap_or(first))
    }

    /// The account of a member.
    pub fn by_number(&self, vo: &VoId, number: MemberNumber) -> Option<Found<'_>> {
        let (id, vo) = self.vos.get_key_value(vo)?;
        Some(Found { id, vo, member: vo.members.get(&number)? })
    }

    /// Every account.
    pub fn all(&self) -> impl Iterator<Item = Found<'_>> {
        self.vos
            .iter()
            .flat_map(|(id, vo)| vo.members.values().map(move |member| Found { id, vo, member }))
    }

    /// The uids of members who are suspended at `now`, themselves or with their VO.
    pub fn suspended(&self, now: Millis) -> BTreeSet<u32> {
        let is = |uid: &u32| self.state_of(*uid, now) == Some(AccountState::Suspended);
        self.all().map(|f| f.uid()).filter(is).collect()
    }

    /// Whether a local uid is that of a member who is no more: whatever runs under it is to end.
    /// Numbers are given in order and never twice, so one below a member's that nobody has was
    /// somebody's who left; of a VO that has ended all are.
    pub fn has_left(&self, uid: u32, now: Millis) -> bool {
        let number = |v: &Vo| uid.checked_sub(v.base).filter(|n| *n >= 1 && *n < v.size);
        self.vos.values().filter_map(|v| Some((v, MemberNumber(number(v)?)))).any(|(v, n)| match v
            .members
            .get(&n)
        {
            _ if v.state == AccountState::Ended => true,
            Some(m) => m.state == AccountState::Ended || super::has_expired(m, now),
            None => v.members.last_key_value().is_some_and(|(last, _)| n < *last),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{BASE, accounts, member};
    use xos_api::vom::VoAccounts;

    /// The VO in this state, with members of numbers, names and states, who are all physicists.
    fn vos(state: &str, members: &[(u32, &str, &str)]) -> Vos {
        let physicist = |&(number, name, state): &(u32, &str, &str)| AccountMember {
            groups: vec![GroupNumber(2)],
            ..member(number, name, state)
        };
        let mut accounts: VoAccounts = accounts(members.iter().map(physicist).collect());
        accounts.state = serde_json::from_value(state.into()).unwrap();
        let mut vos = Vos::default();
        vos.apply(accounts);
        vos
    }

    /// If it failed, somebody would sign in to another person's account, or a person who came back
    /// would be told that their membership has ended.
    #[test]
    fn names_lead_to_the_account_that_has_them() {
        let vos = vos("active", &[(1, "ann", "ended"), (2, "bob", "active"), (3, "ann", "active")]);
        let none = HashSet::new();
        let uid = |name: &str, local| vos.by_name(name, local).map(|f| f.uid() - BASE);
        assert_eq!(uid("ann.demo.rennes", &none), Some(3));
        assert_eq!(uid("bob.demo.rennes", &none), Some(2));
        let local = HashSet::from(["bob.demo.rennes".to_owned()]);
        assert_eq!(uid("bob.demo.rennes", &local), None, "it is the local user's");
        assert_eq!(uid("u1900000002", &local), Some(2));
        for nobody in ["u1900000002", "", "root", "ann", "bob.demo.rennes\n", "u", "u-1"] {
            assert_eq!(uid(nobody, &none), None, "{nobody:?}");
        }
        let found = vos.by_uid(BASE + 3).unwrap();
        let account = found.account("/home/xos", &none);
        assert_eq!(account.home, "/home/xos/ann.demo.rennes");
        assert_eq!((account.gid, account.epoch.0), (BASE + 1, 4));
        let m = found.membership();
        let groups: Vec<_> = m.groups.iter().map(|g| g.name.as_str()).collect();
        assert_eq!((groups, m.roles.len()), (vec!["members", "physics"], 0));
        let number = vos.by_number(&"demo.rennes".parse().unwrap(), MemberNumber(2)).unwrap();
        assert_eq!(number.uid(), BASE + 2);
    }

    /// If it failed, processes of people who left would go on, or those of others would be ended.
    #[test]
    fn only_uids_of_members_who_left_are_to_end() {
        let members = [(2, "bob", "ended"), (4, "eve", "suspended"), (5, "dan", "active")];
        let active = vos("active", &members);
        let left = |vos: &Vos, n: u32| vos.has_left(BASE + n, Millis(9));
        assert!(left(&active, 2) && left(&active, 3), "removed; removed before it was heard of");
        for stays in [0, 4, 5, 6, 65_536] {
            assert!(!left(&active, stays), "{stays}");
        }
        assert!(!active.has_left(0, Millis(9)) && !active.has_left(1000, Millis(9)));
        let over = vos("ended", &[]);
        assert!(left(&over, 1) && left(&over, 65_535) && !left(&over, 0) && !left(&over, 65_536));
    }
}
