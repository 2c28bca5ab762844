//! The one port: TLS, who may vouch for whom, [`Caller`], requests and replies, streams, and the
//! dial-back by which nodes without inbound ports are reached.

pub mod audit;
pub mod bodies;
pub mod caller;
pub mod client;
pub mod clusters;
pub mod control;
pub mod dial;
pub mod discover;
pub mod frames;
pub mod grid;
pub mod guard;
pub mod http;
pub mod identity;
pub mod key;
mod known;
pub mod nodes;
pub mod openapi;
mod pace;
pub mod path;
mod per_node;
pub mod places;
pub mod port;
mod refused;
pub mod router;
pub mod sign;
pub mod submission;
pub mod ticket;
pub mod tls;
pub mod trust;
mod unread;

pub use audit::Audit;
pub use caller::{Caller, Peer, Principal, Rules, Standing, TokenClaims, Verifier};
pub use client::{Client, Proof};
pub use clusters::{ClusterNames, Clusters};
pub use grid::Grid;
pub use identity::Identity;
pub use known::SshKeys;
pub use nodes::{NodeChange, Nodes};
pub use per_node::for_each_node;
pub use router::Router;
pub use tls::IdentityCell;
pub use trust::Trust;
