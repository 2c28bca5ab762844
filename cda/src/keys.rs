//! The site's keys: root, authorities, the core's own certificate, and the keys that sign without
//! one.
//!
//! They lie in `<state>/ca`, folder 0700, files 0600 (PEM). Keys with their certificates:
//! `root.pem`, `people.pem`, `machines.pem`, `core.pem`. Keys alone, in each file one or more:
//! `signing.pem` (statements), `ssh-people.pem` and `ssh-machines.pem` (SSH certificates), all
//! Ed25519, and `jwt.pem` (JWTs for services outside), P-256. With a token the files hold
//! references to the keys in it; only the core's own key, which TLS uses, is always in its file.
//!
//! The folder is made under another name and renamed when it is whole: it is there with everything,
//! or not at all. A folder with something missing is refused, never made anew. The files are read
//! again and again, so that a key which [`roll_key`] puts into one beside a running core is taken
//! up by it.

mod authority;
mod blocks;
mod create;
mod files;
mod handle;
mod list;
mod own;
mod place;
mod purpose;
mod rolling;
mod state;
mod token;

pub(crate) use authority::{Authority, pem};
pub(crate) use handle::Handle;
pub use own::CORE_LIFE;
pub use purpose::Purpose;
pub(crate) use rolling::changes;
pub use rolling::{KNOWN_AFTER, KeyState, KeyView, list_keys, roll_key};
pub use token::Pkcs11;

use crate::jwt::JwtKey;
use crate::ssh::SshSigner;
use authority::Role;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use place::Place;
use rustls_pki_types::CertificateDer;
use state::{Around, State};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use xos_api::cda::Jwk;
use xos_api::site::SiteDescriptor;
use xos_base::{Error, Millis, SiteId};
use xos_net::identity::{key_fingerprint, root_fingerprint, validity};
use xos_net::key::{KeyKind, PrivateKey, SIGNATURE_LEN, Vault};
use xos_net::sign::Signer;
use xos_net::{Identity, IdentityCell};

const FOLDER: &str = "ca";
const FOLDER_NEW: &str = "ca.new";
const CORE_FILE: &str = "core.pem";

/// The site's keys. Cheap to clone; clones share their content.
#[derive(Clone)]
pub struct SiteKeys {
    inner: Arc<Inner>,
    signer: Signer,
}

struct Inner {
    site: SiteId,
    names: Vec<String>,
    place: Place,
    root: Authority,
    state: RwLock<Arc<State>>,
    core: IdentityCell,
}

/// Whichever key signs statements at the time.
struct Present(Arc<Inner>);

impl PrivateKey for Present {
    fn kind(&self) -> KeyKind {
        KeyKind::Ed25519
    }

    fn public(&self) -> Vec<u8> {
        self.0.state().signing.signing.public()
    }

    fn sign(&self, bytes: &[u8]) -> Result<[u8; SIGNATURE_LEN], Error> {
        self.0.state().signing.signing.sign(bytes)
    }
}

impl SiteKeys {
    /// Opens the keys of `site` below `state`, or makes them when there are none. `names` are
    /// host names and IP addresses for the core's certificate besides its `.xos.internal` name.
    /// New keys are made in `vault`, where there is one. What is due for renewal is renewed. Blocks
    /// on the disk.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the folder is incomplete, damaged, readable by others or
    /// of another site, or the disk fails; [`xos_base::Kind::Invalid`] for a bad name, or when the
    /// keys lie in a vault and none was given; those of the vault.
    pub fn create_or_open(
        state: &Path,
        site: &SiteId,
        names: &[String],
        vault: Option<Arc<dyn Vault>>,
        now: Millis,
    ) -> Result<SiteKeys, Error> {
        own::check_names(names)?;
        let dir = state.join(FOLDER);
        if !dir.exists() {
            create::create(state, site, names, vault.clone(), now)?;
        }
        let alone = files::lock(&dir)?;
        let inner = Arc::new(Inner::open(Place { dir, vault }, site, names, now)?);
        inner.renew_if_due(now)?;
        drop(alone);
        let signer = Signer::new(Arc::new(Present(inner.clone())))?;
        Ok(SiteKeys { inner, signer })
    }

