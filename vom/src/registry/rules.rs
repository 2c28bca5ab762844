//! The site's rules in the registry.

use super::{PART_BYTES, Registry, encode, key, prefix};
use crate::rules::Book;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xos_api::policy::RulesChange;
use xos_base::Error;
use xos_store::{Guard, Op, StoreError, TxnOutcome, Version};

/// How often the rules are read again when they change meanwhile.
const READ_TRIES: usize = 5;

/// What is known of the rules beside their text.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    version: u64,
    parts: usize,
    changes: Vec<RulesChange>,
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::internal(format!("the registry's rules of the site are damaged: {what}"))
        .hint("restore the registry from a backup")
}

impl Registry {
    /// The site's rules, and which state of them that is.
    ///
    /// # Errors
    /// Those of the store; [`xos_base::Kind::Internal`] for damaged ones.
    pub async fn rules(&self) -> Result<(Book, Option<Version>), Error> {
        for _ in 0..READ_TRIES {
            let Some((head, version)) = self.rules_head().await? else {
                return Ok((Book::of_site(), None));
            };
            let mut bytes = Vec::new();
            let parts = self.all(&prefix(&["vom", "rules", "part"])?).await?;
            for (_, part, _) in parts.into_iter().take(head.parts) {
                bytes.extend_from_slice(&part);
            }
            let after = self.rules_head().await?.map(|(_, version)| version);
            if after != Some(version) {
                continue;
            }
            let rules = serde_json::from_slice(&bytes).map_err(damaged)?;
            return Ok((Book::kept(head.version, rules, head.changes), Some(version)));
        }
        Err(Error::unavailable("the site's rules change all the time").hint("try again"))
    }

    /// The version of the site's rules as they are stored; `None`: they were never set.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn rules_version(&self) -> Result<Option<Version>, Error> {
        Ok(self.rules_head().await?.map(|(_, version)| version))
    }

    async fn rules_head(&self) -> Result<Option<(Head, Version)>, Error> {
        let at = key(&["vom", "rules", "head"])?;
        let Some(entry) = self.store.get(&at).await.map_err(StoreError::told)? else {
            return Ok(None);
        };
        let head = serde_json::from_slice(&entry.value).map_err(damaged)?;
        Ok(Some((head, entry.version)))
    }

    /// Stores the site's rules, unless they changed after the state `former`: then `None`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn put_rules(
        &self,
        book: &Book,
        former: Option<Version>,
    ) -> Result<Option<Version>, Error> {
        let at = key(&["vom", "rules", "head"])?;
        let text = encode(&book.rules().collect::<Vec<_>>())?;
        let chunks: Vec<&[u8]> = text.chunks(PART_BYTES).collect();
        let (version, changes) = (book.version, book.changes().to_vec());
        let head = Head { version, parts: chunks.len(), changes };
        let guard = match former {
            Some(version) => Guard::Is(at.clone(), version),
            None => Guard::Absent(at.clone()),
        };
        // What a longer list left behind is beyond what the head counts.
        let mut ops = vec![Op::put(at, encode(&head)?)];
        for (index, chunk) in chunks.into_iter().enumerate() {
            let at = key(&["vom", "rules", "part", &format!("{index:06}")])?;
            ops.push(Op::put(at, Bytes::copy_from_slice(chunk)));
        }
        match self.store.txn(vec![guard], ops).await.map_err(StoreError::told)? {
            TxnOutcome::Applied(version) => Ok(Some(version)),
            TxnOutcome::Conflict { .. } => Ok(None),
        }
    }
}
