//! Private keys that sign: in memory, or in a vault that never gives them away.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use std::sync::Arc;
use xos_base::Error;
use zeroize::Zeroizing;

/// Length of every signature, in bytes: of Ed25519, and of ECDSA as r and s.
pub const SIGNATURE_LEN: usize = 64;

/// The kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ECDSA on P-256 with SHA-256 (FIPS 186-5).
    P256,
}

impl KeyKind {
    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            KeyKind::Ed25519 => "Ed25519",
            KeyKind::P256 => "P-256",
        }
    }

    /// Length of a public key, in bytes.
    pub fn public_len(self) -> usize {
        match self {
            KeyKind::Ed25519 => 32,
            KeyKind::P256 => 65,
        }
    }
}

/// A private key that signs, wherever it lies.
pub trait PrivateKey: Send + Sync {
    /// Its kind.
    fn kind(&self) -> KeyKind;

    /// Its public key: of Ed25519 the 32 bytes of RFC 8032; of P-256 the point without compression,
    /// 65 bytes (SEC 1, section 2.3.3).
    fn public(&self) -> Vec<u8>;

    /// Signs `bytes`: by Ed25519, or by ECDSA over their SHA-256, r and s of 32 bytes each.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] while the place where it lies cannot be reached;
    /// [`xos_base::Kind::Internal`] when that fails otherwise.
    fn sign(&self, bytes: &[u8]) -> Result<[u8; SIGNATURE_LEN], Error>;
}

/// What finds a key in a [`Vault`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 16]);

/// A place that makes keys, signs with them, and never gives them away.
pub trait Vault: Send + Sync {
    /// Makes a key, and gives what finds it again with its public key. People see `label` beside
    /// it.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] or [`xos_base::Kind::Internal`], naming the place.
    fn make(&self, kind: KeyKind, label: &str) -> Result<(KeyId, Vec<u8>), Error>;

    /// A key that [`Vault::make`] made.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when another key, or none, is found by this id;
    /// [`xos_base::Kind::Unavailable`] while the place cannot be reached.
    fn key(&self, kind: KeyKind, id: KeyId, public: &[u8]) -> Result<Arc<dyn PrivateKey>, Error>;

    /// Destroys a key, if it is there.
    ///
    /// # Errors
    /// As [`Vault::make`].
    fn destroy(&self, id: KeyId) -> Result<(), Error>;
}

/// A key in memory.
pub struct LocalKey(Pair);

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl LocalKey {
    /// A new key, PKCS #8 DER.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the system's randomness fails.
    pub fn generate(kind: KeyKind) -> Result<Zeroizing<Vec<u8>>, Error> {
        let random = SystemRandom::new();
        let made = match kind {
            KeyKind::Ed25519 => Ed25519KeyPair::generate_pkcs8(&random),
            KeyKind::P256 => {
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            }
        };
        made.map(|der| Zeroizing::new(der.as_ref().to_vec()))
            .map_err(|_| Error::internal(format!("cannot make a key of {}", kind.name())))
    }

    /// Reads a key in PKCS #8 DER, as [`LocalKey::generate`] gave it.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the bytes are no such key.
    pub fn from_pkcs8(kind: KeyKind, der: &[u8]) -> Result<LocalKey, Error> {
        let pair = match kind {
            KeyKind::Ed25519 => Ed25519KeyPair::from_pkcs8(der).map(Pair::Ed25519),
            KeyKind::P256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(Pair::P256)
            }
        };
        pair.map(LocalKey)
            .map_err(|e| Error::internal(format!("a key of {} is damaged: {e}", kind.name())))
    }
}

impl PrivateKey for LocalKey {
    fn kind(&self) -> KeyKind {
        match self.0 {
            Pair::Ed25519(_) => KeyKind::Ed25519,
            Pair::P256(_) => KeyKind::P256,
        }
    }

    fn public(&self) -> Vec<u8> {
        match &self.0 {
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            Pair::P256(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    fn sign(&self, bytes: &[u8]) -> Result<[u8; SIGNATURE_LEN], Error> {
        let made = match &self.0 {
            Pair::Ed25519(pair) => pair.try_sign(bytes),
            Pair::P256(pair) => pair.sign(&SystemRandom::new(), bytes),
        };
        let fixed = made.ok().and_then(|signature| {
            let bytes: &[u8] = signature.as_ref();
            bytes.try_into().ok()
        });
        fixed.ok_or_else(|| Error::internal(format!("a key of {} failed", self.kind().name())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};

    /// If it failed, nobody could check what the site signs.
    #[test]
    fn signatures_hold_under_the_public_key_alone() {
        for kind in [KeyKind::Ed25519, KeyKind::P256] {
            let der = LocalKey::generate(kind).unwrap();
            let key = LocalKey::from_pkcs8(kind, &der).unwrap();
            let public = key.public();
            assert_eq!((key.kind(), public.len()), (kind, kind.public_len()));
            let signature = key.sign(b"a word").unwrap();
            let holds = |text: &[u8]| match kind {
                KeyKind::Ed25519 => {
                    UnparsedPublicKey::new(&ED25519, &public).verify(text, &signature).is_ok()
                }
                KeyKind::P256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &public)
                    .verify(text, &signature)
                    .is_ok(),
            };
            assert!(holds(b"a word") && !holds(b"a world"), "{kind:?}");
        }
        let ed25519 = LocalKey::generate(KeyKind::Ed25519).unwrap();
        assert!(LocalKey::from_pkcs8(KeyKind::P256, &ed25519).is_err());
        assert!(LocalKey::from_pkcs8(KeyKind::Ed25519, b"x").is_err());
    }
}
