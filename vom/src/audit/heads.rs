//! How far other sites' audits are, as they signed it: kept here, so that none of them can change
//! or cut off what came before.
//!
//! Of each site the newest head is kept, and one an hour of the last days.
//!
//! | key | content |
//! | --- | --- |
//! | `vom/audit/newest/<site>` | [`Held`] |
//! | `vom/audit/hour/<site>/<hour>` | [`Held`]: the first of that hour |

use crate::registry::{encode, key, padded, prefix};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::Mutex;
use xos_api::audit::{AuditHead, AuditHeads, HEAD_STATEMENT_MAX, HeldHead};
use xos_base::{Error, Millis, SiteId};
use xos_store::{Op, Store, StoreError};

use super::Witness;

/// For how many hours one head each is kept.
pub(crate) const HOURS_KEPT: u64 = 7 * 24;
/// Most that are read: those, and some that are to be removed.
const HELD_MAX: usize = HOURS_KEPT as usize + 32;
/// How many old ones are removed when a new one comes.
const REMOVED_MAX: usize = 8;

/// A head as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    heard: Millis,
    statement: String,
}

/// What became of a head that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It is the newest now, or says nothing new.
    Taken,
    /// It cannot be of the same audit as this one, which is kept.
    Contradicts(String),
}

/// The heads of other sites' audits.
pub(crate) struct Heads {
    store: Arc<dyn Store>,
    /// Held while one is looked at and stored.
    recording: Mutex<()>,
}

/// The content of a statement whose signature was verified when it came.
pub fn reread(statement: &str) -> Option<AuditHead> {
    let payload = statement.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// What heads witness of the audit of `heads.site`; `open` verifies a statement. The second part
/// says how many are not that site's word.
pub fn witnesses(
    heads: &AuditHeads,
    open: impl Fn(&str) -> Option<AuditHead>,
) -> (Vec<Witness>, usize) {
    let mut witnesses = Vec::with_capacity(heads.held.len());
    for held in &heads.held {
        let fits = held.statement.len() <= HEAD_STATEMENT_MAX;
        let head = fits.then(|| open(&held.statement)).flatten();
        if let Some(head) = head.filter(|head| head.site == heads.site) {
            let (number, hash) = (head.number, head.hash);
            witnesses.push(Witness { by: held.by.clone(), number, hash });
        }
    }
    let refused = heads.held.len() - witnesses.len();
    (witnesses, refused)
}

/// What a head says beside the newest that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    New,
    Known,
    /// It was signed before that one and came late.
    Late,
    Contradiction,
}

fn compare(newest: &AuditHead, head: &AuditHead) -> Word {
    if head.number > newest.number {
        Word::New
    } else if head.number == newest.number {
        if head.hash == newest.hash { Word::Known } else { Word::Contradiction }
    } else if head.time < newest.time {
        Word::Late
    } else {
        // An audit never becomes shorter.
        Word::Contradiction
    }
}

impl Heads {
    /// Over a store.
    pub(crate) fn new(store: Arc<dyn Store>) -> Heads {
        Heads { store, recording: Mutex::new(()) }
    }

