//! The site's keys: root, authorities, the core's own certificate, and the keys that sign without
//! one.
//!
//! They lie in `<state>/ca`, folder 0700, files 0600 (PEM). Keys with their certificates:
//! `root.pem`, `people.pem`, `machines.pem`, `core.pem`. Keys alone, in each file one or more:
//! `signing.pem` (statements), `ssh-people.pem` and `ssh-machines.pem` (SSH certificates), all
//! Ed25519, and `jwt.pem` (JWTs for services outside), P-256.
//!
//! The folder is made under another name and renamed when it is whole: it is there with everything,
//! or not at all. A folder with something missing is refused, never made anew.

mod authority;
mod files;
mod several;

pub(crate) use authority::{Authority, pem};
use authority::{Role, Span};

use crate::config::is_host;
use crate::issue;
use crate::jwt::{self, JwtKey};
use crate::ssh::SshSigner;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::CertificateDer;
use several::Several;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use xos_api::cda::Jwk;
use xos_api::site::{DESCRIPTOR_LIST_MAX, SiteDescriptor, SiteKeys as PublicKeys};
use xos_base::{Error, Millis, SiteId};
use xos_net::identity::root_fingerprint;
use xos_net::sign::{Signer, vouch};
use xos_net::trust::{MACHINE_SUFFIX, core_name};
use xos_net::{Identity, IdentityCell};

/// Life of the core's certificate.
pub const CORE_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

const FOLDER: &str = "ca";
const FOLDER_NEW: &str = "ca.new";
const CORE_FILE: &str = "core.pem";
const SIGNING_FILE: &str = "signing.pem";
const SSH_PEOPLE_FILE: &str = "ssh-people.pem";
const SSH_MACHINES_FILE: &str = "ssh-machines.pem";
const JWT_FILE: &str = "jwt.pem";

/// The site's keys. Cheap to clone; clones share their content.
#[derive(Clone)]
pub struct SiteKeys {
    inner: Arc<Inner>,
}

struct Inner {
    site: SiteId,
    dir: PathBuf,
    names: Vec<String>,
    root: Authority,
    signing: Several<Signer>,
    ssh_people: Several<SshSigner>,
    ssh_machines: Several<SshSigner>,
    jwt: Several<JwtKey>,
    /// The root's word on the keys that sign statements and SSH certificates.
    vouched: String,
    people: RwLock<Arc<Authority>>,
    machines: RwLock<Arc<Authority>>,
    core: IdentityCell,
}

impl SiteKeys {
    /// Opens the keys of `site` below `state`, or makes them when there are none. `names` are
    /// host names and IP addresses for the core's certificate besides its `.xos.internal` name.
    /// What is due for renewal is renewed. Blocks on the disk.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the folder is incomplete, damaged, readable by others or
    /// of another site, or the disk fails; [`xos_base::Kind::Invalid`] for a bad name.
    pub fn create_or_open(
        state: &Path,
        site: &SiteId,
        names: &[String],
        now: Millis,
    ) -> Result<SiteKeys, Error> {
        check_names(names)?;
        let dir = state.join(FOLDER);
        if !dir.exists() {
            create(state, site, names, now)?;
        }
        let keys = SiteKeys { inner: Arc::new(Inner::open(dir, site, names, now)?) };
        keys.renew_if_due(now)?;
        Ok(keys)
    }

    /// What the site tells others about itself, when its core listens at `addresses`; without the
    /// keys that it withdrew.
    pub fn descriptor(&self, addresses: Vec<String>) -> SiteDescriptor {
        SiteDescriptor {
            site: self.inner.site.clone(),
            addresses,
            root: STANDARD.encode(&self.inner.root.der),
            keys: self.inner.vouched.clone(),
            withdrawn: None,
        }
    }

    /// The site.
    pub fn site(&self) -> &SiteId {
        &self.inner.site
    }

    /// What people compare to recognise the site's root: `sha256:` and 64 hex digits.
    pub fn fingerprint(&self) -> String {
        root_fingerprint(&self.inner.root.der)
    }

    /// The root certificate in PEM, for browsers.
    pub fn root_pem(&self) -> &str {
        &self.inner.root.pem
    }

    /// The core's identity; replaced by itself when the certificate is renewed.
    pub fn core_identity(&self) -> IdentityCell {
        self.inner.core.clone()
    }

    /// The site's signing key.
    pub fn signer(&self) -> &Signer {
        self.inner.signing.first()
    }

    /// Signs SSH certificates of members of VOs homed here.
    pub(crate) fn ssh_people(&self) -> &SshSigner {
        self.inner.ssh_people.first()
    }

