//! The store: an index in memory, made durable by a log with group commit.
//!
//! A transaction is decided and carried out in the index under one lock, and queued for the log in
//! the same order. One thread appends all that is queued and syncs once; only then are the waiting
//! requests told; so are those who only looked, if what they answer must last. If the disk is full,
//! everything not yet synced is taken back in reverse order.
//! When the log has grown, a new one is begun and a checkpoint is written beside normal work: it is
//! read in small portions, and what changed meanwhile is in the new log, whose replay over the
//! checkpoint gives the true state because every change is absolute.

mod checkpoint;
mod queue;
mod starts;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use xtreemfs_proto::{Errno, RpcError};

use crate::mrc::files::{AppendError, Folder, LogFile, StoreError, at};
use crate::mrc::index::{Change, MemIndex};
use crate::mrc::log::{Payload, encode};
use queue::{Durable, Pending, Queue, tell, wait};
use starts::count_start;

/// A log that has grown to this many bytes is closed by a checkpoint.
pub const LOG_BYTES_CHECKPOINT: u64 = 64 << 20;

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
}

fn refusal(error: &io::Error) -> RpcError {
    let errno = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge => Errno::ENOSPC,
        io::ErrorKind::QuotaExceeded => Errno::EDQUOT,
        _ => Errno::EIO,
    };
    RpcError::errno(errno, format!("metadata not written: {error}"))
}

#[cfg(test)]
mod tests;
