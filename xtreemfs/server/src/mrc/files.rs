//! The files of a store: one checkpoint and the logs since then, in one folder.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::mrc::index::{Change, MemIndex};
use crate::mrc::log::{
    CHECKPOINT_MAGIC, HEAD_BYTES, LOG_MAGIC, Payload, Records, Salt, encode, proves_synced,
};

/// Why a store cannot be opened or used. The administrator must act.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process uses the folder.
    #[error("{0} is in use by another process: stop that one first")]
    InUse(PathBuf),
    /// A file that was complete once is damaged: restore the folder from a backup.
    #[error("{path} is damaged at byte {at}: restore the folder from a backup")]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// Where the good part ends.
        at: u64,
    },
    /// A file is missing: restore the folder from a backup.
    #[error("{0} is missing: restore the folder from a backup")]
    Missing(PathBuf),
    /// The store was opened so often that it has no inode numbers left.
    #[error("{0} was opened too often: no inode numbers are left")]
    Worn(PathBuf),
}

/// Name of a checkpoint that is being written.
const UNFINISHED: &str = "checkpoint-unfinished";

/// Adds the path to an error.
pub(crate) fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, StoreError> {
    result.map_err(|source| StoreError::File { path: path.to_owned(), source })
}

fn log_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("log.{number:016x}"))
}

fn checkpoint_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("checkpoint.{number:016x}"))
}

/// Makes names in a folder durable.
fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    at(dir, File::open(dir).and_then(|dir| dir.sync_all()))
}

/// The folder, locked against a second process.
#[derive(Debug)]
pub struct Folder {
    /// Where it is.
    pub dir: PathBuf,
    _lock: File,
}

/// Why an append failed.
#[derive(Debug)]
pub enum AppendError {
    /// Nothing of it stayed in the log; a later one may succeed (full disk).
    Undone(io::Error),
    /// What is on the disk is unknown: the log must not be used until it was opened anew.
    Lost(io::Error),
}

/// A log that is being appended to.
#[derive(Debug)]
pub struct LogFile {
    file: File,
    salt: Salt,
    /// Its number.
    pub number: u64,
    /// Bytes of good records.
    pub length: u64,
}

