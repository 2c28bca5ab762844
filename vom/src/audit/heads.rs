//! How far other sites' audits are, as they signed it: kept here, so that none of them can change
//! or cut off what came before.
//!
//! A head with a higher number is taken without a look at the lines between, which this site does
//! not have. So the heads before it must stay: a history that was written anew fits none of them.
//! Each is kept for some days, later one an hour.
//!
//! | key | content |
//! | --- | --- |
//! | `vom/audit/newest/<site>` | [`Newest`] |
//! | `vom/audit/recent/<site>/<number>` | [`Held`]: each of the last days |
//! | `vom/audit/hour/<site>/<number>` | [`Held`]: the first of each hour before |

use crate::registry::{encode, key, padded, prefix};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use xos_api::audit::{AuditHead, AuditHeads, HEAD_STATEMENT_MAX, HEADS_MAX, HeldHead};
use xos_base::{Error, Millis, SiteId};
use xos_store::{Key, Op, Store, StoreError};

use super::Witness;

/// For how long each head is kept.
pub(crate) const RECENT_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// For how long one an hour is kept.
pub(crate) const HOURLY_KEPT: Duration = Duration::from_secs(90 * 86_400);
/// A head that comes sooner after one that is kept is the newest for a while, and then forgotten.
/// An honest site has none of that kind: it tells of its audit every ten seconds.
const KEPT_EVERY: Duration = Duration::from_secs(5);
/// How many old ones are looked at when a new one comes.
const REMOVED_MAX: usize = 8;

/// A head as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    number: u64,
    heard: Millis,
    /// It is the first of its hour.
    hourly: bool,
    statement: String,
}

/// The newest head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Newest {
    held: Held,
    /// When the last one came that is kept: this, or one before.
    kept: Millis,
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
    /// Who does not answer what they hold.
    pub(super) silent: super::exchange::Silent,
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

/// How far two times are from one another: a clock that was set must not keep anything for ever.
fn apart(a: Millis, b: Millis) -> Duration {
    a.since(b).max(b.since(a))
}

fn head_key(table: &str, site: &SiteId, number: u64) -> Result<Key, Error> {
    key(&["vom", "audit", table, site.as_str(), &padded(number)])
}

impl Heads {
    /// Over a store.
    pub(crate) fn new(store: Arc<dyn Store>) -> Heads {
        Heads { store, recording: Mutex::new(()), silent: Default::default() }
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
        let known = newest.as_ref().and_then(|n| reread(&n.held.statement));
        let word = known.as_ref().map_or(Word::New, |known| compare(known, head));
        match (word, newest) {
            (Word::Contradiction, Some(newest)) => Ok(Recorded::Contradicts(newest.held.statement)),
            (Word::New, newest) => {
                let kept = newest.map(|n| n.kept);
                self.put(site, (head.number, statement), kept, now).await?;
                Ok(Recorded::Taken)
            }
            (Word::Late, _) => self.against(site, head).await,
            _ => Ok(Recorded::Taken),
        }
    }

