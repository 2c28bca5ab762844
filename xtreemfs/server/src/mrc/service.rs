//! The MRC on a connection: one arm per procedure.

use std::sync::Arc;

use bytes::Bytes;
use xtreemfs_proto::mrc::*;
use xtreemfs_proto::rpc::{Authenticate, Empty, interface};
use xtreemfs_proto::{
    Access as CapabilityAccess, Capability, Errno, Handler, Incoming, Outgoing, Procedure, RpcError,
};

use crate::fence::Entrance;
use crate::identity::{Identity, Peer};
use crate::mrc::caps::{Content, Holder};
use crate::mrc::name::Name;
use crate::mrc::opens::Asked;
use crate::mrc::rename::Place;
use crate::mrc::{Mrc, find, need_manager};
use crate::slots::Slots;

/// One connection to an MRC.
#[derive(Debug)]
pub struct MrcConnection {
    pub(super) mrc: Arc<Mrc>,
    pub(super) peer: Peer,
    pub(super) entrance: Entrance,
    pub(super) slots: Slots,
}

type Answer<P> = Result<<P as Procedure>::Reply, RpcError>;

/// Decodes the request, calls the operation, encodes the reply.
macro_rules! dispatch {
    ($self:ident, $incoming:ident, $who:ident, { $($proc:ident => $method:ident,)* }) => {
        match $incoming.proc {
            $($proc::PROC => {
                let request = $incoming.request::<$proc>()?;
                $self.$method(&$who, request).await.map(|reply| Outgoing::reply::<$proc>(&reply))
            })*
            _ => Err($incoming.unknown(interface::MRC)),
        }
    };
}

impl Handler for MrcConnection {
    fn data_bytes_max(&self) -> usize {
        0
    }

    async fn handle(&self, incoming: Incoming) -> Result<Outgoing, RpcError> {
        if incoming.interface != interface::MRC {
            return Err(incoming.unknown(interface::MRC));
        }
        match incoming.proc {
            Connect::PROC => return self.connect(&incoming).await,
            Authenticate::PROC => return self.authenticate(&incoming).await,
            VolumeCreate::PROC => return self.volume_create(&incoming).await,
            VolumeDelete::PROC => return self.volume_delete(&incoming).await,
            _ => {}
        }
        let _entered = self.entrance.enter(incoming.until_ms).await?;
        let now_ms = self.mrc.parts.clock.now_ms();
        let who = self.slots.identity(incoming.slot, &*self.mrc.parts.epochs, now_ms)?;
        dispatch!(self, incoming, who, {
            Statfs => statfs,
            Lookup => lookup,
            Getattr => getattr,
            Setattr => setattr,
            Access => access,
            Create => create,
            Open => open,
            Renew => renew,
            SizeCommit => size_commit,
            Truncate => truncate,
            CutMade => cut_made,
            Mkdir => mkdir,
            Rmdir => rmdir,
            Unlink => unlink,
            Symlink => symlink,
            Readlink => readlink,
            Rename => rename,
            Link => link,
            Readdir => readdir,
            FolderShow => folder_show,
            FolderSet => folder_set,
            Explain => explain,
        })
    }
}

impl MrcConnection {
    async fn connect(&self, incoming: &Incoming) -> Result<Outgoing, RpcError> {
        let request = incoming.request::<Connect>()?;
        self.entrance.connect(&self.mrc.fence, &self.peer, &request).await?;
        Ok(Outgoing::reply::<Connect>(&Empty {}))
    }

    async fn authenticate(&self, incoming: &Incoming) -> Result<Outgoing, RpcError> {
        let request = incoming.request::<Authenticate>()?;
        let parts = &self.mrc.parts;
        let now_ms = parts.clock.now_ms();
        let reply =
            self.slots.authenticate(&request, &*parts.authenticator, &self.peer, now_ms).await?;
        Ok(Outgoing::reply::<Authenticate>(&reply))
    }

    async fn volume_create(&self, incoming: &Incoming) -> Result<Outgoing, RpcError> {
        let request = incoming.request::<VolumeCreate>()?;
        need_manager(&*self.mrc.parts.policy, &self.peer, &request.vo)?;
        let volume = self.mrc.create_volume(&request).await?;
        let key = Bytes::copy_from_slice(&self.mrc.public_key().0);
        Ok(Outgoing::reply::<VolumeCreate>(&VolumeCreateReply { id: volume.id, key }))
    }

