//! The module inside libpam: real `pamtester` in a private mount namespace, so that nothing on the
//! machine is touched, against an `xosd` that each test plays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod account;
mod auth;
mod linked;
mod machine;
#[path = "../../../nss-xos/tests/it/module.rs"]
mod module;
#[path = "../../../nss-xos/tests/it/namespace.rs"]
mod namespace;
mod session;
mod xosd;
