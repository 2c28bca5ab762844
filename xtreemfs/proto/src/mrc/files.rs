//! Messages about open files: create, open, sizes, capabilities.

use bytes::Bytes;
use prost::Message;

use crate::layout::Layout;
use crate::mrc::Attr;
#[cfg(doc)]
use crate::mrc::*;

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
