//! A volume's namespace as one person sees it: reading, and collecting changes.

use std::collections::BTreeMap;

use prost::Message;
use xtreemfs_proto::mrc::ROOT_INODE;
use xtreemfs_proto::{Errno, RpcError};

use crate::identity::Identity;
use crate::mrc::index::{Change, Index};
use crate::mrc::name::Name;
use crate::mrc::perm::{X, need};
use crate::mrc::record::{
    Counters, InodeRecord, VolumeRecord, counters_key, entry_key, inode_at_end, inode_key, name_key,
};

/// Deepest directory that is looked into.
pub const DEPTH_MAX: usize = 2048;

/// One operation on a volume. Reads see the changes collected so far.
pub struct Space<'a> {
    index: &'a dyn Index,
    /// The volume.
    pub volume: &'a VolumeRecord,
    /// For whom.
    pub who: &'a Identity,
    /// Present time, nanoseconds since 1970.
    pub now_ns: i64,
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

/// The index contradicts itself: a defect of the server.
pub(crate) fn damaged(what: &str) -> RpcError {
    tracing::error!(what, "metadata index is inconsistent");
    RpcError::errno(Errno::EIO, format!("metadata is inconsistent ({what}): tell the operator"))
}

impl<'a> Space<'a> {
    /// Starts an operation.
    ///
    /// # Errors
    /// `EACCES` if the person belongs to another VO than the volume.
    pub fn new(
        index: &'a dyn Index,
        volume: &'a VolumeRecord,
        who: &'a Identity,
        now_ns: i64,
    ) -> Result<Self, RpcError> {
        if *volume.vo != *who.vo {
            let text =
                format!("volume {} belongs to VO {}, not {}", volume.name, volume.vo, who.vo);
            return Err(RpcError::errno(Errno::EACCES, text));
        }
        Ok(Self { index, volume, who, now_ns, changes: BTreeMap::new() })
    }

    /// What was changed.
    pub fn into_changes(self) -> Vec<Change> {
        let change = |(key, value)| match value {
            Some(value) => Change::Put { key, value },
            None => Change::Delete { key },
        };
        self.changes.into_iter().map(change).collect()
    }

