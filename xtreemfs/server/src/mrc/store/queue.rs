//! Transactions on their way to the disk, and those who wait for them.

use tokio::sync::oneshot;
use xtreemfs_proto::{Errno, RpcError};

use crate::mrc::index::Undo;

/// Most transactions that wait for the disk; further ones are refused with `EAGAIN`.
const QUEUE_MAX: usize = 65_536;

type Done = oneshot::Sender<Result<(), RpcError>>;

/// Tells that something is on the disk, or was taken back.
pub(super) type Durable = oneshot::Receiver<Result<(), RpcError>>;

/// A transaction on its way to the disk. Without payload: somebody who waits for those before.
pub(super) struct Pending {
    pub(super) payload: Vec<u8>,
    pub(super) undo: Vec<Undo>,
    pub(super) done: Done,
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) pending: Vec<Pending>,
    /// Whether the thread has taken transactions and not told of them yet.
    pub(super) writing: bool,
    /// Why no transaction is taken any more.
    pub(super) broken: Option<String>,
    pub(super) stop: bool,
}

impl Queue {
    pub(super) fn push(&mut self, payload: Vec<u8>, undo: Vec<Undo>) -> Durable {
        let (done, durable) = oneshot::channel();
        self.pending.push(Pending { payload, undo, done });
        durable
    }

    /// To wait for until what is seen in the index now is on disk; `None` if it is. The thread is
    /// awake: it has something to write.
    pub(super) fn seen(&mut self) -> Result<Option<Durable>, RpcError> {
        if self.pending.is_empty() && !self.writing {
            return Ok(None);
        }
        self.accepts()?;
        Ok(Some(self.push(Vec::new(), Vec::new())))
    }

    pub(super) fn accepts(&self) -> Result<(), RpcError> {
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

/// Waits until it is on the disk.
pub(super) async fn wait(durable: Option<Durable>) -> Result<(), RpcError> {
    let Some(durable) = durable else { return Ok(()) };
    let ended = |_| RpcError::errno(Errno::EIO, "the metadata store is shutting down");
    durable.await.map_err(ended)?
}

/// Tells who waits how it ended.
pub(super) fn tell(done: Done, result: Result<(), RpcError>) {
    // A requester that has gone needs no answer.
    drop(done.send(result));
}
