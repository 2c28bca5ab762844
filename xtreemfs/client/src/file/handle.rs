//! An open file.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tracing::error;

use super::ahead::Ahead;
use super::inode::Inode;
use super::report::Told;
use super::rights::Rights;
use crate::limits::TRANSFER_BYTES_MAX;
use crate::{Attributes, Error, Ino, OpenMode, Result};

/// The largest offset a file can have on Linux.
const OFFSET_MAX: u64 = i64::MAX as u64;

/// An open file. It acts with the right that its opener had at the open, renewed while it is open
/// and the opener keeps a valid ticket.
///
/// Data written are accepted into a bounded buffer; an error that comes later is returned by the
/// next [`File::write`] and by the next [`File::flush`], [`File::sync`] or [`File::close`].
#[derive(Debug, Clone)]
pub struct File(Arc<Handle>);

#[derive(Debug)]
pub(crate) struct Handle {
    pub(super) inode: Arc<Inode>,
    pub(super) rights: Arc<Rights>,
    pub(super) ahead: Ahead,
    mode: OpenMode,
    told: Mutex<Told>,
    closed: AtomicBool,
}

impl File {
    pub(crate) fn new(inode: Arc<Inode>, rights: Rights, mode: OpenMode) -> File {
        let rights = Arc::new(rights);
        let told = {
            let mut state = inode.lock();
            state.rights.push(Arc::downgrade(&rights));
            Mutex::new(state.errors.opened())
        };
        let stripe = u64::from(rights.layout().stripe_size);
        let ahead = Ahead::new(stripe, Arc::clone(&inode.shared.room.read_ahead));
        File(Arc::new(Handle { inode, rights, ahead, mode, told, closed: AtomicBool::new(false) }))
    }

    /// The file's inode.
    pub fn ino(&self) -> Ino {
        self.0.inode.ino
    }

    /// The size as readers on this machine see it, in bytes.
    pub fn size(&self) -> u64 {
        self.0.inode.lock().size
    }

    /// Reads up to `length` bytes from `offset`; fewer only at the end of the file or past
    /// [`TRANSFER_BYTES_MAX`].
    ///
    /// # Errors
    /// `EBADF` when the file is not open for reading; else what the services say.
    pub async fn read(&self, offset: u64, length: usize) -> Result<Bytes> {
        if !self.0.mode.read && !self.0.mode.execute {
            return Err(Error::local(libc::EBADF, "the file is not open for reading"));
        }
        self.0.read_range(offset, length).await
    }

    /// Writes all of `data` at `offset`, or at the end of the file when it was opened to append;
    /// returns where. The data may still be under way when this returns.
    ///
    /// # Errors
    /// An earlier write that failed since (`ENOSPC`, `EIO`, ...); `EBADF`; `EFBIG`; `EINVAL` for
    /// more than [`TRANSFER_BYTES_MAX`] at once.
    pub async fn write(&self, offset: u64, data: Bytes) -> Result<u64> {
        let aim = if self.0.mode.append { Aim::End } else { Aim::At(offset) };
        self.0.write(aim, data).await
    }

    /// Writes what a page of a mapped file holds: at `offset`, also when the file was opened to
    /// append.
    ///
    /// # Errors
    /// As [`File::write`].
    pub async fn write_back(&self, offset: u64, data: Bytes) -> Result<()> {
        self.0.write(Aim::At(offset), data).await.map(drop)
    }

    /// Waits until everything written is on the OSDs and the MRC knows the size: afterwards other
    /// machines that open the file see it. What `close(2)` does for each descriptor.
    ///
    /// # Errors
    /// A write that failed since the last flush or sync, or the failure to tell the MRC.
    pub async fn flush(&self) -> Result<()> {
        if !self.0.mode.write {
            return Ok(());
        }
        self.0.flush().await
    }

    /// Like [`File::flush`], and what anybody wrote to the file and closed is on the OSDs' disks:
    /// it outlives a power failure. Every OSD of the file is asked each time, since only it knows
    /// what is not on its disk yet.
    ///
    /// # Errors
    /// As [`File::flush`]. That an OSD could not do it, or that its machine was started anew before
    /// it had synced what was written here (`EIO`), is told to every handle, as the loss of a write
    /// is: whose data it has lost is not known.
    pub async fn sync(&self) -> Result<()> {
        self.0.inode.settle().await;
        let mark = self.0.inode.lock().unsynced.mark();
        let answers = self.0.rights.sync().await;
        self.0.inode.synced(&self.0.rights, mark, answers)?;
        let told = match self.0.mode.write {
            true => self.0.inode.commit(&self.0.rights).await,
            false => self.0.inode.commit_written().await,
        };
        self.0.take_error().and(told)
    }

    /// Cuts the file to `size` bytes, or lengthens it with zeros.
    ///
    /// # Errors
    /// `EBADF` when the file is not open for writing; else what the services say.
    pub async fn truncate(&self, size: u64) -> Result<Attributes> {
        if !self.0.mode.write {
            return Err(Error::local(libc::EBADF, "the file is not open for writing"));
        }
        self.0.inode.shared.truncate(self.0.inode.ino, size, &self.0.rights).await
    }

    /// Flushes and gives the handle up; later calls do nothing. With the last handle of an
    /// unlinked file its content goes.
    ///
    /// # Errors
    /// As [`File::flush`].
    pub async fn close(&self) -> Result<()> {
        let flushed = self.flush().await;
        if !self.0.closed.swap(true, Ordering::AcqRel) {
            self.0.inode.shared.closed(&self.0.inode).await;
        }
        flushed
    }
}

impl Drop for Handle {
    /// A handle that nobody closed is closed in the background.
    fn drop(&mut self) {
        if *self.closed.get_mut() {
            return;
        }
        let (inode, rights) = (Arc::clone(&self.inode), Arc::clone(&self.rights));
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            inode.settle().await;
            if let Err(error) = inode.commit(&rights).await {
                error!(ino = %inode.ino, %error, "size not told for a file that nobody closed");
            }
            inode.shared.closed(&inode).await;
        });
    }
}

/// Where a write goes.
#[derive(Debug, Clone, Copy)]
enum Aim {
    At(u64),
    /// To the end as it is known here when the write's turn comes.
    End,
}

impl Handle {
    async fn write(&self, aim: Aim, data: Bytes) -> Result<u64> {
        if !self.mode.write {
            return Err(Error::local(libc::EBADF, "the file is not open for writing"));
        }
        if data.len() > TRANSFER_BYTES_MAX {
            let reason = format!("more than {TRANSFER_BYTES_MAX} bytes in one write");
            return Err(Error::local(libc::EINVAL, reason));
        }
        let mut tail = self.inode.order.lock().await;
        if let Some(error) = self.inode.lock().errors.at_write(&mut self.told()) {
            return Err(error);
        }
        let at = match aim {
            Aim::At(offset) => offset,
            Aim::End => self.inode.lock().size,
        };
        let length = data.len() as u64;
        if at.checked_add(length).is_none_or(|end| end > OFFSET_MAX) {
            return Err(Error::local(libc::EFBIG, "past the largest file size"));
        }
        if length > 0 {
            self.inode.accept(&mut tail, &self.rights, at, data).await?;
        }
        Ok(at)
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn flush(&self) -> Result<()> {
        self.inode.settle().await;
        let committed = self.inode.commit(&self.rights).await;
        self.take_error().and(committed)
    }

    fn take_error(&self) -> Result<()> {
        match self.inode.lock().errors.at_sync(&mut self.told()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}
