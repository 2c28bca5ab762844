//! TLS 1.3 with our own rule of who may vouch for whom, in both directions.
//!
//! Sessions are never resumed: a resumed session would carry a caller past a change of trust.

use crate::identity::Identity;
use crate::trust::{MACHINE_SUFFIX, Subject, Trust, Usage, subject_of};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error as TlsError,
    ServerConfig, SignatureScheme,
};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use xos_base::{Error, Millis};

/// ALPN of HTTP/1.1 (RFC 7301).
pub const ALPN_HTTP: &[u8] = b"http/1.1";
/// ALPN of the control and dial-back protocol.
pub const ALPN_NODE: &[u8] = b"xos-node/1";
/// ALPN of the file protocol.
pub const ALPN_XTREEMFS: &[u8] = b"xtreemfs/1";
/// A person's stream to the sshd of a node.
pub const ALPN_SSH: &[u8] = b"xos-ssh/1";
/// A person's stream to a program of theirs in a cluster, at the node that collects its output.
pub const ALPN_CLUSTER: &[u8] = b"xos-cluster/1";

/// The crypto provider of the whole program.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// An identity that can be replaced while connections are served.
#[derive(Clone)]
pub struct IdentityCell(Arc<RwLock<Identity>>);

impl IdentityCell {
    /// A cell that holds `identity`.
    pub fn new(identity: Identity) -> IdentityCell {
        IdentityCell(Arc::new(RwLock::new(identity)))
    }

    /// New connections use `identity` from now on.
    pub fn replace(&self, identity: Identity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// The present identity.
    pub fn get(&self) -> Identity {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for IdentityCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityCell")
    }
}

impl ResolvesClientCert for IdentityCell {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.get().certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The server side: a client certificate is optional (people may come with a token), but one
/// that is sent must hold under `trust`.
///
/// # Errors
/// [`xos_base::Kind::Internal`] when the crypto provider lacks TLS 1.3.
pub fn server_config(
    identity: &IdentityCell,
    trust: &Trust,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, Error> {
    let provider = provider();
    let verifier = Arc::new(ChainRule { trust: trust.clone(), provider: provider.clone() });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Error::internal(format!("TLS: {e}")))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Shown { identity: identity.clone(), trust: trust.clone() }));
    config.alpn_protocols = alpn.iter().map(|a| a.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The client side: the server must be the machine that the `.xos.internal` name asks for.
///
/// # Errors
/// As [`server_config`].
pub fn client_config(
    identity: Option<&IdentityCell>,
    trust: &Trust,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, Error> {
    let provider = provider();
    let verifier = Arc::new(ChainRule { trust: trust.clone(), provider: provider.clone() });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Error::internal(format!("TLS: {e}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(cell) => builder.with_client_cert_resolver(Arc::new(cell.clone())),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|a| a.to_vec()).collect();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// What a server shows. Machines and the tool ask for a machine by its name and have its site's
/// root; who asks for another name or none is a browser, and sees the root too, so that a person
/// can compare its fingerprint.
struct Shown {
    identity: IdentityCell,
    trust: Trust,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let identity = self.identity.get();
        if hello.server_name().is_some_and(|name| name.ends_with(MACHINE_SUFFIX)) {
            return Some(identity.certified());
        }
        let subject = subject_of(&identity.chain()[0]).ok();
        let root = subject.and_then(|named| self.trust.root(&named.authority()));
        Some(root.map_or_else(|| identity.certified(), |root| identity.certified_with(root)))
    }
}

/// [`Trust::verify_chain`] as rustls wants it. The log has the reason; the peer gets an alert.
struct ChainRule {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for ChainRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChainRule")
    }
}

impl ChainRule {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<Subject, TlsError> {
        let mut chain = vec![leaf.clone()];
        chain.extend(between.iter().cloned());
        let now = Millis::from_secs(now.as_secs());
        self.trust.check_chain(&chain, usage, now).map_err(|refusal| {
            let told = refusal.told();
            tracing::info!(error = %Error::from(refusal), "TLS peer refused");
            TlsError::InvalidCertificate(told)
        })
    }

    fn signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn no_tls12() -> TlsError {
    TlsError::General("TLS 1.2 is not spoken here".into())
}

impl ClientCertVerifier for ChainRule {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        self.check(leaf, between, Usage::Client, now).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ServerCertVerifier for ChainRule {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let found = match self.check(leaf, between, Usage::Server, now)? {
            Subject::Core(site) => crate::trust::core_name(&site),
            Subject::Node(node) => crate::trust::node_name(&node),
            Subject::Member(_) => return Err(TlsError::General("a person is no server".into())),
        };
        if name.to_str() == found {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(TlsError::InvalidCertificate(CertificateError::NotValidForName))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
