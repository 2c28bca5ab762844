//! Opening: find what is there, prove that it is whole, cut a torn tail.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use super::{
    JournalError, Replay, Seq,
    files::{self, Segment},
    format::{self, SEGMENT_HEAD, SegmentHead},
    replay::Part,
    snapshot,
};

/// A journal ready to be written.
pub(super) struct Opened {
    pub(super) lock: File,
    /// Never empty; the last is open for appending.
    pub(super) segments: (Vec<Segment>, File),
    pub(super) last: Seq,
    pub(super) replay: Replay,
}

pub(super) fn open(dir: &Path) -> Result<Opened, JournalError> {
    let lock = lock(dir)?;
    let listing = files::list(dir)?;
    for leftover in &listing.leftovers {
        files::remove(leftover)?;
    }
    let snapshot = match listing.snapshots.last() {
        Some((upto, path)) => Some(snapshot::read(path, *upto)?),
        None => None,
    };
    let upto = snapshot.as_ref().map_or(Seq(0), |s| s.upto);
    let mut segments = Vec::with_capacity(listing.segments.len());
    let mut last = None;
    for (at, (first, path)) in listing.segments.iter().enumerate() {
        let next = listing.segments.get(at + 1).map(|(first, _)| *first);
        if next.is_some_and(|next| next.0 <= upto.0 + 1) {
            // An interrupted snapshot left it behind.
            files::remove(path)?;
            continue;
        }
        check_continues(path, *first, last, upto)?;
        let (segment, end) = check_segment(path, *first, next.is_none())?;
        segments.push(segment);
        last = Some(end);
    }
    for (_, path) in listing.snapshots.iter().rev().skip(1) {
        files::remove(path)?;
    }
    let last = last.unwrap_or(upto);
    if last < upto {
        // Cannot be: a snapshot is written after its records were synced.
        let segment = listing.segments.last().map_or(dir.to_path_buf(), |(_, p)| p.clone());
        let detail = format!("it ends at record {last}, before the snapshot's {upto}");
        return Err(JournalError::Corrupt { segment, offset: 0, detail });
    }
    let parts =
        segments.iter().map(|s| Part { path: s.path.clone(), head: s.head, len: s.len }).collect();
    let file = match segments.last() {
        Some(segment) => open_last(segment)?,
        None => {
            let (segment, file) = files::create_segment(dir, Seq(last.0 + 1))?;
            segments.push(segment);
            file
        }
    };
    let replay = Replay::new(parts, upto, snapshot);
    Ok(Opened { lock, segments: (segments, file), last, replay })
}

fn lock(dir: &Path) -> Result<File, JournalError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| JournalError::io(dir, e))?;
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| JournalError::io(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse { dir: dir.to_path_buf() }),
        Err(TryLockError::Error(e)) => Err(JournalError::io(&path, e)),
    }
}

/// `last` is the end of the segment before, if there is one.
fn check_continues(
    path: &Path,
    first: Seq,
    last: Option<Seq>,
    upto: Seq,
) -> Result<(), JournalError> {
    let (from, sound) = match last {
        Some(last) => (last, first.0 == last.0 + 1),
        None => (upto, first.0 <= upto.0 + 1),
    };
    if sound {
        return Ok(());
    }
    let detail = format!("it begins with record {first}, but the one before ends at {from}");
    Err(JournalError::Corrupt { segment: path.to_path_buf(), offset: 0, detail })
}

/// Checks every record; says the segment's sound length and last place. Cuts the tail of the last.
fn check_segment(path: &Path, first: Seq, is_last: bool) -> Result<(Segment, Seq), JournalError> {
    let bytes = fs::read(path).map_err(|e| JournalError::io(path, e))?;
    let corrupt = |offset: usize, detail: &str| JournalError::Corrupt {
        segment: path.to_path_buf(),
        offset: offset as u64,
        detail: detail.into(),
    };
    let head = SegmentHead::decode(&bytes)
        .filter(|head| head.first == first)
        .ok_or_else(|| corrupt(0, "its head is not that of a segment of this name"))?;
    let mut at = SEGMENT_HEAD;
    let mut last = Seq(first.0.saturating_sub(1));
    while let Some(found) = bytes.get(at..).and_then(|b| format::record_at(b, head.salt)) {
        if found.seq.0 != last.0 + 1 {
            return Err(corrupt(at, "its record numbers have a gap"));
        }
        last = found.seq;
        at += found.len();
    }
    let segment = Segment { path: path.to_path_buf(), head, len: at as u64 };
    if at < bytes.len() {
        let seq = Seq(last.0 + 1);
        if !is_last || format::proves_synced(&bytes[at..], head.salt, seq) {
            return Err(corrupt(at, "the checksum of a record does not match"));
        }
        cut(&segment, bytes.len() - at, seq)?;
    }
    Ok((segment, last))
}

fn cut(segment: &Segment, torn_bytes: usize, seq: Seq) -> Result<(), JournalError> {
    let io = |source| JournalError::io(&segment.path, source);
    tracing::warn!(segment = %segment.path.display(), torn_bytes, first_lost = seq.0,
        "cut an unfinished write off the journal's end");
    let file = OpenOptions::new().write(true).open(&segment.path).map_err(io)?;
    file.set_len(segment.len).and_then(|()| file.sync_all()).map_err(io)
}

/// What a killed process wrote without syncing is about to be replayed: make it last first.
fn open_last(segment: &Segment) -> Result<File, JournalError> {
    let io = |source| JournalError::io(&segment.path, source);
    let file = OpenOptions::new().read(true).write(true).open(&segment.path).map_err(io)?;
    file.sync_data().map_err(io)?;
    Ok(file)
}
