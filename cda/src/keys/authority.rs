//! The site's root and the two authorities below it.
//!
//! The root (P-256, 10 years) signs two authorities and nothing else, so that its key can be kept
//! apart. `machines` signs cores and nodes; `people` signs memberships and cannot sign for a
//! machine: its extended key usage is client only, and the machines' names are excluded.

use crate::issue::{BACKDATE, random_serial, time_of};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
    PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};
use xos_base::{Error, Millis, SiteId};
use xos_net::trust::MACHINE_SUFFIX;
use zeroize::Zeroizing;

const DAY: Duration = Duration::from_secs(24 * 3600);
const ROOT_LIFE: Duration = Duration::from_secs(3652 * 24 * 3600);
const AUTHORITY_LIFE: Duration = Duration::from_secs(730 * 24 * 3600);

/// What an authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Root,
    People,
    Machines,
}

impl Role {
    /// The name of its file.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Role::Root => "root.pem",
            Role::People => "people.pem",
            Role::Machines => "machines.pem",
        }
    }

    fn name(self, site: &SiteId) -> String {
        match self {
            Role::Root => format!("XOS site {site}"),
            Role::People => format!("XOS site {site} people"),
            Role::Machines => format!("XOS site {site} machines"),
        }
    }
}

/// From when until when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Millis,
    pub(crate) until: Millis,
}

impl Span {
    /// Whether two thirds of it are over.
    pub(crate) fn is_due(self, now: Millis) -> bool {
        now.since(self.from) >= self.until.since(self.from) * 2 / 3
    }
}

/// A key that signs certificates, with its own certificate.
pub(crate) struct Authority {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
    pub(crate) span: Span,
}

fn damaged(what: &str) -> Error {
    Error::internal(format!("the site's keys are damaged: {what}"))
        .hint("restore the folder from a backup")
}

impl Authority {
    /// Reads a file that [`make`] or [`renew`] wrote.
    pub(crate) fn read(text: &str) -> Result<Authority, Error> {
        let key = KeyPair::from_pem_and_sign_algo(text, &PKCS_ECDSA_P256_SHA256)
            .map_err(|e| damaged(&e.to_string()))?;
        let der =
            CertificateDer::from_pem_slice(text.as_bytes()).map_err(|e| damaged(&e.to_string()))?;
        let (_, cert) = X509Certificate::from_der(&der).map_err(|e| damaged(&e.to_string()))?;
        if cert.public_key().subject_public_key.as_ref() != key.public_key_raw() {
            return Err(damaged("a key does not belong to its certificate"));
        }
        let span = span_of(&der)?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| damaged(&e.to_string()))?;
        let pem = certificate_pem(&der);
        Ok(Authority { issuer, der, pem, span })
    }
}

/// When a certificate holds.
pub(crate) fn span_of(der: &CertificateDer<'_>) -> Result<Span, Error> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|e| damaged(&e.to_string()))?;
    let at = |t: i64| Millis::from_secs(u64::try_from(t).unwrap_or(0));
    Ok(Span {
        from: at(cert.validity().not_before.timestamp()),
        until: at(cert.validity().not_after.timestamp()),
    })
}

/// A certificate as PEM (RFC 7468).
pub(crate) fn certificate_pem(der: &CertificateDer<'_>) -> String {
    pem("CERTIFICATE", der)
}

/// Bytes as PEM (RFC 7468).
pub(crate) fn pem(label: &str, bytes: &[u8]) -> String {
    use base64::Engine;
    let text = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(bytes));
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// A new root: the text of its file.
pub(crate) fn make_root(site: &SiteId, now: Millis) -> Result<Zeroizing<String>, Error> {
    let key = new_key()?;
    let span = Span { from: now.minus(DAY), until: now.plus(ROOT_LIFE) };
    let cert = params(Role::Root, site, span)?.self_signed(&key).map_err(|e| failed(&e))?;
    Ok(Zeroizing::new(format!("{}{}", key.serialize_pem(), cert.pem())))
}

/// A new authority below `root`: the text of its file.
pub(crate) fn make(
    role: Role,
    site: &SiteId,
    root: &Authority,
    now: Millis,
) -> Result<Zeroizing<String>, Error> {
    sign(role, site, &new_key()?, root, now)
}

/// The same authority with its key, certified anew.
pub(crate) fn renew(
    role: Role,
    site: &SiteId,
    old: &Authority,
    root: &Authority,
    now: Millis,
) -> Result<Zeroizing<String>, Error> {
    sign(role, site, old.issuer.key(), root, now)
}

fn sign(
    role: Role,
    site: &SiteId,
    key: &KeyPair,
    root: &Authority,
    now: Millis,
) -> Result<Zeroizing<String>, Error> {
    let until = now.plus(AUTHORITY_LIFE).min(root.span.until);
    let span = Span { from: now.minus(BACKDATE), until };
    let cert = params(role, site, span)?.signed_by(key, &root.issuer).map_err(|e| failed(&e))?;
    Ok(Zeroizing::new(format!("{}{}", key.serialize_pem(), cert.pem())))
}

fn new_key() -> Result<KeyPair, Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| failed(&e))
}

fn failed(e: &rcgen::Error) -> Error {
    Error::internal(format!("cannot make the site's keys: {e}"))
}

fn params(role: Role, site: &SiteId, span: Span) -> Result<CertificateParams, Error> {
    let mut p = CertificateParams::default();
    p.distinguished_name = DistinguishedName::new();
    p.distinguished_name.push(DnType::CommonName, role.name(site));
    p.serial_number = Some(random_serial()?);
    p.not_before = time_of(span.from)?;
    p.not_after = time_of(span.until)?;
    p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let below = u8::from(role == Role::Root);
    p.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    p.use_authority_key_identifier_extension = role != Role::Root;
    match role {
        Role::Root => {}
        Role::Machines => {
            p.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        }
        Role::People => {
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let machines = MACHINE_SUFFIX.trim_start_matches('.').to_owned();
            p.name_constraints = Some(NameConstraints {
                permitted_subtrees: Vec::new(),
                excluded_subtrees: vec![GeneralSubtree::DnsName(machines)],
            });
        }
    }
    Ok(p)
}
