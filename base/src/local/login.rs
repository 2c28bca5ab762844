//! Logins: what `pam_xos` and sshd's `AuthorizedPrincipalsCommand` ask.

use super::local_call;
use crate::{Epoch, MemberNumber, Millis, PersonId, VoId};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroize;

/// Who was let in before, a file for each uid (named by it, decimal) with one number: until when
/// (milliseconds since 1970) the account may be let in while `xosd` does not answer. Written by
/// `xosd`, atomically: the end of the lease, of the membership, or of the credential used,
/// whichever comes first. Removed when the member is suspended or no more.
pub const SEEN_DIR: &str = "/var/lib/xos/node/seen";

/// A grid account of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Its local name.
    pub name: String,
    /// Its uid.
    pub uid: u32,
    /// Its primary gid.
    pub gid: u32,
    /// Its home, absolute.
    pub home: String,
    /// Whose it is.
    pub person: PersonId,
    /// In which VO.
    pub vo: VoId,
    /// The member's number.
    pub number: MemberNumber,
    /// What was signed under a smaller epoch is void.
    pub epoch: Epoch,
    /// When the membership ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Millis>,
}

/// May this account sign in here now? PAM's account phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MayLogin {
    /// The local name, as PAM has it.
    pub user: String,
    /// The PAM service: `sshd`, `login`, `su`, `sudo`, `cron`.
    pub service: String,
    /// From which host, as PAM has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rhost: Option<String>,
    /// At which terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<String>,
}
local_call!(MayLogin => LoginState, "may-login", root_only: true);

/// Where an account stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LoginState {
    /// No grid account: others decide.
    NotOurs {},
    /// It may.
    Allowed {},
    /// The membership has ended, by its term or because it was taken.
    Ended {
        /// For the person.
        text: String,
    },
    /// Held: the member, the VO, or the site's trust in it is suspended, or the lease has ended.
    Held {
        /// For the person.
        text: String,
    },
    /// A rule of the machine, the site or the VO refuses it.
    Denied {
        /// For the person.
        text: String,
    },
}

/// A session begins: PAM's session phase, called by the process that becomes the session's leader.
///
/// Refused as Denied when the certificate is not this account's or was narrowed away; Unavailable
/// when the machine cannot hold the session (no control group, no home).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenLogin {
    /// The local name.
    pub user: String,
    /// The PAM service.
    pub service: String,
    /// From which host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rhost: Option<String>,
    /// At which terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<String>,
    /// The calling process: it is put into the session's control group.
    pub pid: u32,
    /// What sshd left in `SSH_AUTH_INFO_0`; refused as Denied when it does not count
    /// ([`super::ssh_proof`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_auth_info: Option<String>,
}
local_call!(OpenLogin => Opened, "open-login", root_only: true);

/// A session that was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opened {
    /// Its name, for [`CloseLogin`].
    pub session: String,
    /// Variables for its environment.
    pub environment: Vec<(String, String)>,
    /// What the session's keyring entry `xos:membership` holds: the person, the VO, the roles,
    /// JSON.
    pub keyring: String,
    /// What to tell the person: why the volume is not theirs here, when the membership ends.
    pub notes: Vec<String>,
}

/// A session ends: PAM closes it. What still runs of it is ended after a while, as the site says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloseLogin {
    /// The session's name.
    pub session: String,
}
local_call!(CloseLogin => (), "close-login", root_only: true);

/// The principals under which a certificate may sign in as `user`: sshd's
/// `AuthorizedPrincipalsCommand` with `%u %k %K %U`. Empty when the account is none of the grid's,
/// has another uid, or the authority is not that of the account's VO's home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principals {
    /// The local name that somebody wants to sign in as.
    pub user: String,
    /// The uid that sshd found by that name, and will give the session (`%U`): a name can pass to
    /// somebody else while a connection is open.
    pub uid: u32,
    /// The certificate, base64 (`%k`).
    pub certificate: String,
    /// The key of the authority that signed it, base64 (`%K`).
    pub authority: String,
}
local_call!(Principals => Vec<String>, "principals", root_only: false);

/// Begins to prove who somebody is, without a key: PAM's auth phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthBegin {
    /// The local name.
    pub user: String,
    /// The PAM service.
    pub service: String,
    /// From which host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rhost: Option<String>,
    /// The real uid of the process that asks: who uses `sudo` or `su`. It is the word of root's own
    /// program; the kernel tells the socket's other end root's uid alone.
    pub uid: u32,
}
local_call!(AuthBegin => AuthStep, "auth-begin", root_only: true);

/// Goes on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthNext {
    /// As [`AuthStep`] named it.
    pub attempt: String,
    /// What the person typed, when they were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Typed>,
    /// Whether they typed it for another module of PAM, so that they are asked if it is wrong.
    #[serde(default)]
    pub reused: bool,
}
local_call!(AuthNext => AuthStep, "auth-next", root_only: true);

/// What a person typed, perhaps a password: wiped when it is dropped, and not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Typed(pub String);

impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Typed(..)")
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum AuthStep {
    /// No grid account, or one that is not let in so: other modules decide.
    NotOurs {},
    /// Show the texts, then ask.
    Ask {
        /// Names the attempt.
        attempt: String,
        /// Each at most 500 bytes: PAM's messages hold 512.
        texts: Vec<String>,
        /// The question.
        prompt: String,
        /// Whether what is typed shows.
        echo: bool,
        /// Whether it is for the password: one that an earlier module asked for answers it too.
        #[serde(default)]
        password: bool,
    },
    /// Show the texts, and call again at once: the call waits until something happened.
    Wait {
        /// Names the attempt.
        attempt: String,
        /// As above.
        texts: Vec<String>,
    },
    /// The person proved to be the account's.
    Proved {},
    /// They did not.
    Refused {
        /// For the person.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a password would stand in a log that shows a call.
    #[test]
    fn what_was_typed_does_not_show_in_debug_output() {
        let text = r#"{"attempt":"7","answer":"correct horse"}"#;
        let next: AuthNext = serde_json::from_str(text).unwrap();
        assert_eq!(next.answer.as_ref().map(|t| t.0.as_str()), Some("correct horse"));
        assert!(!next.reused && !format!("{next:?}").contains("horse"));
    }
}
