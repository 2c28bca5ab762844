//! Messages that say why a person may use a file, or may not.

use bytes::Bytes;
use prost::Message;

use crate::mrc::Kind;
#[cfg(doc)]
use crate::mrc::*;

/// Most names in one [`Way`].
pub const WAY_NAMES_MAX: usize = 128;

/// The way to a file or folder, and what is to be done with it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Way {
    /// Names from the directory on that is asked at.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub names: Vec<Bytes>,
    /// Permissions that are wanted of the last: 4 read, 2 write, 1 execute or search.
    #[prost(uint32, tag = "2")]
    pub want: u32,
}

/// Request of [`Explain`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ExplainRequest {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// The directory in which the way begins.
    #[prost(uint64, tag = "2")]
    pub inode: u64,
    /// The way.
    #[prost(message, optional, tag = "3")]
    pub way: Option<Way>,
}

/// Reply of [`Explain`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ExplainReply {
    /// First where the way begins, then each name, up to the first that is refused.
    #[prost(message, repeated, tag = "1")]
    pub steps: Vec<ExplainStep>,
    /// OSDs that hold part of the file and are not known to be up.
    #[prost(string, repeated, tag = "2")]
    pub away: Vec<String>,
}

/// One file or folder on the way.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ExplainStep {
    /// A [`Kind`].
    #[prost(enumeration = "Kind", tag = "1")]
    pub kind: i32,
    /// Member number.
    #[prost(uint32, tag = "2")]
    pub owner: u32,
    /// Group number.
    #[prost(uint32, tag = "3")]
    pub group: u32,
    /// Permission bits.
    #[prost(uint32, tag = "4")]
    pub mode: u32,
    /// Its owner has closed it to all others.
    #[prost(bool, tag = "5")]
    pub closed: bool,
    /// Linux error number of the refusal; 0: it lets the person through.
    #[prost(int32, tag = "6")]
    pub errno: i32,
    /// Why it is refused.
    #[prost(string, tag = "7")]
    pub message: String,
}
