//! The site's root and the two authorities below it.
//!
//! The root (P-256, 10 years) signs two authorities and nothing else, so that its key can be kept
//! apart. `machines` signs cores and nodes; `people` signs memberships and cannot sign for a
//! machine: its extended key usage is client only, and the machines' names are excluded.

use super::blocks::{self, Block, damaged};
use super::handle::Handle;
use super::place::{Kept, Place, dropped, dropped_block, label};
use crate::issue::{BACKDATE, random_serial, time_of};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyUsagePurpose, NameConstraints,
};
use rustls_pki_types::CertificateDer;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};
use xos_base::{Error, Millis, SiteId};
use xos_net::identity::key_fingerprint;
use xos_net::key::{KeyId, KeyKind};
use xos_net::trust::MACHINE_SUFFIX;
use zeroize::Zeroizing;

const DAY: Duration = Duration::from_secs(24 * 3600);
const ROOT_LIFE: Duration = Duration::from_secs(3652 * 24 * 3600);
const AUTHORITY_LIFE: Duration = Duration::from_secs(730 * 24 * 3600);
const CERTIFICATE: &str = "CERTIFICATE";
const REFUSED: &str = "XOS REFUSED CERTIFICATE";

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

    /// What it is for, in one word.
    pub(crate) fn purpose(self) -> &'static str {
        match self {
            Role::Root => "root",
            Role::People => "people",
            Role::Machines => "machines",
        }
    }

    fn name(self, site: &SiteId) -> String {
        match self {
            Role::Root => format!("XOS site {site}"),
            Role::People | Role::Machines => format!("XOS site {site} {}", self.purpose()),
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
    pub(crate) issuer: Issuer<'static, Handle>,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
    pub(crate) span: Span,
    /// The file that it was read from.
    pub(crate) file: AuthorityFile,
    /// The text of that.
    pub(crate) text: Zeroizing<String>,
}

/// What stands in the file of an authority.
#[derive(Clone)]
pub(crate) struct AuthorityFile {
    pub(crate) kept: Kept,
    pub(crate) der: CertificateDer<'static>,
    /// Certificates of former ones for the same purpose, which are refused.
    pub(crate) refused: Vec<CertificateDer<'static>>,
    /// Keys of former ones that are to be destroyed in the vault.
    pub(crate) dropped: Vec<KeyId>,
}

impl AuthorityFile {
    /// Reads `text`, the content of `file`, without asking for the key.
    pub(crate) fn read(file: &str, text: &str) -> Result<AuthorityFile, Error> {
        let (mut kept, mut der) = (None, None);
        let (mut refused, mut gone) = (Vec::new(), Vec::new());
        for block in blocks::read(text).map_err(|why| damaged(file, why))? {
            gone.extend(dropped(file, &block)?);
            let certificate = || CertificateDer::from(block.bytes.to_vec());
            match block.label.as_str() {
                CERTIFICATE => der = Some(certificate()),
                REFUSED => refused.push(certificate()),
                _ => kept = Kept::read(file, KeyKind::P256, &block)?.or(kept),
            }
        }
        let missing = |what: &str| damaged(file, &format!("it holds no {what}"));
        let kept = kept.filter(Kept::signs).ok_or_else(|| missing("key"))?;
        let der = der.ok_or_else(|| missing("certificate"))?;
        Ok(AuthorityFile { kept, der, refused, dropped: gone })
    }

    pub(crate) fn text(&self) -> Zeroizing<String> {
        let mut all = vec![self.kept.block(), Block::new(CERTIFICATE, &self.der)];
        all.extend(self.refused.iter().map(|der| Block::new(REFUSED, der)));
        all.extend(self.dropped.iter().map(dropped_block));
        blocks::write(&all)
    }

    /// The fingerprints of the keys that are refused.
    pub(crate) fn refused_keys(&self) -> Result<Vec<String>, Error> {
        self.refused.iter().map(|der| key_fingerprint(der)).collect()
    }

    /// Those that are refused and have not expired.
    fn still_refused(&self, now: Millis) -> Result<Vec<CertificateDer<'static>>, Error> {
        let mut still = Vec::new();
        for der in &self.refused {
            if span_of(der)?.until > now {
                still.push(der.clone());
            }
        }
        Ok(still)
    }
}

impl Authority {
    /// Reads `text`, the content of `file`.
    pub(crate) fn read(file: &str, text: &str, place: &Place) -> Result<Authority, Error> {
        let content = AuthorityFile::read(file, text)?;
        let der = content.der.clone();
        let key = Handle::new(place.open(KeyKind::P256, &content.kept)?);
        let (_, cert) =
            X509Certificate::from_der(&der).map_err(|e| damaged(file, &e.to_string()))?;
        if cert.public_key().subject_public_key.as_ref() != key.public() {
            return Err(damaged(file, "its key does not belong to its certificate"));
        }
        let span = span_of(&der)?;
        let issuer =
            Issuer::from_ca_cert_der(&der, key).map_err(|e| damaged(file, &e.to_string()))?;
        let pem = certificate_pem(&der);
        let text = Zeroizing::new(text.to_owned());
        Ok(Authority { issuer, der, pem, span, file: content, text })
    }

