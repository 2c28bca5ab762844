//! The wall around `ioctl(2)`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use xtreemfs_proto::control::BUFFER_BYTES;

/// Makes an ioctl that reads and writes one buffer of [`BUFFER_BYTES`], as `command` says.
pub(crate) fn ioctl(file: &File, command: u32, buffer: &mut [u8; BUFFER_BYTES]) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the buffer lives and is as long as the size that is coded
    // into the only command there is, which the kernel goes by.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), command.into(), buffer.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
