//! Files that are whole or as they were before, also after a power loss.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Least room on a disk for something new, bytes.
const ROOM_MIN: u64 = 64 * 1024;
/// One part in so many of a disk stays free of what nobody can say how long it is kept.
const RESERVE: u64 = 32;

/// Replaces a file of this program's user alone (0600), or makes it. One program does so at a time.
///
/// # Errors
/// Those of the file system; then the file is as it was.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    draft(path, bytes, |file| file.sync_all())?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// As [`replace`], without waiting for the disk: it is whole or as it was before whatever becomes of
/// this program, and not after a loss of power.
///
/// # Errors
/// Those of the file system; then the file is as it was.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    draft(path, bytes, |_| Ok(()))
}

fn draft(path: &Path, bytes: &[u8], sync: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let mut how = OpenOptions::new();
    how.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = how.open(&draft)?;
    file.write_all(bytes)?;
    sync(&file)?;
    std::fs::rename(&draft, path)
}

/// Whether the disk of a folder has room for something new.
///
/// # Errors
/// `StorageFull` when it has none; that of asking.
pub(crate) fn has_room(folder: &Path) -> io::Result<()> {
    let disk = rustix::fs::statvfs(folder)?;
    // Some do not say how large they are.
    let full = disk.f_blocks > 0 && disk.f_bfree.saturating_mul(disk.f_frsize) < ROOM_MIN;
    if full { Err(io::Error::new(io::ErrorKind::StorageFull, "it is full")) } else { Ok(()) }
}

/// Whether the disk of a folder has room for so many bytes and a thirty-second of it free then.
///
/// # Errors
/// `StorageFull` when it has not; that of asking.
pub(crate) fn has_reserve(folder: &Path, bytes: u64) -> io::Result<()> {
    let disk = rustix::fs::statvfs(folder)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let all = disk.f_blocks.saturating_mul(disk.f_frsize);
    if free >= bytes.saturating_add(all / RESERVE) || all == 0 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::StorageFull, "its disk is nearly full"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, what leaves a node could take the last of its disk, and all that runs there
    /// stop.
    #[test]
    fn a_part_of_a_disk_stays_free() {
        let folder = tempfile::tempdir().unwrap();
        let disk = rustix::fs::statvfs(folder.path()).unwrap();
        let all = disk.f_blocks.saturating_mul(disk.f_frsize);
        let full = has_reserve(folder.path(), all - all / 64).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert!(has_reserve(folder.path(), u64::MAX).is_err());
    }
}
