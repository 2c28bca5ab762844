//! How one entry lies in an embedded engine: checked on reading, so that a rotten disk block turns
//! into an error and never into a member with somebody else's rights.

use bytes::Bytes;

use crate::{Entry, Key, LeaseId, Version};

const HEAD_BYTES: usize = 20;

/// What an engine keeps beside the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The number of the transaction that wrote it.
    pub(crate) number: u64,
    /// The lease with which it vanishes.
    pub(crate) lease: Option<LeaseId>,
}

impl Head {
    pub(crate) fn version(&self) -> Version {
        Version::from_number(self.number)
    }
}

/// A lease as an engine keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) ttl_ms: u64,
    pub(crate) expires_ms: u64,
    pub(crate) keys: u64,
}

/// number (8, little endian) | lease (8, 0 = none) | CRC-32 of key, number, lease, value (4) |
/// value
pub(crate) fn encode(key: &Key, head: Head, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + value.len());
    out.extend_from_slice(&head.number.to_le_bytes());
    out.extend_from_slice(&head.lease.map_or(0, |l| l.0).to_le_bytes());
    let crc = checksum(key, &out, value);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(value);
    out
}

/// The head alone, and whether the whole record is sound; `None` for a damaged record.
pub(crate) fn decode_head(key: &Key, bytes: &[u8]) -> Option<Head> {
    let (head, value) = bytes.split_at_checked(HEAD_BYTES)?;
    let (numbers, crc) = head.split_at(16);
    if checksum(key, numbers, value).to_le_bytes() != crc {
        return None;
    }
    let number = u64::from_le_bytes(numbers[..8].try_into().ok()?);
    let lease = u64::from_le_bytes(numbers[8..].try_into().ok()?);
    Some(Head { number, lease: (lease != 0).then_some(LeaseId(lease)) })
}

/// The entry and its lease; `None` for a damaged record.
pub(crate) fn decode(key: &Key, bytes: &[u8]) -> Option<(Entry, Option<LeaseId>)> {
    let head = decode_head(key, bytes)?;
    let value = Bytes::copy_from_slice(bytes.get(HEAD_BYTES..)?);
    Some((Entry { key: key.clone(), value, version: head.version() }, head.lease))
}

/// The checksum kept in a record, as a summand; 0 for bytes that are none.
pub(crate) fn stored_checksum(bytes: &[u8]) -> u64 {
    let crc = bytes.get(16..HEAD_BYTES).and_then(|crc| crc.try_into().ok());
    crc.map_or(0, |crc| u64::from(u32::from_le_bytes(crc)))
}

fn checksum(key: &Key, numbers: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key.as_str().as_bytes());
    hasher.update(numbers);
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let key = Key::of(["vo", "demo"]).unwrap();
        let head = Head { number: 7, lease: Some(LeaseId(9)) };
        let good = encode(&key, head, b"value");
        let (entry, lease) = decode(&key, &good).unwrap();
        assert_eq!((&entry.value[..], lease), (&b"value"[..], Some(LeaseId(9))));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&key, &bad).is_none(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(decode(&key, &good[..len]).is_none(), "cut at {len}");
        }
        assert!(decode(&Key::of(["vo", "other"]).unwrap(), &good).is_none());
    }
}
