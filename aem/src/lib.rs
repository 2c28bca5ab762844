//! Application execution management: jobs and units.

pub mod check;
pub mod config;
#[cfg(test)]
mod golden;
pub mod ledger;
pub mod plan;
pub mod policy;
pub mod state;
#[cfg(test)]
mod testing;
pub mod world;
