//! One backing file: a head with the newest truncate epoch, then the objects.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;

/// Bytes in front of the objects: the epoch (`u64`, little endian) and zeros. A page, so that
/// objects stay aligned; of a file that was never truncated it is a hole.
pub(super) const HEAD_BYTES: u64 = 4096;

/// An open backing file.
#[derive(Debug)]
pub(super) struct Backing {
    file: File,
    /// See [`Backing::epoch`]; as in the head.
    epoch: Mutex<u64>,
    /// Locked while the file is synced: the kernel tells one of several callers of a failure.
    pub(super) syncing: Mutex<()>,
    /// Whether its name is known to be on disk.
    pub(super) name_synced: AtomicBool,
}

impl Backing {
    /// Opens it; `None` if there is none and `create` does not ask for one.
    pub(super) fn open(path: &Path, create: bool) -> io::Result<Option<Self>> {
        let nofollow = OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).truncate(false).mode(0o600);
        options.custom_flags(nofollow);
        let file = match options.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) if !create => return Ok(None),
            Err(_) => {
                std::fs::create_dir_all(path.parent().unwrap_or(path))?;
                options.open(path)?
            }
        };
        // An empty file has seen no truncation.
        let mut head = [0; 8];
        read_at(&file, &mut head, 0)?;
        let epoch = u64::from_le_bytes(head);
        Ok(Some(Self {
            file,
            epoch: Mutex::new(epoch),
            syncing: Mutex::default(),
            name_synced: AtomicBool::new(false),
        }))
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Number of the newest truncation that was made here, or that every OSD is known to have made.
    /// Held while the file is cut, so that an older truncation cannot slip behind a newer one.
    pub(super) fn epoch(&self) -> MutexGuard<'_, u64> {
        self.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of objects.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len().saturating_sub(HEAD_BYTES))
    }

    /// Reads up to the end; gives the number of bytes.
    pub(super) fn read(&self, data: &mut [u8], offset: u64) -> io::Result<usize> {
        read_at(&self.file, data, HEAD_BYTES + offset)
    }

    /// Writes; gives the newest truncate epoch seen.
    pub(super) fn write(&self, data: &[u8], offset: u64, epoch: u64) -> io::Result<u64> {
        let seen = {
            let mut held = self.epoch();
            self.raise(&mut held, epoch)?;
            *held
        };
        self.file.write_all_at(data, HEAD_BYTES + offset)?;
        Ok(seen)
    }

    /// Cuts the objects to `length` bytes.
    pub(super) fn cut(&self, length: u64) -> io::Result<()> {
        self.file.set_len(HEAD_BYTES + length)
    }

    /// Notes a truncation that was made, in the head too; `newest` is [`Backing::epoch`].
    pub(super) fn raise(&self, newest: &mut u64, epoch: u64) -> io::Result<()> {
        if *newest < epoch {
            self.file.write_all_at(&epoch.to_le_bytes(), 0)?;
            *newest = epoch;
        }
        Ok(())
    }
}

fn read_at(file: &File, data: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < data.len() {
        match file.read_at(&mut data[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
