//! Engines that live in this process.

pub(crate) mod memory;
pub(crate) mod redb;
