//! Metadata service: volumes, their namespaces, and the rights of people in them.
//!
//! Requests are decided by pure functions over an index ([`space`], [`entries`], [`rename`],
//! [`inodes`], [`folders`], [`below`], [`perm`]); [`store`] makes their changes durable; [`service`] joins both to a
//! connection. Rights depend on the slot's [`Identity`] alone, never on what the node says.

pub mod below;
pub mod caps;
pub mod choose;
pub mod entries;
pub mod explain;
pub mod files;
pub mod folders;
pub mod index;
pub mod inodes;
pub mod log;
pub mod name;
pub mod opens;
pub mod perm;
pub mod record;
pub mod rename;
pub mod service;
pub mod space;
pub mod store;
pub mod volumes;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use xtreemfs_proto::{Errno, RpcError};

use crate::fence::{Entrance, Fence};
use crate::identity::{Authenticator, Epochs, Identity, Peer, Role};
use crate::slots::Slots;
use crate::time::Clock;
use crate::token::{PublicKey, Signer};

use below::Looks;
pub use choose::OsdStatus;
pub use files::StoreError;
use index::MemIndex;
pub use opens::{FileOpen, OpenAudit};
use record::VolumeRecord;
pub use service::MrcConnection;
use space::Space;
use store::Store;

/// Knows the OSDs that serve a volume, and tells them what counts no more.
#[async_trait]
pub trait OsdChoice: Send + Sync + 'static {
    /// The OSDs that are up and may store objects of this volume. Asked at each creation of a
    /// file: must answer from memory.
    fn osds(&self, volume: &str, vo: &str) -> Vec<OsdStatus>;

    /// Whether each OSD that is up has had the time to say so. Before, no OSD means "try again",
    /// not "no room".
    fn settled(&self) -> bool;

    /// The site of an OSD; empty if it has none. Must answer from memory.
    fn site_of(&self, osd: &str) -> String;

    /// The home site of a member of `vo`, if it is known.
    fn home_of(&self, vo: &str, member: u32) -> Option<String>;

    /// Whether `site` stores files of `vo`.
    fn stores(&self, vo: &str, site: &str) -> bool;

    /// Tells OSDs and clients that capabilities of the volume with a lesser barrier count no more,
    /// raised by the member `by`. Does not wait for them. Saying it again does nothing.
    fn raised(&self, volume: &VolumeRecord, barrier: u64, by: u32);

    /// Waits a while until each OSD at which a capability of the VO may count still goes by it,
    /// those in `also` too; gives those that do not.
    async fn confirmed(&self, volume: &VolumeRecord, barrier: u64, also: &[String]) -> Vec<String>;
}

/// Knows which peers manage the volumes of a VO.
pub trait VolumePolicy: Send + Sync + 'static {
    /// Whether `peer`, which is a service, may create and delete volumes of `vo`.
    fn may_manage(&self, peer: &Peer, vo: &str) -> bool;
}

/// What an MRC needs from its surroundings.
pub struct MrcParts {
    /// Signs the capabilities of all its volumes.
    pub signer: Signer,
    /// Checks tickets.
    pub authenticator: Arc<dyn Authenticator>,
    /// Least valid epochs.
    pub epochs: Arc<dyn Epochs>,
    /// OSDs for new files.
    pub osds: Arc<dyn OsdChoice>,
    /// Who manages volumes.
    pub policy: Arc<dyn VolumePolicy>,
    /// Who wants to know of files that are opened.
    pub opens: Arc<dyn OpenAudit>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// 16 random bytes, for volume ids.
    pub random: Box<dyn Fn() -> [u8; 16] + Send + Sync>,
    /// Bytes of log after which a checkpoint is written; [`store::LOG_BYTES_CHECKPOINT`] is good.
    pub checkpoint_bytes: u64,
}

/// A metadata server.
pub struct Mrc {
    store: Store,
    fence: Fence,
    looks: Looks,
    parts: MrcParts,
}

