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
        Account {
            home: format!("{homes}/{}", self.vo.default_name(self.member, local)),
            name: self.vo.account_name(self.member, local),
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

    /// What the core says of the member, without roles: only a credential brings those.
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
    ///
    /// Where the site gave the account a name, that by the common rule leads to it too: lists and
    /// configurations from before go on to hold. No given name is one by the common rule.
    pub fn by_name(&self, name: &str, local: &HashSet<String>) -> Option<Found<'_>> {
        let named = |f: &Found| {
            let given = f.member.given.as_ref().is_some_and(|given| given.as_str() == name);
            if given && !local.contains(name) {
                true
            } else if local.contains(&f.member.name) {
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

    /// Of these uids those of members who are held at `now`: who are suspended, themselves or with
    /// their VO, or whom rules do not let sign in here.
    pub fn held(&self, uids: impl IntoIterator<Item = u32>, now: Millis) -> BTreeSet<u32> {
        let is = |uid: &u32| match self.state_of(*uid, now) {
            Some(AccountState::Suspended) => true,
            Some(AccountState::Active) => self.refused(*uid),
            _ => false,
        };
        uids.into_iter().filter(is).collect()
    }

    /// Whether rules of the VO or the site do not let the member with this uid sign in here.
    pub fn refused(&self, uid: u32) -> bool {
        self.by_uid(uid).is_some_and(|found| found.member.refused.is_some())
    }

    /// Whether a local uid is that of a member who is no more: whatever runs under it is to end.
    /// Numbers are given in order and never twice, so one below a member's that nobody has was
    /// somebody's who left; of a VO that has ended, or is unheard for longer than lease and grace,
    /// all are.
    pub fn has_left(&self, uid: u32, now: Millis) -> bool {
        let number = |v: &Vo| uid.checked_sub(v.base).filter(|n| *n >= 1 && *n < v.size);
        let over = |id: &VoId| self.lapsed.get(id) == Some(&true);
        let mut all = self.vos.iter().filter_map(|(id, v)| Some((id, v, MemberNumber(number(v)?))));
        all.any(|(id, v, n)| match v.members.get(&n) {
            _ if v.state == AccountState::Ended || over(id) => true,
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

    /// If it failed, a session would go on of whom a rule keeps out, or one be held for good.
    #[test]
    fn sessions_of_whom_rules_keep_out_are_held_until_they_may_again() {
        let told = |refused: Option<&str>| {
            let ann =
                AccountMember { refused: refused.map(str::to_owned), ..member(1, "ann", "active") };
            vec![ann, member(2, "bob", "suspended"), member(3, "carol", "active")]
        };
        let mut vos = Vos::default();
        vos.apply(accounts(told(Some("rule x says no"))));
        assert_eq!(vos.held(BASE..BASE + 9, Millis(1)), BTreeSet::from([BASE + 1, BASE + 2]));
        let active = Some(AccountState::Active);
        assert_eq!(vos.state_of(BASE + 1, Millis(1)), active, "units go on");
        vos.apply(accounts(told(None)));
        assert_eq!(vos.held(BASE..BASE + 9, Millis(1)), BTreeSet::from([BASE + 2]));
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

    /// If it failed, a name that the site gave would lead to nobody or to two, files would be left
    /// behind in a home that nobody finds, or ssh refused to who signs in by the former name.
    #[test]
    fn a_given_name_leads_to_its_account_and_the_home_stays() {
        let mut vos = vos("active", &[(1, "ann", "active"), (2, "bob", "active")]);
        let give = |vos: &mut Vos, n: u32, name: &str| {
            let (id, vo) = vos.iter().next().unwrap();
            let given = Some(name.parse().unwrap());
            let told = AccountMember { given, ..vo.members[&MemberNumber(n)].clone() };
            let part = VoAccounts { vo: id.clone(), full: false, ..accounts(vec![told]) };
            vos.apply(part);
        };
        give(&mut vos, 2, "robert");
        let none = HashSet::new();
        let account = |vos: &Vos, name: &str, local: &HashSet<String>| {
            vos.by_name(name, local).map(|f| f.account("/home/xos", local))
        };
        for name in ["robert", "bob.demo.rennes"] {
            let found = account(&vos, name, &none).unwrap();
            assert_eq!((found.name.as_str(), found.uid), ("robert", BASE + 2), "{name}");
            assert_eq!(found.home, "/home/xos/bob.demo.rennes");
        }
        // A local user of that name hides it.
        let local = HashSet::from(["robert".to_owned()]);
        assert!(account(&vos, "robert", &local).is_none(), "it is the local user's");
        assert_eq!(account(&vos, "bob.demo.rennes", &local).unwrap().name, "bob.demo.rennes");
        let both = HashSet::from(["robert".to_owned(), "bob.demo.rennes".to_owned()]);
        assert_eq!(account(&vos, "u1900000002", &both).unwrap().name, "u1900000002");
        let file = |vos: &Vos, local| {
            let file = vos.accounts(1, ("/home/xos", "/bin/sh"), local);
            file.build().unwrap()
        };
        let bytes = file(&vos, &none);
        let view = xos_base::accounts::AccountsView::parse(&bytes).unwrap();
        let robert = view.user_by_name("robert").unwrap().unwrap();
        assert_eq!((robert.uid, robert.home), (BASE + 2, "/home/xos/bob.demo.rennes"));
        assert_eq!(view.groups_of("robert").unwrap().unwrap().count(), 1);
        // Told anew of somebody else before the former holder's list comes.
        give(&mut vos, 1, "robert");
        assert_eq!(account(&vos, "robert", &none).unwrap().uid, BASE + 1);
        assert_eq!(account(&vos, "bob.demo.rennes", &none).unwrap().name, "bob.demo.rennes");
        file(&vos, &none);
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
