//! This site's shares in memory, in step with the registry.

use crate::registry::Registry;
use crate::served::{Served, allocate};
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use tokio::sync::{Mutex, watch};
use xos_base::{Error, VoId};
use xos_store::Version;

/// The shares, and a signal that they changed.
pub struct Shares {
    all: RwLock<BTreeMap<VoId, (Served, Version)>>,
    /// Held while one changes.
    changing: Mutex<()>,
    changed: watch::Sender<u64>,
}

impl Shares {
    /// From what the registry held.
    pub fn new(all: Vec<(Served, Version)>) -> Shares {
        let all = all.into_iter().map(|(s, v)| (s.vo.clone(), (s, v))).collect();
        Shares { all: RwLock::new(all), changing: Mutex::new(()), changed: watch::Sender::new(0) }
    }

    /// One share.
    pub fn one(&self, vo: &VoId) -> Option<Served> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(vo).map(|(s, _)| s.clone())
    }

    /// Runs `f` on one share, without copying it.
    pub fn with<T>(&self, vo: &VoId, f: impl FnOnce(&Served) -> T) -> Option<T> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(vo).map(|(s, _)| f(s))
    }

    /// All shares, by VO.
    pub fn all(&self) -> Vec<Served> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.values().map(|(s, _)| s.clone()).collect()
    }

    /// Tells when a share changed.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Changes one share: `f` makes the new one from the old one. `None` from it changes nothing.
    ///
    /// # Errors
    /// Those of `f` and of the registry.
    pub async fn change<F>(&self, registry: &Registry, vo: &VoId, f: F) -> Result<(), Error>
    where
        F: FnOnce(Option<&Served>) -> Result<Option<Served>, Error>,
    {
        let guard = self.changing.lock().await;
        let former = {
            let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
            all.get(vo).cloned()
        };
        let Some(next) = f(former.as_ref().map(|(s, _)| s))? else { return Ok(()) };
        let version = registry.put_served(&next, former.map(|(_, v)| v)).await?;
        {
            let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
            all.insert(vo.clone(), (next, version));
        }
        drop(guard);
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
        Ok(())
    }

    /// A new share for `vo` with its own numbers.
    ///
    /// # Errors
    /// As [`allocate`].
    pub fn begin(&self, vo: &VoId, blocks: u32, base: Option<u32>) -> Result<Served, Error> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let block = allocate(all.values().map(|(s, _)| s.block()), blocks, base)?;
        Ok(Served::new(vo.clone(), block))
    }
}
