//! What can go wrong with a journal, split by who must act.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{QUEUE_RECORDS_MAX, RECORD_BYTES_MAX, SNAPSHOT_BYTES_MAX, Seq};

/// Why the journal did not do what was asked. Except for [`JournalError::Unknown`] nothing was
/// stored.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The caller must store less in one record.
    #[error("record of {bytes} bytes is too large for the journal; at most {RECORD_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The caller must make a smaller snapshot.
    #[error("snapshot of {bytes} bytes is too large; at most {SNAPSHOT_BYTES_MAX} are stored")]
    SnapshotTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The caller claims a state that was not journalled yet.
    #[error("snapshot up to record {upto} refused: the journal ends at {last}")]
    SnapshotAhead {
        /// What the snapshot claims to contain.
        upto: Seq,
        /// The last record.
        last: Seq,
    },
    /// The caller's snapshot is older than one stored already.
    #[error("snapshot up to record {upto} refused: one up to {newest} is stored already")]
    SnapshotBehind {
        /// What the snapshot contains.
        upto: Seq,
        /// What the stored one contains.
        newest: Seq,
    },
    /// The disk cannot follow; the caller must refuse its own callers for a while.
    #[error("the journal is busy: more than {QUEUE_RECORDS_MAX} records wait; try again later")]
    Busy,
    /// The site's administrator must free space; the journal goes on by itself then.
    #[error("no space left for the journal {}; nothing was stored: free space and retry", dir.display())]
    Full {
        /// The journal's folder.
        dir: PathBuf,
    },
    /// The record may or may not be stored; the service must restart and replay.
    #[error("whether the journal stored the record is unknown ({cause}); restart the service")]
    Unknown {
        /// What hid the outcome.
        cause: String,
    },
    /// The journal takes nothing more since an earlier write failed half-way; the service must
    /// restart and replay.
    #[error("the journal {} has stopped ({cause}); check the disk, then restart the service", dir.display())]
    Halted {
        /// The journal's folder.
        dir: PathBuf,
        /// The fault that stopped it.
        cause: String,
    },
    /// The site's administrator must look at the disk or the folder's rights.
    #[error("journal file {} failed: {source}; check the disk and the folder's rights", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The site's administrator must restore the folder: records that were acknowledged are
    /// damaged.
    #[error(
        "journal file {} is damaged at byte {offset} ({detail}); nothing was changed: \
         keep a copy of the folder and restore it from the standby or a backup",
        segment.display()
    )]
    Corrupt {
        /// The damaged file.
        segment: PathBuf,
        /// Where the first damaged record begins.
        offset: u64,
        /// What was found.
        detail: String,
    },
    /// The site's administrator must stop the other process.
    #[error("journal {} is in use by another process; stop that one first", dir.display())]
    InUse {
        /// The journal's folder.
        dir: PathBuf,
    },
    /// The journal was closed; the process is ending.
    #[error("the journal is closed; the service is shutting down")]
    Closed,
}

impl JournalError {
    /// Translates an error of the system about `path` in the journal's folder.
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
        if full.contains(&source.kind()) {
            let dir = if path.is_dir() { Some(path) } else { path.parent() };
            return Self::Full { dir: dir.unwrap_or(path).to_path_buf() };
        }
        Self::Io { path: path.to_path_buf(), source }
    }

    /// The same fault once more, for each of the appends it concerns.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Full { dir } => Self::Full { dir: dir.clone() },
            Self::Halted { dir, cause } => Self::Halted { dir: dir.clone(), cause: cause.clone() },
            Self::Closed => Self::Closed,
            Self::Io { path, source } => {
                let source = match source.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => io::Error::new(source.kind(), source.to_string()),
                };
                Self::Io { path: path.clone(), source }
            }
            other => Self::Unknown { cause: other.to_string() },
        }
    }
}
