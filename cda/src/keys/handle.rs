//! Keys behind the traits by which other crates sign. Those traits carry no error of ours, so that
//! it is kept here for whoever asked.

use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use std::sync::{Arc, Mutex, PoisonError};
use xos_base::Error;
use xos_net::key::{PrivateKey, SIGNATURE_LEN};

/// A key, wherever it lies.
pub(crate) struct Handle {
    key: Arc<dyn PrivateKey>,
    public: Vec<u8>,
    failed: Mutex<Option<Error>>,
}

impl Handle {
    pub(crate) fn new(key: Arc<dyn PrivateKey>) -> Handle {
        Handle { public: key.public(), key, failed: Mutex::default() }
    }

    /// The public key, as [`PrivateKey::public`] gives it.
    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    /// The key itself.
    pub(crate) fn key(&self) -> &dyn PrivateKey {
        &*self.key
    }

    /// Signs; why it failed is for [`Handle::failure`].
    pub(crate) fn try_sign(&self, bytes: &[u8]) -> Option<[u8; SIGNATURE_LEN]> {
        match self.key.sign(bytes) {
            Ok(signature) => Some(signature),
            Err(e) => {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                None
            }
        }
    }

    /// Why the key failed last, if it did since somebody asked; else `otherwise`.
    pub(crate) fn failure(&self, otherwise: Error) -> Error {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(otherwise)
    }
}

impl PublicKeyData for Handle {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        // Certificates are signed by keys of P-256 only: see `Authority`.
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Handle {
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.try_sign(msg).map(|s| ecdsa_der(&s)).ok_or(rcgen::Error::RemoteKeyError)
    }
}

/// A signature as X.509 holds it: ECDSA-Sig-Value (RFC 3279, section 2.2.3), in DER.
fn ecdsa_der(fixed: &[u8; SIGNATURE_LEN]) -> Vec<u8> {
    let mut content: Vec<u8> = Vec::with_capacity(SIGNATURE_LEN + 6);
    for number in fixed.chunks(SIGNATURE_LEN / 2) {
        let first = number.iter().position(|b| *b != 0).unwrap_or(number.len() - 1);
        let digits = &number[first..];
        // Else it would be negative.
        let sign = (digits[0] & 0x80 != 0).then_some(0u8);
        content.extend([0x02u8, byte(digits.len() + usize::from(sign.is_some()))]);
        content.extend(sign);
        content.extend(digits);
    }
    let mut der = vec![0x30u8, byte(content.len())];
    der.extend(content);
    der
}

/// A length: two numbers of at most 33 bytes each, with their tags, fit into the short form.
fn byte(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
    use xos_net::key::{KeyKind, LocalKey};

    /// If it failed, about half of all certificates would be refused.
    #[test]
    fn signatures_are_as_certificates_hold_them() {
        let der = LocalKey::generate(KeyKind::P256).unwrap();
        let key = Handle::new(Arc::new(LocalKey::from_pkcs8(KeyKind::P256, &der).unwrap()));
        for i in 0..500u32 {
            let text = i.to_be_bytes();
            let signature = SigningKey::sign(&key, &text).unwrap();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public())
                .verify(&text, &signature)
                .unwrap();
        }
        let mut numbers = [0; SIGNATURE_LEN];
        assert_eq!(ecdsa_der(&numbers), [0x30, 6, 2, 1, 0, 2, 1, 0]);
        (numbers[31], numbers[63]) = (0x7f, 0x80);
        assert_eq!(ecdsa_der(&numbers), [0x30, 7, 2, 1, 0x7f, 2, 2, 0, 0x80]);
    }

    struct Away;

    impl PrivateKey for Away {
        fn kind(&self) -> KeyKind {
            KeyKind::P256
        }

        fn public(&self) -> Vec<u8> {
            vec![4; 65]
        }

        fn sign(&self, _: &[u8]) -> Result<[u8; SIGNATURE_LEN], Error> {
            Err(Error::unavailable("the token is away"))
        }
    }

    /// If it failed, people would read "internal error" while somebody puts the token back.
    #[test]
    fn who_asked_learns_why_a_key_failed() {
        let key = Handle::new(Arc::new(Away));
        let otherwise = || Error::internal("something else");
        assert!(SigningKey::sign(&key, b"x").is_err());
        assert_eq!(key.failure(otherwise()).kind, xos_base::Kind::Unavailable);
        assert_eq!(key.failure(otherwise()), otherwise());
    }
}
