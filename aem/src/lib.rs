//! Application execution management: jobs and units.
//!
//! A core *owns* the jobs submitted to it and *hosts* units for any owner, itself included. Both
//! parts are pure machines ([`state`]) behind one journal ([`ledger`]); choosing sites and nodes
//! is pure as well ([`plan`]); what follows from a change is done afterwards, and again until it
//! is done.

mod accept;
mod cancel;
pub mod check;
mod clusters;
pub mod config;
mod core;
mod erased;
mod follow;
#[cfg(test)]
mod golden;
mod host;
pub mod jsdl;
mod keep;
pub mod ledger;
mod limits;
mod lost;
mod moves;
mod nodes;
mod ops;
pub mod order;
mod outline;
mod outputs;
mod owner;
pub mod plan;
mod policy;
mod service;
#[cfg(test)]
mod sim;
pub mod state;
#[cfg(test)]
mod testing;
mod told;
mod views;
mod watchers;
mod work;
pub mod world;

pub use config::Config;
pub use outline::{digest, outline};
pub use service::Aem;
