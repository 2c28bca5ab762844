//! The servers over in-memory streams, with a clock and tickets that the tests control.

// Clippy lets tests unwrap, but not their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod capabilities;
mod crash;
mod denials;
mod directory;
mod explain;
mod folders;
mod full_disk;
mod lasting;
mod names;
mod not_yet;
mod rename;
mod room;
mod stripes;
mod surroundings;
mod world;
