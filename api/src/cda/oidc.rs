//! Sign-in by OpenID Connect providers, and the accounts there that are linked to a person.
//!
//! A sign-in is a *flow*: begun at the core, proved by the person at the provider, finished at the
//! core. The core keeps what belongs to it (state, nonce, PKCE verifier); who began it holds a
//! secret that names it. Two ways: by a browser that the provider sends back (OpenID Connect Core,
//! authorization code with PKCE, RFC 7636; RFC 8252 for programs), or by another device (RFC 8628).

use super::SignedIn;
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use xos_base::{Millis, ProviderId, SiteId};

/// How old a sign-in may be for changing what one signs in by, in seconds.
pub const LINK_AGE_MAX_S: u64 = 5 * 60;

/// Where a provider sends the browser back to, at the console or at a program's own listener. Each
/// provider has its own, so that what one sends is never taken for another's (RFC 9700, 2.1).
pub fn callback_path(provider: &ProviderId) -> String {
    format!("/sign-in/callback/{provider}")
}

macro_rules! hidden {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}
pub(super) use hidden;

hidden!(
    /// Names a flow: a secret of whoever began it. Its `Debug` shows nothing.
    Flow
);
hidden!(
    /// What a provider sent back by the browser. Its `Debug` shows nothing.
    Code
);

/// A provider by which people may sign in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignInProvider {
    /// Its id.
    pub id: ProviderId,
    /// What people call it.
    pub title: String,
}

/// Begins to sign in, or to link an account, by a browser. Needs no proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginSignIn {
    /// The provider.
    pub provider: ProviderId,
    /// Where the provider sends the browser back to: [`callback_path`] at this core's console
    /// (`https`), or at `http://127.0.0.1:<port>` where a program listens.
    pub redirect: String,
}
request!(BeginSignIn => BegunSignIn, Post "/v1/sign-in/begin");

/// The answer to [`BeginSignIn`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BegunSignIn {
    /// Where the browser goes.
    pub authorize_url: String,
    /// The flow.
    pub flow: Flow,
    /// When it is too late to finish.
    pub expires: Millis,
}

/// What the provider sent back by the browser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Whose [`callback_path`] the browser came to.
    pub provider: ProviderId,
    /// `state`.
    pub state: Code,
    /// `code`.
    pub code: Code,
    /// `iss` (RFC 9207), when the provider sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
}

/// Finishes a sign-in by a browser. A flow is finished once, well or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishSignIn {
    /// The flow.
    pub flow: Flow,
    /// What came back.
    pub answer: Answer,
    /// As [`super::SignIn::audience`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<SiteId>,
    /// As [`super::SignIn::memberships`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memberships: bool,
}
request!(FinishSignIn => SignedIn, Post "/v1/sign-in/finish");

/// Begins to sign in, or to link an account, by another device. Needs no proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginDevice {
    /// The provider.
    pub provider: ProviderId,
}
request!(BeginDevice => BegunDevice, Post "/v1/sign-in/device");

/// The answer to [`BeginDevice`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BegunDevice {
    /// The flow.
    pub flow: Flow,
    /// Where the person goes, on any device.
    pub verification_uri: String,
    /// The same with the code in it, for a QR code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification_uri_complete: Option<String>,
    /// What the person types there.
    pub user_code: String,
    /// How long to wait before each [`PollDevice`], in seconds.
    pub interval_s: u64,
    /// When it is too late to finish.
    pub expires: Millis,
}

/// Asks whether the person is through. Asked too early, the core answers without asking the
/// provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PollDevice {
    /// The flow.
    pub flow: Flow,
    /// As [`super::SignIn::audience`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<SiteId>,
    /// As [`super::SignIn::memberships`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memberships: bool,
}
request!(PollDevice => DevicePoll, Post "/v1/sign-in/device/poll");

/// The answer to [`PollDevice`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DevicePoll {
    /// Absent: not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_in: Option<SignedIn>,
    /// How long to wait before asking again, in seconds.
    pub interval_s: u64,
}

/// An account at a provider that is linked to a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The provider.
    pub provider: ProviderId,
    /// Names the account here: a hash of the provider's own id for it.
    pub key: String,
    /// What the provider called the account when it was linked.
    pub name: String,
    /// Since when it is linked.
    pub since: Millis,
}

/// Links an account at a provider to the caller. Both are proved in one go: the caller signed in at
/// most [`LINK_AGE_MAX_S`] ago, and the account by a flow. Mail addresses never count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkIdentity {
    /// The flow, of [`BeginSignIn`] or [`BeginDevice`].
    pub flow: Flow,
    /// What came back by the browser; absent for a flow of [`BeginDevice`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}
request!(LinkIdentity => LinkPoll, Post "/v1/identities");

/// The answer to [`LinkIdentity`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkPoll {
    /// Absent: not yet, as for [`DevicePoll`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// How long to wait before asking again, in seconds.
    pub interval_s: u64,
}

/// Lists what the caller may sign in by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListIdentities {}
request!(ListIdentities => Identities, Get "/v1/identities");

/// What a person may sign in by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identities {
    /// They have a password, and this site takes passwords.
    pub password: bool,
    /// Accounts that are linked, in the order of linking.
    pub identities: Vec<Identity>,
}

/// Takes a link away from the caller, who signed in at most [`LINK_AGE_MAX_S`] ago. The last way to
/// sign in stays. Sessions from before end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnlinkIdentity {
    /// The provider.
    pub provider: ProviderId,
    /// [`Identity::key`].
    pub key: String,
}
request!(UnlinkIdentity => Done, Delete "/v1/identities/{provider}/{key}");

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, who reads a log could finish somebody else's sign-in.
    #[test]
    fn secrets_of_a_flow_do_not_show_in_debug_output() {
        let answer = Answer {
            provider: "uni".parse().unwrap(),
            state: Code("the-state".into()),
            code: Code("the-code".into()),
            iss: None,
        };
        let request = LinkIdentity { flow: Flow("the-flow".into()), answer: Some(answer) };
        let shown = format!("{request:?}");
        assert!(!shown.contains("the-"), "{shown}");
    }
}
