//! Renaming.

use xtreemfs_proto::mrc::{Attr, ROOT_INODE, rename_flags};
use xtreemfs_proto::{Errno, RpcError};

use crate::mrc::entries::Removed;
use crate::mrc::name::Name;
use crate::mrc::perm::{W, X, need, need_sticky};
use crate::mrc::record::InodeRecord;
use crate::mrc::space::{DEPTH_MAX, Space, damaged};

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Inode number of the directory.
    pub dir: u64,
    /// Name in it.
    pub name: Name<'a>,
}

/// What a rename did.
#[derive(Debug, Clone, PartialEq)]
pub struct Renamed {
    /// Attributes of what was renamed.
    pub attr: Attr,
    /// What the target name stood for before.
    pub overwritten: Option<Removed>,
    /// The volume's new barrier, if it went into a closed folder.
    pub barrier: Option<u64>,
}

impl Space<'_> {
    /// Renames within the volume.
    ///
    /// # Errors
    /// `EEXIST`, `EINVAL` (into itself, unknown flag), `ENOTSUP` (exchange), `ENOTEMPTY`,
    /// `EISDIR`, `ENOTDIR`, `ENOENT`, `EACCES`, `EPERM` (sticky), ...
    pub fn rename(
        &mut self,
        from: Place<'_>,
        to: Place<'_>,
        flags: u32,
    ) -> Result<Renamed, RpcError> {
        check_flags(flags)?;
        let from_dir = self.dir(from.dir, X)?;
        let to_dir = self.dir(to.dir, X)?;
        let (inode, record) = self.existing(from.dir, from.name)?;
        let target = match self.child(to.dir, to.name) {
            Some(_) => Some(self.existing(to.dir, to.name)?),
            None => None,
        };
        if target.is_some() && flags & rename_flags::NOREPLACE != 0 {
            return Err(Errno::EEXIST.into());
        }
        if target.as_ref().is_some_and(|(number, _)| *number == inode) {
            return Ok(Renamed { attr: record.attr(inode), overwritten: None, barrier: None });
        }
        need(self.who, &from_dir, W | X)?;
        need(self.who, &to_dir, W | X)?;
        need_sticky(self.who, &from_dir, &record)?;
        if record.is_dir() && from.dir != to.dir {
            // Its `..` changes: that is a write to it.
            need(self.who, &record, W)?;
            self.need_outside(inode, to.dir)?;
        }
        if let Some((_, target)) = &target {
            need_sticky(self.who, &to_dir, target)?;
            check_kinds(&record, target)?;
        }
        self.carry_out(from, to, inode, record, target)
    }

    fn carry_out(
        &mut self,
        from: Place<'_>,
        to: Place<'_>,
        inode: u64,
        mut record: InodeRecord,
        target: Option<(u64, InodeRecord)>,
    ) -> Result<Renamed, RpcError> {
        let mut dir = self.inode(to.dir)?;
        if let Some((number, target)) = &target {
            self.leave(to.dir, &mut dir, to.name, *number, target);
            self.discard(*number, target)?;
            self.put_inode(to.dir, &dir);
        }
        let mut dir = self.inode(from.dir)?;
        self.leave(from.dir, &mut dir, from.name, inode, &record);
        self.put_inode(from.dir, &dir);
        // Read again: it may be the same directory.
        let mut dir = self.inode(to.dir)?;
        self.enter(to.dir, &mut dir, to.name, inode, &record);
        self.put_inode(to.dir, &dir);
        record.parent = to.dir;
        record.ctime_ns = self.now_ns;
        self.put_inode(inode, &record);
        let overwritten = target.map(|(inode, record)| Removed { inode, record });
        let into = self.closed_at(to.dir)?;
        // Others may have it open from where it was.
        let shut = into.is_some() && into != self.closed_at(from.dir)?;
        let barrier = shut.then(|| self.raise_barrier());
        Ok(Renamed { attr: record.attr(inode), overwritten, barrier })
    }

    /// Refuses to move directory `moved` into itself or something below it.
    fn need_outside(&self, moved: u64, into: u64) -> Result<(), RpcError> {
        let mut at = into;
        for _ in 0..DEPTH_MAX {
            if at == moved {
                let text = "a directory cannot be moved into itself";
                return Err(RpcError::errno(Errno::EINVAL, text));
            }
            if at == ROOT_INODE {
                return Ok(());
            }
            at = self.inode(at).map_err(|_| damaged("parent"))?.parent;
        }
        Err(Errno::ELOOP.into())
    }
}

fn check_flags(flags: u32) -> Result<(), RpcError> {
    if flags & rename_flags::EXCHANGE != 0 {
        return Err(RpcError::errno(Errno::ENOTSUP, "exchanging two names is not supported"));
    }
    if flags & !rename_flags::NOREPLACE != 0 {
        return Err(RpcError::errno(Errno::EINVAL, format!("rename flags {flags:#x} refused")));
    }
    Ok(())
}

/// Whether `record` may take the place of `target`.
fn check_kinds(record: &InodeRecord, target: &InodeRecord) -> Result<(), RpcError> {
    match (record.is_dir(), target.is_dir()) {
        (true, false) => Err(Errno::ENOTDIR.into()),
        (false, true) => Err(Errno::EISDIR.into()),
        (true, true) if target.size > 0 => Err(Errno::ENOTEMPTY.into()),
        _ => Ok(()),
    }
}
