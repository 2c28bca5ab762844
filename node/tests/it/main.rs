//! Envelopes on this machine. Needs root, namespaces and cgroups; skipped with a reason without.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod basics;
mod life;
mod limits;
mod orders;
mod rest;
mod speed;
mod spool;
mod support;
mod warm;
