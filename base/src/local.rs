//! The node's local socket: what PAM, sshd and NSS ask the `xosd` of their machine.
//!
//! One connection carries one call. The caller sends a frame and reads one: a length (u32, little
//! endian, at most [`FRAME_MAX`]) and so many bytes of JSON, a [`Envelope`] there and a `Result` of
//! the call's answer or an [`Error`] back. Who hangs up before gives up a call that waits for a
//! person. Both ends look at who the other is (`SO_PEERCRED`): the
//! socket is root's, and what only root may ask, only root is told.

mod client;
mod login;
mod names;
mod proof;
#[allow(unsafe_code)]
mod sys;

pub use client::{LocalError, call, call_at, call_other_at};
pub use login::{
    Account, AuthBegin, AuthNext, AuthStep, CloseLogin, LoginState, MayLogin, OpenLogin, Opened,
    Principals, SEEN_DIR, Typed,
};
pub use names::{FindUser, FoundUser, UserKey};
pub use proof::{SshProofError, ssh_proof};

use crate::Error;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Where `xosd` of a node listens. Fixed: set-user-id programs ask there. Its folder is root's.
pub const SOCKET: &str = "/run/xos/node.sock";
/// Longest frame, in bytes: an SSH certificate with a large membership fits.
pub const FRAME_MAX: usize = 128 * 1024;

/// A call: the name it goes by, and what it answers.
pub trait LocalCall: Serialize + DeserializeOwned {
    /// What is answered.
    type Answer: Serialize + DeserializeOwned;
    /// Its name in [`Envelope::call`].
    const NAME: &'static str;
    /// Whether only root may ask.
    const ROOT_ONLY: bool;
}

/// A call on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope<T> {
    /// [`LocalCall::NAME`].
    pub call: String,
    /// The call itself.
    pub with: T,
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply<T> {
    /// The answer.
    Ok(T),
    /// Why there is none, with what to do next, for the person.
    Error(Error),
}

macro_rules! local_call {
    ($name:ident => $answer:ty, $text:literal, root_only: $root:literal) => {
        impl $crate::local::LocalCall for $name {
            type Answer = $answer;
            const NAME: &'static str = $text;
            const ROOT_ONLY: bool = $root;
        }
    };
}
use local_call;
