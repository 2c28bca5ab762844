//! Tokens for clients: what stands in them.
//!
//! Access tokens are JWTs after RFC 9068 with the claims of the WLCG profile; their type is
//! `at+jwt`, so that none passes for an ID token, nor for the reverse. JWTs that members get beside
//! their certificates ([`jwt`]) pass for neither: none is for an audience of a client. Cores take
//! neither: what they take is signed by another key under another name. While the key rolls, those
//! by the former one count; one that is dropped takes its tokens with it.

use super::grants::GrantRecord;
use super::written;
use crate::issue::random;
use crate::{Inner, jwt};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use xos_api::cda::{Client, Jwk, Scope, Secret, Tokens};
use xos_base::{Error, Membership, PersonId};
use xos_net::caller::CLOCK_SKEW_S;
use xos_net::identity::{hex, sha256};

/// The type of access tokens.
const ACCESS_TYPE: &str = "at+jwt";
/// Longest access token, in bytes: a large membership fits.
const ACCESS_MAX: usize = 64 * 1024;

/// Whom tokens are for, and about.
pub(super) struct About<'a> {
    pub(super) client: &'a Client,
    pub(super) person: &'a PersonId,
    pub(super) grant: &'a GrantRecord,
    pub(super) scopes: &'a [Scope],
    pub(super) membership: Option<&'a Membership>,
    pub(super) nonce: Option<&'a str>,
}

#[derive(Serialize)]
struct Access<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    client_id: &'a str,
    iat: u64,
    nbf: u64,
    exp: u64,
    jti: String,
    auth_time: u64,
    scope: &'a str,
    /// Of the grant.
    sid: String,
    #[serde(rename = "wlcg.ver")]
    profile: &'static str,
    #[serde(flatten)]
    of_vo: Map<String, Value>,
}

#[derive(Serialize)]
struct Id<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
    auth_time: u64,
    at_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
    #[serde(flatten)]
    about: Map<String, Value>,
}

/// What is read of an access token.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Read {
    pub(super) iss: String,
    pub(super) sub: PersonId,
    pub(super) aud: String,
    pub(super) client_id: String,
    pub(super) iat: u64,
    pub(super) exp: u64,
    pub(super) jti: String,
    pub(super) scope: String,
    pub(super) sid: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

impl Inner {
    /// What the scopes tell of the membership.
    pub(super) fn of_vo(&self, scopes: &[Scope], m: Option<&Membership>) -> Map<String, Value> {
        let mut claims = Map::new();
        let Some(m) = m else { return claims };
        if scopes.contains(&Scope::WlcgGroups) {
            claims.insert("wlcg.groups".into(), json!(jwt::groups(m)));
        }
        if scopes.contains(&Scope::Entitlement) {
            let entitlements = json!(self.outside.entitlements(m));
            claims.insert("entitlements".into(), entitlements.clone());
            claims.insert("eduperson_entitlement".into(), entitlements);
        }
        claims
    }

    /// What the scopes tell of the person.
    pub(super) fn about(
        &self,
        person: &PersonId,
        scopes: &[Scope],
        m: Option<&Membership>,
    ) -> Map<String, Value> {
        let mut claims = self.of_vo(scopes, m);
        if scopes.contains(&Scope::Profile) {
            claims.insert("preferred_username".into(), json!(person.name()));
        }
        claims
    }

    /// An access token, with `openid` an ID token; no refresh token.
    pub(super) fn tokens(&self, a: &About<'_>) -> Result<Tokens, Error> {
        let now = self.now();
        let ends = a.membership.and_then(|m| m.expires).unwrap_or(a.grant.until);
        let exp = now.plus(jwt::LIFE_MAX).min(a.grant.until).min(ends).secs();
        let (iss, sub) = (self.outside.url(), a.person.as_str());
        let scope = written(a.scopes);
        let auth_time = a.grant.signed_in.secs();
        let access = Access {
            iss,
            sub,
            aud: &a.client.audience,
            client_id: &a.client.id,
            iat: now.secs(),
            nbf: now.secs().saturating_sub(CLOCK_SKEW_S),
            exp,
            jti: hex(&random::<16>()?),
            auth_time,
            scope: &scope,
            sid: a.grant.mark(),
            profile: jwt::PROFILE,
            of_vo: self.of_vo(a.scopes, a.membership),
        };
        let access = self.keys.jwt().sign(ACCESS_TYPE, &access)?;
        let id = || {
            // OpenID Connect Core, 3.1.3.6.
            let at_hash = URL_SAFE_NO_PAD.encode(&sha256(access.as_bytes())[..16]);
            let about = self.about(a.person, a.scopes, a.membership);
            let (aud, iat, nonce) = (a.client.id.as_str(), now.secs(), a.nonce);
            let claims = Id { iss, sub, aud, iat, exp, auth_time, at_hash, nonce, about };
            self.keys.jwt().sign(jwt::TYPE, &claims).map(Secret)
        };
        let id_token = a.scopes.contains(&Scope::OpenId).then(id).transpose()?;
        Ok(Tokens {
            access_token: Secret(access),
            token_type: "Bearer".to_owned(),
            expires_in: exp.saturating_sub(now.secs()),
            scope,
            refresh_token: None,
            id_token,
        })
    }

    /// What an access token of this core says, whether or not its time is over.
    pub(super) fn read_access(&self, token: &str) -> Option<Read> {
        signed(token, self.keys.jwks()).filter(|read| read.iss == self.outside.url())
    }
}

/// What an access token says that one of `keys` signed.
pub(super) fn signed(token: &str, keys: impl IntoIterator<Item = Jwk>) -> Option<Read> {
    if token.len() > ACCESS_MAX {
        return None;
    }
    let mut parts = token.split('.');
    let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let head: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    if head.alg != jwt::ALGORITHM || head.typ != ACCESS_TYPE {
        return None;
    }
    let key = keys.into_iter().find(|k| k.kid == head.kid)?;
    let text = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let point = point(&key)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(text.as_bytes(), &signature)
        .ok()?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

/// The key's point (SEC 1, section 2.3.3).
fn point(key: &Jwk) -> Option<Vec<u8>> {
    let number = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    Some([vec![4], number(&key.x)?, number(&key.y)?].concat())
}
