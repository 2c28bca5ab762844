//! The programs that wait until a node has room, as the original's fork-delay had them wait: each
//! member's in the order in which they came, the members in turn.
//!
//! What waits has no node, no pid and no ghost; nobody but the controller knows of it. So it is no
//! [`super::trees::Tree`] yet, and is one from the record that places it on.

use super::messages::TreeId;
use super::trees::{Owner, Wish};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;
use xos_base::{MemberNumber, VoId};

/// What waits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    waiting: BTreeMap<TreeId, Wish>,
    /// Whose program was started last: the next one's turn it is.
    served: Option<(VoId, MemberNumber)>,
}

impl Queue {
    /// What waits, as it was kept. Whose turn it is was not: the first one's.
    pub fn of(waiting: BTreeMap<TreeId, Wish>) -> Queue {
        Queue { waiting, served: None }
    }

    /// What a tree that waits is to be.
    pub fn wish(&self, id: TreeId) -> Option<&Wish> {
        self.waiting.get(&id)
    }

    /// All that waits, in the order in which it came.
    pub fn iter(&self) -> impl Iterator<Item = (TreeId, &Wish)> {
        self.waiting.iter().map(|(id, wish)| (*id, wish))
    }

    /// How much waits.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How much of one member's waits.
    pub fn count_of(&self, owner: &Owner) -> usize {
        self.waiting.values().filter(|wish| same(&wish.owner, owner)).count()
    }

    /// How much of the same member's came before a tree.
    pub fn ahead_of(&self, id: TreeId) -> usize {
        let Some(own) = self.waiting.get(&id) else { return 0 };
        self.waiting.range(..id).filter(|(_, wish)| same(&wish.owner, &own.owner)).count()
    }

    /// What is to be started next: the first program of the member whose turn it is, or of the next
    /// one of whom `passed` does not say that theirs cannot be started now.
    pub fn next(&self, passed: impl Fn(&Owner) -> bool) -> Option<(TreeId, &Wish)> {
        let mut first: BTreeMap<(&VoId, MemberNumber), (TreeId, &Wish)> = BTreeMap::new();
        for (id, wish) in self.iter() {
            let key = (&wish.owner.vo, wish.owner.member);
            if !first.contains_key(&key) && !passed(&wish.owner) {
                first.insert(key, (id, wish));
            }
        }
        let after = self.served.as_ref().and_then(|(vo, member)| {
            let range = (Bound::Excluded((vo, *member)), Bound::Unbounded);
            first.range(range).next().map(|(_, next)| *next)
        });
        after.or_else(|| first.values().next().copied())
    }

    pub(super) fn add(&mut self, id: TreeId, wish: Wish) {
        self.waiting.insert(id, wish);
    }

    /// It has a node; one that did not wait changes no turn.
    pub(super) fn started(&mut self, id: TreeId) {
        if let Some(wish) = self.waiting.remove(&id) {
            self.served = Some((wish.owner.vo, wish.owner.member));
        }
    }

    pub(super) fn remove(&mut self, id: TreeId) {
        self.waiting.remove(&id);
    }
}

fn same(a: &Owner, b: &Owner) -> bool {
    a.vo == b.vo && a.member == b.member
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::interval::Interval;

    fn wish(member: u32) -> Wish {
        let vo = "demo.rennes".parse().unwrap();
        let owner = Owner { vo, member: MemberNumber(member), uid: 70_000 + member };
        Wish { owner, restartable: false, interval: Interval::Best }
    }

    fn queue(members: &[u32]) -> Queue {
        let ids = (1..).map(TreeId);
        Queue::of(ids.zip(members.iter().map(|m| wish(*m))).collect())
    }

    /// If it failed, one member's thousand programs would keep all others waiting.
    #[test]
    fn members_take_turns_and_each_ones_programs_keep_their_order() {
        let mut q = queue(&[1, 1, 1, 3, 2, 1, 3]);
        let mut order = Vec::new();
        while let Some((id, _)) = q.next(|_| false) {
            order.push(id.0);
            q.started(id);
        }
        assert_eq!(order, [1, 5, 4, 2, 7, 3, 6]);
    }

    /// If it failed, what cannot be started now would hold up what can.
    #[test]
    fn who_is_passed_by_keeps_the_place() {
        let mut q = queue(&[1, 2, 2]);
        let not_one = |owner: &Owner| owner.member == MemberNumber(1);
        let (id, _) = q.next(not_one).unwrap();
        assert_eq!(id, TreeId(2));
        q.started(id);
        assert_eq!(q.next(|_| false).unwrap().0, TreeId(1));
        q.remove(TreeId(1));
        assert_eq!((q.len(), q.count_of(&wish(2).owner), q.ahead_of(TreeId(3))), (1, 1, 0));
        assert_eq!(q.next(|_| true), None);
    }
}
