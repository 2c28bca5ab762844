//! Objects on disk: one backing file per file and OSD, object after object.
//!
//! `<volume>/<xx>/<yy>/<inode, 16 hex digits>`, where `xx` and `yy` are the inode's lowest bytes.
//! A path consists of a checked volume id and digits only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::fs::OFlags;
use xtreemfs_proto::{Errno, RpcError};

use crate::cache::Cache;
use crate::ids::VolumeId;

/// Most backing files kept open.
pub const HANDLES_MAX: usize = 1024;
/// Bytes that may be written before the disk's free space is looked at again.
const CHECK_SPACE_BYTES: i64 = 64 << 20;
/// Folder within the root that dropped volumes are moved to.
const TRASH: &str = ".trash";

/// Why the disk did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The file system failed: the operator must look.
    #[error("{path}: {source}")]
    File {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The disk is full, up to the reserve.
    #[error("no space left for objects in {0}")]
    Full(PathBuf),
}

impl ObjectsError {
    /// What the client is told; paths stay here.
    pub fn to_rpc(&self) -> RpcError {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let errno = match self {
            Self::Full(_) => Errno::ENOSPC,
            Self::File { source, .. } => match source.kind() {
                StorageFull => Errno::ENOSPC,
                QuotaExceeded => Errno::EDQUOT,
                FileTooLarge => Errno::EFBIG,
                _ => Errno::EIO,
            },
        };
        if errno == Errno::EIO {
            tracing::error!(error = %self, "objects");
        }
        RpcError::errno(errno, format!("object server: {}", errno.text()))
    }
}

/// Adds the path to an error.
fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, ObjectsError> {
    result.map_err(|source| ObjectsError::File { path: path.to_owned(), source })
}

/// Names a backing file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FileKey {
    pub(super) volume: VolumeId,
    pub(super) inode: u64,
}

/// Space for objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Free, in bytes, without the reserve.
    pub free_bytes: u64,
    /// Free and used, in bytes.
    pub total_bytes: u64,
}

/// An open backing file.
#[derive(Debug)]
struct Handle {
    file: File,
    /// Newest truncate epoch seen; forgotten when the file is closed.
    epoch: AtomicU32,
    /// Whether its name is known to be on disk.
    name_synced: AtomicBool,
}

/// All backing files of an OSD.
#[derive(Debug)]
pub struct ObjectStore {
    root: PathBuf,
    handles: Mutex<Cache<FileKey, Arc<Handle>>>,
    reserve_bytes: u64,
    /// Bytes that may be written before the free space is looked at.
    unchecked: AtomicI64,
}

impl ObjectStore {
    /// Opens the store in a folder, which is made if needed.
    ///
    /// # Errors
    /// See [`ObjectsError`].
    pub fn open(root: &Path, reserve_bytes: u64) -> Result<Self, ObjectsError> {
        at(root, DirBuilder::new().recursive(true).mode(0o700).create(root))?;
        let store = Self {
            root: root.to_owned(),
            handles: Mutex::new(Cache::new(HANDLES_MAX)),
            reserve_bytes,
            unchecked: AtomicI64::new(0),
        };
        store.empty_trash()?;
        Ok(store)
    }

