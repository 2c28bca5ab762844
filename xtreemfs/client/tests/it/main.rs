//! Tests of the client over in-memory streams.

mod content;
mod lost;
mod memory;
mod real;
mod site;
mod toy;
