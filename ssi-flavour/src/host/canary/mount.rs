//! A small file system (FUSE), as volumes are, of which the canary has a file open.

use crate::alone::no;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyEntry, Request,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime};

/// Where it is mounted: in memory that each cell has for itself.
const FOLDER: &str = "/dev/shm/xos-trial";
/// Its file, and what is in that.
pub(super) const FILE: &str = "/dev/shm/xos-trial/file";
pub(super) const TEXT: &str = "canary\n";
const FILE_NAME: &str = "file";
const FILE_SYSTEM: &str = "fuse.xos-trial";
const FILE_NUMBER: INodeNo = INodeNo(2);
/// Nothing in it changes.
const TTL: Duration = Duration::from_secs(3600);

/// What is mounted in a cell until this is dropped. Both wait.
pub(super) struct Mounted {
    /// The cell's mounts.
    mounts: File,
}

impl Mounted {
    /// Mounts it in the cell of this init.
    ///
    /// # Errors
    /// That such a file system cannot be had there.
    pub(super) fn within(init: i32) -> Result<Mounted, String> {
        let mounts = File::open(format!("/proc/{init}/ns/mnt"));
        let mounts = mounts.map_err(no("open the cell's mounts"))?;
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = device.map_err(no("open /dev/fuse, which the kernel has for FUSE"))?;
        let options = format!(
            "fd={},rootmode=40555,user_id=0,group_id=0,default_permissions,allow_other",
            device.as_raw_fd()
        );
        apart(&mounts, || {
            std::fs::create_dir(FOLDER).map_err(no("make a folder in /dev/shm"))?;
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
            mount(Some("xos-trial"), FOLDER, Some(FILE_SYSTEM), flags, Some(options.as_str()))
                .map_err(no("mount a file system"))
        })?;
        let mounted = Mounted { mounts };
        let (acl, config) = (fuser::SessionACL::All, fuser::Config::default());
        let served = OneFile(SystemTime::UNIX_EPOCH);
        let session = fuser::Session::from_fd(served, OwnedFd::from(device), acl, config);
        let session = session.map_err(no("begin with FUSE"))?;
        let thread = std::thread::Builder::new().name("trial".to_owned());
        thread
            .spawn(move || {
                if let Err(error) = session.run() {
                    tracing::warn!(%error, "the trial's file system ended");
                }
            })
            .map_err(no("start a thread"))?;
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let gone = apart(&self.mounts, || {
            umount2(FOLDER, MntFlags::MNT_DETACH).map_err(no("take it away"))?;
            std::fs::remove_dir(FOLDER).map_err(no("remove its folder"))
        });
        if let Err(why) = gone {
            tracing::warn!(why, "the trial's file system stays in the cell");
        }
    }
}

/// Does something among a cell's mounts, in a thread of its own.
fn apart(mounts: &File, work: impl FnOnce() -> Result<(), String> + Send) -> Result<(), String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, move || {
            // A thread that shares its folders with others cannot change its mounts.
            unshare(CloneFlags::CLONE_FS).map_err(no("part with the other threads"))?;
            setns(mounts, CloneFlags::CLONE_NEWNS).map_err(no("enter the cell's mounts"))?;
            work()
        });
        let thread = thread.map_err(no("start a thread"))?;
        thread.join().unwrap_or_else(|_| Err("the trial's thread failed".to_owned()))
    })
}

/// A folder with one file, which all may read. Since when.
struct OneFile(SystemTime);

impl OneFile {
    fn look(&self, number: INodeNo) -> Result<FileAttr, Errno> {
        let (kind, perm, size) = match number {
            INodeNo::ROOT => (FileType::Directory, 0o555, 0),
            FILE_NUMBER => (FileType::RegularFile, 0o444, TEXT.len() as u64),
            _ => return Err(Errno::ENOENT),
        };
        Ok(FileAttr {
            ino: number,
            size,
            blocks: 1,
            atime: self.0,
            mtime: self.0,
            ctime: self.0,
            crtime: self.0,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for OneFile {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let here = parent == INodeNo::ROOT && name == FILE_NAME;
        match self.look(if here { FILE_NUMBER } else { INodeNo(0) }) {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.look(ino) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(TEXT.len());
        let many = usize::try_from(size).unwrap_or(usize::MAX).min(TEXT.len() - from);
        reply.data(&TEXT.as_bytes()[from..from + many]);
    }
}
