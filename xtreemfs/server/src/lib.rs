//! The XtreemFS servers: DIR, MRC, OSD.
//!
//! Each server is an ordinary value. The embedding accepts streams (TLS, tunnels), learns who the
//! peer is, asks the server for a `connection` and hands both to [`xtreemfs_proto::serve`].
//! What the servers must be told by their surroundings enters through traits: who a ticket speaks
//! for ([`Authenticator`]), which membership epochs still count ([`Epochs`]), which OSDs serve a
//! volume ([`mrc::OsdChoice`]), which key signs a volume's capabilities ([`osd::VolumeTrust`]),
//! what a peer may register ([`dir::DirPolicy`]), and the time ([`Clock`]).

pub mod budget;
pub mod cache;
pub mod dir;
pub mod fence;
pub mod identity;
pub mod ids;
pub mod mrc;
pub mod osd;
pub mod slots;
pub mod time;
pub mod token;

pub use budget::{Budget, Share};
pub use identity::{AuthError, Authenticator, Epochs, Identity, NO_MEMBER, Peer, Role};
pub use ids::{VoName, VolumeId};
pub use time::{Clock, SystemClock};
pub use token::{PublicKey, Signer};
