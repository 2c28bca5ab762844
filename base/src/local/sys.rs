//! Who is at the other end of a socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// The process at the other end, as it was when it began to listen. Its pid is 0 when it is in
/// another pid namespace, as `xosd` is for a unit; rustix's type has no such value.
pub(super) fn peer(fd: &OwnedFd) -> io::Result<libc::ucred> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `peer` and `length` are locals that outlive the call, and `length` is the size of
    // `peer`, which any bytes are valid for.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &mut length,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    if length as usize != size_of::<libc::ucred>() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(peer)
}
