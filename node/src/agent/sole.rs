//! One `xosd` for one state.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use xos_base::Error;

/// Longest process id that is read, in bytes.
const PID_MAX: u64 = 20;

/// Takes the node's folder for this process, until the file is dropped or the process ends.
///
/// # Errors
/// [`xos_base::Kind::Conflict`] when another process has it; [`xos_base::Kind::Internal`] when
/// the lock cannot be had.
pub(super) fn hold(folder: &Path) -> Result<File, Error> {
    let path = folder.join("xosd.lock");
    let fail = |e: &std::io::Error| Error::internal(format!("cannot lock {}: {e}", path.display()));
    let mut how = OpenOptions::new();
    how.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = how.open(&path).map_err(|e| fail(&e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.take(PID_MAX).read_to_string(&mut pid).map_err(|e| fail(&e))?;
            let folder = folder.display();
            return Err(Error::conflict(format!("another xosd, process {pid}, uses {folder}"))
                .hint("stop it first, or give this one another folder (state in [site])"));
        }
        Err(TryLockError::Error(e)) => return Err(fail(&e)),
    }
    // The lock holds without it: on a full disk the node must start all the same.
    let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "the lock does not tell who holds it");
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_base::Kind;

    #[test]
    fn a_second_xosd_is_refused_and_told_of_the_first() {
        // wrong: two would answer for the same envelopes, and take the ticket socket from another
        let dir = tempfile::tempdir().unwrap();
        let first = hold(dir.path()).unwrap();
        let refused = hold(dir.path()).unwrap_err();
        assert_eq!(refused.kind, Kind::Conflict);
        let pid = format!("process {},", std::process::id());
        assert!(refused.message.contains(&pid), "{}", refused.message);
        drop(first);
        hold(dir.path()).unwrap();
    }
}
