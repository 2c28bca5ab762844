//! Spool files: the output of units that named no file of their own.
//!
//! The folder is root's alone. A file belongs to the person, so that `/dev/stdout` works, but is
//! reached by nobody except through the descriptor that the unit was given. Since its owner may
//! take a lease on it, every open here is non-blocking.
//!
//! When the unit ends the file becomes root's, and nobody else may open it: a process that the
//! unit left behind with a descriptor for reading cannot make one for writing of it, through
//! `/proc`, once nobody looks at the file any more. Nor can it take another lease.
//!
//! A file that stayed empty and to which nobody can write serves the envelope's next unit, under
//! that unit's name: to find a new inode costs some file systems more than all else that a short
//! unit needs of them (ext4 passes over those that were freed in the last seconds). Until then it
//! stays the person's, and is measured. A process of the first unit that still has it open sees, or
//! hinders, another unit of the same person.

use super::machine::Spools;
use crate::spec::UnitKey;
use crate::sys;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Which standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The name of the unit's spool file.
    pub fn file_name(self, unit: &UnitKey) -> String {
        match self {
            Stream::Stdout => format!("{unit}.out"),
            Stream::Stderr => format!("{unit}.err"),
        }
    }
}

/// How a spool file stands at the end of its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// Its size.
    pub bytes: u64,
    /// Whether some process may still write to it.
    pub busy: bool,
}

/// Opens the spool folder.
pub(super) fn open_dir(path: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Gives the person a unit's spool file, which is made unless one was handed on.
pub(super) fn create(
    dir: BorrowedFd<'_>,
    name: &str,
    uid: u32,
    gid: u32,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY
        | OFlags::CREATE
        | OFlags::APPEND
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let fd = rustix::fs::openat(dir, name, flags, mode)?;
    let stat = rustix::fs::fstat(&fd)?;
    if size(&stat) != 0 || stat.st_nlink != 1 {
        return Err(Errno::EXIST);
    }
    rustix::fs::fcntl_setfl(&fd, OFlags::APPEND)?;
    if (stat.st_uid, stat.st_gid) != (uid, gid) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::fchown(&fd, Some(uid), Some(gid))?;
    }
    if Mode::from_raw_mode(stat.st_mode) != mode {
        rustix::fs::fchmod(&fd, mode)?;
    }
    Ok(fd)
}

/// Whether a file is empty and nobody can write to it.
pub(super) fn is_unused(dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => {
            let empty = size(&rustix::fs::fstat(&fd)?) == 0;
            Ok(empty && sys::has_writers(fd.as_fd()) == Some(false))
        }
        Err(Errno::NOENT | Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Hands a file on to another unit.
pub(super) fn hand_on(dir: BorrowedFd<'_>, from: &str, to: &str) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE)
}

/// Removes an empty file.
pub(super) fn remove(dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
    rustix::fs::unlinkat(dir, name, AtFlags::empty())
}

/// The end of a unit: nobody opens the file any more. `None`: there is none.
pub(super) fn settle(dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<Option<Settled>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        // Somebody holds a lease: a process of the unit is left.
        Err(Errno::WOULDBLOCK) => {
            take(dir, name)?;
            return Ok(Some(Settled { bytes: 0, busy: true }));
        }
        Err(e) => return Err(e),
    };
    // First the owner, who could change the mode again; then is seen who had it open before.
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    rustix::fs::fchown(&fd, Some(uid), Some(gid))?;
    rustix::fs::fchmod(&fd, Mode::RUSR)?;
    let busy = sys::has_writers(fd.as_fd()).unwrap_or(false);
    Ok(Some(Settled { bytes: size(&rustix::fs::fstat(&fd)?), busy }))
}

/// Makes root the owner of a file that cannot be opened now, so that its lease is the last one.
fn take(dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// How long a spool file is; 0 for none.
pub(super) fn length(dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<u64> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(0),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => Ok(0),
        other => other.map(|stat| size(&stat)),
    }
}

/// Cuts a file back to `max` bytes.
///
/// Writers append, so a file under a steady writer stays at `max` plus what is written between
/// two calls.
pub(super) fn cut(dir: BorrowedFd<'_>, name: &str, max: u64) -> rustix::io::Result<()> {
    if length(dir, name)? <= max {
        return Ok(());
    }
    take(dir, name)?;
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => rustix::fs::ftruncate(&fd, max),
        // The kernel now takes the lease away; the next call succeeds.
        Err(Errno::WOULDBLOCK) => Ok(()),
        Err(e) => Err(e),
    }
}

/// How much the files in the spool folder hold together.
pub(super) fn total(dir: &std::path::Path) -> std::io::Result<u64> {
    let mut bytes = 0u64;
    for entry in std::fs::read_dir(dir)? {
        bytes = bytes.saturating_add(entry?.metadata()?.len());
    }
    Ok(bytes)
}

