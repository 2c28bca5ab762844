//! Directory service: volumes and OSDs by name.
//!
//! Requests need no slot; the server goes by the role of the peer that the embedding supplies.

use bytes::Bytes;
use prost::Message;

use crate::rpc::{Empty, procedures};

procedures! { DIR;
    /// Finds a volume by name. `ENOENT` if there is none.
    VolumeLookup = 110 (VolumeLookupRequest) -> Volume;
    /// Makes a volume known or renews it (services only). `EEXIST` if the name or id is taken by
    /// another MRC. Registrations are kept in memory: repeat it at start and at each interval.
    VolumeRegister = 111 (VolumeRegisterRequest) -> RegisterReply;
    /// Forgets a volume (services only).
    VolumeUnregister = 112 (VolumeUnregisterRequest) -> Empty;
    /// Lists volumes.
    VolumeList = 113 (VolumeListRequest) -> VolumeListReply;
    /// Makes an OSD known or renews it (services only): heartbeat.
    OsdRegister = 120 (OsdRegisterRequest) -> RegisterReply;
    /// Lists the OSDs heard of lately.
    OsdList = 121 (OsdListRequest) -> OsdListReply;
    /// Waits until a barrier of some volume is higher than the peer knows.
    Barriers = 130 (BarriersRequest) -> BarriersReply;
}

/// What the directory knows of a volume.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Volume {
    /// Volume id, as the MRC gave it.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Name, unique within the directory.
    #[prost(string, tag = "2")]
    pub name: String,
    /// VO that the volume belongs to.
    #[prost(string, tag = "3")]
    pub vo: String,
    /// Where its MRC is reached; opaque (`site/host` or a node id).
    #[prost(string, tag = "4")]
    pub mrc_address: String,
    /// Ed25519 public key (32 bytes) that signs the volume's capabilities.
    #[prost(bytes = "bytes", tag = "5")]
    pub mrc_key: Bytes,
}

/// Request of [`VolumeLookup`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VolumeLookupRequest {
    /// Volume name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Request of [`VolumeRegister`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VolumeRegisterRequest {
    /// The volume.
    #[prost(message, optional, tag = "1")]
    pub volume: Option<Volume>,
}

/// Reply of [`VolumeRegister`] and [`OsdRegister`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct RegisterReply {
    /// Repeat the registration after this many milliseconds.
    #[prost(uint64, tag = "1")]
    pub repeat_ms: u64,
}

/// Request of [`VolumeUnregister`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VolumeUnregisterRequest {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// Request of [`VolumeList`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VolumeListRequest {
    /// Only volumes of this VO; empty for all.
    #[prost(string, tag = "1")]
    pub vo: String,
}

/// Reply of [`VolumeList`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VolumeListReply {
    /// Sorted by name.
    #[prost(message, repeated, tag = "1")]
    pub volumes: Vec<Volume>,
}

/// What the directory knows of an OSD.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Osd {
    /// OSD id, as layouts name it.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Where it is reached; opaque.
    #[prost(string, tag = "2")]
    pub address: String,
    /// Free space for objects, in bytes.
    #[prost(uint64, tag = "3")]
    pub free_bytes: u64,
    /// Space for objects, in bytes.
    #[prost(uint64, tag = "4")]
    pub total_bytes: u64,
    /// VOs that it stores objects for.
    #[prost(string, repeated, tag = "5")]
    pub vos: Vec<String>,
    /// When it was last heard of, milliseconds since 1970; filled in by the directory.
    #[prost(uint64, tag = "6")]
    pub seen_ms: u64,
}

/// Request of [`OsdRegister`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OsdRegisterRequest {
    /// The OSD.
    #[prost(message, optional, tag = "1")]
    pub osd: Option<Osd>,
}

/// Request of [`OsdList`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OsdListRequest {
    /// Only OSDs that serve this VO; empty for all.
    #[prost(string, tag = "1")]
    pub vo: String,
}

/// Reply of [`OsdList`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OsdListReply {
    /// Sorted by id.
    #[prost(message, repeated, tag = "1")]
    pub osds: Vec<Osd>,
}

/// Capabilities of a volume that name a lesser number count no more: their holders renew them, and
/// are refused if the way to the file was closed to them.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Barrier {
    /// VO that the volume belongs to.
    #[prost(string, tag = "1")]
    pub vo: String,
    /// Volume id.
    #[prost(string, tag = "2")]
    pub volume: String,
    /// It only rises.
    #[prost(uint64, tag = "3")]
    pub number: u64,
}

/// Request of [`Barriers`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BarriersRequest {
    /// About the volumes of these VOs.
    #[prost(string, repeated, tag = "1")]
    pub vos: Vec<String>,
    /// What the peer knows and goes by.
    #[prost(message, repeated, tag = "2")]
    pub known: Vec<Barrier>,
    /// How long to wait for something new, in milliseconds; the directory may answer sooner.
    #[prost(uint64, tag = "3")]
    pub wait_ms: u64,
    /// The peer asks as the OSD of its own name: what it knows is kept from those it refuses.
    #[prost(bool, tag = "4")]
    pub osd: bool,
}

/// Reply of [`Barriers`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BarriersReply {
    /// Those that are higher than the peer knew; none when the time was up.
    #[prost(message, repeated, tag = "1")]
    pub barriers: Vec<Barrier>,
}
