//! The service as others use it: real keys, a registry in memory, a clock that the test moves, and
//! where it matters the real port with TLS.

// The helpers here are tests too, which the lints see only by their attribute.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod audit;
mod certificates;
mod claims;
mod credentials;
mod hosts;
mod logins;
mod machines;
mod mandates;
mod matrix;
mod node_passwords;
mod oidc;
mod passkeys;
mod people;
mod provider;
mod rolling;
mod sites;
mod speed;
mod withdrawn;
mod world;
