//! What the owner of a folder alone decides: that nobody else gets to what is below it, and at
//! which site its new files lie.
//!
//! Both stand in the folder's inode and hold for whatever is below it now, which each operation
//! finds on its way up to the root: so a folder is closed in one step, however much it holds, and
//! what is moved into it or out of it needs no mark of its own. The volume's administrator is
//! nobody special here.
//!
//! A capability outlives the step that closed the way to its file. So that step raises the volume's
//! *barrier*, which OSDs hear of at once: capabilities made before have to be renewed, and are
//! renewed only for what can still be got to.

use prost::Message;
use xtreemfs_proto::mrc::{FolderSetRequest, Pin, ROOT_INODE};
use xtreemfs_proto::{Errno, RpcError};

use crate::identity::Identity;
use crate::mrc::Mrc;
use crate::mrc::record::{InodeRecord, volume_key};
use crate::mrc::space::{DEPTH_MAX, Space, damaged};

/// Longest name of a site, in bytes.
pub const SITE_BYTES_MAX: usize = 255;

impl Space<'_> {
    /// Refuses everybody but the owner of a closed directory.
    ///
    /// # Errors
    /// `EACCES`.
    pub(crate) fn need_not_closed(&self, dir: &InodeRecord) -> Result<(), RpcError> {
        if !dir.closed || self.who.member == dir.owner {
            return Ok(());
        }
        let text = format!("member {} has closed this folder to all others", dir.owner);
        Err(RpcError::errno(Errno::EACCES, text))
    }

    /// An inode for somebody who opened it before: permissions were checked then, but the way to it
    /// may have been closed since.
    ///
    /// # Errors
    /// `ESTALE`, `EACCES`.
    pub(crate) fn opened(&self, inode: u64) -> Result<InodeRecord, RpcError> {
        let record = self.inode(inode)?;
        self.need_way(record.parent)?;
        Ok(record)
    }

    /// Refuses whoever finds `dir` or a directory above it closed.
    ///
    /// # Errors
    /// `EACCES`.
    pub(crate) fn need_way(&self, dir: u64) -> Result<(), RpcError> {
        self.above(dir, |_, record| self.need_not_closed(record).map(|()| None::<()>)).map(drop)
    }

    /// The same for a file that has lost its name since it was opened, when it lay in `dir` and the
    /// volume's barrier was `barrier`.
    ///
    /// # Errors
    /// `EACCES`.
    pub(crate) fn need_former_way(&self, dir: u64, barrier: u64) -> Result<(), RpcError> {
        match self.inode(dir) {
            Ok(_) => self.need_way(dir),
            Err(_) if barrier >= self.volume.barrier => Ok(()),
            // What was above it cannot be told any more: it may be what was closed.
            Err(_) => Err(Errno::EACCES.into()),
        }
    }

    /// The nearest closed directory: `dir`, or one above it.
    pub(crate) fn closed_at(&self, dir: u64) -> Result<Option<u64>, RpcError> {
        self.above(dir, |inode, record| Ok(record.closed.then_some(inode)))
    }

    /// The site that new files in `dir` are pinned to; empty: none.
    pub(crate) fn pin_at(&self, dir: u64) -> Result<String, RpcError> {
        let pin =
            |_, record: &InodeRecord| Ok((!record.pin.is_empty()).then(|| record.pin.clone()));
        Ok(self.above(dir, pin)?.unwrap_or_default())
    }

    /// The first answer of a directory or one of those above it.
    fn above<T>(
        &self,
        dir: u64,
        ask: impl Fn(u64, &InodeRecord) -> Result<Option<T>, RpcError>,
    ) -> Result<Option<T>, RpcError> {
        let mut at = dir;
        for _ in 0..DEPTH_MAX {
            let record = self.inode(at).map_err(|_| damaged("parent"))?;
            let answer = ask(at, &record)?;
            if answer.is_some() || at == ROOT_INODE {
                return Ok(answer);
            }
            at = record.parent;
        }
        Err(Errno::ELOOP.into())
    }

    /// Makes all capabilities of the volume so far count no more; gives the new barrier.
    pub(crate) fn raise_barrier(&mut self) -> u64 {
        let mut volume = self.volume.clone();
        volume.barrier = volume.barrier.saturating_add(1);
        self.put(volume_key(&volume.id), volume.encode_to_vec());
        volume.barrier
    }

    /// Closes, opens or pins a folder. `site` is where it is to be pinned, if anything is to change
    /// in that. Gives the volume's new barrier, if the folder was open and is closed by this:
    /// one that was closed before has raised it then, and whoever is not told yet still will be.
    ///
    /// # Errors
    /// `EPERM` unless the person owns it, `ENOTDIR`, `EINVAL`, `EACCES`, `ESTALE`.
    pub fn set_folder(
        &mut self,
        request: &FolderSetRequest,
        site: Option<&str>,
    ) -> Result<Option<u64>, RpcError> {
        let mut record = self.reach(request.inode)?;
        if !record.is_dir() {
            return Err(Errno::ENOTDIR.into());
        }
        if self.who.member != record.owner {
            let text = "only the owner of a folder closes it, opens it or pins it: no role does";
            return Err(RpcError::errno(Errno::EPERM, text));
        }
        let before = record.clone();
        if let Some(site) = site {
            if site.len() > SITE_BYTES_MAX {
                return Err(RpcError::errno(Errno::EINVAL, "the name of a site is shorter"));
            }
            record.pin = site.to_owned();
        }
        record.closed = request.closed.unwrap_or(record.closed);
        if record != before {
            record.ctime_ns = self.now_ns;
            self.put_inode(request.inode, &record);
        }
        Ok((record.closed && !before.closed).then(|| self.raise_barrier()))
    }
}

impl Mrc {
    /// The site that a person wants a folder pinned to; empty: none.
    pub(super) fn pinned_site(&self, who: &Identity, pin: &Pin) -> Result<String, RpcError> {
        let osds = &self.parts.osds;
        let site = match pin.home {
            true => osds.home_of(&who.vo, who.member).ok_or_else(|| {
                let text = "your home site is not known here: name the site";
                RpcError::errno(Errno::EINVAL, text)
            })?,
            false => pin.site.clone(),
        };
        if site.is_empty() || osds.stores(&who.vo, &site) {
            return Ok(site);
        }
        let text = format!("site {site} gives VO {} no storage: name one that does", who.vo);
        Err(RpcError::errno(Errno::EINVAL, text))
    }
}
