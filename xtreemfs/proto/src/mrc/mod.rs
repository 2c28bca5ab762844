//! Metadata service: the namespace, by inode.
//!
//! Every request but [`Connect`], [`VolumeCreate`] and [`VolumeDelete`] needs an opened connection
//! ([`Connect`]) and a slot ([`crate::rpc::Authenticate`]) whose identity is a member of the
//! volume's VO. Besides the rights named at each procedure, the caller must have search permission
//! on every directory above the inode: an inode number alone opens nothing.
//!
//! Common refusals: `ESTALE` (the inode is gone), `EACCES`, `EPERM`, `ENOTDIR`; for names `EINVAL`
//! (empty, `.`, `..`, `/` or NUL inside) and `ENAMETOOLONG`; `ENOENT` for an unknown volume.
//! Owners and groups are member and group numbers of the VO. Names are bytes. Times are nanoseconds
//! since 1970, negative before. A changed inode is durable when the reply arrives.

mod entries;
mod explain;
mod files;
mod folders;

use bytes::Bytes;
use prost::Message;

use crate::rpc::{ConnectRequest, Empty, procedures};

pub use entries::*;
pub use explain::*;
pub use files::*;
pub use folders::*;

/// Inode number of a volume's root directory.
pub const ROOT_INODE: u64 = 1;
/// Longest name of a directory entry, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest target of a symbolic link, in bytes.
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Most entries in one [`ReaddirReply`].
pub const READDIR_ENTRIES_MAX: u32 = 1024;

procedures! { MRC;
    /// Makes a volume (services only).
    VolumeCreate = 101 (VolumeCreateRequest) -> VolumeCreateReply;
    /// Deletes a volume and its namespace (services only). Its objects stay on the OSDs.
    VolumeDelete = 102 (VolumeRequest) -> Empty;
    /// Space and number of files.
    Statfs = 103 (VolumeRequest) -> StatfsReply;
    /// Opens the connection; see [`ConnectRequest`].
    Connect = 104 (ConnectRequest) -> Empty;
    /// Finds a name in a directory; needs search permission. `ENOENT`.
    Lookup = 110 (NameRequest) -> AttrReply;
    /// Attributes of an inode.
    Getattr = 111 (InodeRequest) -> AttrReply;
    /// Changes mode, owner, group or times; the size is changed by [`Truncate`].
    Setattr = 112 (SetattrRequest) -> AttrReply;
    /// Asks for permissions. `EACCES` if one is missing.
    Access = 113 (AccessRequest) -> Empty;
    /// Makes a file and opens it, or opens what is there. Umask is applied by the client.
    Create = 120 (CreateRequest) -> OpenReply;
    /// Opens a file: attributes, layout and capability in one answer.
    Open = 121 (OpenRequest) -> OpenReply;
    /// Gives a new capability for an open file, with the same access and the current truncate
    /// epoch. The old one must be of the same person and peer and not lapsed for more than an hour.
    Renew = 122 (CapabilityRequest) -> CapabilityReply;
    /// Tells size and time of the last change after writing; needs a capability with `WRITE`.
    SizeCommit = 123 (SizeCommitRequest) -> SizeCommitReply;
    /// Sets the size and raises the truncate epoch; needs write permission or a capability with
    /// `WRITE`. The client then sends [`crate::osd::Truncate`] with the new capability to all OSDs,
    /// as after any answer whose capability has `TRUNCATE` and names truncations.
    Truncate = 124 (TruncateRequest) -> OpenReply;
    /// Says that every OSD has made the truncations up to that of this capability; needs `WRITE`.
    /// Until then capabilities name them.
    CutMade = 125 (CapabilityRequest) -> Empty;
    /// Makes a directory.
    Mkdir = 130 (MkdirRequest) -> AttrReply;
    /// Removes an empty directory. `ENOTEMPTY`, `ENOTDIR`.
    Rmdir = 131 (NameRequest) -> Empty;
    /// Removes a file or symbolic link. `EISDIR`.
    Unlink = 132 (NameRequest) -> UnlinkReply;
    /// Makes a symbolic link.
    Symlink = 133 (SymlinkRequest) -> AttrReply;
    /// Target of a symbolic link. `EINVAL` if it is none.
    Readlink = 134 (InodeRequest) -> ReadlinkReply;
    /// Renames within the volume.
    Rename = 135 (RenameRequest) -> RenameReply;
    /// Makes a hard link: `ENOTSUP`.
    Link = 136 (LinkRequest) -> AttrReply;
    /// Lists a directory, attributes included; needs read permission. `.` and `..` are not listed.
    Readdir = 137 (ReaddirRequest) -> ReaddirReply;
    /// What its owner said of a folder, or where a file lies.
    FolderShow = 140 (InodeRequest) -> FolderReply;
    /// Closes or opens a folder, or pins it to a site: its owner alone, whatever roles others have.
    FolderSet = 141 (FolderSetRequest) -> FolderReply;
    /// Why the person may use a file or folder, or may not: what decides it, name by name, up to
    /// the first refusal.
    Explain = 142 (ExplainRequest) -> ExplainReply;
}

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Kind {
    /// Never sent.
    Unknown = 0,
    /// A file.
    File = 1,
    /// A directory.
    Directory = 2,
    /// A symbolic link.
    Symlink = 3,
}