    /// A part of the heads of `site` that are kept, and behind which number to go on: without
    /// `after` the newest and then the first ones; else those with higher numbers.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn of(
        &self,
        site: &SiteId,
        own: &SiteId,
        after: Option<u64>,
    ) -> Result<(Vec<HeldHead>, Option<u64>), Error> {
        let newest = self.newest(site).await?.map(|n| n.held);
        let (mut all, more) = self.page(site, after).await?;
        let next = all.last().map(|held| held.number).filter(|_| more);
        if let Some(newest) = newest {
            match after {
                None => {
                    all.retain(|held| held.number != newest.number);
                    all.insert(0, newest);
                }
                Some(after) => {
                    let last = all.last().map_or(after, |held| held.number);
                    all.extend((!more && newest.number > last).then_some(newest));
                }
            }
        }
        let held = |h: Held| HeldHead { by: own.clone(), heard: h.heard, statement: h.statement };
        Ok((all.into_iter().map(held).collect(), next))
    }

    /// Whether a head of old says something else than the one of the same number that is kept.
    async fn against(&self, site: &SiteId, head: &AuditHead) -> Result<Recorded, Error> {
        for table in ["recent", "hour"] {
            let at = head_key(table, site, head.number)?;
            let Some(entry) = self.store.get(&at).await.map_err(StoreError::told)? else {
                continue;
            };
            let Ok(held) = serde_json::from_slice::<Held>(&entry.value) else { continue };
            if reread(&held.statement).is_some_and(|kept| kept.hash != head.hash) {
                return Ok(Recorded::Contradicts(held.statement));
            }
        }
        Ok(Recorded::Taken)
    }

    async fn newest(&self, site: &SiteId) -> Result<Option<Newest>, Error> {
        let at = key(&["vom", "audit", "newest", site.as_str()])?;
        let entry = self.store.get(&at).await.map_err(StoreError::told)?;
        Ok(entry.and_then(|e| serde_json::from_slice(&e.value).ok()))
    }

    /// Those behind `after`, by their numbers, and whether there are more.
    async fn page(&self, site: &SiteId, after: Option<u64>) -> Result<(Vec<Held>, bool), Error> {
        let mut all = Vec::new();
        for table in ["hour", "recent"] {
            let room = HEADS_MAX.saturating_sub(all.len());
            if room == 0 {
                return Ok((all, true));
            }
            let (held, more) = self.some(table, site, after, room).await?;
            all.extend(held);
            if more {
                return Ok((all, true));
            }
        }
        Ok((all, false))
    }

    /// Some of one table, behind `after`, and whether there are more.
    async fn some(
        &self,
        table: &str,
        site: &SiteId,
        after: Option<u64>,
        most: usize,
    ) -> Result<(Vec<Held>, bool), Error> {
        let below = prefix(&["vom", "audit", table, site.as_str()])?;
        let from = after.map(|number| head_key(table, site, number)).transpose()?;
        let page = self.store.scan(&below, from.as_ref(), most).await.map_err(StoreError::told)?;
        let held = page.entries.iter().filter_map(|e| serde_json::from_slice(&e.value).ok());
        Ok((held.collect(), page.next.is_some()))
    }

    async fn put(
        &self,
        site: &SiteId,
        (number, statement): (u64, &str),
        before: Option<Millis>,
        now: Millis,
    ) -> Result<(), Error> {
        let hour = |at: Millis| at.secs() / 3600;
        let hourly = before.is_none_or(|at| hour(at) != hour(now));
        let held = Held { number, heard: now, hourly, statement: statement.to_owned() };
        let passing = before.filter(|at| !hourly && apart(now, *at) < KEPT_EVERY);
        let newest = Newest { held: held.clone(), kept: passing.unwrap_or(now) };
        let at = key(&["vom", "audit", "newest", site.as_str()])?;
        let mut ops = vec![Op::put(at, encode(&newest)?)];
        if passing.is_none() {
            ops.push(Op::put(head_key("recent", site, number)?, encode(&held)?));
            let (oldest, _) = self.some("recent", site, None, REMOVED_MAX).await?;
            for old in oldest.iter().filter(|old| apart(now, old.heard) > RECENT_KEPT) {
                ops.push(Op::Del(head_key("recent", site, old.number)?));
                if old.hourly {
                    ops.push(Op::put(head_key("hour", site, old.number)?, encode(old)?));
                }
            }
            let (oldest, _) = self.some("hour", site, None, REMOVED_MAX).await?;
            for old in oldest.iter().filter(|old| apart(now, old.heard) > HOURLY_KEPT) {
                ops.push(Op::Del(head_key("hour", site, old.number)?));
            }
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
        // Backdated: the one before is still there.
        let back = record(&head(5, "x", 9)).await;
        assert_eq!(back, Recorded::Contradicts(signed(&first)));
        assert_eq!(all(&heads, &pisa).await, [5, 9]);
    }

    /// The numbers of all heads that are kept, gathered as another site does.
    async fn all(heads: &Heads, of: &SiteId) -> Vec<u64> {
        let (mut numbers, mut after) = (Vec::new(), Some(0));
        while after.is_some() {
            let (held, next) = heads.of(of, &"rennes".parse().unwrap(), after).await.unwrap();
            numbers.extend(held.iter().map(|h| reread(&h.statement).unwrap().number));
            assert!(next.is_none() || held.len() == HEADS_MAX, "a page that is not full goes on");
            after = next;
        }
        numbers
    }

    /// If it failed, whoever has a core could write its audit anew from the first line of an hour,
    /// and a head with a higher number would have all witnesses forget the honest ones.
    #[tokio::test]
    async fn each_head_is_kept_for_days() {
        let heads = Heads::new(Arc::new(MemoryStore::new()));
        let pisa: SiteId = "pisa".parse().unwrap();
        let start = 100 * 86_400;
        let count = 2 * HEADS_MAX as u64 + 7;
        for n in 1..=count {
            let h = head(n, "a", n);
            heads
                .record(&pisa, (&h, &signed(&h)), Millis::from_secs(start + n * 10))
                .await
                .unwrap();
        }
        assert_eq!(all(&heads, &pisa).await, (1..=count).collect::<Vec<_>>());
        let (held, _) = heads.of(&pisa, &pisa, None).await.unwrap();
        let number = |at: usize| reread(&held[at].statement).unwrap().number;
        assert_eq!((number(0), number(1)), (count, 1), "the newest comes first");
        // Those that come all at once leave the last of them only.
        for n in count + 1..count + 50 {
            let h = head(n, "a", n);
            let now = Millis::from_secs(start + count * 10 + 1);
            heads.record(&pisa, (&h, &signed(&h)), now).await.unwrap();
        }
        let kept = all(&heads, &pisa).await;
        assert_eq!(kept.len() as u64, count + 1);
        assert_eq!(kept.last(), Some(&(count + 49)));
    }

    /// If it failed, each site's registry would grow for ever by what others send.
    #[tokio::test]
    async fn old_heads_become_one_an_hour_and_then_go() {
        let heads = Heads::new(Arc::new(MemoryStore::new()));
        let pisa: SiteId = "pisa".parse().unwrap();
        let (days, recent) = (HOURLY_KEPT.as_secs() / 86_400, RECENT_KEPT.as_secs() / 3600);
        let last = (days + 3) * 24;
        for hour in 1..=last {
            for part in 0..3 {
                let h = head(hour * 10 + part, "a", hour * 10 + part);
                let now = Millis::from_secs(hour * 3600 + part * 600);
                heads.record(&pisa, (&h, &signed(&h)), now).await.unwrap();
            }
        }
        let kept = all(&heads, &pisa).await;
        assert!(kept.is_sorted(), "{kept:?}");
        let old: Vec<_> = kept.iter().filter(|n| **n / 10 < last - recent).collect();
        assert!(old.iter().all(|n| **n % 10 == 0), "{old:?}");
        assert_eq!(old.len() as u64, days * 24 - recent - 1, "one an hour");
        let new = kept.len() - old.len();
        assert!(new as u64 > 3 * recent, "{new} of the last days");
    }
}
