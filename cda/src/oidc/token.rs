//! ID tokens (OpenID Connect Core, 3.1.3.7): which are believed.

use super::claims::Claims;
use super::known::Metadata;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use openidconnect::core::{CoreIdToken, CoreIdTokenVerifier, CoreJwsSigningAlgorithm};
use openidconnect::core::{CoreIdTokenClaims, CoreTokenResponse};
use openidconnect::{
    AccessTokenHash, AuthenticationContextClass, ClaimsVerificationError, ClientId, IssuerUrl,
    Nonce, NonceVerifier, OAuth2TokenResponse, SignatureVerificationError, TokenResponse,
};
use std::time::Duration;
use xos_base::Millis;
use xos_net::caller::CLOCK_SKEW_S;

/// Signatures by keys of the provider. Not among them: none at all, and those by a shared secret,
/// which whoever takes a public key for one could make.
const SIGNATURES: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// What a token must say.
pub(crate) struct Wanted<'a> {
    pub(crate) client_id: ClientId,
    pub(crate) issuer: IssuerUrl,
    /// Absent where no browser carried anything: the token came from the provider itself.
    pub(crate) nonce: Option<&'a Nonce>,
    pub(crate) acr: Option<&'a str>,
    pub(crate) now: Millis,
}

/// Why a token is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// It may be signed by a key that the provider has only since.
    #[error("{0}")]
    UnknownKey(SignatureVerificationError),
    /// Any other reason.
    #[error("{0}")]
    Wrong(String),
}

impl From<ClaimsVerificationError> for Refusal {
    fn from(e: ClaimsVerificationError) -> Refusal {
        match e {
            ClaimsVerificationError::SignatureVerification(e) => e.into(),
            e => Refusal::Wrong(e.to_string()),
        }
    }
}

impl From<SignatureVerificationError> for Refusal {
    fn from(e: SignatureVerificationError) -> Refusal {
        match e {
            SignatureVerificationError::NoMatchingKey
            | SignatureVerificationError::CryptoError(_) => Refusal::UnknownKey(e),
            e => Refusal::Wrong(e.to_string()),
        }
    }
}

fn wrong(why: impl std::fmt::Display) -> Refusal {
    Refusal::Wrong(why.to_string())
}

/// A time as the crate for OpenID Connect has it.
fn time(at: Millis) -> Result<DateTime<Utc>, Refusal> {
    let ms = i64::try_from(at.0).map_err(wrong)?;
    DateTime::from_timestamp_millis(ms).ok_or_else(|| wrong("the clock is out of range"))
}

/// What the ID token in `response` says, once all of it was checked.
pub(crate) fn read(
    wanted: &Wanted<'_>,
    metadata: &Metadata,
    response: &CoreTokenResponse,
) -> Result<Claims, Refusal> {
    let token = response.id_token().ok_or_else(|| wrong("there is no ID token"))?;
    let skew = Duration::from_secs(CLOCK_SKEW_S);
    let (earlier, later) = (time(wanted.now.minus(skew))?, time(wanted.now.plus(skew))?);
    let verifier = CoreIdTokenVerifier::new_public_client(
        wanted.client_id.clone(),
        wanted.issuer.clone(),
        metadata.jwks().clone(),
    )
    .set_allowed_algs(SIGNATURES)
    .set_time_fn(move || earlier)
    .set_issue_time_verifier_fn(move |issued: DateTime<Utc>| {
        if issued > later { Err(format!("issued at {issued}, which is to come")) } else { Ok(()) }
    })
    .set_auth_context_verifier_fn(|reached: Option<&AuthenticationContextClass>| {
        match (wanted.acr, reached) {
            (None, _) => Ok(()),
            (Some(acr), Some(reached)) if reached.as_str() == acr => Ok(()),
            (Some(acr), _) => Err(format!("the level of sign-in is not {acr}")),
        }
    });
    let said = token.claims(&verifier, |nonce: Option<&Nonce>| match wanted.nonce {
        Some(wanted) => wanted.verify(nonce),
        None => Ok(()),
    })?;
    if said.authorized_party().is_some_and(|azp| *azp != wanted.client_id) {
        return Err(wrong("it was issued to another client (azp)"));
    }
    check_access_token(said, token, &verifier, response)?;
    content(token)
}

/// The access token is the one that came with the ID token, where that says which.
fn check_access_token(
    said: &CoreIdTokenClaims,
    token: &CoreIdToken,
    verifier: &CoreIdTokenVerifier<'_>,
    response: &CoreTokenResponse,
) -> Result<(), Refusal> {
    let Some(hash) = said.access_token_hash() else { return Ok(()) };
    let (alg, key) = (token.signing_alg()?, token.signing_key(verifier)?);
    let is = AccessTokenHash::from_token(response.access_token(), alg, key).map_err(wrong)?;
    if is == *hash { Ok(()) } else { Err(wrong("the access token is another one (at_hash)")) }
}

/// All that a verified token says, which the crate's types do not hold.
fn content(token: &CoreIdToken) -> Result<Claims, Refusal> {
    let text = token.to_string();
    let payload = text.split('.').nth(1).unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(payload).map_err(wrong)?;
    serde_json::from_slice(&bytes).map_err(wrong)
}
