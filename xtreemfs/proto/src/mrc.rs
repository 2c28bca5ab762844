//! Metadata service: the namespace, by inode.
//!
//! Every request but [`VolumeCreate`] and [`VolumeDelete`] needs a slot
//! ([`crate::rpc::Authenticate`]) whose identity is a member of the volume's VO. Besides the rights
//! named at each procedure, the caller must have search permission on every directory above the
//! inode: an inode number alone opens nothing.
//!
//! Common refusals: `ESTALE` (the inode is gone), `EACCES`, `EPERM`, `ENOTDIR`; for names `EINVAL`
//! (empty, `.`, `..`, `/` or NUL inside) and `ENAMETOOLONG`; `ENOENT` for an unknown volume.
//! Owners and groups are member and group numbers of the VO. Names are bytes. Times are nanoseconds
//! since 1970, negative before. A changed inode is durable when the reply arrives.

use bytes::Bytes;
use prost::Message;

use crate::layout::Layout;
use crate::rpc::{Empty, procedures};

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
    /// Deletes a volume and its namespace (services only). Objects stay until the OSDs drop them.
    VolumeDelete = 102 (VolumeRequest) -> Empty;
    /// Space and number of files.
    Statfs = 103 (VolumeRequest) -> StatfsReply;
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
    /// `close` says that the file is being closed.
    SizeCommit = 123 (SizeCommitRequest) -> SizeCommitReply;
    /// Sets the size and raises the truncate epoch; needs write permission or a capability with
    /// `WRITE`. The client then sends [`crate::osd::Truncate`] with the new capability to all OSDs.
    Truncate = 124 (TruncateRequest) -> OpenReply;
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
    #[prost(uint32, tag = "11")]
    pub truncate_epoch: u32,
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
    /// Member number that owns the root directory.
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

/// Bits of the `flags` of [`Create`] and [`Open`].
pub mod open_flags {
    /// Read.
    pub const READ: u32 = 1;
    /// Write.
    pub const WRITE: u32 = 2;
    /// Cut to nothing; needs `WRITE`.
    pub const TRUNCATE: u32 = 4;
    /// Create only: `EEXIST` if the name is there.
    pub const EXCLUSIVE: u32 = 8;
    /// All that are known; others are refused with `EINVAL`.
    pub const ALL: u32 = 15;
}

/// Request of [`Create`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CreateRequest {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Inode number of the directory.
    #[prost(uint64, tag = "2")]
    pub parent: u64,
    /// Name within it.
    #[prost(bytes = "bytes", tag = "3")]
    pub name: Bytes,
    /// Permission bits, umask already applied.
    #[prost(uint32, tag = "4")]
    pub mode: u32,
    /// See [`open_flags`].
    #[prost(uint32, tag = "5")]
    pub flags: u32,
}

/// Request of [`Open`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OpenRequest {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Inode number.
    #[prost(uint64, tag = "2")]
    pub inode: u64,
    /// See [`open_flags`].
    #[prost(uint32, tag = "3")]
    pub flags: u32,
}

/// Reply of [`Create`], [`Open`] and [`Truncate`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OpenReply {
    /// Attributes; always set.
    #[prost(message, optional, tag = "1")]
    pub attr: Option<Attr>,
    /// Where the objects lie; always set.
    #[prost(message, optional, tag = "2")]
    pub layout: Option<Layout>,
    /// Capability token; see [`crate::Capability::peek`] for when it lapses.
    #[prost(bytes = "bytes", tag = "3")]
    pub capability: Bytes,
    /// The file was cut: send [`crate::osd::Truncate`] to all OSDs before using it.
    #[prost(bool, tag = "4")]
    pub truncated: bool,
    /// The file was made by this call.
    #[prost(bool, tag = "5")]
    pub created: bool,
}

/// Request of [`Renew`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CapabilityRequest {
    /// Token to renew.
    #[prost(bytes = "bytes", tag = "1")]
    pub capability: Bytes,
}

/// Reply of [`Renew`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CapabilityReply {
    /// The new token.
    #[prost(bytes = "bytes", tag = "1")]
    pub capability: Bytes,
}

/// Request of [`SizeCommit`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SizeCommitRequest {
    /// Token with `WRITE`; names volume and inode. Its truncate epoch counts.
    #[prost(bytes = "bytes", tag = "1")]
    pub capability: Bytes,
    /// End of the last byte written, in bytes. A smaller one than known does not shrink the file.
    #[prost(uint64, tag = "2")]
    pub size: u64,
    /// Time of the last write.
    #[prost(sfixed64, tag = "3")]
    pub mtime_ns: i64,
    /// The file is being closed.
    #[prost(bool, tag = "4")]
    pub close: bool,
}

/// Reply of [`SizeCommit`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct SizeCommitReply {
    /// Attributes after it; always set.
    #[prost(message, optional, tag = "1")]
    pub attr: Option<Attr>,
    /// The capability's truncate epoch is old, so the size was not taken: another client truncated
    /// the file in between. Renew, then commit what was written since.
    #[prost(bool, tag = "2")]
    pub stale_epoch: bool,
}

