//! Object storage service: a file's bytes.
//!
//! Requests need no slot: each carries a capability token. Refusals: `EKEYEXPIRED` (renew the
//! capability at the MRC), `EKEYREVOKED` (the membership changed: authenticate and open anew),
//! `EACCES` (anything else that is wrong with it).
//!
//! Volume, file and layout are those of the capability. `object` must be one that this OSD holds
//! by that layout, else `EINVAL`. A range may run past the end of its object: it goes on with the
//! next object that *this* OSD holds (`object + width`), so one call can serve all extents of a
//! transfer that lie on one OSD.
//!
//! What is written lies in the memory of the OSD's machine until [`Fsync`], and is lost when that
//! loses power. [`Write`] and [`Fsync`] answer a *verifier* that changes whenever this may have
//! happened, as in NFSv3 (RFC 1813, 3.3.7 and 3.3.21): a client that sees another one than its
//! writes since the last good sync were answered with knows that some of them may be lost.

use bytes::Bytes;
use prost::Message;

use crate::rpc::{ConnectRequest, Empty, procedures};

procedures! { OSD;
    /// Opens the connection for requests that change something ([`Write`], [`Truncate`],
    /// [`Unlink`]); see [`ConnectRequest`].
    Connect = 104 (ConnectRequest) -> Empty;
    /// Reads; needs `READ`. The bytes are the data tail; fewer than asked for: the OSD holds no
    /// more (the client fills up with zeros to the file's size). Holes read as zeros.
    Read = 110 (ReadRequest) -> ReadReply;
    /// Writes the data tail; needs `WRITE`. `ENOSPC`: the disk is full, nothing beyond the range
    /// was touched. Durable only after [`Fsync`].
    Write = 111 (WriteRequest) -> WriteReply;
    /// Makes the truncations that the capability names ([`crate::Capability::owed`]), as every call
    /// does; needs `TRUNCATE`. To be sent to every OSD of the layout after a truncation. Durable
    /// when the reply arrives: else what was cut off could come back.
    Truncate = 116 (FileRequest) -> SizeReply;
    /// Deletes the objects on this OSD; needs `DELETE`. Success if there are none.
    Unlink = 113 (FileRequest) -> Empty;
    /// Size of the file as far as this OSD knows; needs `READ` or `WRITE`.
    Size = 114 (FileRequest) -> SizeReply;
    /// Makes all that was written before durable, if the verifier is still the same; needs `READ`
    /// or `WRITE`.
    Fsync = 115 (FileRequest) -> FsyncReply;
}

/// Request of [`Read`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ReadRequest {
    /// Token, see [`crate::capability`].
    #[prost(bytes = "bytes", tag = "1")]
    pub capability: Bytes,
    /// First object.
    #[prost(uint64, tag = "2")]
    pub object: u64,
    /// First byte within that object.
    #[prost(uint32, tag = "3")]
    pub offset: u32,
    /// Number of bytes, at most [`crate::record::DATA_BYTES_MAX`].
    #[prost(uint32, tag = "4")]
    pub length: u32,
}

/// Reply of [`Read`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ReadReply {}

/// Request of [`Write`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WriteRequest {
    /// Token, see [`crate::capability`].
    #[prost(bytes = "bytes", tag = "1")]
    pub capability: Bytes,
    /// First object.
    #[prost(uint64, tag = "2")]
    pub object: u64,
    /// First byte within that object.
    #[prost(uint32, tag = "3")]
    pub offset: u32,
}

/// Reply of [`Write`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct WriteReply {
    /// Newest truncate epoch this OSD has seen for the file. A hint only: an OSD may lie, and what
    /// a client does about a truncation elsewhere follows from the MRC's answers.
    #[prost(uint64, tag = "1")]
    pub truncate_epoch: u64,
    /// Under which verifier it was taken.
    #[prost(fixed64, tag = "2")]
    pub verifier: u64,
}

/// Reply of [`Fsync`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct FsyncReply {
    /// Under which verifier all is durable that was taken under the same one.
    #[prost(fixed64, tag = "1")]
    pub verifier: u64,
}

/// Request that names nothing but the file.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FileRequest {
    /// Token, see [`crate::capability`].
    #[prost(bytes = "bytes", tag = "1")]
    pub capability: Bytes,
}

/// A file's size as one OSD knows it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct SizeReply {
    /// End of the last byte that this OSD holds, as an offset in the file.
    #[prost(uint64, tag = "1")]
    pub size: u64,
}
