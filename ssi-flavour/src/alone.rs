//! What a process has that stands alone in a folder: one at a time, and root's socket.

use rustix::fs::FlockOperation;
use std::fmt::Display;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;

/// Says what could not be done.
pub(crate) fn no<E: Display>(what: &str) -> impl FnOnce(E) -> String + '_ {
    move |e| format!("{what}: {e}")
}

/// Locks a file of the present folder for as long as this process, or what it forks, has it open.
///
/// # Errors
/// That another one has it, or why it cannot be had.
pub(crate) fn lock(name: &str) -> Result<File, String> {
    let mut how = File::options();
    how.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = how.open(name).map_err(no("open the lock"))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err("one runs here already".to_owned()),
        Err(e) => Err(format!("lock the folder: {e}")),
    }
}

/// A socket in the present folder, for root alone. The caller holds the lock: an old socket is
/// nobody's.
///
/// # Errors
/// Why it cannot be made.
pub(crate) fn listen(name: &str) -> Result<UnixListener, String> {
    match std::fs::remove_file(name) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(format!("remove an old socket: {e}"));
        }
        _ => {}
    }
    let listener = UnixListener::bind(name).map_err(no("make the socket"))?;
    std::fs::set_permissions(name, PermissionsExt::from_mode(0o600))
        .map_err(no("keep the socket to root"))?;
    Ok(listener)
}
