//! The mapped account file: how every process of a node learns the names of XOS.
//!
//! The node's `xosd` writes the whole file anew ([`AccountsBuilder`]) and renames it into place;
//! the NSS module in every process reads or maps it ([`AccountsFile`]) and searches it as it is
//! ([`AccountsView`]), without a daemon or a lock. Content is never trusted: every offset is
//! checked at its use, so that a damaged file gives an error, not a crash of `sshd`.

mod builder;
mod file;
mod layout;
#[allow(unsafe_code)]
mod sys;
mod view;

#[cfg(test)]
mod tests;

use std::{io, ops::RangeInclusive, path::PathBuf};

use thiserror::Error;

pub use builder::{AccountsBuilder, write_atomic};
pub use file::{AccountsFile, Mapped, Owner};
pub use view::{AccountsView, Gids, Group, Members};

/// Where the account file of a node lies. Fixed: set-user-id programs read it.
pub const DEFAULT_PATH: &str = "/var/lib/xos/node/accounts";
/// The uids and gids that XOS gives; systemd and distributions leave this range alone.
pub const ID_RANGE: RangeInclusive<u32> = 1_879_048_192..=2_147_352_575;
/// The id of XOS itself, the next after [`ID_RANGE`]: nobody's account. A process of root whose
/// supplementary groups are this one and a person's uid, and no other, acts for that person on
/// volumes, where root has no rights.
pub const OWN_ID: u32 = 2_147_352_576;
/// The longest name of a user or group, in bytes (utmp and many tools hold no more).
pub const NAME_BYTES_MAX: usize = 32;
/// The longest gecos, home or shell, in bytes.
pub const FIELD_BYTES_MAX: usize = 1024;
/// The most users, and the most groups, in one file.
pub const ENTRIES_MAX: usize = 4_000_000;
/// The most members of all groups together.
pub const MEMBERS_MAX: usize = 64_000_000;

/// One user, as in `/etc/passwd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User<'a> {
    /// Login name.
    pub name: &'a str,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// The person's full name or the like; may be empty.
    pub gecos: &'a str,
    /// Home folder, absolute.
    pub home: &'a str,
    /// Login shell, absolute.
    pub shell: &'a str,
}

/// Why an account file could not be built, written, opened or read.
#[derive(Debug, Error)]
pub enum AccountsError {
    /// The caller must give a name that libc's tools can hold.
    #[error("account name {name:?} cannot be used: {why}")]
    BadName {
        /// The name of a user or group.
        name: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// The caller must change a field of a user.
    #[error("{field} {value:?} of account {name} cannot be used: {why}")]
    BadField {
        /// The user.
        name: String,
        /// gecos, home or shell.
        field: &'static str,
        /// What it holds.
        value: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// The caller must use an id of [`ID_RANGE`].
    #[error("id {id} of account {name} is outside the range of XOS, {} to {}", ID_RANGE.start(), ID_RANGE.end())]
    OutOfRange {
        /// The user or group.
        name: String,
        /// Its uid or gid.
        id: u32,
    },
    /// Two users, or two groups, have one name.
    #[error("account name {name} is given twice")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Two users, or two groups, have one id.
    #[error("id {id} is given to both {name} and {other}")]
    DuplicateId {
        /// The uid or gid.
        id: u32,
        /// One holder.
        name: String,
        /// The other holder.
        other: String,
    },
    /// A group names a member that is no user of the file.
    #[error("group {group} has the member {member}, who is not among the users")]
    UnknownMember {
        /// The group.
        group: String,
        /// The member.
        member: String,
    },
    /// More than [`ENTRIES_MAX`] or [`MEMBERS_MAX`], or a file beyond 4 GiB.
    #[error("too many accounts for one file: {what}")]
    TooMany {
        /// What exceeds its limit.
        what: &'static str,
    },
    /// There is no account file: the node's `xosd` has not written one yet.
    #[error("no account file {}; start xosd on this node", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The file could be changed by somebody else than root, or is no plain file.
    #[error("account file {} is not used: {why}; it must be a plain file writable by root alone", path.display())]
    NotTrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The content is not what a builder wrote; `xosd` writes the file anew when it starts.
    #[error("account file is damaged ({0}); restart xosd on this node, which writes it anew")]
    Corrupt(&'static str),
    /// The system refused.
    #[error("account file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
