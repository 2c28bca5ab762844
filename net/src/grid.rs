//! Calls from this core to any site's core, the own one included.

use crate::caller::{Caller, Peer};
use crate::client::{Client, Proof};
use crate::router::Router;
use crate::tls::IdentityCell;
use crate::trust::Trust;
use futures_util::stream::BoxStream;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use xos_api::{Request, Subscribe};
use xos_base::{Error, SiteId};

/// Calls sites as this site's core. Cheap to clone.
#[derive(Clone)]
pub struct Grid {
    inner: Arc<Inner>,
}

struct Inner {
    site: SiteId,
    trust: Trust,
    identity: IdentityCell,
    router: OnceLock<Arc<Router>>,
    clients: Mutex<HashMap<SiteId, Client>>,
}

impl Grid {
    /// The grid as the core of `site` sees it.
    pub fn new(site: SiteId, trust: Trust, identity: IdentityCell) -> Grid {
        let inner =
            Inner { site, trust, identity, router: OnceLock::new(), clients: Mutex::default() };
        Grid { inner: Arc::new(inner) }
    }

    /// Sets what serves calls to the own site, once all services are registered.
    pub fn set_router(&self, router: Arc<Router>) {
        if self.inner.router.set(router).is_err() {
            tracing::warn!("the router was already set; the first one stays");
        }
    }

    /// The own site.
    pub fn site(&self) -> &SiteId {
        &self.inner.site
    }

    /// The trusted sites.
    pub fn trust(&self) -> &Trust {
        &self.inner.trust
    }

    /// Calls the core of `to`: in process when that is this one.
    ///
    /// # Errors
    /// What the core answers, or [`xos_base::Kind::Unavailable`] when it does not.
    pub async fn call<R: Request>(&self, to: &SiteId, r: R) -> Result<R::Reply, Error> {
        if *to == self.inner.site {
            let caller = Caller::own_core(self.inner.site.clone());
            return self.router()?.local(caller, r).await;
        }
        self.client(to)?.call(r).await
    }

    /// Opens the stream `s` at the core of `to`.
    ///
    /// # Errors
    /// As [`Grid::call`].
    pub async fn subscribe<S: Subscribe>(
        &self,
        to: &SiteId,
        s: S,
    ) -> Result<BoxStream<'static, Result<S::Item, Error>>, Error> {
        if *to == self.inner.site {
            let caller = Caller::own_core(self.inner.site.clone());
            return self.router()?.local_stream(caller, s).await;
        }
        self.client(to)?.subscribe(s).await
    }

    /// Whether the own core serves `R`, which the sections of its `xosd.toml` decide. While it
    /// starts the answer is yes: a call says more.
    pub fn serves<R: Request>(&self) -> bool {
        self.inner.router.get().is_none_or(|router| router.serves::<R>())
    }

    /// Calls the own core for a caller that was verified, as the console does for its sessions.
    ///
    /// # Errors
    /// As [`Grid::call`].
    pub async fn local<R: Request>(&self, caller: Caller, r: R) -> Result<R::Reply, Error> {
        self.router()?.local(caller, r).await
    }

    /// Calls what the own core serves for anybody, for somebody at `peer`: how the console
    /// signs people in without losing the address that tries are counted by.
    ///
    /// # Errors
    /// As [`Grid::call`]; [`xos_base::Kind::Unavailable`] also for requests that need a proof.
    pub async fn local_public<R: Request>(&self, peer: Peer, r: R) -> Result<R::Reply, Error> {
        self.router()?.local_public(peer, r).await
    }

    /// Opens a stream at the own core for a caller that was verified.
    ///
    /// # Errors
    /// As [`Grid::call`].
    pub async fn local_stream<S: Subscribe>(
        &self,
        caller: Caller,
        s: S,
    ) -> Result<BoxStream<'static, Result<S::Item, Error>>, Error> {
        self.router()?.local_stream(caller, s).await
    }

    fn router(&self) -> Result<&Arc<Router>, Error> {
        self.inner.router.get().ok_or_else(|| {
            Error::unavailable("this core is starting").hint("try again in a moment")
        })
    }

    fn client(&self, to: &SiteId) -> Result<Client, Error> {
        let mut clients = self.inner.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(to) {
            return Ok(client.clone());
        }
        let proof = Proof::Certificate(self.inner.identity.clone());
        let client = Client::new(to.clone(), &self.inner.trust, &proof)?;
        clients.insert(to.clone(), client.clone());
        Ok(client)
    }
}