    fn handles(&self) -> MutexGuard<'_, Cache<FileKey, Arc<Handle>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, key: &FileKey) -> PathBuf {
        let inode = key.inode;
        let name = format!("{:02x}/{:02x}/{inode:016x}", inode & 0xff, inode >> 8 & 0xff);
        self.root.join(key.volume.as_str()).join(name)
    }

    /// The open backing file; `None` if there is none and `create` does not ask for one.
    fn handle(&self, key: &FileKey, create: bool) -> Result<Option<Arc<Handle>>, ObjectsError> {
        if let Some(handle) = self.handles().find(key) {
            return Ok(Some(handle));
        }
        let path = self.path(key);
        let Some(file) = open(&path, create)? else { return Ok(None) };
        let mut handles = self.handles();
        // Another thread may have been faster; there must be one handle per file.
        if let Some(handle) = handles.find(key) {
            return Ok(Some(handle));
        }
        let handle = Arc::new(Handle {
            file,
            epoch: AtomicU32::new(0),
            name_synced: AtomicBool::new(false),
        });
        handles.insert(key.clone(), handle.clone());
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
        let path = || self.path(key);
        let held = handle.file.metadata().map_err(|e| failed(path(), e))?.len();
        let length = held.saturating_sub(offset).min(length as u64) as usize;
        let mut data = vec![0; length];
        let mut done = 0;
        while done < length {
            match handle.file.read_at(&mut data[done..], offset + done as u64) {
                // Cut by somebody else meanwhile.
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(path(), error)),
            }
        }
        data.truncate(done);
        Ok(data.into())
    }

    /// Writes; gives the newest truncate epoch seen.
    pub(super) fn write(
        &self,
        key: &FileKey,
        offset: u64,
        data: &[u8],
        epoch: u32,
    ) -> Result<u32, ObjectsError> {
        if !self.has_space(data.len()) {
            self.need_no_space(key, offset, data.len())?;
        }
        let Some(handle) = self.handle(key, true)? else {
            return Err(failed(self.path(key), io::ErrorKind::NotFound.into()));
        };
        let seen = handle.epoch.fetch_max(epoch, Ordering::Relaxed).max(epoch);
        handle.file.write_all_at(data, offset).map_err(|e| failed(self.path(key), e))?;
        Ok(seen)
    }

    /// Cuts the backing file to `length` unless a newer truncation was seen; gives its length.
    /// It is never made longer: what lies behind its end reads as zeros anyway.
    pub(super) fn truncate(
        &self,
        key: &FileKey,
        length: u64,
        epoch: u32,
    ) -> Result<u64, ObjectsError> {
        let Some(handle) = self.handle(key, false)? else { return Ok(0) };
        let seen = handle.epoch.fetch_max(epoch, Ordering::Relaxed);
        let path = || self.path(key);
        let held = handle.file.metadata().map_err(|e| failed(path(), e))?.len();
        if seen > epoch || held <= length {
            return Ok(held);
        }
        handle.file.set_len(length).map_err(|e| failed(path(), e))?;
        Ok(length)
    }

    /// Deletes the backing file, if there is one.
    pub(super) fn unlink(&self, key: &FileKey) -> Result<(), ObjectsError> {
        let path = self.path(key);
        self.handles().remove(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, error)),
            _ => Ok(()),
        }
    }

    /// Length of the backing file, in bytes.
    pub(super) fn length(&self, key: &FileKey) -> Result<u64, ObjectsError> {
        let Some(handle) = self.handle(key, false)? else { return Ok(0) };
        let metadata = handle.file.metadata().map_err(|e| failed(self.path(key), e))?;
        Ok(metadata.len())
    }

    /// Makes the backing file and its name durable.
    pub(super) fn sync(&self, key: &FileKey) -> Result<(), ObjectsError> {
        let Some(handle) = self.handle(key, false)? else { return Ok(()) };
        let path = self.path(key);
        at(&path, handle.file.sync_data())?;
        if handle.name_synced.load(Ordering::Acquire) {
            return Ok(());
        }
        let folders = path.ancestors().skip(1).take_while(|dir| dir.starts_with(&self.root));
        for dir in folders {
            at(dir, File::open(dir).and_then(|dir| dir.sync_all()))?;
        }
        handle.name_synced.store(true, Ordering::Release);
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

    /// Drops all objects of a volume.
    pub(super) fn drop_volume(&self, volume: &VolumeId) -> Result<(), ObjectsError> {
        let path = self.root.join(volume.as_str());
        let trash = self.root.join(TRASH);
        at(&trash, fs::create_dir_all(&trash))?;
        // A volume id is never used twice, so the name is free.
        match fs::rename(&path, trash.join(volume.as_str())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => at(&path, result)?,
        }
        self.handles().retain(|key| key.volume != *volume);
        self.empty_trash()
    }

    fn empty_trash(&self) -> Result<(), ObjectsError> {
        let trash = self.root.join(TRASH);
        match fs::remove_dir_all(&trash) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(trash, error)),
            _ => Ok(()),
        }
    }
}

fn failed(path: PathBuf, source: io::Error) -> ObjectsError {
    ObjectsError::File { path, source }
}

fn open(path: &Path, create: bool) -> Result<Option<File>, ObjectsError> {
    let nofollow = OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false).mode(0o600);
    options.custom_flags(nofollow);
    match options.open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path.into(), error)),
        Err(_) if !create => Ok(None),
        Err(_) => {
            let dir = path.parent().unwrap_or(path);
            at(dir, fs::create_dir_all(dir))?;
            at(path, options.open(path)).map(Some)
        }
    }
}
