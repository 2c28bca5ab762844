//! The VOs in memory: each a state that many read and one at a time changes.

use crate::log::{self, Chain, LogFault};
use crate::registry::{Appended, Registry, checkpoint_due};
use crate::state::{Vo, about};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use xos_api::vom::{Actor, Change, Entry};
use xos_base::{Error, Millis, VoId};
use xos_net::sign::Signer;

/// How often a change is decided anew because another core of the site was faster.
const COMMIT_TRIES: usize = 5;

/// When a home was heard.
#[derive(Clone, Copy)]
struct HeardAt {
    /// By the wall's clock, which can be set.
    wall: Millis,
    /// By the clock that nobody can set; none: an earlier core of this site heard it.
    up: Option<Millis>,
}

impl HeardAt {
    /// How long ago: by that clock which says more, so that one that is set back makes no lease
    /// longer; and for certain, so that one that is set forward ends nothing.
    fn ago(self, now: Millis, up: Millis) -> (Duration, Duration) {
        let by_wall = now.since(self.wall);
        let by_up = self.up.map(|at| up.since(at));
        (by_up.map_or(by_wall, |by_up| by_up.max(by_wall)), by_up.unwrap_or(by_wall))
    }
}

/// One VO.
pub struct Live {
    id: VoId,
    state: RwLock<Vo>,
    /// The end of the log. Held while the log grows.
    chain: Mutex<Chain>,
    number: watch::Sender<u64>,
    heard: std::sync::Mutex<HeardAt>,
    checkpointed: AtomicU64,
}

impl Live {
    /// From what the registry held.
    pub fn new(state: Vo, chain: Chain, checkpointed: u64, heard: Millis) -> Live {
        Live {
            id: state.id.clone(),
            number: watch::Sender::new(state.number),
            state: RwLock::new(state),
            chain: Mutex::new(chain),
            heard: std::sync::Mutex::new(HeardAt { wall: heard, up: None }),
            checkpointed: AtomicU64::new(checkpointed),
        }
    }

    /// The VO's id.
    pub fn id(&self) -> &VoId {
        &self.id
    }

    /// The VO as it is. Do not hold it across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, Vo> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells when the log has grown.
    pub fn number(&self) -> watch::Receiver<u64> {
        self.number.subscribe()
    }

    /// When the home was last heard.
    pub fn heard(&self) -> Millis {
        self.heard_at().wall
    }

    /// The home was heard, at `now` by the wall's clock and `up` by the machine's own.
    pub fn hear(&self, now: Millis, up: Millis) {
        let heard = HeardAt { wall: now, up: Some(up) };
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = heard;
    }

    /// For how long the home has not been heard: by the clock that says more, and for certain.
    pub(crate) fn unheard(&self, now: Millis, up: Millis) -> (Duration, Duration) {
        self.heard_at().ago(now, up)
    }

