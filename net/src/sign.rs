//! Signed statements: compact JWS (RFC 7515) with Ed25519 (RFC 8037), a root's with ES256
//! (RFC 7518), one `typ` a kind, so that a statement of one kind never passes for another.

use crate::key::{KeyKind, LocalKey, PrivateKey};
use crate::trust::Trust;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};
use xos_api::site::SiteKeys;
use xos_base::{Error, SiteId};

/// Longest statement that is looked at, in bytes.
pub const JWS_MAX: usize = 256 * 1024;

/// What a statement is; its JWS `typ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An entry of a VO's log.
    VoLog,
    /// A bearer token of a person.
    Token,
    /// A node's right to act for a person.
    Ticket,
    /// A person's word that a job is theirs, countersigned by their VO's home.
    Mandate,
    /// A site's invitation to another site.
    SiteOffer,
    /// A root's word on the keys by which its site signs.
    SiteKeys,
    /// A site's word on the keys of its nodes that hold no more.
    Withdrawn,
    /// A site's word on how far its audit is.
    AuditHead,
}

impl Kind {
    fn typ(self) -> &'static str {
        match self {
            Kind::VoLog => "xos-volog+jws",
            Kind::Token => "JWT",
            Kind::Ticket => "xos-ticket+jws",
            Kind::Mandate => "xos-mandate+jws",
            Kind::SiteOffer => "xos-site-offer+jws",
            Kind::SiteKeys => "xos-site-keys+jws",
            Kind::Withdrawn => "xos-withdrawn+jws",
            Kind::AuditHead => "xos-audit-head+jws",
        }
    }
}

/// A site's signing key. Cheap to clone.
#[derive(Clone)]
pub struct Signer {
    key: Arc<dyn PrivateKey>,
}

impl Signer {
    /// Makes a new key, which is nowhere but here.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the system's randomness fails.
    pub fn generate() -> Result<Signer, Error> {
        let der = LocalKey::generate(KeyKind::Ed25519)?;
        Signer::new(Arc::new(LocalKey::from_pkcs8(KeyKind::Ed25519, &der)?))
    }

    /// Signs with `key`.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when it is not of Ed25519.
    pub fn new(key: Arc<dyn PrivateKey>) -> Result<Signer, Error> {
        match key.kind() {
            KeyKind::Ed25519 => Ok(Signer { key }),
            KeyKind::P256 => Err(Error::internal("the site's signing key is not of Ed25519")),
        }
    }

    /// The public key, base64, as a site descriptor lists it.
    pub fn public(&self) -> String {
        STANDARD.encode(self.key.public())
    }

    /// Signs `body`.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the body cannot be encoded; those of
    /// [`PrivateKey::sign`].
    pub fn sign<T: Serialize>(&self, kind: Kind, body: &T) -> Result<String, Error> {
        encode(kind, body, &*self.key)
    }
}

/// A root's word on the keys of its site. `root` is the root's private key, P-256.
///
/// # Errors
/// As [`Signer::sign`].
pub fn vouch(root: &dyn PrivateKey, said: &SiteKeys) -> Result<String, Error> {
    encode(Kind::SiteKeys, said, root)
}

fn encode<T: Serialize>(kind: Kind, body: &T, key: &dyn PrivateKey) -> Result<String, Error> {
    let header = format!(r#"{{"typ":"{}","alg":"{}"}}"#, kind.typ(), algorithm(key.kind()));
    let body =
        serde_json::to_vec(body).map_err(|e| Error::internal(format!("cannot sign: {e}")))?;
    compact(&header, &body, key)
}

/// The `alg` of signatures by a key of this kind.
pub fn algorithm(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Ed25519 => "EdDSA",
        KeyKind::P256 => "ES256",
    }
}

/// A compact JWS (RFC 7515, section 7.1) of `header`, which names the key's [`algorithm`], and
/// `payload`.
///
/// # Errors
/// Those of [`PrivateKey::sign`].
pub fn compact(header: &str, payload: &[u8], key: &dyn PrivateKey) -> Result<String, Error> {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}"))
}

/// Verifies a statement under one public key.
///
/// # Errors
/// [`xos_base::Kind::Unauthenticated`] when kind, form or signature is wrong.
pub fn verify_with<T: DeserializeOwned>(
    kind: Kind,
    jws: &str,
    public: &[u8; 32],
) -> Result<T, Error> {
    decode(kind, Algorithm::EdDSA, jws, &DecodingKey::from_ed_der(public))
}