    /// Signs SSH certificates of this site's machines.
    pub(crate) fn ssh_machines(&self) -> &SshSigner {
        self.inner.ssh_machines.first()
    }

    /// Signs JWTs.
    pub(crate) fn jwt(&self) -> &JwtKey {
        self.inner.jwt.first()
    }

    /// The public keys by which JWTs are checked.
    pub(crate) fn jwks(&self) -> Vec<Jwk> {
        self.inner.jwt.all().map(|k| k.public().clone()).collect()
    }

    pub(crate) fn root_der(&self) -> &CertificateDer<'static> {
        &self.inner.root.der
    }

    pub(crate) fn people(&self) -> Arc<Authority> {
        self.inner.people.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn machines(&self) -> Arc<Authority> {
        self.inner.machines.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Renews the core's certificate and the authorities of which two thirds are over, and the
    /// core's when its names changed. Says whether anything was. Blocks on the disk.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the disk fails; the present ones stay in use.
    pub fn renew_if_due(&self, now: Millis) -> Result<bool, Error> {
        let people = self.inner.renew_authority(Role::People, &self.inner.people, now)?;
        let machines = self.inner.renew_authority(Role::Machines, &self.inner.machines, now)?;
        let core = machines || self.inner.core_is_due(now)?;
        if core {
            self.inner.renew_core(&self.machines(), now)?;
        }
        Ok(people || core)
    }
}

fn check_names(names: &[String]) -> Result<(), Error> {
    if names.len() > DESCRIPTOR_LIST_MAX {
        return Err(Error::invalid(format!("more than {DESCRIPTOR_LIST_MAX} names for the core")));
    }
    if let Some(bad) = names.iter().find(|n| n.ends_with(MACHINE_SUFFIX)) {
        return Err(Error::invalid(format!(
            "name {bad:?} for the core ends in {MACHINE_SUFFIX}, which XOS gives out itself"
        )));
    }
    match names.iter().find(|n| n.parse::<IpAddr>().is_err() && !is_host(n)) {
        Some(bad) => {
            Err(Error::invalid(format!("{bad:?} for the core is neither a host name nor an IP")))
        }
        None => Ok(()),
    }
}

fn create(state: &Path, site: &SiteId, names: &[String], now: Millis) -> Result<(), Error> {
    files::make_dir(state)?;
    let dir = state.join(FOLDER_NEW);
    // Nothing was ever issued from a folder that was not renamed yet.
    files::remove_leftover(&dir)?;
    files::make_dir(&dir)?;
    let root_text = authority::make_root(site, now)?;
    let root = Authority::read(&root_text)?;
    files::replace(&dir, Role::Root.file(), root_text.as_bytes())?;
    let people = authority::make(Role::People, site, &root, now)?;
    files::replace(&dir, Role::People.file(), people.as_bytes())?;
    let machines_text = authority::make(Role::Machines, site, &root, now)?;
    files::replace(&dir, Role::Machines.file(), machines_text.as_bytes())?;
    let core = core_file(&Authority::read(&machines_text)?, site, names, now)?;
    files::replace(&dir, CORE_FILE, core.as_bytes())?;
    for file in [SIGNING_FILE, SSH_PEOPLE_FILE, SSH_MACHINES_FILE] {
        let key = zeroize::Zeroizing::new(pem("PRIVATE KEY", Signer::generate()?.pkcs8()));
        files::replace(&dir, file, key.as_bytes())?;
    }
    let key = zeroize::Zeroizing::new(pem("PRIVATE KEY", &jwt::new_key()?));
    files::replace(&dir, JWT_FILE, key.as_bytes())?;
    files::publish(&dir, &state.join(FOLDER))
}

/// A new key for the core with its chain: the text of its file.
fn core_file(
    machines: &Authority,
    site: &SiteId,
    names: &[String],
    now: Millis,
) -> Result<zeroize::Zeroizing<String>, Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|e| Error::internal(format!("cannot make the core's key: {e}")))?;
    let until = now.plus(CORE_LIFE).min(machines.span.until);
    let issued = issue::machine(machines, &core_name(site), names, &key, (now, until))?;
    Ok(zeroize::Zeroizing::new(format!("{}{}", key.serialize_pem(), issued.chain_pem)))
}