    /// What the site tells others about itself, when its core listens at `addresses`; without the
    /// keys that it withdrew.
    pub fn descriptor(&self, addresses: Vec<String>) -> SiteDescriptor {
        SiteDescriptor {
            site: self.inner.site.clone(),
            addresses,
            root: STANDARD.encode(&self.inner.root.der),
            keys: self.inner.state().vouched.clone(),
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

    /// The core's identity; replaced by itself when the certificate is renewed.
    pub fn core_identity(&self) -> IdentityCell {
        self.inner.core.clone()
    }

    /// Signs statements, by whichever key does so at the time.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Signs SSH certificates of members of VOs homed here.
    pub(crate) fn ssh_people(&self) -> Arc<SshSigner> {
        self.inner.state().ssh_people.signing.clone()
    }

    /// Signs SSH certificates of this site's machines.
    pub(crate) fn ssh_machines(&self) -> Arc<SshSigner> {
        self.inner.state().ssh_machines.signing.clone()
    }

    /// Signs JWTs.
    pub(crate) fn jwt(&self) -> Arc<JwtKey> {
        self.inner.state().jwt.signing.clone()
    }

    /// The public keys by which JWTs are checked.
    pub(crate) fn jwks(&self) -> Vec<Jwk> {
        self.inner.state().jwt.all.iter().map(|k| k.public().clone()).collect()
    }

    /// The root's word on the keys that others check by.
    pub(crate) fn vouched(&self) -> String {
        self.inner.state().vouched.clone()
    }

    pub(crate) fn root_der(&self) -> &CertificateDer<'static> {
        &self.inner.root.der
    }

    pub(crate) fn people(&self) -> Arc<Authority> {
        self.inner.state().people.clone()
    }

    pub(crate) fn machines(&self) -> Arc<Authority> {
        self.inner.state().machines.clone()
    }

    /// As [`list_keys`], with the core's own.
    pub(crate) fn list(&self, now: Millis) -> Result<Vec<KeyView>, Error> {
        let mut all = rolling::list(&self.inner.place, now)?;
        let core = self.inner.core.get();
        let leaf = core.chain().first().ok_or_else(|| Error::internal("no certificate"))?;
        all.push(KeyView {
            purpose: "core",
            kind: KeyKind::P256,
            in_vault: false,
            fingerprint: format!("sha256:{}", key_fingerprint(leaf)?),
            since: validity(leaf)?.0,
            state: KeyState::Signs,
        });
        Ok(all)
    }

    /// Takes up what changed in the files, and what is due in them: a new key signs, a former one
    /// counts no more, an authority of which two thirds are over is renewed; so is the core's
    /// certificate, also when its names changed. Says whether anything was. Blocks on the disk.
    ///
    /// # Errors
    /// Those of the disk, of damaged files and of the vault; the present keys stay in use.
    pub fn renew_if_due(&self, now: Millis) -> Result<bool, Error> {
        let _alone = files::lock(&self.inner.place.dir)?;
        self.inner.renew_if_due(now)
    }
}

impl Inner {
    fn open(place: Place, site: &SiteId, names: &[String], now: Millis) -> Result<Inner, Error> {
        let root_file = Role::Root.file();
        let root = Authority::read(root_file, &files::read(&place.dir.join(root_file))?, &place)?;
        let core = files::read(&place.dir.join(CORE_FILE))?;
        let core = Identity::from_pem(&core, &core)?;
        let named = xos_net::trust::subject_of(&core.chain()[0])?;
        if named != xos_net::trust::Subject::Core(site.clone()) {
            return Err(Error::internal(format!(
                "the keys in {} are not those of site {site}",
                place.dir.display()
            ))
            .hint("a site's name cannot change; set it back, or use another state folder"));
        }
        let around = Around { site, place: &place, root: &root };
        let state = State::read(&around, None, now)?
            .ok_or_else(|| Error::internal("the site's keys were not read"))?;
        Ok(Inner {
            site: site.clone(),
            names: names.to_vec(),
            state: RwLock::new(Arc::new(state)),
            core: IdentityCell::new(core),
            root,
            place,
        })
    }

    fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn renew_if_due(&self, now: Millis) -> Result<bool, Error> {
        let around = Around { site: &self.site, place: &self.place, root: &self.root };
        let new = State::read(&around, Some(&self.state()), now)?;
        let changed = new.is_some();
        if let Some(new) = new {
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
            tracing::info!(site = %self.site, "the site's keys have changed");
        }
        let machines = self.state().machines.clone();
        let core = own::is_due(&self.core.get(), &machines, &self.names, now)?;
        if core {
            let text = own::core_file(&machines, &self.site, &self.names, now)?;
            let identity = Identity::from_pem(&text, &text)?;
            files::replace(&self.place.dir, CORE_FILE, text.as_bytes())?;
            self.core.replace(identity);
            tracing::info!(site = %self.site, "the core's certificate was renewed");
        }
        Ok(changed || core)
    }
}

#[cfg(test)]
mod tests;
