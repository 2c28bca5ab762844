//! Groups within groups, and who manages them.
//!
//! Who is in a group is in all groups above it. A member holds the groups that they were put into;
//! those above follow from the tree whenever they are asked for, so that there is one truth.
//!
//! One change of the tree must stay cheap for a VO of a million members, at every site that replays
//! it and for every node that hears of it: a group with more than [`GROUP_CHANGE_MAX`] memberships
//! in it and below it stays where it is. What the log says so far decides that, without a walk, and
//! whom a change concerns is found by an index ([`super::Grouped`]).

use super::structure::Fault;
use super::{GROUP_NUMBER_MAX, GROUPS_MAX, GroupRecord, Member, Vo};
use std::collections::{BTreeMap, BTreeSet};
use xos_api::vom::{
    GROUP_CHANGE_MAX, GROUP_DEPTH_MAX, GROUP_MEMBERS, MANAGED_MAX, MANAGERS_MAX, MEMBER_GROUPS_MAX,
};
use xos_base::{GroupName, GroupNumber, PersonId};

impl Vo {
    /// A group and those above it, from below.
    pub fn lineage<'a>(&'a self, name: &'a GroupName) -> impl Iterator<Item = &'a GroupName> + 'a {
        // The bound holds whatever a damaged registry says.
        std::iter::successors(Some(name), move |n| self.groups.get(*n)?.parent.as_ref())
            .take(GROUP_DEPTH_MAX)
    }

    /// The groups that a member is in: those that they were put into, and all above.
    pub fn effective_groups<'a>(&'a self, member: &'a Member) -> BTreeSet<&'a GroupName> {
        self.with_those_above(&member.groups)
    }

    /// Groups and all those above them.
    pub(crate) fn with_those_above<'a>(
        &'a self,
        groups: impl IntoIterator<Item = &'a GroupName>,
    ) -> BTreeSet<&'a GroupName> {
        groups.into_iter().flat_map(|g| self.lineage(g)).collect()
    }

    /// A group and all those below it.
    pub fn subtree(&self, name: &GroupName) -> BTreeSet<GroupName> {
        let mut below: BTreeMap<&GroupName, Vec<&GroupName>> = BTreeMap::new();
        for (group, record) in &self.groups {
            if let Some(parent) = &record.parent {
                below.entry(parent).or_default().push(group);
            }
        }
        let (mut found, mut todo) = (BTreeSet::new(), vec![name]);
        while let Some(group) = todo.pop() {
            found.insert(group.clone());
            // Each is taken out once, whatever a damaged registry says.
            todo.extend(below.remove(group).unwrap_or_default());
        }
        found
    }

    /// Whether an administrator or owner other than `asker` is in the group or one below it.
    pub fn privileged_in(&self, name: &GroupName, asker: Option<&PersonId>) -> bool {
        let others = self.owners.iter().chain(&self.admins).filter(|p| Some(*p) != asker);
        let mut members = others.filter_map(|person| self.members.get(person));
        members.any(|m| m.groups.iter().any(|g| self.lineage(g).any(|above| above == name)))
    }

    /// The numbers of those of the groups that there are, in order.
    pub fn group_numbers(&self, names: &[GroupName]) -> Vec<GroupNumber> {
        names.iter().filter_map(|g| self.groups.get(g)).map(|g| g.number).collect()
    }

    /// Whether a person manages the group, or one above it.
    pub fn manages(&self, person: &PersonId, name: &GroupName) -> bool {
        let Some(managed) = self.managers.get(person) else { return false };
        self.lineage(name).any(|g| managed.contains(g))
    }

    /// Who manages a group.
    pub(super) fn managers_of(&self, name: &GroupName) -> Vec<PersonId> {
        self.managed_by.get(name).into_iter().flatten().cloned().collect()
    }

    /// Whether a member who is in `groups` and those above may come into `name` too.
    pub(super) fn has_room(
        &self,
        groups: &BTreeSet<GroupName>,
        name: &GroupName,
    ) -> Result<(), Fault> {
        let all = self.with_those_above(groups.iter().chain([name]));
        if all.len() > MEMBER_GROUPS_MAX { Err(Fault::Groups) } else { Ok(()) }
    }

    /// Whether a group may be deleted.
    pub(super) fn may_delete(&self, name: &GroupName) -> Result<(), Fault> {
        let children = self.groups.values().any(|g| g.parent.as_ref() == Some(name));
        if children {
            return Err(Fault::Children(name.clone()));
        }
        let count = self.groups.get(name).map_or(0, |g| g.count);
        if count > GROUP_CHANGE_MAX { Err(Fault::TooMany(name.clone(), count)) } else { Ok(()) }
    }

    pub(super) fn may_create_below(
        &self,
        name: &GroupName,
        number: GroupNumber,
        parent: &GroupName,
    ) -> Result<(), Fault> {
        self.own(parent)?;
        if self.groups.contains_key(name) {
            return Err(Fault::Group(name.clone()));
        }
        if number.0 != self.next_group {
            return Err(Fault::Number);
        }
        if number.0 > GROUP_NUMBER_MAX || self.groups.len() >= GROUPS_MAX {
            return Err(Fault::GroupLimit);
        }
        if self.lineage(parent).count() >= GROUP_DEPTH_MAX {
            return Err(Fault::Depth(name.clone()));
        }
        Ok(())
    }

    pub(super) fn may_move(
        &self,
        name: &GroupName,
        parent: Option<&GroupName>,
    ) -> Result<(), Fault> {
        self.own(name)?;
        if self.groups.get(name).is_some_and(|g| g.parent.as_ref() == parent) {
            return Err(Fault::There(name.clone()));
        }
        let moved = self.subtree(name);
        if let Some(parent) = parent {
            self.own(parent)?;
            if moved.contains(parent) {
                return Err(Fault::Cycle(name.clone(), parent.clone()));
            }
            let from_above = self.lineage(parent).count();
            let above = self.lineage(name).count();
            let deepest = moved.iter().map(|g| self.lineage(g).count()).max().unwrap_or(above);
            // From `name` down, both ends counted.
            let height = deepest.saturating_sub(above).saturating_add(1);
            if from_above.saturating_add(height) > GROUP_DEPTH_MAX {
                return Err(Fault::Depth(name.clone()));
            }
        }
        let count: u64 = moved.iter().filter_map(|g| self.groups.get(g)).map(|g| g.count).sum();
        if count > GROUP_CHANGE_MAX {
            return Err(Fault::TooMany(name.clone(), count));
        }
        let Some(parent) = parent.filter(|_| count > 0) else { return Ok(()) };
        let gained: BTreeSet<&GroupName> = self.lineage(parent).collect();
        for m in self.put_into(&moved).into_iter().filter_map(|person| self.members.get(person)) {
            // More than will be left, since those above before the move are counted in.
            let all = self.effective_groups(m).union(&gained).count();
            if all > MEMBER_GROUPS_MAX {
                return Err(Fault::Groups);
            }
        }
        Ok(())
    }

    pub(super) fn may_manage(&self, name: &GroupName, person: &PersonId) -> Result<(), Fault> {
        self.own(name)?;
        if !self.members.contains_key(person) {
            return Err(Fault::NotMember(person.clone()));
        }
        let managed = self.managers.get(person);
        if managed.is_some_and(|g| g.contains(name)) {
            return Err(Fault::Manages(name.clone(), person.clone()));
        }
        let full = managed.is_none() && self.managers.len() >= MANAGERS_MAX;
        if full || managed.is_some_and(|g| g.len() >= MANAGED_MAX) {
            return Err(Fault::ManagerLimit);
        }
        Ok(())
    }

    pub(super) fn managing(&self, name: &GroupName, person: &PersonId) -> Result<(), Fault> {
        if self.managers.get(person).is_some_and(|g| g.contains(name)) {
            return Ok(());
        }
        Err(Fault::ManagesNot(name.clone(), person.clone()))
    }

    /// A group other than the one that everybody is in.
    fn own(&self, name: &GroupName) -> Result<(), Fault> {
        if name.as_str() == GROUP_MEMBERS {
            return Err(Fault::BuiltIn(name.clone()));
        }
        if self.groups.contains_key(name) { Ok(()) } else { Err(Fault::NoGroup(name.clone())) }
    }

    pub(super) fn create_below(
        &mut self,
        name: &GroupName,
        number: GroupNumber,
        parent: &GroupName,
    ) {
        self.next_group = self.next_group.max(number.0.saturating_add(1));
        let parent = Some(parent.clone());
        let record = GroupRecord { number, count: 0, changed: self.number, parent };
        self.groups.insert(name.clone(), record);
    }

    /// Whoever loses a group by it must sign in again, as one who leaves a group does.
    pub(super) fn move_group(&mut self, name: &GroupName, parent: Option<&GroupName>) {
        let moved = self.subtree(name);
        let before: BTreeSet<GroupName> = self.lineage(name).skip(1).cloned().collect();
        if let Some(g) = self.groups.get_mut(name) {
            g.parent = parent.cloned();
        }
        let after: BTreeSet<GroupName> = self.lineage(name).skip(1).cloned().collect();
        let narrower = !before.is_subset(&after);
        let inside: Vec<PersonId> = self.put_into(&moved).into_iter().cloned().collect();
        for person in inside {
            self.change(&person, narrower, |_| {});
        }
    }

    pub(super) fn add_manager(&mut self, name: &GroupName, person: &PersonId) {
        self.managers.entry(person.clone()).or_default().insert(name.clone());
        self.managed_by.entry(name.clone()).or_default().insert(person.clone());
    }

    pub(super) fn remove_manager(&mut self, name: &GroupName, person: &PersonId) {
        take_out(&mut self.managers, person, name);
        take_out(&mut self.managed_by, name, person);
    }

    /// Nobody manages a group that is no more: one made later under its name begins without.
    pub(super) fn nobody_manages(&mut self, name: &GroupName) {
        for person in self.managed_by.remove(name).unwrap_or_default() {
            take_out(&mut self.managers, &person, name);
        }
    }

    /// Whoever is no member manages nothing.
    pub(super) fn manages_nothing(&mut self, person: &PersonId) {
        for name in self.managers.remove(person).unwrap_or_default() {
            take_out(&mut self.managed_by, &name, person);
        }
    }
}

/// Takes `what` from the set at `key`; no set is left empty.
fn take_out<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, what: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(what);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
