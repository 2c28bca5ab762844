//! What services outside XOS need to check this site's JWTs ([`super::Certificate::jwt`]).

use crate::request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who issues this site's JWTs. Needs no proof of identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetIssuer {}
request!(GetIssuer => Issuer, Get "/.well-known/openid-configuration");

/// An issuer, as OpenID Connect Discovery 1.0 (section 3) describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Issuer {
    /// The `iss` of its JWTs: an https URL.
    pub issuer: String,
    /// Where its keys are: [`GetJwks`].
    pub jwks_uri: String,
    /// How a service may be answered that sends a person here to sign in.
    pub response_types_supported: Vec<String>,
    /// `public`: a person's `sub` is the same for every service.
    pub subject_types_supported: Vec<String>,
    /// The algorithms by which it signs.
    pub id_token_signing_alg_values_supported: Vec<String>,
    /// The values of `scope` in its JWTs.
    pub scopes_supported: Vec<String>,
    /// The claims that its JWTs can have.
    pub claims_supported: Vec<String>,
    /// Where services send people to sign in; absent where the core has no console.
    #[serde(flatten)]
    pub provider: Option<ProviderEndpoints>,
}

/// The core as an OpenID provider (OpenID Connect Discovery 1.0, section 3; RFC 8414; RFC 8628,
/// section 4; RFC 9207).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProviderEndpoints {
    /// Where a browser is sent.
    pub authorization_endpoint: String,
    /// Where tokens are.
    pub token_endpoint: String,
    /// Where the person's claims are.
    pub userinfo_endpoint: String,
    /// Where a sign-in by another device begins.
    pub device_authorization_endpoint: String,
    /// Where services ask about tokens.
    pub introspection_endpoint: String,
    /// Where tokens are given back.
    pub revocation_endpoint: String,
    /// What tokens are given for.
    pub grant_types_supported: Vec<String>,
    /// How a browser brings the answer.
    pub response_modes_supported: Vec<String>,
    /// How clients prove themselves.
    pub token_endpoint_auth_methods_supported: Vec<String>,
    /// The methods of PKCE, which is needed always.
    pub code_challenge_methods_supported: Vec<String>,
    /// Answers name the issuer.
    pub authorization_response_iss_parameter_supported: bool,
    /// Requests are not taken as JWTs.
    pub request_parameter_supported: bool,
    /// Nor from an address (the standard's default is true).
    pub request_uri_parameter_supported: bool,
}

/// The public keys by which this site's JWTs are checked. Needs no proof of identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetJwks {}
request!(GetJwks => Jwks, Get "/jwks");

/// A JWK Set (RFC 7517, section 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Jwks {
    /// The keys: one of them signs, the others are known still or already.
    pub keys: Vec<Jwk>,
}

/// A public key of ECDSA on P-256 (RFC 7517; RFC 7518, section 6.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Jwk {
    /// `EC`.
    pub kty: String,
    /// `P-256`.
    pub crv: String,
    /// The point's first coordinate, base64url.
    pub x: String,
    /// The second.
    pub y: String,
    /// Its name, which stands in each JWT's header: its thumbprint (RFC 7638).
    pub kid: String,
    /// `ES256`.
    pub alg: String,
    /// `sig`: it signs.
    #[serde(rename = "use")]
    pub purpose: String,
}
