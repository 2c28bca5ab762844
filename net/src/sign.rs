//! Signed statements: compact JWS (RFC 7515) with Ed25519 (RFC 8037), a root's with ES256
//! (RFC 7518), one `typ` a kind, so that a statement of one kind never passes for another.

use crate::trust::Trust;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
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
        }
    }
}

/// A site's signing key.
pub struct Signer {
    key: EncodingKey,
    pkcs8: zeroize::Zeroizing<Vec<u8>>,
    public: [u8; 32],
}

impl Signer {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the system's randomness fails.
    pub fn generate() -> Result<Signer, Error> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| Error::internal("cannot make an Ed25519 key"))?;
        Signer::from_pkcs8(pkcs8.as_ref())
    }

    /// Reads a key in PKCS #8 DER, as [`Signer::pkcs8`] gave it.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the bytes are no such key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Signer, Error> {
        let pair = Ed25519KeyPair::from_pkcs8(der)
            .map_err(|e| Error::internal(format!("the site's signing key is damaged: {e}")))?;
        let public = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| Error::internal("the site's signing key has a wrong length"))?;
        let pkcs8 = zeroize::Zeroizing::new(der.to_vec());
        Ok(Signer { key: EncodingKey::from_ed_der(der), pkcs8, public })
    }

    /// The private key, PKCS #8 DER. To be kept in a file with mode 0600.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key, base64, as a site descriptor lists it.
    pub fn public(&self) -> String {
        STANDARD.encode(self.public)
    }

    /// Signs `body`.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the body cannot be encoded.
    pub fn sign<T: Serialize>(&self, kind: Kind, body: &T) -> Result<String, Error> {
        encode(kind, Algorithm::EdDSA, body, &self.key)
    }
}

/// A root's word on the keys of its site. `root_pkcs8` is the root's private key, P-256 in PKCS #8
/// DER.
///
/// # Errors
/// [`xos_base::Kind::Internal`] when it is no such key.
pub fn vouch(root_pkcs8: &[u8], said: &SiteKeys) -> Result<String, Error> {
    encode(Kind::SiteKeys, Algorithm::ES256, said, &EncodingKey::from_ec_der(root_pkcs8))
}

fn encode<T: Serialize>(
    kind: Kind,
    algorithm: Algorithm,
    body: &T,
    key: &EncodingKey,
) -> Result<String, Error> {
    let mut header = Header::new(algorithm);
    header.typ = Some(kind.typ().to_owned());
    jsonwebtoken::encode(&header, body, key)
        .map_err(|e| Error::internal(format!("cannot sign: {e}")))
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
    /// Verifies a statement of `kind` made by `signer`, under any key its descriptor lists.
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
        let keys = self.keys_of(signer)?;
        let mut last = Error::unauthenticated(format!("site {signer} has no signing key"));
        for key in keys.iter() {
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
        let public = signer.public;
        let back: serde_json::Value = verify_with(Kind::Ticket, &jws, &public).unwrap();
        assert_eq!(back["a"], 1);
        assert!(verify_with::<serde_json::Value>(Kind::Token, &jws, &public).is_err());
        let other = Signer::generate().unwrap().public;
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
        let public = Signer::generate().unwrap().public;
        assert!(verify_with::<serde_json::Value>(Kind::Ticket, jws, &public).is_err());
    }
}
