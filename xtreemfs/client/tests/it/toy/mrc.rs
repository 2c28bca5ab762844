//! The toy's MRC: names, sizes and capabilities.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message;
use xtreemfs_proto::capability::Cut;
use xtreemfs_proto::mrc::{self, Attr, AttrReply, Kind, OpenReply, open_flags};
use xtreemfs_proto::rpc::{Authenticate, AuthenticateReply};
use xtreemfs_proto::{
    Access, Capability, Errno, Handler, Incoming, Outgoing, Procedure, RpcError, capability,
};

use super::{Node, Toy, mrc_peer, pass};

/// A lapsed capability is renewed for so long.
const LAPSED_MS_MAX: u64 = 3_600_000;

pub(super) struct Mrc(pub(super) Arc<Toy>);

impl Toy {
    fn owed(&self, inode: u64) -> Vec<Cut> {
        let inodes = self.inodes.lock().unwrap();
        inodes.get(&inode).map(|node| node.owed.clone()).unwrap_or_default()
    }

    fn capability(&self, node: &Attr, owed: Vec<Cut>) -> Bytes {
        let issued_ms = self.now_ms();
        let body = Capability {
            inode: node.inode,
            access: (Access::READ | Access::WRITE | Access::TRUNCATE).0,
            owed,
            issued_ms,
            expires_ms: issued_ms + self.valid_ms.load(Ordering::Relaxed),
            truncate_epoch: node.truncate_epoch,
            layout: Some(self.layout.clone()),
            ..Capability::default()
        };
        capability::join(&[0; capability::SIGNATURE_BYTES], &body.encode_to_vec())
    }

    fn opened(&self, attr: Attr, created: bool) -> OpenReply {
        let capability = self.capability(&attr, self.owed(attr.inode));
        let layout = Some(self.layout.clone());
        OpenReply { attr: Some(attr), layout, capability, created }
    }

    /// Opens what is there, and cuts it if the flags say so.
    fn open(&self, inode: u64, flags: u32) -> Result<OpenReply, RpcError> {
        let cut = flags & open_flags::TRUNCATE != 0;
        let attr = if cut { self.cut(inode, 0)? } else { self.change(inode, |_| ())? };
        Ok(self.opened(attr, false))
    }

    fn create(&self, request: &mrc::CreateRequest) -> Result<OpenReply, RpcError> {
        let mut inodes = self.inodes.lock().unwrap();
        let parent = inodes.get(&request.parent).ok_or(Errno::ESTALE)?;
        let inode = parent.names.get(&request.name).copied();
        if inode.is_some() && request.flags & open_flags::EXCLUSIVE != 0 {
            return Err(Errno::EEXIST.into());
        }
        if let Some(inode) = inode {
            drop(inodes);
            return self.open(inode, request.flags);
        }
        let (inode, kind) = (inodes.len() as u64 + 100, Kind::File.into());
        let attr = Attr { inode, kind, mode: request.mode, nlink: 1, ..Attr::default() };
        inodes.insert(inode, Node { attr, ..Node::default() });
        let parent = inodes.get_mut(&request.parent).ok_or(Errno::ESTALE)?;
        parent.names.insert(request.name.clone(), inode);
        drop(inodes);
        Ok(self.opened(attr, true))
    }

    fn renew(&self, capability: &[u8]) -> Result<mrc::CapabilityReply, RpcError> {
        self.renewals.fetch_add(1, Ordering::Relaxed);
        let old = Capability::peek(capability).unwrap();
        if old.expires_ms + LAPSED_MS_MAX <= self.now_ms() {
            return Err(Errno::EKEYEXPIRED.into());
        }
        let gone = Attr { inode: old.inode, ..Attr::default() };
        let attr = self.change(old.inode, |_| ()).unwrap_or(gone);
        self.lapsed.store(false, Ordering::Relaxed);
        let capability = self.capability(&attr, self.owed(attr.inode));
        Ok(mrc::CapabilityReply { capability })
    }

    fn commit(&self, request: &mrc::SizeCommitRequest) -> Result<mrc::SizeCommitReply, RpcError> {
        let held = Capability::peek(&request.capability).ok_or(Errno::EACCES)?;
        let mut stale_epoch = false;
        let attr = self.change(held.inode, |attr| {
            stale_epoch = held.truncate_epoch < attr.truncate_epoch;
            if !stale_epoch {
                attr.size = attr.size.max(request.size);
                attr.mtime_ns = request.mtime_ns;
            }
        })?;
        Ok(mrc::SizeCommitReply { attr: Some(attr), stale_epoch })
    }

