//! Sites with real keys and ports, and nodes that run units at once.

mod home;

use crate::effects::TestWorld;
use crate::node::Node;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use xos_aem::world::GridWorld;
use xos_aem::{Aem, Config};
use xos_api::aem::{JobEvent, WatchJob};
use xos_api::node::units::{BATCH_MAX, EnvelopeId, UnitEvents};
use xos_api::node::{Capacity, Hello};
use xos_api::policy::{Action, Denial, Place, Side};
use xos_api::site::SiteDescriptor;
use xos_api::{Request, Subscribe};
use xos_base::when::{Clock, SystemClock};
use xos_base::{Error, JobId, Membership, Millis, NodeId, PersonId, SiteId};
use xos_net::audit::Remembered;
use xos_net::http::Shared;
use xos_net::key::{KeyKind, LocalKey};
use xos_net::port::{Config as Port, Services};
use xos_net::sign::{Signer, vouch};
use xos_net::trust::{core_name, node_name};
use xos_net::{
    Audit, Caller, Grid, Identity, IdentityCell, NodeChange, Nodes, Router, Rules, Standing, Trust,
    Verifier,
};

/// Every member stands as their credential says, but eve.
struct Everybody;

impl Standing for Everybody {
    fn effective(&self, m: &Membership, _: Millis) -> Result<Membership, Error> {
        if m.person.name() == "eve" {
            return Err(Error::denied("eve was removed from the VO"));
        }
        Ok(m.clone())
    }
}

/// The rules of a new VO, and those of a site: what they refuse to whom, and how.
#[derive(Default)]
pub struct Denials(pub Mutex<Vec<(PersonId, Action, Denial)>>);

impl Rules for Denials {
    fn judge(&self, m: &Membership, action: Action, _: &Place) -> Result<(), Denial> {
        let all = self.0.lock().unwrap();
        let denied = all.iter().find(|(p, a, _)| *p == m.person && *a == action);
        let administers = m.roles.iter().any(|r| ["admin", "owner"].contains(&r.as_str()));
        match denied {
            Some((_, _, denial)) => Err(denial.clone()),
            None if administers || !matches!(action, Action::See | Action::Cancel) => Ok(()),
            None => Err(Denial { side: Side::Vo, rule: None, text: "not for members".into() }),
        }
    }
}

pub struct Inner {
    pub id: SiteId,
    pub denials: Arc<Denials>,
    signer: Arc<Signer>,
    trust: Trust,
    pub verifier: Verifier,
    grid: Grid,
    descriptor: SiteDescriptor,
    identity: IdentityCell,
    listener: Mutex<Option<TcpListener>>,
    nodes: BTreeMap<NodeId, Arc<Node>>,
    serving: Mutex<Vec<SiteId>>,
    changes: broadcast::Sender<NodeChange>,
    /// The nodes that are connected.
    pub connected: Mutex<BTreeSet<NodeId>>,
    stop: CancellationToken,
    pub audit: Arc<Remembered>,
    pub dir: tempfile::TempDir,
}

/// A site.
pub struct Site(pub Arc<Inner>);

impl std::ops::Deref for Site {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
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
    /// A site with nodes of two processors each.
    pub async fn new(name: &str, nodes: &[&str]) -> Site {
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
        let nodes = nodes.iter().map(|label| {
            let node = id.node(label).unwrap();
            let chain = issue(&ca, node_name(&node)).chain().to_vec();
            let (envelopes, runs) = Default::default();
            (node.clone(), Arc::new(Node { id: node, chain, envelopes, runs }))
        });
        Site(Arc::new(Inner {
            verifier: Verifier::new(id.clone(), trust.clone(), Arc::new(SystemClock)),
            grid: Grid::new(id.clone(), trust.clone(), identity.clone()),
            nodes: nodes.collect(),
            listener: Mutex::new(Some(listener)),
            serving: Mutex::new(vec![id.clone()]),
            changes: broadcast::channel(64).0,
            connected: Mutex::default(),
            stop: CancellationToken::new(),
            audit: Arc::default(),
            dir: tempfile::tempdir().unwrap(),
            denials: Arc::default(),
            id,
            signer,
            trust,
            descriptor,
            identity,
        }))
    }

    /// The same site after its core was killed: same keys, journal and nodes. `wiped`: the nodes
    /// lost what they had.
    pub fn again(&self, wiped: bool) -> Site {
        let fresh = |n: &Arc<Node>| {
            let (envelopes, runs) = Default::default();
            Arc::new(Node { id: n.id.clone(), chain: n.chain.clone(), envelopes, runs })
        };
        let node =
            |(id, n): (&NodeId, &Arc<Node>)| (id.clone(), if wiped { fresh(n) } else { n.clone() });
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("aem");
        std::fs::create_dir(&to).unwrap();
        for e in std::fs::read_dir(self.dir.path().join("aem")).unwrap() {
            let e = e.unwrap();
            std::fs::copy(e.path(), to.join(e.file_name())).unwrap();
        }
        Site(Arc::new(Inner {
            verifier: Verifier::new(self.id.clone(), self.trust.clone(), Arc::new(SystemClock)),
            grid: Grid::new(self.id.clone(), self.trust.clone(), self.identity.clone()),
            nodes: self.nodes.iter().map(node).collect(),
            listener: Mutex::new(None),
            serving: Mutex::new(self.serving.lock().unwrap().clone()),
            changes: broadcast::channel(64).0,
            connected: Mutex::default(),
            stop: CancellationToken::new(),
            audit: Arc::default(),
            dir,
            denials: self.denials.clone(),
            id: self.id.clone(),
            signer: self.signer.clone(),
            trust: self.trust.clone(),
            descriptor: self.descriptor.clone(),
            identity: self.identity.clone(),
        }))
    }

