//! Sign-in by Kerberos (RFC 4120), in one exchange of SPNEGO (RFC 4178): the person's side sends a
//! token that its ticket for the core gives, and the core proves itself in the answer.
//!
//! The token is bound to the TLS connection by the certificate that the core shows there
//! (`tls-server-end-point`, RFC 5929), so that nobody who gets it can pass it on.

use super::{Identity, SignedIn};
use crate::request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use xos_base::SiteId;

/// Stands for Kerberos among the providers of a person's accounts; no other has this id.
pub const KERBEROS_PROVIDER: &str = "kerberos";
/// Longest [`KerberosToken`], in bytes: that of the largest ticket which Windows gives, in base64.
pub const KERBEROS_TOKEN_MAX: usize = 64_000;

/// A token of SPNEGO in base64. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct KerberosToken(pub String);

impl fmt::Debug for KerberosToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KerberosToken(..)")
    }
}

/// Signs in by a Kerberos ticket. Needs no other proof.
///
/// Refused as Unauthenticated, with one text, when the ticket does not hold, was used before, is
/// for another service or bound to another connection; as Unsupported when one exchange does not
/// do; as Denied when whose ticket it is may not sign in; as Limited after too many tries. Also as
/// Unauthenticated where a second step is wanted ([`super::FirstStep`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignInKerberos {
    /// The token.
    pub token: KerberosToken,
    /// As [`super::SignIn::audience`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<SiteId>,
    /// As [`super::SignIn::memberships`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memberships: bool,
}
request!(SignInKerberos => SignedInKerberos, Post "/v1/sign-in/kerberos");

/// The answer to [`SignInKerberos`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedInKerberos {
    /// By which the core proves itself.
    pub token: KerberosToken,
    /// The person.
    pub signed_in: SignedIn,
}

/// Links the principal of a Kerberos ticket to the caller, who signed in at most
/// [`super::LINK_AGE_MAX_S`] ago: both are proved in one go, as for [`super::LinkIdentity`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkKerberos {
    /// As [`SignInKerberos::token`].
    pub token: KerberosToken,
}
request!(LinkKerberos => Identity, Post "/v1/identities/kerberos");

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, who reads a log could sign in as somebody else.
    #[test]
    fn a_token_does_not_show_in_debug_output() {
        let r = LinkKerberos { token: KerberosToken("YIIC".into()) };
        assert!(!format!("{r:?}").contains("YIIC"));
    }
}
