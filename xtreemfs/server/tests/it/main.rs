//! The servers over in-memory streams, with a clock and tickets that the tests control.

mod capabilities;
mod crash;
mod denials;
mod names;
mod rename;
mod stripes;
mod world;
