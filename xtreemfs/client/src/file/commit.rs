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
            let Some(mut telling) = Telling::begin(self) else { return Ok(()) };
            match telling.tell(rights).await {
                Ok(told) => telling.told = told,
                // The last name is gone: there is no size to tell, the content lives with us.
                Err(error) if self.is_nameless() && error.is_refusal(libc::ESTALE) => {
                    telling.told = true;
                }
                Err(error) => return Err(error),
            }
            if telling.told {
                return Ok(());
            }
        }
        let reason = format!("inode {} is being truncated again and again", self.ino);
        Err(Error::local(libc::EIO, reason))
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

/// The MRC is being told. What it has not taken when this goes, for whatever reason, stays to be
/// told: also when nobody waits for the answer any more.
struct Telling<'a> {
    inode: &'a Inode,
    size: u64,
    /// Where what was never told ends.
    end: u64,
    epoch: u64,
    wrote_ns: i64,
    told: bool,
}

impl<'a> Telling<'a> {
    fn begin(inode: &'a Inode) -> Option<Telling<'a>> {
        let mut state = inode.lock();
        if !state.dirty {
            return None;
        }
        state.dirty = false;
        state.committing = true;
        let (size, epoch, wrote_ns) = (state.certain, state.epoch, state.wrote_ns);
        let end = std::mem::take(&mut state.untold_end);
        Some(Telling { inode, size, end, epoch, wrote_ns, told: false })
    }

    /// Tells the MRC once; `false` when another client truncated the file since the size was
    /// known, which is then put right.
    async fn tell(&mut self, rights: &Arc<Rights>) -> Result<bool> {
        let grant = rights.at_epoch(self.epoch).await?;
        // The size says nothing under a capability that knows of a later truncation.
        let size = if grant.epoch > self.epoch { 0 } else { self.size };
        let mrc = &self.inode.shared.mrc;
        let (dated, stale) = mrc.commit(rights.who(), &grant, size, self.wrote_ns).await?;
        if !stale && dated.epoch <= self.epoch {
            self.inode.settled(&dated, false);
            return Ok(true);
        }
        if dated.epoch > self.epoch {
            // An OSD that has yet to make that truncation makes it before it says where it ends.
            self.inode.truncation_known(dated.epoch);
            self.end = self.end.max(std::mem::take(&mut self.inode.lock().untold_end));
            self.end = rights.size().await?.min(self.end);
            self.inode.truncated_elsewhere(&dated, self.end);
        }
        Ok(false)
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let mut state = self.inode.lock();
        state.committing = false;
        if !self.told {
            state.dirty = true;
            state.untold_end = state.untold_end.max(self.end);
        }
    }
}
