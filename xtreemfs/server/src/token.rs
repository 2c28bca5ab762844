//! Signing and verifying capability tokens (Ed25519).

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use bytes::Bytes;
use prost::Message;
use xtreemfs_proto::Capability;
use xtreemfs_proto::capability::{SIGNATURE_BYTES, TOKEN_BYTES_MAX, join, signing_input, split};

/// Why a token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The seed is no Ed25519 key: the embedding must give 32 random bytes.
    #[error("signing key refused: {0}")]
    Key(String),
    /// The capability is too large: the volume's OSD ids are too long.
    #[error("capability of {0} bytes is too large to sign")]
    TooLong(usize),
}

/// An Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// Signs the capabilities of one MRC.
pub struct Signer {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("public", &self.public).finish_non_exhaustive()
    }
}

impl Signer {
    /// A signer from 32 secret random bytes.
    ///
    /// # Errors
    /// [`SignError::Key`].
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, SignError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|error| SignError::Key(error.to_string()))?;
        let public = <[u8; 32]>::try_from(pair.public_key().as_ref())
            .map_err(|error| SignError::Key(error.to_string()))?;
        Ok(Self { pair, public: PublicKey(public) })
    }

    /// The key that verifies what this one signs.
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// Makes the token of a capability.
    ///
    /// # Errors
    /// [`SignError::TooLong`].
    pub fn sign(&self, capability: &Capability) -> Result<Bytes, SignError> {
        let body = capability.encode_to_vec();
        if body.len() + SIGNATURE_BYTES > TOKEN_BYTES_MAX {
            return Err(SignError::TooLong(body.len()));
        }
        let signature = self.pair.sign(&signing_input(&body));
        let signature = <[u8; SIGNATURE_BYTES]>::try_from(signature.as_ref())
            .map_err(|error| SignError::Key(error.to_string()))?;
        Ok(join(&signature, &body))
    }
}

/// A token whose signature has not been checked.
#[derive(Debug)]
pub struct Unverified<'a> {
    capability: Capability,
    signature: &'a [u8; SIGNATURE_BYTES],
    body: &'a [u8],
}

impl<'a> Unverified<'a> {
    /// Takes a token apart; `None` if it is none.
    pub fn parse(token: &'a [u8]) -> Option<Self> {
        let (signature, body) = split(token)?;
        let capability = Capability::decode(body).ok()?;
        Some(Self { capability, signature, body })
    }

    /// VO and volume that the token claims to be for: to find the key with.
    pub fn claimed_place(&self) -> (&str, &str) {
        (&self.capability.vo, &self.capability.volume)
    }

    /// Checks the signature; `None` if it is not by `key`.
    pub fn verify(self, key: &PublicKey) -> Option<Capability> {
        let key = UnparsedPublicKey::new(&ED25519, &key.0);
        key.verify(&signing_input(self.body), self.signature).ok()?;
        Some(self.capability)
    }
}