impl fmt::Debug for Mrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mrc").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Mrc {
    /// Opens the MRC whose state lies in `dir`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(dir: &Path, parts: MrcParts) -> Result<Arc<Self>, StoreError> {
        let store = Store::open(dir, parts.checkpoint_bytes, parts.clock.now())?;
        let (fence, looks) = Default::default();
        Ok(Arc::new(Self { store, fence, looks, parts }))
    }

    /// The key that OSDs verify this MRC's capabilities with.
    pub fn public_key(&self) -> PublicKey {
        self.parts.signer.public_key()
    }

    /// The handler for one connection from `peer`, to be given to [`xtreemfs_proto::serve`].
    pub fn connection(self: &Arc<Self>, peer: Peer) -> Arc<MrcConnection> {
        let (entrance, slots) = (Entrance::default(), Slots::default());
        Arc::new(MrcConnection { mrc: self.clone(), peer, entrance, slots })
    }

    /// Looks at a volume for a person. What is seen may not be on disk yet.
    fn read<T>(
        &self,
        volume: &str,
        who: &Identity,
        look: impl FnOnce(&Space<'_>) -> Result<T, RpcError>,
    ) -> Result<(VolumeRecord, T), RpcError> {
        let now_ns = self.parts.clock.now_ns();
        self.store.read(|index| {
            let volume = find(index, volume)?;
            let value = look(&Space::new(index, &volume, who, now_ns)?)?;
            Ok((volume, value))
        })
    }

    /// Like [`Mrc::read`], but all that was seen is on disk on return: for what is signed and then
    /// counts elsewhere, whatever happens to this server. The operation may be one that could
    /// change something but, as called, does not: changes are dropped.
    async fn read_stored<T>(
        &self,
        volume: &str,
        who: &Identity,
        look: impl FnOnce(&mut Space<'_>) -> Result<T, RpcError>,
    ) -> Result<(VolumeRecord, T), RpcError> {
        let now_ns = self.parts.clock.now_ns();
        let look = |index: &MemIndex| {
            let volume = find(index, volume)?;
            let value = look(&mut Space::new(index, &volume, who, now_ns)?)?;
            Ok((volume, value))
        };
        self.store.read_stored(look).await
    }

    /// Changes a volume for a person; durable on return.
    async fn write<T>(
        &self,
        volume: &str,
        who: &Identity,
        change: impl FnOnce(&mut Space<'_>) -> Result<T, RpcError>,
    ) -> Result<(VolumeRecord, T), RpcError> {
        let now_ns = self.parts.clock.now_ns();
        let decide = |index: &MemIndex| {
            let volume = find(index, volume)?;
            let mut space = Space::new(index, &volume, who, now_ns)?;
            let value = change(&mut space)?;
            let changes = space.into_changes();
            Ok((changes, (volume, value)))
        };
        self.store.commit(decide).await
    }
}

/// The record of a volume.
fn find(index: &MemIndex, id: &str) -> Result<VolumeRecord, RpcError> {
    use index::Index;
    use prost::Message;
    let Some(value) = index.value(&record::volume_key(id)) else {
        let text = "no such volume here: look it up in the directory again";
        return Err(RpcError::errno(Errno::ENOENT, text));
    };
    let mut volume = VolumeRecord::decode(value).map_err(|_| space::damaged("volume"))?;
    // Also higher than any that an OSD knows from before an old copy of the metadata was restored.
    volume.barrier = volume.barrier.max(index.first_epoch());
    Ok(volume)
}

/// Refuses peers that may not manage volumes of `vo`.
fn need_manager(policy: &dyn VolumePolicy, peer: &Peer, vo: &str) -> Result<(), RpcError> {
    if peer.role == Role::Service && policy.may_manage(peer, vo) {
        return Ok(());
    }
    let text = format!("peer {} may not manage volumes of VO {vo}", peer.id);
    Err(RpcError::errno(Errno::EPERM, text))
}
