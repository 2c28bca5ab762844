//! The index: sorted byte keys with byte values, and changes to it that can be undone.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use xtreemfs_proto::mrc::ROOT_INODE;

/// Inode numbers of one start of the server, as a power of two.
const NUMBERS_BITS: u32 = 36;
/// Most starts of a server: a number fits into 63 bits.
pub const STARTS_MAX: u64 = 1 << (63 - NUMBERS_BITS);
/// Truncate epochs of one file in one start of the server, as a power of two.
const EPOCHS_BITS: u32 = 32;

/// Sorted entries with byte keys, as the namespace reads them.
pub trait Index {
    /// The value of a key.
    fn value(&self, key: &[u8]) -> Option<&[u8]>;

    /// An inode number that nobody was given before, also if what it was given for is taken back or
    /// lost: people may have seen it by then. `None` if there are none left.
    fn new_inode(&self) -> Option<u64>;

    /// The least truncate epoch that this start of the server gives.
    fn first_epoch(&self) -> u64;

    /// Entries whose key starts with `prefix` and is larger than `after`, in order.
    fn after<'a>(
        &'a self,
        prefix: &'a [u8],
        after: &[u8],
    ) -> Box<dyn Iterator<Item = (&'a [u8], &'a [u8])> + 'a>;
}

/// One change to the index. Carrying it out twice is the same as once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets a key.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
    /// Removes all keys that start with this.
    DeletePrefix {
        /// Start of the keys; not empty.
        prefix: Vec<u8>,
    },
}

/// Takes a [`Change`] back.
#[derive(Debug)]
pub enum Undo {
    /// The value that a key had.
    One {
        /// The key.
        key: Vec<u8>,
        /// Its former value.
        value: Option<Vec<u8>>,
    },
    /// The entries that a range had.
    Range(BTreeMap<Vec<u8>, Vec<u8>>),
}

/// The index in memory.
#[derive(Debug)]
pub struct MemIndex {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    last_inode: AtomicU64,
    first_epoch: u64,
}

impl Default for MemIndex {
    fn default() -> Self {
        Self { map: BTreeMap::new(), last_inode: AtomicU64::new(ROOT_INODE), first_epoch: 1 }
    }
}

impl Index for MemIndex {
    fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.map.get(key).map(Vec::as_slice)
    }

    fn new_inode(&self) -> Option<u64> {
        let inode = self.last_inode.fetch_add(1, Ordering::Relaxed) + 1;
        (!inode.is_multiple_of(1 << NUMBERS_BITS)).then_some(inode)
    }

    fn first_epoch(&self) -> u64 {
        self.first_epoch
    }

    fn after<'a>(
        &'a self,
        prefix: &'a [u8],
        after: &[u8],
    ) -> Box<dyn Iterator<Item = (&'a [u8], &'a [u8])> + 'a> {
        let start = if after >= prefix { Bound::Excluded(after) } else { Bound::Included(prefix) };
        let range = self.map.range::<[u8], _>((start, Bound::Unbounded));
        let inside = range.take_while(move |(key, _)| key.starts_with(prefix));
        Box::new(inside.map(|(key, value)| (key.as_slice(), value.as_slice())))
    }
}

impl MemIndex {
    /// Gives the inode numbers and truncate epochs of the server's start with this number, which is
    /// less than [`STARTS_MAX`].
    pub fn number_from(&mut self, start: u64) {
        self.first_epoch = (start << EPOCHS_BITS).max(1);
        self.last_inode = AtomicU64::new((start << NUMBERS_BITS).max(ROOT_INODE));
    }

    /// Carries a change out.
    pub fn apply(&mut self, change: Change) -> Undo {
        match change {
            Change::Put { key, value } => {
                let old = self.map.insert(key.clone(), value);
                Undo::One { key, value: old }
            }
            Change::Delete { key } => {
                let value = self.map.remove(&key);
                Undo::One { key, value }
            }
            Change::DeletePrefix { prefix } => {
                let mut range = self.map.split_off(&prefix);
                if let Some(end) = prefix_end(&prefix) {
                    let mut rest = range.split_off(&end);
                    self.map.append(&mut rest);
                }
                Undo::Range(range)
            }
        }
    }

    /// Takes a change back; to be done in reverse order.
    pub fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::One { key, value: Some(value) } => drop(self.map.insert(key, value)),
            Undo::One { key, value: None } => drop(self.map.remove(&key)),
            Undo::Range(mut range) => self.map.append(&mut range),
        }
    }

    /// Up to `count` entries with keys larger than `after` (`None`: from the start).
    pub fn chunk(&self, after: Option<&[u8]>, count: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.map.range::<[u8], _>((start, Bound::Unbounded));
        range.take(count).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

/// The least key larger than all keys that start with `prefix`.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&b| b != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &[u8]) -> Change {
        Change::Put { key: key.to_vec(), value: b"v".to_vec() }
    }

    /// After a failed log write the index must be what it was, or replies and disk disagree.
    #[test]
    fn undo_in_reverse_order_restores_everything() {
        let mut index = MemIndex::default();
        for key in [&b"a1"[..], b"a2", b"b1", &[0xff, 1]] {
            index.apply(put(key));
        }
        let before = index.chunk(None, 99);
        let prefix = |p: &[u8]| Change::DeletePrefix { prefix: p.to_vec() };
        let changes = [put(b"a3"), prefix(b"a"), put(b"a1"), prefix(&[0xff]), put(b"b1")];
        let undo: Vec<Undo> = changes.into_iter().map(|change| index.apply(change)).collect();
        assert_eq!(index.len(), 2);
        undo.into_iter().rev().for_each(|undo| index.undo(undo));
        assert_eq!(index.chunk(None, 99), before);
    }

    /// A listing that leaves the prefix would show another directory's entries.
    #[test]
    fn after_stays_within_the_prefix() {
        let mut index = MemIndex::default();
        for key in [&b"a"[..], b"b1", b"b2", b"b3", b"c"] {
            index.apply(put(key));
        }
        let keys =
            |after: &[u8]| index.after(b"b", after).map(|(k, _)| k.to_vec()).collect::<Vec<_>>();
        assert_eq!(keys(b""), [b"b1", b"b2", b"b3"]);
        assert_eq!(keys(b"b1"), [b"b2", b"b3"]);
        assert!(keys(b"b3").is_empty());
    }
}
