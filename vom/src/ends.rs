//! The end of VOs: a dissolved one is erased when it is time, at its home and then at every site
//! that serves it; what is left is the note that there was one.
//!
//! The home alone says when: it adds a last entry to the log. A site that hears of it later, when
//! the log is gone, is shown that signed entry instead. A site that does not hear the home keeps
//! what it has, and lets nobody act by it (the lease): it cannot know whether the dissolution was
//! taken back.

use crate::decide::{Command, Structural};
use crate::live::Live;
use crate::policy::Subject;
use crate::registry::Grave;
use crate::{Inner, Vom};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use xos_api::vom::ErasedVo;
use xos_base::{Error, VoId};

/// How often it is looked whether a VO is to be erased.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The VOs that were erased, in memory.
pub(crate) struct Graves {
    all: RwLock<BTreeMap<VoId, Grave>>,
}

impl Graves {
    pub(crate) fn new(all: Vec<Grave>) -> Graves {
        let all = all.into_iter().map(|g| (g.vo.clone(), g)).collect();
        Graves { all: RwLock::new(all) }
    }

    fn add(&self, grave: Grave) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(grave.vo.clone(), grave);
    }

    pub(crate) fn one(&self, vo: &VoId) -> Option<Grave> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).get(vo).cloned()
    }

    pub(crate) fn has(&self, vo: &VoId) -> bool {
        self.all.read().unwrap_or_else(PoisonError::into_inner).contains_key(vo)
    }

    /// That a VO is no more, for whoever asks about it.
    pub(crate) fn told(&self, vo: &VoId) -> Option<String> {
        self.one(vo).map(|g| format!("{vo} was dissolved, and erased at {}", g.at))
    }

    fn list(&self) -> Vec<ErasedVo> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let shown = |g: &Grave| ErasedVo { vo: g.vo.clone(), at: g.at, volumes: g.volumes.clone() };
        all.values().map(shown).collect()
    }
}

impl Vom {
    /// The VOs that this site knew and that are erased: what services hold of them can go.
    pub fn erased(&self) -> Vec<ErasedVo> {
        self.inner.graves.list()
    }

    /// Erases the VOs for which it is time; runs by itself every minute. Returns how many.
    ///
    /// # Errors
    /// The last one met; the other VOs are erased all the same.
    pub async fn erase_due(&self) -> Result<usize, Error> {
        self.inner.erase_due().await
    }
}

/// Looks again and again whether a VO is to be erased.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        if let Err(error) = inner.erase_due().await {
            tracing::error!(%error, "a dissolved VO could not be erased; it is tried again");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Inner {
    async fn erase_due(self: &Arc<Inner>) -> Result<usize, Error> {
        let (mut count, mut failed) = (0, None);
        for live in self.vos.after(None, usize::MAX) {
            match self.erase_if_due(&live).await {
                Ok(erased) => count += usize::from(erased),
                Err(e) => failed = Some(e),
            }
        }
        failed.map_or(Ok(count), Err)
    }

    async fn erase_if_due(self: &Arc<Inner>, live: &Arc<Live>) -> Result<bool, Error> {
        let now = self.clock.now();
        let due = live.read().erased_at().is_some_and(|at| at <= now);
        if due && live.id().site() == self.site {
            let core = Subject::OwnCore(self.site.clone());
            self.command(live, &core, &Command::Structure(Structural::Erase)).await?;
        }
        // Also one whose last entry was taken before this core stopped.
        let erased = live.read().erased;
        if erased {
            self.bury_live(live).await?;
        }
        Ok(erased)
    }

    /// Removes a VO whose log has come to its end here.
    pub(crate) async fn bury_live(&self, live: &Live) -> Result<(), Error> {
        let (number, at, volumes) = {
            let vo = live.read();
            (vo.number, vo.time, vo.volumes.iter().cloned().collect())
        };
        let vo = live.id().clone();
        let last = self.registry.entries(&vo, number.saturating_sub(1)).await?;
        let jws = last.into_iter().next().ok_or_else(|| {
            Error::internal(format!("the last entry of the log of {vo} is not there"))
        })?;
        self.bury(Grave { vo, number, at, volumes, jws }).await
    }

    /// Removes a VO that is no more. First it is noted and forgotten in memory: removing what the
    /// registry holds of a large one takes minutes, and is gone on with at the next start.
    pub(crate) async fn bury(&self, grave: Grave) -> Result<(), Error> {
        let vo = grave.vo.clone();
        self.registry.note_grave(&grave).await?;
        self.graves.add(grave);
        self.vos.remove(&vo);
        self.set_trouble(&vo, None);
        self.grown.send_modify(|n| *n = n.wrapping_add(1));
        tracing::info!(%vo, "a dissolved VO is erased");
        self.registry.clear(&vo).await
    }
}