/// Verifies a root's word on the keys of its site.
///
/// # Errors
/// [`xos_base::Kind::Unauthenticated`] when kind, form or signature is wrong, or the root's key is
/// not P-256.
pub fn verify_vouched(jws: &str, root: &CertificateDer<'_>) -> Result<SiteKeys, Error> {
    const EC: &str = "1.2.840.10045.2.1";
    const P256: &str = "1.2.840.10045.3.1.7";
    let bad = || Error::unauthenticated("a site's root has no P-256 key");
    let (_, cert) = X509Certificate::from_der(root).map_err(|_| bad())?;
    let spki = cert.public_key();
    let curve = spki.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    let is_p256 = curve.is_some_and(|c| c.to_id_string() == P256);
    if spki.algorithm.algorithm.to_id_string() != EC || !is_p256 {
        return Err(bad());
    }
    let key = DecodingKey::from_ec_der(&spki.subject_public_key.data);
    decode(Kind::SiteKeys, Algorithm::ES256, jws, &key)
}

fn decode<T: DeserializeOwned>(
    kind: Kind,
    algorithm: Algorithm,
    jws: &str,
    key: &DecodingKey,
) -> Result<T, Error> {
    if jws.len() > JWS_MAX {
        return Err(Error::too_large(format!("a signed statement is over {JWS_MAX} bytes")));
    }
    let bad = |why: &str| Error::unauthenticated(format!("a signed statement is refused: {why}"));
    let header = jsonwebtoken::decode_header(jws).map_err(|_| bad("it is malformed"))?;
    if header.alg != algorithm || header.typ.as_deref() != Some(kind.typ()) {
        return Err(bad("it is of another kind"));
    }
    let mut rules = Validation::new(algorithm);
    rules.validate_exp = false;
    rules.validate_aud = false;
    rules.required_spec_claims = HashSet::new();
    jsonwebtoken::decode::<T>(jws, key, &rules)
        .map(|data| data.claims)
        .map_err(|_| bad("its signature or its content does not hold"))
}

impl Trust {
    /// Verifies a statement of `kind` made by `signer`, under any key its descriptor lists for
    /// that.
    ///
    /// What the statement may say about whom is for the caller of this function to check:
    /// `signer` must be the site whose word counts for it.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unauthenticated`] when the site is not trusted here or no key fits.
    pub fn verify<T: DeserializeOwned>(
        &self,
        kind: Kind,
        jws: &str,
        signer: &SiteId,
    ) -> Result<T, Error> {
        let [keys, logs] = self.keys_of(signer)?;
        // What was signed long ago is still read: nobody gains by an old head of an audit.
        let lasting = matches!(kind, Kind::VoLog | Kind::AuditHead);
        let former = logs.iter().filter(|_| lasting);
        let mut last = Error::unauthenticated(format!("site {signer} has no signing key"));
        for key in keys.iter().chain(former) {
            match verify_with(kind, jws, key) {
                Ok(body) => return Ok(body),
                Err(e) => last = e,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_holds_only_whole_and_of_its_kind() {
        let signer = Signer::generate().unwrap();
        let jws = signer.sign(Kind::Ticket, &serde_json::json!({"a": 1})).unwrap();
        let raw = |s: &Signer| <[u8; 32]>::try_from(s.key.public()).unwrap();
        let public = raw(&signer);
        let back: serde_json::Value = verify_with(Kind::Ticket, &jws, &public).unwrap();
        assert_eq!(back["a"], 1);
        assert!(verify_with::<serde_json::Value>(Kind::Token, &jws, &public).is_err());
        let other = raw(&Signer::generate().unwrap());
        assert!(verify_with::<serde_json::Value>(Kind::Ticket, &jws, &other).is_err());
        for i in 0..jws.len() {
            let mut bytes = jws.clone().into_bytes();
            bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
            let text = String::from_utf8(bytes).unwrap();
            let got = verify_with::<serde_json::Value>(Kind::Ticket, &text, &public);
            assert!(got.is_err(), "changed at {i} and still accepted");
        }
    }

    #[test]
    fn alg_none_is_refused() {
        // {"alg":"none","typ":"xos-ticket+jws"} . {"a":1} .
        let jws = "eyJhbGciOiJub25lIiwidHlwIjoieG9zLXRpY2tldCtqd3MifQ.eyJhIjoxfQ.";
        let public: [u8; 32] = Signer::generate().unwrap().key.public().try_into().unwrap();
        assert!(verify_with::<serde_json::Value>(Kind::Ticket, jws, &public).is_err());
    }
}
