//! The store: an index in memory, made durable by a log with group commit.
//!
//! A transaction is decided and carried out in the index under one lock, and queued for the log in
//! the same order. One thread appends all that is queued and syncs once; only then are the waiting
//! requests told; so are those who only looked, if what they answer must last. If the disk is full, everything not yet synced is taken back in reverse order.
//! When the log has grown, a new one is begun and a checkpoint is written beside normal work: it is
//! read in small portions, and what changed meanwhile is in the new log, whose replay over the
//! checkpoint gives the true state because every change is absolute.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use xtreemfs_proto::{Errno, RpcError};

use crate::mrc::files::{AppendError, CheckpointFile, Folder, LogFile, StoreError, at};
use crate::mrc::index::{Change, Index, MemIndex, STARTS_MAX, Undo};
use crate::mrc::log::{Payload, encode};
use crate::mrc::record::STARTS;

/// A log that has grown to this many bytes is closed by a checkpoint.
pub const LOG_BYTES_CHECKPOINT: u64 = 64 << 20;
/// Most transactions that wait for the disk; further ones are refused with `EAGAIN`.
pub const QUEUE_MAX: usize = 65_536;
/// Entries that a checkpoint reads at once.
const CHUNK_ENTRIES: usize = 1024;

type Done = oneshot::Sender<Result<(), RpcError>>;

/// Tells that something is on the disk, or was taken back.
type Durable = oneshot::Receiver<Result<(), RpcError>>;

/// A transaction on its way to the disk. Without payload: somebody who waits for those before.
struct Pending {
    payload: Vec<u8>,
    undo: Vec<Undo>,
    done: Done,
}

#[derive(Default)]
struct Queue {
    pending: Vec<Pending>,
    /// Whether the thread has taken transactions and not told of them yet.
    writing: bool,
    /// Why no transaction is taken any more.
    broken: Option<String>,
    stop: bool,
}

struct Shared {
    folder: Folder,
    index: RwLock<MemIndex>,
    queue: Mutex<Queue>,
    wake: Condvar,
    rollbacks: AtomicU64,
    checkpointing: AtomicBool,
    stopping: AtomicBool,
    checkpoint_bytes: u64,
}

/// See the module's text. Dropping it writes out what is queued.
pub struct Store {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.shared.folder.dir).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in a folder, which is made if needed; a checkpoint is written each time
    /// the log has `checkpoint_bytes`. `now` is the time since 1970.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(dir: &Path, checkpoint_bytes: u64, now: Duration) -> Result<Self, StoreError> {
        let folder = Folder::open(dir)?;
        let (mut index, mut log) = folder.load()?;
        count_start(dir, &mut index, &mut log, now)?;
        let shared = Arc::new(Shared::new(folder, index, checkpoint_bytes));
        let for_writer = shared.clone();
        let builder = std::thread::Builder::new().name("mrc-log".into());
        let writer = at(dir, builder.spawn(move || for_writer.write(log)))?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Looks at the index. What is seen may not be on disk yet.
    pub fn read<T>(&self, look: impl FnOnce(&MemIndex) -> T) -> T {
        look(&self.shared.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the index, and waits until all that was seen is on disk.
    ///
    /// # Errors
    /// What `look` says; as [`Store::commit`] when something of it was taken back.
    pub async fn read_stored<T>(
        &self,
        look: impl FnOnce(&MemIndex) -> Result<T, RpcError>,
    ) -> Result<T, RpcError> {
        let (value, durable) = self.shared.look(look)?;
        wait(durable).await?;
        Ok(value)
    }

    /// Decides on a transaction, carries it out, and waits until it is durable; with nothing to
    /// change, until that is what the decision saw: it may be what the same request, sent once
    /// before, has changed.
    ///
    /// # Errors
    /// What `decide` says; `ENOSPC`, `EIO` or `EAGAIN` if it could not be made durable, in which
    /// case it was taken back.
    pub async fn commit<T>(
        &self,
        decide: impl FnOnce(&MemIndex) -> Result<(Vec<Change>, T), RpcError>,
    ) -> Result<T, RpcError> {
        let (value, durable) = self.shared.begin(decide)?;
        wait(durable).await?;
        Ok(value)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.queue().stop = true;
        self.shared.wake.notify_all();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the log's thread had died");
        }
    }
}

/// Start numbers are counted in steps of this time, in seconds, since [`START_TIME_S`]: an old copy
/// of the folder that is restored goes on behind all starts that it does not know of.
const START_EVERY_S: u64 = 16;
/// 2026-01-01, in seconds since 1970.
const START_TIME_S: u64 = 1_767_225_600;
/// A clock that runs so far ahead must not use up the numbers.
const START_BY_TIME_MAX: u64 = STARTS_MAX / 2;

