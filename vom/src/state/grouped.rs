//! Who was put into which group: so a change of a group costs its own members only.

use super::Vo;
use std::collections::BTreeSet;
use xos_base::{GroupName, GroupNumber, MemberNumber, PersonId};

/// Memberships in groups, but in the one that everybody is in. By numbers: a large VO has millions
/// of them, and who has a number is known ([`super::Touched`]).
///
/// Follows from [`Vo::members`] and [`Vo::groups`], so it is not kept with them but made anew
/// ([`Vo::index`]), and two are never told apart.
#[derive(Clone, Debug, Default)]
pub struct Grouped(pub(super) BTreeSet<(GroupNumber, MemberNumber)>);

impl PartialEq for Grouped {
    fn eq(&self, _: &Grouped) -> bool {
        true
    }
}

impl Eq for Grouped {}

impl Grouped {
    /// A member was put into a group.
    pub(super) fn join(&mut self, group: GroupNumber, member: MemberNumber) {
        self.0.insert((group, member));
    }

    /// A member was taken out of a group.
    pub(super) fn leave(&mut self, group: GroupNumber, member: MemberNumber) {
        self.0.remove(&(group, member));
    }

    /// A group is no more.
    pub(super) fn forget(&mut self, group: GroupNumber) {
        let members: Vec<MemberNumber> = self.of(group).collect();
        for member in members {
            self.leave(group, member);
        }
    }

    fn of(&self, group: GroupNumber) -> impl Iterator<Item = MemberNumber> {
        let (first, last) = (MemberNumber(0), MemberNumber(u32::MAX));
        self.0.range((group, first)..=(group, last)).map(|(_, member)| *member)
    }
}

impl Vo {
    /// Those who were put into one of the groups, each once.
    pub(super) fn put_into<'a>(
        &self,
        groups: impl IntoIterator<Item = &'a GroupName>,
    ) -> Vec<&PersonId> {
        let groups = groups.into_iter().filter_map(|name| self.groups.get(name));
        let members: BTreeSet<MemberNumber> =
            groups.flat_map(|group| self.grouped.of(group.number)).collect();
        members.into_iter().filter_map(|member| self.touched.person(member)).collect()
    }

    /// The index as it follows from the members.
    pub(super) fn group_all(&self) -> Grouped {
        let memberships =
            self.members.values().flat_map(|m| m.groups.iter().map(move |name| (name, m.number)));
        let known =
            memberships.filter_map(|(name, member)| Some((self.groups.get(name)?.number, member)));
        Grouped(known.collect())
    }
}
