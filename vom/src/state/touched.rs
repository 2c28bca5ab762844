//! Which entry changed which member last: so a change reaches nodes without a walk over all.

use super::{Member, Vo};
use std::collections::{BTreeMap, BTreeSet};
use xos_base::{MemberNumber, PersonId};

/// Members, also those that are no more, by the entry that changed them last.
///
/// Follows from [`Vo::members`] and [`Vo::gone`], so it is not kept with them but made anew
/// ([`Vo::index`]), and two are never told apart.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    entries: BTreeSet<(u64, MemberNumber)>,
    /// Whose number it is or was.
    persons: BTreeMap<MemberNumber, PersonId>,
}

impl PartialEq for Touched {
    fn eq(&self, _: &Touched) -> bool {
        true
    }
}

impl Eq for Touched {}

impl Touched {
    /// An entry changed a member, or made them one.
    pub(super) fn note(&mut self, person: &PersonId, member: &mut Member, entry: u64) {
        self.entries.remove(&(member.changed, member.number));
        member.changed = entry;
        self.entries.insert((entry, member.number));
        self.persons.entry(member.number).or_insert_with(|| person.clone());
    }

    /// An entry removed a member.
    pub(super) fn note_gone(&mut self, member: &Member, entry: u64) {
        self.entries.remove(&(member.changed, member.number));
        self.entries.insert((entry, member.number));
    }

    /// Who has a member's number, or had it.
    pub(super) fn person(&self, number: MemberNumber) -> Option<&PersonId> {
        self.persons.get(&number)
    }

    /// Who was changed after an entry, in the order in which they were.
    pub(crate) fn after(&self, entry: u64) -> impl Iterator<Item = (MemberNumber, &PersonId)> {
        let first = (entry.saturating_add(1), MemberNumber(0));
        let whose = move |(_, number): &(u64, MemberNumber)| Some((*number, self.person(*number)?));
        self.entries.range(first..).filter_map(whose)
    }
}

impl Vo {
    /// Makes the indexes of who was changed by which entry, and of who is in which group: for a VO
    /// that was read.
    pub fn index(&mut self) {
        let members = self.members.iter().map(|(p, m)| (m.changed, m.number, p));
        let gone = self.gone.iter().map(|(n, g)| (g.changed, *n, &g.person));
        let all = || gone.clone().chain(members.clone());
        let entries = all().map(|(entry, number, _)| (entry, number)).collect();
        let persons = all().map(|(_, number, person)| (number, person.clone())).collect();
        self.touched = Touched { entries, persons };
        self.grouped = self.group_all();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Fails when an index says another thing than the members do.
    pub(crate) fn check_index(vo: &Vo) {
        let mut again = vo.clone();
        again.index();
        let (is, should) = (&vo.touched, &again.touched);
        assert_eq!(is.entries, should.entries, "a node would not hear of a change");
        assert_eq!(is.persons, should.persons, "a node would hear of somebody else");
        assert_eq!(vo.grouped.0, again.grouped.0, "a change of a group would miss somebody");
    }
}
