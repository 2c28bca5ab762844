//! Names: what `nss_xos` asks when the mapped file has no such entry.

use super::local_call;
use serde::{Deserialize, Serialize};

/// By what a user is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserKey {
    /// The local name.
    Name(String),
    /// The uid.
    Uid(u32),
}

/// A grid user that the mapped file does not have yet. Anybody may ask; only accounts of VOs that
/// this machine serves are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FindUser {
    /// By what.
    pub by: UserKey,
}
local_call!(FindUser => Option<FoundUser>, "find-user", root_only: false);

/// One user, as in `/etc/passwd`; see [`crate::accounts::User`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundUser {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// The person.
    pub gecos: String,
    /// Home folder, absolute.
    pub home: String,
    /// Login shell, absolute.
    pub shell: String,
}
