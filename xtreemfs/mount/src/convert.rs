//! Between the kernel's words and the client's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo, TimeOrNow};
use xtreemfs_client::{Attributes, Ino, Kind, OpenMode, SetTime};

use crate::uidmap::UidMap;

/// What `stat` shows as the best size for one read or write.
const IO_BYTES: u32 = 128 << 10;

/// Blocks of `st_blocks` are of this size.
const STAT_BLOCK_BYTES: u64 = 512;

/// Set by the kernel in the flags of an open that is for `execve` (`__FMODE_EXEC`).
const FMODE_EXEC: i32 = 0x20;

/// The volume's numbers are the kernel's: both call the root number 1.
pub(crate) fn to_volume(number: INodeNo) -> Ino {
    Ino(number.0)
}

pub(crate) fn to_kernel(ino: Ino) -> INodeNo {
    INodeNo(ino.0)
}

pub(crate) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
    }
}

pub(crate) fn attributes(a: &Attributes, map: &UidMap) -> FileAttr {
    FileAttr {
        ino: to_kernel(a.ino),
        size: a.size,
        blocks: a.size.div_ceil(STAT_BLOCK_BYTES),
        atime: time(a.accessed_ns),
        mtime: time(a.modified_ns),
        ctime: time(a.changed_ns),
        crtime: UNIX_EPOCH,
        kind: file_type(a.kind),
        perm: u16::try_from(a.mode & 0o7777).unwrap_or(0),
        nlink: a.links,
        uid: map.uid(a.owner),
        gid: map.gid(a.group),
        rdev: 0,
        blksize: IO_BYTES,
        flags: 0,
    }
}

fn time(ns: i64) -> SystemTime {
    let span = Duration::from_nanos(ns.unsigned_abs());
    let time = if ns < 0 { UNIX_EPOCH.checked_sub(span) } else { UNIX_EPOCH.checked_add(span) };
    time.unwrap_or(UNIX_EPOCH)
}

/// Times that do not fit into the protocol become the nearest that does.
pub(crate) fn set_time(time: TimeOrNow) -> SetTime {
    let TimeOrNow::SpecificTime(at) = time else { return SetTime::Now };
    let nanos = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    SetTime::At(match at.duration_since(UNIX_EPOCH) {
        Ok(since) => nanos(since),
        Err(before) => -nanos(before.duration()),
    })
}

pub(crate) fn open_mode(flags: i32) -> OpenMode {
    let access = flags & libc::O_ACCMODE;
    let execute = flags & FMODE_EXEC != 0;
    OpenMode {
        read: access != libc::O_WRONLY,
        write: access != libc::O_RDONLY,
        execute,
        truncate: flags & libc::O_TRUNC != 0,
        append: flags & libc::O_APPEND != 0,
    }
}

pub(crate) fn errno(error: &xtreemfs_client::Error) -> Errno {
    Errno::from_i32(error.errno())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execve_asks_for_the_right_to_execute() {
        let mode = open_mode(libc::O_RDONLY | FMODE_EXEC);
        assert!(mode.execute && mode.read && !mode.write);
        let mode = open_mode(libc::O_RDWR | libc::O_TRUNC | libc::O_APPEND);
        assert!(mode.read && mode.write && mode.truncate && mode.append);
        assert!(!open_mode(libc::O_WRONLY).read);
    }

    #[test]
    fn times_before_1970_and_impossible_ones_do_not_break() {
        let before = UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(set_time(TimeOrNow::SpecificTime(before)), SetTime::At(-5_000_000_000));
        assert_eq!(time(-5_000_000_000), before);
        assert!(time(i64::MAX) > UNIX_EPOCH && time(i64::MIN) < UNIX_EPOCH);
    }
}
