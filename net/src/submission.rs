//! Submissions: a person's word that a job is theirs, signed with their certificate's key.
//!
//! Compact JWS (RFC 7515) with ES256 (RFC 7518) or EdDSA (RFC 8037); the certificate chain stands
//! in the header as `x5c`. Deviation: no other header members are taken.

use crate::trust::{Subject, Trust, Usage};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    Ed25519KeyPair, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};
use xos_api::cda::{SUBMISSION_AGE_MAX_S, Submission};
use xos_base::{Error, Membership, Millis};

/// Longest signed submission, in bytes: a chain of certificates with large memberships.
pub const SUBMISSION_MAX: usize = 128 * 1024;
const TYP: &str = "xos-submission+jws";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: Alg,
    typ: String,
    x5c: Vec<String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Alg {
    ES256,
    EdDSA,
}

/// Signs `submission` with the private key (PKCS #8, P-256 or Ed25519) of the certificate that
/// `chain` begins with.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] when the key is of another kind.
pub fn sign(
    submission: &Submission,
    chain: &[CertificateDer<'_>],
    key: &PrivateKeyDer<'_>,
) -> Result<String, Error> {
    let PrivateKeyDer::Pkcs8(pkcs8) = key else { return Err(wrong_key()) };
    let pkcs8 = pkcs8.secret_pkcs8_der();
    let internal = |what: &str| Error::internal(format!("cannot sign the submission: {what}"));
    let ed = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok();
    let header = Header {
        alg: if ed.is_some() { Alg::EdDSA } else { Alg::ES256 },
        typ: TYP.to_owned(),
        x5c: chain.iter().map(|c| STANDARD.encode(c)).collect(),
    };
    let json = |e: serde_json::Error| internal(&e.to_string());
    let text = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header).map_err(json)?),
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(submission).map_err(json)?)
    );
    let signature = match ed {
        Some(pair) => pair.sign(text.as_bytes()),
        None => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
            .map_err(|_| wrong_key())?
            .sign(&SystemRandom::new(), text.as_bytes())
            .map_err(|_| internal("the key failed"))?,
    };
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn wrong_key() -> Error {
    Error::invalid("the certificate's key is neither P-256 nor Ed25519 in PKCS #8")
        .hint("sign in again with `xos login` to make a new one")
}

/// Verifies a submission: signature, certificate (under `trust`, with the scope of sites), and
/// age. What it says about VO and owner is compared with the certificate and the request by the
/// caller of this function; the VO is compared here.
///
/// # Errors
/// [`xos_base::Kind::Unauthenticated`] with the reason, [`xos_base::Kind::TooLarge`].
pub fn verify(trust: &Trust, jws: &str, now: Millis) -> Result<(Membership, Submission), Error> {
    let bad = |why: &str| Error::unauthenticated(format!("the submission is refused: {why}"));
    if jws.len() > SUBMISSION_MAX {
        return Err(Error::too_large(format!("a submission is over {SUBMISSION_MAX} bytes")));
    }
    let (signed, signature) = jws.rsplit_once('.').ok_or_else(|| bad("it is malformed"))?;
    let (header, body) = signed.split_once('.').ok_or_else(|| bad("it is malformed"))?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| bad("it is malformed"));
    let header: Header =
        serde_json::from_slice(&decode(header)?).map_err(|_| bad("its header is malformed"))?;
    if header.typ != TYP {
        return Err(bad("it is of another kind"));
    }
    let chain: Result<Vec<CertificateDer<'static>>, Error> = header
        .x5c
        .iter()
        .map(|c| Ok(STANDARD.decode(c).map_err(|_| bad("its chain is malformed"))?.into()))
        .collect();
    let chain = chain?;
    let Subject::Member(membership) = trust.verify_chain(&chain, Usage::Client, now)? else {
        return Err(bad("a machine's certificate submits no job"));
    };
    check_signature(&chain[0], header.alg, signed, &decode(signature)?)
        .ok_or_else(|| bad("its signature is not by the certificate's key"))?;
    let submission: Submission =
        serde_json::from_slice(&decode(body)?).map_err(|e| bad(&e.to_string()))?;
    check_content(&submission, &membership, now)?;
    Ok((membership, submission))
}

fn check_signature(leaf: &CertificateDer<'_>, alg: Alg, text: &str, sig: &[u8]) -> Option<()> {
    const P256: &str = "1.2.840.10045.3.1.7";
    let (_, cert) = X509Certificate::from_der(leaf).ok()?;
    let spki = cert.public_key();
    let oid = spki.algorithm.algorithm.to_id_string();
    let curve = spki.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    let algorithm: &dyn VerificationAlgorithm = match alg {
        Alg::ES256
            if oid == "1.2.840.10045.2.1" && curve.is_some_and(|c| c.to_id_string() == P256) =>
        {
            &ECDSA_P256_SHA256_FIXED
        }
        Alg::EdDSA if oid == "1.3.101.112" => &ED25519,
        _ => return None,
    };
    let key: UnparsedPublicKey<&[u8]> =
        signature::UnparsedPublicKey::new(algorithm, spki.subject_public_key.as_ref());
    key.verify(text.as_bytes(), sig).ok()
}

fn check_content(s: &Submission, membership: &Membership, now: Millis) -> Result<(), Error> {
    let bad = |why: &str| Error::unauthenticated(format!("the submission is refused: {why}"));
    if s.vo != membership.vo {
        return Err(bad("it names another VO than its certificate"));
    }
    let hex = |t: &str, n: usize| {
        t.len() == n && t.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    if !hex(&s.digest, 64) || !hex(&s.nonce, 32) {
        return Err(bad("its digest or nonce is malformed"));
    }
    if now.secs() > s.issued.secs().saturating_add(SUBMISSION_AGE_MAX_S) {
        return Err(bad("it is too old").hint("submit the job again"));
    }
    if s.issued.secs() > now.secs().saturating_add(crate::caller::CLOCK_SKEW_S) {
        return Err(bad("it is from the future").hint("set the submitting machine's clock"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A panic here would let a stranger end a core.
        #[test]
        fn garbage_is_refused(text in ".{0,300}") {
            prop_assert!(verify(&Trust::new(), &text, Millis(0)).is_err());
        }

        /// The same one layer deeper.
        #[test]
        fn garbage_parts_are_refused(
            h in proptest::collection::vec(any::<u8>(), 0..100),
            x in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let header = format!(
                r#"{{"alg":"ES256","typ":"{TYP}","x5c":["{}"]}}"#, STANDARD.encode(&x));
            let jws = format!(
                "{}.{}.AA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(&h));
            prop_assert!(verify(&Trust::new(), &jws, Millis(0)).is_err());
        }
    }
}
