//! Credential distribution: sign-in, certificates, tickets, machine certificates, trusted sites.
//!
//! The site's keys ([`SiteKeys`]) come first, since the port's TLS needs them; then [`Cda::start`]
//! loads the trusted sites, and [`Cda::register`] serves the requests of `xos_api::cda`.

mod audit;
mod config;
mod csr;
mod effects;
#[doc(hidden)]
pub mod fuzzing;
mod issue;
mod jwt;
mod kerberos;
mod keys;
#[cfg(test)]
mod mutated;
mod oidc;
mod ops;
mod passkeys;
mod passwords;
mod policy;
mod provider;
mod qr;
mod registry;
mod ssh;
mod state;
mod withdrawn;

pub use config::{ADDRESS_MAX, Config, Registration, is_host_port};
pub use kerberos::Kerberos;
pub use keys::{
    CORE_LIFE, KNOWN_AFTER, KeyState, KeyView, Pkcs11, Purpose, SiteKeys, list_keys, roll_key,
};
pub use oidc::{Accounts, Provider, Wanted};
pub use ops::{Operation, create_administrator};
pub use passkeys::{PasskeyConfig, SecondFactor};
pub use qr::qr_picture;

use effects::Round;
use jwt::Outside;
use kerberos::Tickets;
use oidc::Oidc;
use passkeys::Passkeys;
use passwords::Passwords;
use registry::Registry;
use state::limit::Limiter;
use state::spent::Spent;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use tokio_util::sync::CancellationToken;
use withdrawn::Withdrawn;
use xos_api::audit::Event;
use xos_api::cda::HostCertificates;
use xos_api::site::SiteDescriptor;
use xos_base::when::Clock;
use xos_base::{Error, Millis, NodeId, SiteId};
use xos_net::audit::Teller;
use xos_net::trust::core_name;
use xos_net::{Audit, ClusterNames, Grid, Router, Trust};
use xos_store::Store;

/// What the service needs of its machine.
pub struct Parts {
    /// The site's keys.
    pub keys: SiteKeys,
    /// The registry; this service's entries lie below `cda/`.
    pub store: Arc<dyn Store>,
    /// Calls to the own and other cores.
    pub grid: Grid,
    /// The trusted sites: filled here, shared with the port.
    pub trust: Trust,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Is told what happens.
    pub audit: Arc<dyn Audit>,
    /// Ends the background work.
    pub stop: CancellationToken,
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Cda {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    site: SiteId,
    config: Config,
    keys: SiteKeys,
    registry: Registry,
    grid: Grid,
    trust: Trust,
    clock: Arc<dyn Clock>,
    told: Teller,
    passwords: Passwords,
    limiter: Limiter,
    oidc: Oidc,
    passkeys: Passkeys,
    /// Absent where nobody signs in by Kerberos.
    kerberos: Option<Tickets>,
    provider: provider::Provider,
    spent: Spent,
    withdrawn: Withdrawn,
    /// In whose name services outside get JWTs.
    outside: Outside,
    /// Sites whose descriptors are to be fetched.
    asked: Round,
    /// Sites that are to be told that this one's descriptor has changed.
    telling: Round,
    /// Held while registry and trust change together, so that a site that is being forgotten does
    /// not come back by a refresh.
    sites: tokio::sync::Mutex<()>,
    /// The site's keys as the audit knows them.
    known_keys: Mutex<Vec<KeyView>>,
    /// Once they are there, on a core that has some.
    clusters: OnceLock<Weak<dyn ClusterNames>>,
}

impl Cda {
    /// Loads trusted sites and withdrawn keys into `parts.trust`, the own site among them, and
    /// starts the background work: renewal of the core's certificate, refreshing of descriptors.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] for a bad configuration, or a file that it names and that cannot
    /// be used; [`xos_base::Kind::Internal`] when the registry fails or belongs to other keys than the state folder's.
    pub async fn start(config: Config, parts: Parts) -> Result<Cda, Error> {
        config.check()?;
        let known_keys = parts.keys.list(parts.clock.now())?;
        let inner = Arc::new(Inner {
            spent: Spent::new(parts.keys.site().clone()),
            site: parts.keys.site().clone(),
            passwords: Passwords::new(config.hashers)?,
            registry: Registry::new(parts.store),
            outside: Outside::new(&config, parts.keys.site()),
            oidc: Oidc::open(&config)?,
            passkeys: Passkeys::open(&config, parts.keys.site())?,
            kerberos: Tickets::open(&config)?,
            provider: provider::Provider::default(),
            config,
            keys: parts.keys,
            grid: parts.grid,
            trust: parts.trust,
            clock: parts.clock,
            told: Teller::new(parts.audit),
            limiter: Limiter::new(),
            withdrawn: Withdrawn::default(),
            asked: Round::default(),
            telling: Round::default(),
            sites: tokio::sync::Mutex::new(()),
            known_keys: Mutex::new(known_keys),
            clusters: OnceLock::new(),
        });
        inner.check_registry_is_ours().await?;
        inner.load().await?;
        effects::spawn(&inner, &parts.stop);
        Ok(Cda { inner })
    }

    /// What this site tells others about itself.
    pub fn descriptor(&self) -> SiteDescriptor {
        self.inner.descriptor()
    }

    /// Renews what is due now, as the background work does: the site's own certificates and keys.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// As [`SiteKeys::renew_if_due`].
    pub fn renew_if_due(&self) -> Result<bool, Error> {
        self.inner.renew_if_due()
    }