/// Numbers this start, on disk before anything else: the inode numbers and truncate epochs that it
/// gives are its own.
fn count_start(
    dir: &Path,
    index: &mut MemIndex,
    log: &mut LogFile,
    now: Duration,
) -> Result<(), StoreError> {
    let known = match index.value(STARTS) {
        None => 0,
        Some(value) => u64::from_be_bytes(
            value.try_into().map_err(|_| StoreError::Damaged { path: dir.to_owned(), at: 0 })?,
        ),
    };
    let by_time = now.as_secs().saturating_sub(START_TIME_S) / START_EVERY_S;
    let starts = known.max(by_time.min(START_BY_TIME_MAX));
    if starts >= STARTS_MAX {
        return Err(StoreError::Worn(dir.to_owned()));
    }
    let (key, value) = (STARTS.to_vec(), (starts + 1).to_be_bytes().to_vec());
    let changes = vec![Change::Put { key, value }];
    let payload = at(dir, encode(&Payload::Changes(changes.clone())).map_err(io::Error::other))?;
    at(
        dir,
        log.append([&payload[..]]).map_err(|error| match error {
            AppendError::Undone(error) | AppendError::Lost(error) => error,
        }),
    )?;
    changes.into_iter().for_each(|change| drop(index.apply(change)));
    index.number_from(starts);
    Ok(())
}

async fn wait(durable: Option<Durable>) -> Result<(), RpcError> {
    let Some(durable) = durable else { return Ok(()) };
    let ended = |_| RpcError::errno(Errno::EIO, "the metadata store is shutting down");
    durable.await.map_err(ended)?
}

type Begun<T> = (T, Option<Durable>);

impl Shared {
    fn new(folder: Folder, index: MemIndex, checkpoint_bytes: u64) -> Shared {
        let index = RwLock::new(index);
        let (queue, wake, rollbacks, checkpointing, stopping) = Default::default();
        Shared { folder, index, queue, wake, rollbacks, checkpointing, stopping, checkpoint_bytes }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin<T>(
        &self,
        decide: impl FnOnce(&MemIndex) -> Result<(Vec<Change>, T), RpcError>,
    ) -> Result<Begun<T>, RpcError> {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let (changes, value) = decide(&index)?;
        if changes.is_empty() {
            return Ok((value, self.queue().seen()?));
        }
        let payload = encode(&Payload::Changes(changes.clone()))
            .map_err(|error| RpcError::errno(Errno::EINVAL, error.to_string()))?;
        let mut queue = self.queue();
        queue.accepts()?;
        let undo = changes.into_iter().map(|change| index.apply(change)).collect();
        let durable = queue.push(payload, undo);
        drop((queue, index));
        self.wake.notify_one();
        Ok((value, Some(durable)))
    }

    fn look<T>(
        &self,
        look: impl FnOnce(&MemIndex) -> Result<T, RpcError>,
    ) -> Result<Begun<T>, RpcError> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let value = look(&index)?;
        // Still locked, so that nothing that was seen is taken back before we wait.
        let durable = self.queue().seen()?;
        drop(index);
        Ok((value, durable))
    }

