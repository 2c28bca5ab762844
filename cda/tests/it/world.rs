//! Sites for tests: everything is real but the VO service and the clock.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, SignatureAlgorithm};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{Certificate, HashAlg, PublicKey};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use xos_api::Request;
use xos_api::cda::{IssueCertificate, Password, SignIn, SignedIn};
use xos_api::vom::{
    MembershipNow, MembershipOf, Memberships, RENEWAL_S_DEFAULT, ServingSite, Terms, WhoServes,
};
use xos_base::membership::Group;
use xos_base::when::Clock;
use xos_base::{
    Epoch, Error, GroupNumber, MemberNumber, Membership, Millis, PersonId, SiteId, VoId,
};
use xos_cda::{Cda, Config, Parts, SiteKeys};
use xos_net::audit::Remembered;
use xos_net::http::Shared;
use xos_net::port::{self, Services};
use xos_net::sign::Signer;
use xos_net::{Caller, Grid, Nodes, Router, Standing, Trust, Verifier};
use xos_store::{MemoryStore, Store};

pub const ADMIN_PASSWORD: &str = "correct horse battery";

/// A clock that the test moves; begins at the machine's time, since TLS looks at that.
#[derive(Clone)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub fn new() -> TestClock {
        TestClock(Arc::new(AtomicU64::new(Millis::of(SystemTime::now()).0)))
    }

    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }
}

/// The VO service's part: who is a member, and which sites serve.
#[derive(Default)]
pub struct Vos {
    pub members: Mutex<BTreeMap<(VoId, PersonId), Membership>>,
    /// The epochs that suspensions made: mandates from before are void.
    pub suspended: Mutex<BTreeMap<PersonId, Epoch>>,
    pub serving: Mutex<BTreeSet<SiteId>>,
    /// For how many seconds after a sign-in VOs let credentials be renewed, when that was set.
    renewal_s: Mutex<Option<u64>>,
}

impl Standing for Vos {
    fn effective(&self, m: &Membership, _: Millis) -> Result<Membership, Error> {
        let members = self.members.lock().unwrap();
        match members.get(&(m.vo.clone(), m.person.clone())) {
            Some(known) if m.epoch >= known.epoch => Ok(m.clone()),
            Some(_) => Err(Error::unauthenticated("your membership changed: sign in again")),
            None => Err(Error::denied("not a member")),
        }
    }
}

impl Vos {
    pub fn set(&self, m: Membership) {
        self.members.lock().unwrap().insert((m.vo.clone(), m.person.clone()), m);
    }

    /// VOs let credentials be renewed for so many seconds after a sign-in.
    pub fn renew_for(&self, renewal_s: u64) {
        *self.renewal_s.lock().unwrap() = Some(renewal_s);
    }

    pub fn serve(&self, site: &str) {
        self.serving.lock().unwrap().insert(site.parse().unwrap());
    }

    fn serve_requests(self: &Arc<Vos>, router: &mut Router) {
        let vos = self.clone();
        router.on::<MembershipOf, _, _>(move |caller, r| {
            let members = vos.members.lock().unwrap();
            let found = members.get(&(r.vo.clone(), r.person.clone())).cloned();
            let suspended = vos.suspended.lock().unwrap().get(&r.person).copied();
            let renewal_s = vos.renewal_s.lock().unwrap().unwrap_or(RENEWAL_S_DEFAULT);
            async move {
                caller.core()?;
                if suspended.zip(r.since).is_some_and(|(then, since)| since < then) {
                    return Err(Error::denied(format!("{} was suspended after it", r.person)));
                }
                let membership = found.ok_or_else(|| {
                    Error::denied(format!("{} is no member of {}", r.person, r.vo))
                })?;
                Ok(MembershipNow { membership, renewal_s, suspended: None })
            }
        });
        let vos = self.clone();
        router.on::<WhoServes, _, _>(move |_, _| {
            let terms =
                Terms { cpu_milli: 1, memory_bytes: 1, storage_bytes: 1, until: None, version: 1 };
            let serving = vos.serving.lock().unwrap();
            let sites = serving.iter().cloned();
            let sites = sites.map(|site| ServingSite { site, terms: terms.clone() }).collect();
            async move { Ok(sites) }
        });
        router.on::<Memberships, _, _>(|_, _| async { Ok(Vec::new()) });
    }
}

