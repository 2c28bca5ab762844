//! Backing files that are open.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::cache::Cache;
use crate::ids::VoName;
use crate::osd::backing::Backing;
use crate::osd::objects::FileKey;

/// Most backing files kept open beyond those in use.
const HANDLES_MAX: usize = 1024;

/// The open backing files: of each file one, as it alone knows the newest truncation.
#[derive(Debug)]
pub(super) struct Handles {
    kept: Cache<FileKey, Arc<Backing>>,
    /// Those in use that may be kept no more.
    used: HashMap<FileKey, Weak<Backing>>,
}

impl Handles {
    pub(super) fn new() -> Self {
        Self { kept: Cache::new(HANDLES_MAX), used: HashMap::new() }
    }

    /// The open backing file, if it is.
    pub(super) fn find(&mut self, key: &FileKey) -> Option<Arc<Backing>> {
        if let Some(handle) = self.kept.find(key) {
            return Some(handle);
        }
        let handle = self.used.get(key)?.upgrade()?;
        self.kept.insert(key.clone(), handle.clone());
        Some(handle)
    }

    /// Adds one that was not found.
    pub(super) fn insert(&mut self, key: FileKey, handle: &Arc<Backing>) {
        if self.used.len() == self.used.capacity() {
            // So there are at most about twice as many as are open.
            self.used.retain(|_, handle| handle.strong_count() > 0);
        }
        self.used.insert(key.clone(), Arc::downgrade(handle));
        self.kept.insert(key, handle.clone());
    }

    /// Forgets those of a VO.
    pub(super) fn forget(&mut self, vo: &VoName) {
        self.used.retain(|key, _| key.vo != *vo);
        self.kept.retain(|key| key.vo != *vo);
    }

    /// Forgets the backing file of a file that is deleted.
    pub(super) fn remove(&mut self, key: &FileKey) {
        self.used.remove(key);
        self.kept.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::VolumeId;

    /// Else two threads cut and write one file, each by what its own handle knows of truncations.
    #[test]
    fn a_file_in_use_is_not_opened_a_second_time() {
        let dir = tempfile::tempdir().unwrap();
        let key = |inode| {
            let vo = VoName::parse("demo.rennes").unwrap();
            FileKey { vo, volume: VolumeId::parse("home").unwrap(), inode }
        };
        let open = |n: u64| {
            let path = dir.path().join((n % 4).to_string());
            Arc::new(Backing::open(&path, true).unwrap().unwrap())
        };
        let mut handles = Handles::new();
        let used = open(0);
        handles.insert(key(0), &used);
        // As many as fit, some of which share a file: only their number counts here.
        for n in 1..2 * HANDLES_MAX as u64 {
            handles.insert(key(n), &open(n));
        }
        assert!(Arc::ptr_eq(&handles.find(&key(0)).unwrap(), &used));
        assert!(handles.find(&key(1)).is_none(), "nobody uses it");
        assert!(handles.used.len() < 4 * HANDLES_MAX);
        handles.remove(&key(0));
        assert!(handles.find(&key(0)).is_none());
    }
}
