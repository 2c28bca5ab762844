//! First contact: asking a core who its site is before its root is known.
//!
//! The connection proves that whoever answers holds the key of a core certificate which the root
//! in the answer signed. It proves nothing about that root: the caller compares its fingerprint
//! with one that came by another way.

use crate::identity::root_fingerprint;
use crate::tls::{ALPN_HTTP, provider};
use crate::trust::{Subject, Trust, Usage, core_name};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use xos_api::Request;
use xos_api::site::{GetSite, SiteDescriptor};
use xos_base::when::Clock;
use xos_base::{Error, SiteId};

/// The port of a core, when an address names none.
pub const DEFAULT_PORT: u16 = 7443;
/// How long first contact may take in all.
pub const DISCOVER_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest descriptor, in bytes of JSON.
pub const DESCRIPTOR_MAX: usize = 256 * 1024;
/// Longest address, in bytes.
pub const ADDRESS_MAX: usize = 300;

/// Asks the core at `address` (`host:port`, or `host` with [`DEFAULT_PORT`]) who its site is:
/// the descriptor, and the fingerprint of its root (`sha256:` and 64 hexadecimal digits).
///
/// # Errors
/// [`xos_base::Kind::Invalid`] for what is no address, [`xos_base::Kind::Unavailable`] when
/// nothing of ours answers there, [`xos_base::Kind::Unauthenticated`] when the answer is not by
/// the site that it names.
pub async fn discover(address: &str) -> Result<(SiteDescriptor, String), Error> {
    let address = with_port(address)?;
    let asked = async {
        let (descriptor, chain) = ask(&address).await?;
        let fingerprint = check(&descriptor, &chain, xos_base::when::SystemClock.now())?;
        Ok((descriptor, fingerprint))
    };
    tokio::time::timeout(DISCOVER_TIMEOUT, asked)
        .await
        .unwrap_or_else(|_| Err(unreachable(&address, "it did not answer in time")))
}

/// `address` with [`DEFAULT_PORT`] when it names none. An IPv6 address stands in brackets.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] when it is no address.
pub fn with_port(address: &str) -> Result<String, Error> {
    let bad = || {
        Error::invalid(format!("{:?} is no address of a core", crate::path::shown(address)))
            .hint(format!("write host:port, for example core.example.org:{DEFAULT_PORT}"))
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]%".contains(c);
    if address.is_empty() || address.len() > ADDRESS_MAX || !address.chars().all(plain) {
        return Err(bad());
    }
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(bad)?;
            (format!("[{host}]"), port.strip_prefix(':').or(port.is_empty().then_some("")))
        }
        None => {
            let (host, port) = address.split_once(':').unwrap_or((address, ""));
            (host.to_owned(), Some(port))
        }
    };
    match (host.as_str(), port.ok_or_else(bad)?) {
        ("" | "[]", _) => Err(bad()),
        (host, "") if !address.ends_with(':') => Ok(format!("{host}:{DEFAULT_PORT}")),
        (host, port) => match port.parse::<u16>() {
            Ok(n) if n > 0 => Ok(format!("{host}:{n}")),
            _ => Err(bad()),
        },
    }
}

fn unreachable(address: &str, why: &str) -> Error {
    Error::unavailable(format!("the core at {address} cannot be reached: {why}"))
        .hint("check the address and that its xosd runs, then try again")
}

fn check(
    descriptor: &SiteDescriptor,
    chain: &[CertificateDer<'static>],
    now: xos_base::Millis,
) -> Result<String, Error> {
    let trust = Trust::new();
    trust.add(descriptor.clone())?;
    if let Some(bad) = descriptor.addresses.iter().find(|a| with_port(a).is_err()) {
        return Err(Error::invalid(format!(
            "the site's descriptor holds {:?}, which is no address",
            crate::path::shown(bad)
        )));
    }
    let subject = trust.verify_chain(chain, Usage::Server, now)?;
    if subject != Subject::Core(descriptor.site.clone()) {
        return Err(Error::unauthenticated(format!(
            "the machine that answered is not the core of {}, which it claims to be",
            descriptor.site
        ))
        .hint("ask the site's administrator for the right address"));
    }
    let root = STANDARD
        .decode(&descriptor.root)
        .map_err(|_| Error::invalid("the site's root is no base64"))?;
    Ok(root_fingerprint(&root))
}

async fn ask(address: &str) -> Result<(SiteDescriptor, Vec<CertificateDer<'static>>), Error> {
    let fail = |why: String| unreachable(address, &why);
    let tcp = TcpStream::connect(address).await.map_err(|e| fail(e.to_string()))?;
    tcp.set_nodelay(true).map_err(|e| fail(e.to_string()))?;
    // Which site answers is what we want to know: the name asked for is nobody's.
    let nobody: SiteId = "unknown".parse()?;
    let name = ServerName::try_from(core_name(&nobody))
        .map_err(|e| Error::internal(format!("core name: {e}")))?;
    let stream = TlsConnector::from(Arc::new(config()?))
        .connect(name, tcp)
        .await
        .map_err(|e| fail(format!("it does not speak our TLS: {e}")))?;
    let chain: Vec<CertificateDer<'static>> = stream
        .get_ref()
        .1
        .peer_certificates()
        .unwrap_or_default()
        .iter()
        .map(|c| c.clone().into_owned())
        .collect();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| fail(e.to_string()))?;
    let request = http::Request::get(GetSite::PATH)
        .header("host", core_name(&nobody))
        .body(Empty::<Bytes>::new())
        .map_err(|e| Error::internal(format!("cannot form a request: {e}")))?;
    tokio::spawn(async move {
        if let Err(e) = connection.await {
            tracing::debug!(error = %e, "connection of a first contact ended");
        }
    });
    let response = sender.send_request(request).await.map_err(|e| fail(e.to_string()))?;
    if !response.status().is_success() {
        return Err(fail(format!("it answered with HTTP status {}", response.status())));
    }
    let body = Limited::new(response.into_body(), DESCRIPTOR_MAX);
    let bytes = body.collect().await.map_err(|e| fail(e.to_string()))?.to_bytes();
    let descriptor = serde_json::from_slice(&bytes)
        .map_err(|e| fail(format!("its answer is not that of an XOS core: {e}")))?;
    Ok((descriptor, chain))
}

fn config() -> Result<ClientConfig, Error> {
    let provider = provider();
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Error::internal(format!("TLS: {e}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody { provider }))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Takes every chain, as long as the peer holds the leaf's key: the chain is judged afterwards,
/// under the root of the descriptor.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_the_default_port_and_rubbish_is_refused() {
        // A wrong split would make people connect to another host or port than they wrote.
        for (given, full) in [
            ("core.example.org", "core.example.org:7443"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::1]", "[::1]:7443"),
            ("[fe80::1%eth0]:9", "[fe80::1%eth0]:9"),
        ] {
            assert_eq!(with_port(given).unwrap(), full);
        }
        let long = "a".repeat(ADDRESS_MAX + 1);
        for bad in ["", ":1", "a:", "a:0", "a:70000", "a b", "a\n", "[::1", "[]:1", "::1", &long] {
            assert!(with_port(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_said_so() {
        // Bound and dropped: nothing listens there.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let e = discover(&free.to_string()).await.unwrap_err();
        assert_eq!(e.kind, xos_base::Kind::Unavailable, "{e}");
    }
}
