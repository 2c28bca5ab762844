//! What this service keeps in the registry, below `cda/`.

use crate::passkeys::Book;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use xos_api::cda::Identity;
use xos_api::site::SiteDescriptor;
use xos_base::{Error, Millis, NodeId, PersonId, ProviderId, SiteId};
use xos_store::{Entry, Guard, Key, Op, Prefix, Store, StoreError, TxnOutcome, Version};

/// Most entries that a whole list (sites, machines, withdrawn keys) may have.
pub(crate) const LIST_MAX: usize = 100_000;

/// `cda/person/<name>`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PersonRecord {
    /// PHC string. Who came by a provider has none at first.
    #[serde(default)]
    pub(crate) password: Option<String>,
    pub(crate) disabled: bool,
    pub(crate) site_admin: bool,
    pub(crate) created: Millis,
    /// Sessions from before are over.
    pub(crate) sessions_from: Millis,
    /// Accounts at providers that are linked; each has its [`IdentityRecord`].
    #[serde(default)]
    pub(crate) identities: Vec<Identity>,
    /// Passkeys.
    #[serde(default)]
    pub(crate) passkeys: Book,
    /// The last way in that an administrator made.
    #[serde(default)]
    pub(crate) recovery: Option<RecoveryRecord>,
}

/// A recovery by an administrator, or a password that one set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecoveryRecord {
    pub(crate) by: PersonId,
    pub(crate) at: Millis,
    /// A hash of the recovery's code, until it was used.
    pub(crate) code: Option<String>,
}

/// `cda/passkey/<SHA-256 of the key's id>`: whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PasskeyRecord {
    pub(crate) person: PersonId,
}

/// `cda/oidc/<provider>/<key>`: whose account it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdentityRecord {
    pub(crate) person: PersonId,
}

/// `cda/join/<SHA-256 of the secret>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinRecord {
    pub(crate) node: NodeId,
    pub(crate) expires: Millis,
    /// The key that used it.
    pub(crate) used_by: Option<String>,
}

/// `cda/node/<label>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    pub(crate) joined: Millis,
    /// Keys with certificates that have not expired, newest first.
    pub(crate) keys: Vec<NodeKey>,
}

/// A node's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeKey {
    pub(crate) fingerprint: String,
    pub(crate) until: Millis,
}

/// `cda/banned/<fingerprint>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BanRecord {
    pub(crate) node: NodeId,
    /// When the last certificate for the key has expired.
    pub(crate) until: Millis,
}

/// `cda/site/<site>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SiteRecord {
    pub(crate) descriptor: SiteDescriptor,
    pub(crate) since: Millis,
}

/// `cda/offer/<site>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OfferRecord {
    /// Hex.
    pub(crate) secret: String,
    /// The only root that is accepted.
    pub(crate) fingerprint: Option<String>,
    pub(crate) expires: Millis,
    /// The root that accepted it.
    pub(crate) used_by: Option<String>,
}

/// A record as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Found<T> {
    pub(crate) key: Key,
    pub(crate) value: T,
    pub(crate) version: Version,
}

impl<T> Found<T> {
    /// Holds while nobody else has changed it.
    pub(crate) fn guard(&self) -> Guard {
        Guard::Is(self.key.clone(), self.version)
    }
}

/// The registry with this service's records.
#[derive(Clone)]
pub(crate) struct Registry {
    store: Arc<dyn Store>,
}

/// The key of one record.
pub(crate) fn key(kind: &str, name: &str) -> Result<Key, Error> {
    Key::of(["cda", kind, name]).map_err(|e| Error::internal(format!("registry: {e}")))
}

/// The key of a person.
pub(crate) fn person_key(person: &PersonId) -> Result<Key, Error> {
    key("person", person.name())
}

/// The key of an account at a provider.
pub(crate) fn identity_key(provider: &ProviderId, account: &str) -> Result<Key, Error> {
    Key::of(["cda", "oidc", provider.as_str(), account])
        .map_err(|e| Error::internal(format!("registry: {e}")))
}

/// The key of a passkey.
pub(crate) fn passkey_key(passkey: &str) -> Result<Key, Error> {
    key("passkey", passkey)
}

