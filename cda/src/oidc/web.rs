//! HTTP to a provider: TLS 1.3 and nothing else, no redirects, limits of size and time.
//!
//! Where requests go stands in what the provider says of itself, so a provider could send the core
//! to any address. It comes no further than a TLS connection whose certificate holds, and never
//! reads an answer.

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use openidconnect::url::{Host, Url};
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use xos_base::Error;
use xos_net::tls::{ALPN_HTTP, provider};

/// How long a request may take, with waiting for its turn.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer, in bytes.
pub(crate) const ANSWER_MAX: usize = 256 * 1024;
/// Longest head of an answer, in bytes.
const HEAD_MAX: usize = 64 * 1024;
/// Most requests to one provider at the same time.
const AT_ONCE: usize = 32;

/// Why a provider gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebError {
    /// Only https is spoken.
    #[error("{0} is no https address")]
    Address(String),
    /// See [`REQUEST_TIMEOUT`].
    #[error("no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Slow,
    /// Nobody is there, or it is somebody else.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, std::io::Error),
    /// See [`ANSWER_MAX`].
    #[error("the answer is over {} bytes", ANSWER_MAX)]
    TooLarge,
    /// It is not HTTP, or it broke off.
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    /// This core is being stopped.
    #[error("this core is being stopped")]
    Stopped,
}

/// The client of one provider.
pub(crate) struct Web {
    tls: TlsConnector,
    loopback: bool,
    turns: Semaphore,
}

/// Whether requests, or browsers, may be sent there: by https; on `loopback` also by http.
pub(crate) fn is_allowed(url: &Url, loopback: bool) -> bool {
    let plain = match url.host() {
        Some(Host::Ipv4(a)) => a.is_loopback(),
        Some(Host::Ipv6(a)) => a.is_loopback(),
        _ => false,
    };
    let scheme = match url.scheme() {
        "https" => url.host().is_some(),
        "http" => loopback && plain,
        _ => false,
    };
    scheme && url.username().is_empty() && url.password().is_none()
}

impl Web {
    /// A client that believes the system's authorities and those in `ca_file`. Blocks on the disk.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when the file cannot be used.
    pub(crate) fn new(ca_file: Option<&Path>, loopback: bool) -> Result<Web, Error> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for e in &system.errors {
            tracing::warn!(error = %e, "an authority of the system cannot be read");
        }
        roots.add_parsable_certificates(system.certs);
        if let Some(path) = ca_file {
            let bad = |e: &dyn std::fmt::Display| {
                Error::invalid(format!("[[cda.providers]] ca_file: {}: {e}", path.display()))
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(&e))? {
                let certificate = certificate.map_err(|e| bad(&e))?;
                roots.add(certificate).map_err(|e| bad(&e))?;
            }
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| Error::internal(format!("TLS: {e}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Web { tls, loopback, turns: Semaphore::new(AT_ONCE) })
    }

    /// Sends `request` and gives the answer, whatever its status.
    pub(crate) async fn send(&self, request: HttpRequest) -> Result<HttpResponse, WebError> {
        let exchange = async {
            let _turn = self.turns.acquire().await.map_err(|_| WebError::Stopped)?;
            self.exchange(request).await
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(WebError::Slow),
        }
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, WebError> {
        let (mut head, body) = request.into_parts();
        let shown = head.uri.to_string();
        let refuse = || WebError::Address(shown.clone());
        let url = Url::parse(&shown).map_err(|_| refuse())?;
        if !is_allowed(&url, self.loopback) {
            return Err(refuse());
        }
        let authority = head.uri.authority().ok_or_else(refuse)?.as_str();
        let host_header = HeaderValue::from_str(authority).map_err(|_| refuse())?;
        head.headers.insert(HOST, host_header);
        let target = head.uri.path_and_query().map_or("/", |p| p.as_str());
        head.uri = target.parse().map_err(|_| refuse())?;
        let request = http::Request::from_parts(head, Full::new(Bytes::from(body)));

        let host = match url.host().ok_or_else(refuse)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(a) => a.to_string(),
            Host::Ipv6(a) => a.to_string(),
        };
        let port = url.port_or_known_default().ok_or_else(refuse)?;
        let failed = |e| WebError::Connect(host.clone(), e);
        let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        if url.scheme() == "http" {
            return over(tcp, request).await;
        }
        let name = ServerName::try_from(host.clone()).map_err(|_| refuse())?;
        let stream = self.tls.connect(name, tcp).await.map_err(failed)?;
        over(stream, request).await
    }
}

impl<'c> AsyncHttpClient<'c> for Web {
    type Error = WebError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, WebError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// One request over one connection, which ends with it.
async fn over<S>(stream: S, request: http::Request<Full<Bytes>>) -> Result<HttpResponse, WebError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(HEAD_MAX).handshake(TokioIo::new(stream)).await?;
    let mut answer = pin!(async move {
        let (head, mut body) = sender.send_request(request).await?.into_parts();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                if bytes.len() + data.len() > ANSWER_MAX {
                    return Err(WebError::TooLarge);
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(http::Response::from_parts(head, bytes))
    });
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            if let Err(e) = ended {
                tracing::debug!(error = %e, "connection to a provider ended");
            }
            // What came before the end can still be read.
            answer.await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, what a provider says of itself could lead the core to services of its own
    /// machine, or secrets over a line that anybody reads.
    #[test]
    fn only_https_and_on_wish_loopback_is_spoken() {
        let allowed = |text: &str, loopback| is_allowed(&Url::parse(text).unwrap(), loopback);
        assert!(allowed("https://id.example/token", false));
        assert!(!allowed("http://id.example/token", true));
        assert!(!allowed("http://127.0.0.1:1/token", false));
        assert!(allowed("http://127.0.0.1:1/token", true));
        assert!(allowed("http://[::1]:1/token", true));
        assert!(!allowed("http://localhost:1/token", true));
        assert!(!allowed("http://169.254.169.254/token", true));
        assert!(!allowed("https://a:b@id.example/", true));
        assert!(!allowed("file:///etc/passwd", true));
        assert!(!allowed("javascript:alert(1)", true));
    }
}