    /// The index without this operation's changes.
    pub(crate) fn index(&self) -> &'a dyn Index {
        self.index
    }

    pub(crate) fn value(&self, key: &[u8]) -> Option<&[u8]> {
        match self.changes.get(key) {
            Some(changed) => changed.as_deref(),
            None => self.index.value(key),
        }
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.insert(key, Some(value));
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.changes.insert(key, None);
    }

    /// An inode, without any check of rights. `ESTALE` if it is gone.
    pub(crate) fn inode(&self, inode: u64) -> Result<InodeRecord, RpcError> {
        let Some(value) = self.value(&inode_key(self.volume.number, inode)) else {
            let text = format!("inode {inode} of volume {} is gone", self.volume.name);
            return Err(RpcError::errno(Errno::ESTALE, text));
        };
        InodeRecord::decode(value).map_err(|_| damaged("inode"))
    }

    pub(crate) fn put_inode(&mut self, inode: u64, record: &InodeRecord) {
        self.put(inode_key(self.volume.number, inode), record.encode_to_vec());
    }

    /// An inode that the person can get to: every directory above it lets her through.
    pub(crate) fn reach(&self, inode: u64) -> Result<InodeRecord, RpcError> {
        Ok(self.reach_depth(inode)?.0)
    }

    /// Like [`Space::reach`], with the number of directories above.
    pub(crate) fn reach_depth(&self, inode: u64) -> Result<(InodeRecord, usize), RpcError> {
        let record = self.inode(inode)?;
        let (mut child, mut parent) = (inode, record.parent);
        for depth in 0..DEPTH_MAX {
            if child == ROOT_INODE {
                return Ok((record, depth));
            }
            let dir = self.inode(parent).map_err(|_| damaged("parent"))?;
            need(self.who, &dir, X)?;
            self.need_not_closed(&dir)?;
            (child, parent) = (parent, dir.parent);
        }
        let text = format!("more than {DEPTH_MAX} directories above inode {inode}");
        Err(RpcError::errno(Errno::ELOOP, text))
    }

    /// A directory that the person can get to and in which she has the permissions `want`.
    pub(crate) fn dir(&self, inode: u64, want: u32) -> Result<InodeRecord, RpcError> {
        let record = self.reach(inode)?;
        if !record.is_dir() {
            return Err(Errno::ENOTDIR.into());
        }
        need(self.who, &record, want)?;
        self.need_not_closed(&record)?;
        Ok(record)
    }

    /// What a name in a directory stands for.
    pub(crate) fn child(&self, dir: u64, name: Name<'_>) -> Option<u64> {
        self.value(&name_key(self.volume.number, dir, name.bytes())).and_then(inode_at_end)
    }

    /// Like [`Space::child`]; `ENOENT` if there is nothing.
    pub(crate) fn existing(
        &self,
        dir: u64,
        name: Name<'_>,
    ) -> Result<(u64, InodeRecord), RpcError> {
        let inode = self.child(dir, name).ok_or(Errno::ENOENT)?;
        Ok((inode, self.inode(inode).map_err(|_| damaged("entry"))?))
    }

    /// Puts a name into a directory; the caller stores `dir` and the inode.
    pub(crate) fn enter(
        &mut self,
        dir_inode: u64,
        dir: &mut InodeRecord,
        name: Name<'_>,
        inode: u64,
        record: &InodeRecord,
    ) {
        let volume = self.volume.number;
        self.put(name_key(volume, dir_inode, name.bytes()), inode.to_be_bytes().to_vec());
        self.put(entry_key(volume, dir_inode, inode), name.bytes().to_vec());
        dir.size += 1;
        dir.subdirs += u64::from(record.is_dir());
        self.touch(dir);
    }

    /// Takes a name out of a directory; the caller stores `dir` and the inode.
    pub(crate) fn leave(
        &mut self,
        dir_inode: u64,
        dir: &mut InodeRecord,
        name: Name<'_>,
        inode: u64,
        record: &InodeRecord,
    ) {
        let volume = self.volume.number;
        self.delete(name_key(volume, dir_inode, name.bytes()));
        self.delete(entry_key(volume, dir_inode, inode));
        dir.size = dir.size.saturating_sub(1);
        dir.subdirs = dir.subdirs.saturating_sub(u64::from(record.is_dir()));
        self.touch(dir);
    }

    fn touch(&self, dir: &mut InodeRecord) {
        dir.mtime_ns = self.now_ns;
        dir.ctime_ns = self.now_ns;
    }

    /// A new inode number.
    pub(crate) fn new_inode(&mut self) -> Result<u64, RpcError> {
        let Some(inode) = self.index.new_inode() else {
            let text = "no inode numbers are left: restart the metadata server";
            return Err(RpcError::errno(Errno::ENOSPC, text));
        };
        self.count(|counters| counters.inodes += 1)?;
        Ok(inode)
    }

    /// Removes an inode.
    pub(crate) fn drop_inode(&mut self, inode: u64) -> Result<(), RpcError> {
        self.delete(inode_key(self.volume.number, inode));
        self.count(|counters| counters.inodes = counters.inodes.saturating_sub(1))
    }

    /// The volume's counters.
    pub(crate) fn counters(&self) -> Result<Counters, RpcError> {
        let value = self.value(&counters_key(self.volume.number));
        let value = value.ok_or_else(|| damaged("counters"))?;
        Counters::decode(value).map_err(|_| damaged("counters"))
    }

    fn count(&mut self, change: impl FnOnce(&mut Counters)) -> Result<(), RpcError> {
        let mut counters = self.counters()?;
        change(&mut counters);
        self.put(counters_key(self.volume.number), counters.encode_to_vec());
        Ok(())
    }
}