    async fn volume_delete(&self, incoming: &Incoming) -> Result<Outgoing, RpcError> {
        let request = incoming.request::<VolumeDelete>()?;
        let volume = self.mrc.store.read(|index| find(index, &request.volume))?;
        need_manager(&*self.mrc.parts.policy, &self.peer, &volume.vo)?;
        self.mrc.delete_volume(&request.volume).await?;
        Ok(Outgoing::reply::<VolumeDelete>(&Empty {}))
    }

    fn holder<'a>(&'a self, who: &'a Identity) -> Holder<'a> {
        Holder { who, peer: &self.peer }
    }

    async fn statfs(&self, who: &Identity, request: VolumeRequest) -> Answer<Statfs> {
        let (volume, counters) = self.mrc.read(&request.volume, who, |space| space.counters())?;
        let mut osds = self.mrc.parts.osds.osds(&volume.id, &volume.vo);
        osds.retain(|osd| volume.osds.is_empty() || volume.osds.contains(&osd.id));
        let sum = |bytes: fn(&super::OsdStatus) -> u64| {
            osds.iter().fold(0u64, |sum, osd| sum.saturating_add(bytes(osd)))
        };
        Ok(StatfsReply {
            total_bytes: sum(|osd| osd.total_bytes),
            free_bytes: sum(|osd| osd.free_bytes),
            inodes: counters.inodes,
            stripe_size: volume.stripe_size,
        })
    }

    async fn lookup(&self, who: &Identity, request: NameRequest) -> Answer<Lookup> {
        let name = Name::parse(&request.name)?;
        let look = |space: &super::Space<'_>| space.lookup(request.parent, name);
        let (_, attr) = self.mrc.read(&request.volume, who, look)?;
        Ok(AttrReply { attr: Some(attr) })
    }

    async fn getattr(&self, who: &Identity, request: InodeRequest) -> Answer<Getattr> {
        let (_, attr) =
            self.mrc.read(&request.volume, who, |space| space.getattr(request.inode))?;
        Ok(AttrReply { attr: Some(attr) })
    }

    async fn setattr(&self, who: &Identity, request: SetattrRequest) -> Answer<Setattr> {
        let (_, attr) =
            self.mrc.write(&request.volume, who, |space| space.setattr(&request)).await?;
        Ok(AttrReply { attr: Some(attr) })
    }

    async fn access(&self, who: &Identity, request: AccessRequest) -> Answer<Access> {
        let look = |space: &super::Space<'_>| space.access(request.inode, request.mask);
        self.mrc.read(&request.volume, who, look)?;
        Ok(Empty {})
    }

    async fn create(&self, who: &Identity, request: CreateRequest) -> Answer<Create> {
        let CreateRequest { volume, parent, name, mode, flags } = request;
        let name = Name::parse(&name)?;
        let record = self.mrc.store.read(|index| find(index, &volume))?;
        let osds = self.mrc.parts.osds.osds(&record.id, &record.vo);
        if osds.is_empty() && !self.mrc.parts.osds.settled() {
            let text = format!("OSDs of volume {} are still registering", record.name);
            return Err(RpcError::errno(Errno::EAGAIN, text));
        }
        let change = |space: &mut super::Space<'_>| space.create(parent, name, mode, flags, &osds);
        let made = self.mrc.write(&volume, who, change).await;
        let (peer, name) = (&self.peer, Some(name.bytes()));
        self.mrc.note_open(&volume, Asked { who, peer, at: parent, name, flags }, &made);
        let (volume, opened) = made?;
        self.mrc.opened(&volume, self.holder(who), opened)
    }

