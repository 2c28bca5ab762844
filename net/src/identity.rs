//! A machine's or person's own certificate and key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};
use xos_base::{Error, Millis};

/// A certificate chain with its private key, ready for TLS.
#[derive(Clone)]
pub struct Identity {
    key: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads a chain (leaf first) and a PKCS #8 key, both PEM.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when either is malformed or they do not belong together.
    pub fn from_pem(chain: &str, key: &str) -> Result<Identity, Error> {
        let bad = |what: &str| Error::invalid(format!("cannot use the certificate: {what}"));
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let chain = chain.map_err(|e| bad(&e.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| bad(&e.to_string()))?;
        Identity::new(chain, &key)
    }

    /// From DER.
    ///
    /// # Errors
    /// As [`Identity::from_pem`].
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<Identity, Error> {
        let bad = |what: &str| Error::invalid(format!("cannot use the certificate: {what}"));
        if chain.is_empty() {
            return Err(bad("there is none"));
        }
        let key = any_supported_type(key).map_err(|e| bad(&e.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        certified
            .keys_match()
            .map_err(|_| bad("the private key does not belong to the certificate"))?;
        Ok(Identity { key: Arc::new(certified) })
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.key.clone()
    }

    /// The same with the root behind the chain.
    pub(crate) fn certified_with(&self, root: CertificateDer<'static>) -> Arc<CertifiedKey> {
        let mut chain = self.key.cert.clone();
        chain.push(root);
        Arc::new(CertifiedKey::new(chain, self.key.key.clone()))
    }
}

/// From when and until when a certificate is valid.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] when the bytes are no certificate.
pub fn validity(cert: &CertificateDer<'_>) -> Result<(Millis, Millis), Error> {
    let (_, cert) =
        X509Certificate::from_der(cert).map_err(|_| Error::invalid("not an X.509 certificate"))?;
    let at = |t: i64| Millis::from_secs(u64::try_from(t).unwrap_or(0));
    let validity = cert.validity();
    Ok((at(validity.not_before.timestamp()), at(validity.not_after.timestamp())))
}

/// SHA-256 over a certificate's SubjectPublicKeyInfo, lower-case hex: what tickets name a node's
/// key by.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] when the bytes are no certificate.
pub fn key_fingerprint(cert: &CertificateDer<'_>) -> Result<String, Error> {
    let (_, cert) =
        X509Certificate::from_der(cert).map_err(|_| Error::invalid("not an X.509 certificate"))?;
    Ok(hex(sha256(cert.public_key().raw).as_ref()))
}

/// Names a TLS connection by the certificate that its server shows (RFC 5929, section 4), for
/// tokens that shall be good only there. Ours are all signed with SHA-256.
pub fn end_point(cert: &CertificateDer<'_>) -> Vec<u8> {
    [b"tls-server-end-point:".as_slice(), &sha256(cert)].concat()
}

/// `sha256:` and 64 hex digits: what a person compares to recognise a site's root.
pub fn root_fingerprint(root_der: &[u8]) -> String {
    format!("sha256:{}", hex(sha256(root_der).as_ref()))
}

/// The fingerprint of the root in a site descriptor (base64).
///
/// # Errors
/// [`xos_base::Kind::Invalid`] when it is no base64.
pub fn descriptor_fingerprint(root: &str) -> Result<String, Error> {
    let der = STANDARD.decode(root).map_err(|_| Error::invalid("the root is no base64"))?;
    Ok(root_fingerprint(&der))
}

/// SHA-256 (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        // Writing into a String cannot fail.
        let _infallible = write!(s, "{b:02x}");
        s
    })
}
