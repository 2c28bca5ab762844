//! Which entries of a VO's log concern whom: an index beside the log, written with each entry. A
//! person's page costs one search and one read an entry, however long the log is.

use super::{Registry, damaged, key, key_error, log_key, padded, prefix};
use crate::log;
use xos_api::vom::Entry;
use xos_base::{Error, PersonId, VoId};
use xos_store::{Key, StoreError};

/// Where it stands that an entry concerns a person.
pub(super) fn key_of(vo: &VoId, person: &PersonId, number: u64) -> Result<Key, Error> {
    key(&["vom", "about", vo.as_str(), person.as_str(), &padded(number)])
}

impl Registry {
    /// The entries that concern a person after a number, in order, at most `limit`; and whether
    /// more follow.
    ///
    /// # Errors
    /// Those of the store; [`xos_base::Kind::Internal`] when the log does not hold together.
    pub async fn about(
        &self,
        vo: &VoId,
        person: &PersonId,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<Entry>, bool), Error> {
        let below = prefix(&["vom", "about", vo.as_str(), person.as_str()])?;
        let from = key_of(vo, person, after)?;
        let page = self.store.scan(&below, Some(&from), limit.saturating_add(1)).await;
        let page = page.map_err(StoreError::told)?;
        let more = page.entries.len() > limit;
        let mut entries = Vec::new();
        for found in page.entries.into_iter().take(limit) {
            let number = found.key.last_segment().map_err(key_error)?;
            let number = std::str::from_utf8(&number).ok().and_then(|n| n.parse::<u64>().ok());
            let number = number.ok_or_else(|| damaged(vo, "its index names no entry"))?;
            let stored = self.store.get(&log_key(vo, number)?).await.map_err(StoreError::told)?;
            let stored = stored.ok_or_else(|| damaged(vo, format!("entry {number} is missing")))?;
            let jws = std::str::from_utf8(&stored.value);
            let jws = jws.map_err(|_| damaged(vo, "an entry is no text"))?;
            entries.push(log::reread(jws).map_err(|e| damaged(vo, e))?);
        }
        Ok((entries, more))
    }
}
