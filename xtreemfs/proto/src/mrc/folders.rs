//! Messages about what an owner says of a folder: closed to all others, pinned to a site.

use bytes::Bytes;
use prost::Message;

use crate::mrc::Kind;
#[cfg(doc)]
use crate::mrc::*;

/// Most members, names and OSDs named in one [`FolderReply`], of each.
pub const FOLDER_NAMED_MAX: usize = 64;

/// Request of [`FolderSet`]: what is absent stays as it is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FolderSetRequest {
    /// Volume id.
    #[prost(string, tag = "1")]
    pub volume: String,
    /// Inode number of the folder.
    #[prost(uint64, tag = "2")]
    pub inode: u64,
    /// Whether it is closed to everybody but its owner.
    #[prost(bool, optional, tag = "3")]
    pub closed: Option<bool>,
    /// Where new files below it lie.
    #[prost(message, optional, tag = "4")]
    pub pin: Option<Pin>,
}

/// Where the content of new files lies.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Pin {
    /// The site; empty: anywhere, as far as no folder above says otherwise.
    #[prost(string, tag = "1")]
    pub site: String,
    /// At the owner's home site, whatever `site` says.
    #[prost(bool, tag = "2")]
    pub home: bool,
}

/// Reply of [`FolderShow`] and [`FolderSet`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FolderReply {
    /// A [`Kind`].
    #[prost(enumeration = "Kind", tag = "1")]
    pub kind: i32,
    /// Member number.
    #[prost(uint32, tag = "2")]
    pub owner: u32,
    /// The folder itself is closed.
    #[prost(bool, tag = "3")]
    pub closed: bool,
    /// A folder above it is closed.
    #[prost(bool, tag = "4")]
    pub closed_above: bool,
    /// The site that new files are pinned to; empty: none.
    #[prost(string, tag = "5")]
    pub pin: String,
    /// This folder says so, not one above it.
    #[prost(bool, tag = "6")]
    pub pinned_here: bool,
    /// OSDs that hold the file, or files below the folder.
    #[prost(string, repeated, tag = "7")]
    pub osds: Vec<String>,
    /// Files below it.
    #[prost(uint64, tag = "8")]
    pub files: u64,
    /// Files below it whose content lies, at least in part, outside the site they are pinned to.
    #[prost(uint64, tag = "9")]
    pub elsewhere: u64,
    /// The first of them, from the folder on.
    #[prost(bytes = "bytes", repeated, tag = "10")]
    pub elsewhere_names: Vec<Bytes>,
    /// Members other than the folder's owner who own something below it.
    #[prost(uint32, repeated, tag = "11")]
    pub others: Vec<u32>,
    /// All below it was looked at. Else there is more than one answer looks at, or something that
    /// the person may not list.
    #[prost(bool, tag = "12")]
    pub complete: bool,
    /// OSDs that have not confirmed yet that older capabilities count no more.
    #[prost(string, repeated, tag = "13")]
    pub unconfirmed: Vec<String>,
}
