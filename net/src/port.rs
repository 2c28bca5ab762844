//! The one port: accepts TLS on our runtime, reads what the peer wants to speak, and hands the
//! connection on.

use crate::caller::{Caller, Verifier};
use crate::dial::StreamHandler;
use crate::guard::{Guarded, Proved};
use crate::http::{Shared, Workers};
use crate::nodes::{self, Io, Nodes};
use crate::places::{Machine, Most, Place, Places};
use crate::tls::{self, ALPN_HTTP, ALPN_NODE, ALPN_XTREEMFS, IdentityCell};
use crate::trust::{Subject, subject_of};
use rustls::ServerConfig;
use serde::Deserialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use xos_base::Error;

/// Fewest connections at a time that can be set.
const CONNECTIONS_LEAST: usize = 16;
/// How long a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After how long a peer that takes nothing of what it is sent, or is gone, loses its connection.
const UNSENT_MAX: Duration = Duration::from_secs(60);
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
    /// Most connections at a time. At most half of them are people's and strangers', a quarter
    /// those of all other sites' machines, of which one site has at most half of what the others
    /// leave; an eighth TLS handshakes, a sixteenth one node's. Default 16384, at least 16.
    #[serde(default = "default_connections")]
    pub connections: usize,
    /// Most connections at a time of people and strangers from one address (of IPv6: one /64).
    /// Raise it where many come from behind one address. Default 512, at least 2.
    #[serde(default = "default_per_address")]
    pub connections_per_address: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: default_listen(),
            http_workers: default_workers(),
            connections: default_connections(),
            connections_per_address: default_per_address(),
        }
    }
}

impl Config {
    fn most(&self) -> Result<Most, Error> {
        if self.connections < CONNECTIONS_LEAST || self.connections_per_address < 2 {
            return Err(Error::invalid(format!(
                "[port] connections must be at least {CONNECTIONS_LEAST}, and \
                 connections_per_address at least 2"
            )));
        }
        Ok(Most { all: self.connections, address: self.connections_per_address })
    }
}

fn default_listen() -> String {
    "0.0.0.0:7443".into()
}

fn default_workers() -> usize {
    2
}

fn default_connections() -> usize {
    16 * 1024
}

fn default_per_address() -> usize {
    512
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
/// [`xos_base::Kind::Internal`] when HTTP or TLS cannot be set up, [`xos_base::Kind::Invalid`] for
/// a bad configuration.
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
    let places = Places::new(services.verifier.site().clone(), config.most()?);
    let port = Arc::new(Port { tls, workers, services });
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
        let place = match places.enter(peer.ip()) {
            Ok(place) => place,
            Err(e) => {
                tracing::debug!(%peer, error = %e, "a connection is closed at once");
                continue;
            }
        };
        let (port, stop) = (port.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                result = port.connection(tcp, peer, place) => if let Err(e) = result {
                    tracing::debug!(%peer, error = %e, "connection refused");
                },
            }
        });
    }
}

impl Port {
    /// Serves one connection; its `place` is held as long as it lives, also at a worker.
    async fn connection(
        &self,
        tcp: TcpStream,
        peer: SocketAddr,
        mut place: Place,
    ) -> Result<(), Error> {
        let broke = |e: std::io::Error| Error::unavailable(e.to_string());
        tcp.set_nodelay(true).map_err(broke)?;
        limit_unsent(&tcp).map_err(broke)?;
        let accept = TlsAcceptor::from(self.tls.clone()).accept(tcp);
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, accept)
            .await
            .map_err(|_| Error::unavailable("the TLS handshake took too long"))?
            .map_err(broke)?;
        place.shaken(machine(&stream)?)?;
        let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        match alpn.as_deref() {
            // A client that names no protocol speaks HTTP/1.1 (RFC 9112).
            None | Some(ALPN_HTTP) => self.workers.serve(stream, peer, place),
            Some(ALPN_NODE) => {
                let caller = match self.caller(&stream, peer) {
                    Ok(caller) => caller,
                    Err(why) => return Err(nodes::refuse(stream, why).await),
                };
                let stream = self.guarded(stream, &caller);
                self.services.nodes.serve(stream, caller).await?;
            }
            Some(ALPN_XTREEMFS) => {
                let caller = self.caller(&stream, peer)?;
                let stream = self.guarded(stream, &caller);
                if let Some(files) = &self.services.files {
                    files(caller, stream).await;
                }
            }
            Some(_) => return Err(Error::unsupported("a protocol that is not offered")),
        }
        Ok(())
    }

    fn caller(&self, stream: &TlsStream<TcpStream>, peer: SocketAddr) -> Result<Caller, Error> {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        self.services.verifier.certificate(chain, Some(peer.ip()))
    }

    /// The stream, which is cut when the caller is refused later.
    fn guarded(&self, stream: TlsStream<TcpStream>, caller: &Caller) -> Box<dyn Io> {
        let guard = self.services.verifier.trust().guard(Proved::of(caller));
        Box::new(Guarded::new(stream, guard))
    }
}

/// The machine whose certificate the handshake verified, if one came.
fn machine(stream: &TlsStream<TcpStream>) -> Result<Option<Machine>, Error> {
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let Some(leaf) = chain.first() else { return Ok(None) };
    Ok(match subject_of(leaf)? {
        Subject::Core(site) => Some(Machine::Core(site)),
        Subject::Node(node) => Some(Machine::Node(node)),
        Subject::Member(_) => None,
    })
}

/// Without this, who reads nothing of a long answer would hold its connection for ever, and a peer
/// that is gone be waited for.
fn limit_unsent(tcp: &TcpStream) -> std::io::Result<()> {
    let millis = u32::try_from(UNSENT_MAX.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(tcp, millis)?;
    rustix::net::sockopt::set_socket_keepalive(tcp, true)?;
    rustix::net::sockopt::set_tcp_keepidle(tcp, UNSENT_MAX)?;
    Ok(())
}

/// A connection to another machine, which ends when that is gone.
pub(crate) async fn open_tcp(address: &str) -> std::io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    limit_unsent(&tcp)?;
    Ok(tcp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::sockopt::{socket_keepalive, tcp_keepidle, tcp_user_timeout};

    #[tokio::test]
    async fn a_peer_that_is_gone_is_found_out() {
        // wrong: a stream from a machine that lost its power would be read for ever
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tcp = open_tcp(&address).await.unwrap();
        assert!(socket_keepalive(&tcp).unwrap());
        assert!(tcp_user_timeout(&tcp).unwrap() > 0);
        assert!(tcp_keepidle(&tcp).unwrap() <= UNSENT_MAX);
    }
}
