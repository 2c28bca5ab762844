//! The client side of HTTP: typed requests over TLS connections that are kept and used again.

mod bound;

pub use bound::Far;

use crate::guard::{Guarded, Proved};
use crate::identity::Identity;
use crate::path::{self, Outgoing};
use crate::port::open_tcp;
use crate::refused::{Heard, Hearing};
use crate::tls::{self, ALPN_HTTP, IdentityCell};
use crate::trust::{Trust, core_name};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use xos_api::{Method, Request, Subscribe};
use xos_base::{Error, SiteId};

/// How long connecting to one address may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request without its own limit may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest reply, in bytes.
pub const REPLY_MAX: usize = 32 * 1024 * 1024;
/// A stream without a line, not even a heartbeat, for so long is dead.
pub const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Most idle connections that are kept.
const IDLE_MAX: usize = 32;

/// How the client proves who it is.
#[derive(Clone)]
pub enum Proof {
    /// Not at all.
    None,
    /// By its certificate.
    Certificate(IdentityCell),
    /// By a bearer token.
    Token(Arc<str>),
}

/// A client of one site's core.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    site: SiteId,
    trust: Trust,
    tls: Arc<ClientConfig>,
    identity: Option<IdentityCell>,
    token: Option<Arc<str>>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Client {
    /// A client of `site`, whose addresses and root stand in `trust`.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when TLS cannot be set up.
    pub fn new(site: SiteId, trust: &Trust, proof: &Proof) -> Result<Client, Error> {
        let (identity, token) = match proof {
            Proof::None => (None, None),
            Proof::Certificate(cell) => (Some(cell), None),
            Proof::Token(token) => (None, Some(token.clone())),
        };
        let tls = tls::client_config(identity, trust, &[ALPN_HTTP])?;
        let (identity, idle) = (identity.cloned(), Mutex::new(Vec::new()));
        let trust = trust.clone();
        Ok(Client { inner: Arc::new(Inner { site, trust, tls, identity, token, idle }) })
    }

    /// A client that proves itself by `identity`.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_identity(site: SiteId, trust: &Trust, id: Identity) -> Result<Client, Error> {
        Client::new(site, trust, &Proof::Certificate(IdentityCell::new(id)))
    }

    /// Sends `r` and waits for its reply.
    ///
    /// # Errors
    /// What the core answers, or [`xos_base::Kind::Unavailable`] when it does not;
    /// [`xos_base::Kind::Unauthenticated`] when it does not take a person's certificate.
    pub async fn call<R: Request>(&self, r: R) -> Result<R::Reply, Error> {
        let out = path::write(R::METHOD, R::PATH, &r)?;
        // Paths with what they name may hold what is secret.
        let (site, method, path) = (&self.inner.site, R::METHOD.as_str(), R::PATH);
        tracing::debug!(%site, method, path, "asking");
        let call = async {
            let (body, sender) = self.send(R::METHOD, out).await?;
            let bytes = collect(body).await?;
            self.put_back(sender);
            decode(&bytes)
        };
        let result = match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(result) => result,
            Err(_) => Err(self.unreachable("it did not answer in time")),
        };
        match &result {
            Ok(_) => tracing::debug!(%site, method, path, "answered"),
            Err(error) => tracing::debug!(%site, method, path, %error, "refused"),
        }
        result
    }

    /// Sends `s` and gives the items as they come.
    ///
    /// # Errors
    /// As [`Client::call`]; an item may be an error too, and then is the last.
    pub async fn subscribe<S: Subscribe>(
        &self,
        s: S,
    ) -> Result<BoxStream<'static, Result<S::Item, Error>>, Error> {
        let out = path::write(S::METHOD, S::PATH, &s)?;
        let site = self.inner.site.clone();
        let (body, sender) = self.send(S::METHOD, out).await?;
        let state = Lines { body, buffer: BytesMut::new(), done: false, site, _sender: sender };
        Ok(futures_util::stream::unfold(state, |mut state| async move {
            let item = state.next::<S::Item>().await?;
            Some((item, state))
        })
        .boxed())
    }

    fn unreachable(&self, why: &str) -> Error {
        Error::unavailable(format!("the core of {} cannot be reached: {why}", self.inner.site))
            .hint("try again in a moment")
    }

    /// Why a first request on a connection failed: the core may have refused our certificate.
    fn first_failed(&self, heard: &Heard, e: &hyper::Error) -> Error {
        let shown = self.inner.identity.as_ref().map(IdentityCell::get);
        heard
            .refusal(&self.inner.site, shown.as_ref())
            .unwrap_or_else(|| self.unreachable(&root_cause(e)))
    }

    async fn send(
        &self,
        method: Method,
        out: Outgoing,
    ) -> Result<(hyper::body::Incoming, SendRequest<Full<Bytes>>), Error> {
        // A kept connection may have been closed by the core meanwhile. The core closes idle
        // connections only between requests, so a request that could not be sent at all is safe
        // to send again on a new one.
        if let Some(mut sender) = self.take_idle()
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(self.request(method, &out)?).await {
                Ok(response) => return Ok((check(response).await?, sender)),
                Err(mut e) => {
                    if e.take_message().is_none() {
                        return Err(self.unreachable(&root_cause(e.error())));
                    }
                }
            }
        }
        let (mut sender, heard, _) = self.connect().await?;
        let response = sender
            .send_request(self.request(method, &out)?)
            .await
            .map_err(|e| self.first_failed(&heard, &e))?;
        Ok((check(response).await?, sender))
    }

    fn request(&self, method: Method, out: &Outgoing) -> Result<http::Request<Full<Bytes>>, Error> {
        let mut builder = http::Request::builder()
            .method(method.as_str())
            .uri(&out.target)
            .header("host", core_name(&self.inner.site));
        if method.has_body() {
            builder = builder.header("content-type", "application/json");
        }
        if let Some(token) = &self.inner.token {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        builder
            .body(Full::new(Bytes::from(out.body.clone())))
            .map_err(|e| Error::invalid(format!("cannot form a request: {e}")))
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn put_back(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !sender.is_closed() {
            idle.push(sender);
        }
    }

    async fn connect(&self) -> Result<(SendRequest<Full<Bytes>>, Heard, Far), Error> {
        let Inner { site, trust, tls, .. } = &*self.inner;
        let (stream, address) = dial(site, trust, tls).await?;
        let far = Far::of(stream.stream(), &address)?;
        let heard = Heard::default();
        let stream = Hearing::new(stream, heard.clone());
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.unreachable(&e.to_string()))?;
        tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!(error = %e, "connection to a core ended");
            }
        });
        Ok((sender, heard, far))
    }
}

