//! Which files could not be synced. The kernel tells of a failed write to the disk once, and holds
//! the bytes for clean afterwards: a second sync would succeed though they are lost.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::osd::objects::FileKey;

/// Most files that are told apart; with more, no sync succeeds any more.
pub(super) const FAILED_MAX: usize = 65_536;

#[derive(Debug, Default)]
struct Noted {
    files: HashSet<FileKey>,
    names: bool,
    all: bool,
}

/// What failed since the object server was started.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<Noted>);

impl Failures {
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file's content could not be synced.
    pub(super) fn note(&self, key: &FileKey) {
        let mut noted = self.lock();
        if noted.files.len() < FAILED_MAX {
            noted.files.insert(key.clone());
        } else {
            noted.all = true;
        }
    }

    /// A folder could not be synced: no name that was not synced before is known to be on disk.
    pub(super) fn note_names(&self) {
        self.lock().names = true;
    }

    /// Whether an earlier sync of the file failed, or of names while its own was not synced.
    pub(super) fn has(&self, key: &FileKey, name_synced: bool) -> bool {
        let noted = self.lock();
        noted.all || noted.files.contains(key) || (noted.names && !name_synced)
    }

    /// The file was deleted.
    pub(super) fn forget(&self, key: &FileKey) {
        self.lock().files.remove(key);
    }
}