fn size(stat: &rustix::fs::Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// The spool files of a unit.
pub(super) fn names(unit: &UnitKey, spools: Spools) -> impl Iterator<Item = (Stream, String)> {
    [(spools.stdout, Stream::Stdout), (spools.stderr, Stream::Stderr)]
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, s)| (s, s.file_name(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn files_are_settled_cut_and_handed_on() {
        // wrong: output would vanish, or come to a unit that did not write it
        let dir = tempfile::tempdir().unwrap();
        let fd = open_dir(dir.path()).unwrap();
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let make = |name: &str, text: &[u8]| {
            let f = create(fd.as_fd(), name, uid, gid)?;
            std::fs::File::from(f).write_all(text).unwrap();
            rustix::io::Result::Ok(())
        };
        make("a.out", b"").unwrap();
        make("b.out", b"hello").unwrap();
        let free = |bytes| Ok(Some(Settled { bytes, busy: false }));
        let mode = |name: &str| {
            use std::os::unix::fs::MetadataExt;
            std::fs::metadata(dir.path().join(name)).unwrap().mode() & 0o7777
        };
        assert_eq!(is_unused(fd.as_fd(), "a.out"), Ok(true));
        assert_eq!(is_unused(fd.as_fd(), "b.out"), Ok(false));
        assert_eq!(is_unused(fd.as_fd(), "none"), Ok(false));
        let writer = std::fs::File::options().append(true).open(dir.path().join("a.out")).unwrap();
        assert_eq!(is_unused(fd.as_fd(), "a.out"), Ok(false));
        drop(writer);
        assert_eq!(settle(fd.as_fd(), "a.out"), free(0));
        assert_eq!(settle(fd.as_fd(), "b.out"), free(5));
        assert_eq!((mode("a.out"), mode("b.out")), (0o400, 0o400));
        assert_eq!(settle(fd.as_fd(), "none"), Ok(None));
        assert_eq!(total(dir.path()).unwrap(), 5);

        assert_eq!(hand_on(fd.as_fd(), "a.out", "b.out"), Err(Errno::EXIST));
        assert_eq!(hand_on(fd.as_fd(), "a.out", "c.out"), Ok(()));
        make("c.out", b"new").unwrap();
        assert_eq!((mode("c.out"), settle(fd.as_fd(), "c.out")), (0o600, free(3)));
        assert_eq!(make("b.out", b"twice"), Err(Errno::EXIST), "a file that holds something");
        std::fs::hard_link(dir.path().join("c.out"), dir.path().join("d.out")).unwrap();
        cut(fd.as_fd(), "c.out", 0).unwrap();
        assert_eq!(make("c.out", b"linked"), Err(Errno::EXIST), "a file with two names");

        assert_eq!(cut(fd.as_fd(), "b.out", 5), Ok(()));
        assert_eq!(length(fd.as_fd(), "b.out"), Ok(5));
        assert_eq!(cut(fd.as_fd(), "b.out", 2), Ok(()));
        assert_eq!(length(fd.as_fd(), "b.out"), Ok(2));
        assert_eq!(std::fs::read(dir.path().join("b.out")).unwrap(), b"he");
    }

    #[test]
    fn a_lease_holds_up_nobody() {
        // wrong: a process that a unit left could stop the envelope's init for a minute
        let dir = tempfile::tempdir().unwrap();
        let fd = open_dir(dir.path()).unwrap();
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        drop(create(fd.as_fd(), "a.out", uid, gid).unwrap());
        let reader = std::fs::File::open(dir.path().join("a.out")).unwrap();
        if !sys::hold_lease(reader.as_fd()) {
            println!("skipped: no leases on this file system");
            return;
        }
        assert_eq!(is_unused(fd.as_fd(), "a.out"), Ok(true));
        hand_on(fd.as_fd(), "a.out", "b.out").unwrap();
        let refused = create(fd.as_fd(), "b.out", uid, gid).map(drop);
        assert_eq!(refused, Err(Errno::WOULDBLOCK), "the person's other unit is not held up");
    }

    #[test]
    fn a_prepared_link_is_not_followed() {
        // wrong: output, or its removal, would hit a file of root's
        let dir = tempfile::tempdir().unwrap();
        let fd = open_dir(dir.path()).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("l.out")).unwrap();
        assert!(create(fd.as_fd(), "l.out", 0, 0).is_err());
        assert!(settle(fd.as_fd(), "l.out").is_err());
        assert_eq!(cut(fd.as_fd(), "l.out", 0), Ok(()));
        assert!(std::fs::metadata("/etc/passwd").unwrap().len() > 0);
    }
}