/// A site with its core.
pub struct World {
    pub site: SiteId,
    pub clock: TestClock,
    pub keys: SiteKeys,
    pub trust: Trust,
    pub verifier: Verifier,
    pub grid: Grid,
    pub router: Arc<Router>,
    pub vos: Arc<Vos>,
    pub cda: Cda,
    pub store: Arc<dyn Store>,
    pub audit: Arc<Remembered>,
    pub dir: Arc<tempfile::TempDir>,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    /// A new site with the administrator `root`.
    pub async fn new(site: &str) -> World {
        World::with(site, |_| {}).await
    }

    pub async fn with(site: &str, change: impl FnOnce(&mut Config)) -> World {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let clock = TestClock::new();
        let site: SiteId = site.parse().unwrap();
        let password = Password(ADMIN_PASSWORD.into());
        let audit = Arc::new(Remembered::default());
        let (registry, now) = (store.clone(), clock.now());
        xos_cda::create_administrator(registry, &site, "root", &password, audit.clone(), now)
            .await
            .unwrap();
        assert_eq!(audit.events()[0].what, "create_administrator");
        World::open(site, dir, store, clock, change).await.unwrap()
    }

    /// A core over what is there.
    pub async fn open(
        site: SiteId,
        dir: Arc<tempfile::TempDir>,
        store: Arc<dyn Store>,
        clock: TestClock,
        change: impl FnOnce(&mut Config),
    ) -> Result<World, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::new(vec![listener.local_addr().unwrap().to_string()]);
        change(&mut config);
        let path: &Path = dir.path();
        let keys = SiteKeys::create_or_open(path, &site, &config.names, None, clock.now())?;
        let trust = Trust::new();
        let shared_clock: Arc<dyn Clock> = Arc::new(clock.clone());
        let verifier = Verifier::new(site.clone(), trust.clone(), shared_clock.clone());
        let vos = Arc::new(Vos::default());
        verifier.set_standing(vos.clone());
        let grid = Grid::new(site.clone(), trust.clone(), keys.core_identity());
        let stop = CancellationToken::new();
        let audit = Arc::new(Remembered::default());
        let parts = Parts {
            keys: keys.clone(),
            store: store.clone(),
            grid: grid.clone(),
            trust: trust.clone(),
            clock: shared_clock,
            audit: audit.clone(),
            stop: stop.clone(),
        };
        let cda = Cda::start(config, parts).await?;
        let mut router = Router::new();
        cda.register(&mut router);
        vos.serve_requests(&mut router);
        let router = Arc::new(router);
        grid.set_router(router.clone());
        let nodes = Nodes::new(site.clone());
        nodes.set_router(router.clone());
        let runtime = tokio::runtime::Handle::current();
        let http =
            Shared { router: router.clone(), verifier: verifier.clone(), runtime, pages: None };
        let services = Services { http, verifier: verifier.clone(), nodes, files: None };
        let (identity, stopped) = (keys.core_identity(), stop.clone());
        tokio::spawn(async move {
            let config = port::Config { http_workers: 1, ..port::Config::default() };
            port::serve(listener, &config, &identity, services, stopped).await.unwrap();
        });
        Ok(World {
            site,
            clock,
            keys,
            trust,
            verifier,
            grid,
            router,
            vos,
            cda,
            store,
            audit,
            dir,
            stop,
        })
    }

    /// The same site after a restart of its core.
    pub async fn restarted(&self) -> Result<World, Error> {
        let (dir, store) = (self.dir.clone(), self.store.clone());
        World::open(self.site.clone(), dir, store, self.clock.clone(), |_| {}).await
    }

    /// A public request from nowhere in particular.
    pub async fn public<R: Request>(&self, r: R) -> Result<R::Reply, Error> {
        self.grid.call(&self.site, r).await
    }

    pub async fn call<R: Request>(&self, caller: &Caller, r: R) -> Result<R::Reply, Error> {
        self.router.local(caller.clone(), r).await
    }

    pub async fn sign_in(&self, user: &str, password: &str) -> Result<SignedIn, Error> {
        self.public(sign_in(user, password)).await
    }

    pub fn by_token(&self, token: &str) -> Caller {
        self.verifier.token(token, None).unwrap()
    }

    pub fn by_token_at(&self, token: &str, address: [u8; 4]) -> Caller {
        self.verifier.token(token, Some(IpAddr::from(address))).unwrap()
    }

    pub fn by_certificate(&self, chain_pem: &str) -> Result<Caller, Error> {
        self.verifier.certificate(&chain(chain_pem), None)
    }

    pub async fn root(&self) -> Caller {
        self.by_token(&self.sign_in("root", ADMIN_PASSWORD).await.unwrap().token.token)
    }

    /// Makes a person known, with the administrator's password, and signs them in.
    pub async fn person(&self, name: &str) -> Caller {
        let root = self.root().await;
        let password = Password(ADMIN_PASSWORD.into());
        let r = xos_api::cda::CreatePerson { name: name.into(), password, site_admin: false };
        self.call(&root, r).await.unwrap();
        self.by_token(&self.sign_in(name, ADMIN_PASSWORD).await.unwrap().token.token)
    }

    /// Alice, signed in, a member of the VO.
    pub async fn alice_in(&self, vo: &str) -> Caller {
        let alice = self.person("alice").await;
        self.vos.set(member(vo, "alice@rennes"));
        alice
    }

    /// The core of another site as this one knows it, once it trusts that.
    pub fn core_of(&self, other: &World) -> Caller {
        self.verifier.certificate(other.keys.core_identity().get().chain(), None).unwrap()
    }

    /// Trusts another site, without the exchange.
    pub fn trusts(&self, other: &World) {
        self.trust.add(other.cda.descriptor()).unwrap();
    }
}

