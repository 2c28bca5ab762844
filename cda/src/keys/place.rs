//! Where private keys are kept: in files, or in a vault with a reference in the file.

use super::blocks::{Block, damaged};
use std::path::PathBuf;
use std::sync::Arc;
use xos_base::{Error, SiteId};
use xos_net::key::{KeyId, KeyKind, LocalKey, PrivateKey, Vault};
use zeroize::Zeroizing;

const IN_FILE: &str = "PRIVATE KEY";
const IN_VAULT: &str = "XOS TOKEN KEY";
const PUBLIC_ONLY: &str = "XOS FORMER KEY";
/// A key that no file names any more. It is destroyed once the core does not use it.
const DROPPED: &str = "XOS DROPPED TOKEN KEY";

/// The folder of keys, and the vault in which new ones are made.
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) vault: Option<Arc<dyn Vault>>,
}

/// What people see beside a key in the vault.
pub(crate) fn label(site: &SiteId, purpose: &str) -> String {
    format!("xos {site} {purpose}")
}

/// What is kept of a key.
#[derive(Clone)]
pub(crate) enum Kept {
    /// All of it: PKCS #8 DER.
    File(Zeroizing<Vec<u8>>),
    /// What finds it in the vault, and its public key.
    Vault(KeyId, Vec<u8>),
    /// Its public key alone: it signs no more.
    Public(Vec<u8>),
}

impl Kept {
    /// Reads a block of `file`; nothing when it is no key.
    pub(crate) fn read(file: &str, kind: KeyKind, block: &Block) -> Result<Option<Kept>, Error> {
        let wrong = || damaged(file, "a key has a wrong length");
        let public = |bytes: &[u8]| match bytes.len() == kind.public_len() {
            true => Ok(bytes.to_vec()),
            false => Err(wrong()),
        };
        Ok(Some(match block.label.as_str() {
            IN_FILE => Kept::File(block.bytes.clone()),
            IN_VAULT => {
                let (id, key) = block.bytes.split_first_chunk().ok_or_else(wrong)?;
                Kept::Vault(KeyId(*id), public(key)?)
            }
            PUBLIC_ONLY => Kept::Public(public(&block.bytes)?),
            _ => return Ok(None),
        }))
    }

    /// Its block.
    pub(crate) fn block(&self) -> Block {
        match self {
            Kept::File(der) => Block::new(IN_FILE, der),
            Kept::Vault(id, public) => {
                Block::new(IN_VAULT, &[id.0.as_slice(), public.as_slice()].concat())
            }
            Kept::Public(public) => Block::new(PUBLIC_ONLY, public),
        }
    }

    /// Whether it can sign.
    pub(crate) fn signs(&self) -> bool {
        !matches!(self, Kept::Public(_))
    }

    /// The public key, without asking the vault.
    pub(crate) fn public(&self, kind: KeyKind) -> Result<Vec<u8>, Error> {
        match self {
            Kept::File(der) => Ok(LocalKey::from_pkcs8(kind, der)?.public()),
            Kept::Vault(_, public) | Kept::Public(public) => Ok(public.clone()),
        }
    }
}

impl Place {
    /// Makes a key; `label` is what people see beside it in the vault.
    pub(crate) fn make(&self, kind: KeyKind, label: &str) -> Result<Kept, Error> {
        match &self.vault {
            None => LocalKey::generate(kind).map(Kept::File),
            Some(vault) => vault.make(kind, label).map(|(id, public)| Kept::Vault(id, public)),
        }
    }

    /// The key, ready to sign.
    pub(crate) fn open(&self, kind: KeyKind, kept: &Kept) -> Result<Arc<dyn PrivateKey>, Error> {
        match (kept, &self.vault) {
            (Kept::File(der), _) => Ok(Arc::new(LocalKey::from_pkcs8(kind, der)?)),
            (Kept::Vault(id, public), Some(vault)) => vault.key(kind, *id, public),
            (Kept::Vault(..), None) => Err(Error::invalid("the site's keys lie in a token")
                .hint("the section [cda.pkcs11] says which; put it back")),
            (Kept::Public(_), _) => Err(Error::internal("a key that signs no more was to sign")),
        }
    }

    /// Destroys a key in the vault; whether it is gone. Nothing signs by it any more, and nobody
    /// takes its signatures, so that it can be tried again later.
    pub(crate) fn is_destroyed(&self, id: KeyId) -> bool {
        let Some(vault) = &self.vault else { return false };
        match vault.destroy(id) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "a key that is used no more is still in the token");
                false
            }
        }
    }
}

/// Reads a block of `file`; nothing when it is no key that is to be destroyed.
pub(crate) fn dropped(file: &str, block: &Block) -> Result<Option<KeyId>, Error> {
    if block.label != DROPPED {
        return Ok(None);
    }
    match <[u8; 16]>::try_from(block.bytes.as_slice()) {
        Ok(id) => Ok(Some(KeyId(id))),
        Err(_) => Err(damaged(file, "the name of a key has a wrong length")),
    }
}

/// The block of such a key.
pub(crate) fn dropped_block(id: &KeyId) -> Block {
    Block::new(DROPPED, &id.0)
}
