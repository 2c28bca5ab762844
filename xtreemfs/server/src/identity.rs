//! Who calls: the machine at the other end of the stream, and the person it acts for.

use std::sync::Arc;

use async_trait::async_trait;

/// What the peer's machine certificate allows it to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs XtreemFS services: may register OSDs and volumes, as far as the policy agrees.
    Service,
    /// Acts for people only.
    Client,
}

/// The machine at the other end, as the embedding verified it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its id, the same at MRC and OSD: capabilities are bound to it.
    pub id: String,
    /// What it proved to hold: names the key that tickets are bound to.
    pub key: String,
    /// What it may be.
    pub role: Role,
}

/// The person (one membership in one VO) that a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// VO that the numbers belong to.
    pub vo: Arc<str>,
    /// Member number.
    pub member: u32,
    /// Group numbers, the primary one first.
    pub groups: Vec<u32>,
    /// Superuser, but only inside the VO's volumes.
    pub admin: bool,
    /// Epoch of the membership.
    pub epoch: u64,
    /// When the ticket lapses, milliseconds since 1970.
    pub expires_ms: u64,
}

/// Owner of what belongs to nobody: no person ever has this member number.
pub const NO_MEMBER: u32 = u32::MAX;

/// Group of new files of a person without any group.
pub const NO_GROUP: u32 = u32::MAX;

impl Identity {
    /// Group that new files get.
    pub fn primary_group(&self) -> u32 {
        self.groups.first().copied().unwrap_or(NO_GROUP)
    }

    /// Whether the person belongs to `group`.
    pub fn in_group(&self, group: u32) -> bool {
        self.groups.contains(&group)
    }
}

/// Why a ticket gave no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The ticket does not count (here): the person needs another one.
    #[error("ticket refused: {0}")]
    Refused(String),
    /// It cannot be checked now: the client should try again.
    #[error("ticket cannot be checked now: {0}")]
    Unavailable(String),
}

/// Knows what a ticket means.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Checks a ticket that `peer` presents: its signature, expiry, that it was made for this
    /// peer and its key, and its epoch.
    async fn authenticate(&self, ticket: &[u8], peer: &Peer) -> Result<Identity, AuthError>;
}

/// Knows the least valid epoch of each membership.
pub trait Epochs: Send + Sync + 'static {
    /// Credentials of an older epoch no longer count; `None`: none count (the member or the VO is
    /// not, or no longer, known here). Asked on every request: must answer from memory.
    fn least_valid(&self, vo: &str, member: u32) -> Option<u64>;

    /// Whether it was heard that a membership is over for good: no news brings it back, so nobody
    /// has to wait for any. Asked where [`Epochs::least_valid`] knows none; `false` where that may
    /// only not have been heard yet.
    fn has_left(&self, _vo: &str, _member: u32) -> bool {
        false
    }

    /// Whether a credential of `epoch` still counts.
    fn is_valid(&self, vo: &str, member: u32, epoch: u64) -> bool {
        self.least_valid(vo, member).is_some_and(|least| epoch >= least)
    }
}
