//! The VOs in memory: each a state that many read and one at a time changes.

use crate::log::{self, Chain, LogFault};
use crate::registry::{Appended, Registry, checkpoint_due};
use crate::state::{Vo, about};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::{Mutex, watch};
use xos_api::vom::{Actor, Change, Entry};
use xos_base::{Error, Millis, VoId};
use xos_net::sign::Signer;

/// How often a change is decided anew because another core of the site was faster.
const COMMIT_TRIES: usize = 5;

/// One VO.
pub struct Live {
    id: VoId,
    state: RwLock<Vo>,
    /// The end of the log. Held while the log grows.
    chain: Mutex<Chain>,
    number: watch::Sender<u64>,
    heard: AtomicU64,
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
            heard: AtomicU64::new(heard.0),
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
        Millis(self.heard.load(Ordering::Acquire))
    }

    /// The home was heard.
    pub fn hear(&self, now: Millis) {
        self.heard.fetch_max(now.0, Ordering::AcqRel);
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
