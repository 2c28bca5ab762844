//! Sites with real keys and a real port on loopback, each with a vom over a registry in memory.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use xos_api::Request;
use xos_api::node::sessions::WhyNode;
use xos_api::site::SiteDescriptor;
use xos_api::vom::{VoAccounts, WhyAnswer, WhyPlace, WhyStep};
use xos_base::when::{Clock, SystemClock};
use xos_base::{Error, Membership, Millis, NodeId, SiteId};
use xos_net::audit::Remembered;
use xos_net::http::Shared;
use xos_net::key::{KeyKind, LocalKey};
use xos_net::port::{Config as Port, Services};
use xos_net::sign::{Kind, Signer, vouch};
use xos_net::trust::{core_name, node_name};
use xos_net::{Caller, Grid, Identity, IdentityCell, NodeChange, Nodes, Router, Trust, Verifier};
use xos_store::{MemoryStore, Store};
use xos_vom::audit::{AuditLog, Options};
use xos_vom::effects::{Homes, NodeLink};
use xos_vom::{Config, Deps, Vom};

/// The system's time, moved on by tests.
#[derive(Default)]
pub struct Moved(AtomicU64);

impl Moved {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for Moved {
    fn now(&self) -> Millis {
        SystemClock.now().plus(Duration::from_millis(self.0.load(Ordering::SeqCst)))
    }

    fn up(&self) -> Millis {
        SystemClock.up().plus(Duration::from_millis(self.0.load(Ordering::SeqCst)))
    }
}

/// One node that writes down what it is told.
pub struct Ear {
    node: NodeId,
    pub heard: Mutex<Vec<VoAccounts>>,
    /// Its disk is full: it says of everything that it could not be kept.
    pub full: AtomicBool,
    changes: broadcast::Sender<NodeChange>,
}

#[async_trait]
impl NodeLink for Ear {
    fn connected(&self) -> Vec<NodeId> {
        vec![self.node.clone()]
    }

    fn changes(&self) -> broadcast::Receiver<NodeChange> {
        self.changes.subscribe()
    }

    async fn accounts_told(&self, _: &NodeId) -> Result<(), Error> {
        Ok(())
    }

    async fn accounts(&self, node: &NodeId, accounts: VoAccounts) -> Result<(), Error> {
        assert_eq!(*node, self.node);
        self.heard.lock().unwrap().push(accounts);
        if self.full.load(Ordering::SeqCst) {
            return Err(Error::internal("no space left"));
        }
        Ok(())
    }

