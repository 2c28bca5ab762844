//! Reading what units wrote to their spool files.
//!
//! A spool file may grow to the envelope's `spool_bytes_max`, and all of an envelope, those of
//! ended units too, to its `spool_total_bytes_max`. They are measured twice a second: a longer one,
//! or the largest that are too much together, are cut back and their units ended
//! ([`crate::event::Cause::SpoolLimit`]). So the disk must have room for what units write in half
//! a second beyond the limit. While it has less than a reserve free (a gigabyte, or a twentieth of
//! a small disk), no unit is started, and one with more than a megabyte of output is ended; it
//! keeps what it has. `RLIMIT_FSIZE` is not used, since it would hold for the unit's own files too.
//! The empty file of a unit that ended without output may serve another one.

use crate::shim::Stream;
use crate::spec::UnitKey;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Most bytes of one piece.
pub const PIECE_BYTES_MAX: usize = 1024 * 1024;

/// A piece of a unit's output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The bytes from the offset that was asked for; empty at the end.
    pub bytes: Vec<u8>,
    /// How long the file is now.
    pub total: u64,
}

/// Why output cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The unit holds a lease on its own output; the kernel takes it away shortly.
    #[error("the output of {0} is held by the unit itself: try again in a minute")]
    Busy(UnitKey),
    /// The node's disk or state folder.
    #[error("cannot read the output of {unit}: {source}")]
    Io {
        /// Whose.
        unit: UnitKey,
        /// Why not.
        source: io::Error,
    },
}

/// Reads up to `max` bytes (at most [`PIECE_BYTES_MAX`]) of a unit's output from `offset` on. A
/// unit without output, or unknown, gives an empty piece.
///
/// # Errors
/// [`OutputError`].
pub fn read(
    spool: &Path,
    unit: &UnitKey,
    stream: Stream,
    offset: u64,
    max: usize,
) -> Result<Piece, OutputError> {
    let fail = |source: io::Error| OutputError::Io { unit: unit.clone(), source };
    // The person owns the file and can neither move nor replace it, only lease it.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let path = spool.join(stream.file_name(unit));
    let fd = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(Piece::default()),
        Err(Errno::WOULDBLOCK) => return Err(OutputError::Busy(unit.clone())),
        Err(e) => return Err(fail(e.into())),
    };
    let stat = rustix::fs::fstat(&fd).map_err(|e| fail(e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(fail(io::Error::new(io::ErrorKind::InvalidData, "not a plain file")));
    }
    let total = u64::try_from(stat.st_size).unwrap_or(0);
    let mut bytes = vec![0; max.min(PIECE_BYTES_MAX).min(total.saturating_sub(offset) as usize)];
    let file = File::from(fd);
    let mut at = 0;
    while at < bytes.len() {
        match file.read_at(&mut bytes[at..], offset + at as u64) {
            Ok(0) => break,
            Ok(n) => at += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(fail(e)),
        }
    }
    // It may have been cut meanwhile.
    bytes.truncate(at);
    // Or handed on to another unit, whose output this is then.
    match rustix::fs::lstat(&path) {
        Ok(now) if now.st_ino == stat.st_ino => Ok(Piece { bytes, total }),
        Ok(_) | Err(Errno::NOENT) => Ok(Piece::default()),
        Err(e) => Err(fail(e.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_bounds_and_links_are_refused() {
        // wrong: a request could read any file of root's, or take all memory
        let dir = tempfile::tempdir().unwrap();
        let unit: UnitKey = "1.a:0".parse().unwrap();
        let get = |stream, offset, max| read(dir.path(), &unit, stream, offset, max);
        assert_eq!(get(Stream::Stdout, 0, 10).unwrap(), Piece::default());
        std::fs::write(dir.path().join("1.a:0.out"), "hello").unwrap();
        let piece = get(Stream::Stdout, 1, 3).unwrap();
        assert_eq!((piece.bytes.as_slice(), piece.total), (&b"ell"[..], 5));
        assert!(get(Stream::Stdout, 9, usize::MAX).unwrap().bytes.is_empty());
        assert!(get(Stream::Stdout, u64::MAX, usize::MAX).unwrap().bytes.is_empty());
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("1.a:0.err")).unwrap();
        assert!(get(Stream::Stderr, 0, 10).is_err());
    }
}
