//! Passkeys as they stand in a person's record.

use serde::{Deserialize, Serialize};
use webauthn_rs::prelude::{Passkey, Uuid};
use xos_api::cda;
use xos_base::Millis;
use xos_net::identity::{hex, sha256};

/// The part of a person's record about passkeys.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Book {
    /// Under which their devices know the person; random, from the first passkey on.
    #[serde(default)]
    pub(crate) handle: Option<Uuid>,
    /// In the order of adding; each has its [`crate::registry::PasskeyRecord`].
    #[serde(default)]
    pub(crate) keys: Vec<Entry>,
    /// One is wanted after each other way to sign in.
    #[serde(default)]
    pub(crate) second_factor: bool,
}

/// One passkey.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) passkey: Passkey,
    pub(crate) name: String,
    pub(crate) created: Millis,
    pub(crate) last_used: Option<Millis>,
}

/// What names a passkey here: a hash of its id, which may be long.
pub(crate) fn id_key(id: &[u8]) -> String {
    hex(&sha256(id))
}

impl Entry {
    /// What names it here.
    pub(crate) fn key(&self) -> String {
        id_key(self.passkey.cred_id())
    }

    /// What its owner sees.
    pub(crate) fn view(&self) -> cda::Passkey {
        cda::Passkey {
            key: self.key(),
            name: self.name.clone(),
            created: self.created,
            last_used: self.last_used,
        }
    }
}

impl Book {
    /// The place of a passkey in the list.
    pub(crate) fn find(&self, key: &str) -> Option<usize> {
        self.keys.iter().position(|k| k.key() == key)
    }
}