/// Opens a TLS connection to the core of `site`, trying its addresses in order. It is cut when the
/// site is trusted no more.
///
/// # Errors
/// [`xos_base::Kind::Unavailable`] when none answers, [`xos_base::Kind::NotFound`] when the site
/// is not trusted.
pub async fn dial_core(
    site: &SiteId,
    trust: &Trust,
    tls: &Arc<ClientConfig>,
) -> Result<Guarded<TlsStream<TcpStream>>, Error> {
    dial(site, trust, tls).await.map(|(stream, _)| stream)
}

/// As [`dial_core`], with the address that answered.
async fn dial(
    site: &SiteId,
    trust: &Trust,
    tls: &Arc<ClientConfig>,
) -> Result<(Guarded<TlsStream<TcpStream>>, String), Error> {
    let descriptor = trust.descriptor(site)?;
    let name = ServerName::try_from(core_name(site))
        .map_err(|e| Error::internal(format!("core name: {e}")))?;
    let mut why = "it has no address".to_owned();
    for address in &descriptor.addresses {
        let open = async {
            let tcp = open_tcp(address).await?;
            TlsConnector::from(tls.clone()).connect(name.clone(), tcp).await
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, open).await {
            Ok(Ok(stream)) => {
                let proved = Proved { site: site.clone(), node: None };
                let stream = Guarded::new(stream, trust.guard(proved));
                tracing::debug!(%site, address, "connected");
                return Ok((stream, address.clone()));
            }
            Ok(Err(e)) => why = format!("{address}: {e}"),
            Err(_) => why = format!("{address}: no answer"),
        }
    }
    Err(Error::unavailable(format!("the core of {site} cannot be reached: {why}"))
        .hint("check the address and that its xosd runs, then try again"))
}

fn root_cause(e: &hyper::Error) -> String {
    let mut cause: &dyn std::error::Error = e;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

async fn check(
    response: http::Response<hyper::body::Incoming>,
) -> Result<hyper::body::Incoming, Error> {
    let (head, body) = response.into_parts();
    if head.status.is_success() {
        return Ok(body);
    }
    let bytes = collect(body).await?;
    Err(serde_json::from_slice::<Error>(&bytes).unwrap_or_else(|_| {
        Error::unavailable(format!("the core answered with HTTP status {}", head.status))
    }))
}

async fn collect(mut body: hyper::body::Incoming) -> Result<Bytes, Error> {
    let mut out = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| broken(&e.to_string()))?;
        if let Ok(data) = frame.into_data() {
            if out.len() + data.len() > REPLY_MAX {
                return Err(Error::too_large(format!("a reply is over {REPLY_MAX} bytes")));
            }
            out.extend_from_slice(&data);
        }
    }
    Ok(out.freeze())
}

fn broken(why: &str) -> Error {
    Error::unavailable(format!("the connection to the core broke: {why}")).hint("try again")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|e| {
        Error::unavailable(format!("the core's answer is not understood: {e}"))
            .hint("the versions of this program and the core may differ too much")
    })
}

struct Lines {
    body: hyper::body::Incoming,
    buffer: BytesMut,
    done: bool,
    site: SiteId,
    // Dropping the sender would close the connection under the body.
    _sender: SendRequest<Full<Bytes>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line<T> {
    Ok(T),
    Error(Error),
}

impl Lines {
    async fn next<T: DeserializeOwned>(&mut self) -> Option<Result<T, Error>> {
        while !self.done {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(end + 1);
                let line = line.trim_ascii();
                if line.is_empty() {
                    continue;
                }
                return Some(match decode::<Line<T>>(line) {
                    Ok(Line::Ok(item)) => Ok(item),
                    Ok(Line::Error(e)) | Err(e) => {
                        self.done = true;
                        Err(e)
                    }
                });
            }
            if self.buffer.len() > REPLY_MAX {
                self.done = true;
                return Some(Err(Error::too_large(format!("a line is over {REPLY_MAX} bytes"))));
            }
            match tokio::time::timeout(SILENCE_MAX, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Ok(Some(Err(e))) => {
                    self.done = true;
                    return Some(Err(broken(&e.to_string())));
                }
                Ok(None) => self.done = true,
                Err(_) => {
                    self.done = true;
                    return Some(Err(broken(&format!("{} is silent", self.site))));
                }
            }
        }
        None
    }
}
