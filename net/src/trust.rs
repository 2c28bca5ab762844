//! The sites that this machine trusts, and what each one's word is good for.
//!
//! A site's root vouches only for that site's machines and for memberships in VOs homed there.

use crate::guard::{Guard, Guards, Proved};
use crate::known::{Site, SshKeys};
use crate::refused::Refusal;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use xos_api::site::SiteDescriptor;
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
    pub(crate) fn authority(&self) -> SiteId {
        match self {
            Subject::Core(site) => site.clone(),
            Subject::Node(node) => node.site(),
            Subject::Member(m) => m.vo.site(),
        }
    }
}

/// The trusted sites. Cheap to clone; clones share their content.
#[derive(Clone, Default)]
pub struct Trust {
    sites: Arc<RwLock<BTreeMap<SiteId, Site>>>,
    banned: Arc<RwLock<HashSet<(SiteId, String)>>>,
    changed: Arc<watch::Sender<u64>>,
    guards: Guards,
}

impl Trust {
    /// Trusts nobody yet.
    pub fn new() -> Trust {
        Trust::default()
    }

    /// Trusts a site from now on, or takes its new descriptor; of what is signed in it, the later
    /// word counts. Streams of machines that it withdraws are cut; all of the site's, when it has
    /// another root, or refuses one more of its authorities.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when the descriptor is malformed, or its root does not vouch for
    /// it.
    pub fn add(&self, descriptor: SiteDescriptor) -> Result<(), Error> {
        let site = Site::parse(descriptor)?;
        let id = site.descriptor.site.clone();
        let mut sites = self.sites.write().unwrap_or_else(PoisonError::into_inner);
        let (site, changed, cut) = match sites.get(&id) {
            None => (site, true, false),
            Some(former) => {
                let other_root = former.root != site.root;
                let site = site.after(former)?;
                let cut = other_root || site.refuses_more_than(former);
                let changed = site.descriptor != former.descriptor;
                (site, changed, cut)
            }
        };
        sites.insert(id.clone(), site);
        drop(sites);
        if cut {
            self.guards.cut(&id);
        }
        if changed {
            self.tell();
        }
        Ok(())
    }

    /// What [`Trust::add`] would make of `descriptor`: the same, with the later of what is signed.
    ///
    /// # Errors
    /// As [`Trust::add`]; [`xos_base::Kind::Invalid`] also when it was signed after `latest`.
    pub fn newest(
        &self,
        descriptor: SiteDescriptor,
        latest: Millis,
    ) -> Result<SiteDescriptor, Error> {
        let mut site = Site::parse(descriptor)?;
        let former = self.read(|s| s.get(&site.descriptor.site).cloned());
        if let Some(former) = former {
            site = site.after(&former)?;
        }
        if site.said() > latest {
            let id = &site.descriptor.site;
            return Err(Error::invalid(format!("site {id} signed its descriptor in the future"))
                .hint("the clock of one of the two sites is wrong"));
        }
        Ok(site.descriptor)
    }

    /// Rises whenever a site is trusted, has a new descriptor, or is trusted no longer, and when a
    /// key is refused.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Trusts a site no longer; streams of its machines are cut.
    pub fn remove(&self, site: &SiteId) {
        let former = self.sites.write().unwrap_or_else(PoisonError::into_inner).remove(site);
        if former.is_some() {
            self.tell();
        }
    }

    /// Refuses certificates of nodes of `site` for the key with this fingerprint
    /// ([`crate::identity::key_fingerprint`]) from now on: how a removed node loses its place
    /// before its certificate expires. Open HTTP connections are asked again at their next
    /// request; its streams are cut.
    pub fn ban_key(&self, site: &SiteId, fingerprint: &str) {
        let mut banned = self.banned.write().unwrap_or_else(PoisonError::into_inner);
        let new = banned.insert((site.clone(), fingerprint.to_owned()));
        drop(banned);
        if new {
            self.tell();
        }
    }

