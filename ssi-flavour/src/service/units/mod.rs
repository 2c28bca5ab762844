//! Units of jobs in a cluster, which the job service sees as one node: envelopes as a node has
//! them, each unit a tree.
//!
//! What is kept of a unit is written before its tree is, and that before a node hears of it: a unit
//! without a tree that the controller knows never ran.

mod leave;
mod program;
mod record;
mod serve;
mod start;
mod table;

pub(super) use leave::Asked;
pub use record::{Envelope, Left, Over, Stop, Unit, Why};
pub(super) use serve::offers;
pub(super) use table::{Happened, Units};
