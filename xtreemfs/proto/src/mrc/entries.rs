//! Messages about directory entries: make, remove, rename, list.

use bytes::Bytes;
use prost::Message;

use crate::layout::Layout;
use crate::mrc::Attr;
#[cfg(doc)]
use crate::mrc::*;

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
