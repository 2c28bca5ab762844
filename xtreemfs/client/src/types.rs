//! The client's view of files: what its operations take and give.

use std::fmt;

use bytes::Bytes;

/// Number of a file, directory or link within its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
}

/// Attributes of an inode. Times are nanoseconds since 1970, negative before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Its number.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Number of names.
    pub links: u32,
    /// Owner's member number.
    pub owner: u32,
    /// Owning group's number.
    pub group: u32,
    /// Bytes.
    pub size: u64,
    /// Last access.
    pub accessed_ns: i64,
    /// Last change of the content.
    pub modified_ns: i64,
    /// Last change of content or attributes.
    pub changed_ns: i64,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// The service's present time.
    Now,
    /// Nanoseconds since 1970.
    At(i64),
}

/// Attributes to change; `None` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Permission bits (`0o7777`).
    pub mode: Option<u32>,
    /// Owner's member number.
    pub owner: Option<u32>,
    /// Owning group's number.
    pub group: Option<u32>,
    /// Bytes; shortens or lengthens the file.
    pub size: Option<u64>,
    /// Last access.
    pub accessed: Option<SetTime>,
    /// Last change of the content.
    pub modified: Option<SetTime>,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenMode {
    /// Its content will be read.
    pub read: bool,
    /// Its content will be written.
    pub write: bool,
    /// It will be executed: needs the right to execute besides the right to read.
    pub execute: bool,
    /// It is cut to nothing by the open.
    pub truncate: bool,
    /// Writes go to its end, wherever they are aimed.
    pub append: bool,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name: any bytes but `/` and zero.
    pub name: Bytes,
    /// Its inode.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// Where a listing that stops after this entry goes on.
    pub cookie: u64,
}

/// Part of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The directory above; the directory itself for the root.
    pub parent: Ino,
    /// Entries in the order of their cookies.
    pub entries: Vec<Entry>,
    /// Nothing follows.
    pub last: bool,
}

/// Space and files of a volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// All space, in bytes.
    pub total_bytes: u64,
    /// Space that may still be written, in bytes.
    pub free_bytes: u64,
    /// Inodes in use.
    pub files: u64,
}
