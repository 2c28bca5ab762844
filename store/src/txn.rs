//! What goes into a transaction and what comes out of reads, with their limits.

use std::{collections::HashSet, fmt, time::Duration};

use bytes::Bytes;

use crate::{Key, StoreError};

/// The largest value, in bytes (Scalaris takes 1 MiB of base64 per request).
pub const VALUE_BYTES_MAX: usize = 512 * 1024;
/// The most ops in one transaction.
pub const OPS_MAX: usize = 64;
/// The most guards in one transaction.
pub const GUARDS_MAX: usize = 64;
/// The most entries in one page of a scan.
pub const PAGE_ENTRIES_MAX: usize = 1000;
/// A page ends with the entry that reaches this many value bytes.
pub const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The longest lease.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most keys that one lease may carry: they vanish in one commit.
pub const LEASE_KEYS_MAX: u64 = 1024;

/// Which write of a key this is. Opaque: compare for equality only.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version([u8; 16]);

impl Version {
    /// A version from an engine's own sixteen bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The engine's own sixteen bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    pub(crate) const fn from_number(number: u64) -> Self {
        Self((number as u128).to_be_bytes())
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({:x})", u128::from_be_bytes(self.0))
    }
}

/// The name of a lease, never reused by a store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// The key does not exist.
    Absent(Key),
    /// The key exists and was last written as this version.
    Is(Key, Version),
    /// The key exists.
    Exists(Key),
}

impl Guard {
    /// The key that this guard looks at.
    pub fn key(&self) -> &Key {
        match self {
            Self::Absent(key) | Self::Is(key, _) | Self::Exists(key) => key,
        }
    }

    /// Whether it holds for a key that is at `version`, `None` meaning absent.
    pub fn holds(&self, version: Option<Version>) -> bool {
        match self {
            Self::Absent(_) => version.is_none(),
            Self::Is(_, wanted) => version == Some(*wanted),
            Self::Exists(_) => version.is_some(),
        }
    }
}

/// A change within a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes the key.
    Put {
        /// What to write.
        key: Key,
        /// At most [`VALUE_BYTES_MAX`] bytes.
        value: Bytes,
        /// The lease with which the key vanishes.
        lease: Option<LeaseId>,
    },
    /// Removes the key; removing an absent key is no error.
    Del(Key),
}

impl Op {
    /// A write without a lease.
    pub fn put(key: Key, value: impl Into<Bytes>) -> Self {
        Self::Put { key, value: value.into(), lease: None }
    }

    /// A write that vanishes with `lease`.
    pub fn put_leased(key: Key, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        Self::Put { key, value: value.into(), lease: Some(lease) }
    }

    /// The key that this op changes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Del(key) => key,
        }
    }
}

/// What became of a transaction whose outcome is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnOutcome {
    /// It happened; every key written has this version.
    Applied(Version),
    /// Nothing happened: the guards of these keys did not hold.
    Conflict {
        /// Each key whose guard failed.
        keys: Vec<Key>,
    },
}

impl TxnOutcome {
    /// The version if it was applied.
    pub fn applied(&self) -> Option<Version> {
        match self {
            Self::Applied(version) => Some(*version),
            Self::Conflict { .. } => None,
        }
    }
}

/// One key with what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// Its bytes.
    pub value: Bytes,
    /// Which write made it so.
    pub version: Version,
}

/// A part of a scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In key order.
    pub entries: Vec<Entry>,
    /// Where to go on (`after` of the next call); `None` when nothing was left.
    pub next: Option<Key>,
}

/// Refuses a transaction that is beyond the limits of some engine.
pub(crate) fn check_limits(guards: &[Guard], ops: &[Op]) -> Result<(), StoreError> {
    if guards.len() > GUARDS_MAX {
        return Err(StoreError::TooManyGuards { guards: guards.len() });
    }
    if ops.len() > OPS_MAX {
        return Err(StoreError::TooManyOps { ops: ops.len() });
    }
    let mut seen = HashSet::with_capacity(ops.len());
    for op in ops {
        if !seen.insert(op.key()) {
            return Err(StoreError::DuplicateKey { key: op.key().clone() });
        }
        if let Op::Put { key, value, .. } = op
            && value.len() > VALUE_BYTES_MAX
        {
            return Err(StoreError::ValueTooLarge { key: key.clone(), bytes: value.len() });
        }
    }
    Ok(())
}

/// Refuses a lease of no or too long a time.
pub(crate) fn check_ttl(ttl: Duration) -> Result<(), StoreError> {
    if ttl < Duration::from_millis(1) || ttl > LEASE_TTL_MAX {
        return Err(StoreError::BadTtl { ttl });
    }
    Ok(())
}