    fn heard_at(&self) -> HeardAt {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grow(&self, entry: &Entry) {
        self.state.write().unwrap_or_else(PoisonError::into_inner).apply(entry);
        self.number.send_replace(entry.number);
    }

    /// Decides a change on the state as it is and makes it: signed, stored, applied. At the home.
    ///
    /// `decide` sees the state that its change will follow; it runs again when another core of
    /// this site was faster. Returns the number of the entry, if there was one to make.
    ///
    /// # Errors
    /// Those of `decide`, of the registry, of signing.
    pub async fn commit<F>(
        &self,
        registry: &Registry,
        signer: &Signer,
        decide: F,
    ) -> Result<Option<u64>, Error>
    where
        F: Fn(&Vo) -> Result<Option<(Actor, Change, Millis)>, Error>,
    {
        let mut chain = self.chain.lock().await;
        for _ in 0..COMMIT_TRIES {
            let made = {
                let state = self.read();
                match decide(&state)? {
                    None => return Ok(None),
                    Some((actor, change, now)) => {
                        let entry = chain.next(&self.id, actor, change, now);
                        state.check(&entry)?;
                        entry
                    }
                }
            };
            let jws = log::seal(signer, &made)?;
            let about = about(&made.change);
            match registry.append_about(&self.id, made.number, &jws, &about).await? {
                Appended::Yes => {
                    chain.advance(&made, &jws);
                    self.grow(&made);
                    return Ok(Some(made.number));
                }
                Appended::Taken => self.catch_up(registry, &mut chain).await?,
            }
        }
        Err(Error::conflict(format!("{} changes too fast", self.id)).hint("try again"))
    }

    /// Takes over what another core of this site has added to the log.
    async fn catch_up(&self, registry: &Registry, chain: &mut Chain) -> Result<(), Error> {
        loop {
            let entries = registry.entries(&self.id, chain.number).await?;
            if entries.is_empty() {
                return Ok(());
            }
            for jws in entries {
                let fault = |e: LogFault| Error::internal(format!("log of {}: {e}", self.id));
                let entry = log::reread(&jws).map_err(fault)?;
                chain.follows(&entry).map_err(fault)?;
                chain.advance(&entry, &jws);
                self.grow(&entry);
            }
        }
    }

    /// Takes an entry that came from the home and was verified. Elsewhere than at the home.
    ///
    /// # Errors
    /// Why it cannot follow; then nothing has changed. The inner error is the registry's.
    pub async fn take(
        &self,
        registry: &Registry,
        entry: &Entry,
        jws: &str,
    ) -> Result<Result<(), LogFault>, Error> {
        let mut chain = self.chain.lock().await;
        if entry.number == chain.number && log::hash(jws) == chain.hash {
            return Ok(Ok(())); // Sent twice.
        }
        if let Err(fault) = chain.follows(entry) {
            return Ok(Err(fault));
        }
        let checked = self.read().check(entry);
        if let Err(violation) = checked {
            return Ok(Err(LogFault::Change { number: entry.number, violation }));
        }
        match registry.append(&self.id, entry.number, jws).await? {
            Appended::Yes => {
                chain.advance(entry, jws);
                self.grow(entry);
            }
            Appended::Taken => self.catch_up(registry, &mut chain).await?,
        }
        Ok(Ok(()))
    }

    /// Writes a checkpoint when it is time.
    ///
    /// # Errors
    /// Those of the registry; the log is complete without it.
    pub async fn checkpoint(&self, registry: &Registry) -> Result<(), Error> {
        let former = self.checkpointed.load(Ordering::Acquire);
        if !checkpoint_due(&self.read(), former) {
            return Ok(());
        }
        let chain = self.chain.lock().await;
        let former = self.checkpointed.load(Ordering::Acquire);
        let bytes = {
            let state = self.read();
            if !checkpoint_due(&state, former) {
                return Ok(());
            }
            serde_json::to_vec(&*state)
                .map_err(|e| Error::internal(format!("cannot encode {}: {e}", self.id)))?
        };
        registry.write_checkpoint(&bytes, &self.id, &chain, former).await?;
        self.checkpointed.store(chain.number, Ordering::Release);
        Ok(())
    }
}

/// All VOs known here.
#[derive(Default)]
pub struct Vos {
    all: RwLock<BTreeMap<VoId, Arc<Live>>>,
}

impl Vos {
    /// One VO.
    pub fn one(&self, vo: &VoId) -> Option<Arc<Live>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).get(vo).cloned()
    }

    /// VOs after one, at most `limit`, by id.
    pub fn after(&self, after: Option<&VoId>, limit: usize) -> Vec<Arc<Live>> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.range((from, Bound::Unbounded)).take(limit).map(|(_, l)| l.clone()).collect()
    }

    /// Takes a VO out that is no more.
    pub fn remove(&self, vo: &VoId) {
        self.all.write().unwrap_or_else(PoisonError::into_inner).remove(vo);
    }

    /// Adds a VO, unless it is there.
    pub fn add(&self, live: Live) -> Arc<Live> {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(live.id.clone()).or_insert_with(|| Arc::new(live)).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a clock that is set forward would end the work of all VOs of other sites, or
    /// one that is set back give their work a longer lease.
    #[test]
    fn a_clock_that_is_set_ends_nothing_and_prolongs_nothing() {
        let heard = HeardAt { wall: Millis(1000), up: Some(Millis(50)) };
        let ms = Duration::from_millis;
        assert_eq!(heard.ago(Millis(1030), Millis(80)), (ms(30), ms(30)));
        assert_eq!(heard.ago(Millis(999_000), Millis(80)), (ms(998_000), ms(30)), "forward");
        assert_eq!(heard.ago(Millis(10), Millis(80)), (ms(30), ms(30)), "back");
        let earlier = HeardAt { up: None, ..heard };
        assert_eq!(earlier.ago(Millis(1030), Millis(5)), (ms(30), ms(30)));
    }
}
