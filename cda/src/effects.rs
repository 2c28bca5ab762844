//! Work in the background: renewing the site's own certificates, refreshing trusted descriptors.

use crate::Inner;
use crate::ops::{check_descriptor, update_site};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use xos_api::site::{GetSite, SiteDescriptor};
use xos_base::{Error, SiteId};

/// How often to look whether a certificate of the site is due.
pub const RENEW_EVERY: Duration = Duration::from_secs(600);

pub(crate) fn spawn(inner: &Arc<Inner>, stop: &CancellationToken) {
    let renewing = inner.clone();
    repeat(stop, RENEW_EVERY, move || {
        let inner = renewing.clone();
        async move {
            let now = inner.now();
            let done = tokio::task::spawn_blocking(move || inner.keys.renew_if_due(now)).await;
            match done {
                Ok(Ok(_)) => {}
                Ok(Err(e)) => tracing::error!(error = %e, "cannot renew the site's certificates"),
                Err(e) => tracing::error!(error = %e, "renewing the site's certificates failed"),
            }
        }
    });
    let refreshing = inner.clone();
    repeat(stop, Duration::from_secs(inner.config.refresh_s), move || {
        let inner = refreshing.clone();
        async move { refresh_sites(&inner).await }
    });
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

/// Asks each trusted site who it is now. The answer counts because the connection is proved by the
/// root that is already trusted; a root never changes this way.
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
    tracing::info!(target: "audit", %site, "descriptor refreshed");
    Ok(())
}
