//! What processes hold open: files and directories, by the numbers given to the kernel.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use xtreemfs_client::{Error, File, Ino, Member, Page};

/// Directories open at one time.
const DIRECTORIES_MAX: usize = 65_536;

/// An open file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) file: File,
    pub(crate) ino: Ino,
    /// Who opened it.
    pub(crate) who: Member,
    /// Opened with `O_SYNC` or `O_DSYNC`: a write is answered when it is on the disks.
    pub(crate) synchronous: bool,
}

/// An open directory: the person who opened it and the page last read.
#[derive(Debug)]
pub(crate) struct OpenDirectory {
    pub(crate) ino: Ino,
    pub(crate) who: Member,
    pub(crate) page: tokio::sync::Mutex<Option<(u64, Page)>>,
}

/// All that is open.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    next: AtomicU64,
    files: RwLock<HashMap<u64, Arc<OpenFile>>>,
    directories: RwLock<HashMap<u64, Arc<OpenDirectory>>>,
}

impl Handles {
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Keeps an open file; how many there are is limited by the client.
    pub(crate) fn add_file(&self, file: OpenFile) -> u64 {
        let number = self.number();
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        files.insert(number, Arc::new(file));
        number
    }

    pub(crate) fn file(&self, handle: u64) -> Result<Arc<OpenFile>, Error> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.get(&handle).cloned().ok_or_else(|| bad(handle))
    }

    /// Who opened a file.
    pub(crate) fn file_opener(&self, handle: u64) -> Result<Member, Error> {
        self.file(handle).map(|open| open.who)
    }

    pub(crate) fn remove_file(&self, handle: u64) -> Result<Arc<OpenFile>, Error> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        files.remove(&handle).ok_or_else(|| bad(handle))
    }

    pub(crate) fn add_directory(&self, directory: OpenDirectory) -> Result<u64, Error> {
        let number = self.number();
        let mut all = self.directories.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= DIRECTORIES_MAX {
            let reason = format!("more than {DIRECTORIES_MAX} directories are open in this mount");
            return Err(Error::Local { errno: libc::ENFILE, reason });
        }
        all.insert(number, Arc::new(directory));
        Ok(number)
    }

    pub(crate) fn directory(&self, handle: u64) -> Result<Arc<OpenDirectory>, Error> {
        let all = self.directories.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&handle).cloned().ok_or_else(|| bad(handle))
    }

    /// Who opened a directory.
    pub(crate) fn directory_opener(&self, handle: u64) -> Result<Member, Error> {
        self.directory(handle).map(|open| open.who)
    }

    pub(crate) fn remove_directory(&self, handle: u64) {
        let mut all = self.directories.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(&handle);
    }
}

fn bad(handle: u64) -> Error {
    Error::Local { errno: libc::EBADF, reason: format!("handle {handle} is not open") }
}
