//! Keys and values of the index.
//!
//! | key | value |
//! | --- | --- |
//! | `0 0 0 0 'V'` volume id | [`VolumeRecord`] |
//! | `0 0 0 0 '#'` | last volume number (`u32`) |
//! | `0 0 0 0 'S'` | number of the server's next start (`u64`) |
//! | volume `'#'` | [`Counters`] |
//! | volume `'I'` inode | [`InodeRecord`] |
//! | volume `'N'` directory, name | inode |
//! | volume `'D'` directory, inode | name |
//! | volume `'L'` inode | target of a symbolic link |
//!
//! Numbers are big endian: volume 4 bytes, inodes 8. An inode has one name, so that directory and
//! inode together name an entry; the inode number serves as cookie of a listing.

use prost::Message;
use xtreemfs_proto::Layout;
use xtreemfs_proto::capability::Cut;
use xtreemfs_proto::mrc::{Attr, Kind};

/// A volume.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VolumeRecord {
    /// Number that its keys start with; never reused.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// Volume id.
    #[prost(string, tag = "2")]
    pub id: String,
    /// Name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// VO that it belongs to.
    #[prost(string, tag = "4")]
    pub vo: String,
    /// Bytes of one object in new files.
    #[prost(uint32, tag = "5")]
    pub stripe_size: u32,
    /// Most OSDs of a new file.
    #[prost(uint32, tag = "6")]
    pub width: u32,
    /// Only these OSDs; empty for all.
    #[prost(string, repeated, tag = "7")]
    pub osds: Vec<String>,
    /// Capabilities with a lesser one count no more; see [`crate::mrc::folders`].
    #[prost(uint64, tag = "8")]
    pub barrier: u64,
}

/// What a volume counts.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Counters {
    /// Inodes in use.
    #[prost(uint64, tag = "1")]
    pub inodes: u64,
}

/// An inode.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct InodeRecord {
    /// A [`Kind`].
    #[prost(enumeration = "Kind", tag = "1")]
    pub kind: i32,
    /// Permission bits.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Member number.
    #[prost(uint32, tag = "3")]
    pub owner: u32,
    /// Group number.
    #[prost(uint32, tag = "4")]
    pub group: u32,
    /// Bytes of a file or link target, entries of a directory.
    #[prost(uint64, tag = "5")]
    pub size: u64,
    /// Last access.
    #[prost(sfixed64, tag = "6")]
    pub atime_ns: i64,
    /// Last change of content.
    #[prost(sfixed64, tag = "7")]
    pub mtime_ns: i64,
    /// Last change of attributes.
    #[prost(sfixed64, tag = "8")]
    pub ctime_ns: i64,
    /// Directory above; the root's is itself.
    #[prost(uint64, tag = "9")]
    pub parent: u64,
    /// Number of the newest truncation.
    #[prost(uint64, tag = "10")]
    pub truncate_epoch: u64,
    /// Directories in this directory.
    #[prost(uint64, tag = "11")]
    pub subdirs: u64,
    /// Where a file's objects lie.
    #[prost(message, optional, tag = "12")]
    pub layout: Option<Layout>,
    /// Truncations that some OSD may not have made, oldest first, each to more than those before.
    #[prost(message, repeated, tag = "13")]
    pub owed: Vec<Cut>,
    /// Of a directory: the site at which new files below it lie; empty: it says nothing.
    #[prost(string, tag = "14")]
    pub pin: String,
    /// Of a directory: nobody but its owner gets to what is below it.
    #[prost(bool, tag = "15")]
    pub closed: bool,
}

impl InodeRecord {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == i32::from(Kind::Directory)
    }

    /// Whether it is a file.
    pub fn is_file(&self) -> bool {
        self.kind == i32::from(Kind::File)
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind == i32::from(Kind::Symlink)
    }

    /// Its attributes as they travel.
    pub fn attr(&self, inode: u64) -> Attr {
        let nlink = if self.is_dir() { self.subdirs.saturating_add(2) } else { 1 };
        Attr {
            inode,
            kind: self.kind,
            mode: self.mode,
            nlink: u32::try_from(nlink).unwrap_or(u32::MAX),
            owner: self.owner,
            group: self.group,
            size: self.size,
            atime_ns: self.atime_ns,
            mtime_ns: self.mtime_ns,
            ctime_ns: self.ctime_ns,
            truncate_epoch: self.truncate_epoch,
        }
    }
}

/// Key of a volume's record.
pub fn volume_key(id: &str) -> Vec<u8> {
    [&b"\0\0\0\0V"[..], id.as_bytes()].concat()
}

/// Start of all volume records' keys.
pub const VOLUMES: &[u8] = b"\0\0\0\0V";
/// Key of the last volume number.
pub const LAST_VOLUME: &[u8] = b"\0\0\0\0#";
/// Key of the number of starts.
pub const STARTS: &[u8] = b"\0\0\0\0S";

/// Start of all keys of a volume.
pub fn volume_prefix(volume: u32) -> Vec<u8> {
    volume.to_be_bytes().to_vec()
}

/// Key of a volume's counters.
pub fn counters_key(volume: u32) -> Vec<u8> {
    key(volume, b'#', &[])
}

/// Key of an inode.
pub fn inode_key(volume: u32, inode: u64) -> Vec<u8> {
    key(volume, b'I', &[&inode.to_be_bytes()])
}

/// Key of a name.
pub fn name_key(volume: u32, dir: u64, name: &[u8]) -> Vec<u8> {
    key(volume, b'N', &[&dir.to_be_bytes(), name])
}

/// Key of a directory entry by inode.
pub fn entry_key(volume: u32, dir: u64, inode: u64) -> Vec<u8> {
    key(volume, b'D', &[&dir.to_be_bytes(), &inode.to_be_bytes()])
}

/// Start of the keys of a directory's entries.
pub fn entries_prefix(volume: u32, dir: u64) -> Vec<u8> {
    key(volume, b'D', &[&dir.to_be_bytes()])
}

/// Key of a symbolic link's target.
pub fn target_key(volume: u32, inode: u64) -> Vec<u8> {
    key(volume, b'L', &[&inode.to_be_bytes()])
}

fn key(volume: u32, tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = 5 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut key = Vec::with_capacity(length);
    key.extend_from_slice(&volume.to_be_bytes());
    key.push(tag);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// Inode number at the end of an entry's key or in a name's value.
pub fn inode_at_end(bytes: &[u8]) -> Option<u64> {
    bytes.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}
