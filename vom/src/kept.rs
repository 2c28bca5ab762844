//! Whose files this site's nodes keep at hand.

use crate::Vom;
use xos_api::vom::AccountState;
use xos_base::VoId;

/// A VO that has accounts at this site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The VO.
    pub vo: VoId,
    /// The volumes recorded for it.
    pub volumes: Vec<String>,
    /// Whether this site gives it storage.
    pub store: bool,
}

impl Vom {
    /// The VOs that this site serves, also those that are suspended or whose home is unheard: their
    /// work is held, and goes on with the files that it had open. What they may do meanwhile
    /// tickets and epochs say.
    pub fn kept(&self) -> Vec<Kept> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let kept = |served: crate::served::Served| {
            let live = inner.vos.one(&served.vo)?;
            let state = live.read();
            let home = inner.home_of(&live, &state, now);
            if served.account_state(&inner.site, &state, now, home) == AccountState::Ended {
                return None;
            }
            let store = served.accepted(&inner.site, &state).is_some_and(|t| t.storage_bytes > 0);
            let volumes = state.volumes.iter().cloned().collect();
            Some(Kept { vo: served.vo, volumes, store })
        };
        inner.shares.all().into_iter().filter_map(kept).collect()
    }
}
