//! Clusters: nodes of a site that work as one machine.
//!
//! Each node of a cluster has a *cell*, a pid namespace whose numbers are the node's own, so that a
//! pid means one process in the whole cluster. A program and what it started, a *tree*, runs in one
//! cell at a time and moves between cells as a whole, by CRIU.

pub mod cell;
pub mod cluster;
mod disk;
pub mod driver;
pub mod ghost;
pub mod host;
pub mod pids;
pub mod procfs;
pub mod service;
#[allow(unsafe_code)]
mod sys;
pub mod wire;
