//! The PAM module: whether a grid account may sign in here, its session, and the proof of who
//! somebody is without a key.
//!
//! Loaded by sshd, login, su, sudo and cron. It decides nothing by itself: it asks the `xosd` of
//! its machine at the local socket, one blocking call with a limit each, and translates. So no
//! thread, no runtime and no TLS come into the host process, and no panic leaves the module.
//! Installed as `pam_xos.so`; `pam.d.example` shows its lines.
//!
//! Arguments: `debug`, `timeout_ms=N`, `socket=PATH`, `seen=DIR` ([`arguments`]). A password that a
//! module before this one asked for is tried first, as pam_unix does with `try_first_pass`, and one
//! that was right is left to the modules after it.

mod account;
mod arguments;
mod auth;
mod call;
mod codes;
#[allow(unsafe_code)]
mod ffi;
#[doc(hidden)]
pub mod fuzzing;
mod password;
mod seen;
mod session;
mod texts;