    /// Says what it was asked, and claims to be another.
    async fn why(&self, node: &NodeId, r: WhyNode) -> Result<WhyAnswer, Error> {
        assert_eq!(*node, self.node);
        let text = format!("member {} of {}: {}", r.number.0, r.vo, "x".repeat(5000));
        Ok(WhyAnswer { steps: vec![WhyStep::ok(WhyPlace::Home, "admission", text); 100] })
    }
}

/// A site.
pub struct Site {
    pub id: SiteId,
    pub signer: Arc<Signer>,
    pub trust: Trust,
    pub verifier: Verifier,
    pub grid: Grid,
    pub store: Arc<dyn Store>,
    pub clock: Arc<Moved>,
    /// The folder of the audit.
    pub folder: tempfile::TempDir,
    pub log: Mutex<Option<Arc<AuditLog>>>,
    pub audit: Arc<Remembered>,
    pub ear: Arc<Ear>,
    pub descriptor: SiteDescriptor,
    identity: IdentityCell,
    ca: Issuer<'static, KeyPair>,
    listener: Mutex<Option<TcpListener>>,
    stop: CancellationToken,
}

/// Files of a few lines each.
fn small() -> Options {
    Options { segment_bytes: 2000, reserve_bytes: 0, ..Options::default() }
}

fn issue(ca: &Issuer<'static, KeyPair>, name: String) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name]).unwrap();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let cert = params.signed_by(&key, ca).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Identity::new(vec![cert.der().clone()], &key).unwrap()
}

impl Site {
    pub async fn new(name: &str) -> Site {
        let id: SiteId = name.parse().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("XOS site {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root: CertificateDer<'static> = params.self_signed(&key).unwrap().der().clone();
        let root_key = key.serialize_der();
        let ca = Issuer::new(params, key);
        let signer = Arc::new(Signer::generate().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let descriptor = SiteDescriptor {
            site: id.clone(),
            addresses: vec![listener.local_addr().unwrap().to_string()],
            root: STANDARD.encode(&root),
            keys: vouch(
                &LocalKey::from_pkcs8(KeyKind::P256, &root_key).unwrap(),
                &xos_api::site::SiteKeys::signing(&id, vec![signer.public()], Millis(1)),
            )
            .unwrap(),
            withdrawn: None,
        };
        let trust = Trust::new();
        trust.add(descriptor.clone()).unwrap();
        let identity = IdentityCell::new(issue(&ca, core_name(&id)));
        let ear = Ear {
            node: id.node("n1").unwrap(),
            heard: Mutex::default(),
            full: AtomicBool::new(false),
            changes: broadcast::channel(8).0,
        };
        Site {
            verifier: Verifier::new(id.clone(), trust.clone(), Arc::new(SystemClock)),
            grid: Grid::new(id.clone(), trust.clone(), identity.clone()),
            store: Arc::new(MemoryStore::new()),
            clock: Arc::default(),
            folder: tempfile::tempdir().unwrap(),
            log: Mutex::default(),
            audit: Arc::default(),
            ear: Arc::new(ear),
            listener: Mutex::new(Some(listener)),
            stop: CancellationToken::new(),
            id,
            signer,
            trust,
            descriptor,
            identity,
            ca,
        }
    }

    pub fn trusts(&self, other: &Site) {
        self.trust.add(other.descriptor.clone()).unwrap();
    }

    /// The audit; the one of a vom before must have been stopped.
    pub fn audit(&self) -> Arc<AuditLog> {
        let mut log = self.log.lock().unwrap();
        let log = log.get_or_insert_with(|| {
            let options = Options { witnessed_every: Duration::from_millis(50), ..small() };
            let clock = self.clock.clone();
            Arc::new(AuditLog::open(self.folder.path(), self.id.clone(), options, clock).unwrap())
        });
        log.clone()
    }

    /// A vom over this site's registry, which speaks to others through `homes`.
    pub async fn vom_through(&self, homes: Arc<dyn Homes>) -> Vom {
        Vom::start(Config::default(), self.deps(homes)).await.unwrap()
    }

    /// What such a vom is made of.
    pub fn deps(&self, homes: Arc<dyn Homes>) -> Deps {
        Deps {
            site: self.id.clone(),
            store: self.store.clone(),
            signer: self.signer.clone(),
            trust: self.trust.clone(),
            clock: self.clock.clone(),
            homes,
            nodes: self.ear.clone(),
            log: self.audit(),
            holders: Arc::new(self.grid.clone()),
            audit: self.audit.clone(),
        }
    }

    /// The vom and the port; once a site.
    pub async fn start(&self) -> Vom {
        let vom = self.vom_through(Arc::new(self.grid.clone())).await;
        self.serve(&vom);
        vom
    }

    pub fn serve(&self, vom: &Vom) {
        let mut router = Router::new();
        vom.register(&mut router);
        let router = Arc::new(router);
        self.verifier.set_standing(Arc::new(vom.clone()));
        self.grid.set_router(router.clone());
        let nodes = Nodes::new(self.id.clone());
        let runtime = tokio::runtime::Handle::current();
        let verifier = self.verifier.clone();
        let http = Shared { router, verifier: verifier.clone(), runtime, pages: None };
        let services = Services { http, verifier, nodes, files: None };
        let config = Port { http_workers: 1, ..Port::default() };
        let (identity, stop) = (self.identity.clone(), self.stop.clone());
        let listener = self.listener.lock().unwrap().take().unwrap();
        tokio::spawn(async move {
            xos_net::port::serve(listener, &config, &identity, services, stop).await.unwrap();
        });
    }

    /// A caller with a token of `issuer` for this site.
    pub fn caller(
        &self,
        issuer: &Site,
        name: &str,
        vo: Option<&Membership>,
        admin: bool,
    ) -> Caller {
        let now = SystemClock.now().secs();
        // As JSON: what is optional in it is no matter here.
        let mut claims = serde_json::json!({
            "iss": issuer.id, "sub": name, "aud": self.id, "iat": now, "exp": now + 600,
            "jti": "1", "site_admin": admin,
        });
        if let Some(m) = vo {
            claims["membership"] = STANDARD.encode(m.to_der().unwrap()).into();
        }
        let token = issuer.signer.sign(Kind::Token, &claims).unwrap();
        self.verifier.token(&token, None).unwrap()
    }

    /// One of this site's own people, signed in without a VO.
    pub fn own(&self, name: &str) -> Caller {
        self.caller(self, &format!("{name}@{}", self.id), None, false)
    }

    /// This site's administrator.
    pub fn admin(&self) -> Caller {
        self.caller(self, &format!("root@{}", self.id), None, true)
    }

    /// The core of another site, as seen here.
    pub fn core_of(&self, other: &Site) -> Caller {
        self.verifier.certificate(other.identity.get().chain(), None).unwrap()
    }

    /// A node of a site, as seen here.
    pub fn node_of(&self, other: &Site, label: &str) -> Caller {
        let node = issue(&other.ca, node_name(&other.id.node(label).unwrap()));
        self.verifier.certificate(node.chain(), None).unwrap()
    }

    /// Asks this site's core.
    pub async fn ask<R: Request>(&self, caller: &Caller, r: R) -> Result<R::Reply, Error> {
        self.grid.local(caller.clone(), r).await
    }

    /// Asks this site's core as one of its services.
    pub async fn serve_ask<R: Request>(&self, r: R) -> Result<R::Reply, Error> {
        self.grid.call(&self.id, r).await
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Looks again and again until `f` gives something; a minute at most.
pub async fn until<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3000 {
        if let Some(t) = f() {
            return t;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not come to this within a minute: {what}");
}
