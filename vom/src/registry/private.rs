//! What people say of themselves and the log only names: answers of applicants, for whom an
//! invitation is meant.
//!
//! The log of a VO goes to every site that serves it, and keeps for good what it holds. So it holds
//! a salted digest, and what was said lies here, with its salt, at the VO's home alone. It is
//! erased when nothing names it any more; without the salt the digest says nothing.

use super::{READ_ENTRIES, Registry, encode, key, key_error, prefix};
use crate::log;
use crate::state::Whose;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use xos_base::{Error, Millis, VoId};
use xos_store::{Key, Op, StoreError};

/// What is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Private {
    salt: String,
    /// Since when.
    since: Millis,
    text: String,
    whose: Whose,
}

fn digest(salt: &str, text: &str) -> String {
    log::hash(&format!("{salt}.{text}"))
}

fn key_of(vo: &VoId, digest: &str) -> Result<Key, Error> {
    key(&["vom", "private", vo.as_str(), digest])
}

impl Registry {
    /// Keeps a text and says its digest, by which it is found again.
    ///
    /// # Errors
    /// Those of the store; [`xos_base::Kind::Internal`] without random bytes;
    /// [`xos_base::Kind::Conflict`] when the VO is no more.
    pub async fn keep_private(
        &self,
        vo: &VoId,
        whose: Whose,
        text: String,
        now: Millis,
    ) -> Result<String, Error> {
        let mut salt = [0; 32];
        aws_lc_rs::rand::fill(&mut salt)
            .map_err(|_| Error::internal("the system gives no random bytes"))?;
        let salt = STANDARD.encode(salt);
        let digest = digest(&salt, &text);
        let kept = encode(&Private { salt, since: now, text, whose })?;
        self.put_of(vo, key_of(vo, &digest)?, kept).await?;
        Ok(digest)
    }

    /// What is kept by that digest; `None` when it was erased.
    ///
    /// # Errors
    /// Those of the store; [`xos_base::Kind::Internal`] when it is not what the log names.
    pub async fn private(&self, vo: &VoId, name: &str) -> Result<Option<String>, Error> {
        let found = self.store.get(&key_of(vo, name)?).await.map_err(StoreError::told)?;
        let Some(found) = found else { return Ok(None) };
        match serde_json::from_slice::<Private>(&found.value) {
            Ok(kept) if digest(&kept.salt, &kept.text) == name => Ok(Some(kept.text)),
            _ => Err(Error::internal(format!(
                "what the registry keeps of {vo} as {name} was altered"
            ))
            .hint("restore the registry from a backup")),
        }
    }

    /// Erases what is kept by that digest.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn erase_private(&self, vo: &VoId, name: &str) -> Result<(), Error> {
        let del = vec![Op::Del(key_of(vo, name)?)];
        self.store.txn(Vec::new(), del).await.map_err(StoreError::told).map(|_| ())
    }

    /// Erases what was kept before `before` and is not `named`, looking only at what is kept; how
    /// much that was.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn erase_unnamed(
        &self,
        vo: &VoId,
        named: impl Fn(&Whose, &str) -> bool,
        before: Millis,
    ) -> Result<usize, Error> {
        let below = prefix(&["vom", "private", vo.as_str()])?;
        let (mut after, mut erased) = (None, 0);
        loop {
            let page = self.store.scan(&below, after.as_ref(), READ_ENTRIES).await;
            let page = page.map_err(StoreError::told)?;
            for found in &page.entries {
                let name = found.key.last_segment().map_err(key_error)?;
                let kept = serde_json::from_slice::<Private>(&found.value);
                let name = String::from_utf8_lossy(&name);
                if kept.is_ok_and(|k| k.since < before && !named(&k.whose, &name)) {
                    self.erase_private(vo, &name).await?;
                    erased += 1;
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(erased),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use xos_base::Kind;
    use xos_store::{MemoryStore, Store};

    /// If it failed, answers of people who left would stay at the home, those of others vanish, or
    /// altered ones be shown as theirs.
    #[tokio::test]
    async fn what_is_kept_is_found_by_its_digest_until_nothing_names_it() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let registry = Registry::new(store.clone());
        let vo: VoId = "demo.rennes".parse().unwrap();
        let whose = || Whose::Person("bob@pisa".parse().unwrap());
        let keep =
            |text: &str, at| registry.keep_private(&vo, whose(), text.to_owned(), Millis(at));
        let (a, b) = (keep("same", 1).await.unwrap(), keep("same", 2).await.unwrap());
        let c = keep("young", 50).await.unwrap();
        assert_ne!(a, b, "equal answers cannot be told from the digest");
        assert_eq!(registry.private(&vo, &a).await.unwrap().as_deref(), Some("same"));
        let named = |of: &Whose, digest: &str| *of == whose() && digest == a;
        assert_eq!(registry.erase_unnamed(&vo, named, Millis(50)).await.unwrap(), 1);
        assert_eq!(registry.private(&vo, &b).await.unwrap(), None);
        assert!(registry.private(&vo, &a).await.unwrap().is_some(), "it is named");
        assert!(registry.private(&vo, &c).await.unwrap().is_some(), "its entry is under way");
        registry.erase_private(&vo, &a).await.unwrap();
        assert_eq!(registry.private(&vo, &a).await.unwrap(), None);
        let (salt, text) = ("x".to_owned(), "no".to_owned());
        let other = encode(&Private { salt, since: Millis(1), text, whose: whose() });
        store.put(key_of(&vo, &c).unwrap(), other.unwrap()).await.unwrap();
        assert_eq!(registry.private(&vo, &c).await.unwrap_err().kind, Kind::Internal);
    }
}
