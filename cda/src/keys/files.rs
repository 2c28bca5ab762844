//! Secret files: owner only, replaced whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use xos_base::Error;
use zeroize::Zeroizing;

/// Longest key file, in bytes.
const FILE_MAX: u64 = 64 * 1024;

fn failed(what: &str, path: &Path, e: &std::io::Error) -> Error {
    Error::internal(format!("cannot {what} {}: {e}", path.display()))
        .hint("check the disk and the folder's owner, then start again")
}

/// Makes `dir` (mode 0700), its parents too.
pub(crate) fn make_dir(dir: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| failed("make", dir, &e))
}

/// Writes `dir/name` (mode 0600): a reader sees the old content or the new, after a crash too.
pub(crate) fn replace(dir: &Path, name: &str, content: &[u8]) -> Result<(), Error> {
    let path = dir.join(name);
    let temp = dir.join(format!("{name}.new"));
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temp, &path)
    };
    write().map_err(|e| failed("write", &path, &e))?;
    sync_dir(dir)
}

/// Waits until nobody else changes files in `dir`, and keeps others waiting until it is dropped.
pub(crate) fn lock(dir: &Path) -> Result<File, Error> {
    let held = File::open(dir).and_then(|d| d.lock().map(|()| d));
    held.map_err(|e| failed("lock", dir, &e))
}

/// Makes renames in `dir` last.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| failed("sync", dir, &e))
}

/// Renames the folder `from` to `to`, which must not exist, and makes that last.
pub(crate) fn publish(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|e| failed("rename", from, &e))?;
    sync_dir(to.parent().unwrap_or(Path::new("/")))
}

/// Removes a folder that never became valid.
pub(crate) fn remove_leftover(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", dir, &e)),
        _ => Ok(()),
    }
}

/// Reads a secret file, refusing one that others may read.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, Error> {
    let file = File::open(path).map_err(|e| {
        failed("read", path, &e).hint(
            "the site's keys are incomplete: restore the folder from a backup. It is never made \
             anew by itself, since everything issued so far would become void",
        )
    })?;
    let meta = file.metadata().map_err(|e| failed("read", path, &e))?;
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(Error::internal(format!("{} can be read by others", path.display()))
            .hint(format!("chmod 600 {}, and think about who may have read it", path.display())));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_MAX).read_to_string(&mut text).map_err(|e| failed("read", path, &e))?;
    Ok(text)
}
