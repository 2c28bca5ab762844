//! Object storage service: the bytes of files, for whoever shows a capability.

mod backing;
mod erase;
mod error;
mod failures;
mod handles;
mod marker;
mod objects;
mod trust;
mod verifier;
mod verify;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use xtreemfs_proto::layout::FILE_BYTES_MAX;
use xtreemfs_proto::osd::{
    Connect, FileRequest, Fsync, FsyncReply, Read, ReadReply, Size, SizeReply, Truncate, Unlink,
    Write, WriteReply,
};
use xtreemfs_proto::record::DATA_BYTES_MAX;
use xtreemfs_proto::rpc::{Empty, interface};
use xtreemfs_proto::{Access, Errno, Handler, Incoming, Outgoing, Procedure, Room, RpcError};

use crate::budget::{Budget, Share};
use crate::cache::Cache;
use crate::fence::{Entrance, Fence, late};
use crate::identity::{Epochs, Peer};
use crate::time::Clock;

pub use error::ObjectsError;
pub use objects::{ObjectStore, Space};
pub use trust::{NoKey, VolumeTrust};
pub use verifier::WriteVerifier;
use verify::Verified;
pub use verify::{CLOCK_SKEW_MS_MAX, NEWS_MS_MAX, VERIFIED_MAX};

/// Most bytes of answers to reads that are held at once, over all connections.
pub const READ_BYTES_MAX: usize = 256 << 20;
/// The same over all connections of one machine.
pub const READ_BYTES_PER_MACHINE_MAX: usize = 32 << 20;
/// Most bytes of requests that are held at once, over all connections, those counted in that are
/// still coming in.
pub const REQUEST_BYTES_MAX: usize = 256 << 20;
/// The same over all connections of one machine.
pub const REQUEST_BYTES_PER_MACHINE_MAX: usize = 32 << 20;

/// What an OSD needs from its surroundings.
pub struct OsdParts {
    /// Its id, as layouts name it.
    pub id: String,
    /// Keys of volumes.
    pub trust: Arc<dyn VolumeTrust>,
    /// Least valid epochs.
    pub epochs: Arc<dyn Epochs>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Whether it had objects before: then their folder must be there.
    pub had_objects: bool,
    /// Space on the disk that is left to others, in bytes.
    pub reserve_bytes: u64,
    /// Changes from one opening to the next when what was not synced may be lost.
    pub verifier: WriteVerifier,
}

/// An object server.
pub struct Osd {
    objects: Arc<ObjectStore>,
    parts: OsdParts,
    fence: Fence,
    verified: Mutex<Cache<Bytes, Arc<Verified>>>,
    read_budget: Budget,
    request_budget: Budget,
}

impl fmt::Debug for Osd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Osd").field("id", &self.parts.id).finish_non_exhaustive()
    }
}

impl Osd {
    /// Opens the OSD whose objects lie in `dir`.
    ///
    /// # Errors
    /// See [`ObjectsError`].
    pub fn open(dir: &Path, parts: OsdParts) -> Result<Arc<Self>, ObjectsError> {
        let OsdParts { ref id, had_objects, reserve_bytes, .. } = parts;
        Ok(Arc::new(Self {
            objects: Arc::new(ObjectStore::open(dir, id, had_objects, reserve_bytes)?),
            parts,
            fence: Fence::default(),
            verified: Mutex::new(Cache::new(VERIFIED_MAX)),
            read_budget: Budget::new(READ_BYTES_MAX, READ_BYTES_PER_MACHINE_MAX),
            request_budget: Budget::new(REQUEST_BYTES_MAX, REQUEST_BYTES_PER_MACHINE_MAX),
        }))
    }

    /// The handler for one connection from `peer`.
    pub fn connection(self: &Arc<Self>, peer: Peer) -> Arc<OsdConnection> {
        let (entrance, share) = (Entrance::default(), self.read_budget.share(&peer.id));
        let request_share = self.request_budget.share(&peer.id);
        Arc::new(OsdConnection { osd: self.clone(), peer, entrance, share, request_share })
    }

    /// Free and total space for objects, for the heartbeat.
    ///
    /// # Errors
    /// See [`ObjectsError`].
    pub fn space(&self) -> Result<Space, ObjectsError> {
        self.objects.space()
    }

    /// Does something with the disk on a thread that may wait for it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ObjectStore) -> Result<T, ObjectsError> + Send + 'static,
    ) -> Result<T, RpcError> {
        let objects = self.objects.clone();
        match tokio::task::spawn_blocking(move || work(&objects)).await {
            Ok(result) => result.map_err(|error| error.to_rpc()),
            Err(error) => {
                tracing::error!(%error, "object thread died");
                Err(RpcError::errno(Errno::EIO, "the object server failed: tell the operator"))
            }
        }
    }
}

/// One connection to an OSD.
#[derive(Debug)]
pub struct OsdConnection {
    osd: Arc<Osd>,
    peer: Peer,
    entrance: Entrance,
    share: Share,
    request_share: Share,
}

impl Handler for OsdConnection {
    async fn room(&self, bytes: usize) -> Room {
        self.osd.request_budget.room(&self.request_share, bytes).await
    }

    async fn handle(&self, incoming: Incoming) -> Result<Outgoing, RpcError> {
        if incoming.interface != interface::OSD {
            return Err(incoming.unknown(interface::OSD));
        }
        match incoming.proc {
            Connect::PROC => self.connect(&incoming).await,
            Read::PROC => self.read(&incoming).await,
            Write::PROC => self.write(incoming).await,
            Truncate::PROC => self.truncate(&incoming).await,
            Unlink::PROC => self.unlink(&incoming).await,
            Size::PROC => self.size(&incoming).await,
            Fsync::PROC => self.fsync(&incoming).await,
            _ => Err(incoming.unknown(interface::OSD)),
        }
    }
}