    pub fn trusts(&self, other: &Site) {
        self.trust.add(other.descriptor.clone()).unwrap();
    }

    /// Which sites serve `demo.rennes`, as this site knows.
    pub fn serving(&self, sites: &[&Site]) {
        *self.serving.lock().unwrap() = sites.iter().map(|s| s.id.clone()).collect();
    }

    /// The job service, and on the first call the port.
    pub async fn start(&self, change: impl FnOnce(&mut Config)) -> Aem {
        let mut config = Config { dir: self.dir.path().join("aem"), ..Config::default() };
        change(&mut config);
        let world = TestWorld {
            grid: GridWorld::new(self.grid.clone(), Nodes::new(self.id.clone())),
            nodes: self.nodes.clone(),
            changes: self.changes.clone(),
            site: Arc::downgrade(&self.0),
        };
        let told = (Arc::new(SystemClock) as Arc<dyn Clock>, self.audit.clone() as Arc<dyn Audit>);
        let (world, standing, rules) = (Arc::new(world), Arc::new(Everybody), self.denials.clone());
        let aem = Aem::start(config, self.id.clone(), world, standing, rules, told).await.unwrap();
        let mut router = Router::new();
        aem.register(&mut router);
        self.fakes(&mut router);
        let router = Arc::new(router);
        self.grid.set_router(router.clone());
        self.verifier.set_standing(Arc::new(Everybody));
        if let Some(listener) = self.listener.lock().unwrap().take() {
            let verifier = self.verifier.clone();
            let runtime = tokio::runtime::Handle::current();
            let http = Shared { router, verifier: verifier.clone(), runtime, pages: None };
            let nodes = Nodes::new(self.id.clone());
            let services = Services { http, verifier, nodes, files: None };
            let port = Port { http_workers: 1, ..Port::default() };
            let (identity, stop) = (self.identity.clone(), self.stop.clone());
            tokio::spawn(async move {
                xos_net::port::serve(listener, &port, &identity, services, stop).await.unwrap();
            });
        }
        for node in self.nodes.values() {
            self.connect(node).await;
        }
        aem
    }

    pub async fn connect(&self, node: &Node) {
        let capacity = Capacity { cpu_milli: 2000, memory_bytes: 1 << 40, arch: "x86_64".into() };
        let hello =
            Hello { node: node.id.clone(), version: "0".into(), capacity, key: "0".repeat(64) };
        self.change(&node.id, true);
        let caller = self.verifier.certificate(&node.chain, None).unwrap();
        self.grid.local(caller, hello).await.unwrap();
    }

    pub fn change(&self, node: &NodeId, connected: bool) {
        let mut all = self.0.connected.lock().unwrap();
        let _was = if connected { all.insert(node.clone()) } else { all.remove(node) };
        drop(all);
        // Nobody listens before the service started.
        let _listeners = self.changes.send(NodeChange { node: node.clone(), connected });
    }

    pub fn node(&self, label: &str) -> Arc<Node> {
        self.nodes[&self.id.node(label).unwrap()].clone()
    }

    /// The core of another site, as seen here.
    pub fn core_of(&self, other: &Site) -> Caller {
        self.verifier.certificate(other.identity.get().chain(), None).unwrap()
    }

    pub async fn ask<R: Request>(&self, caller: &Caller, r: R) -> Result<R::Reply, Error> {
        self.grid.local(caller.clone(), r).await
    }

    pub async fn listen<S: Subscribe>(
        &self,
        caller: &Caller,
        s: S,
    ) -> Result<BoxStream<'static, Result<S::Item, Error>>, Error> {
        self.grid.local_stream(caller.clone(), s).await
    }

    /// Watches a job to its end.
    pub async fn end_of(&self, caller: &Caller, job: &JobId) -> JobEvent {
        let watch = WatchJob { job: job.clone(), after: None };
        last(self.listen(caller, watch).await.unwrap()).await
    }
}

/// The last event of a stream; a minute at most.
pub async fn last(events: BoxStream<'static, Result<JobEvent, Error>>) -> JobEvent {
    let all = events.map(Result::unwrap).collect::<Vec<_>>();
    let all = tokio::time::timeout(Duration::from_secs(60), all).await.expect("the job hangs");
    let last = all.last().unwrap().clone();
    assert!(last.end.is_some());
    last
}

/// Looks again and again; a minute at most.
pub async fn until<T>(what: &str, mut f: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..3000 {
        if let Some(t) = f().await {
            return t;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not come to this within a minute: {what}");
}

impl Inner {
    pub async fn report(self: Arc<Self>, node: Arc<Node>, envelope: EnvelopeId) {
        let events = node.envelopes.lock().unwrap().get(&envelope).map(|e| e.events.clone());
        let Some(events) = events else { return };
        let caller = self.verifier.certificate(&node.chain, None).unwrap();
        for (i, part) in events.chunks(BATCH_MAX).enumerate() {
            let after = (i * BATCH_MAX) as u64;
            let r = UnitEvents { envelope: envelope.clone(), after, events: part.to_vec() };
            // A core that stops does not answer; the node would try again.
            let _answer = self.grid.local(caller.clone(), r).await;
        }
    }
}
