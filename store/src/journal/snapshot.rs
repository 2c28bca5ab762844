//! Snapshot files: magic "XOSSNAP1" (8) | last place contained (8) | length (8) | CRC-32 of these
//! and the state (4) | state.

use std::{fs, path::Path};

use bytes::Bytes;

use super::{
    JournalError, SNAPSHOT_BYTES_MAX, Seq, Snapshot,
    files::{self, snapshot_path},
    format::{u32_at, u64_at},
};

const MAGIC: &[u8; 8] = b"XOSSNAP1";
const HEAD: usize = 28;

/// Stores a snapshot, then removes older ones. Blocks.
pub(super) fn write(dir: &Path, state: &[u8], upto: Seq) -> Result<(), JournalError> {
    if state.len() > SNAPSHOT_BYTES_MAX {
        return Err(JournalError::SnapshotTooLarge { bytes: state.len() });
    }
    let before = files::list(dir)?.snapshots;
    if let Some((newest, _)) = before.last()
        && *newest > upto
    {
        return Err(JournalError::SnapshotBehind { upto, newest: *newest });
    }
    let mut head = Vec::with_capacity(HEAD);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&upto.0.to_le_bytes());
    head.extend_from_slice(&(state.len() as u64).to_le_bytes());
    let crc = checksum(&head, state);
    head.extend_from_slice(&crc.to_le_bytes());
    files::write_durable(&snapshot_path(dir, upto), &[&head, state])?;
    for (old, path) in before {
        if old != upto {
            files::remove(&path)?;
        }
    }
    Ok(())
}

/// Reads and checks a snapshot. Blocks.
pub(super) fn read(path: &Path, upto: Seq) -> Result<Snapshot, JournalError> {
    let bytes = fs::read(path).map_err(|e| JournalError::io(path, e))?;
    let sound = bytes.split_at_checked(HEAD).is_some_and(|(head, state)| {
        head.starts_with(MAGIC)
            && u64_at(head, 8) == Some(upto.0)
            && u64_at(head, 16) == Some(state.len() as u64)
            && u32_at(head, 24) == Some(checksum(&head[..24], state))
    });
    if !sound {
        let detail = "the snapshot's checksum does not match".into();
        return Err(JournalError::Corrupt { segment: path.to_path_buf(), offset: 0, detail });
    }
    Ok(Snapshot { upto, state: Bytes::from(bytes).slice(HEAD..) })
}

fn checksum(head: &[u8], state: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(state);
    hasher.finalize()
}
