//! The kernel's requests, one by one: translate, run, answer.

mod init;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use xtreemfs_client::Change;
use xtreemfs_proto::control::{COMMAND, ControlRequest, unpack};

use crate::answer::{Mount, attr, bytes, control, created, done, entry, opened, statfs};
use crate::convert;
use crate::core::Core;
use crate::serve::Needs;

/// Requests that are answered with an errno and nothing else: `name(arguments) reply = errno;`.
macro_rules! refused {
    ($($name:ident($($argument:ty),*) $reply:ty = $errno:ident;)*) => {$(
        fn $name(&self, _: &Request, $(_: $argument,)* reply: $reply) {
            reply.error(Errno::$errno);
        }
    )*};
}

impl Filesystem for Mount {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        init::agree(config)
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = bytes(name);
        let work = |core: Arc<Core>, who| async move { core.lookup(who, parent, &name).await };
        self.by_person("lookup", req, reply, work, entry);
    }

    fn forget(&self, _: &Request, _: INodeNo, _: u64) {}

    fn getattr(&self, req: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if self.caller(req).is_none()
            && let Some(root) = self.core.root_for_anyone(ino)
        {
            return attr(reply, root);
        }
        let work = |core: Arc<Core>, who| async move { core.attributes(who, ino).await };
        self.by_person("getattr", req, reply, work, attr);
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let map = &self.core.map;
        let owner = uid.map(|uid| map.member(uid).map(|member| member.0));
        let group = gid.map(|gid| map.group(gid));
        if owner == Some(None) || group == Some(None) {
            return reply.error(Errno::EINVAL);
        }
        let change = Change {
            mode: mode.map(|mode| mode & 0o7777),
            owner: owner.flatten(),
            group: group.flatten(),
            size,
            accessed: atime.map(convert::set_time),
            modified: mtime.map(convert::set_time),
        };
        let fh = fh.map(|fh| fh.0);
        let work = |core: Arc<Core>, who| async move { core.change(who, ino, change, fh).await };
        self.by_person("setattr", req, reply, work, attr);
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        let work = |core: Arc<Core>, who| async move { core.read_link(who, ino).await };
        self.by_person("readlink", req, reply, work, |reply, target| reply.data(&target));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        if !matches!(mode & libc::S_IFMT, 0 | libc::S_IFREG) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let name = bytes(name);
        let work =
            |core: Arc<Core>, who| async move { core.make_file(who, parent, &name, mode).await };
        self.by_person("mknod", req, reply, work, entry);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let name = bytes(name);
        let work = |core: Arc<Core>, who| async move {
            core.make_directory(who, parent, &name, mode).await
        };
        self.by_person("mkdir", req, reply, work, entry);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = bytes(name);
        let work = |core: Arc<Core>, who| async move { core.unlink(who, parent, &name).await };
        self.by_person("unlink", req, reply, work, done);
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = bytes(name);
        let work =
            |core: Arc<Core>, who| async move { core.remove_directory(who, parent, &name).await };
        self.by_person("rmdir", req, reply, work, done);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (name, target) = (bytes(name), bytes(target.as_os_str()));
        let work =
            |core: Arc<Core>, who| async move { core.symlink(who, parent, &name, &target).await };
        self.by_person("symlink", req, reply, work, entry);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
        let (name, new_name) = (bytes(name), bytes(new_name));
        let work = |core: Arc<Core>, who| async move {
            core.rename(who, (parent, &name), (new_parent, &new_name), no_replace).await
        };
        self.by_person("rename", req, reply, work, done);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let work = |core: Arc<Core>, who| async move { core.open(who, ino, flags.0).await };
        let core = Arc::clone(&self.core);
        self.by_person("open", req, reply, work, move |reply, file| {
            opened(reply, core.handles.add_file(file));
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let name = bytes(name);
        let work = |core: Arc<Core>, who| async move {
            core.create(who, parent, &name, mode, flags).await
        };
        let core = Arc::clone(&self.core);
        self.by_person("create", req, reply, work, move |reply, (attributes, file)| {
            created(reply, (attributes, core.handles.add_file(file)));
        });
    }

    fn read(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let work = |core: Arc<Core>| async move { core.read(fh.0, offset, size).await };
        let by = (self.core.handles.file_opener(fh.0), Needs::Answer(size));
        self.by_handle("read", by, reply, work, |reply, data| reply.data(&data));
    }

    fn write(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let data = Bytes::copy_from_slice(data);
        let core = Arc::clone(&self.core);
        let mapped = flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let work = |core: Arc<Core>| async move { core.write(fh.0, offset, data, mapped).await };
        let by = (self.core.handles.file_opener(fh.0), Needs::Brought(length));
        self.by_handle("write", by, reply, work, move |reply, (length, moved)| {
            reply.written(length);
            if let Some(ino) = moved {
                tokio::task::spawn_blocking(move || core.invalidate(ino, 0));
            }
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let work = |core: Arc<Core>| async move { core.flush(fh.0).await };
        let by = (self.core.handles.file_opener(fh.0), Needs::Nothing);
        self.by_handle("flush", by, reply, work, done);
    }

    fn release(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let work = |core: Arc<Core>| async move { core.release(fh.0).await };
        let by = (self.core.handles.file_opener(fh.0), Needs::Release);
        self.by_handle("release", by, reply, work, done);
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _data: bool, reply: ReplyEmpty) {
        let work = |core: Arc<Core>| async move { core.sync(fh.0).await };
        let by = (self.core.handles.file_opener(fh.0), Needs::Nothing);
        self.by_handle("fsync", by, reply, work, done);
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let work = |core: Arc<Core>, who| async move { core.open_directory(who, ino).await };
        let core = Arc::clone(&self.core);
        self.by_person("opendir", req, reply, work, move |reply, directory| {
            match core.handles.add_directory(directory) {
                Ok(handle) => opened(reply, handle),
                Err(error) => reply.error(convert::errno(&error)),
            }
        });
    }

    fn readdir(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let work = |core: Arc<Core>| async move { core.list(fh.0, offset).await };
        let by = (self.core.handles.directory_opener(fh.0), Needs::Nothing);
        self.by_handle("readdir", by, reply, work, |mut reply, entries| {
            for e in entries {
                let name = OsStr::from_bytes(&e.name);
                if reply.add(e.ino, e.next, convert::file_type(e.kind), name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.core.handles.remove_directory(fh.0);
        reply.ok();
    }

    /// The MRC answers a change of a directory when it is durable: nothing is left to do.
    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, req: &Request, _: INodeNo, reply: ReplyStatfs) {
        if self.caller(req).is_none() {
            return statfs(reply, self.core.statistics_for_anyone());
        }
        let work = |core: Arc<Core>, who| async move { core.statistics(who).await };
        self.by_person("statfs", req, reply, work, statfs);
    }

    fn access(&self, req: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let mask = mask.bits().unsigned_abs();
        let work = |core: Arc<Core>, who| async move { core.access(who, ino, mask).await };
        self.by_person("access", req, reply, work, done);
    }

    /// What a person says of a folder of theirs, or asks.
    fn ioctl(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        command: u32,
        data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        if command != COMMAND {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let Some(request) = unpack::<ControlRequest>(data) else {
            return reply.error(Errno::EINVAL);
        };
        let work = |core: Arc<Core>, who| async move { core.control(who, ino, request).await };
        self.by_person("ioctl", req, reply, work, control);
    }

    refused! {
        link(INodeNo, INodeNo, &OsStr) ReplyEntry = EOPNOTSUPP;
        getlk(INodeNo, FileHandle, LockOwner, u64, u64, i32, u32) ReplyLock = EOPNOTSUPP;
        setlk(INodeNo, FileHandle, LockOwner, u64, u64, i32, u32, bool) ReplyEmpty = EOPNOTSUPP;
    }

    // The kernel answers these with EOPNOTSUPP, or does without, from the first ENOSYS on.
    refused! {
        setxattr(INodeNo, &OsStr, &[u8], i32, u32) ReplyEmpty = ENOSYS;
        getxattr(INodeNo, &OsStr, u32) ReplyXattr = ENOSYS;
        listxattr(INodeNo, u32) ReplyXattr = ENOSYS;
        removexattr(INodeNo, &OsStr) ReplyEmpty = ENOSYS;
        fallocate(INodeNo, FileHandle, u64, u64, i32) ReplyEmpty = ENOSYS;
        lseek(INodeNo, FileHandle, i64, i32) ReplyLseek = ENOSYS;
        copy_file_range(
            INodeNo, FileHandle, u64, INodeNo, FileHandle, u64, u64, CopyFileRangeFlags
        ) ReplyWrite = ENOSYS;
    }
}
