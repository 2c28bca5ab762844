//! A file mapped into memory, and the clock that costs no system call.

use std::{fs::File, io, os::fd::AsRawFd, ptr, slice};

/// A private, read-only mapping of the first `len` bytes of a file.
#[derive(Debug)]
pub(super) struct Map {
    start: ptr::NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is read-only for its whole life and belongs to no thread.
unsafe impl Send for Map {}
// SAFETY: as above; shared reads do not interfere.
unsafe impl Sync for Map {}

impl Map {
    /// Maps `len` > 0 bytes, which the file must have where they are read.
    ///
    /// The file must never be truncated (a read behind its end is SIGBUS): account files are only
    /// ever replaced by rename, only root can write to them, and each lookup begins with a look at
    /// the length. Changed bytes are found out by the checks at their use.
    pub(super) fn new(file: &File, len: usize) -> io::Result<Self> {
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: a new mapping at an address of the kernel's choice, of a descriptor that is open.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_POPULATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = ptr::NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `start` is the start of a mapping of `len` readable bytes that lives as long as
        // `self`, and nobody writes to it.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: this very range was mapped in `new`, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Milliseconds of a clock that only goes forward, as of the kernel's last tick; `None` where there
/// is no such clock.
pub(super) fn clock_ms() -> Option<u64> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a local that outlives the call.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut now) } != 0 {
        return None;
    }
    let seconds = u64::try_from(now.tv_sec).ok()?;
    seconds.checked_mul(1000)?.checked_add(u64::try_from(now.tv_nsec).ok()? / 1_000_000)
}
