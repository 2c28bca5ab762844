//! Clusters on this machine. Needs root, namespaces, FUSE and CRIU (`make deps-criu`); skipped with
//! a reason without.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod criu;
mod foreign;
#[path = "../shared/groups.rs"]
mod groups;
mod host;
mod namespace;
mod procfs;
#[path = "../shared/silent.rs"]
mod silent;
