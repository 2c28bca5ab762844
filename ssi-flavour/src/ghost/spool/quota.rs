//! How much room the output of programs has on a node's disk.

use super::spools::locked;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

/// What a stream is kept in when room is short: the last of these that is full, and the next one,
/// bytes.
const SHORT_PART_BYTES: u64 = 64 * 1024;
/// The reserve is no larger part of the disk: a twentieth.
const RESERVE_SHARE: u64 = 20;

/// How much is kept of what programs write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of each of the two streams of a tree, bytes.
    pub stream: u64,
    /// So much of it goes at a time, bytes.
    pub part: u64,
    /// Of all that is one person's but what is wanted whole, bytes.
    pub person: u64,
    /// What stays free on the disk for all else, bytes; at most a twentieth of the disk.
    pub reserve: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { stream: 256 << 20, part: 32 << 20, person: 4 << 30, reserve: 1 << 30 }
    }
}

impl Limits {
    /// Whether a disk with so many bytes, so many of them free, has too little left.
    pub(super) fn is_short(&self, free: u64, all: u64) -> bool {
        free < self.reserve.min(all / RESERVE_SHARE)
    }
}

/// How a stream is kept now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// In parts of so many bytes.
    pub part: u64,
    /// At most so many, two or more.
    pub parts: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    bytes: u64,
    /// Written since somebody looked through what the person has.
    since: u64,
}

/// What each person's output takes. Others may remove some, so that it is counted anew at times.
#[derive(Debug)]
pub(super) struct Quota {
    folder: PathBuf,
    pub limits: Limits,
    used: Mutex<BTreeMap<u32, Used>>,
}

impl Quota {
    pub fn new(folder: PathBuf, limits: Limits) -> Quota {
        Quota { folder, limits, used: Mutex::default() }
    }

    pub fn add(&self, owner: u32, bytes: u64) {
        let mut all = locked(&self.used);
        let used = all.entry(owner).or_default();
        used.bytes = used.bytes.saturating_add(bytes);
        used.since = used.since.saturating_add(bytes);
    }

    pub fn sub(&self, owner: u32, bytes: u64) {
        if let Some(used) = locked(&self.used).get_mut(&owner) {
            used.bytes = used.bytes.saturating_sub(bytes);
        }
    }

    /// What all persons have, as it was counted.
    pub fn counted(&self, all: BTreeMap<u32, u64>) {
        let used = |(owner, bytes)| (owner, Used { bytes, since: 0 });
        *locked(&self.used) = all.into_iter().map(used).collect();
    }

    /// What one has.
    pub fn counted_of(&self, owner: u32, bytes: u64) {
        locked(&self.used).insert(owner, Used { bytes, since: 0 });
    }

    /// Whether a person has too much, and wrote a good deal since somebody looked for what may go.
    pub fn wants_look(&self, owner: u32) -> bool {
        let all = locked(&self.used);
        let used = all.get(&owner).copied().unwrap_or_default();
        used.bytes > self.limits.person && used.since >= self.limits.part
    }

    /// The room that a stream of a person's has now.
    pub fn room(&self, owner: u32) -> Room {
        let Limits { stream, part, person, .. } = self.limits;
        let used = locked(&self.used).get(&owner).map_or(0, |used| used.bytes);
        if used > person || self.disk_is_short() {
            return Room { part: part.min(SHORT_PART_BYTES), parts: 2 };
        }
        let parts = usize::try_from(stream / part.max(1)).unwrap_or(usize::MAX).max(2);
        Room { part, parts }
    }

    /// Whether the disk has no more than the reserve.
    pub fn disk_is_short(&self) -> bool {
        let Ok(disk) = rustix::fs::statvfs(&self.folder) else { return false };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let all = disk.f_blocks.saturating_mul(disk.f_frsize);
        self.limits.is_short(free, all)
    }
}
