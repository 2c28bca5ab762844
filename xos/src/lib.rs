//! The tool `xos` and the daemon `xosd`.

pub mod cli;
pub mod daemon;
