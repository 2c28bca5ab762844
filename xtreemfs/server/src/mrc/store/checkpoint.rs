//! Checkpoints, written beside normal work.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use super::Shared;
use crate::mrc::files::{CheckpointFile, LogFile, StoreError};

/// Entries that a checkpoint reads at once.
const CHUNK_ENTRIES: usize = 1024;

impl Shared {
    /// Goes on with a new log and starts a checkpoint that makes the old ones needless.
    pub(super) fn rotate(self: Arc<Self>, log: &mut LogFile) -> Option<JoinHandle<()>> {
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
