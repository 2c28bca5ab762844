//! The XtreemFS wire protocol: record framing and messages.
//!
//! A stream carries records: a 12-byte marker, an [`rpc::RpcHeader`], a message and a raw data tail
//! ([`record`]). The framing and the header are those of the original XtreemFS 1.6; the procedures
//! in [`dir`], [`mrc`] and [`osd`] are our own, inode-based ones, with ids from
//! 100 on. Ids below belong to the classic, path-based procedures.
//!
//! [`channel::Channel`] is the calling side of a stream, [`serve::serve`] the answering side. Both
//! take any stream that tokio can read and write, so that TLS and tunnels stay outside.

pub mod capability;
pub mod channel;
pub mod control;
pub mod dir;
pub mod layout;
pub mod mrc;
pub mod osd;
pub mod record;
pub mod rpc;
pub mod serve;

pub use capability::{Access, Capability};
pub use channel::{CallError, Channel};
pub use layout::Layout;
pub use rpc::{Errno, Procedure, RpcError};
pub use serve::{Handler, Incoming, Outgoing, Room};
