//! The service over real TLS between two sites; nodes, VO service and credential service are the
//! test's own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod effects;
mod hostile;
mod node;
mod one_site;
mod running;
mod told;
mod two_sites;
mod world;
