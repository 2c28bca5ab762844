//! The mount with the kernel's FUSE, the real servers behind it. Needs root and /dev/fuse; without
//! them every test says so and is skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod data;
mod folders;
#[path = "../../../client/tests/it/memory.rs"]
mod memory;
mod names;
mod refusals;
mod rights;
#[allow(dead_code)]
#[path = "../../../client/tests/it/site.rs"]
mod site;
mod world;
