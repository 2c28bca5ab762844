//! Issuing and taking back capabilities at the MRC.

use bytes::Bytes;
use xtreemfs_proto::capability::{Cut, VALID_MS_MAX};
use xtreemfs_proto::mrc::{Deleted, OpenReply};
use xtreemfs_proto::{Access, Capability, Errno, Layout, RpcError};

use crate::identity::{Identity, Peer};
use crate::mrc::Mrc;
use crate::mrc::entries::{Opened, Removed};
use crate::mrc::record::{InodeRecord, VolumeRecord};
use crate::token::Unverified;

/// A capability that has lapsed can still be renewed, and sizes committed with it, for this long.
pub const LAPSED_MS_MAX: u64 = 60 * 60 * 1000;

/// For whom a capability is made.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// The person.
    pub who: &'a Identity,
    /// The machine.
    pub peer: &'a Peer,
}

/// What a capability says of a file's content.
#[derive(Debug, Clone)]
pub struct Content {
    /// Where it lies.
    pub layout: Option<Layout>,
    /// Number of the newest truncation.
    pub truncate_epoch: u64,
    /// Truncations that some OSD may not have made.
    pub owed: Vec<Cut>,
    /// Directory that it lies in.
    pub parent: u64,
}

impl Content {
    /// The content of a file.
    pub fn of(record: &InodeRecord) -> Content {
        let InodeRecord { layout, truncate_epoch, owed, parent, .. } = record;
        let (layout, owed) = (layout.clone(), owed.clone());
        Content { layout, truncate_epoch: *truncate_epoch, owed, parent: *parent }
    }
}

impl Mrc {
    /// Makes a capability. Whoever may write may also make the OSDs cut what they owe. It lapses
    /// with the person's ticket, after ten minutes at the latest.
    pub(super) fn issue(
        &self,
        volume: &VolumeRecord,
        holder: Holder<'_>,
        inode: u64,
        mut access: Access,
        content: Content,
    ) -> Result<Bytes, RpcError> {
        let now_ms = self.parts.clock.now_ms();
        let Content { layout, truncate_epoch, owed, parent } = content;
        if !owed.is_empty() && access.has(Access::WRITE) {
            access = access | Access::TRUNCATE;
        }
        let capability = Capability {
            volume: volume.id.clone(),
            inode,
            access: access.0,
            member: holder.who.member,
            epoch: holder.who.epoch,
            vo: volume.vo.clone(),
            issued_ms: now_ms,
            expires_ms: (now_ms + VALID_MS_MAX).min(holder.who.expires_ms),
            truncate_epoch,
            peer: holder.peer.id.clone(),
            layout,
            admin: holder.who.admin,
            owed,
            barrier: volume.barrier,
            parent,
        };
        let signed = self.parts.signer.sign(&capability);
        signed.map_err(|error| RpcError::errno(Errno::EIO, error.to_string()))
    }

    /// The answer to an open.
    pub(super) fn opened(
        &self,
        volume: &VolumeRecord,
        holder: Holder<'_>,
        opened: Opened,
    ) -> Result<OpenReply, RpcError> {
        let Opened { inode, record, access, created } = opened;
        let capability = self.issue(volume, holder, inode, access, Content::of(&record))?;
        let (attr, layout) = (Some(record.attr(inode)), record.layout);
        Ok(OpenReply { attr, layout, capability, created })
    }

    /// What a client needs to delete the objects of a removed file; `None` for other things.
    pub(super) fn deleted(
        &self,
        volume: &VolumeRecord,
        holder: Holder<'_>,
        removed: Removed,
    ) -> Result<Option<Deleted>, RpcError> {
        let Removed { inode, record } = removed;
        if !record.is_file() {
            return Ok(None);
        }
        let content = Content::of(&record);
        let capability = self.issue(volume, holder, inode, Access::DELETE, content)?;
        Ok(Some(Deleted { inode, layout: record.layout, capability }))
    }

    /// Accepts a capability of this MRC's from its holder.
    ///
    /// # Errors
    /// `EKEYREVOKED` (made under another epoch: open anew), `EKEYEXPIRED`, `EACCES`.
    pub(super) fn accept(&self, token: &[u8], holder: Holder<'_>) -> Result<Capability, RpcError> {
        let key = self.parts.signer.public_key();
        let verified = Unverified::parse(token).and_then(|token| token.verify(&key));
        let refused = |text| RpcError::errno(Errno::EACCES, text);
        let capability = verified.ok_or_else(|| refused("capability is not one of this MRC"))?;
        let who = holder.who;
        let same = capability.member == who.member && *capability.vo == *who.vo;
        if !same || capability.peer != holder.peer.id {
            return Err(refused("capability belongs to another person or machine"));
        }
        if capability.epoch != who.epoch {
            let text = "the membership changed since the file was opened: open it anew";
            return Err(RpcError::errno(Errno::EKEYREVOKED, text));
        }
        if capability.expires_ms.saturating_add(LAPSED_MS_MAX) <= self.parts.clock.now_ms() {
            let text = "capability lapsed too long ago: open the file anew";
            return Err(RpcError::errno(Errno::EKEYEXPIRED, text));
        }
        Ok(capability)
    }

    /// Like [`Mrc::accept`], and it must allow writing.
    pub(super) fn accept_writer(
        &self,
        token: &[u8],
        holder: Holder<'_>,
    ) -> Result<Capability, RpcError> {
        let capability = self.accept(token, holder)?;
        if Access(capability.access).has(Access::WRITE) {
            return Ok(capability);
        }
        Err(RpcError::errno(Errno::EACCES, "the file was not opened for writing"))
    }
}
