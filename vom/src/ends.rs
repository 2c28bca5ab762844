//! The end of VOs: a dissolved one is erased when it is time, at its home and then at every site
//! that serves it; what is left is the note that there was one.
//!
//! The home alone says when: it adds a last entry to the log. A site that hears of it later, when
//! the log is gone, is shown that signed entry instead. A site that does not hear the home keeps
//! what it has, and lets nobody act by it (the lease): it cannot know whether the dissolution was
//! taken back.
//!
//! What was erased does not come back. So a clock that is wrong must not erase: it is believed when
//! it has gone evenly for an hour, and does not lie far beyond all that is known ([`trusted`]).

use crate::decide::{Command, Structural};
use crate::live::Live;
use crate::policy::Subject;
use crate::registry::Grave;
use crate::{Inner, Vom};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::Instant;
use xos_api::vom::ErasedVo;
use xos_base::{Error, Millis, VoId};

/// How often it is looked whether a VO is to be erased.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// For how long the clock must have gone evenly before a VO is erased by it: time to notice.
const EVEN_FOR: Duration = Duration::from_secs(60 * 60);
/// How much more than what passed the clock may show at the next look, to have gone evenly.
const JUMP_MAX: Duration = Duration::from_secs(5 * 60);
/// How far the clock may lie beyond the newest time that is known.
const AHEAD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// For how long the clock has gone as time passes.
struct Even {
    since: Instant,
    last: (Instant, Millis),
}

impl Even {
    fn new(at: Instant, shows: Millis) -> Even {
        Even { since: at, last: (at, shows) }
    }

    /// Looks at the clock, which shows that; for how long it has gone evenly.
    fn look(&mut self, at: Instant, shows: Millis) -> Duration {
        let passed = at.saturating_duration_since(self.last.0);
        if shows.since(self.last.1) > passed.saturating_add(JUMP_MAX) {
            self.since = at;
        }
        self.last = (at, shows);
        at.saturating_duration_since(self.since)
    }
}

/// Whether the clock, which shows `now` and has gone evenly for so long, is believed when it says
/// that a VO is to be erased; `newest` is the newest time that is known otherwise.
fn trusted(now: Millis, even_for: Duration, newest: Millis) -> bool {
    even_for >= EVEN_FOR && now.since(newest) <= AHEAD_MAX
}

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

    /// Those of which something may be left here.
    fn unclean(&self) -> Vec<VoId> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.values().filter(|g| !g.clean).map(|g| g.vo.clone()).collect()
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

    /// Erases the VOs for which it is time, and what is left of others; runs by itself every
    /// minute. `even_for`: for how long the clock has gone evenly. Returns how many VOs.
    ///
    /// # Errors
    /// The last one met; the other VOs are erased all the same.
    pub async fn erase_due(&self, even_for: Duration) -> Result<usize, Error> {
        self.inner.erase_due(even_for).await
    }
}

/// Looks again and again whether a VO is to be erased.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut even = Even::new(Instant::now(), inner.clock.now());
    loop {
        let even_for = even.look(Instant::now(), inner.clock.now());
        if let Err(error) = inner.erase_due(even_for).await {
            tracing::error!(%error, "a dissolved VO could not be erased; it is tried again");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Inner {
    async fn erase_due(self: &Arc<Inner>, even_for: Duration) -> Result<usize, Error> {
        let (mut count, mut failed) = (0, None);
        match self.learn_graves().await {
            Ok(learnt) => count += learnt,
            Err(e) => failed = Some(e),
        }
        let now = self.clock.now();
        let trusted = trusted(now, even_for, self.newest());
        for live in self.vos.after(None, usize::MAX) {
            let due = trusted && live.read().erased_at().is_some_and(|at| at <= now);
            match self.erase_if(due, &live).await {
                Ok(erased) => count += usize::from(erased),
                Err(e) => failed = Some(e),
            }
        }
        for vo in self.graves.unclean() {
            if let Err(e) = self.clean(&vo).await {
                failed = Some(e);
            }
        }
        failed.map_or(Ok(count), Err)
    }

    /// Buries the VOs that another core of this site erased. Returns how many.
    async fn learn_graves(self: &Arc<Inner>) -> Result<usize, Error> {
        let (mut count, mut failed) = (0, None);
        for grave in self.registry.graves().await? {
            if self.graves.has(&grave.vo) {
                continue;
            }
            match self.bury(grave).await {
                Ok(()) => count += 1,
                Err(e) => failed = Some(e),
            }
        }
        failed.map_or(Ok(count), Err)
    }

    /// The newest time of which logs, the site's audit or other sites spoke.
    fn newest(&self) -> Millis {
        let all = self.vos.after(None, usize::MAX);
        let known = all.iter().map(|live| live.read().time.max(live.heard()));
        known.max().unwrap_or_default().max(self.log.end().noted)
    }

    async fn erase_if(self: &Arc<Inner>, due: bool, live: &Arc<Live>) -> Result<bool, Error> {
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
        self.bury(Grave { vo, number, at, volumes, jws, clean: false }).await
    }

    /// Removes a VO that is no more. First it is noted and forgotten in memory: removing what the
    /// registry holds of a large one takes minutes, and is tried again until it is done.
    pub(crate) async fn bury(&self, grave: Grave) -> Result<(), Error> {
        let vo = grave.vo.clone();
        self.registry.note_grave(&grave).await?;
        self.graves.add(grave);
        self.vos.remove(&vo);
        self.set_trouble(&vo, None);
        self.grown.send_modify(|n| *n = n.wrapping_add(1));
        tracing::info!(%vo, "a dissolved VO is erased");
        self.clean(&vo).await
    }

    /// Removes what is kept of a VO that is no more; when nothing is left, its grave says so.
    async fn clean(&self, vo: &VoId) -> Result<(), Error> {
        let Some(grave) = self.graves.one(vo) else { return Ok(()) };
        self.names.forget(&self.registry, vo).await?;
        self.registry.clear(vo).await?;
        let clean = Grave { clean: true, ..grave };
        self.registry.note_grave(&clean).await?;
        self.graves.add(clean);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a clock that is wrong for a while would erase VOs for good.
    #[test]
    fn a_clock_that_jumped_or_lies_far_ahead_erases_nothing() {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);
        let (begin, shown) = (Instant::now(), Millis(1_000_000));
        let mut even = Even::new(begin, shown);
        let mut after = |passed: Duration, jumped: Duration| {
            even.look(begin + passed, shown.plus(passed).plus(jumped))
        };
        assert_eq!(after(HOUR, Duration::ZERO), HOUR);
        assert_eq!(after(2 * HOUR, Duration::from_secs(60)), 2 * HOUR, "a clock that is set right");
        assert_eq!(after(3 * HOUR, MONTH), Duration::ZERO, "it jumped");
        assert_eq!(after(4 * HOUR, MONTH), HOUR);
        let now = shown.plus(MONTH);
        assert!(trusted(now, HOUR, now.minus(Duration::from_secs(60))));
        assert!(!trusted(now, HOUR - Duration::from_secs(1), now), "it began or jumped just now");
        assert!(!trusted(now, HOUR, shown), "nothing else speaks of that time");
    }
}