/// Attributes of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Attr {
    /// Inode number, never reused within a volume.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// A [`Kind`].
    #[prost(enumeration = "Kind", tag = "2")]
    pub kind: i32,
    /// Permission bits, `0o7777` at most.
    #[prost(uint32, tag = "3")]
    pub mode: u32,
    /// 1 for files and links, 2 and the number of subdirectories for directories.
    #[prost(uint32, tag = "4")]
    pub nlink: u32,
    /// Member number.
    #[prost(uint32, tag = "5")]
    pub owner: u32,
    /// Group number.
    #[prost(uint32, tag = "6")]
    pub group: u32,
    /// Bytes: of a file as last committed, of a link's target, of a directory its entries.
    #[prost(uint64, tag = "7")]
    pub size: u64,
    /// Last access (set by clients only).
    #[prost(sfixed64, tag = "8")]
    pub atime_ns: i64,
    /// Last change of content.
    #[prost(sfixed64, tag = "9")]
    pub mtime_ns: i64,
    /// Last change of attributes.
    #[prost(sfixed64, tag = "10")]
    pub ctime_ns: i64,
    /// Number of truncations.
    #[prost(uint64, tag = "11")]
    pub truncate_epoch: u64,
}

/// Request of [`VolumeCreate`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VolumeCreateRequest {
    /// Name, unique within the MRC.
    #[prost(string, tag = "1")]
    pub name: String,
    /// VO that it belongs to.
    #[prost(string, tag = "2")]
    pub vo: String,
    /// Member number that owns the root directory, or one that is nobody's: whoever owns it may
    /// remove what others have in it, also when it is sticky.
    #[prost(uint32, tag = "3")]
    pub owner: u32,
    /// Group number of the root directory.
    #[prost(uint32, tag = "4")]
    pub group: u32,
    /// Permission bits of the root directory.
    #[prost(uint32, tag = "5")]
    pub mode: u32,
    /// Bytes of one object in new files.
    #[prost(uint32, tag = "6")]
    pub stripe_size: u32,
    /// Most OSDs that a new file is striped over; fewer if fewer serve the volume.
    #[prost(uint32, tag = "7")]
    pub width: u32,
    /// Only these OSDs; empty for all that serve the volume.
    #[prost(string, repeated, tag = "8")]
    pub osds: Vec<String>,
}

/// Reply of [`VolumeCreate`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VolumeCreateReply {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Ed25519 public key (32 bytes) that signs the volume's capabilities.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
}

/// Request that names nothing but the volume.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VolumeRequest {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub volume: String,
}

/// Reply of [`Statfs`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct StatfsReply {
    /// Space of the OSDs that serve the volume, in bytes.
    #[prost(uint64, tag = "1")]
    pub total_bytes: u64,
    /// Free space there, in bytes.
    #[prost(uint64, tag = "2")]
    pub free_bytes: u64,
    /// Inodes in use.
    #[prost(uint64, tag = "3")]
    pub inodes: u64,
    /// Bytes of one object in new files.
    #[prost(uint32, tag = "4")]
    pub stripe_size: u32,
}

/// Request that names an inode.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct InodeRequest {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Inode number.
    #[prost(uint64, tag = "2")]
    pub inode: u64,
}

/// Request that names a directory entry.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NameRequest {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Inode number of the directory.
    #[prost(uint64, tag = "2")]
    pub parent: u64,
    /// Name within it.
    #[prost(bytes = "bytes", tag = "3")]
    pub name: Bytes,
}

/// Reply with attributes; always set on success.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct AttrReply {
    /// The inode's attributes.
    #[prost(message, optional, tag = "1")]
    pub attr: Option<Attr>,
}

/// Request of [`Setattr`]: what is absent stays as it is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SetattrRequest {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Inode number.
    #[prost(uint64, tag = "2")]
    pub inode: u64,
    /// Permission bits: owner or administrator.
    #[prost(uint32, optional, tag = "3")]
    pub mode: Option<u32>,
    /// Member number: administrator.
    #[prost(uint32, optional, tag = "4")]
    pub owner: Option<u32>,
    /// Group number: owner, to a group of hers, or administrator.
    #[prost(uint32, optional, tag = "5")]
    pub group: Option<u32>,
    /// Last access.
    #[prost(message, optional, tag = "6")]
    pub atime: Option<SetTime>,
    /// Last change of content.
    #[prost(message, optional, tag = "7")]
    pub mtime: Option<SetTime>,
}

/// A time to set.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct SetTime {
    /// Absent: the MRC's present time (needs write permission only, not ownership).
    #[prost(sfixed64, optional, tag = "1")]
    pub ns: Option<i64>,
}

/// Request of [`Access`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AccessRequest {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Inode number.
    #[prost(uint64, tag = "2")]
    pub inode: u64,
    /// 4 read, 2 write, 1 execute or search; 0 asks for existence.
    #[prost(uint32, tag = "3")]
    pub mask: u32,
}
