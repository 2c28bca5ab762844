//! What the services of this site ask.

use super::Vom;
use crate::policy::Action;
use crate::served::Home;
use xos_api::vom::{ServedVo, ServedVos, ServingSite, VoSnapshot, VoView, WhoServes};
use xos_base::{Error, VoId};
use xos_net::{Caller, Principal};

impl Vom {
    pub(super) async fn vo_view(&self, caller: Caller, r: VoView) -> Result<VoSnapshot, Error> {
        let live = self.known(&r.vo)?;
        self.authorise(&live, &caller, Action::Serve)?;
        let now = self.inner.clock.now();
        let own = self.served_now(&r.vo).ok();
        let home = r.vo.site() == self.inner.site;
        let vo = live.read();
        Ok(VoSnapshot {
            vo: vo.id.clone(),
            number: vo.number,
            heard: if home { now } else { live.heard() },
            state: vo.state.clone(),
            volumes: vo.volumes.iter().cloned().collect(),
            sites: vo.serving(now),
            own,
        })
    }

    pub(super) async fn who_serves(
        &self,
        caller: Caller,
        r: WhoServes,
    ) -> Result<Vec<ServingSite>, Error> {
        let live = self.known(&r.vo)?;
        self.authorise(&live, &caller, Action::See)?;
        let sites = live.read().serving(self.inner.clock.now());
        Ok(sites)
    }

    pub(super) async fn served_vos(
        &self,
        caller: Caller,
        _: ServedVos,
    ) -> Result<Vec<ServedVo>, Error> {
        let own = matches!(caller.principal(), Principal::Core(site) if *site == self.inner.site);
        if !own {
            self.site_admin(&caller)?;
        }
        self.inner.shares.all().iter().map(|s| self.served_now(&s.vo)).collect()
    }

    /// This site's side of a share as it is now.
    pub(super) fn served_now(&self, vo: &VoId) -> Result<ServedVo, Error> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let live = inner.vos.one(vo);
        let home = live.as_ref().map_or(Home::Heard, |l| inner.home_of(l, &l.read(), now));
        let state = live.as_ref().map(|l| l.read());
        let trouble = inner.trouble(vo).or_else(|| inner.graves.told(vo));
        inner
            .shares
            .with(vo, |s| s.info(&inner.site, state.as_deref(), now, home, trouble))
            .ok_or_else(|| {
                Error::not_found(format!("site {} has offered {vo} no share", inner.site))
            })
    }
}
