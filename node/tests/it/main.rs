//! Envelopes on this machine. Needs root, namespaces and cgroups; skipped with a reason without.

mod basics;
mod life;
mod limits;
mod speed;
mod support;
