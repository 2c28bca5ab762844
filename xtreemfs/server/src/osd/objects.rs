//! Objects on disk: one backing file per file and OSD, object after object.
//!
//! `<VO>/<volume>/<xx>/<yy>/<inode, 16 hex digits>`, where `xx` and `yy` are the inode's lowest
//! bytes. The VO stands first, since a volume's id is only what the VO's own services say: a
//! capability that is good for one VO reaches nothing of another, whatever id it names. A path
//! consists of a checked name, a checked id and digits only. A file of its own says whose objects
//! these are ([`marker`]).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::ids::{VoName, VolumeId};
use crate::osd::backing::Backing;
use crate::osd::error::{ObjectsError, at, failed};
use crate::osd::failures::Failures;
use crate::osd::handles::Handles;
use crate::osd::marker;

/// Bytes that may be written before the disk's free space is looked at again.
const CHECK_SPACE_BYTES: i64 = 64 << 20;

/// Names a backing file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FileKey {
    pub(super) vo: VoName,
    pub(super) volume: VolumeId,
    pub(super) inode: u64,
}

/// What a capability says of truncations, as far as it concerns one OSD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Owed {
    /// Number of the newest one.
    pub(super) epoch: u64,
    /// Those that may not have been made: number, and what is left of the objects, in bytes.
    pub(super) cuts: Vec<(u64, u64)>,
}

/// Space for objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Free, in bytes, without the reserve.
    pub free_bytes: u64,
    /// Free and used, in bytes.
    pub total_bytes: u64,
}

/// All backing files of an OSD.
#[derive(Debug)]
pub struct ObjectStore {
    root: PathBuf,
    handles: Mutex<Handles>,
    reserve_bytes: u64,
    /// Bytes that may be written before the free space is looked at.
    unchecked: AtomicI64,
    failures: Failures,
    /// Makes a file's content durable.
    sync_data: fn(&File) -> io::Result<()>,
    _marker: File,
}

impl ObjectStore {
    /// Opens the store of OSD `id` in a folder. If it `had_objects` before, that must be there and
    /// its own; else it is made if needed.
    ///
    /// # Errors
    /// See [`ObjectsError`].
    pub fn open(
        root: &Path,
        id: &str,
        had_objects: bool,
        reserve_bytes: u64,
    ) -> Result<Self, ObjectsError> {
        Ok(Self {
            _marker: marker::claim(root, id, had_objects)?,
            root: root.to_owned(),
            handles: Mutex::new(Handles::new()),
            reserve_bytes,
            unchecked: AtomicI64::new(0),
            failures: Failures::default(),
            sync_data: File::sync_data,
        })
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Forgets the open files of a VO.
    pub(super) fn forget(&self, vo: &VoName) {
        self.handles().forget(vo);
    }

    fn path(&self, key: &FileKey) -> PathBuf {
        let inode = key.inode;
        let name = format!("{:02x}/{:02x}/{inode:016x}", inode & 0xff, inode >> 8 & 0xff);
        self.root.join(key.vo.as_str()).join(key.volume.as_str()).join(name)
    }

    /// The open backing file; `None` if there is none and `create` does not ask for one.
    fn handle(&self, key: &FileKey, create: bool) -> Result<Option<Arc<Backing>>, ObjectsError> {
        if let Some(handle) = self.handles().find(key) {
            return Ok(Some(handle));
        }
        let path = self.path(key);
        let Some(backing) = at(&path, Backing::open(&path, create))? else { return Ok(None) };
        let mut handles = self.handles();
        // Another thread may have been faster; there must be one handle per file.
        if let Some(handle) = handles.find(key) {
            return Ok(Some(handle));
        }
        let handle = Arc::new(backing);
        handles.insert(key.clone(), &handle);
        Ok(Some(handle))
    }

    /// Reads up to `length` bytes; fewer at the end of the backing file.
    pub(super) fn read(
        &self,
        key: &FileKey,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, ObjectsError> {
        let Some(handle) = self.handle(key, false)? else { return Ok(Bytes::new()) };
        let path = self.path(key);
        let held = at(&path, handle.len())?;
        let mut data = vec![0; held.saturating_sub(offset).min(length as u64) as usize];
        // Fewer, if it was cut by somebody else meanwhile.
        let read = at(&path, handle.read(&mut data, offset))?;
        data.truncate(read);
        Ok(data.into())
    }

    /// Writes; gives the newest truncate epoch seen.
    pub(super) fn write(
        &self,
        key: &FileKey,
        offset: u64,
        data: &[u8],
        epoch: u64,
    ) -> Result<u64, ObjectsError> {
        if !self.has_space(data.len()) {
            self.need_no_space(key, offset, data.len())?;
        }
        let Some(handle) = self.handle(key, true)? else {
            return Err(failed(self.path(key), io::ErrorKind::NotFound.into()));
        };
        handle.write(data, offset, epoch).map_err(|e| failed(self.path(key), e))
    }

    /// Makes the truncations that are owed; gives the objects' length. They are never made longer:
    /// what lies behind their end reads as zeros anyway. Durable on return, else what was cut off
    /// could come back behind what is written later; and remembered where there are no objects yet,
    /// for truncations that come late.
    pub(super) fn truncate(&self, key: &FileKey, owed: &Owed) -> Result<u64, ObjectsError> {
        let Some(handle) = self.handle(key, owed.epoch > 0)? else { return Ok(0) };
        self.cut(key, &handle, owed)?;
        // Also when it was made before: that one may have been broken off in front of this.
        self.sync_open(key, &handle)?;
        at(&self.path(key), handle.len())
    }

    /// Makes the truncations that are owed, if there are objects.
    pub(super) fn settle(&self, key: &FileKey, owed: &Owed) -> Result<(), ObjectsError> {
        if owed.cuts.is_empty() {
            return Ok(());
        }
        match self.handle(key, false)? {
            Some(handle) => self.cut(key, &handle, owed),
            None => Ok(()),
        }
    }

    fn cut(&self, key: &FileKey, handle: &Backing, owed: &Owed) -> Result<(), ObjectsError> {
        let path = self.path(key);
        let mut newest = handle.epoch();
        let open = owed.cuts.iter().filter(|(epoch, _)| *epoch > *newest);
        if let Some(length) = open.map(|(_, length)| *length).min() {
            if at(&path, handle.len())? > length {
                at(&path, handle.cut(length))?;
            }
            // The head must not say so on the disk before it is true there.
            self.sync_open(key, handle)?;
            at(&path, handle.raise(&mut newest, owed.epoch))?;
        }
        Ok(())
    }

    /// Deletes the backing file, if there is one.
    pub(super) fn unlink(&self, key: &FileKey) -> Result<(), ObjectsError> {
        let path = self.path(key);
        self.handles().remove(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, error)),
            _ => {
                self.failures.forget(key);
                Ok(())
            }
        }
    }

