//! The bytes of the file. All numbers are little endian; sections follow one another without gaps.
//!
//! | section | entry |
//! | --- | --- |
//! | head | see [`Layout::head`] |
//! | users, sorted by name | uid, gid, offsets of name, gecos, home, shell, first gid, gids (u32 each), lengths of name, gecos, home, shell (u16 each) |
//! | users by hash of name | [`name_hash`], index of user; those of one hash in order of names |
//! | users by uid | uid, index of user |
//! | groups, sorted by name | gid, offset of name, first member, members, length of name (u32 each) |
//! | groups by gid | gid, index of group |
//! | gids | the groups that name a user as member, user after user |
//! | members | indices of users, group after group |
//! | strings | what the offsets point into |
//!
//! A user is found by the hash of the name: a search over names would touch a row and a text at
//! each of its steps, which takes three times as long in a file of 100,000. Names that were chosen
//! to have one hash cost no more than that search would.

use super::AccountsError;

const MAGIC: &[u8; 8] = b"XOSACCT1";
/// The version of everything described here.
const FORMAT: u32 = 2;
/// The checksum covers what follows it.
const CRC_END: usize = 12;

pub(super) const HEAD_BYTES: usize = 64;
pub(super) const USER_BYTES: usize = 40;
pub(super) const GROUP_BYTES: usize = 20;
pub(super) const INDEX_BYTES: usize = 8;
pub(super) const ID_BYTES: usize = 4;

/// Counts from the head, and where each section begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) generation: u64,
    pub(super) users: u32,
    pub(super) groups: u32,
    pub(super) gids: u32,
    pub(super) members: u32,
    pub(super) strings: u32,
}

impl Layout {
    /// magic (8) | CRC-32 of the rest (4) | format (4) | generation (8) | total bytes (8) | users,
    /// groups, gids, members, string bytes (4 each) | zeros
    pub(super) fn head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(MAGIC);
        head[12..16].copy_from_slice(&FORMAT.to_le_bytes());
        head[16..24].copy_from_slice(&self.generation.to_le_bytes());
        head[24..32].copy_from_slice(&self.total().to_le_bytes());
        let counts = [self.users, self.groups, self.gids, self.members, self.strings];
        for (slot, count) in head[32..].chunks_exact_mut(4).zip(counts) {
            slot.copy_from_slice(&count.to_le_bytes());
        }
        head
    }

    /// Writes the checksum of a finished file into its head.
    pub(super) fn seal(bytes: &mut [u8]) {
        let crc = crc32fast::hash(&bytes[CRC_END..]);
        bytes[8..CRC_END].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the head and checks it against the length; the checksum is [`check_sum`]'s.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, AccountsError> {
        if bytes.get(..8) != Some(MAGIC) {
            return Err(AccountsError::Corrupt("it is not an account file"));
        }
        if u32_at(bytes, 12)? != FORMAT {
            return Err(AccountsError::Corrupt("its format is of another version of XOS"));
        }
        let layout = Self {
            generation: u64_at(bytes, 16)?,
            users: u32_at(bytes, 32)?,
            groups: u32_at(bytes, 36)?,
            gids: u32_at(bytes, 40)?,
            members: u32_at(bytes, 44)?,
            strings: u32_at(bytes, 48)?,
        };
        let total = layout.total();
        if u64_at(bytes, 24)? != total || bytes.len() as u64 != total {
            return Err(AccountsError::Corrupt("its length is not what its head says"));
        }
        Ok(layout)
    }

    pub(super) fn total(&self) -> u64 {
        self.strings_at() + u64::from(self.strings)
    }

    pub(super) fn users_at(&self) -> u64 {
        HEAD_BYTES as u64
    }

    pub(super) fn names_at(&self) -> u64 {
        self.users_at() + u64::from(self.users) * USER_BYTES as u64
    }

    pub(super) fn uids_at(&self) -> u64 {
        self.names_at() + u64::from(self.users) * INDEX_BYTES as u64
    }

    pub(super) fn groups_at(&self) -> u64 {
        self.uids_at() + u64::from(self.users) * INDEX_BYTES as u64
    }

    pub(super) fn group_gids_at(&self) -> u64 {
        self.groups_at() + u64::from(self.groups) * GROUP_BYTES as u64
    }

    pub(super) fn gids_at(&self) -> u64 {
        self.group_gids_at() + u64::from(self.groups) * INDEX_BYTES as u64
    }

    pub(super) fn members_at(&self) -> u64 {
        self.gids_at() + u64::from(self.gids) * ID_BYTES as u64
    }

    pub(super) fn strings_at(&self) -> u64 {
        self.members_at() + u64::from(self.members) * ID_BYTES as u64
    }
}

/// What users are sorted by in their index by name.
pub(super) fn name_hash(name: &str) -> u32 {
    crc32fast::hash(name.as_bytes())
}

/// Compares the checksum: a pass over all bytes, done once per mapping.
pub(super) fn check_sum(bytes: &[u8]) -> Result<(), AccountsError> {
    let kept = u32_at(bytes, 8)?;
    match bytes.get(CRC_END..) {
        Some(rest) if crc32fast::hash(rest) == kept => Ok(()),
        _ => Err(AccountsError::Corrupt("its checksum does not match")),
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Result<u16, AccountsError> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, AccountsError> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, AccountsError> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], AccountsError> {
    let range = at.checked_add(N).and_then(|end| bytes.get(at..end));
    range.and_then(|b| b.try_into().ok()).ok_or(AccountsError::Corrupt("it is cut short"))
}
