//! The account file as a process uses it: read once, and anew when it was replaced.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    hint,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    AccountsError, AccountsView,
    layout::Layout,
    sys::{self, Map},
};

/// How often the lock is tried before a lookup goes its own way.
const LOCK_TRIES: u32 = 100;
/// How long one look at the file holds for [`AccountsFile::seldom`], in milliseconds.
const LOOK_HOLDS_MS: u64 = 10;
/// Files up to this size are copied, larger ones mapped, in bytes. Some 17,000 accounts: what every
/// process of a machine can have of its own.
const COPIED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Whose files are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Only a file that nobody but root can write: for whatever decides about rights.
    Root,
    /// Any file: for tests and tools that look at a copy.
    Anybody,
}

/// An account file at a path; may be a `static`. Lookups in many threads never wait for one
/// another.
#[derive(Debug)]
pub struct AccountsFile<P = PathBuf> {
    path: P,
    owner: Owner,
    look_holds_ms: u64,
    /// Until when, on the clock of [`sys::clock_ms`], `current` needs no look.
    holds_until: AtomicU64,
    current: Mutex<Option<Arc<Mapped>>>,
}

/// One state of the file, held as long as somebody looks at it, also after it was replaced.
#[derive(Debug)]
pub struct Mapped {
    content: Content,
    layout: Layout,
    identity: Identity,
}

/// The bytes of a file.
///
/// A mapping that was truncated where it lies kills whoever reads behind the new end. So what is
/// not too large is copied, and nothing that happens to the file reaches it; nor does it keep a
/// program in its place that uses names and could move to another machine. Of larger files no
/// process can have its own copy; for them it must be a mistake of root's, at the very moment of a
/// lookup.
#[derive(Debug)]
enum Content {
    Copied(Vec<u8>),
    Mapped(Map),
}

/// Tells one file from the next. The inode number of a file that is gone may be given to the next
/// one; who writes it gives each its own time ([`super::write_atomic`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<P: AsRef<Path>> AccountsFile<P> {
    /// The file at `path`, which need not exist yet. Every lookup looks whether it was replaced.
    pub const fn new(path: P, owner: Owner) -> Self {
        Self::looking(path, owner, 0)
    }

    /// As [`AccountsFile::new`], but one look holds for 10 ms: it takes longer than a lookup.
    ///
    /// Time is the kernel's, as of its last tick, which costs no system call. A mark that the
    /// writer leaves in the old file would save the look altogether; but then a file that an
    /// administrator removed or put back, or whose writer died between the two steps, would be seen
    /// by no process that runs already.
    pub const fn seldom(path: P, owner: Owner) -> Self {
        Self::looking(path, owner, LOOK_HOLDS_MS)
    }

    const fn looking(path: P, owner: Owner, look_holds_ms: u64) -> Self {
        Self {
            path,
            owner,
            look_holds_ms,
            holds_until: AtomicU64::new(0),
            current: Mutex::new(None),
        }
    }

    /// Reads the file at `path` at once, so that a missing or damaged one is known.
    pub fn open(path: P, owner: Owner) -> Result<Self, AccountsError> {
        let file = Self::new(path, owner);
        file.current()?;
        Ok(file)
    }

    /// The file as it is now: at most one `stat`, and read anew only when it was replaced.
    pub fn current(&self) -> Result<Arc<Mapped>, AccountsError> {
        let now = sys::clock_ms();
        if now.is_some_and(|now| now < self.holds_until.load(Ordering::Acquire))
            && let Some(slot) = self.lock()
            && let Some(mapped) = slot.as_ref()
        {
            return Ok(Arc::clone(mapped));
        }
        let looked = self.look();
        // What failed is looked at again by the next lookup, and so is what is not in the slot.
        let holds = matches!(looked, Ok((_, true)));
        let until = now.filter(|_| holds).map_or(0, |now| now.saturating_add(self.look_holds_ms));
        self.holds_until.store(until, Ordering::Release);
        looked.map(|(mapped, _)| mapped)
    }

    /// The file as it is now, and whether later lookups find it in the slot.
    fn look(&self) -> Result<(Arc<Mapped>, bool), AccountsError> {
        let path = self.path.as_ref();
        let identity = Identity::of(&fs::metadata(path).map_err(|e| io_error(path, e))?);
        if let Some(slot) = self.lock()
            && let Some(mapped) = slot.as_ref().filter(|m| m.identity == identity)
        {
            return Ok((Arc::clone(mapped), true));
        }
        let mapped = Arc::new(Mapped::open(path, self.owner)?);
        let Some(mut slot) = self.lock() else { return Ok((mapped, false)) };
        let old = slot.replace(Arc::clone(&mapped));
        // The old one is freed after the lock is.
        drop(slot);
        drop(old);
        Ok((mapped, true))
    }

    /// Whether `mapped`, which this file once was, can be read on: not when it was cut short where
    /// it lies. For whoever holds it longer than one lookup.
    pub fn can_go_on(&self, mapped: &Mapped) -> bool {
        if let Content::Copied(_) = mapped.content {
            return true;
        }
        // One that was removed or replaced lives on as long as it is mapped, out of reach.
        fs::metadata(self.path.as_ref()).map_or(true, |now| {
            let (now, then) = (Identity::of(&now), mapped.identity);
            (now.device, now.inode) != (then.device, then.inode) || now.bytes >= then.bytes
        })
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
        let content = Content::of(&file, len).map_err(|e| io_error(path, e))?;
        let layout = AccountsView::parse(content.bytes())?.layout();
        Ok(Self { content, layout, identity: Identity::of(&metadata) })
    }

    /// What is in it.
    pub fn view(&self) -> AccountsView<'_> {
        AccountsView::checked(self.content.bytes(), self.layout)
    }
}

impl Content {
    fn of(file: &File, len: usize) -> io::Result<Content> {
        if len > COPIED_BYTES_MAX {
            return Map::new(file, len).map(Content::Mapped);
        }
        let mut bytes = Vec::new();
        let no_memory = |_| io::Error::from_raw_os_error(libc::ENOMEM);
        bytes.try_reserve_exact(len).map_err(no_memory)?;
        // Fewer, when it is cut short meanwhile: then its head does not match.
        file.take(len as u64).read_to_end(&mut bytes)?;
        Ok(Content::Copied(bytes))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Content::Copied(bytes) => bytes,
            Content::Mapped(map) => map.bytes(),
        }
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
