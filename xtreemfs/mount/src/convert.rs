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

/// The kernel wants the root to be number 1; where the volume's root has another number, the two
/// are exchanged, in both directions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    root: u64,
}

impl Numbers {
    pub(crate) fn new(root: Ino) -> Numbers {
        Numbers { root: root.0 }
    }

    fn exchange(self, number: u64) -> u64 {
        match number {
            1 => self.root,
            n if n == self.root => 1,
            n => n,
        }
    }

    pub(crate) fn to_volume(self, number: INodeNo) -> Ino {
        Ino(self.exchange(number.0))
    }

    pub(crate) fn to_kernel(self, ino: Ino) -> INodeNo {
        INodeNo(self.exchange(ino.0))
    }
}

pub(crate) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
    }
}

pub(crate) fn attributes(a: &Attributes, numbers: Numbers, map: &UidMap) -> FileAttr {
    FileAttr {
        ino: numbers.to_kernel(a.ino),
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

fn time(ns: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_nanos(ns)).unwrap_or(UNIX_EPOCH)
}

/// Times before 1970 become 1970: the protocol has no others.
pub(crate) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(at) => {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            SetTime::At(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
        }
    }
}

pub(crate) fn open_mode(flags: i32) -> OpenMode {
    let access = flags & libc::O_ACCMODE;
    let execute = flags & FMODE_EXEC != 0;
    OpenMode {
        read: access != libc::O_WRONLY && !execute,
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
    fn the_root_is_number_one_and_no_number_is_lost() {
        let numbers = Numbers::new(Ino(64));
        for (kernel, volume) in [(1, 64), (64, 1), (7, 7)] {
            assert_eq!(numbers.to_volume(INodeNo(kernel)), Ino(volume));
            assert_eq!(numbers.to_kernel(Ino(volume)), INodeNo(kernel));
        }
    }

    #[test]
    fn an_execve_asks_for_the_right_to_execute() {
        let mode = open_mode(libc::O_RDONLY | FMODE_EXEC);
        assert!(mode.execute && !mode.read);
        let mode = open_mode(libc::O_RDWR | libc::O_TRUNC | libc::O_APPEND);
        assert!(mode.read && mode.write && mode.truncate && mode.append);
        assert!(!open_mode(libc::O_WRONLY).read);
    }

    #[test]
    fn odd_times_do_not_break() {
        let before = UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(set_time(TimeOrNow::SpecificTime(before)), SetTime::At(0));
        assert!(time(u64::MAX) > UNIX_EPOCH);
    }
}