    /// Whether a key of a node of `site` is refused: because [`Trust::ban_key`] said so, or the
    /// site's descriptor.
    pub fn is_banned(&self, site: &SiteId, fingerprint: &str) -> bool {
        self.read(|s| s.get(site).is_some_and(|s| s.withdrew(fingerprint)))
            || self
                .banned
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&(site.clone(), fingerprint.to_owned()))
    }

    /// Watches over a stream of somebody who was verified: it is cut when they are refused.
    pub fn guard(&self, proved: Proved) -> Guard {
        let guard = self.guards.add(proved.clone());
        // Looked at after adding, so that no change in between is missed.
        if !self.takes(&proved) {
            guard.cut().cancel();
        }
        guard
    }

    /// Whether a machine or person that was verified before is still not refused.
    pub(crate) fn takes(&self, proved: &Proved) -> bool {
        let known = self.read(|s| s.contains_key(&proved.site));
        known && proved.node.as_ref().is_none_or(|(_, key)| !self.is_banned(&proved.site, key))
    }

    fn tell(&self) {
        self.guards.sweep(self);
        self.changed.send_modify(|n| *n += 1);
    }

    fn refuse_banned(&self, subject: &Subject, leaf: &CertificateDer<'_>) -> Result<(), Refusal> {
        let Subject::Node(node) = subject else { return Ok(()) };
        match self.is_banned(&node.site(), &crate::identity::key_fingerprint(leaf)?) {
            true => Err(Refusal::Withdrawn),
            false => Ok(()),
        }
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

    /// The keys by which a site signs SSH certificates.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unauthenticated`] when the site is not trusted here.
    pub fn ssh_keys(&self, site: &SiteId) -> Result<Arc<SshKeys>, Error> {
        self.read(|s| s.get(site).map(|s| s.ssh.clone()))
            .ok_or_else(|| Error::unauthenticated(format!("site {site} is not trusted here")))
    }

    /// A site's signing keys, and those of which only entries of VO logs and heads of the audit
    /// still count.
    pub(crate) fn keys_of(&self, site: &SiteId) -> Result<[Arc<Vec<[u8; 32]>>; 2], Error> {
        self.read(|s| s.get(site).map(|s| [s.keys.clone(), s.logs.clone()]))
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
        self.check_chain(chain, usage, now).map_err(Error::from)
    }

    /// As [`Trust::verify_chain`], with the reason as TLS can tell it.
    pub(crate) fn check_chain(
        &self,
        chain: &[CertificateDer<'_>],
        usage: Usage,
        now: Millis,
    ) -> Result<Subject, Refusal> {
        let [leaf, between @ ..] = chain else { return Err(Refusal::other("none was sent")) };
        if chain.len() > CHAIN_MAX {
            return Err(Refusal::other(format!("its chain is longer than {CHAIN_MAX}")));
        }
        let subject = subject_of(leaf)?;
        self.refuse_banned(&subject, leaf)?;
        let cert = EndEntityCert::try_from(leaf).map_err(Refusal::other)?;
        let authority = subject.authority();
        let (anchor, refused) = self
            .read(|s| s.get(&authority).map(|s| (s.anchor.clone(), s.refused.clone())))
            .ok_or_else(|| Refusal::Untrusted(authority.clone()))?;
        for issuer in between.iter().filter(|_| !refused.is_empty()) {
            if refused.contains(&crate::identity::key_fingerprint(issuer)?) {
                return Err(Refusal::Withdrawn);
            }
        }
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
            webpki::Error::CertExpired { .. } => Refusal::Expired,
            webpki::Error::CertNotValidYet { .. } => Refusal::NotYet,
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                Refusal::Unsigned(authority)
            }
            other => Refusal::other(other),
        })?;
        if matches!(subject, Subject::Member(_)) {
            for issuer in between {
                signs_for_people_only(issuer)?;
            }
        }
        Ok(subject)
    }
}

/// The authority for machines must not make members: what signs for members signs for no server.
fn signs_for_people_only(issuer: &CertificateDer<'_>) -> Result<(), Error> {
    let refuse = |why: &str| Error::unauthenticated(format!("certificate refused: {why}"));
    let (_, cert) = X509Certificate::from_der(issuer)
        .map_err(|_| refuse("its authority is no X.509 certificate"))?;
    let usage = cert
        .extended_key_usage()
        .map_err(|_| refuse("what its authority may sign for is malformed"))?;
    match usage {
        Some(usage) if !usage.value.any && !usage.value.server_auth => Ok(()),
        _ => Err(refuse("its authority is one for machines, which makes no members")),
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