impl Inner {
    fn open(dir: PathBuf, site: &SiteId, names: &[String], now: Millis) -> Result<Inner, Error> {
        let authority = |role: Role| Authority::read(&files::read(&dir.join(role.file()))?);
        let root = authority(Role::Root)?;
        let core = files::read(&dir.join(CORE_FILE))?;
        let core = Identity::from_pem(&core, &core)?;
        let named = xos_net::trust::subject_of(&core.chain()[0])?;
        if named != xos_net::trust::Subject::Core(site.clone()) {
            return Err(Error::internal(format!(
                "the keys in {} are not those of site {site}",
                dir.display()
            ))
            .hint("a site's name cannot change; set it back, or use another state folder"));
        }
        let text = |file: &str| files::read(&dir.join(file));
        let signing = Several::read(SIGNING_FILE, &text(SIGNING_FILE)?, Signer::from_pkcs8)?;
        let ssh = |file: &str| Several::read(file, &text(file)?, SshSigner::from_pkcs8);
        let (ssh_people, ssh_machines) = (ssh(SSH_PEOPLE_FILE)?, ssh(SSH_MACHINES_FILE)?);
        let said = PublicKeys {
            site: site.clone(),
            keys: signing.all().map(Signer::public).collect(),
            ssh_people: ssh_people.all().map(SshSigner::public).collect(),
            ssh_machines: ssh_machines.all().map(SshSigner::public).collect(),
            issued: now,
        };
        // Said anew at each start: then it counts instead of what was said before a key was
        // taken out of the file, or before a backup was restored.
        let root_key = zeroize::Zeroizing::new(root.issuer.key().serialize_der());
        let vouched = vouch(&root_key, &said)?;
        Ok(Inner {
            site: site.clone(),
            names: names.to_vec(),
            people: RwLock::new(Arc::new(authority(Role::People)?)),
            machines: RwLock::new(Arc::new(authority(Role::Machines)?)),
            core: IdentityCell::new(core),
            jwt: Several::read(JWT_FILE, &text(JWT_FILE)?, JwtKey::from_pkcs8)?,
            root,
            signing,
            ssh_people,
            ssh_machines,
            vouched,
            dir,
        })
    }

    fn renew_authority(
        &self,
        role: Role,
        cell: &RwLock<Arc<Authority>>,
        now: Millis,
    ) -> Result<bool, Error> {
        let old = cell.read().unwrap_or_else(PoisonError::into_inner).clone();
        if !old.span.is_due(now) || old.span.until >= self.root.span.until {
            return Ok(false);
        }
        let text = authority::renew(role, &self.site, &old, &self.root, now)?;
        let new = Arc::new(Authority::read(&text)?);
        files::replace(&self.dir, role.file(), text.as_bytes())?;
        *cell.write().unwrap_or_else(PoisonError::into_inner) = new;
        tracing::info!(target: "audit", authority = role.file(), "authority renewed");
        Ok(true)
    }

    fn core_is_due(&self, now: Millis) -> Result<bool, Error> {
        let identity = self.core.get();
        let leaf = &identity.chain()[0];
        let span: Span = authority::span_of(leaf)?;
        Ok(span.is_due(now) || has_other_names(leaf, &self.names)?)
    }

    fn renew_core(&self, machines: &Authority, now: Millis) -> Result<(), Error> {
        let text = core_file(machines, &self.site, &self.names, now)?;
        let identity = Identity::from_pem(&text, &text)?;
        files::replace(&self.dir, CORE_FILE, text.as_bytes())?;
        self.core.replace(identity);
        tracing::info!(target: "audit", site = %self.site, "the core's certificate was renewed");
        Ok(())
    }
}

fn has_other_names(leaf: &CertificateDer<'_>, wanted: &[String]) -> Result<bool, Error> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let damaged = || Error::internal("the core's certificate is damaged");
    let (_, cert) = X509Certificate::from_der(leaf).map_err(|_| damaged())?;
    let san = cert.subject_alternative_name().map_err(|_| damaged())?.ok_or_else(damaged)?;
    let mut present: Vec<String> = Vec::new();
    for name in &san.value.general_names {
        match name {
            GeneralName::DNSName(n) if n.ends_with(MACHINE_SUFFIX) => {}
            GeneralName::DNSName(n) => present.push((*n).to_owned()),
            GeneralName::IPAddress(b) => present.push(
                match b.len() {
                    4 => <[u8; 4]>::try_from(*b).map(|a| IpAddr::from(a).to_string()),
                    _ => <[u8; 16]>::try_from(*b).map(|a| IpAddr::from(a).to_string()),
                }
                .map_err(|_| damaged())?,
            ),
            _ => return Ok(true),
        }
    }
    let canonical = |n: &String| n.parse::<IpAddr>().map_or(n.clone(), |ip| ip.to_string());
    Ok(present != wanted.iter().map(canonical).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
