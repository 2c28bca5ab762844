//! One machine of a site: accounts, envelopes, shims, mounts.

pub mod cgroup;
pub mod event;
mod frame;
mod proto;
pub mod shim;
pub mod spec;
#[allow(unsafe_code)]
mod sys;
