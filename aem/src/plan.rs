//! Which site, and which node, runs a unit. Pure: facts in, records out.

pub mod host;
pub mod owner;
pub mod pace;
pub mod room;
