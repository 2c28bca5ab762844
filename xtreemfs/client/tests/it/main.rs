//! Tests of the client over in-memory streams.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod content;
mod durable;
mod fresh;
mod late;
mod lost;
mod memory;
mod random;
mod real;
mod site;
mod toy;
