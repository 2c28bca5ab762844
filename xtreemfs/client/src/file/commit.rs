//! Telling the MRC size and time after writing, and the care for files that stay open.

use std::sync::Arc;

use tracing::{debug, warn};

use super::inode::Inode;
use super::rights::Rights;
use crate::limits::PROOFS_MAX;
use crate::{Error, Result};

impl Inode {
    /// Tells the MRC what has been written so far, before an attribute is set: a size told later
    /// would put the time of the last write over a time that was set.
    pub(crate) async fn commit_written(self: &Arc<Self>) -> Result<()> {
        let writer = self.lock().writer.clone();
        let Some(writer) = writer else { return Ok(()) };
        self.settle().await;
        self.commit(&writer).await
    }

    /// Tells the MRC what has arrived at the OSDs, if anything has since the last time.
    pub(super) async fn commit(&self, rights: &Arc<Rights>) -> Result<()> {
        let _one = self.committing.lock().await;
        for _ in 0..PROOFS_MAX {
            let Some((size, epoch, wrote_ns)) = self.begin_commit() else { return Ok(()) };
            let result = self.tell(rights, (size, wrote_ns), epoch).await;
            let mut state = self.lock();
            state.committing = false;
            match result {
                Ok(true) => return Ok(()),
                Ok(false) => state.dirty = true,
                // The last name is gone: there is no size to tell, the content lives with us.
                Err(error) if self.is_nameless() && error.is_refusal(libc::ESTALE) => return Ok(()),
                Err(error) => {
                    state.dirty = true;
                    return Err(error);
                }
            }
        }
        let reason = format!("inode {} is being truncated again and again", self.ino);
        Err(Error::local(libc::EIO, reason))
    }

    fn begin_commit(&self) -> Option<(u64, u32, i64)> {
        let mut state = self.lock();
        if !state.dirty {
            return None;
        }
        state.dirty = false;
        state.committing = true;
        Some((state.certain, state.epoch, state.wrote_ns))
    }

    /// Tells the MRC once; `false` when a truncation came in between.
    async fn tell(
        &self,
        rights: &Arc<Rights>,
        (size, wrote_ns): (u64, i64),
        epoch: u32,
    ) -> Result<bool> {
        let grant = rights.at_epoch(epoch).await?;
        let mrc = &self.shared.mrc;
        let (dated, stale) = mrc.commit(rights.who(), &grant, size, wrote_ns).await?;
        if stale {
            self.truncated_elsewhere(&dated);
            return Ok(false);
        }
        self.settled(&dated, false);
        Ok(true)
    }

    /// What an open file needs from time to time: joined data sent, the size told, capabilities
    /// renewed. Failures are kept for the next flush or renewed attempt.
    pub(crate) async fn care(self: &Arc<Self>) {
        let (dirty, rights, writer) = {
            let mut state = self.lock();
            state.rights.retain(|rights| rights.strong_count() > 0);
            let rights: Vec<_> = state.rights.iter().filter_map(|r| r.upgrade()).collect();
            (state.dirty, rights, state.writer.clone())
        };
        if dirty && let Some(writer) = writer {
            self.settle().await;
            if let Err(error) = self.commit(&writer).await {
                warn!(ino = %self.ino, %error, "size not told to the MRC; will be tried again");
            }
        }
        for rights in rights {
            if let Err(error) = rights.current().await {
                debug!(ino = %self.ino, %error, "an open file's capability was not renewed");
            }
        }
    }
}
