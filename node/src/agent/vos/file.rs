//! What accounts and groups are called on this node, and the file in which libc finds them.

use super::{GROUP_MEMBERS, Vo, Vos, bounds};
use std::collections::{BTreeMap, HashSet};
use xos_api::vom::{AccountMember, AccountState};
use xos_base::accounts::{AccountsBuilder, User};
use xos_base::{Group, GroupNumber, VoId};

impl Vos {
    /// The mapped account file's content.
    ///
    /// An account whose name a local user has (`local`) is called by the common rule, or `u<uid>`;
    /// removed members and VOs that ended have no account. An entry that breaks a rule of the file
    /// is left out, and the log says so: nobody else loses their name by it.
    pub fn accounts(
        &self,
        generation: u64,
        (homes, shell): (&str, &str),
        local: &HashSet<String>,
    ) -> AccountsBuilder {
        let mut file = AccountsBuilder::new(generation);
        for (id, vo) in &self.vos {
            if vo.state == AccountState::Ended {
                continue;
            }
            let mut left_out = bounds::LeftOut::default();
            let mut in_group: BTreeMap<GroupNumber, Vec<String>> = BTreeMap::new();
            for m in vo.members.values().filter(|m| m.state != AccountState::Ended) {
                let mut name = vo.account_name(m, local);
                let default = vo.default_name(m, local);
                let home = format!("{homes}/{default}");
                let gecos = format!("{} in {id}", m.person);
                let (uid, gid) = (vo.uid(m.number), vo.base + GROUP_MEMBERS);
                let user = |name| User { name, uid, gid, gecos: &gecos, home: &home, shell };
                let mut noted = file.user(user(name.as_str())).map(|_| ());
                // Two files of VOs give one name for a moment if the machine stopped between them.
                if noted.is_err() && name != default {
                    noted = file.user(user(default.as_str())).map(|_| ());
                    name = default.clone();
                }
                if let Err(e) = noted {
                    left_out.note(e);
                    continue;
                }
                for g in &m.groups {
                    in_group.entry(*g).or_default().push(name.clone());
                }
            }
            for g in vo.groups.values() {
                let members = in_group.remove(&g.number).unwrap_or_default();
                let gid = vo.base + g.number.0;
                let name = vo.group_name(id, g);
                if let Err(e) = file.group(&name, gid, members.iter().map(String::as_str)) {
                    left_out.note(e);
                }
            }
            left_out.tell(id);
        }
        file
    }
}

impl Vo {
    /// A member's local account name: the one that the site gave, unless a local user has it.
    pub fn account_name(&self, m: &AccountMember, local: &HashSet<String>) -> String {
        match &m.given {
            Some(given) if !local.contains(given.as_str()) => given.to_string(),
            _ => self.default_name(m, local),
        }
    }

    /// What an account is called by the common rule, and its home in any case: a home that went
    /// with a name would be lost, or another's, when the name goes.
    pub fn default_name(&self, m: &AccountMember, local: &HashSet<String>) -> String {
        if local.contains(&m.name) { format!("u{}", self.uid(m.number)) } else { m.name.clone() }
    }

    /// A group's local name: `<group>.<vo>` when that is not too long, else `g<gid>`.
    fn group_name(&self, vo: &VoId, g: &Group) -> String {
        let name = format!("{}.{vo}", g.name);
        if name.len() <= xos_api::vom::ACCOUNT_NAME_MAX {
            name
        } else {
            format!("g{}", self.gid(g.number))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{accounts, member};
    use crate::agent::vos::NO_SHELL;
    use xos_base::accounts::AccountsView;

    #[test]
    fn names_ids_and_groups_stand_in_the_file() {
        let mut vos = Vos::default();
        let groups = vec![GroupNumber(2)];
        let alice = AccountMember { groups, ..member(1, "alice", "active") };
        vos.apply(accounts(vec![alice, member(2, "bob", "active")]));
        let local = HashSet::from(["bob.demo.rennes".to_owned()]);
        let bytes = vos.accounts(1, ("/home/xos", NO_SHELL), &local).build().unwrap();
        let view = AccountsView::parse(&bytes).unwrap();
        let alice = view.user_by_name("alice.demo.rennes").unwrap().unwrap();
        assert_eq!((alice.uid, alice.gid), (1_900_000_001, 1_900_000_001));
        assert_eq!(alice.home, "/home/xos/alice.demo.rennes");
        assert_eq!(alice.shell, "/usr/sbin/nologin", "sshd would let a unit out of its envelope");
        assert!(view.user_by_name("u1900000002").unwrap().is_some(), "bob clashed locally");
        assert_eq!(view.group_by_name("physics.demo.rennes").unwrap().unwrap().gid, 1_900_000_002);
    }

    #[test]
    fn removed_members_have_no_account() {
        let mut vos = Vos::default();
        vos.apply(accounts(vec![member(2, "bob", "ended")]));
        let bytes = vos.accounts(1, ("/home/xos", NO_SHELL), &HashSet::new()).build().unwrap();
        assert_eq!(AccountsView::parse(&bytes).unwrap().users().count(), 0);
    }

    #[test]
    fn a_name_that_two_vos_give_keeps_nobody_out() {
        // wrong: a machine that stopped between two VOs' files would know one person not at all
        let mut vos = Vos::default();
        let named = |number, name| {
            let given = Some("annie".parse().unwrap());
            accounts(vec![AccountMember { given, ..member(number, name, "active") }])
        };
        vos.apply(named(1, "ann"));
        let (vo, mut other) = ("other.pisa".parse().unwrap(), Vos::default());
        other.apply(xos_api::vom::VoAccounts { vo, base: 1_900_065_536, ..named(2, "eve") });
        vos.vos.extend(other.vos);
        let bytes = vos.accounts(1, ("/home/xos", NO_SHELL), &HashSet::new()).build().unwrap();
        let view = AccountsView::parse(&bytes).unwrap();
        assert_eq!(view.user_by_name("annie").unwrap().unwrap().uid, 1_900_000_001);
        assert_eq!(view.user_by_name("eve.demo.rennes").unwrap().unwrap().uid, 1_900_065_538);
    }
}
