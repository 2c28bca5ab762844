//! The XtreemFS client: volumes as files and directories, for many people at once.
//!
//! A [`Client`] finds volumes by name; a [`Volume`] offers the POSIX operations by inode, each for
//! one [`Member`]; a [`File`] is what open gives. The client does not know how services are reached
//! or where tickets come from: the program it lives in supplies a [`Connector`] and [`Tickets`].

mod cache;
mod call;
mod client;
mod closings;
mod connect;
mod error;
mod file;
pub mod limits;
mod link;
mod mrc;
mod names;
mod retry;
mod seen;
mod shared;
mod types;
mod volume;

pub use client::{Client, Config, system_time_ns};
pub use connect::{Connector, Member, NoTicket, Peer, Stream, Ticket, Tickets};
pub use error::{Error, Result};
pub use file::File;
pub use types::{Attributes, Change, Entry, Ino, Kind, OpenMode, Page, SetTime, Statistics};
pub use volume::Volume;
