//! The one port: accepts TLS on our runtime, reads what the peer wants to speak, and hands the
//! connection on.

use crate::caller::Verifier;
use crate::dial::StreamHandler;
use crate::http::{Shared, Workers};
use crate::nodes::Nodes;
use crate::tls::{self, ALPN_HTTP, ALPN_NODE, ALPN_XTREEMFS, IdentityCell};
use rustls::ServerConfig;
use serde::Deserialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use xos_base::Error;

/// Most connections at the same time.
pub const CONNECTIONS_MAX: usize = 16 * 1024;
/// How long a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait when the system has no file descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The section `[port]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the core listens: `address:port`. Default `0.0.0.0:7443`.
    #[serde(default = "default_listen")]
    pub listen: String,
    /// Threads that serve HTTP. Default 2.
    #[serde(default = "default_workers")]
    pub http_workers: usize,
}

fn default_listen() -> String {
    "0.0.0.0:7443".into()
}

fn default_workers() -> usize {
    2
}

/// What the port hands connections to.
pub struct Services {
    /// Operations, and the console's pages.
    pub http: Shared,
    /// Who turns certificates into callers.
    pub verifier: Verifier,
    /// The core's nodes.
    pub nodes: Nodes,
    /// Serves `xtreemfs/1`, when this core has the role.
    pub files: Option<StreamHandler>,
}

struct Port {
    tls: Arc<ServerConfig>,
    workers: Workers,
    services: Services,
}

/// Serves the port until `stop` is cancelled.
///
/// # Errors
/// [`xos_base::Kind::Internal`] when HTTP or TLS cannot be set up.
pub async fn serve(
    listener: TcpListener,
    config: &Config,
    identity: &IdentityCell,
    services: Services,
    stop: CancellationToken,
) -> Result<(), Error> {
    // Not HTTP/2: one connection could hold any number of requests, and so of bodies.
    let mut alpn: Vec<&[u8]> = vec![ALPN_HTTP, ALPN_NODE];
    if services.files.is_some() {
        alpn.push(ALPN_XTREEMFS);
    }
    let tls = tls::server_config(identity, services.verifier.trust(), &alpn)?;
    let workers = Workers::start(config.http_workers, &services.http)?;
    let port = Arc::new(Port { tls, workers, services });
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let (tcp, peer) = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok(pair) => pair,
                Err(e) => {
                    tracing::warn!(error = %e, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            tracing::warn!(%peer, limit = CONNECTIONS_MAX, "too many connections: closed");
            continue;
        };
        let (port, stop) = (port.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                result = port.connection(tcp, peer, permit) => if let Err(e) = result {
                    tracing::debug!(%peer, error = %e, "connection refused");
                },
            }
        });
    }
}

impl Port {
    /// Serves one connection; its `permit` lives as long as it does, also at a worker.
    async fn connection(
        &self,
        tcp: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), Error> {
        let broke = |e: std::io::Error| Error::unavailable(e.to_string());
        tcp.set_nodelay(true).map_err(broke)?;
        let accept = TlsAcceptor::from(self.tls.clone()).accept(tcp);
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, accept)
            .await
            .map_err(|_| Error::unavailable("the TLS handshake took too long"))?
            .map_err(broke)?;
        let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        match alpn.as_deref() {
            // A client that names no protocol speaks HTTP/1.1 (RFC 9112).
            None | Some(ALPN_HTTP) => self.workers.serve(stream, peer, permit),
            Some(ALPN_NODE) => {
                let caller = self.caller(&stream, peer)?;
                self.services.nodes.serve(Box::new(stream), caller).await?;
            }
            Some(ALPN_XTREEMFS) => {
                let caller = self.caller(&stream, peer)?;
                if let Some(files) = &self.services.files {
                    files(caller, Box::new(stream)).await;
                }
            }
            Some(_) => return Err(Error::unsupported("a protocol that is not offered")),
        }
        Ok(())
    }

    fn caller(
        &self,
        stream: &TlsStream<TcpStream>,
        peer: SocketAddr,
    ) -> Result<crate::Caller, Error> {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        self.services.verifier.certificate(chain, Some(peer.ip()))
    }
}
