//! Work in the background: renewing the site's own certificates, refreshing trusted descriptors.

use crate::Inner;
use crate::ops::{check_descriptor, update_site};
use futures_util::{StreamExt, stream};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use xos_api::audit::Event;
use xos_api::site::{GetSite, SiteChanged, SiteDescriptor};
use xos_base::{Error, SiteId};

/// How often to look whether a certificate of the site is due, or its keys have changed.
pub const RENEW_EVERY: Duration = Duration::from_secs(10);

/// How often a site is asked or told something before it is left to the next refresh.
const TRIES: u32 = 5;
/// The pause after each round of asking or telling: so often at most, however often it is wanted.
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// How many sites are asked or told at the same time.
const AT_ONCE: usize = 32;

/// Sites with which something is to be done soon, each with the tries that are left.
#[derive(Default)]
pub(crate) struct Round {
    sites: Mutex<BTreeMap<SiteId, u32>>,
    wanted: Notify,
}

impl Round {
    /// Soon, with `site`.
    pub(crate) fn ask(&self, site: SiteId) {
        self.put(site, TRIES);
    }

    fn put(&self, site: SiteId, tries: u32) {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let left = sites.entry(site).or_default();
        *left = tries.max(*left);
        drop(sites);
        self.wanted.notify_one();
    }

    fn take(&self) -> BTreeMap<SiteId, u32> {
        std::mem::take(&mut self.sites.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(crate) fn spawn(inner: &Arc<Inner>, stop: &CancellationToken) {
    let renewing = inner.clone();
    repeat(stop, RENEW_EVERY, move || {
        let inner = renewing.clone();
        async move {
            let done = tokio::task::spawn_blocking(move || inner.renew_if_due()).await;
            match done {
                Ok(Ok(_)) => {}
                Ok(Err(e)) => tracing::error!(error = %e, "cannot renew the site's keys"),
                Err(e) => tracing::error!(error = %e, "renewing the site's keys failed"),
            }
        }
    });
    let refreshing = inner.clone();
    repeat(stop, Duration::from_secs(inner.config.refresh_s), move || {
        let inner = refreshing.clone();
        async move { refresh_sites(&inner).await }
    });
    rounds(inner, stop, |inner| &inner.asked, fetch);
    rounds(inner, stop, |inner| &inner.telling, tell);
}

/// Does `work` with the sites of one [`Round`], as they come.
fn rounds<F, Fut>(inner: &Arc<Inner>, stop: &CancellationToken, of: fn(&Inner) -> &Round, work: F)
where
    F: Fn(Arc<Inner>, SiteId) -> Fut + Send + Sync + Copy + 'static,
    Fut: Future<Output = Result<(), Error>> + Send,
{
    let (inner, stop) = (inner.clone(), stop.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = of(&inner).wanted.notified() => {}
            }
            let round =
                stream::iter(of(&inner).take()).for_each_concurrent(AT_ONCE, |(site, tries)| {
                    let inner = inner.clone();
                    async move {
                        let Err(e) = work(inner.clone(), site.clone()).await else { return };
                        tracing::info!(%site, error = %e, tries, "a site was not reached");
                        if tries > 1 {
                            of(&inner).put(site, tries - 1);
                        }
                    }
                });
            tokio::select! {
                () = stop.cancelled() => return,
                () = round => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(ROUND_PAUSE) => {}
            }
        }
    });
}

/// Fetches the descriptor of a site that is trusted.
async fn fetch(inner: Arc<Inner>, site: SiteId) -> Result<(), Error> {
    match inner.trust.descriptor(&site) {
        Ok(known) if site != inner.site => refresh(&inner, &known).await,
        // Forgotten meanwhile.
        _ => Ok(()),
    }
}

/// Tells a site that this one's descriptor has changed.
async fn tell(inner: Arc<Inner>, site: SiteId) -> Result<(), Error> {
    inner.grid.call(&site, SiteChanged {}).await.map(drop)
}

fn repeat<F, Fut>(stop: &CancellationToken, every: Duration, mut work: F)
where
    F: FnMut() -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let stop = stop.clone();
    tokio::spawn(async move {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once, and start() has just looked.
        ticks.tick().await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = work() => {}
            }
        }
    });
}

/// Asks each trusted site who it is now. The connection is proved by the root that is already
/// trusted, and so is what the answer says of keys; a root never changes this way.
pub(crate) async fn refresh_sites(inner: &Inner) {
    for known in inner.trust.descriptors() {
        if known.site == inner.site {
            continue;
        }
        if let Err(e) = refresh(inner, &known).await {
            tracing::info!(site = %known.site, error = %e, "cannot refresh a site's descriptor");
        }
    }
}

async fn refresh(inner: &Inner, known: &SiteDescriptor) -> Result<(), Error> {
    let site: &SiteId = &known.site;
    let fresh = inner.grid.call(site, GetSite {}).await?;
    if fresh == *known {
        return Ok(());
    }
    if fresh.site != *site || fresh.root != known.root {
        return Err(Error::denied(format!("site {site} now names another root"))
            .hint("its administrator offers trust anew: `xos site offer`"));
    }
    check_descriptor(&fresh)?;
    update_site(inner, fresh).await?;
    let mut event = Event::new(inner.now(), "refresh_site");
    (event.who, event.on) = (format!("core of {}", inner.site), format!("site {site}"));
    inner.told.note(event);
    Ok(())
}
