//! Which entry changed which member last: so a change reaches nodes without a walk over all.

use super::{Member, Vo};
use std::collections::BTreeMap;
use xos_base::{MemberNumber, PersonId};

/// Members, also those that are no more, by the entry that changed them last.
///
/// Follows from [`Vo::members`] and [`Vo::gone`], so it is not kept with them but made anew
/// ([`Vo::index`]), and two are never told apart.
#[derive(Clone, Debug, Default)]
pub struct Touched(BTreeMap<(u64, MemberNumber), PersonId>);

impl PartialEq for Touched {
    fn eq(&self, _: &Touched) -> bool {
        true
    }
}

impl Eq for Touched {}

impl Touched {
    /// An entry changed a member, or made them one.
    pub(super) fn note(&mut self, person: &PersonId, member: &mut Member, entry: u64) {
        self.0.remove(&(member.changed, member.number));
        member.changed = entry;
        self.0.insert((entry, member.number), person.clone());
    }

    /// An entry removed a member.
    pub(super) fn note_gone(&mut self, person: &PersonId, member: &Member, entry: u64) {
        self.0.remove(&(member.changed, member.number));
        self.0.insert((entry, member.number), person.clone());
    }

    /// Who was changed after an entry, in the order in which they were.
    pub(crate) fn after(&self, entry: u64) -> impl Iterator<Item = (MemberNumber, &PersonId)> {
        let first = (entry.saturating_add(1), MemberNumber(0));
        self.0.range(first..).map(|((_, number), person)| (*number, person))
    }
}

impl Vo {
    /// Makes the index of who was changed by which entry: for a VO that was read.
    pub fn index(&mut self) {
        let members = self.members.iter().map(|(p, m)| ((m.changed, m.number), p.clone()));
        let gone = self.gone.iter().map(|(n, g)| ((g.changed, *n), g.person.clone()));
        self.touched = Touched(members.chain(gone).collect());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Fails when the index says another thing than the members do.
    pub(crate) fn check_index(vo: &Vo) {
        let mut again = vo.clone();
        again.index();
        assert_eq!(vo.touched.0, again.touched.0, "a node would not hear of a change");
    }
}
