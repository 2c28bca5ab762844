//! The spool's file.

use crate::agent::keep;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use xos_api::audit::Event;
use xos_base::Error;

/// From which size on it is written anew without what the core has.
const REWRITE_FROM: u64 = 256 * 1024;
/// Longest file that is read, in bytes: what a spool that is full can come to, and more.
const READ_MAX: u64 = 256 * 1024 * 1024;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    /// Names the count; made at random.
    series: String,
    /// The number of the first event that follows.
    first: u64,
}

/// An event on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// From 1, without a gap.
    pub(super) number: u64,
    /// Its line's length, in bytes.
    pub(super) len: u64,
    pub(super) event: Event,
}

/// What there was.
pub(super) struct Found {
    pub(super) kept: Vec<Kept>,
    pub(super) bytes: u64,
    /// Lines that could not be read.
    pub(super) damaged: u64,
}

pub(super) struct File {
    path: PathBuf,
    file: std::fs::File,
    series: String,
    /// The next event's number.
    next: u64,
    bytes: u64,
}

fn encoded(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut line = serde_json::to_vec(value)
        .map_err(|e| Error::internal(format!("cannot encode an event: {e}")))?;
    line.push(b'\n');
    Ok(line)
}

/// A name that no other count has: the kernel's random UUID.
fn new_series() -> Result<String, Error> {
    let path = "/proc/sys/kernel/random/uuid";
    let read = std::fs::read_to_string(path);
    let uuid = read.map_err(|e| Error::internal(format!("cannot read {path}: {e}")))?;
    Ok(uuid.trim().to_owned())
}

/// What a file holds.
struct Read {
    /// Bytes of whole lines. What has no newline at its end was never whole, and counts for
    /// nothing.
    whole: u64,
    head: Option<Head>,
    events: Vec<Event>,
    /// Lines that cannot be read.
    damaged: u64,
}

fn read(bytes: &[u8]) -> Read {
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    let mut lines = bytes[..whole].split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let head = lines.next().and_then(|line| serde_json::from_slice(line).ok());
    let (mut events, mut damaged) = (Vec::new(), 0);
    for line in lines {
        match serde_json::from_slice(line) {
            Ok(event) => events.push(event),
            Err(_) => damaged += 1,
        }
    }
    Read { whole: whole as u64, head, events, damaged }
}

impl File {
    /// Opens the file, or makes it. After damage the count begins anew, so that no number is that
    /// of two events: the core may get some twice, and none is left out. A full disk does not keep
    /// a node from its start.
    pub(super) fn open(path: &Path) -> Result<(File, Found), Error> {
        let fail =
            |e: std::io::Error| Error::internal(format!("cannot read {}: {e}", path.display()));
        let bytes = match std::fs::metadata(path) {
            Ok(m) if m.len() > READ_MAX => {
                return Err(Error::internal(format!("{} is too long", path.display()))
                    .hint("move it aside, and start xosd again"));
            }
            Ok(_) => std::fs::read(path).map_err(fail)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(fail(e)),
        };
        let Read { whole, head, events, damaged } = read(&bytes);
        let good = head.filter(|_| damaged == 0);
        let is_good = good.is_some();
        let Head { series, first } = match good {
            Some(head) => head,
            None => Head { series: new_series()?, first: 1 },
        };
        let mut kept = Vec::new();
        for (event, number) in events.into_iter().zip(first..) {
            let len = encoded(&event)?.len() as u64;
            kept.push(Kept { number, len, event });
        }
        let next = first.saturating_add(kept.len() as u64);
        let (file, bytes) = match is_good {
            true => (opened(path, whole)?, whole),
            false => written(path, &series, next, &kept)?,
        };
        let live = kept.iter().map(|k| k.len).sum();
        let found = Found { kept, bytes: live, damaged };
        Ok((File { path: path.to_owned(), file, series, next, bytes }, found))
    }

    pub(super) fn series(&self) -> &str {
        &self.series
    }

    /// An event as it will stand there; its number comes when it is appended.
    pub(super) fn line(&self, event: Event) -> Result<Kept, Error> {
        let len = encoded(&event)?.len() as u64;
        Ok(Kept { number: 0, len, event })
    }

    /// Appends events, and numbers them. They are on the disk then.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`]; the file is as it was.
    pub(super) fn append(&mut self, kept: &mut [Kept]) -> Result<(), Error> {
        if kept.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for one in kept.iter() {
            lines.extend(encoded(&one.event)?);
        }
        let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
        if let Err(e) = written {
            let error = Error::internal(format!("cannot write {}: {e}", self.path.display()))
                .hint("check the disk's space");
            // What of it is there would have the numbers of what comes next.
            if let Err(e) = self.file.set_len(self.bytes).and_then(|()| self.file.sync_data()) {
                tracing::error!(error = %e, "the end of the node's audit cannot be cut");
            }
            return Err(error);
        }
        self.bytes += lines.len() as u64;
        for one in kept {
            one.number = self.next;
            self.next = self.next.saturating_add(1);
        }
        Ok(())
    }

    /// Whether more than half of it is stored at the core.
    pub(super) fn is_due(&self, live: u64) -> bool {
        self.bytes > REWRITE_FROM && self.bytes / 2 > live
    }

    /// Writes it anew with `kept` only, which are its last events.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`]; the file is as it was.
    pub(super) fn rewrite(&mut self, kept: &[Kept]) -> Result<(), Error> {
        (self.file, self.bytes) = written(&self.path, &self.series, self.next, kept)?;
        Ok(())
    }
}

/// Replaces the file: whole or not at all, also after a power loss. Gives it, open at its end, and
/// its length.
fn written(
    path: &Path,
    series: &str,
    next: u64,
    kept: &[Kept],
) -> Result<(std::fs::File, u64), Error> {
    let first = kept.first().map_or(next, |k| k.number);
    let mut bytes = encoded(&Head { series: series.to_owned(), first })?;
    for one in kept {
        bytes.extend(encoded(&one.event)?);
    }
    keep::write_bytes(path, &bytes)?;
    let len = bytes.len() as u64;
    Ok((opened(path, len)?, len))
}

/// Opens the file at its end, which is after `len` bytes. What is in it is on the disk then: what
/// is read may be reported, and its numbers must not be others' after a power loss.
fn opened(path: &Path, len: u64) -> Result<std::fs::File, Error> {
    let opened = OpenOptions::new().append(true).open(path).and_then(|file| {
        file.set_len(len)?;
        file.sync_data()?;
        Ok(file)
    });
    opened.map_err(|e| Error::internal(format!("cannot open {}: {e}", path.display())))
}