    /// Length of the objects, in bytes.
    pub(super) fn length(&self, key: &FileKey) -> Result<u64, ObjectsError> {
        let Some(handle) = self.handle(key, false)? else { return Ok(0) };
        at(&self.path(key), handle.len())
    }

    /// Makes the backing file and its name durable. None there is no error: nothing was written to
    /// it here, or the machine lost it, which the verifier tells the writer. Once this has failed
    /// for a file, it fails until the server is started anew: what was lost then would be taken for
    /// stored.
    pub(super) fn sync(&self, key: &FileKey) -> Result<(), ObjectsError> {
        match self.handle(key, false)? {
            Some(handle) => self.sync_open(key, &handle),
            None => Ok(()),
        }
    }

    fn sync_open(&self, key: &FileKey, handle: &Backing) -> Result<(), ObjectsError> {
        let path = self.path(key);
        let _one = handle.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let name_synced = handle.name_synced.load(Ordering::Acquire);
        if self.failures.has(key, name_synced) {
            return Err(ObjectsError::NotSynced(path));
        }
        if let Err(error) = (self.sync_data)(handle.file()) {
            tracing::error!(path = %path.display(), %error, "objects not synced");
            self.failures.note(key);
            return Err(ObjectsError::NotSynced(path));
        }
        if !name_synced {
            self.sync_names(&path)?;
            handle.name_synced.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn sync_names(&self, path: &Path) -> Result<(), ObjectsError> {
        let folders = path.ancestors().skip(1).take_while(|dir| dir.starts_with(&self.root));
        for dir in folders {
            if let Err(error) = File::open(dir).and_then(|dir| dir.sync_all()) {
                tracing::error!(path = %dir.display(), %error, "names of objects not synced");
                self.failures.note_names();
                return Err(ObjectsError::NotSynced(dir.to_owned()));
            }
        }
        Ok(())
    }

    /// Free and total space.
    pub(super) fn space(&self) -> Result<Space, ObjectsError> {
        let stat = rustix::fs::statvfs(&self.root);
        let stat = at(&self.root, stat.map_err(io::Error::from))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        Ok(Space {
            free_bytes: free.saturating_sub(self.reserve_bytes),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }

    /// Whether so many bytes can surely be written without touching the reserve.
    fn has_space(&self, bytes: usize) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.unchecked.fetch_sub(bytes, Ordering::Relaxed) >= bytes
    }

    /// Looks at the free space; on a full disk only what is there already may be overwritten.
    fn need_no_space(&self, key: &FileKey, offset: u64, bytes: usize) -> Result<(), ObjectsError> {
        let free = self.space()?.free_bytes;
        let bytes = bytes as u64;
        if free > bytes {
            let budget = i64::try_from(free - bytes).unwrap_or(i64::MAX).min(CHECK_SPACE_BYTES);
            self.unchecked.store(budget, Ordering::Relaxed);
            return Ok(());
        }
        self.unchecked.store(0, Ordering::Relaxed);
        if offset + bytes <= self.length(key)? {
            return Ok(());
        }
        Err(ObjectsError::Full(self.root.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(inode: u64) -> FileKey {
        let vo = VoName::parse("demo.rennes").unwrap();
        FileKey { vo, volume: VolumeId::parse("home").unwrap(), inode }
    }

    fn to(length: u64, epoch: u64) -> Owed {
        Owed { epoch, cuts: vec![(epoch, length)] }
    }

    fn store(root: &Path, had_objects: bool) -> Result<ObjectStore, ObjectsError> {
        ObjectStore::open(root, "osd-a", had_objects, 0)
    }

    /// The kernel tells of a failed sync once. If the store did as well, the next client that syncs
    /// would hear that its bytes are stored, though they are lost.
    #[test]
    fn a_failed_sync_is_told_to_everybody_until_the_server_is_started_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = store(dir.path(), false).unwrap();
        for inode in [5, 6] {
            store.write(&key(inode), 0, b"data", 0).unwrap();
        }
        store.sync_data = |_| Err(io::Error::other("the disk is broken"));
        assert!(matches!(store.sync(&key(5)), Err(ObjectsError::NotSynced(_))));
        store.sync_data = File::sync_data;
        for _ in 0..2 {
            let told = store.sync(&key(5)).unwrap_err();
            assert!(matches!(told, ObjectsError::NotSynced(_)), "{told}");
        }
        // Also when its file was closed meanwhile, and whatever is written to it.
        *store.handles() = Handles::new();
        store.write(&key(5), 0, b"more", 0).unwrap();
        assert!(store.sync(&key(5)).is_err(), "forgotten with the open file");
        assert!(store.truncate(&key(5), &to(0, 1)).is_err(), "a truncation is durable on return");
        store.sync(&key(6)).unwrap();
        store.unlink(&key(5)).unwrap();
        store.sync(&key(5)).unwrap();
    }

    /// Else a truncation that comes late cuts what was written after a newer one, and a writer is
    /// not told that the file was cut meanwhile.
    #[test]
    fn a_truncation_is_remembered_without_objects_and_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = store(dir.path(), false).unwrap();
        assert_eq!(first.truncate(&key(5), &to(0, 7)).unwrap(), 0);
        for _ in 0..2 {
            let again = store(dir.path(), true).unwrap();
            assert_eq!(again.write(&key(5), 0, b"kept", 6).unwrap(), 7);
            assert_eq!(again.truncate(&key(5), &to(0, 6)).unwrap(), 4, "an older one came late");
            assert_eq!(again.truncate(&key(5), &to(0, 7)).unwrap(), 4, "it came twice");
            assert_eq!(again.read(&key(5), 0, 9).unwrap(), b"kept"[..]);
        }
        let last = store(dir.path(), true).unwrap();
        assert_eq!(last.truncate(&key(5), &to(2, 8)).unwrap(), 2);
        assert_eq!(last.read(&key(5), 0, 9).unwrap(), b"ke"[..]);
        last.settle(&key(5), &to(0, 8)).unwrap();
        last.settle(&key(5), &Owed { epoch: 9, cuts: vec![(8, 0), (9, 1)] }).unwrap();
        last.settle(&key(6), &to(1, 9)).unwrap();
        assert_eq!(last.length(&key(6)).unwrap(), 0);
        assert_eq!(last.read(&key(5), 0, 9).unwrap(), b"k"[..]);
        assert_eq!(last.write(&key(5), 1, b"", 0).unwrap(), 9);
    }

    /// An object server whose disk is not mounted finds an empty folder, and would serve zeros for
    /// every file; one with another's disk would serve and overwrite that one's objects.
    #[test]
    fn a_folder_that_is_not_its_own_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (own, absent) = (dir.path().join("own"), dir.path().join("absent"));
        drop(store(&own, false).unwrap());
        drop(store(&own, true).unwrap());
        let refused = store(&absent, true).unwrap_err();
        assert!(matches!(refused, ObjectsError::Missing { .. }), "{refused}");
        assert!(!absent.exists(), "it made the folder");
        fs::create_dir(&absent).unwrap();
        let refused = store(&absent, true).unwrap_err();
        assert!(matches!(refused, ObjectsError::Missing { .. }), "{refused}");
        for had_objects in [false, true] {
            let refused = ObjectStore::open(&own, "osd-b", had_objects, 0).unwrap_err();
            assert!(matches!(refused, ObjectsError::Foreign { .. }), "{refused}");
        }
    }
}
