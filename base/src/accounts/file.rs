//! The account file as a process uses it: mapped once, mapped anew when it was replaced.

use std::{
    fs::{self, Metadata, OpenOptions},
    hint,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
};

use super::{AccountsError, AccountsView, layout::Layout, sys::Map};

/// How often the lock is tried before a lookup goes its own way.
const LOCK_TRIES: u32 = 100;

/// Whose files are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Only a file that nobody but root can write: for whatever decides about rights.
    Root,
    /// Any file: for tests and tools that look at a copy.
    Anybody,
}

/// An account file at a path; may be a `static`. Lookups in many threads never wait for one another.
#[derive(Debug)]
pub struct AccountsFile<P = PathBuf> {
    path: P,
    owner: Owner,
    current: Mutex<Option<Arc<Mapped>>>,
}

/// One state of the file, held as long as somebody looks at it, also after it was replaced.
#[derive(Debug)]
pub struct Mapped {
    map: Map,
    layout: Layout,
    identity: Identity,
}

/// Tells one file from the next. While a file is mapped its inode number is not given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<P: AsRef<Path>> AccountsFile<P> {
    /// The file at `path`, which need not exist yet.
    pub const fn new(path: P, owner: Owner) -> Self {
        Self { path, owner, current: Mutex::new(None) }
    }

    /// Maps the file at `path` at once, so that a missing or damaged one is known.
    pub fn open(path: P, owner: Owner) -> Result<Self, AccountsError> {
        let file = Self::new(path, owner);
        file.current()?;
        Ok(file)
    }

    /// The file as it is now: one `stat`, and a new mapping only when it was replaced.
    pub fn current(&self) -> Result<Arc<Mapped>, AccountsError> {
        let path = self.path.as_ref();
        let identity = Identity::of(&fs::metadata(path).map_err(|e| io_error(path, e))?);
        if let Some(slot) = self.lock()
            && let Some(mapped) = slot.as_ref().filter(|m| m.identity == identity)
        {
            return Ok(Arc::clone(mapped));
        }
        let mapped = Arc::new(Mapped::open(path, self.owner)?);
        // The old mapping is taken out and freed after the lock is.
        let old = self.lock().and_then(|mut slot| slot.replace(Arc::clone(&mapped)));
        drop(old);
        Ok(mapped)
    }

    /// Never waits: this runs in processes that fork while other threads look up names, and a lock
    /// held at that moment stays held in the child for ever.
    fn lock(&self) -> Option<MutexGuard<'_, Option<Arc<Mapped>>>> {
        for _ in 0..LOCK_TRIES {
            match self.current.try_lock() {
                Ok(slot) => return Some(slot),
                Err(TryLockError::Poisoned(slot)) => return Some(PoisonError::into_inner(slot)),
                Err(TryLockError::WouldBlock) => hint::spin_loop(),
            }
        }
        None
    }
}

impl Mapped {
    fn open(path: &Path, owner: Owner) -> Result<Self, AccountsError> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|e| io_error(path, e))?;
        let metadata = file.metadata().map_err(|e| io_error(path, e))?;
        check_trust(path, &metadata, owner)?;
        let len = usize::try_from(metadata.len())
            .ok()
            .filter(|len| *len > 0)
            .ok_or(AccountsError::Corrupt("it is empty or too long"))?;
        let map = Map::new(&file, len).map_err(|e| io_error(path, e))?;
        let layout = AccountsView::parse(map.bytes())?.layout();
        Ok(Self { map, layout, identity: Identity::of(&metadata) })
    }

    /// What is in it.
    pub fn view(&self) -> AccountsView<'_> {
        AccountsView::checked(self.map.bytes(), self.layout)
    }
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn check_trust(path: &Path, metadata: &Metadata, owner: Owner) -> Result<(), AccountsError> {
    let why = if !metadata.is_file() {
        "it is no plain file"
    } else if owner == Owner::Root && metadata.uid() != 0 {
        "it does not belong to root"
    } else if owner == Owner::Root && metadata.mode() & 0o022 != 0 {
        "others than root may write it"
    } else {
        return Ok(());
    };
    Err(AccountsError::NotTrusted { path: path.to_path_buf(), why })
}

fn io_error(path: &Path, source: std::io::Error) -> AccountsError {
    let path = path.to_path_buf();
    match source.raw_os_error() {
        Some(libc::ENOENT) => AccountsError::Missing { path },
        // What O_NOFOLLOW answers for a link.
        Some(libc::ELOOP) => AccountsError::NotTrusted { path, why: "it is a link" },
        _ => AccountsError::Io { path, source },
    }
}
