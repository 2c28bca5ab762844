//! The bytes of segments and records. All numbers are little endian.
//!
//! Segment: magic "XOSJRNL1" (8) | first place (8) | salt (8) | CRC-32 of these (4).
//! Record: length of payload (4) | CRC-32 of salt, length, place, synced, payload (4) | place (8) |
//! synced (8) | payload, where `synced` is the last place known to be on the disk when the record
//! was written. The salt keeps payloads from containing what would pass for a record.

pub(super) const MAGIC: &[u8; 8] = b"XOSJRNL1";
pub(super) const SEGMENT_HEAD: usize = 28;
pub(super) const RECORD_HEAD: usize = 24;

use super::{RECORD_BYTES_MAX, Seq};

/// The head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub(super) first: Seq,
    pub(super) salt: u64,
}

impl SegmentHead {
    pub(super) fn encode(self) -> [u8; SEGMENT_HEAD] {
        let mut out = [0; SEGMENT_HEAD];
        out[..8].copy_from_slice(MAGIC);
        out[8..16].copy_from_slice(&self.first.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32fast::hash(&out[..24]);
        out[24..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let sound =
            bytes.get(..8)? == MAGIC && crc32fast::hash(bytes.get(..24)?) == u32_at(bytes, 24)?;
        let head = Self { first: Seq(u64_at(bytes, 8)?), salt: u64_at(bytes, 16)? };
        sound.then_some(head)
    }
}

/// A record found in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found<'a> {
    pub(super) seq: Seq,
    pub(super) synced: Seq,
    pub(super) payload: &'a [u8],
}

impl Found<'_> {
    /// The bytes it takes in the segment.
    pub(super) fn len(&self) -> usize {
        RECORD_HEAD + self.payload.len()
    }
}

/// Appends one record to `out`. The payload must have been checked against the limit.
pub(super) fn push_record(out: &mut Vec<u8>, salt: u64, seq: Seq, synced: Seq, payload: &[u8]) {
    let len = (payload.len() as u32).to_le_bytes();
    let seq = seq.0.to_le_bytes();
    let synced = synced.0.to_le_bytes();
    out.extend_from_slice(&len);
    out.extend_from_slice(&checksum(salt, &len, &seq, &synced, payload).to_le_bytes());
    out.extend_from_slice(&seq);
    out.extend_from_slice(&synced);
    out.extend_from_slice(payload);
}

/// The sound record at the start of `bytes`, if there is one.
pub(super) fn record_at(bytes: &[u8], salt: u64) -> Option<Found<'_>> {
    let seq = Seq(u64_at(bytes, 8)?);
    let synced = Seq(u64_at(bytes, 16)?);
    let len = usize::try_from(u32_at(bytes, 0)?).ok().filter(|len| *len <= RECORD_BYTES_MAX)?;
    let payload = bytes.get(RECORD_HEAD..RECORD_HEAD + len)?;
    let crc = checksum(salt, &bytes[..4], &bytes[8..16], &bytes[16..24], payload);
    (crc == u32_at(bytes, 4)?).then_some(Found { seq, synced, payload })
}

/// Looks behind a bad record (which should have had place `seq`) for proof that it had once been on
/// the disk: a later record written after it was synced. Without proof it is a torn tail.
pub(super) fn proves_synced(tail: &[u8], salt: u64, seq: Seq) -> bool {
    let most = tail.len() as u64 / RECORD_HEAD as u64;
    let later = seq.0..=seq.0.saturating_add(most);
    (1..tail.len()).any(|at| {
        let here = &tail[at..];
        // The cheap test first: this runs at every byte of the tail.
        u64_at(here, 8).is_some_and(|place| later.contains(&place))
            && record_at(here, salt).is_some_and(|found| found.synced >= seq)
    })
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn checksum(salt: u64, len: &[u8], seq: &[u8], synced: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    for part in [len, seq, synced, payload] {
        hasher.update(part);
    }
    hasher.finalize()
}
