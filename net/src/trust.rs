//! The sites that this machine trusts, and what each one's word is good for.
//!
//! A site's root vouches only for that site's machines and for memberships in VOs homed there.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use xos_api::site::{DESCRIPTOR_LIST_MAX, SiteDescriptor};
use xos_base::membership::EXTENSION_OID;
use xos_base::{Error, Membership, Millis, NodeId, SiteId};

/// The end of the DNS names by which certificates name XOS machines. `.internal` is reserved for
/// private use, so that no public authority vouches for such a name.
pub const MACHINE_SUFFIX: &str = ".xos.internal";
/// Longest certificate chain that is looked at.
pub const CHAIN_MAX: usize = 4;

/// The DNS name in the certificate of a site's core.
pub fn core_name(site: &SiteId) -> String {
    format!("core.{site}{MACHINE_SUFFIX}")
}

/// The DNS name in the certificate of a node.
pub fn node_name(node: &NodeId) -> String {
    format!("{}.node.{}{MACHINE_SUFFIX}", node.label(), node.site())
}

/// Whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A site's core.
    Core(SiteId),
    /// A node.
    Node(NodeId),
    /// A member of a VO.
    Member(Membership),
}

impl Subject {
    /// The site whose root must have signed.
    fn authority(&self) -> SiteId {
        match self {
            Subject::Core(site) => site.clone(),
            Subject::Node(node) => node.site(),
            Subject::Member(m) => m.vo.site(),
        }
    }
}

#[derive(Clone)]
struct Site {
    descriptor: SiteDescriptor,
    root: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    keys: Arc<Vec<[u8; 32]>>,
}