    /// The log's thread.
    fn write(self: Arc<Self>, mut log: LogFile) {
        let mut checkpoint: Option<JoinHandle<()>> = None;
        loop {
            let batch = self.next_batch();
            if batch.is_empty() {
                break;
            }
            let payloads = batch.iter().map(|pending| &pending.payload[..]);
            match log.append(payloads.filter(|payload| !payload.is_empty())) {
                Ok(()) => batch.into_iter().for_each(|pending| tell(pending.done, Ok(()))),
                Err(error) => self.fail(batch, error),
            }
            let due = log.length >= self.checkpoint_bytes;
            if due && !self.checkpointing.load(Ordering::SeqCst) {
                checkpoint = self.clone().rotate(&mut log);
            }
        }
        if let Some(thread) = checkpoint
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint's thread had died");
        }
    }

    /// Waits for transactions; none when the store is being closed.
    fn next_batch(&self) -> Vec<Pending> {
        let mut queue = self.queue();
        queue.writing = false;
        while queue.pending.is_empty() && !queue.stop {
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.writing = !queue.pending.is_empty();
        std::mem::take(&mut queue.pending)
    }

    /// Takes everything back that is not on disk.
    fn fail(&self, mut batch: Vec<Pending>, error: AppendError) {
        let (refusal, broken) = match error {
            AppendError::Undone(error) => (refusal(&error), None),
            AppendError::Lost(error) => {
                let text = format!("the metadata log failed ({error}): restart the server");
                (RpcError::errno(Errno::EIO, text.clone()), Some(text))
            }
        };
        tracing::error!(error = %refusal.message, "metadata not written");
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let mut queue = self.queue();
        self.rollbacks.fetch_add(1, Ordering::SeqCst);
        batch.append(&mut queue.pending);
        queue.broken = broken;
        for pending in batch.iter_mut().rev() {
            pending.undo.drain(..).rev().for_each(|undo| index.undo(undo));
        }
        drop((queue, index));
        batch.into_iter().for_each(|pending| tell(pending.done, Err(refusal.clone())));
    }

    /// Goes on with a new log and starts a checkpoint that makes the old ones needless.
    fn rotate(self: Arc<Self>, log: &mut LogFile) -> Option<JoinHandle<()>> {
        let number = log.number + 1;
        match self.folder.create_log(number) {
            Ok(new) => *log = new,
            Err(error) => {
                tracing::error!(%error, "no new log: going on with the old one");
                return None;
            }
        }
        self.checkpointing.store(true, Ordering::SeqCst);
        let shared = self.clone();
        let thread = std::thread::Builder::new().name("mrc-checkpoint".into()).spawn(move || {
            match shared.checkpoint(number) {
                Ok(true) => tracing::info!(number, "checkpoint written"),
                Ok(false) => tracing::info!(number, "checkpoint given up, to be tried again"),
                Err(error) => tracing::error!(%error, "checkpoint failed, to be tried again"),
            }
            shared.checkpointing.store(false, Ordering::SeqCst);
        });
        match thread {
            Ok(thread) => Some(thread),
            Err(error) => {
                tracing::error!(%error, "no thread for the checkpoint");
                self.checkpointing.store(false, Ordering::SeqCst);
                None
            }
        }
    }

    /// Writes a checkpoint; `false` if it was given up.
    fn checkpoint(&self, number: u64) -> Result<bool, StoreError> {
        let written = self.write_checkpoint(number);
        if !matches!(written, Ok(true)) {
            // On a full disk its space is needed for the log.
            self.folder.remove_unfinished()?;
        }
        written
    }

    fn write_checkpoint(&self, number: u64) -> Result<bool, StoreError> {
        let rollbacks = self.rollbacks.load(Ordering::SeqCst);
        let mut file = CheckpointFile::create(&self.folder, number)?;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            let chunk = index.chunk(after.as_deref(), CHUNK_ENTRIES);
            drop(index);
            let Some((key, _)) = chunk.last() else { break };
            after = Some(key.clone());
            file.put(chunk)?;
            if self.stopping.load(Ordering::SeqCst) {
                return Ok(false);
            }
        }
        // What was read may not be in the log yet; if it never gets there, the checkpoint is void.
        if !self.barrier() || self.rollbacks.load(Ordering::SeqCst) != rollbacks {
            return Ok(false);
        }
        file.finish()?;
        Ok(true)
    }

    /// Waits until everything queued so far is on disk.
    fn barrier(&self) -> bool {
        let mut queue = self.queue();
        if queue.stop || queue.broken.is_some() {
            return false;
        }
        let durable = queue.push(Vec::new(), Vec::new());
        drop(queue);
        self.wake.notify_one();
        matches!(durable.blocking_recv(), Ok(Ok(())))
    }
}

impl Queue {
    fn push(&mut self, payload: Vec<u8>, undo: Vec<Undo>) -> Durable {
        let (done, durable) = oneshot::channel();
        self.pending.push(Pending { payload, undo, done });
        durable
    }

    /// To wait for until what is seen in the index now is on disk; `None` if it is. The thread is
    /// awake: it has something to write.
    fn seen(&mut self) -> Result<Option<Durable>, RpcError> {
        if self.pending.is_empty() && !self.writing {
            return Ok(None);
        }
        self.accepts()?;
        Ok(Some(self.push(Vec::new(), Vec::new())))
    }

    fn accepts(&self) -> Result<(), RpcError> {
        if let Some(text) = &self.broken {
            return Err(RpcError::errno(Errno::EIO, text.clone()));
        }
        if self.stop {
            return Err(RpcError::errno(Errno::EIO, "the metadata store is shutting down"));
        }
        if self.pending.len() >= QUEUE_MAX {
            return Err(RpcError::errno(Errno::EAGAIN, "too many changes wait for the disk"));
        }
        Ok(())
    }
}

fn refusal(error: &io::Error) -> RpcError {
    let errno = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge => Errno::ENOSPC,
        io::ErrorKind::QuotaExceeded => Errno::EDQUOT,
        _ => Errno::EIO,
    };
    RpcError::errno(errno, format!("metadata not written: {error}"))
}

fn tell(done: Done, result: Result<(), RpcError>) {
    // A requester that has gone needs no answer.
    drop(done.send(result));
}

#[cfg(test)]
mod tests;
