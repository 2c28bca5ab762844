//! The vocabulary of XOS: ids, membership and its one encoding, errors, configuration, the mapped
//! account file, and the node's local socket.
//!
//! This crate is linked into every process that looks up a name, so it has no async code, no TLS
//! and no I/O beyond the account file and the local socket.

pub mod accounts;
pub mod config;
pub mod error;
pub mod ids;
pub mod local;
pub mod local_name;
pub mod membership;
mod schema;
pub mod text;
pub mod when;

pub use error::{Error, Kind};
pub use ids::{
    ClusterId, Epoch, GroupName, GroupNumber, JobId, MemberNumber, NodeId, PersonId, ProviderId,
    RoleName, SiteId, UnitId, UnitIndex, VoId,
};
pub use local_name::LocalName;
pub use membership::{Group, Membership};
pub use when::Millis;
