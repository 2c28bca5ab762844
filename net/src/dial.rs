//! Opening streams to machines, and a node's side of control stream and dial-back.

use crate::caller::Caller;
use crate::client::dial_core;
use crate::control::Control;
use crate::frames::{self, OPENING_MAX, Opened, Opening};
use crate::guard::{Guarded, Proved};
use crate::identity::key_fingerprint;
use crate::nodes::Io;
use crate::router::Router;
use crate::tls::{self, ALPN_CLUSTER, ALPN_NODE, ALPN_SSH, IdentityCell};
use crate::trust::{Subject, Trust, Usage, node_name};
use futures_util::future::BoxFuture;
use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use xos_base::when::Clock;
use xos_base::{Error, NodeId, SiteId};

/// How long the parts of opening a stream may take together.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves streams of one protocol.
pub type StreamHandler = Arc<dyn Fn(Caller, Box<dyn Io>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Opens streams as one machine.
#[derive(Clone)]
pub struct Dialer {
    trust: Trust,
    identity: IdentityCell,
}

impl Dialer {
    /// Dials as the machine that `identity` names.
    pub fn new(trust: Trust, identity: IdentityCell) -> Dialer {
        Dialer { trust, identity }
    }

    /// A stream of protocol `alpn` to the core of `site`.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when it cannot be reached.
    pub async fn core(&self, site: &SiteId, alpn: &[u8]) -> Result<Box<dyn Io>, Error> {
        let tls = tls::client_config(Some(&self.identity), &self.trust, &[alpn])?;
        Ok(Box::new(dial_core(site, &self.trust, &tls).await?))
    }

    /// A stream of protocol `alpn` to a node, through its core. TLS inside is end to end: the
    /// core in between sees only what the node encrypts.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when core or node cannot be reached.
    pub async fn node(&self, node: &NodeId, alpn: &[u8]) -> Result<Box<dyn Io>, Error> {
        let open = async {
            let mut outer = self.core(&node.site(), ALPN_NODE).await?;
            open(&mut outer, &Opening::Dial { node: node.clone() }).await?;
            let tls = tls::client_config(Some(&self.identity), &self.trust, &[alpn])?;
            let name = ServerName::try_from(node_name(node))
                .map_err(|e| Error::internal(format!("node name: {e}")))?;
            let inner = TlsConnector::from(tls).connect(name, outer).await.map_err(|e| {
                Error::unavailable(format!("node {node} does not prove to be itself: {e}"))
            })?;
            let chain = inner.get_ref().1.peer_certificates().unwrap_or_default();
            let key = chain.first().map(key_fingerprint).transpose()?.unwrap_or_default();
            let proved = Proved { site: node.site(), node: Some((node.clone(), key)) };
            Ok(Box::new(Guarded::new(inner, self.trust.guard(proved))) as Box<dyn Io>)
        };
        tokio::time::timeout(OPEN_TIMEOUT, open)
            .await
            .unwrap_or_else(|_| Err(Error::unavailable(format!("node {node} does not answer"))))
    }
}

async fn open(stream: &mut Box<dyn Io>, opening: &Opening) -> Result<(), Error> {
    frames::write(stream, opening).await?;
    match frames::read::<Opened>(stream, OPENING_MAX).await? {
        Some(Opened::Ok {}) => Ok(()),
        Some(Opened::Error(e)) => Err(e),
        None => Err(Error::unavailable("the core closed the connection")),
    }
}

/// A node's way to its core.
#[derive(Clone)]
pub struct NodeLink {
    node: NodeId,
    dialer: Dialer,
    tls: Arc<ServerConfig>,
    handlers: Arc<HashMap<Vec<u8>, StreamHandler>>,
    clock: Arc<dyn Clock>,
}

impl NodeLink {
    /// A link for `node`; `handlers` serve the streams that others open to it, by ALPN.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when TLS cannot be set up.
    pub fn new(
        node: NodeId,
        dialer: Dialer,
        handlers: HashMap<Vec<u8>, StreamHandler>,
        clock: Arc<dyn Clock>,
    ) -> Result<NodeLink, Error> {
        let alpn: Vec<&[u8]> = handlers.keys().map(Vec::as_slice).collect();
        let tls = tls::server_config(&dialer.identity, &dialer.trust, &alpn)?;
        Ok(NodeLink { node, dialer, tls, handlers: Arc::new(handlers), clock })
    }

    /// Opens the control stream; the core's calls are served by `router`.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when the core cannot be reached, or why it refuses.
    pub async fn connect(&self, router: Arc<Router>) -> Result<Arc<Control>, Error> {
        let site = self.node.site();
        let mut stream = self.dialer.core(&site, ALPN_NODE).await?;
        open(&mut stream, &Opening::Control {}).await?;
        Ok(Control::start(stream, router, Caller::own_core(site)))
    }

    /// Dials back for the waiting stream `token` and serves it until it ends.
    ///
    /// # Errors
    /// Why the stream could not be served.
    pub async fn accept(&self, token: String) -> Result<(), Error> {
        let accepted = async {
            let mut outer = self.dialer.core(&self.node.site(), ALPN_NODE).await?;
            open(&mut outer, &Opening::Accept { token }).await?;
            TlsAcceptor::from(self.tls.clone())
                .accept(outer)
                .await
                .map_err(|e| Error::unavailable(format!("a peer's TLS failed: {e}")))
        };
        let stream = tokio::time::timeout(OPEN_TIMEOUT, accepted)
            .await
            .map_err(|_| Error::unavailable("a peer did not finish its handshake"))??;
        let (_, connection) = stream.get_ref();
        let chain = connection.peer_certificates().unwrap_or_default();
        let subject = self.dialer.trust.verify_chain(chain, Usage::Client, self.clock.now())?;
        let alpn = connection.alpn_protocol().unwrap_or_default().to_vec();
        let handler = self.handlers.get(&alpn).cloned().ok_or_else(|| {
            Error::unsupported("a peer speaks a protocol that this node does not serve")
        })?;
        let leaf = chain.first().ok_or_else(|| Error::unauthenticated("no certificate"))?;
        let key = key_fingerprint(leaf)?;
        let caller = match subject {
            Subject::Member(m) if alpn == ALPN_SSH || alpn == ALPN_CLUSTER => {
                Caller::credential(m, key)
            }
            machine => Caller::machine(machine, key)?,
        };
        let guard = self.dialer.trust.guard(Proved::of(&caller));
        handler(caller, Box::new(Guarded::new(stream, guard))).await;
        Ok(())
    }
}
