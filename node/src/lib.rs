//! One machine of a site: accounts, envelopes, shims, mounts.

pub mod agent;
pub mod cgroup;
pub mod envelopes;
pub mod event;
pub mod home;
pub mod hosts;
pub mod output;
pub mod principals;
mod programs;
pub mod proto;
pub mod shim;
pub mod spec;
pub mod stage;
#[allow(unsafe_code)]
mod sys;
