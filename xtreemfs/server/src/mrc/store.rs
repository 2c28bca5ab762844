//! The store: an index in memory, made durable by a log with group commit.
//!
//! A transaction is decided and carried out in the index under one lock, and queued for the log in
//! the same order. One thread appends all that is queued and syncs once; only then are the waiting
//! requests told. If the disk is full, everything not yet synced is taken back in reverse order.
//! When the log has grown, a new one is begun and a checkpoint is written beside normal work: it is
//! read in small portions, and what changed meanwhile is in the new log, whose replay over the
//! checkpoint gives the true state because every change is absolute.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use xtreemfs_proto::{Errno, RpcError};

use crate::mrc::files::{AppendError, CheckpointFile, Folder, LogFile, StoreError, at};
use crate::mrc::index::{Change, MemIndex, Undo};
use crate::mrc::log::{Payload, encode};

/// A log that has grown to this many bytes is closed by a checkpoint.
pub const LOG_BYTES_CHECKPOINT: u64 = 64 << 20;
/// Most transactions that wait for the disk; further ones are refused with `EAGAIN`.
pub const QUEUE_MAX: usize = 65_536;
/// Entries that a checkpoint reads at once.
const CHUNK_ENTRIES: usize = 1024;

type Done = oneshot::Sender<Result<(), RpcError>>;

/// A transaction on its way to the disk.
struct Pending {
    record: Vec<u8>,
    undo: Vec<Undo>,
    done: Done,
}

#[derive(Default)]
struct Queue {
    pending: Vec<Pending>,
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
    /// the log has `checkpoint_bytes`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(dir: &Path, checkpoint_bytes: u64) -> Result<Self, StoreError> {
        let folder = Folder::open(dir)?;
        let (index, log) = folder.load()?;
        let shared = Arc::new(Shared {
            folder,
            index: RwLock::new(index),
            queue: Mutex::default(),
            wake: Condvar::new(),
            rollbacks: AtomicU64::new(0),
            checkpointing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            checkpoint_bytes,
        });
        let for_writer = shared.clone();
        let builder = std::thread::Builder::new().name("mrc-log".into());
        let writer = at(dir, builder.spawn(move || for_writer.write(log)))?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Looks at the index. What is seen may not be on disk yet.
    pub fn read<T>(&self, look: impl FnOnce(&MemIndex) -> T) -> T {
        look(&self.shared.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Decides on a transaction, carries it out, and waits until it is durable. Nothing to change
    /// means nothing to wait for.
    ///
    /// # Errors
    /// What `decide` says; `ENOSPC`, `EIO` or `EAGAIN` if it could not be made durable, in which
    /// case it was taken back.
    pub async fn commit<T>(
        &self,
        decide: impl FnOnce(&MemIndex) -> Result<(Vec<Change>, T), RpcError>,
    ) -> Result<T, RpcError> {
        let (value, durable) = self.shared.begin(decide)?;
        if let Some(durable) = durable {
            let ended = || RpcError::errno(Errno::EIO, "the metadata store is shutting down");
            durable.await.map_err(|_| ended())??;
        }
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

type Begun<T> = (T, Option<oneshot::Receiver<Result<(), RpcError>>>);

impl Shared {
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
            return Ok((value, None));
        }
        let mut record = Vec::new();
        let payload = Payload::Changes(changes);
        encode(&payload, &mut record)
            .map_err(|error| RpcError::errno(Errno::EINVAL, error.to_string()))?;
        let mut queue = self.queue();
        queue.accepts()?;
        let Payload::Changes(changes) = payload else { return Ok((value, None)) };
        let undo = changes.into_iter().map(|change| index.apply(change)).collect();
        let (done, durable) = oneshot::channel();
        queue.pending.push(Pending { record, undo, done });
        drop((queue, index));
        self.wake.notify_one();
        Ok((value, Some(durable)))
    }

    /// The log's thread.
    fn write(self: Arc<Self>, mut log: LogFile) {
        let mut checkpoint: Option<JoinHandle<()>> = None;
        let mut bytes = Vec::new();
        loop {
            let batch = self.next_batch();
            if batch.is_empty() {
                break;
            }
            bytes.clear();
            batch.iter().for_each(|pending| bytes.extend_from_slice(&pending.record));
            match if bytes.is_empty() { Ok(()) } else { log.append(&bytes) } {
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
        while queue.pending.is_empty() && !queue.stop {
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
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
        let (done, durable) = oneshot::channel();
        let mut queue = self.queue();
        if queue.stop || queue.broken.is_some() {
            return false;
        }
        queue.pending.push(Pending { record: Vec::new(), undo: Vec::new(), done });
        drop(queue);
        self.wake.notify_one();
        matches!(durable.blocking_recv(), Ok(Ok(())))
    }
}

impl Queue {
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

fn refusal(error: &std::io::Error) -> RpcError {
    let errno = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::FileTooLarge => Errno::ENOSPC,
        std::io::ErrorKind::QuotaExceeded => Errno::EDQUOT,
        _ => Errno::EIO,
    };
    RpcError::errno(errno, format!("metadata not written: {error}"))
}

fn tell(done: Done, result: Result<(), RpcError>) {
    // A requester that has gone needs no answer.
    drop(done.send(result));
}