    /// Why a certificate was not signed.
    pub(crate) fn failure(&self, e: &rcgen::Error) -> Error {
        failed(self.issuer.key(), e)
    }
}

/// When a certificate holds.
pub(crate) fn span_of(der: &CertificateDer<'_>) -> Result<Span, Error> {
    let (_, cert) =
        X509Certificate::from_der(der).map_err(|e| damaged("a certificate", &e.to_string()))?;
    let at = |t: i64| Millis::from_secs(u64::try_from(t).unwrap_or(0));
    Ok(Span {
        from: at(cert.validity().not_before.timestamp()),
        until: at(cert.validity().not_after.timestamp()),
    })
}

/// A certificate as PEM (RFC 7468).
pub(crate) fn certificate_pem(der: &CertificateDer<'_>) -> String {
    pem(CERTIFICATE, der)
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
pub(crate) fn make_root(
    site: &SiteId,
    place: &Place,
    now: Millis,
) -> Result<Zeroizing<String>, Error> {
    let kept = place.make(KeyKind::P256, &label(site, Role::Root.purpose()))?;
    let key = Handle::new(place.open(KeyKind::P256, &kept)?);
    let span = Span { from: now.minus(DAY), until: now.plus(ROOT_LIFE) };
    let cert = params(Role::Root, site, span)?.self_signed(&key).map_err(|e| failed(&key, &e))?;
    Ok(Rest::default().with(kept, &cert).text())
}

/// A new authority below `root`: the text of its file.
pub(crate) fn make(
    role: Role,
    site: &SiteId,
    (root, place): (&Authority, &Place),
    now: Millis,
) -> Result<Zeroizing<String>, Error> {
    let kept = place.make(KeyKind::P256, &label(site, role.purpose()))?;
    sign(role, site, (kept, Rest::default()), (root, place), now)
}

/// The same authority with its key, certified anew.
pub(crate) fn renew(
    role: Role,
    site: &SiteId,
    old: &AuthorityFile,
    (root, place): (&Authority, &Place),
    now: Millis,
) -> Result<Zeroizing<String>, Error> {
    let rest = Rest { refused: old.still_refused(now)?, dropped: old.dropped.clone() };
    sign(role, site, (old.kept.clone(), rest), (root, place), now)
}

/// A new authority in place of `old`, whose certificates are refused from now on if `refuse`, and
/// hold until they expire otherwise.
pub(crate) fn replace(
    role: Role,
    site: &SiteId,
    (old, refuse): (&AuthorityFile, bool),
    (root, place): (&Authority, &Place),
    now: Millis,
) -> Result<Zeroizing<String>, Error> {
    let mut rest = Rest { refused: old.still_refused(now)?, dropped: old.dropped.clone() };
    if refuse {
        rest.refused.push(old.der.clone());
    }
    if let Kept::Vault(id, _) = &old.kept {
        rest.dropped.push(*id);
    }
    let kept = place.make(KeyKind::P256, &label(site, role.purpose()))?;
    sign(role, site, (kept, rest), (root, place), now)
}

/// What stands in the file of an authority beside its key and certificate.
#[derive(Default)]
struct Rest {
    refused: Vec<CertificateDer<'static>>,
    dropped: Vec<KeyId>,
}

impl Rest {
    fn with(self, kept: Kept, cert: &Certificate) -> AuthorityFile {
        let Rest { refused, dropped } = self;
        AuthorityFile { kept, der: cert.der().clone(), refused, dropped }
    }
}

fn sign(
    role: Role,
    site: &SiteId,
    (kept, rest): (Kept, Rest),
    (root, place): (&Authority, &Place),
    now: Millis,
) -> Result<Zeroizing<String>, Error> {
    let key = Handle::new(place.open(KeyKind::P256, &kept)?);
    let until = now.plus(AUTHORITY_LIFE).min(root.span.until);
    let span = Span { from: now.minus(BACKDATE), until };
    let made = params(role, site, span)?.signed_by(&key, &root.issuer);
    let cert = made.map_err(|e| root.failure(&e))?;
    Ok(rest.with(kept, &cert).text())
}

/// Why `key` did not sign.
fn failed(key: &Handle, e: &rcgen::Error) -> Error {
    let otherwise = Error::internal(format!("cannot sign a certificate: {e}"));
    match e {
        rcgen::Error::RemoteKeyError => key.failure(otherwise),
        _ => otherwise,
    }
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