pub fn sign_in(user: &str, password: &str) -> SignIn {
    let password = Password(password.into());
    SignIn { user: user.into(), password, audience: None, memberships: false }
}

pub fn member(vo: &str, person: &str) -> Membership {
    let group = |name: &str, n| Group { name: name.parse().unwrap(), number: GroupNumber(n) };
    Membership {
        vo: vo.parse().unwrap(),
        person: person.parse().unwrap(),
        number: MemberNumber(7),
        epoch: Epoch(3),
        groups: vec![group("members", 1), group("physics", 2)],
        roles: vec!["admin".parse().unwrap()],
        expires: None,
    }
}

pub fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

/// A key and a request for it.
pub struct Keyed {
    pub key: KeyPair,
    pub csr_pem: String,
}

pub fn keyed() -> Keyed {
    keyed_with(&PKCS_ECDSA_P256_SHA256, |_| {})
}

pub fn keyed_with(
    alg: &'static SignatureAlgorithm,
    f: impl FnOnce(&mut CertificateParams),
) -> Keyed {
    let key = KeyPair::generate_for(alg).unwrap();
    let mut params = CertificateParams::default();
    f(&mut params);
    let csr_pem = params.serialize_request(&key).unwrap().pem().unwrap();
    Keyed { key, csr_pem }
}

impl Keyed {
    pub fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }
}

pub fn certificate_request(vo: &str, csr_pem: &str) -> IssueCertificate {
    let csr_pem = csr_pem.to_owned();
    IssueCertificate {
        vo: vo.parse().unwrap(),
        csr_pem,
        ssh_key: None,
        jwt_audience: None,
        groups: None,
        roles: None,
    }
}

/// The public part of a new SSH key, as OpenSSH writes it.
pub fn ssh_line() -> String {
    let raw = STANDARD.decode(Signer::generate().unwrap().public()).unwrap();
    let key = KeyData::Ed25519(Ed25519PublicKey(raw.try_into().unwrap()));
    PublicKey::new(key, "alice@laptop").to_openssh().unwrap()
}

/// Reads an SSH certificate as sshd would at `site`, which signs with `key`.
pub fn ssh_certificate(line: &str, key: &[u8; 32], now: xos_base::Millis) -> Certificate {
    let authority = KeyData::Ed25519(Ed25519PublicKey(*key)).fingerprint(HashAlg::Sha256);
    let certificate = Certificate::from_openssh(line).unwrap();
    certificate.validate_at(now.secs(), [&authority]).unwrap();
    assert!(certificate.critical_options().is_empty());
    certificate
}