    /// SSH host certificates for the keys of the sshd on the core's own machine, at most
    /// [`xos_api::cda::HOST_KEYS_MAX`]: good for the core's name, the names in its certificate and
    /// the host names in its addresses, as long as a node's.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when a key is none that is certified.
    pub fn certify_own_host(&self, keys: &[String]) -> Result<HostCertificates, Error> {
        let mut principals = vec![core_name(&self.inner.site)];
        principals.extend_from_slice(&self.inner.config.names);
        for host in self.inner.config.host_names() {
            if !principals.contains(&host) {
                principals.push(host);
            }
        }
        self.inner.host_certificates(&principals, keys)
    }

    /// Fetches the descriptors of all trusted sites anew, as the background work does.
    pub async fn refresh_sites(&self) {
        effects::refresh_sites(&self.inner).await;
    }

    /// No node joins under a name that one of these clusters has, from now on. Said once.
    pub fn set_clusters(&self, clusters: Weak<dyn ClusterNames>) {
        // A core has one service of clusters.
        let _first = self.inner.clusters.set(clusters);
    }

    /// Whether a machine of this site has joined under this name.
    ///
    /// # Errors
    /// Those of the registry.
    pub async fn has_node(&self, node: &NodeId) -> Result<bool, Error> {
        Ok(self.inner.node(node).await?.is_some())
    }

    /// Tells services from now on that people sign in to them by this core: the console serves
    /// what they ask by HTTP.
    pub fn provide_sign_in(&self) {
        self.inner.provider.serve();
    }

    /// Serves the requests of `xos_api::cda` and `xos_api::site::GetSite`; says which these are,
    /// and how the audit calls them.
    pub fn register(&self, router: &mut Router) -> Vec<Operation> {
        ops::register(&self.inner, router)
    }
}

impl Inner {
    fn now(&self) -> Millis {
        self.clock.now()
    }

    fn descriptor(&self) -> SiteDescriptor {
        SiteDescriptor { withdrawn: self.withdrawn.said(), ..self.introduction() }
    }

    /// The descriptor without what was withdrawn, for who comes to know this site.
    fn introduction(&self) -> SiteDescriptor {
        self.keys.descriptor(self.config.addresses.clone())
    }

    /// Renews what is due; when other keys count than before, everybody here and at other sites
    /// hears of it.
    fn renew_if_due(&self) -> Result<bool, Error> {
        let now = self.now();
        let renewed = self.keys.renew_if_due(now)?;
        if renewed {
            self.note_keys(now);
        }
        // Compared with what was said, so that what failed half-way is done the next time.
        if self.trust.descriptor(&self.site)?.keys != self.keys.vouched() {
            // A key that counts no more may have signed it.
            self.withdraw([])?;
            self.tell_others();
        }
        Ok(renewed)
    }

    /// Notes which keys are others than when they were looked at last.
    fn note_keys(&self, now: Millis) {
        let after = match self.keys.list(now) {
            Ok(after) => after,
            Err(error) => {
                tracing::error!(%error, "a change of the site's keys is noted later");
                return;
            }
        };
        let mut known = self.known_keys.lock().unwrap_or_else(PoisonError::into_inner);
        for (what, on) in keys::changes(&known, &after) {
            let who = format!("core of {}", self.site);
            self.told.note(Event { who, on, ..Event::new(now, what) });
        }
        *known = after;
    }

    /// Other sites fetch this one's descriptor soon.
    fn tell_others(&self) {
        for known in self.trust.descriptors() {
            if known.site != self.site {
                self.telling.ask(known.site);
            }
        }
    }

    /// Refuses these keys of this site's nodes from now on, and lets others know.
    fn withdraw(&self, keys: impl IntoIterator<Item = (String, Millis)>) -> Result<(), Error> {
        let keys: Vec<_> = keys.into_iter().collect();
        for (key, _) in &keys {
            self.trust.ban_key(&self.site, key);
        }
        self.withdrawn.add(keys, (&self.site, self.keys.signer()), self.now())?;
        self.trust.add(self.descriptor())
    }

    /// A registry that was used with another root would bring people and nodes that this root
    /// never vouched for; and a lost key folder must not be replaced unnoticed.
    async fn check_registry_is_ours(&self) -> Result<(), Error> {
        let key = registry::key("site-root", self.site.as_str())?;
        let mine = self.keys.fingerprint();
        match self.registry.read::<String>(&key).await? {
            None => {
                let op = registry::put(key.clone(), &mine)?;
                let guard = xos_store::Guard::Absent(key);
                self.registry.apply(vec![guard], vec![op], "the site's root").await
            }
            Some(found) if found.value == mine => Ok(()),
            Some(found) => Err(Error::internal(format!(
                "the registry belongs to a site whose root is {}, and the keys here have {mine}",
                found.value
            ))
            .hint("restore the state folder's `ca` from the backup that fits the registry")),
        }
    }

    async fn load(&self) -> Result<(), Error> {
        self.trust.add(self.descriptor())?;
        for (name, record) in self.registry.all::<registry::SiteRecord>("site").await? {
            if record.descriptor.site == self.site || record.descriptor.site.as_str() != name {
                return Err(Error::internal(format!("registry entry cda/site/{name} is wrong")));
            }
            self.trust.add(record.descriptor)?;
        }
        let now = self.now();
        let mut banned = Vec::new();
        for (fingerprint, ban) in self.registry.all::<registry::BanRecord>("banned").await? {
            if ban.until > now {
                banned.push((fingerprint, ban.until));
            } else {
                let op = xos_store::Op::Del(registry::key("banned", &fingerprint)?);
                self.registry.change(Vec::new(), vec![op]).await?;
            }
        }
        self.withdraw(banned)
    }
}
