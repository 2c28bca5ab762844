//! The files of an audit's folder: names, order, durable creation, and reading lines of them.

use super::walk::Walk;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use xos_base::{Error, Millis, NodeId};

/// Longest line, in bytes: some of the longest texts, all of their characters escaped.
pub const LINE_BYTES_MAX: u64 = 64 * 1024;
/// No line or file has a higher number: what does was not written by an audit.
const NUMBER_MAX: u64 = 1 << 62;
/// How much of a file is read at a time, in bytes.
const BUFFER: usize = 256 * 1024;
const SUFFIX: &str = ".jsonl";
const MARKS: &str = "marks.json";
/// The name of the file that says what was moved to an archive.
pub const ARCHIVED: &str = "archived.json";

/// One file of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where.
    pub path: PathBuf,
    /// The number of its first line, by its name.
    pub first: u64,
    /// When its first line was noted; 0: not known.
    pub from: Millis,
    /// No line of it was noted after that.
    pub to: Millis,
    /// Bytes of whole lines.
    pub len: u64,
}

impl Segment {
    /// The file's name.
    pub fn name(&self) -> String {
        name(self.first)
    }
}

/// The last line that was moved to an archive, as an administrator wrote it down.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archived {
    /// Its number.
    pub number: u64,
    /// Its SHA-256, hex.
    pub hash: String,
}

/// What was moved to an archive, if anything was.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] when the file says no such thing; those of the system.
pub fn read_archived(dir: &Path) -> Result<Option<Archived>, Error> {
    let path = dir.join(ARCHIVED);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(&path, &e)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        Error::invalid(format!("{} does not say what was archived: {e}", path.display()))
            .hint(r#"it holds {"number": N, "hash": "SHA-256 of line N"}"#)
    })
}

/// How far the reports of a node are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Names the node's count.
    pub series: String,
    /// The last number.
    pub number: u64,
}

/// Of all nodes.
pub type Marks = BTreeMap<NodeId, Mark>;

fn name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

/// What the system said about a file.
pub fn failed(path: &Path, e: &io::Error) -> Error {
    let what = format!("the audit's file {} failed: {e}", path.display());
    match e.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Error::unavailable(format!("no space is left for the audit, {}", path.display()))
                .hint("the site's administrator frees space; it goes on by itself then")
        }
        _ => Error::internal(what).hint("check the disk and the folder's rights"),
    }
}

/// Makes the folder, for its owner only, and takes it for this process.
///
/// # Errors
/// [`xos_base::Kind::Conflict`] when another process has it; those of the system.
pub fn lock(dir: &Path) -> Result<File, Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed(dir, &e))?;
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| failed(&path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let used = format!("the audit {} is in use by another process", dir.display());
            Err(Error::conflict(used).hint("is another xosd running on the same state folder?"))
        }
        Err(TryLockError::Error(e)) => Err(failed(&path, &e)),
    }
}

/// The files of lines, in order.
///
/// # Errors
/// Those of the system.
pub fn list(dir: &Path) -> Result<Vec<Segment>, Error> {
    let io = |e: io::Error| failed(dir, &e);
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let first = entry.file_name().to_str().and_then(|n| {
            let digits = n.strip_suffix(SUFFIX).filter(|d| d.len() == 20)?;
            digits.parse::<u64>().ok().filter(|first| (1..=NUMBER_MAX).contains(first))
        });
        let Some(first) = first else { continue };
        let len = entry.metadata().map_err(io)?.len();
        let path = entry.path();
        all.push(Segment { path, first, from: Millis(0), to: Millis(u64::MAX), len });
    }
    all.sort_by_key(|s| s.first);
    Ok(all)
}

/// Makes an empty file of lines, on the disk under its name when this returns.
///
/// # Errors
/// Those of the system.
pub fn create(dir: &Path, first: u64, now: Millis) -> Result<(Segment, File), Error> {
    let path = dir.join(name(first));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| failed(&path, &e))?;
    // What an attempt that failed left empty may be there, and nothing else.
    if file.metadata().map_err(|e| failed(&path, &e))?.len() > 0 {
        let text = format!("the audit's next file, {}, is there already", path.display());
        return Err(Error::conflict(text).hint("look where it comes from, and move it away"));
    }
    file.sync_all().map_err(|e| failed(&path, &e))?;
    sync_folder(dir)?;
    Ok((Segment { path, first, from: now, to: now, len: 0 }, file))
}

/// Writes down how far the reports of nodes are stored, whole or not at all.
///
/// # Errors
/// Those of the system.
pub fn write_marks(dir: &Path, marks: &Marks) -> Result<(), Error> {
    let (path, draft) = (dir.join(MARKS), dir.join("marks.json.new"));
    let bytes = serde_json::to_vec(marks)
        .map_err(|e| Error::internal(format!("cannot encode the marks of nodes: {e}")))?;
    let written = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&draft, &path));
    written.map_err(|e| failed(&path, &e))?;
    sync_folder(dir)
}

/// Reads what [`write_marks`] wrote. Without it reports that come again are stored again: that is
/// told, and no reason to have no audit.
///
/// # Errors
/// Those of the system.
pub fn read_marks(dir: &Path) -> Result<Marks, Error> {
    let path = dir.join(MARKS);
    match fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::error!(path = %path.display(), %error,
                "how far nodes have reported is not known: what they report again is stored twice");
            Marks::new()
        })),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Marks::new()),
        Err(e) => Err(failed(&path, &e)),
    }
}

fn sync_folder(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|f| f.sync_all()).map_err(|e| failed(dir, &e))
}

/// What reading a file came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Bytes up to the end of the last whole line.
    pub whole: u64,
    /// There is half a line behind them.
    pub torn: bool,
}

/// Goes over the lines in the first bytes of a file, as many as `segment` has; `each` gets them
/// too.
///
/// # Errors
/// Those of the system.
pub fn scan(
    segment: &Segment,
    walk: &mut Walk,
    mut each: impl FnMut(&[u8]),
) -> Result<Scanned, Error> {
    let io = |e: io::Error| failed(&segment.path, &e);
    let file = File::open(&segment.path).map_err(io)?;
    let mut reader = BufReader::with_capacity(BUFFER, file.take(segment.len));
    walk.file(&segment.name(), segment.first);
    let mut line = Vec::new();
    let mut whole = 0;
    loop {
        line.clear();
        let n = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(io)?;
        if n == 0 {
            return Ok(Scanned { whole, torn: false });
        }
        if line.pop_if(|last| *last == b'\n').is_some() {
            whole += n as u64;
            walk.line(&line);
            each(&line);
        } else if n as u64 == LINE_BYTES_MAX {
            whole += n as u64 + skip_line(&mut reader).map_err(io)?;
            walk.no_line("it is too long for a line of an audit");
        } else {
            return Ok(Scanned { whole, torn: true });
        }
    }
}

/// Reads up to the end of a line; how many bytes that were.
///
/// # Errors
/// Those of the system.
pub fn skip_line(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|b| *b == b'\n');
        let used = end.map_or(buffer.len(), |at| at + 1);
        reader.consume(used);
        skipped += used as u64;
        if end.is_some() || used == 0 {
            return Ok(skipped);
        }
    }
}