/// The key of a trusted site.
pub(crate) fn site_key(site: &SiteId) -> Result<Key, Error> {
    key("site", site.as_str())
}

/// A write of `value`.
pub(crate) fn put<T: Serialize>(key: Key, value: &T) -> Result<Op, Error> {
    let json = serde_json::to_vec(value)
        .map_err(|e| Error::internal(format!("cannot encode a record: {e}")))?;
    Ok(Op::put(key, Bytes::from(json)))
}

fn parse<T: DeserializeOwned>(entry: Entry) -> Result<Found<T>, Error> {
    let value = serde_json::from_slice(&entry.value).map_err(|e| {
        Error::internal(format!("registry entry {} is not understood: {e}", entry.key))
            .hint("it was written by another version")
    })?;
    Ok(Found { key: entry.key, value, version: entry.version })
}

impl Registry {
    pub(crate) fn new(store: Arc<dyn Store>) -> Registry {
        Registry { store }
    }

    pub(crate) async fn read<T: DeserializeOwned>(
        &self,
        key: &Key,
    ) -> Result<Option<Found<T>>, Error> {
        self.store.get(key).await.map_err(StoreError::told)?.map(parse).transpose()
    }

    /// Whether it happened; `false` when a guard did not hold.
    pub(crate) async fn change(&self, guards: Vec<Guard>, ops: Vec<Op>) -> Result<bool, Error> {
        match self.store.txn(guards, ops).await.map_err(StoreError::told)? {
            TxnOutcome::Applied(_) => Ok(true),
            TxnOutcome::Conflict { .. } => Ok(false),
        }
    }

    /// As [`Registry::change`], where a guard that does not hold means that somebody else changed
    /// `what` meanwhile.
    pub(crate) async fn apply(
        &self,
        guards: Vec<Guard>,
        ops: Vec<Op>,
        what: &str,
    ) -> Result<(), Error> {
        if self.change(guards, ops).await? {
            return Ok(());
        }
        Err(Error::conflict(format!("{what} was changed by somebody else meanwhile"))
            .hint("look at it and try again"))
    }

    /// A write that vanishes by itself after `life`.
    pub(crate) async fn put_for<T: Serialize>(
        &self,
        key: Key,
        value: &T,
        life: Duration,
    ) -> Result<Op, Error> {
        let lease = self.store.lease(life).await.map_err(StoreError::told)?;
        match put(key, value)? {
            Op::Put { key, value, .. } => Ok(Op::put_leased(key, value, lease)),
            other => Ok(other),
        }
    }

    /// A page of records of `kind`, with their names.
    pub(crate) async fn page<T: DeserializeOwned>(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<(String, T)>, bool), Error> {
        let prefix =
            Prefix::of(["cda", kind]).map_err(|e| Error::internal(format!("registry: {e}")))?;
        let after = after.map(|a| key(kind, a)).transpose()?;
        let page =
            self.store.scan(&prefix, after.as_ref(), limit).await.map_err(StoreError::told)?;
        let mut out = Vec::with_capacity(page.entries.len());
        for entry in page.entries {
            let name = entry.key.last_segment().ok().and_then(|s| String::from_utf8(s).ok());
            let name = name.ok_or_else(|| {
                Error::internal(format!("registry entry {} has a bad name", entry.key))
            })?;
            out.push((name, parse::<T>(entry)?.value));
        }
        Ok((out, page.next.is_some()))
    }

    /// All records of `kind`, with their names.
    pub(crate) async fn all<T: DeserializeOwned>(
        &self,
        kind: &str,
    ) -> Result<Vec<(String, T)>, Error> {
        let mut out: Vec<(String, T)> = Vec::new();
        loop {
            let after = out.last().map(|(name, _)| name.clone());
            let (part, more) =
                self.page(kind, after.as_deref(), xos_store::PAGE_ENTRIES_MAX).await?;
            out.extend(part);
            if !more {
                return Ok(out);
            }
            if out.len() >= LIST_MAX {
                return Err(Error::internal(format!("more than {LIST_MAX} entries in cda/{kind}")));
            }
        }
    }
}
