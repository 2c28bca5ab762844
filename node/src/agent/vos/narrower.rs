//! What was taken from members: what carries it ends.

use super::{GROUP_MEMBERS, Vo, Vos};
use crate::spec::Carries;
use std::collections::BTreeSet;
use xos_api::vom::{AccountMember, AccountState};

impl Vo {
    /// Takes what the core says of a member, and notes the groups that they were in. `former` is
    /// what was known of them where the whole list came anew. Whether something was taken from
    /// them.
    pub(super) fn take_member(
        &mut self,
        former: Option<AccountMember>,
        member: AccountMember,
    ) -> bool {
        let number = member.number;
        let before = former.or_else(|| self.members.remove(&number));
        if let Some(before) = &before {
            let lapses = self.lapses(before);
            self.index.remove(before, lapses);
        }
        let lapses = self.lapses(&member);
        self.index.add(&member, lapses);
        let mut left = self.left.remove(&number).unwrap_or_default();
        left.extend(before.iter().flat_map(|b| b.groups.iter().copied()));
        left.retain(|group| !member.groups.contains(group));
        // Of who is no more everything ends anyway.
        if !left.is_empty() && member.state != AccountState::Ended {
            self.left.insert(number, left);
        }
        let narrower = before.is_some_and(|b| member.epoch > b.epoch);
        self.members.insert(number, member);
        narrower
    }
}

impl Vos {
    /// Whether a role or group was taken from the member with the local uid since something was
    /// begun that carries it. A credential of the member's present epoch carries nothing that was
    /// taken; it may carry what this node has not heard of yet.
    pub fn was_taken(&self, uid: u32, carries: &Carries) -> bool {
        self.found(uid).is_some_and(|(_, _, member)| {
            let lacks_role = || carries.roles.iter().any(|r| !member.roles.contains(r));
            let lacks_group = || {
                let mut groups = carries.groups.iter().filter(|g| g.0 != GROUP_MEMBERS);
                groups.any(|g| !member.groups.contains(g))
            };
            carries.epoch < member.epoch && (lacks_role() || lacks_group())
        })
    }

    /// The local gids of the groups that the member with the local uid was in and is not any more.
    pub fn left_gids(&self, uid: u32) -> BTreeSet<u32> {
        let Some((_, vo, member)) = self.found(uid) else { return BTreeSet::new() };
        let left = vo.left.get(&member.number).into_iter().flatten();
        left.map(|group| vo.gid(*group)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{BASE, accounts, member};
    use xos_api::vom::VoAccounts;
    use xos_base::{Epoch, GroupNumber, RoleName};

    fn ann(epoch: u64, groups: &[u32], roles: &[&str]) -> AccountMember {
        AccountMember {
            epoch: Epoch(epoch),
            groups: groups.iter().copied().map(GroupNumber).collect(),
            roles: roles.iter().map(|r| r.parse().unwrap()).collect(),
            ..member(1, "ann", "active")
        }
    }

    fn carries(epoch: u64, groups: &[u32], roles: &[&str]) -> Carries {
        let groups = groups.iter().copied().map(GroupNumber).collect();
        let roles: Vec<RoleName> = roles.iter().map(|r| r.parse().unwrap()).collect();
        Carries { epoch: Epoch(epoch), groups, roles }
    }

    fn part(members: Vec<AccountMember>) -> VoAccounts {
        VoAccounts { full: false, ..accounts(members) }
    }

    /// If it failed, shells and jobs would keep a role or group that their member lost, or those
    /// would be ended that never had it.
    #[test]
    fn what_carries_a_withdrawn_role_or_group_is_told_from_the_rest() {
        let mut vos = Vos::default();
        vos.apply(accounts(vec![ann(4, &[2, 3], &["pilot", "clerk"])]));
        let all = carries(4, &[1, 2, 3], &["pilot", "clerk"]);
        let taken = |vos: &Vos, c: &Carries| vos.was_taken(BASE + 1, c);
        assert!(!taken(&vos, &all));
        assert!(vos.apply(part(vec![ann(5, &[2, 3], &["clerk"])])), "a role was withdrawn");
        assert!(taken(&vos, &all));
        assert!(taken(&vos, &carries(4, &[1], &["pilot"])), "narrowed to it");
        assert!(!taken(&vos, &carries(4, &[1, 2, 3], &["clerk"])), "narrowed to another");
        assert!(!taken(&vos, &carries(4, &[1, 2], &[])));
        vos.apply(part(vec![ann(6, &[2], &["clerk"])]));
        assert!(taken(&vos, &carries(5, &[1, 3], &[])), "a group was withdrawn");
        assert!(!taken(&vos, &carries(4, &[1, 2], &["clerk"])));
        // What was granted is not heard of here yet.
        assert!(!taken(&vos, &carries(6, &[1, 2, 9], &["clerk", "judge"])));
        assert!(!vos.was_taken(BASE + 2, &all), "nobody");
    }

    /// If it failed, what cron runs would keep a gid that its member lost, a restart would forget
    /// that, or members would lose what they have again.
    #[test]
    fn groups_that_were_left_are_kept_until_they_are_joined_again() {
        let mut vos = Vos::default();
        vos.apply(accounts(vec![ann(4, &[2, 3], &[])]));
        let left = |vos: &Vos| vos.left_gids(BASE + 1).into_iter().collect::<Vec<_>>();
        assert!(left(&vos).is_empty());
        assert!(vos.apply(part(vec![ann(5, &[2], &[])])));
        assert_eq!(left(&vos), [BASE + 3]);
        let kept = serde_json::to_string(&vos).unwrap();
        assert_eq!(left(&serde_json::from_str(&kept).unwrap()), [BASE + 3]);
        // Told of everything anew, as after a cut.
        assert!(vos.apply(accounts(vec![ann(6, &[], &[])])));
        assert_eq!(left(&vos), [BASE + 2, BASE + 3]);
        assert!(!vos.apply(part(vec![ann(6, &[3], &[])])), "it only got something");
        assert_eq!(left(&vos), [BASE + 2]);
        assert!(vos.apply(accounts(vec![])), "the member is no more");
        assert!(left(&vos).is_empty());
    }
}