/// Request of [`Truncate`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TruncateRequest {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Inode number.
    #[prost(uint64, tag = "2")]
    pub inode: u64,
    /// New size, in bytes.
    #[prost(uint64, tag = "3")]
    pub size: u64,
    /// Token with `WRITE` of an open file (`ftruncate`); empty: permissions decide.
    #[prost(bytes = "bytes", tag = "4")]
    pub capability: Bytes,
}

/// Request of [`Mkdir`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MkdirRequest {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Inode number of the directory.
    #[prost(uint64, tag = "2")]
    pub parent: u64,
    /// Name within it.
    #[prost(bytes = "bytes", tag = "3")]
    pub name: Bytes,
    /// Permission bits, umask already applied.
    #[prost(uint32, tag = "4")]
    pub mode: u32,
}

/// A file whose last name went: its objects are to be deleted at all OSDs of the layout, at the
/// latest when the client's own last handle on it is closed.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Deleted {
    /// Inode number.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// Where the objects lie.
    #[prost(message, optional, tag = "2")]
    pub layout: Option<Layout>,
    /// Token with `DELETE`. [`Renew`] works for it although the inode is gone.
    #[prost(bytes = "bytes", tag = "3")]
    pub capability: Bytes,
}

/// Reply of [`Unlink`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UnlinkReply {
    /// Inode number that the name stood for.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// Set if it was a file and is gone now.
    #[prost(message, optional, tag = "2")]
    pub deleted: Option<Deleted>,
}

/// Request of [`Symlink`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SymlinkRequest {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Inode number of the directory.
    #[prost(uint64, tag = "2")]
    pub parent: u64,
    /// Name within it.
    #[prost(bytes = "bytes", tag = "3")]
    pub name: Bytes,
    /// Where it points, 1 to [`SYMLINK_BYTES_MAX`] bytes without NUL.
    #[prost(bytes = "bytes", tag = "4")]
    pub target: Bytes,
}

/// Reply of [`Readlink`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ReadlinkReply {
    /// Where it points.
    #[prost(bytes = "bytes", tag = "1")]
    pub target: Bytes,
}

/// Bits of the `flags` of [`Rename`].
pub mod rename_flags {
    /// `EEXIST` if the target is there.
    pub const NOREPLACE: u32 = 1;
    /// Swap the two: not done, `ENOTSUP`.
    pub const EXCHANGE: u32 = 2;
}

/// Request of [`Rename`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RenameRequest {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Directory of the source.
    #[prost(uint64, tag = "2")]
    pub parent: u64,
    /// Name of the source.
    #[prost(bytes = "bytes", tag = "3")]
    pub name: Bytes,
    /// Directory of the target.
    #[prost(uint64, tag = "4")]
    pub new_parent: u64,
    /// Name of the target.
    #[prost(bytes = "bytes", tag = "5")]
    pub new_name: Bytes,
    /// See [`rename_flags`]; unknown ones are refused with `EINVAL`.
    #[prost(uint32, tag = "6")]
    pub flags: u32,
}

/// Reply of [`Rename`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RenameReply {
    /// Attributes of what was renamed; always set.
    #[prost(message, optional, tag = "1")]
    pub attr: Option<Attr>,
    /// Inode number that was overwritten; 0 if none.
    #[prost(uint64, tag = "2")]
    pub overwritten: u64,
    /// Set if a file was overwritten.
    #[prost(message, optional, tag = "3")]
    pub deleted: Option<Deleted>,
}

/// Request of [`Link`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LinkRequest {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Inode number to link to.
    #[prost(uint64, tag = "2")]
    pub inode: u64,
    /// Directory of the new name.
    #[prost(uint64, tag = "3")]
    pub parent: u64,
    /// The new name.
    #[prost(bytes = "bytes", tag = "4")]
    pub name: Bytes,
}

/// Request of [`Readdir`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ReaddirRequest {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Inode number of the directory.
    #[prost(uint64, tag = "2")]
    pub inode: u64,
    /// 0 from the start, else the cookie of the last entry seen.
    #[prost(uint64, tag = "3")]
    pub cookie: u64,
    /// Most entries wanted; capped at [`READDIR_ENTRIES_MAX`], 0 means that.
    #[prost(uint32, tag = "4")]
    pub limit: u32,
}

/// One directory entry.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Entry {
    /// Name.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// Place in the listing (larger than 0); stays good while other entries come and go.
    #[prost(uint64, tag = "2")]
    pub cookie: u64,
    /// Attributes; always set.
    #[prost(message, optional, tag = "3")]
    pub attr: Option<Attr>,
}

/// Reply of [`Readdir`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ReaddirReply {
    /// Entries, in order of their cookies.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<Entry>,
    /// There is nothing after these.
    #[prost(bool, tag = "2")]
    pub end: bool,
    /// Inode number of the directory above (of itself for the root).
    #[prost(uint64, tag = "3")]
    pub parent: u64,
}