impl OsdConnection {
    async fn connect(&self, incoming: &Incoming) -> Result<Outgoing, RpcError> {
        let request = incoming.request::<Connect>()?;
        self.entrance.connect(&self.osd.fence, &self.peer, &request).await?;
        Ok(Outgoing::reply::<Connect>(&Empty {}))
    }

    async fn read(&self, incoming: &Incoming) -> Result<Outgoing, RpcError> {
        let request = incoming.request::<Read>()?;
        let file = self.verify(&request.capability, Access::READ).await?;
        let length = request.length as usize;
        if length > DATA_BYTES_MAX {
            let text = format!("read of {length} bytes: the limit is {DATA_BYTES_MAX}");
            return Err(RpcError::errno(Errno::EINVAL, text));
        }
        let at = self.place(&file, request.object, request.offset, length)?;
        let held = self.osd.read_budget.take(&self.share, length).await;
        let work = move |objects: &ObjectStore| {
            objects.settle(&file.key, &file.owed)?;
            objects.read(&file.key, at, length)
        };
        let data = self.osd.blocking(work).await?;
        let mut out = Outgoing::with_data::<Read>(&ReadReply {}, data);
        out.guard = Some(Box::new(held));
        Ok(out)
    }

    async fn write(&self, incoming: Incoming) -> Result<Outgoing, RpcError> {
        let request = incoming.request::<Write>()?;
        let file = self.verify(&request.capability, Access::WRITE).await?;
        let Incoming { data, room, until_ms, .. } = incoming;
        let at = self.place(&file, request.object, request.offset, data.len())?;
        let work = move |objects: &ObjectStore| {
            objects.settle(&file.key, &file.owed)?;
            let written = objects.write(&file.key, at, &data, file.owed.epoch);
            // Also when the connection has ended meanwhile, the data were held until now.
            drop((data, room));
            written
        };
        let truncate_epoch = self.change(until_ms, work).await?;
        let WriteVerifier(verifier) = self.osd.parts.verifier;
        Ok(Outgoing::reply::<Write>(&WriteReply { truncate_epoch, verifier }))
    }

    async fn truncate(&self, incoming: &Incoming) -> Result<Outgoing, RpcError> {
        let FileRequest { capability } = incoming.request::<Truncate>()?;
        let file = self.verify(&capability, Access::TRUNCATE).await?;
        let (index, layout) = (file.index, file.layout.clone());
        let work = move |objects: &ObjectStore| objects.truncate(&file.key, &file.owed);
        let held = self.change(incoming.until_ms, work).await?;
        let size = layout.file_size(index, held);
        Ok(Outgoing::reply::<Truncate>(&SizeReply { size }))
    }

    async fn unlink(&self, incoming: &Incoming) -> Result<Outgoing, RpcError> {
        let FileRequest { capability } = incoming.request::<Unlink>()?;
        let file = self.verify(&capability, Access::DELETE).await?;
        let key = file.key.clone();
        self.change(incoming.until_ms, move |objects| objects.unlink(&key)).await?;
        Ok(Outgoing::reply::<Unlink>(&Empty {}))
    }

    async fn size(&self, incoming: &Incoming) -> Result<Outgoing, RpcError> {
        let FileRequest { capability } = incoming.request::<Size>()?;
        let file = self.verify_user(&capability).await?;
        let (index, layout) = (file.index, file.layout.clone());
        let work = move |objects: &ObjectStore| {
            objects.settle(&file.key, &file.owed)?;
            objects.length(&file.key)
        };
        let held = self.osd.blocking(work).await?;
        let size = layout.file_size(index, held);
        Ok(Outgoing::reply::<Size>(&SizeReply { size }))
    }

    async fn fsync(&self, incoming: &Incoming) -> Result<Outgoing, RpcError> {
        let FileRequest { capability } = incoming.request::<Fsync>()?;
        let file = self.verify_user(&capability).await?;
        let key = file.key.clone();
        self.osd.blocking(move |objects| objects.sync(&key)).await?;
        let WriteVerifier(verifier) = self.osd.parts.verifier;
        Ok(Outgoing::reply::<Fsync>(&FsyncReply { verifier }))
    }

    /// Changes something on the disk. That goes on when the connection ends meanwhile, so the newer
    /// one must wait for it.
    async fn change<T: Send + 'static>(
        &self,
        until_ms: Option<u64>,
        work: impl FnOnce(&ObjectStore) -> Result<T, ObjectsError> + Send + 'static,
    ) -> Result<T, RpcError> {
        let entered = self.entrance.enter(until_ms).await?;
        let work = move |objects: &ObjectStore| {
            // It may have waited for a thread.
            let done = (!entered.is_late()).then(|| work(objects));
            drop(entered);
            done.transpose()
        };
        self.osd.blocking(work).await?.ok_or_else(late)
    }

    /// Where a range lies in this OSD's backing file.
    fn place(
        &self,
        file: &Verified,
        object: u64,
        offset: u32,
        length: usize,
    ) -> Result<u64, RpcError> {
        let layout = &file.layout;
        if object % layout.width() != file.index as u64 || offset >= layout.stripe_size {
            let text = format!("byte {offset} of object {object} does not lie on this OSD");
            return Err(RpcError::errno(Errno::EINVAL, text));
        }
        let start = layout.local_offset(object, u64::from(offset));
        let end = start.and_then(|start| start.checked_add(length as u64));
        match (start, end) {
            (Some(start), Some(end)) if layout.file_size(file.index, end) <= FILE_BYTES_MAX => {
                Ok(start)
            }
            _ => Err(Errno::EFBIG.into()),
        }
    }
}