    fn unlink(&self, request: &mrc::NameRequest) -> Result<mrc::UnlinkReply, RpcError> {
        let mut inodes = self.inodes.lock().unwrap();
        let parent = inodes.get_mut(&request.parent).ok_or(Errno::ESTALE)?;
        let inode = parent.names.remove(&request.name).ok_or(Errno::ENOENT)?;
        let node = inodes.remove(&inode).ok_or(Errno::ENOENT)?;
        let capability = self.capability(&node.attr, node.owed);
        let layout = Some(self.layout.clone());
        let deleted = Some(mrc::Deleted { inode, layout, capability });
        Ok(mrc::UnlinkReply { inode, deleted })
    }
}

fn attributes<P: Procedure<Reply = AttrReply>>(attr: Attr) -> Result<Outgoing, RpcError> {
    Ok(Outgoing::reply::<P>(&AttrReply { attr: Some(attr) }))
}

impl Handler for Mrc {
    async fn handle(&self, r: Incoming) -> Result<Outgoing, RpcError> {
        self.0.or_cut(mrc_peer(), self.answer(r)).await
    }
}

impl Mrc {
    async fn answer(&self, r: Incoming) -> Result<Outgoing, RpcError> {
        let toy = &self.0;
        if r.is::<mrc::Connect>() {
            return Ok(Outgoing::reply::<mrc::Connect>(&Default::default()));
        }
        if r.is::<Authenticate>() {
            let ticket = r.request::<Authenticate>()?.ticket;
            let slot = u32::from_le_bytes(ticket[..4].try_into().unwrap());
            let reply = AuthenticateReply { slot, expires_ms: 0, valid_ms: 600_000 };
            return Ok(Outgoing::reply::<Authenticate>(&reply));
        }
        if r.is::<mrc::Lookup>() {
            let request = r.request::<mrc::Lookup>()?;
            let inodes = toy.inodes.lock().unwrap();
            let parent = inodes.get(&request.parent).ok_or(Errno::ESTALE)?;
            let inode = parent.names.get(&request.name).ok_or(Errno::ENOENT)?;
            return attributes::<mrc::Lookup>(inodes[inode].attr);
        }
        if r.is::<mrc::Getattr>() {
            let inode = r.request::<mrc::Getattr>()?.inode;
            return attributes::<mrc::Getattr>(toy.change(inode, |_| ())?);
        }
        if r.is::<mrc::Setattr>() {
            let request = r.request::<mrc::Setattr>()?;
            let attr = toy.change(request.inode, |attr| {
                attr.mtime_ns = request.mtime.and_then(|t| t.ns).unwrap_or(attr.mtime_ns);
            })?;
            return attributes::<mrc::Setattr>(attr);
        }
        if r.is::<mrc::Create>() {
            let reply = toy.create(&r.request::<mrc::Create>()?)?;
            return Ok(Outgoing::reply::<mrc::Create>(&reply));
        }
        if r.is::<mrc::Open>() {
            let request = r.request::<mrc::Open>()?;
            let reply = toy.open(request.inode, request.flags)?;
            return Ok(Outgoing::reply::<mrc::Open>(&reply));
        }
        if r.is::<mrc::Renew>() {
            let reply = toy.renew(&r.request::<mrc::Renew>()?.capability)?;
            return Ok(Outgoing::reply::<mrc::Renew>(&reply));
        }
        if r.is::<mrc::SizeCommit>() {
            let request = r.request::<mrc::SizeCommit>()?;
            toy.commits.fetch_add(1, Ordering::Relaxed);
            pass(&toy.hold.commits).await;
            let reply = toy.commit(&request)?;
            pass(&toy.hold.told).await;
            return Ok(Outgoing::reply::<mrc::SizeCommit>(&reply));
        }
        if r.is::<mrc::Truncate>() {
            let request = r.request::<mrc::Truncate>()?;
            let attr = toy.cut(request.inode, request.size)?;
            return Ok(Outgoing::reply::<mrc::Truncate>(&toy.opened(attr, false)));
        }
        if r.is::<mrc::CutMade>() {
            let held = Capability::peek(&r.request::<mrc::CutMade>()?.capability).unwrap();
            let mut inodes = toy.inodes.lock().unwrap();
            let node = inodes.get_mut(&held.inode).ok_or(Errno::ESTALE)?;
            node.owed.retain(|cut| cut.epoch > held.truncate_epoch);
            return Ok(Outgoing::reply::<mrc::CutMade>(&Default::default()));
        }
        if r.is::<mrc::Unlink>() {
            let reply = toy.unlink(&r.request::<mrc::Unlink>()?)?;
            return Ok(Outgoing::reply::<mrc::Unlink>(&reply));
        }
        Err(r.unknown(mrc::Lookup::INTERFACE))
    }
}
