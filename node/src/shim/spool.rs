//! Spool files: the output of units that named no file of their own.
//!
//! The folder is root's alone. A file belongs to the person, so that `/dev/stdout` works, but is
//! reached by nobody except through the descriptor that the unit was given. Since its owner may
//! take a lease on it, every open here is non-blocking.
//!
//! When the unit ends the file becomes root's, and nobody else may open it: a process that the
//! unit left behind with a descriptor for reading cannot make one for writing of it, through
//! `/proc`, once nobody looks at the file any more. Nor can it take another lease.

use super::machine::Spools;
use crate::spec::UnitKey;
use crate::sys;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
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

/// Makes a unit's spool file and gives it to the person.
pub(super) fn create(
    dir: BorrowedFd<'_>,
    name: &str,
    uid: u32,
    gid: u32,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY
        | OFlags::CREATE
        | OFlags::EXCL
        | OFlags::APPEND
        | OFlags::NOFOLLOW
        | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::fchown(&fd, Some(uid), Some(gid))?;
    Ok(fd)
}

/// The end of a unit: nobody opens the file any more, and an empty one to which nobody can write
/// is removed.
pub(super) fn settle(dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<Settled> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(Settled { bytes: 0, busy: false }),
        // Somebody holds a lease: a process of the unit is left.
        Err(Errno::WOULDBLOCK) => {
            take(dir, name)?;
            return Ok(Settled { bytes: 0, busy: true });
        }
        Err(e) => return Err(e),
    };
    // First the owner, who could change the mode again; then is seen who had it open before.
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    rustix::fs::fchown(&fd, Some(uid), Some(gid))?;
    rustix::fs::fchmod(&fd, Mode::RUSR)?;
    let busy = sys::has_writers(fd.as_fd()).unwrap_or(false);
    let bytes = size(&rustix::fs::fstat(&fd)?);
    if bytes == 0 && !busy {
        rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
    }
    Ok(Settled { bytes, busy })
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
    fn empty_files_go_and_full_ones_stay() {
        // wrong: 10,000 silent units would leave 20,000 files, or output would vanish
        let dir = tempfile::tempdir().unwrap();
        let fd = open_dir(dir.path()).unwrap();
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let make = |name: &str, text: &[u8]| {
            let f = create(fd.as_fd(), name, uid, gid).unwrap();
            std::fs::File::from(f).write_all(text).unwrap();
        };
        make("a.out", b"");
        make("b.out", b"hello");
        assert_eq!(settle(fd.as_fd(), "a.out"), Ok(Settled { bytes: 0, busy: false }));
        assert_eq!(settle(fd.as_fd(), "b.out"), Ok(Settled { bytes: 5, busy: false }));
        assert!(!dir.path().join("a.out").exists());
        assert_eq!(settle(fd.as_fd(), "none"), Ok(Settled { bytes: 0, busy: false }));
        assert_eq!(total(dir.path()).unwrap(), 5);
        assert_eq!(cut(fd.as_fd(), "b.out", 5), Ok(()));
        assert_eq!(length(fd.as_fd(), "b.out"), Ok(5));
        assert_eq!(cut(fd.as_fd(), "b.out", 2), Ok(()));
        assert_eq!(length(fd.as_fd(), "b.out"), Ok(2));
        assert_eq!(std::fs::read(dir.path().join("b.out")).unwrap(), b"he");
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
