//! What is left of VOs that were erased.

use super::{Registry, encode, key, prefix};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xos_base::{Error, Millis, VoId};
use xos_store::{Guard, Key, OPS_MAX, Op, StoreError, TxnOutcome};

/// What is left of a VO that was erased: nothing of its people. Kept for good, so that nobody gets
/// the id again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grave {
    /// The VO.
    pub vo: VoId,
    /// The number of the last entry of its log.
    pub number: u64,
    /// When its home made that entry.
    pub at: Millis,
    /// The volumes that it had, as far as they were known here.
    pub volumes: Vec<String>,
    /// The signed last entry, which says that the VO is no more.
    pub jws: String,
    /// Whether all that was kept of it here is removed.
    pub clean: bool,
}

pub(super) fn grave_key(vo: &VoId) -> Result<Key, Error> {
    key(&["vom", "erased", vo.as_str()])
}

impl Registry {
    /// The VOs that were erased.
    ///
    /// # Errors
    /// Those of the store; [`xos_base::Kind::Internal`] for a damaged one.
    pub async fn graves(&self) -> Result<Vec<Grave>, Error> {
        let mut all = Vec::new();
        for (name, value, _) in self.all(&prefix(&["vom", "erased"])?).await? {
            all.push(read(&name, &value)?);
        }
        Ok(all)
    }

    /// Notes that a VO is no more.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn note_grave(&self, grave: &Grave) -> Result<(), Error> {
        let at = grave_key(&grave.vo)?;
        self.store.put(at, encode(grave)?).await.map_err(StoreError::told).map(|_| ())
    }

    /// Writes something about a VO, unless it is no more: what is written while it is cleared, or by
    /// another core of the site, would stay.
    ///
    /// # Errors
    /// [`xos_base::Kind::Conflict`] when it is no more; those of the store.
    pub(super) async fn put_of(&self, vo: &VoId, at: Key, value: Bytes) -> Result<(), Error> {
        let guard = vec![Guard::Absent(grave_key(vo)?)];
        match self.store.txn(guard, vec![Op::put(at, value)]).await.map_err(StoreError::told)? {
            TxnOutcome::Applied(_) => Ok(()),
            TxnOutcome::Conflict { .. } => Err(gone(vo)),
        }
    }

    /// Removes what is kept of a VO that is no more, but its grave and this site's side of its
    /// share: its uids and gids are nobody else's for good. The names of its accounts are removed
    /// by [`crate::names::Names::forget`].
    ///
    /// # Errors
    /// Those of the store; then some of it is left.
    pub async fn clear(&self, vo: &VoId) -> Result<(), Error> {
        for kind in ["private", "about", "vo"] {
            let below = prefix(&["vom", kind, vo.as_str()])?;
            loop {
                let page = self.store.scan(&below, None, OPS_MAX).await;
                let page = page.map_err(StoreError::told)?;
                if page.entries.is_empty() {
                    break;
                }
                let ops = page.entries.into_iter().map(|e| Op::Del(e.key)).collect();
                self.store.txn(Vec::new(), ops).await.map_err(StoreError::told)?;
            }
        }
        let mut ops = Vec::new();
        for kind in ["heard", "vos"] {
            ops.push(Op::Del(key(&["vom", kind, vo.as_str()])?));
        }
        self.store.txn(Vec::new(), ops).await.map_err(StoreError::told)?;
        Ok(())
    }
}

fn read(name: &str, value: &[u8]) -> Result<Grave, Error> {
    serde_json::from_slice(value).map_err(|e| {
        Error::internal(format!("the registry's note that {name} was erased: {e}"))
            .hint("restore the registry from a backup")
    })
}

/// What is told who writes about a VO that is no more, at another core of the site.
pub(super) fn gone(vo: &VoId) -> Error {
    Error::conflict(format!("{vo} was dissolved and erased: nothing is written of it any more"))
        .hint("found another one: `xos vo found`")
}
