//! Passkeys (WebAuthn): keys that a person's device keeps and that work at this site's console
//! only.
//!
//! A passkey signs in alone, or is the second step after a password or a provider. What the core
//! and the browser tell one another by way of the console is the JSON of WebAuthn (W3C, level 2),
//! carried here as it is. The core keeps what belongs to each exchange under a [`Flow`].

use super::{Answer, Flow, KerberosToken, Password, SignedIn};
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use xos_base::{Millis, SiteId};

/// Most passkeys of one person.
pub const PASSKEYS_MAX: usize = 16;
/// Longest name of a passkey, in characters.
pub const PASSKEY_NAME_MAX: usize = 60;

/// What WebAuthn exchanges. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct WebAuthn(pub serde_json::Value);

impl fmt::Debug for WebAuthn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebAuthn(..)")
    }
}

/// A text that is good for one use: 20 of 0-9 and a-z without i, l, o, u, with hyphens between. Its
/// `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct OneTimeCode(pub String);

impl fmt::Debug for OneTimeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneTimeCode(..)")
    }
}

/// What the browser is to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ceremony {
    /// The flow.
    pub flow: Flow,
    /// The `publicKey` options of `navigator.credentials.create()` or `get()`; binary parts in
    /// base64url.
    pub options: WebAuthn,
    /// When it is too late to finish.
    pub expires: Millis,
}

/// A passkey of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Passkey {
    /// Names it here: a hash of the id that its device gave it.
    pub key: String,
    /// What the person calls it.
    pub name: String,
    /// Since when it is known.
    pub created: Millis,
    /// When it was used last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Millis>,
}

/// Begins to add a passkey to the caller, who signed in at most [`super::LINK_AGE_MAX_S`] ago.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginPasskey {}
request!(BeginPasskey => Ceremony, Post "/v1/passkeys/begin");

/// Adds the passkey. A flow is finished once, by who began it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishPasskey {
    /// The flow.
    pub flow: Flow,
    /// What the person calls it, 1 to [`PASSKEY_NAME_MAX`] characters.
    pub name: String,
    /// What the browser answered.
    pub credential: WebAuthn,
}
request!(FinishPasskey => Passkey, Post "/v1/passkeys");

/// Lists the caller's passkeys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListPasskeys {}
request!(ListPasskeys => PasskeyList, Get "/v1/passkeys");

/// A person's passkeys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PasskeyList {
    /// In the order of adding.
    pub passkeys: Vec<Passkey>,
    /// The person wants to be asked for one after each other way to sign in.
    pub second_factor: bool,
    /// The site wants it, of everybody.
    pub required: bool,
}

/// Removes a passkey of the caller, who signed in at most [`super::LINK_AGE_MAX_S`] ago. The last
/// way to sign in stays, and while a second step is wanted the last passkey. Sessions from before
/// end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemovePasskey {
    /// [`Passkey::key`].
    pub key: String,
}
request!(RemovePasskey => Done, Delete "/v1/passkeys/{key}");

/// Whether the caller, who signed in at most [`super::LINK_AGE_MAX_S`] ago, is asked for a passkey
/// after each other way to sign in. Sessions from before end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSecondFactor {
    /// Asked for; needs a passkey.
    pub on: bool,
}
request!(SetSecondFactor => Done, Put "/v1/second-factor");

/// Begins to sign in by a passkey alone, without a name. Needs no proof.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginPasskeySignIn {}
request!(BeginPasskeySignIn => Ceremony, Post "/v1/sign-in/passkey");

/// Finishes a sign-in by a passkey, alone or as the second step. A flow is finished once, well or
/// not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishPasskeySignIn {
    /// The flow, of [`BeginPasskeySignIn`] or [`Stepped::Prove`].
    pub flow: Flow,
    /// What the browser answered.
    pub credential: WebAuthn,
    /// As [`super::SignIn::audience`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<SiteId>,
    /// As [`super::SignIn::memberships`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memberships: bool,
}
request!(FinishPasskeySignIn => SignedIn, Post "/v1/sign-in/passkey/finish");

/// Signs in as [`super::SignIn`], [`super::FinishSignIn`] and [`super::SignInKerberos`] do, for a
/// browser, which can do a second step. Those are refused where one is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FirstStep {
    /// Who it is.
    pub proof: FirstProof,
    /// As [`super::SignIn::audience`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<SiteId>,
    /// As [`super::SignIn::memberships`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memberships: bool,
}
request!(FirstStep => Stepped, Post "/v1/sign-in/first");

/// What the first step is taken by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FirstProof {
    /// As [`super::SignIn`].
    Password {
        /// The person's name.
        user: String,
        /// The password.
        password: Password,
    },
    /// As [`super::FinishSignIn`].
    Provider {
        /// The flow.
        flow: Flow,
        /// What came back.
        answer: Answer,
    },
    /// As [`super::SignInKerberos`], without the core's answer: no browser looks at it.
    Kerberos {
        /// The token.
        token: KerberosToken,
    },
}

/// What the first step led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Stepped {
    /// The person is signed in: no second step is wanted.
    In(Box<SignedIn>),
    /// One of the person's passkeys is wanted: [`FinishPasskeySignIn`].
    Prove(Ceremony),
    /// The site wants a passkey and the person has none yet: [`EnrolPasskey`].
    Enrol(Ceremony),
}

/// Adds a passkey on the way in, and signs in: after a [`FirstStep`], or by a recovery code
/// ([`super::BeginRecovery`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolPasskey {
    /// The flow.
    pub flow: Flow,
    /// As [`FinishPasskey::name`].
    pub name: String,
    /// What the browser answered.
    pub credential: WebAuthn,
    /// As [`super::SignIn::audience`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<SiteId>,
    /// As [`super::SignIn::memberships`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memberships: bool,
}
request!(EnrolPasskey => SignedIn, Post "/v1/sign-in/enrol");

/// Makes a code by which a program without a browser signs the caller in, who signed in at most
/// [`super::LINK_AGE_MAX_S`] ago.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSignInCode {}
request!(CreateSignInCode => SignInCode, Post "/v1/sign-in/code");

/// The answer to [`CreateSignInCode`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignInCode {
    /// The code, good once.
    pub code: OneTimeCode,
    /// When it is too late.
    pub expires: Millis,
}

/// Signs in by a [`SignInCode`]. The session lasts as long as the one that made the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignInByCode {
    /// The code; case, blanks and hyphens do not matter.
    pub code: OneTimeCode,
    /// As [`super::SignIn::audience`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<SiteId>,
    /// As [`super::SignIn::memberships`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memberships: bool,
}
request!(SignInByCode => SignedIn, Post "/v1/sign-in/by-code");

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, who reads a log could sign in by a code or finish somebody else's sign-in.
    #[test]
    fn codes_and_answers_do_not_show_in_debug_output() {
        let code = SignInByCode {
            code: OneTimeCode("the-code".into()),
            audience: None,
            memberships: false,
        };
        let finish = FinishPasskeySignIn {
            flow: Flow("the-flow".into()),
            credential: WebAuthn("the-answer".into()),
            audience: None,
            memberships: false,
        };
        let password = Password("the-password".into());
        let first = FirstProof::Password { user: "alice".into(), password };
        let shown = format!("{code:?} {finish:?} {first:?}");
        assert!(!shown.contains("the-"), "{shown}");
    }
}
