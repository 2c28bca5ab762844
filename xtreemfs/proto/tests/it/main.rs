//! The wire protocol from outside: bytes, hostile bytes, and calls over a stream.

// Clippy lets tests unwrap, but not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

mod calls;
mod mutated;
mod records;
mod room;
