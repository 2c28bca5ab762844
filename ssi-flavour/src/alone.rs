//! What a process has that stands alone in a folder: one at a time, and root's socket.

use rustix::fs::FlockOperation;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Who signed in for a process, for the kernel's audit; see proc_pid_loginuid(5).
const LOGIN_UID: &str = "/proc/self/loginuid";
/// `(uid_t) -1`: nobody.
const NOBODY: &str = "4294967295";

/// Says what could not be done.
pub(crate) fn no<E: Display>(what: &str) -> impl FnOnce(E) -> String + '_ {
    move |e| format!("{what}: {e}")
}

/// Locks a file for as long as this process, or what it forks, has it open. `None`: another one has
/// it.
///
/// # Errors
/// Why it cannot be had.
pub fn take(path: &Path) -> io::Result<Option<File>> {
    let mut how = File::options();
    how.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = how.open(path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Removes a socket that an earlier process left. The caller holds the lock: it is nobody's.
///
/// # Errors
/// Why it stays.
pub fn remove_socket(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Locks a file of the present folder, as [`take`] does.
///
/// # Errors
/// That another one has it, or why it cannot be had.
pub(crate) fn lock(name: &str) -> Result<File, String> {
    let taken = take(Path::new(name)).map_err(no("lock the folder"))?;
    taken.ok_or_else(|| "one runs here already".to_owned())
}

/// A socket in the present folder, for root alone. The caller holds the lock.
///
/// # Errors
/// Why it cannot be made.
pub(crate) fn listen(name: &str) -> Result<UnixListener, String> {
    remove_socket(Path::new(name)).map_err(no("remove an old socket"))?;
    let listener = UnixListener::bind(name).map_err(no("make the socket"))?;
    std::fs::set_permissions(name, PermissionsExt::from_mode(0o600))
        .map_err(no("keep the socket to root"))?;
    Ok(listener)
}

/// Has nobody have signed in for this process and what it begins: its programs are not those of
/// whoever started `xosd`, perhaps in a session. For a process with one thread. Where the kernel
/// keeps that for ever (auditctl(8), `--loginuid-immutable`) it stays, and is taken out of images
/// that go to another site.
pub(crate) fn forget_login() {
    let _stays = std::fs::write(LOGIN_UID, NOBODY);
}
