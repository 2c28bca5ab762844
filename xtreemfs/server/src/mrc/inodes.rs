//! Operations on one inode: attributes, permissions, size.

use xtreemfs_proto::layout::FILE_BYTES_MAX;
use xtreemfs_proto::mrc::{Attr, SetTime, SetattrRequest};
use xtreemfs_proto::{Access, Errno, RpcError};

use crate::mrc::entries::{Opened, need_file};
use crate::mrc::perm::{MODE_BITS, W, limit_setgid, need, owns, without_set_ids};
use crate::mrc::record::InodeRecord;
use crate::mrc::space::Space;

/// What a size commit did.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// Attributes afterwards.
    pub attr: Attr,
    /// Not taken: the file was truncated by somebody else in between.
    pub stale_epoch: bool,
}

impl Space<'_> {
    /// Attributes of an inode.
    ///
    /// # Errors
    /// `ESTALE`, `EACCES`.
    pub fn getattr(&self, inode: u64) -> Result<Attr, RpcError> {
        Ok(self.reach(inode)?.attr(inode))
    }

    /// Asks for permissions (bits 4 read, 2 write, 1 execute or search).
    ///
    /// # Errors
    /// `EACCES`, `EINVAL`, `ESTALE`.
    pub fn access(&self, inode: u64, mask: u32) -> Result<(), RpcError> {
        if mask > 7 {
            return Err(RpcError::errno(Errno::EINVAL, format!("access mask {mask} refused")));
        }
        let record = self.reach(inode)?;
        if mask != 0 {
            self.need_not_closed(&record)?;
        }
        need(self.who, &record, mask)
    }

    /// Changes attributes: all that are asked for, or none.
    ///
    /// # Errors
    /// `EPERM`, `EACCES`, `ENOTSUP` (mode of a link), `ESTALE`.
    pub fn setattr(&mut self, request: &SetattrRequest) -> Result<Attr, RpcError> {
        let mut record = self.reach(request.inode)?;
        let before = record.clone();
        self.set_owner(&mut record, request.owner, request.group)?;
        if let Some(mode) = request.mode {
            self.set_mode(&mut record, mode)?;
        }
        record.atime_ns = self.time(&before, request.atime, record.atime_ns)?;
        record.mtime_ns = self.time(&before, request.mtime, record.mtime_ns)?;
        if record != before {
            record.ctime_ns = self.now_ns;
            self.put_inode(request.inode, &record);
        }
        Ok(record.attr(request.inode))
    }

    /// Only the administrator gives files away; the owner chooses among her own groups.
    fn set_owner(
        &self,
        record: &mut InodeRecord,
        owner: Option<u32>,
        group: Option<u32>,
    ) -> Result<(), RpcError> {
        let (owner, group) = (owner.unwrap_or(record.owner), group.unwrap_or(record.group));
        if (owner, group) == (record.owner, record.group) {
            return Ok(());
        }
        let who = self.who;
        if record.closed {
            let text = "this folder is closed: its owner opens it before it changes hands";
            return Err(RpcError::errno(Errno::EPERM, text));
        }
        let own_group = group == record.group || who.in_group(group);
        let by_owner = who.member == record.owner && owner == record.owner && own_group;
        if !who.admin && !by_owner {
            let text = "only the volume's administrator gives files away, \
                        and only the owner chooses another group, of her own ones";
            return Err(RpcError::errno(Errno::EPERM, text));
        }
        (record.owner, record.group) = (owner, group);
        if !record.is_dir() && !who.admin {
            record.mode = without_set_ids(record.mode);
        }
        Ok(())
    }

    fn set_mode(&self, record: &mut InodeRecord, mode: u32) -> Result<(), RpcError> {
        if !owns(self.who, record) {
            let text = "only the owner or the volume's administrator changes the mode";
            return Err(RpcError::errno(Errno::EPERM, text));
        }
        if record.is_symlink() {
            return Err(RpcError::errno(Errno::ENOTSUP, "a symbolic link has no mode of its own"));
        }
        record.mode = limit_setgid(self.who, mode & MODE_BITS, record.group);
        Ok(())
    }

    fn time(&self, record: &InodeRecord, set: Option<SetTime>, old: i64) -> Result<i64, RpcError> {
        let Some(set) = set else { return Ok(old) };
        if owns(self.who, record) {
            return Ok(set.ns.unwrap_or(self.now_ns));
        }
        if set.ns.is_some() {
            return Err(RpcError::errno(Errno::EPERM, "only the owner sets times at will"));
        }
        need(self.who, record, W)?;
        Ok(self.now_ns)
    }

    /// Sets a file's size and raises its truncate epoch. `opened` says that the caller holds a
    /// capability to write, so that permissions were checked at open.
    ///
    /// # Errors
    /// `EACCES`, `EISDIR`, `EFBIG`, `ESTALE`.
    pub fn truncate(
        &mut self,
        inode: u64,
        size: u64,
        opened: Option<Access>,
    ) -> Result<Opened, RpcError> {
        let mut record = match opened {
            Some(_) => self.opened(inode)?,
            None => self.reach(inode)?,
        };
        need_file(&record)?;
        if opened.is_none() {
            need(self.who, &record, W)?;
        }
        let read = opened.unwrap_or(Access(0)).0 & Access::READ.0;
        let access = Access::WRITE | Access(read) | self.extra_read(&record);
        self.cut(inode, &mut record, size)?;
        Ok(Opened { inode, record, access, created: false })
    }

    /// Notes that every OSD has made the truncations up to `epoch`.
    ///
    /// # Errors
    /// `ESTALE`.
    pub fn cut_made(&mut self, inode: u64, epoch: u64) -> Result<(), RpcError> {
        let mut record = self.opened(inode)?;
        let before = record.owed.len();
        record.owed.retain(|cut| cut.epoch > epoch);
        if record.owed.len() < before {
            self.put_inode(inode, &record);
        }
        Ok(())
    }

    /// Takes size and time of the last change from a client that wrote under a capability of
    /// truncate epoch `epoch`.
    ///
    /// # Errors
    /// `ESTALE`, `EFBIG`.
    pub fn commit_size(
        &mut self,
        inode: u64,
        size: u64,
        mtime_ns: i64,
        epoch: u64,
    ) -> Result<Committed, RpcError> {
        if size > FILE_BYTES_MAX {
            return Err(Errno::EFBIG.into());
        }
        let mut record = self.opened(inode)?;
        need_file(&record)?;
        let stale_epoch = epoch != record.truncate_epoch;
        if !stale_epoch && (size > record.size || mtime_ns != record.mtime_ns) {
            record.size = record.size.max(size);
            record.mtime_ns = mtime_ns;
            record.ctime_ns = self.now_ns;
            if !self.who.admin {
                record.mode = without_set_ids(record.mode);
            }
            self.put_inode(inode, &record);
        }
        Ok(Committed { attr: record.attr(inode), stale_epoch })
    }
}
