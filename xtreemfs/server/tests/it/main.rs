//! The servers over in-memory streams, with a clock and tickets that the tests control.

// Clippy lets tests unwrap, but not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

mod capabilities;
mod crash;
mod denials;
mod directory;
mod names;
mod rename;
mod stripes;
mod world;
