//! Certificate requests, PKCS #10 (RFC 2986): only the public key counts.
//!
//! The requester proves to hold the key. A request that asks for more than a key (an authority,
//! another name) is refused rather than trimmed, so that nobody believes they got it.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm,
};
use rcgen::{PublicKeyData, SignatureAlgorithm, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AlgorithmIdentifier;
use xos_api::cda::CSR_PEM_MAX;
use xos_base::Error;
use xos_net::identity::{hex, sha256};

const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";
const ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";
const ED25519_OID: &str = "1.3.101.112";

/// A public key whose holder proved to have the private one.
#[derive(Debug)]
pub(crate) struct PublicKey {
    info: SubjectPublicKeyInfo,
    /// SHA-256 over the SubjectPublicKeyInfo, hex.
    pub(crate) fingerprint: String,
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        self.info.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.info.algorithm()
    }
}

fn refuse(why: &str) -> Error {
    Error::invalid(format!("the certificate request is refused: {why}"))
}

/// Reads and checks a request in PEM.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] with the reason, [`xos_base::Kind::TooLarge`].
pub(crate) fn read(pem: &str) -> Result<PublicKey, Error> {
    if pem.len() > CSR_PEM_MAX {
        return Err(Error::too_large(format!("a certificate request is over {CSR_PEM_MAX} bytes")));
    }
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| refuse("it is no PKCS #10 in PEM"))?;
    let (rest, csr) = X509CertificationRequest::from_der(&der)
        .map_err(|_| refuse("it is no well-formed PKCS #10"))?;
    if !rest.is_empty() {
        return Err(refuse("it has trailing bytes"));
    }
    let info = &csr.certification_request_info;
    let algorithm = algorithm(&info.subject_pki.algorithm, &csr.signature_algorithm)?;
    UnparsedPublicKey::new(algorithm, info.subject_pki.subject_public_key.as_ref())
        .verify(info.raw, csr.signature_value.as_ref())
        .map_err(|_| refuse("its signature is not by its own key"))?;
    for attribute in info.attributes() {
        if let ParsedCriAttribute::ExtensionRequest(wanted) = attribute.parsed_attribute() {
            for ext in &wanted.extensions {
                check_wish(ext.parsed_extension())?;
            }
        }
    }
    let spki = info.subject_pki.raw;
    let fingerprint = hex(&sha256(spki));
    let info = SubjectPublicKeyInfo::from_der(spki)
        .map_err(|_| refuse("its key is of a kind that is not used here"))?;
    Ok(PublicKey { info, fingerprint })
}

fn algorithm(
    key: &AlgorithmIdentifier<'_>,
    signature: &AlgorithmIdentifier<'_>,
) -> Result<&'static dyn VerificationAlgorithm, Error> {
    let kind = key.algorithm.to_id_string();
    let curve = key.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|o| o.to_id_string());
    let signed = signature.algorithm.to_id_string();
    if kind == EC_PUBLIC_KEY && curve.as_deref() == Some(P256) && signed == ECDSA_SHA256 {
        return Ok(&ECDSA_P256_SHA256_ASN1);
    }
    if kind == ED25519_OID && signed == ED25519_OID {
        return Ok(&ED25519);
    }
    Err(refuse("its key must be P-256 (signed with SHA-256) or Ed25519"))
}

/// What a request may hold beside its key: nothing that asks for more. What a certificate is good
/// for is decided by who gets it, whatever use the request names.
fn check_wish(wish: &ParsedExtension<'_>) -> Result<(), Error> {
    match wish {
        ParsedExtension::BasicConstraints(b) if !b.ca => Ok(()),
        ParsedExtension::KeyUsage(u) if !u.key_cert_sign() && !u.crl_sign() => Ok(()),
        ParsedExtension::ExtendedKeyUsage(_) | ParsedExtension::SubjectKeyIdentifier(_) => Ok(()),
        ParsedExtension::BasicConstraints(_) | ParsedExtension::NameConstraints(_) => {
            Err(refuse("it asks to be an authority"))
        }
        ParsedExtension::KeyUsage(_) => Err(refuse("it asks to sign certificates")),
        ParsedExtension::SubjectAlternativeName(_) => {
            Err(refuse("it asks for names; the name is that of who proved to be there"))
        }
        ParsedExtension::ParseError { .. } => Err(refuse("an extension in it is malformed")),
        _ => Err(refuse("it asks for an extension, which is not the requester's to choose")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{
        BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose,
        PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    };

    fn request(alg: &'static SignatureAlgorithm, change: fn(&mut CertificateParams)) -> String {
        let key = KeyPair::generate_for(alg).unwrap();
        let mut params = CertificateParams::default();
        change(&mut params);
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    fn why(pem: &str) -> String {
        read(pem).unwrap_err().message
    }

    #[test]
    fn p256_and_ed25519_are_taken() {
        for alg in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
            let key = read(&request(alg, |_| {})).unwrap();
            assert_eq!(key.algorithm(), alg);
            assert_eq!(key.fingerprint.len(), 64);
        }
    }

    #[test]
    fn a_request_for_more_than_a_key_is_refused_with_the_reason() {
        // Were any of these passed on, a member could issue certificates or stand for a core.
        let alg = &PKCS_ECDSA_P256_SHA256;
        let ca = request(alg, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert!(why(&ca).contains("authority"), "{}", why(&ca));
        let names = request(alg, |p| {
            p.subject_alt_names =
                vec![rcgen::SanType::DnsName("core.rennes.xos.internal".try_into().unwrap())];
        });
        assert!(why(&names).contains("names"), "{}", why(&names));
        let usage = request(alg, |p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
        assert!(why(&usage).contains("sign certificates"), "{}", why(&usage));
    }

    #[test]
    fn other_keys_bad_signatures_and_sizes_are_refused() {
        assert!(why(&request(&PKCS_ECDSA_P384_SHA384, |_| {})).contains("P-256"));
        assert!(why(&"x".repeat(CSR_PEM_MAX + 1)).contains("bytes"));
        assert!(why("").contains("PEM"));
        // The key of one request under the signature of another: nobody proved to hold it.
        let good = request(&PKCS_ECDSA_P256_SHA256, |_| {});
        let mut der = CertificateSigningRequestDer::from_pem_slice(good.as_bytes())
            .unwrap()
            .as_ref()
            .to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        let bad = crate::keys::pem("CERTIFICATE REQUEST", &der);
        assert!(why(&bad).contains("signature"), "{}", why(&bad));
    }

    proptest! {
        /// A panic here would let a stranger end a core.
        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let pem = crate::keys::pem("CERTIFICATE REQUEST", &bytes);
            prop_assert!(read(&pem).is_err());
        }

        /// What the key did not sign proves nothing: with one bit changed a request is refused, or
        /// (in the frame around the signed part) read as the very same key.
        #[test]
        fn a_changed_request_is_refused(bit in 0usize..8 * 220) {
            let good = request(&PKCS_ED25519, |_| {});
            let key = read(&good).unwrap().fingerprint;
            let mut der = CertificateSigningRequestDer::from_pem_slice(good.as_bytes())
                .unwrap().as_ref().to_vec();
            let bit = bit % (der.len() * 8);
            der[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = read(&crate::keys::pem("CERTIFICATE REQUEST", &der)) {
                prop_assert_eq!(other.fingerprint, key);
            }
        }
    }
}
