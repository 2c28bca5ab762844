//! Making, listing and deleting volumes.

use prost::Message;
use xtreemfs_proto::layout::{OSD_ID_BYTES_MAX, STRIPE_BYTES_MAX, STRIPE_BYTES_MIN, WIDTH_MAX};
use xtreemfs_proto::mrc::{Kind, ROOT_INODE, VolumeCreateRequest};
use xtreemfs_proto::{Errno, RpcError};

use crate::ids::{VoName, VolumeId};
use crate::mrc::index::{Change, Index, MemIndex};
use crate::mrc::perm::MODE_BITS;
use crate::mrc::record::{
    Counters, InodeRecord, LAST_VOLUME, VOLUMES, VolumeRecord, counters_key, inode_key, volume_key,
    volume_prefix,
};
use crate::mrc::{Mrc, find, space};

/// Longest volume name, in bytes.
pub const VOLUME_NAME_BYTES_MAX: usize = 128;
/// Most OSDs that a volume can be limited to.
pub const VOLUME_OSDS_MAX: usize = 1024;
/// Most volumes of an MRC.
pub const VOLUMES_MAX: usize = 100_000;

impl Mrc {
    /// All volumes, sorted by id. The embedding registers them at the directory.
    ///
    /// # Errors
    /// `EIO` if the index is damaged.
    pub fn volumes(&self) -> Result<Vec<VolumeRecord>, RpcError> {
        self.store.read(list)
    }

    /// Makes a volume; durable on return. `EEXIST` if the name is taken.
    ///
    /// # Errors
    /// `EEXIST`, `EINVAL`, `ENOSPC`.
    pub async fn create_volume(
        &self,
        request: &VolumeCreateRequest,
    ) -> Result<VolumeRecord, RpcError> {
        check(request)?;
        let id = VolumeId::from_random((self.parts.random)());
        let now_ns = self.parts.clock.now_ns();
        self.store.commit(|index| create(index, request, &id, now_ns)).await
    }

    /// Deletes a volume with its namespace; durable on return. Its objects stay on the OSDs.
    ///
    /// # Errors
    /// `ENOENT`, `ENOSPC`.
    pub async fn delete_volume(&self, id: &str) -> Result<(), RpcError> {
        let decide = |index: &MemIndex| {
            let volume = find(index, id)?;
            let changes = vec![
                Change::Delete { key: volume_key(id) },
                Change::DeletePrefix { prefix: volume_prefix(volume.number) },
            ];
            Ok((changes, ()))
        };
        self.store.commit(decide).await
    }
}

fn list(index: &MemIndex) -> Result<Vec<VolumeRecord>, RpcError> {
    let records = index.after(VOLUMES, b"").map(|(_, value)| VolumeRecord::decode(value));
    records.collect::<Result<_, _>>().map_err(|_| space::damaged("volume"))
}

fn check(request: &VolumeCreateRequest) -> Result<(), RpcError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let named =
        |name: &str| (1..=VOLUME_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
    let osds = request.osds.len() <= VOLUME_OSDS_MAX
        && request.osds.iter().all(|id| (1..=OSD_ID_BYTES_MAX).contains(&id.len()));
    let rules = [
        (named(&request.name), "name: 1 to 128 of letters, digits, `.`, `_`, `-`"),
        (
            VoName::parse(&request.vo).is_some(),
            "VO: 1 to 128 of a-z, 0-9, `.`, `_`, `-`, a letter or digit first",
        ),
        (request.mode <= MODE_BITS, "mode: at most 07777"),
        (
            (STRIPE_BYTES_MIN..=STRIPE_BYTES_MAX).contains(&request.stripe_size),
            "stripe size: 4 KiB to 8 MiB",
        ),
        ((1..=WIDTH_MAX).contains(&(request.width as usize)), "width: 1 to 32"),
        (osds, "OSDs: at most 1024 ids of 1 to 255 bytes"),
    ];
    match rules.iter().find(|(fits, _)| !fits) {
        Some((_, rule)) => Err(RpcError::errno(Errno::EINVAL, format!("volume refused; {rule}"))),
        None => Ok(()),
    }
}

fn create(
    index: &MemIndex,
    request: &VolumeCreateRequest,
    id: &VolumeId,
    now_ns: i64,
) -> Result<(Vec<Change>, VolumeRecord), RpcError> {
    let volumes = list(index)?;
    if volumes.iter().any(|volume| volume.name == request.name || volume.id == id.as_str()) {
        let text = format!("a volume named {} exists already", request.name);
        return Err(RpcError::errno(Errno::EEXIST, text));
    }
    if volumes.len() >= VOLUMES_MAX {
        return Err(RpcError::errno(Errno::ENOSPC, format!("{VOLUMES_MAX} volumes exist")));
    }
    let last = index.value(LAST_VOLUME).and_then(|value| value.try_into().ok());
    let number = last.map_or(Some(1), |last| u32::from_be_bytes(last).checked_add(1));
    let number = number.ok_or_else(|| space::damaged("volume numbers"))?;
    let volume = VolumeRecord {
        number,
        id: id.to_string(),
        name: request.name.clone(),
        vo: request.vo.clone(),
        stripe_size: request.stripe_size,
        width: request.width,
        osds: request.osds.clone(),
        barrier: 0,
    };
    let root = InodeRecord {
        kind: Kind::Directory.into(),
        mode: request.mode,
        owner: request.owner,
        group: request.group,
        atime_ns: now_ns,
        mtime_ns: now_ns,
        ctime_ns: now_ns,
        parent: ROOT_INODE,
        ..Default::default()
    };
    let counters = Counters { inodes: 1 };
    let put = |key: Vec<u8>, value: Vec<u8>| Change::Put { key, value };
    let changes = vec![
        put(LAST_VOLUME.to_vec(), number.to_be_bytes().to_vec()),
        put(volume_key(&volume.id), volume.encode_to_vec()),
        put(counters_key(number), counters.encode_to_vec()),
        put(inode_key(number, ROOT_INODE), root.encode_to_vec()),
    ];
    Ok((changes, volume))
}
