//! Operations on directory entries: look up, create, remove, list.

use bytes::Bytes;
use xtreemfs_proto::capability::Cut;
use xtreemfs_proto::layout::FILE_BYTES_MAX;
use xtreemfs_proto::mrc::{Attr, Entry, Kind, READDIR_ENTRIES_MAX, ReaddirReply, open_flags};
use xtreemfs_proto::{Access, Errno, Layout, RpcError};

use crate::mrc::choose::{OsdStatus, choose};
use crate::mrc::name::{Name, check_target};
use crate::mrc::perm::{R, W, X, inherit, may, need, need_sticky, without_set_ids};
use crate::mrc::record::{InodeRecord, entries_prefix, entry_key, inode_at_end, target_key};
use crate::mrc::space::{DEPTH_MAX, Space, damaged};

/// Most truncations of one file that some OSD may not have made: each is in every capability.
pub const OWED_MAX: usize = 16;

/// A file that was opened (and perhaps made or cut).
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    /// Inode number.
    pub inode: u64,
    /// The inode afterwards.
    pub record: InodeRecord,
    /// What the person may do with its objects.
    pub access: Access,
    /// It was made.
    pub created: bool,
}

/// Something that lost its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Removed {
    /// Inode number.
    pub inode: u64,
    /// The inode as it was.
    pub record: InodeRecord,
}

