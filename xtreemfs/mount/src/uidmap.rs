//! Local uids and gids against the volume's member and group numbers.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use xtreemfs_client::Member;

/// The local id shown for owners that have none here (`nobody`).
pub const UNKNOWN_ID: u32 = 65_534;

/// A block of local ids: number `n` of the volume is local id `base + n`, for `n < count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// First local id of the block; stands for number 0.
    pub base: u32,
    /// How many ids belong to it.
    pub count: u32,
}

impl Block {
    fn number(self, local: u32) -> Option<u32> {
        local.checked_sub(self.base).filter(|number| *number < self.count)
    }

    fn local(self, number: u32) -> Option<u32> {
        if number < self.count { self.base.checked_add(number) } else { None }
    }
}

/// The whole mapping of one mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Users.
    pub uids: Block,
    /// Groups.
    pub gids: Block,
    /// Local uids outside the block that act as a member, for example a service account. Root is
    /// nobody special: without an entry here it has no rights.
    pub extra: HashMap<u32, Member>,
    /// The group that marks processes of root which act for a person: their supplementary groups
    /// are this one and the person's uid, and no other.
    pub mark: Option<u32>,
}

/// The mapping in use, replaceable while mounted.
#[derive(Debug, Clone)]
pub struct UidMap(Arc<RwLock<Arc<Mapping>>>);

impl UidMap {
    /// Starts with this mapping.
    pub fn new(mapping: Mapping) -> UidMap {
        UidMap(Arc::new(RwLock::new(Arc::new(mapping))))
    }

    /// Puts another mapping in place; requests that arrive from now on use it.
    pub fn replace(&self, mapping: Mapping) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(mapping);
    }

    fn read(&self) -> Arc<Mapping> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The person behind a local uid; `None` has no rights.
    pub fn member(&self, uid: u32) -> Option<Member> {
        let mapping = self.read();
        mapping.uids.number(uid).map(Member).or_else(|| mapping.extra.get(&uid).copied())
    }

    /// The person for whom a process of root acts that has these supplementary groups.
    pub fn acts_for(&self, groups: &[u32]) -> Option<Member> {
        let mark = self.read().mark?;
        match groups {
            [uid, other] | [other, uid] if *other == mark && *uid != mark => self.member(*uid),
            _ => None,
        }
    }

    /// The group number behind a local gid.
    pub fn group(&self, gid: u32) -> Option<u32> {
        self.read().gids.number(gid)
    }

    /// The local uid shown for an owner.
    pub fn uid(&self, number: u32) -> u32 {
        self.read().uids.local(number).unwrap_or(UNKNOWN_ID)
    }

    /// The local gid shown for an owning group.
    pub fn gid(&self, number: u32) -> u32 {
        self.read().gids.local(number).unwrap_or(UNKNOWN_ID)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> UidMap {
        let block = Block { base: 1_900_000_000, count: 65_536 };
        UidMap::new(Mapping { uids: block, gids: block, extra: HashMap::new(), mark: None })
    }

    #[test]
    fn only_uids_of_the_block_are_people() {
        let map = map();
        assert_eq!(map.member(1_900_000_007), Some(Member(7)));
        for uid in [0, 1000, 1_899_999_999, 1_900_065_536, u32::MAX] {
            assert_eq!(map.member(uid), None, "uid {uid} must have no rights");
        }
    }

    #[test]
    fn root_acts_for_a_person_by_the_mark_only() {
        // wrong: a process of root that is in a person's groups for another reason would have their
        // files, or saving a program fail at its files
        let map = map();
        assert_eq!(map.acts_for(&[1_900_000_007, 3]), None, "there is no mark");
        let block = Block { base: 1_900_000_000, count: 65_536 };
        let extra = HashMap::from([(3, Member(9))]);
        map.replace(Mapping { uids: block, gids: block, extra, mark: Some(3) });
        assert_eq!(map.acts_for(&[1_900_000_007, 3]), Some(Member(7)));
        assert_eq!(map.acts_for(&[3, 1_900_000_007]), Some(Member(7)));
        let strange: [&[u32]; 6] =
            [&[], &[3], &[3, 3], &[1_900_000_007], &[3, 0], &[3, 1_900_000_007, 1_900_000_008]];
        for groups in strange {
            assert_eq!(map.acts_for(groups), None, "{groups:?}");
        }
    }

    #[test]
    fn a_number_from_the_network_never_becomes_a_foreign_uid() {
        let block = Block { base: u32::MAX - 3, count: 100 };
        let map =
            UidMap::new(Mapping { uids: block, gids: block, extra: HashMap::new(), mark: None });
        assert_eq!(map.uid(3), u32::MAX);
        assert_eq!(map.uid(4), UNKNOWN_ID, "base + number must not wrap round to root");
        assert_eq!(map.gid(100), UNKNOWN_ID);
    }

    #[test]
    fn the_mapping_can_change_while_in_use() {
        let map = map();
        let other = map.clone();
        let block = Block { base: 5000, count: 10 };
        let extra = HashMap::from([(0, Member(2))]);
        other.replace(Mapping { uids: block, gids: block, extra, mark: None });
        assert_eq!((map.member(5001), map.member(0)), (Some(Member(1)), Some(Member(2))));
        assert_eq!(map.member(1_900_000_007), None);
    }
}
