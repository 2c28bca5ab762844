//! The file itself: opened, checked, reopened after a fault, and its errors translated.

use std::{
    any::Any,
    fs::{self, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use ::redb::{Builder, Database, Error, ReadableDatabase};

use super::tables::{Snapshot, Write};
use crate::{Clock, Entry, Key, Page, Prefix, StoreError, watch::Hub};

/// Memory for cached pages; redb's own default is 1 GiB.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// The open registry, shared by readers and the writer.
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) hub: Hub,
    /// Empty while a fault keeps the file from being opened. Written only by the writer.
    db: RwLock<Option<Database>>,
}

impl File {
    pub(super) fn open(path: PathBuf, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let db = guarded(&path, || open_database(&path))?;
        let file = Self { path, clock, hub: Hub::default(), db: RwLock::new(Some(db)) };
        file.with(|snapshot| snapshot.verify())?;
        Ok(file)
    }

    pub(super) fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.with(|snapshot| snapshot.get(key))
    }

    pub(super) fn scan(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.with(|snapshot| snapshot.scan(prefix, after, limit))
    }

    /// Runs `read` on a snapshot of what is committed.
    pub(super) fn with<T>(
        &self,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with_database(|db| {
            let txn = db.begin_read().map_err(|e| fault(&self.path, e))?;
            read(&Snapshot::new(&self.path, txn, self.clock.now_ms()))
        })
    }

    pub(super) fn with_database<T>(
        &self,
        act: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = db.as_ref().ok_or_else(|| StoreError::Reopening { path: self.path.clone() })?;
        guarded(&self.path, || act(db))
    }

    /// Closes and opens the file; the number of the last commit it holds.
    ///
    /// After a fault redb refuses everything until reopened, which finds the last good commit.
    pub(super) fn reopen(&self) -> Result<u64, StoreError> {
        let mut slot = self.db.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = slot.take() {
            guarded(&self.path, || {
                drop(old);
                Ok(())
            })?;
        }
        let db = guarded(&self.path, || open_database(&self.path))?;
        let number = guarded(&self.path, || last_number(&self.path, &db))?;
        *slot = Some(db);
        Ok(number.unwrap_or(0))
    }

    pub(super) fn is_open(&self) -> bool {
        self.db.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let io = |source| StoreError::Io { path: path.to_path_buf(), source };
    // Holds secrets' hashes and who may do what: nobody but the service reads it.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| fault(path, e))?;
    let db =
        Builder::new().set_cache_size(CACHE_BYTES).create_file(file).map_err(|e| fault(path, e))?;
    if last_number(path, &db)?.is_none() {
        let mut txn = db.begin_write().map_err(|e| fault(path, e))?;
        txn.set_quick_repair(true);
        Write::open(path, &txn)?.format()?;
        txn.commit().map_err(|e| fault(path, e))?;
        // The name of a new file is durable only once its folder is.
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::File::open(folder).and_then(|f| f.sync_all()).map_err(io)?;
        }
    }
    Ok(db)
}

fn last_number(path: &Path, db: &Database) -> Result<Option<u64>, StoreError> {
    let txn = db.begin_read().map_err(|e| fault(path, e))?;
    Snapshot::new(path, txn, 0).number()
}

/// A damaged file can make redb panic; here that becomes an error about the file.
fn guarded<T>(path: &Path, act: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let detail = format!("the engine gave up: {}", panic_text(&*panic));
        Err(StoreError::Corrupt { path: path.to_path_buf(), detail })
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}

/// Translates an error of redb, once, for all callers.
pub(super) fn fault(path: &Path, error: impl Into<Error>) -> StoreError {
    let path = path.to_path_buf();
    match error.into() {
        Error::Io(e) if is_full(&e) => StoreError::Full { path },
        Error::Io(e) if matches!(e.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            StoreError::Corrupt { path, detail: e.to_string() }
        }
        Error::Io(source) => StoreError::Io { path, source },
        Error::PreviousIo | Error::DatabaseClosed => StoreError::Reopening { path },
        Error::DatabaseAlreadyOpen => StoreError::InUse { path },
        other => StoreError::Corrupt { path, detail: other.to_string() },
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    )
}
