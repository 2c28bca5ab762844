//! Sign-in, tokens and certificates.

use super::{Password, Recovered, SignInProvider};
use crate::request;
use crate::vom::MembershipView;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{GroupName, Millis, PersonId, RoleName, SiteId, VoId};

/// How people come to this site. Needs no proof of identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignInOptions {}
request!(SignInOptions => SignInRules, Get "/v1/sign-in/options");

/// What a sign-in page shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignInRules {
    /// The site.
    pub site: SiteId,
    /// Anybody may register with [`super::Register`].
    pub open_registration: bool,
    /// People may sign in by name and password ([`SignIn`]).
    pub passwords: bool,
    /// The identity providers by which people may sign in ([`super::BeginSignIn`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<SignInProvider>,
    /// The host name whose pages can use the site's passkeys; absent: the site takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passkeys: Option<String>,
    /// People may sign in by a Kerberos ticket ([`super::SignInKerberos`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kerberos: bool,
}

/// Signs in a person of this site. Needs no other proof.
///
/// Refused as Unauthenticated, with one text for a wrong name and a wrong password, and where a
/// second step is wanted ([`super::FirstStep`]); as Limited, with how long to wait, after too many
/// tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The person's name, `alice` or `alice@rennes`.
    pub user: String,
    /// The password.
    pub password: Password,
    /// The only site that shall accept the token; absent: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<SiteId>,
    /// Whether to list the memberships that this site knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memberships: bool,
}
request!(SignIn => SignedIn, Post "/v1/sign-in");

/// A person signed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedIn {
    /// The person.
    pub person: PersonId,
    /// The token.
    pub token: Token,
    /// Until when [`RenewToken`] gives new ones.
    pub session_until: Millis,
    /// The person administers this site.
    pub site_admin: bool,
    /// The person's memberships, when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memberships: Option<Vec<MembershipView>>,
    /// An administrator recovered the person's access, or set their password, in the last 30 days:
    /// they must know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Recovered>,
}

/// A bearer token (JWT): whoever holds it is taken for the person until it expires.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The JWT, for the header `Authorization: Bearer`.
    pub token: String,
    /// The only site that accepts it.
    pub audience: SiteId,
    /// When it expires.
    pub expires: Millis,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(.., for {}, until {})", self.audience, self.expires)
    }
}

/// A new token of the person for one of this site's people, until the session ends.
///
/// Proof: a token of the person, or a certificate of a VO homed here (not narrowed).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewToken {
    /// The only site that shall accept it; absent: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<SiteId>,
}
request!(RenewToken => SignedIn, Post "/v1/token/renew");

/// A token that speaks for a member of a VO homed here: for the console and scripts.
///
/// Nothing further is issued for it. Proof: as [`IssueCertificate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueToken {
    /// The VO; its home must be this site.
    pub vo: VoId,
    /// The only site that shall accept it; absent: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<SiteId>,
    /// Only these groups (`members` always stays); absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<GroupName>>,
    /// Only these roles; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<RoleName>>,
}
request!(IssueToken => Token, Post "/v1/token");

/// The audience of the WLCG profile by which a JWT is good for any service that takes it at all.
pub const ANY_AUDIENCE: &str = "https://wlcg.cern.ch/jwt/v1/any";

/// A certificate of the caller's membership in a VO homed here, for a key the caller made; on wish
/// with it an SSH certificate and a JWT that say the same.
///
/// Proof: a token of the person with this site as audience, or the present certificate of the same
/// VO (renewal). Of the request only the public keys are used; a request that asks for more is
/// refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueCertificate {
    /// The VO.
    pub vo: VoId,
    /// PKCS #10 (RFC 2986) in PEM; the key is P-256 or Ed25519. Its subject is ignored.
    pub csr_pem: String,
    /// The public key of an SSH certificate, one line as OpenSSH writes it (`ssh-ed25519 AAAA...`);
    /// Ed25519 or ECDSA on P-256. A comment is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_key: Option<String>,
    /// A JWT for services outside XOS, for this audience (`aud`); see [`Certificate::jwt`]. What
    /// clients of the site's sign-in get tokens for is refused, but for [`ANY_AUDIENCE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt_audience: Option<String>,
    /// Only these groups (`members` always stays); absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<GroupName>>,
    /// Only these roles; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<RoleName>>,
}
request!(IssueCertificate => Certificate, Post "/v1/certificates");

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The certificate and the authority between it and the site's root, PEM, leaf first.
    pub chain_pem: String,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// When it expires.
    pub expires: Millis,
    /// Until when it can be renewed without a new sign-in; absent: not at all (it is narrowed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewable_until: Option<Millis>,
    /// The OpenSSH user certificate, one line; for as long as the certificate.
    ///
    /// Its one principal is [`ssh_principal`]; its extension [`SSH_MEMBERSHIP`] holds the
    /// membership's encoding (DER) in base64; it permits a terminal, and forwarding of agent, ports
    /// and X11 (sites restrict that in their sshd).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<String>,
    /// The JWT: WLCG profile 1.x and AARC-G069, ES256, at most 20 minutes. No site of XOS takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
}

/// A JWT for services outside XOS.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// The JWT, compact.
    pub token: String,
    /// When it expires.
    pub expires: Millis,
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Jwt(.., until {})", self.expires)
    }
}

/// The extension of SSH certificates that holds the membership's encoding.
pub const SSH_MEMBERSHIP: &str = "membership@xos";

/// The principal of a member's SSH certificate: `alice@rennes/demo.rennes`. No local account has
/// such a name, so that a certificate of XOS is good for nothing where sshd asks nobody.
pub fn ssh_principal(person: &PersonId, vo: &VoId) -> String {
    format!("{person}/{vo}")
}
