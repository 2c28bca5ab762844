//! Sites with real keys and ports, and nodes that run units at once.

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
use xos_api::cda::{IssueMandate, IssueTicket, IssuedTicket, Mandate, MandateProof};
use xos_api::node::units::{BATCH_MAX, EnvelopeId, UnitEvents};
use xos_api::node::{Capacity, Hello};
use xos_api::site::SiteDescriptor;
use xos_api::vom::{ServedVo, ServedVos, ServingSite, Terms, VoSnapshot, VoState, VoView};
use xos_api::{Request, Subscribe};
use xos_base::when::{Clock, SystemClock};
use xos_base::{
    Epoch, Error, Group, GroupNumber, JobId, MemberNumber, Membership, Millis, NodeId, SiteId, VoId,
};
use xos_net::http::Shared;
use xos_net::port::{Config as Port, Services};
use xos_net::sign::{Kind, Signer, vouch};
use xos_net::trust::{core_name, node_name};
use xos_net::{
    Caller, Grid, Identity, IdentityCell, NodeChange, Nodes, Router, Standing, Trust, Verifier,
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

pub struct Inner {
    pub id: SiteId,
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

pub fn member(person: &str) -> Membership {
    Membership {
        vo: "demo.rennes".parse().unwrap(),
        person: person.parse().unwrap(),
        number: MemberNumber(2),
        epoch: Epoch(1),
        groups: vec![Group { name: "members".parse().unwrap(), number: GroupNumber(1) }],
        roles: vec![],
        expires: None,
    }
}

fn terms() -> Terms {
    Terms { cpu_milli: 64_000, memory_bytes: 1 << 42, storage_bytes: 0, until: None, version: 1 }
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
            keys: vouch(&root_key, &id, vec![signer.public()], Millis(1)).unwrap(),
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
            dir: tempfile::tempdir().unwrap(),
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
            dir,
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
        let clock = Arc::new(SystemClock);
        let aem = Aem::start(config, self.id.clone(), Arc::new(world), Arc::new(Everybody), clock)
            .await
            .unwrap();
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

    /// What the VO service and the VO's home would answer.
    fn fakes(&self, router: &mut Router) {
        let me = self.0.clone();
        router.on::<VoView, _, _>(move |_, r| {
            let me = me.clone();
            async move { Ok(me.view(r.vo)) }
        });
        let me = self.0.clone();
        router.on::<ServedVos, _, _>(move |_, _| {
            let me = me.clone();
            async move { Ok(vec![me.served()]) }
        });
        let me = self.0.clone();
        router.on::<IssueMandate, _, _>(move |caller, r| {
            let me = me.clone();
            async move {
                let owner = caller.core()?.clone();
                let MandateProof::Token(token) = &r.proof else {
                    return Err(Error::invalid("a token is expected"));
                };
                // The audience is the owner; only the person in it matters here.
                let body = token.split('.').nth(1).unwrap();
                let body = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(body).unwrap();
                let claims: serde_json::Value = serde_json::from_slice(&body).unwrap();
                let person = claims["sub"].as_str().unwrap().to_owned();
                if person.starts_with("mallory") {
                    return Err(Error::denied("mallory never signed in"));
                }
                let now = SystemClock.now();
                let mandate = Mandate {
                    job: r.job,
                    membership: member(&person),
                    owner,
                    digest: r.digest,
                    issued: now,
                    until: now.plus(Duration::from_secs(3600)),
                };
                me.signer.sign(Kind::Mandate, &mandate)
            }
        });
        router.on::<IssueTicket, _, _>(|caller, r| async move {
            caller.core()?;
            let expires = SystemClock.now().plus(Duration::from_secs(900));
            Ok(IssuedTicket { ticket: format!("ticket for {}", r.node), expires })
        });
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

    /// A member's caller at this site.
    pub fn caller(&self, home: &Site, person: &str, roles: &[&str]) -> Caller {
        let now = SystemClock.now().secs();
        let mut m = member(person);
        m.roles = roles.iter().map(|r| r.parse().unwrap()).collect();
        let claims = serde_json::json!({
            "iss": home.id, "sub": person, "aud": self.id, "iat": now, "exp": now + 600,
            "jti": "1", "membership": STANDARD.encode(m.to_der().unwrap()),
        });
        let token = home.signer.sign(Kind::Token, &claims).unwrap();
        self.verifier.token(&token, None).unwrap()
    }

    /// A mandate of this site, as the home of `demo.rennes`, for a job of alice.
    pub fn mandate(&self, job: &str, digest: String) -> String {
        let job: JobId = job.parse().unwrap();
        let now = SystemClock.now();
        let mandate = Mandate {
            owner: job.site.clone(),
            job,
            membership: member("alice@rennes"),
            digest,
            issued: now,
            until: now.plus(Duration::from_secs(3600)),
        };
        self.signer.sign(Kind::Mandate, &mandate).unwrap()
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
    fn served(&self) -> ServedVo {
        let serving = self.serving.lock().unwrap().contains(&self.id);
        ServedVo {
            vo: "demo.rennes".parse().unwrap(),
            base: 1_879_048_192,
            size: 65_536,
            accepted: serving.then(terms),
            offered: None,
            serving,
            trouble: None,
        }
    }

    fn view(&self, vo: VoId) -> VoSnapshot {
        let serving = self.serving.lock().unwrap().clone();
        VoSnapshot {
            vo,
            number: 1,
            heard: SystemClock.now(),
            state: VoState::Active,
            volumes: vec![],
            sites: serving.into_iter().map(|site| ServingSite { site, terms: terms() }).collect(),
            own: Some(self.served()),
        }
    }

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