    async fn open(&self, who: &Identity, request: OpenRequest) -> Answer<Open> {
        let OpenRequest { volume, inode, flags } = request;
        let opened = if flags & open_flags::TRUNCATE == 0 {
            // Nothing changes: no need for the writers' lock.
            self.mrc.read_stored(&volume, who, |space| space.open(inode, flags)).await
        } else {
            self.mrc.write(&volume, who, |space| space.open(inode, flags)).await
        };
        let asked = Asked { who, peer: &self.peer, at: inode, name: None, flags };
        self.mrc.note_open(&volume, asked, &opened);
        let (volume, opened) = opened?;
        self.mrc.opened(&volume, self.holder(who), opened)
    }

    async fn renew(&self, who: &Identity, request: CapabilityRequest) -> Answer<Renew> {
        let holder = self.holder(who);
        let old = self.mrc.accept(&request.capability, holder)?;
        let access = CapabilityAccess(old.access);
        let (of, inode) = (old.volume.clone(), old.inode);
        let look = |space: &mut super::Space<'_>| match space.opened(inode) {
            Ok(record) => Ok(Content::of(&record)),
            // It lost its name and is still open, or is being deleted. No other file ever has its
            // number, so the old capability says all there is to know.
            Err(error) if error.errno == Errno::ESTALE => {
                if access != CapabilityAccess::DELETE {
                    space.need_former_way(old.parent, old.barrier)?;
                }
                let Capability { layout, truncate_epoch, owed, parent, .. } = old;
                Ok(Content { layout, truncate_epoch, owed, parent })
            }
            Err(error) => Err(error),
        };
        let (volume, content) = self.mrc.read_stored(&of, who, look).await?;
        let capability = self.mrc.issue(&volume, holder, inode, access, content)?;
        Ok(CapabilityReply { capability })
    }

    async fn size_commit(&self, who: &Identity, request: SizeCommitRequest) -> Answer<SizeCommit> {
        let capability = self.mrc.accept_writer(&request.capability, self.holder(who))?;
        let SizeCommitRequest { size, mtime_ns, .. } = request;
        let (inode, epoch) = (capability.inode, capability.truncate_epoch);
        let change = |space: &mut super::Space<'_>| space.commit_size(inode, size, mtime_ns, epoch);
        let (_, committed) = self.mrc.write(&capability.volume, who, change).await?;
        let stale_epoch = committed.stale_epoch;
        Ok(SizeCommitReply { attr: Some(committed.attr), stale_epoch })
    }

    async fn truncate(&self, who: &Identity, request: TruncateRequest) -> Answer<Truncate> {
        let TruncateRequest { volume, inode, size, capability } = request;
        let opened = if capability.is_empty() {
            None
        } else {
            let capability = self.mrc.accept_writer(&capability, self.holder(who))?;
            if (&capability.volume, capability.inode) != (&volume, inode) {
                let text = "capability belongs to another file";
                return Err(RpcError::errno(Errno::EACCES, text));
            }
            Some(CapabilityAccess(capability.access))
        };
        let change = |space: &mut super::Space<'_>| space.truncate(inode, size, opened);
        let (volume, opened) = self.mrc.write(&volume, who, change).await?;
        self.mrc.opened(&volume, self.holder(who), opened)
    }

    async fn cut_made(&self, who: &Identity, request: CapabilityRequest) -> Answer<CutMade> {
        let capability = self.mrc.accept_writer(&request.capability, self.holder(who))?;
        let (inode, epoch) = (capability.inode, capability.truncate_epoch);
        let change = |space: &mut super::Space<'_>| space.cut_made(inode, epoch);
        self.mrc.write(&capability.volume, who, change).await?;
        Ok(Empty {})
    }

    async fn mkdir(&self, who: &Identity, request: MkdirRequest) -> Answer<Mkdir> {
        let MkdirRequest { volume, parent, name, mode } = request;
        let name = Name::parse(&name)?;
        let (_, attr) =
            self.mrc.write(&volume, who, |space| space.mkdir(parent, name, mode)).await?;
        Ok(AttrReply { attr: Some(attr) })
    }

    async fn rmdir(&self, who: &Identity, request: NameRequest) -> Answer<Rmdir> {
        let name = Name::parse(&request.name)?;
        let change = |space: &mut super::Space<'_>| space.rmdir(request.parent, name);
        self.mrc.write(&request.volume, who, change).await?;
        Ok(Empty {})
    }

    async fn unlink(&self, who: &Identity, request: NameRequest) -> Answer<Unlink> {
        let name = Name::parse(&request.name)?;
        let change = |space: &mut super::Space<'_>| space.unlink(request.parent, name);
        let (volume, removed) = self.mrc.write(&request.volume, who, change).await?;
        let inode = removed.inode;
        let deleted = self.mrc.deleted(&volume, self.holder(who), removed)?;
        Ok(UnlinkReply { inode, deleted })
    }

    async fn symlink(&self, who: &Identity, request: SymlinkRequest) -> Answer<Symlink> {
        let SymlinkRequest { volume, parent, name, target } = request;
        let name = Name::parse(&name)?;
        let change = |space: &mut super::Space<'_>| space.symlink(parent, name, &target);
        let (_, attr) = self.mrc.write(&volume, who, change).await?;
        Ok(AttrReply { attr: Some(attr) })
    }

    async fn readlink(&self, who: &Identity, request: InodeRequest) -> Answer<Readlink> {
        let (_, target) =
            self.mrc.read(&request.volume, who, |space| space.readlink(request.inode))?;
        Ok(ReadlinkReply { target })
    }

    async fn rename(&self, who: &Identity, request: RenameRequest) -> Answer<Rename> {
        let from = Place { dir: request.parent, name: Name::parse(&request.name)? };
        let to = Place { dir: request.new_parent, name: Name::parse(&request.new_name)? };
        let change = |space: &mut super::Space<'_>| space.rename(from, to, request.flags);
        let (volume, renamed) = self.mrc.write(&request.volume, who, change).await?;
        let attr = Some(renamed.attr);
        if let Some(barrier) = renamed.barrier {
            self.mrc.parts.osds.raised(&volume, barrier, who.member);
        }
        let Some(removed) = renamed.overwritten else {
            return Ok(RenameReply { attr, overwritten: 0, deleted: None });
        };
        let overwritten = removed.inode;
        let deleted = self.mrc.deleted(&volume, self.holder(who), removed)?;
        Ok(RenameReply { attr, overwritten, deleted })
    }

    async fn link(&self, _who: &Identity, _request: LinkRequest) -> Answer<Link> {
        Err(RpcError::errno(Errno::ENOTSUP, "hard links are not supported: use a symbolic link"))
    }

    async fn readdir(&self, who: &Identity, request: ReaddirRequest) -> Answer<Readdir> {
        let ReaddirRequest { volume, inode, cookie, limit } = request;
        let (_, reply) =
            self.mrc.read(&volume, who, |space| space.readdir(inode, cookie, limit))?;
        Ok(reply)
    }

    async fn folder_show(&self, who: &Identity, request: InodeRequest) -> Answer<FolderShow> {
        self.mrc.folder(&request.volume, who, request.inode).await
    }

    async fn explain(&self, who: &Identity, request: ExplainRequest) -> Answer<Explain> {
        let look = |space: &super::Space<'_>| space.explain(&request);
        let (volume, mut reply) = self.mrc.read(&request.volume, who, look)?;
        let up = self.mrc.parts.osds.osds(&volume.id, &volume.vo);
        reply.away.retain(|osd| up.iter().all(|other| other.id != *osd));
        Ok(reply)
    }

    async fn folder_set(&self, who: &Identity, request: FolderSetRequest) -> Answer<FolderSet> {
        let osds = &self.mrc.parts.osds;
        let site = request.pin.as_ref().map(|pin| self.mrc.pinned_site(who, pin)).transpose()?;
        let change = |space: &mut super::Space<'_>| space.set_folder(&request, site.as_deref());
        let (volume, raised) = self.mrc.write(&request.volume, who, change).await?;
        // Of a folder that was closed before: what was raised then, or later.
        let barrier = raised.unwrap_or(volume.barrier);
        let closed = request.closed == Some(true);
        if closed {
            osds.raised(&volume, barrier, who.member);
        }
        let mut reply = self.mrc.folder(&request.volume, who, request.inode).await?;
        if closed {
            reply.unconfirmed = osds.confirmed(&volume, barrier, &reply.osds).await;
            reply.unconfirmed.truncate(FOLDER_NAMED_MAX);
        }
        Ok(reply)
    }
}