impl LogFile {
    /// Appends records with these payloads and makes them durable.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append<'a>(
        &mut self,
        payloads: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), AppendError> {
        use std::os::unix::fs::FileExt;
        let mut bytes = Vec::new();
        payloads.into_iter().for_each(|part| self.salt.frame(&mut bytes, self.length, part));
        if bytes.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.write_all_at(&bytes, self.length) {
            return Err(match self.file.set_len(self.length) {
                Ok(()) => AppendError::Undone(error),
                Err(_) => AppendError::Lost(error),
            });
        }
        // After a failed sync the kernel may have dropped the dirty pages: no second try.
        self.file.sync_data().map_err(AppendError::Lost)?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

impl Folder {
    /// Opens (or makes) and locks a folder.
    ///
    /// # Errors
    /// [`StoreError::File`] or [`StoreError::InUse`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        at(dir, DirBuilder::new().recursive(true).mode(0o700).create(dir))?;
        let path = dir.join("lock");
        let options = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = at(&path, options)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(StoreError::File { path, source }),
        }
    }

    /// Reads checkpoint and logs; gives the index and the log to go on with.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn load(&self) -> Result<(MemIndex, LogFile), StoreError> {
        let mut index = MemIndex::default();
        let checkpoint = self.numbers("checkpoint")?.last().copied();
        if let Some(number) = checkpoint {
            load_checkpoint(&checkpoint_path(&self.dir, number), &mut index)?;
        }
        let first = checkpoint.unwrap_or(0);
        let logs: Vec<u64> = self.numbers("log")?.into_iter().filter(|&n| n >= first).collect();
        let Some(&last) = logs.last() else {
            // With a checkpoint there was a log: the checkpoint is renamed after the log is made.
            return match checkpoint {
                Some(number) => Err(StoreError::Missing(log_path(&self.dir, number))),
                None => Ok((index, self.create_log(0)?)),
            };
        };
        for (number, &found) in (first..last).zip(&logs) {
            let path = log_path(&self.dir, number);
            if number != found {
                return Err(StoreError::Missing(path));
            }
            replay(&path, &mut index, false)?;
        }
        let path = log_path(&self.dir, last);
        let Some((salt, length)) = replay(&path, &mut index, true)? else {
            return Ok((index, self.create_log(last)?));
        };
        let file = at(&path, OpenOptions::new().write(true).open(&path))?;
        at(&path, file.set_len(length).and_then(|()| file.sync_all()))?;
        self.remove_before(first)?;
        Ok((index, LogFile { file, salt, number: last, length }))
    }

    /// Starts a new, empty log.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn create_log(&self, number: u64) -> Result<LogFile, StoreError> {
        let (path, salt) = (log_path(&self.dir, number), Salt::random());
        let made = at(&path, File::create(&path)).and_then(|mut file| {
            let head = salt.head(LOG_MAGIC);
            at(&path, file.write_all(&head).and_then(|()| file.sync_all()))?;
            sync_dir(&self.dir)?;
            Ok(LogFile { file, salt, number, length: HEAD_BYTES as u64 })
        });
        if made.is_err() {
            // Behind it, a torn end of the log that goes on would be taken for damage.
            remove_if_there(&path)?;
        }
        made
    }

    /// Removes a checkpoint that was given up.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn remove_unfinished(&self) -> Result<(), StoreError> {
        remove_if_there(&self.dir.join(UNFINISHED))
    }

    /// Removes what checkpoint `number` makes needless, and unfinished checkpoints.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn remove_before(&self, number: u64) -> Result<(), StoreError> {
        for old in self.numbers("log")?.into_iter().filter(|&n| n < number) {
            let path = log_path(&self.dir, old);
            at(&path, fs::remove_file(&path))?;
        }
        for old in self.numbers("checkpoint")?.into_iter().filter(|&n| n < number) {
            let path = checkpoint_path(&self.dir, old);
            at(&path, fs::remove_file(&path))?;
        }
        self.remove_unfinished()
    }

    /// Numbers of the files of a kind, sorted.
    fn numbers(&self, kind: &str) -> Result<Vec<u64>, StoreError> {
        let mut numbers = Vec::new();
        for entry in at(&self.dir, fs::read_dir(&self.dir))? {
            let name = at(&self.dir, entry)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(kind)?.strip_prefix('.'));
            numbers.extend(number.and_then(|number| u64::from_str_radix(number, 16).ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => at(path, result),
    }
}

fn records(path: &Path, magic: &[u8; 8]) -> Result<Option<Records<BufReader<File>>>, StoreError> {
    let file = at(path, File::open(path))?;
    let length = at(path, file.metadata())?.len();
    at(path, Records::open(BufReader::new(file), length, magic))
}

fn load_checkpoint(path: &Path, index: &mut MemIndex) -> Result<(), StoreError> {
    let damaged = |at| StoreError::Damaged { path: path.to_owned(), at };
    let mut records = records(path, CHECKPOINT_MAGIC)?.ok_or_else(|| damaged(0))?;
    loop {
        match at(path, records.next_record())? {
            Some(Payload::Changes(changes)) => {
                changes.into_iter().for_each(|change| drop(index.apply(change)));
            }
            Some(Payload::End(count)) if count == index.len() as u64 => return Ok(()),
            _ => return Err(damaged(records.good())),
        }
    }
}

/// Replays a log; gives its salt and the length of its good part, `None` if it was only being made.
/// Only the last log may have a torn end.
fn replay(
    path: &Path,
    index: &mut MemIndex,
    last: bool,
) -> Result<Option<(Salt, u64)>, StoreError> {
    let damaged = |at| StoreError::Damaged { path: path.to_owned(), at };
    let Some(mut records) = records(path, LOG_MAGIC)? else {
        // A last log that was being made: its first bytes were never acknowledged.
        let length = at(path, fs::metadata(path))?.len();
        return if last && length < HEAD_BYTES as u64 { Ok(None) } else { Err(damaged(0)) };
    };
    while let Some(payload) = at(path, records.next_record())? {
        match payload {
            Payload::Changes(changes) => {
                changes.into_iter().for_each(|change| drop(index.apply(change)));
            }
            Payload::End(_) => return Err(damaged(records.good())),
        }
    }
    let (salt, good, rest) = (records.salt(), records.good(), records.rest());
    if rest > 0 {
        if !last || proves_synced(&at(path, tail(path, good))?, salt, good) {
            return Err(damaged(good));
        }
        tracing::warn!(path = %path.display(), good, rest, "log has a torn end: cut off");
    }
    Ok(Some((salt, good)))
}

/// The bytes of a file from `start` on.
fn tail(path: &Path, start: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A checkpoint that is being written.
#[derive(Debug)]
pub struct CheckpointFile<'a> {
    folder: &'a Folder,
    number: u64,
    path: PathBuf,
    out: BufWriter<File>,
    salt: Salt,
    length: u64,
    count: u64,
}

impl<'a> CheckpointFile<'a> {
    /// Starts the checkpoint that log `number` and later ones build on.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn create(folder: &'a Folder, number: u64) -> Result<Self, StoreError> {
        let path = folder.dir.join(UNFINISHED);
        let mut out = BufWriter::new(at(&path, File::create(&path))?);
        let salt = Salt::random();
        at(&path, out.write_all(&salt.head(CHECKPOINT_MAGIC)))?;
        Ok(Self { folder, number, path, out, salt, length: HEAD_BYTES as u64, count: 0 })
    }

    /// Adds entries.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn put(&mut self, entries: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), StoreError> {
        for (key, value) in entries {
            self.count += 1;
            self.record(&Payload::Changes(vec![Change::Put { key, value }]))?;
        }
        Ok(())
    }

    fn record(&mut self, payload: &Payload) -> Result<(), StoreError> {
        // An entry came from a log record, so it fits into one.
        let payload = at(&self.path, encode(payload).map_err(io::Error::other))?;
        let mut record = Vec::new();
        self.salt.frame(&mut record, self.length, &payload);
        self.length += record.len() as u64;
        at(&self.path, self.out.write_all(&record))
    }

    /// Makes it the valid one and removes what it replaces.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.record(&Payload::End(self.count))?;
        at(&self.path, self.out.flush())?;
        at(&self.path, self.out.get_ref().sync_all())?;
        let target = checkpoint_path(&self.folder.dir, self.number);
        at(&target, fs::rename(&self.path, &target))?;
        sync_dir(&self.folder.dir)?;
        self.folder.remove_before(self.number)
    }
}
