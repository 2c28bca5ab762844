//! The objects of a VO that is no more.
//!
//! Its folder is renamed, which is one step and durable, and then removed piece by piece: what a
//! crash leaves of it is removed by the next [`Osd::sweep`].

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xtreemfs_proto::RpcError;

use crate::ids::VoName;
use crate::osd::Osd;
use crate::osd::error::{ObjectsError, at, failed};
use crate::osd::objects::ObjectStore;

/// What folders that are being removed begin with: no VO's name does.
const GONE: &str = ".gone-";

impl ObjectStore {
    /// Takes all objects of a VO away from those who would reach them; durable on return. Gives
    /// whether there were any.
    fn take_away(&self, vo: &VoName) -> Result<bool, ObjectsError> {
        let root = self.root();
        let from = root.join(vo.as_str());
        // A VO may have had objects after it was erased once.
        let free = (0u32..).map(|n| root.join(format!("{GONE}{n}-{vo}"))).find(|to| !to.exists());
        let Some(to) = free else { return Err(failed(from, io::ErrorKind::AlreadyExists.into())) };
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            renamed => {
                at(&from, renamed)?;
                self.forget(vo);
                at(root, File::open(root).and_then(|root| root.sync_all()))?;
                Ok(true)
            }
        }
    }

    /// Removes what was taken away.
    fn sweep(&self) -> Result<(), ObjectsError> {
        for gone in at(self.root(), gone(self.root()))? {
            match fs::remove_dir_all(&gone) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => at(&gone, removed)?,
            }
        }
        Ok(())
    }
}

/// The folders that are being removed.
fn gone(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(GONE.as_bytes()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

impl Osd {
    /// Takes all objects of a VO away, for good: on return nobody reaches them any more, whatever
    /// happens to this server. [`Osd::sweep`] gives their space back. Without any it does nothing.
    ///
    /// # Errors
    /// `EIO` and the like when the disk did not do it: to be tried again.
    pub async fn erase(self: &Arc<Self>, vo: &VoName) -> Result<bool, RpcError> {
        let vo = vo.clone();
        self.blocking(move |objects| objects.take_away(&vo)).await
    }

    /// Removes what was taken away; to be called at each start too.
    ///
    /// # Errors
    /// As [`Osd::erase`].
    pub async fn sweep(self: &Arc<Self>) -> Result<(), RpcError> {
        self.blocking(ObjectStore::sweep).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::VolumeId;
    use crate::osd::objects::FileKey;

    fn key(vo: &str) -> FileKey {
        let (vo, volume) = (VoName::parse(vo).unwrap(), VolumeId::parse("0f").unwrap());
        FileKey { vo, volume, inode: 5 }
    }

    /// If it failed, objects of a VO that is no more would stay, or come back with a restart in the
    /// middle; or another VO's would go.
    #[test]
    fn the_objects_of_one_vo_go_and_a_crash_in_between_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let open = |had| ObjectStore::open(dir.path(), "osd-a", had, 0).unwrap();
        let store = open(false);
        for vo in ["old.rennes", "old.rennes.pisa", "demo.rennes"] {
            store.write(&key(vo), 0, b"data", 0).unwrap();
        }
        let old = VoName::parse("old.rennes").unwrap();
        assert!(store.take_away(&old).unwrap());
        assert_eq!(store.read(&key("old.rennes"), 0, 9).unwrap(), b""[..], "by an open handle");
        assert!(!store.take_away(&old).unwrap(), "told twice");
        drop(store);
        let store = open(true);
        store.write(&key("old.rennes"), 0, b"late", 0).unwrap();
        assert!(store.take_away(&old).unwrap());
        store.sweep().unwrap();
        store.sweep().unwrap();
        assert!(gone(dir.path()).unwrap().is_empty());
        for vo in ["old.rennes.pisa", "demo.rennes"] {
            assert_eq!(store.read(&key(vo), 0, 9).unwrap(), b"data"[..]);
        }
    }
}