    /// Keeps a head of `site`, whose signature was verified.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn record(
        &self,
        site: &SiteId,
        (head, statement): (&AuditHead, &str),
        now: Millis,
    ) -> Result<Recorded, Error> {
        let _turn = self.recording.lock().await;
        let newest = self.newest(site).await?;
        let known = newest.as_ref().and_then(|h| reread(&h.statement));
        let word = known.as_ref().map_or(Word::New, |known| compare(known, head));
        match (word, newest) {
            (Word::Contradiction, Some(newest)) => Ok(Recorded::Contradicts(newest.statement)),
            (Word::New, _) => {
                self.put(site, statement, now).await?;
                Ok(Recorded::Taken)
            }
            (Word::Late, _) => self.against(site, head).await,
            _ => Ok(Recorded::Taken),
        }
    }

    /// The heads of `site` that are kept, the newest first.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn of(&self, site: &SiteId, own: &SiteId) -> Result<Vec<HeldHead>, Error> {
        let mut all = self.hourly(site).await?;
        all.extend(self.newest(site).await?);
        all.reverse();
        all.dedup();
        let held = |h: Held| HeldHead { by: own.clone(), heard: h.heard, statement: h.statement };
        Ok(all.into_iter().map(held).collect())
    }

    /// Whether a head of old says something else than the one of the same number that is kept.
    async fn against(&self, site: &SiteId, head: &AuditHead) -> Result<Recorded, Error> {
        let kept = self.hourly(site).await?;
        let other = kept.into_iter().find(|held| {
            let same = |h: &AuditHead| h.number == head.number && h.hash != head.hash;
            reread(&held.statement).is_some_and(|h| same(&h))
        });
        Ok(other.map_or(Recorded::Taken, |held| Recorded::Contradicts(held.statement)))
    }

    async fn newest(&self, site: &SiteId) -> Result<Option<Held>, Error> {
        let at = key(&["vom", "audit", "newest", site.as_str()])?;
        let entry = self.store.get(&at).await.map_err(StoreError::told)?;
        Ok(entry.and_then(|e| serde_json::from_slice(&e.value).ok()))
    }

    async fn hourly(&self, site: &SiteId) -> Result<Vec<Held>, Error> {
        let below = prefix(&["vom", "audit", "hour", site.as_str()])?;
        let page = self.store.scan(&below, None, HELD_MAX).await.map_err(StoreError::told)?;
        let held = page.entries.iter().filter_map(|e| serde_json::from_slice(&e.value).ok());
        Ok(held.collect())
    }

    async fn put(&self, site: &SiteId, statement: &str, now: Millis) -> Result<(), Error> {
        let held = encode(&Held { heard: now, statement: statement.to_owned() })?;
        let mut ops = vec![Op::put(key(&["vom", "audit", "newest", site.as_str()])?, held.clone())];
        let hour = now.secs() / 3600;
        let this = key(&["vom", "audit", "hour", site.as_str(), &padded(hour)])?;
        if self.store.get(&this).await.map_err(StoreError::told)?.is_none() {
            ops.push(Op::put(this, held));
            let below = prefix(&["vom", "audit", "hour", site.as_str()])?;
            let oldest = key(&[
                "vom",
                "audit",
                "hour",
                site.as_str(),
                &padded(hour.saturating_sub(HOURS_KEPT)),
            ])?;
            let page =
                self.store.scan(&below, None, REMOVED_MAX).await.map_err(StoreError::told)?;
            let old = page.entries.into_iter().filter(|e| e.key < oldest);
            ops.extend(old.map(|e| Op::Del(e.key)));
        }
        self.store.txn(Vec::new(), ops).await.map_err(StoreError::told)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_store::MemoryStore;

    fn head(number: u64, hash: &str, time: u64) -> AuditHead {
        let site = "pisa".parse().unwrap();
        AuditHead { site, number, hash: hash.to_owned(), time: Millis(time) }
    }

    fn signed(head: &AuditHead) -> String {
        format!("h.{}.s", URL_SAFE_NO_PAD.encode(serde_json::to_vec(head).unwrap()))
    }

    /// If it failed, a site could write its history anew and have others forget what they saw.
    #[tokio::test]
    async fn a_head_that_goes_back_or_contradicts_is_not_taken() {
        let heads = Heads::new(Arc::new(MemoryStore::new()));
        let pisa: SiteId = "pisa".parse().unwrap();
        let first = head(5, "a", 10);
        let record = async |h: &AuditHead| {
            heads.record(&pisa, (h, &signed(h)), Millis::from_secs(7200)).await.unwrap()
        };
        assert_eq!(record(&first).await, Recorded::Taken);
        assert_eq!(record(&first).await, Recorded::Taken, "told twice");
        let next = head(9, "c", 20);
        assert_eq!(record(&next).await, Recorded::Taken);
        assert_eq!(record(&first).await, Recorded::Taken, "an old one came late");
        let kept = || Recorded::Contradicts(signed(&next));
        assert_eq!(record(&head(9, "d", 30)).await, kept());
        assert_eq!(record(&head(7, "b", 30)).await, kept(), "it became shorter");
        // Backdated: the first of the hour is still there.
        let back = record(&head(5, "x", 9)).await;
        assert_eq!(back, Recorded::Contradicts(signed(&first)));
        let of = heads.of(&pisa, &"rennes".parse().unwrap()).await.unwrap();
        let told: Vec<_> = of.iter().map(|h| h.statement.clone()).collect();
        assert_eq!(told, [signed(&next), signed(&first)]);
    }

    /// If it failed, each site's registry would grow for ever by what others send.
    #[tokio::test]
    async fn one_head_an_hour_is_kept_for_some_days() {
        let heads = Heads::new(Arc::new(MemoryStore::new()));
        let pisa: SiteId = "pisa".parse().unwrap();
        for hour in 1..HOURS_KEPT + 30 {
            for part in 0..3 {
                let h = head(hour * 10 + part, "a", hour * 10 + part);
                let now = Millis::from_secs(hour * 3600 + part * 600);
                heads.record(&pisa, (&h, &signed(&h)), now).await.unwrap();
            }
        }
        let of = heads.of(&pisa, &"rennes".parse().unwrap()).await.unwrap();
        let most = usize::try_from(HOURS_KEPT).unwrap() + 2;
        assert!(of.len() <= most && of.len() > most - 4, "{}", of.len());
        let newest = reread(&of[0].statement).unwrap();
        assert_eq!(newest.number, (HOURS_KEPT + 29) * 10 + 2);
    }
}
