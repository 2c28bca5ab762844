//! Cells and ghosts on this machine. Cells need root and namespaces; skipped with a reason without.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod cells;
mod ends;
mod ghosts;
#[path = "../shared/groups.rs"]
mod groups;
mod lease;
mod limits;
mod place;
#[allow(dead_code)] // part of it is for the tests of nodes
#[path = "../shared/silent.rs"]
mod silent;
