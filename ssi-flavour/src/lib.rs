//! Clusters: nodes of a site that work as one machine.
//!
//! Each node of a cluster has a *cell*, a pid namespace whose numbers are the node's own, so that a
//! pid means one process in the whole cluster. A program and what it started, a *tree*, runs in one
//! cell at a time and moves between cells as a whole, by CRIU.
//!
//! A node's shims are made of the same parts as cells: [`frame`], [`peer`], [`procs`], [`program`]
//! and [`sys`]; its envelopes have control groups as trees have ([`cgroup`]).

pub mod alone;
pub mod cell;
pub mod cgroup;
pub mod cluster;
mod disk;
pub mod driver;
pub mod frame;
pub mod ghost;
pub mod given;
pub mod host;
pub mod overlay;
pub mod peer;
pub mod pids;
pub mod procfs;
pub mod procs;
pub mod program;
pub mod seat;
pub mod service;
#[allow(unsafe_code)]
pub mod sys;
pub mod wire;
