//! The files of a journal's folder: names, durable creation, removal.

use std::{
    collections::hash_map::RandomState,
    fs::{self, File, OpenOptions},
    hash::{BuildHasher, Hasher},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{
    JournalError, Seq,
    format::{SEGMENT_HEAD, SegmentHead},
};

const SEGMENT: (&str, &str) = ("seg-", ".log");
const SNAPSHOT: (&str, &str) = ("snap-", ".bin");
const TEMPORARY: &str = ".tmp";

/// One segment as the writer knows it.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) head: SegmentHead,
    /// Bytes of head and whole records.
    pub(super) len: u64,
}

/// What lies in the folder, in order of place.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) segments: Vec<(Seq, PathBuf)>,
    pub(super) snapshots: Vec<(Seq, PathBuf)>,
    pub(super) leftovers: Vec<PathBuf>,
}

pub(super) fn list(dir: &Path) -> Result<Listing, JournalError> {
    let io = |source| JournalError::io(dir, source);
    let mut listing = Listing::default();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if let Some(first) = place(name, SEGMENT) {
            listing.segments.push((first, path));
        } else if let Some(upto) = place(name, SNAPSHOT) {
            listing.snapshots.push((upto, path));
        } else if name.ends_with(TEMPORARY)
            && [SEGMENT, SNAPSHOT].iter().any(|(start, _)| name.starts_with(start))
        {
            listing.leftovers.push(path);
        }
    }
    listing.segments.sort();
    listing.snapshots.sort();
    Ok(listing)
}

pub(super) fn snapshot_path(dir: &Path, upto: Seq) -> PathBuf {
    dir.join(format!("{}{upto:020}{}", SNAPSHOT.0, SNAPSHOT.1))
}

/// Makes an empty segment, on the disk under its name when this returns.
pub(super) fn create_segment(dir: &Path, first: Seq) -> Result<(Segment, File), JournalError> {
    let salt = RandomState::new().build_hasher().finish();
    let head = SegmentHead { first, salt };
    let path = dir.join(format!("{}{first:020}{}", SEGMENT.0, SEGMENT.1));
    let file = write_durable(&path, &[&head.encode()])?;
    Ok((Segment { path, head, len: SEGMENT_HEAD as u64 }, file))
}

/// Writes a whole file so that it is there with all of `parts`, or not at all.
pub(super) fn write_durable(path: &Path, parts: &[&[u8]]) -> Result<File, JournalError> {
    let temporary = path.with_extension(&TEMPORARY[1..]);
    let result = (|| {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_dir(path)?;
        Ok(file)
    })();
    result.map_err(|source| {
        // It takes space that is perhaps just what lacks; a leftover is cleared at the next
        // opening.
        if let Err(error) = remove(&temporary) {
            tracing::debug!(%error, "could not remove a half-written journal file");
        }
        JournalError::io(path, source)
    })
}

/// Removes a file; one that is gone already is no error.
pub(super) fn remove(path: &Path) -> Result<(), JournalError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(JournalError::io(path, e)),
        _ => Ok(()),
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn place(name: &str, (start, end): (&str, &str)) -> Option<Seq> {
    let digits = name.strip_prefix(start)?.strip_suffix(end)?;
    (digits.len() == 20).then(|| digits.parse().ok().map(Seq))?
}