impl Space<'_> {
    /// Attributes of a name in a directory.
    ///
    /// # Errors
    /// `ENOENT`, `EACCES`, `ENOTDIR`, `ESTALE`.
    pub fn lookup(&self, parent: u64, name: Name<'_>) -> Result<Attr, RpcError> {
        self.dir(parent, X)?;
        let (inode, record) = self.existing(parent, name)?;
        Ok(record.attr(inode))
    }

    /// Makes a file and opens it, or opens what is there.
    ///
    /// # Errors
    /// `EEXIST`, `EACCES`, `EISDIR`, `ELOOP`, `ENOSPC` (no OSD with room), ...
    pub fn create(
        &mut self,
        parent: u64,
        name: Name<'_>,
        mode: u32,
        flags: u32,
        osds: &[OsdStatus],
    ) -> Result<Opened, RpcError> {
        check_flags(flags)?;
        let mut dir = self.dir(parent, X)?;
        if let Some(inode) = self.child(parent, name) {
            if flags & open_flags::EXCLUSIVE != 0 {
                return Err(Errno::EEXIST.into());
            }
            return self.open(inode, flags);
        }
        need(self.who, &dir, W | X)?;
        let inode = self.new_inode()?;
        let layout = self.new_layout(inode, osds, &self.pin_at(parent)?)?;
        let (mode, group) = inherit(self.who, &dir, mode, false);
        let mut record = self.new_record(Kind::File, mode, group, parent);
        record.layout = Some(layout);
        self.enter(parent, &mut dir, name, inode, &record);
        self.put_inode(parent, &dir);
        self.put_inode(inode, &record);
        let access = access_of(flags) | self.extra_read(&record);
        Ok(Opened { inode, record, access, created: true })
    }

    /// A pinned folder's files lie at its site or nowhere.
    fn new_layout(&self, inode: u64, osds: &[OsdStatus], pin: &str) -> Result<Layout, RpcError> {
        let volume = self.volume;
        let at_site: Vec<OsdStatus>;
        let osds = if pin.is_empty() {
            osds
        } else {
            at_site = osds.iter().filter(|osd| osd.site == pin).cloned().collect();
            &at_site
        };
        let chosen = choose(osds, &volume.osds, volume.width as usize, inode);
        let layout = Layout { stripe_size: volume.stripe_size, osds: chosen };
        if layout.is_valid() {
            return Ok(layout);
        }
        let text = if pin.is_empty() {
            format!("no OSD of volume {} is up and has room", volume.name)
        } else {
            format!("the folder is pinned to site {pin}, of which no OSD is up and has room")
        };
        Err(RpcError::errno(Errno::ENOSPC, text))
    }

    fn new_record(&self, kind: Kind, mode: u32, group: u32, parent: u64) -> InodeRecord {
        InodeRecord {
            kind: kind.into(),
            mode,
            owner: self.who.member,
            group,
            atime_ns: self.now_ns,
            mtime_ns: self.now_ns,
            ctime_ns: self.now_ns,
            parent,
            ..Default::default()
        }
    }

    /// Opens a file by inode.
    ///
    /// # Errors
    /// `EISDIR`, `ELOOP` (a symbolic link), `EACCES`, `ESTALE`, `EINVAL`.
    pub fn open(&mut self, inode: u64, flags: u32) -> Result<Opened, RpcError> {
        check_flags(flags)?;
        let mut record = self.reach(inode)?;
        need_file(&record)?;
        let read = if flags & open_flags::READ != 0 { R } else { 0 };
        let write = if flags & open_flags::WRITE != 0 { W } else { 0 };
        need(self.who, &record, read | write)?;
        let access = access_of(flags) | self.extra_read(&record);
        if flags & open_flags::TRUNCATE != 0 {
            self.cut(inode, &mut record, 0)?;
        }
        Ok(Opened { inode, record, access, created: false })
    }

    /// Reading is allowed with writing where the person may read anyway: clients that cache pages
    /// must read what surrounds a small write.
    pub(crate) fn extra_read(&self, record: &InodeRecord) -> Access {
        if may(self.who, record, R) { Access::READ } else { Access(0) }
    }

    /// Sets the size and raises the truncate epoch.
    pub(crate) fn cut(
        &mut self,
        inode: u64,
        record: &mut InodeRecord,
        size: u64,
    ) -> Result<(), RpcError> {
        if size > FILE_BYTES_MAX {
            return Err(Errno::EFBIG.into());
        }
        // Also larger than any that was given before an old copy of the metadata was restored.
        let epoch = record.truncate_epoch.saturating_add(1).max(self.index().first_epoch());
        // What an earlier one would have left this one cuts off as well.
        record.owed.retain(|earlier| earlier.size < size);
        if record.owed.len() >= OWED_MAX {
            let text = "too many truncations of this file are not made yet: an object server that \
                        holds part of it does not answer";
            return Err(RpcError::errno(Errno::EIO, text));
        }
        record.owed.push(Cut { epoch, size });
        record.truncate_epoch = epoch;
        record.size = size;
        record.mtime_ns = self.now_ns;
        record.ctime_ns = self.now_ns;
        if !self.who.admin {
            record.mode = without_set_ids(record.mode);
        }
        self.put_inode(inode, record);
        Ok(())
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// `EEXIST`, `EACCES`, `ELOOP` (too deep), ...
    pub fn mkdir(&mut self, parent: u64, name: Name<'_>, mode: u32) -> Result<Attr, RpcError> {
        let (_, depth) = self.reach_depth(parent)?;
        let mut dir = self.new_place(parent, name)?;
        // Half, so that moving a folder into another one still ends at a depth that is reached.
        if depth >= DEPTH_MAX / 2 {
            let text = format!("a directory lies at most {} deep", DEPTH_MAX / 2);
            return Err(RpcError::errno(Errno::ELOOP, text));
        }
        let inode = self.new_inode()?;
        let (mode, group) = inherit(self.who, &dir, mode, true);
        let record = self.new_record(Kind::Directory, mode, group, parent);
        self.enter(parent, &mut dir, name, inode, &record);
        self.put_inode(parent, &dir);
        self.put_inode(inode, &record);
        Ok(record.attr(inode))
    }

    /// A directory in which the person may make a name that is not there yet.
    fn new_place(&self, parent: u64, name: Name<'_>) -> Result<InodeRecord, RpcError> {
        let dir = self.dir(parent, X)?;
        if self.child(parent, name).is_some() {
            return Err(Errno::EEXIST.into());
        }
        need(self.who, &dir, W | X)?;
        Ok(dir)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// `EEXIST`, `EACCES`, `EINVAL`, `ENAMETOOLONG`, ...
    pub fn symlink(
        &mut self,
        parent: u64,
        name: Name<'_>,
        target: &[u8],
    ) -> Result<Attr, RpcError> {
        check_target(target)?;
        let mut dir = self.new_place(parent, name)?;
        let inode = self.new_inode()?;
        let (_, group) = inherit(self.who, &dir, 0, false);
        let mut record = self.new_record(Kind::Symlink, 0o777, group, parent);
        record.size = target.len() as u64;
        self.put(target_key(self.volume.number, inode), target.to_vec());
        self.enter(parent, &mut dir, name, inode, &record);
        self.put_inode(parent, &dir);
        self.put_inode(inode, &record);
        Ok(record.attr(inode))
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// `EINVAL` if it is none, `EACCES`, `ESTALE`.
    pub fn readlink(&self, inode: u64) -> Result<Bytes, RpcError> {
        if !self.reach(inode)?.is_symlink() {
            return Err(RpcError::errno(Errno::EINVAL, "not a symbolic link"));
        }
        let target = self.value(&target_key(self.volume.number, inode));
        target.map(Bytes::copy_from_slice).ok_or_else(|| damaged("link target"))
    }

    /// Removes the name of a file or symbolic link.
    ///
    /// # Errors
    /// `EISDIR`, `ENOENT`, `EACCES`, `EPERM` (sticky), ...
    pub fn unlink(&mut self, parent: u64, name: Name<'_>) -> Result<Removed, RpcError> {
        let (dir, inode, record) = self.removable(parent, name)?;
        if record.is_dir() {
            return Err(Errno::EISDIR.into());
        }
        self.remove(parent, dir, name, inode, record)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOTDIR`, `ENOTEMPTY`, `ENOENT`, `EACCES`, `EPERM` (sticky), ...
    pub fn rmdir(&mut self, parent: u64, name: Name<'_>) -> Result<Removed, RpcError> {
        let (dir, inode, record) = self.removable(parent, name)?;
        if !record.is_dir() {
            return Err(Errno::ENOTDIR.into());
        }
        if record.size > 0 {
            return Err(Errno::ENOTEMPTY.into());
        }
        self.remove(parent, dir, name, inode, record)
    }

    fn removable(
        &self,
        parent: u64,
        name: Name<'_>,
    ) -> Result<(InodeRecord, u64, InodeRecord), RpcError> {
        let dir = self.dir(parent, X)?;
        let (inode, record) = self.existing(parent, name)?;
        need(self.who, &dir, W | X)?;
        need_sticky(self.who, &dir, &record)?;
        Ok((dir, inode, record))
    }

    fn remove(
        &mut self,
        parent: u64,
        mut dir: InodeRecord,
        name: Name<'_>,
        inode: u64,
        record: InodeRecord,
    ) -> Result<Removed, RpcError> {
        self.leave(parent, &mut dir, name, inode, &record);
        self.put_inode(parent, &dir);
        self.discard(inode, &record)?;
        Ok(Removed { inode, record })
    }

    /// Removes an inode that has no name any more.
    pub(crate) fn discard(&mut self, inode: u64, record: &InodeRecord) -> Result<(), RpcError> {
        if record.is_symlink() {
            self.delete(target_key(self.volume.number, inode));
        }
        self.drop_inode(inode)
    }

    /// Lists a directory. Without search permission the attributes hold inode and kind only.
    ///
    /// # Errors
    /// `EACCES`, `ENOTDIR`, `ESTALE`.
    pub fn readdir(&self, inode: u64, cookie: u64, limit: u32) -> Result<ReaddirReply, RpcError> {
        let dir = self.dir(inode, R)?;
        let search = may(self.who, &dir, X);
        let limit = match limit {
            0 => READDIR_ENTRIES_MAX,
            limit => limit.min(READDIR_ENTRIES_MAX),
        };
        let volume = self.volume.number;
        let prefix = entries_prefix(volume, inode);
        let mut found = self.index().after(&prefix, &entry_key(volume, inode, cookie));
        let mut entries = Vec::new();
        for (key, name) in found.by_ref().take(limit as usize) {
            let child = inode_at_end(key).ok_or_else(|| damaged("entry key"))?;
            let record = self.inode(child).map_err(|_| damaged("entry"))?;
            let attr = if search {
                record.attr(child)
            } else {
                Attr { inode: child, kind: record.kind, ..Default::default() }
            };
            let name = Bytes::copy_from_slice(name);
            entries.push(Entry { name, cookie: child, attr: Some(attr) });
        }
        let end = found.next().is_none();
        Ok(ReaddirReply { entries, end, parent: dir.parent })
    }
}

/// Refuses what cannot be opened.
pub(crate) fn need_file(record: &InodeRecord) -> Result<(), RpcError> {
    match record {
        record if record.is_file() => Ok(()),
        record if record.is_dir() => Err(Errno::EISDIR.into()),
        _ => Err(Errno::ELOOP.into()),
    }
}

fn check_flags(flags: u32) -> Result<(), RpcError> {
    let uses = flags & (open_flags::READ | open_flags::WRITE) != 0;
    let cut_without_write = flags & open_flags::TRUNCATE != 0 && flags & open_flags::WRITE == 0;
    if flags & !open_flags::ALL != 0 || !uses || cut_without_write {
        return Err(RpcError::errno(Errno::EINVAL, format!("open flags {flags:#x} refused")));
    }
    Ok(())
}

fn access_of(flags: u32) -> Access {
    let read = if flags & open_flags::READ != 0 { Access::READ } else { Access(0) };
    let write = if flags & open_flags::WRITE != 0 { Access::WRITE } else { Access(0) };
    read | write
}