/// The trusted sites. Cheap to clone; clones share their content.
#[derive(Clone, Default)]
pub struct Trust {
    sites: Arc<RwLock<BTreeMap<SiteId, Site>>>,
    banned: Arc<RwLock<HashSet<String>>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Trust {
    /// Trusts nobody yet.
    pub fn new() -> Trust {
        Trust::default()
    }

    /// Trusts a site from now on, or takes its new descriptor.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when the descriptor is malformed.
    pub fn add(&self, descriptor: SiteDescriptor) -> Result<(), Error> {
        let site = Site::parse(descriptor)?;
        let mut sites = self.sites.write().unwrap_or_else(PoisonError::into_inner);
        let descriptor = site.descriptor.clone();
        let former = sites.insert(site.descriptor.site.clone(), site);
        drop(sites);
        if former.is_none_or(|f| f.descriptor != descriptor) {
            self.changed.send_modify(|n| *n += 1);
        }
        Ok(())
    }

    /// Rises whenever a site is trusted, has a new descriptor, or is trusted no longer, and when a
    /// key is refused.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Trusts a site no longer.
    pub fn remove(&self, site: &SiteId) {
        let former = self.sites.write().unwrap_or_else(PoisonError::into_inner).remove(site);
        if former.is_some() {
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// Refuses certificates of the key with this fingerprint ([`crate::identity::key_fingerprint`])
    /// from now on, whoever signed them: how a removed node loses its place before its
    /// certificate expires. Open HTTP connections are asked again at their next request; control
    /// streams are cut by [`crate::Nodes::drop_banned`].
    pub fn ban_key(&self, fingerprint: &str) {
        let mut banned = self.banned.write().unwrap_or_else(PoisonError::into_inner);
        if banned.insert(fingerprint.to_owned()) {
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// Whether a key is refused.
    pub fn is_banned(&self, fingerprint: &str) -> bool {
        self.banned.read().unwrap_or_else(PoisonError::into_inner).contains(fingerprint)
    }

    fn refuse_banned(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let none = self.banned.read().unwrap_or_else(PoisonError::into_inner).is_empty();
        if none || !self.is_banned(&crate::identity::key_fingerprint(leaf)?) {
            return Ok(());
        }
        Err(Error::unauthenticated("certificate refused: its key was withdrawn")
            .hint("a site administrator lets the machine join again, with a new key"))
    }

    /// The descriptors of all trusted sites, by id.
    pub fn descriptors(&self) -> Vec<SiteDescriptor> {
        self.read(|s| s.values().map(|s| s.descriptor.clone()).collect())
    }

    /// One site's descriptor.
    ///
    /// # Errors
    /// [`xos_base::Kind::NotFound`] when the site is not trusted here.
    pub fn descriptor(&self, site: &SiteId) -> Result<SiteDescriptor, Error> {
        self.read(|s| s.get(site).map(|s| s.descriptor.clone())).ok_or_else(|| {
            Error::not_found(format!("site {site} is not trusted here"))
                .hint("a site administrator exchanges trust by `xos site offer` and `accept`")
        })
    }

    /// The root certificate of a site, DER.
    pub fn root(&self, site: &SiteId) -> Option<CertificateDer<'static>> {
        self.read(|s| s.get(site).map(|s| s.root.clone()))
    }

    pub(crate) fn keys_of(&self, site: &SiteId) -> Result<Arc<Vec<[u8; 32]>>, Error> {
        self.read(|s| s.get(site).map(|s| s.keys.clone()))
            .ok_or_else(|| Error::unauthenticated(format!("site {site} is not trusted here")))
    }

    fn read<T>(&self, f: impl FnOnce(&BTreeMap<SiteId, Site>) -> T) -> T {
        f(&self.sites.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Verifies a chain as sent by a TLS client or server, and says whom it names.
    ///
    /// The rule: the root that vouches must be that of the site which has authority over the
    /// named machine or VO. A certificate that names nobody, or two, is refused.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unauthenticated`] with the reason.
    pub fn verify_chain(
        &self,
        chain: &[CertificateDer<'_>],
        usage: Usage,
        now: Millis,
    ) -> Result<Subject, Error> {
        let refuse = |why: String| Error::unauthenticated(format!("certificate refused: {why}"));
        let [leaf, between @ ..] = chain else { return Err(refuse("none was sent".into())) };
        if chain.len() > CHAIN_MAX {
            return Err(refuse(format!("its chain is longer than {CHAIN_MAX}")));
        }
        let subject = subject_of(leaf)?;
        self.refuse_banned(leaf)?;
        let cert = EndEntityCert::try_from(leaf).map_err(|e| refuse(e.to_string()))?;
        let authority = subject.authority();
        let anchor = self
            .read(|s| s.get(&authority).map(|s| s.anchor.clone()))
            .ok_or_else(|| refuse(format!("site {authority} is not trusted here")))?;
        let time = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
        let key_usage = match usage {
            Usage::Client => KeyUsage::client_auth(),
            Usage::Server => KeyUsage::server_auth(),
        };
        cert.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &[anchor],
            between,
            time,
            key_usage,
            None,
            None,
        )
        .map_err(|e| match e {
            webpki::Error::CertExpired { .. } => {
                refuse("it has expired".into()).hint("sign in again with `xos login`")
            }
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                refuse(format!("site {authority}, which alone may sign it, did not sign it"))
            }
            other => refuse(other.to_string()),
        })?;
        Ok(subject)
    }
}

/// What the holder of a certificate does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Opens connections.
    Client,
    /// Accepts connections.
    Server,
}

impl Site {
    fn parse(descriptor: SiteDescriptor) -> Result<Site, Error> {
        let bad = |what: &str| Error::invalid(format!("site descriptor: {what}"));
        if descriptor.addresses.len() > DESCRIPTOR_LIST_MAX
            || descriptor.keys.len() > DESCRIPTOR_LIST_MAX
        {
            return Err(bad("too many addresses or keys"));
        }
        let root = STANDARD.decode(&descriptor.root).map_err(|_| bad("the root is no base64"))?;
        let root = CertificateDer::from(root);
        let anchor = webpki::anchor_from_trusted_cert(&root)
            .map_err(|e| bad(&format!("the root is no certificate: {e}")))?
            .to_owned();
        let keys: Result<Vec<[u8; 32]>, Error> = descriptor
            .keys
            .iter()
            .map(|k| {
                let raw = STANDARD.decode(k).map_err(|_| bad("a key is no base64"))?;
                raw.try_into().map_err(|_| bad("a key is not 32 bytes long"))
            })
            .collect();
        Ok(Site { keys: Arc::new(keys?), descriptor, root, anchor })
    }
}

/// Whom a certificate claims to name; nothing is verified.
///
/// # Errors
/// [`xos_base::Kind::Unauthenticated`] when it names nobody, or more than one.
pub fn subject_of(leaf: &CertificateDer<'_>) -> Result<Subject, Error> {
    let refuse = |why: String| Error::unauthenticated(format!("certificate refused: {why}"));
    let (rest, cert) =
        X509Certificate::from_der(leaf).map_err(|_| refuse("it is no X.509 certificate".into()))?;
    if !rest.is_empty() {
        return Err(refuse("it has trailing bytes".into()));
    }
    let oid = x509_parser::der_parser::oid::Oid::from(EXTENSION_OID)
        .map_err(|_| refuse("our extension's identifier".into()))?;
    let mut found = Vec::new();
    if let Some(ext) = cert
        .get_extension_unique(&oid)
        .map_err(|_| refuse("it holds its membership twice".into()))?
    {
        let m = Membership::from_der(ext.value).map_err(|e| refuse(e.to_string()))?;
        found.push(Subject::Member(m));
    }
    let names = cert
        .subject_alternative_name()
        .map_err(|_| refuse("its alternative names are malformed".into()))?;
    for name in names.iter().flat_map(|n| n.value.general_names.iter()) {
        if let GeneralName::DNSName(dns) = name
            && let Some(prefix) = dns.strip_suffix(MACHINE_SUFFIX)
        {
            found.push(machine(prefix).ok_or_else(|| refuse(format!("name {dns:?}")))?);
        }
    }
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(refuse("it names no machine or member of XOS".into())),
        _ => Err(refuse("it names more than one machine or member".into())),
    }
}

/// `core.<site>` or `<node>.node.<site>`.
fn machine(prefix: &str) -> Option<Subject> {
    let parts: Vec<&str> = prefix.split('.').collect();
    match parts.as_slice() {
        ["core", site] => Some(Subject::Core(site.parse().ok()?)),
        [node, "node", site] => Some(Subject::Node(format!("{node}.{site}").parse().ok()?)),
        _ => None,
    }
}
