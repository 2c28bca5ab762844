//! A core with every service, made once with people, VOs and a job, and opened from a copy as often
//! as something was changed in it.

use super::sample::Asked;
use crate::daemon::config::Site as SiteConfig;
use crate::daemon::core::{Ground, Running, Sections, start};
use bytes::Bytes;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use xos_api::aem::{JobSpec, SubmitJob, TaskSpec};
use xos_api::cda::{
    CreateJoinToken, CreatePerson, IssueToken, JoinMachine, Password, RenewToken, SignIn,
};
use xos_api::openapi::GetOpenApi;
use xos_api::site::SiteDescriptor;
use xos_api::vom::{AcceptShare, Apply, Approve, CreateGroup, FoundVo, GrantRole, OfferShare};
use xos_api::{Method, Request};
use xos_base::{Error, SiteId};
use xos_net::router::Who;
use xos_net::{Caller, Peer};

pub const DEMO: &str = "demo.rennes";
const OTHER: &str = "other.rennes";
/// Whose things the others try to reach.
pub const MIA: &str = "mia@rennes";
const PASSWORD: &str = "correct horse battery";
/// Longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How somebody proves who they are.
pub enum Proof {
    Nothing,
    Token(String),
    Chain(Vec<CertificateDer<'static>>),
}

/// A core that runs in this process.
pub struct Site {
    /// Where its state is, when nobody else keeps it.
    _dir: Option<tempfile::TempDir>,
    ground: Ground,
    running: Running,
    stop: CancellationToken,
}

impl Site {
    async fn open(site: &str, state: &Path) -> Site {
        let stop = CancellationToken::new();
        // Nobody listens there: what needs another core is unavailable.
        let config = xos_cda::Config::new(vec!["127.0.0.1:1".to_owned()]);
        let place = SiteConfig { name: site.parse().unwrap(), state: state.to_owned() };
        let ground = Ground::open(place, &config, stop.clone()).await.unwrap();
        let aem = Some(xos_aem::Config::default());
        let cluster = Some(xos_ssi::service::Config::default());
        let vom = xos_vom::Config::default();
        let sections = Sections { cda: config, vom, aem, files: None, cluster };
        let running = start(&ground, sections, &[xos_console::described()]).await.unwrap();
        Site { _dir: None, ground, running, stop }
    }

    /// A site with its administrator and nothing else, and its state.
    pub async fn empty(site: &str) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let made = Site::made(site, &dir.path().join("state")).await;
        Site { _dir: Some(dir), ..made }
    }

    async fn made(site: &str, state: &Path) -> Site {
        let made = Site::open(site, state).await;
        let (store, now) = (made.ground.store.clone(), made.ground.clock.now());
        let password = Password(PASSWORD.to_owned());
        let id: SiteId = site.parse().unwrap();
        let audit = made.ground.audit.clone();
        xos_cda::create_administrator(store, &id, "ada", &password, audit, now).await.unwrap();
        made
    }

    pub async fn stop(&self) {
        self.stop.cancel();
        self.running.vom.stop();
        if let Some(aem) = &self.running.aem {
            aem.stop().await;
        }
    }

    /// What the core says of itself, asked as anybody would.
    pub fn document(&self) -> Value {
        xos_net::openapi::document(&self.running.router, &[xos_console::described()])
    }

    /// Each request: method, path, whether for anybody.
    pub fn served(&self) -> Vec<(Method, &'static str, bool)> {
        self.running.router.served().collect()
    }

    fn who(&self, proof: &Proof) -> Who {
        let proved = match proof {
            Proof::Nothing => return Who::Nobody(Peer { address: None }, None),
            Proof::Token(token) => self.ground.verifier.token(token, None),
            Proof::Chain(chain) => self.ground.verifier.certificate(chain, None),
        };
        Who::Caller(proved.unwrap())
    }

    /// `done`, or the kind of the error.
    pub async fn ask(&self, proof: &Proof, asked: &Asked) -> String {
        let Asked { method, path, query, body } = asked;
        let found = self.running.router.find(method.as_str(), path).map_err(Error::from).unwrap();
        let answered = async {
            let who = self.who(proof);
            found.admit(&who)?;
            found.run(who, query, Bytes::clone(body)).await
        };
        match tokio::time::timeout(PATIENCE, answered).await {
            Err(_) => panic!("{} {path}: no answer", method.as_str()),
            Ok(Ok(_)) => "done".to_owned(),
            Ok(Err(e)) => {
                serde_json::to_value(e.kind).unwrap().as_str().unwrap_or_default().to_owned()
            }
        }
    }

    async fn call<R: Request>(&self, proof: &Proof, r: R) -> R::Reply {
        let caller: Caller = match self.who(proof) {
            Who::Caller(caller) => caller,
            Who::Nobody(..) => panic!("nobody calls"),
        };
        let place = R::PATH;
        let answer = self.running.router.local(caller, r).await;
        answer.unwrap_or_else(|e| panic!("{place}: {e}"))
    }

    async fn public<R: Request>(&self, r: R) -> R::Reply {
        let answer = self.running.router.local_public(Peer { address: None }, r).await;
        answer.unwrap_or_else(|e| panic!("{}: {e}", R::PATH))
    }

    async fn signed_in(&self, name: &str) -> Proof {
        let password = Password(PASSWORD.to_owned());
        let sign_in =
            SignIn { user: name.to_owned(), password, audience: None, memberships: false };
        Proof::Token(self.public(sign_in).await.token.token)
    }

    async fn known(&self, ada: &Proof, name: &str) -> Proof {
        let password = Password(PASSWORD.to_owned());
        self.call(ada, CreatePerson { name: name.to_owned(), password, site_admin: false }).await;
        self.signed_in(name).await
    }

    /// Admits somebody to a VO, with a group or none, and gives their token there.
    async fn admit(&self, by: &Proof, who: (&Proof, &str), vo: &str, groups: &[&str]) -> Proof {
        let (proof, person) = who;
        let vo = || vo.parse().unwrap();
        self.call(
            proof,
            Apply { vo: vo(), message: String::new(), agreed: None, answers: Vec::new() },
        )
        .await;
        let groups = groups.iter().map(|g| g.parse().unwrap()).collect();
        let person = person.parse().unwrap();
        let approve = Approve { vo: vo(), person, groups, roles: vec![], expires: None };
        self.call(by, approve).await;
        self.member(proof, vo().as_str()).await
    }

    async fn member(&self, proof: &Proof, vo: &str) -> Proof {
        let vo = vo.parse().unwrap();
        let token = IssueToken { vo, audience: None, groups: None, roles: None };
        Proof::Token(self.call(proof, token).await.token)
    }

    /// A machine of the site.
    async fn node(&self, ada: &Proof, label: &str) -> Proof {
        let token = self.call(ada, CreateJoinToken { label: label.to_owned() }).await.token;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        let join = JoinMachine { token, csr_pem: csr.pem().unwrap() };
        let pem = self.public(join).await.chain_pem;
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes());
        Proof::Chain(chain.collect::<Result<_, _>>().unwrap())
    }

    fn core(&self) -> Proof {
        Proof::Chain(self.ground.keys.core_identity().get().chain().to_vec())
    }
}

/// What was made once.
pub struct Base {
    dir: tempfile::TempDir,
    pisa: SiteDescriptor,
    /// Who asks, and how they prove it.
    pub roles: Vec<(&'static str, Proof)>,
}

impl Base {
    pub async fn new() -> Base {
        let dir = tempfile::tempdir().unwrap();
        let rennes = Site::made("rennes", &dir.path().join("state")).await;
        let pisa = Site::empty("pisa").await;
        let descriptor = pisa.running.cda.descriptor();
        rennes.ground.trust.add(descriptor.clone()).unwrap();
        pisa.ground.trust.add(rennes.running.cda.descriptor()).unwrap();
        let roles = roles(&rennes, &pisa).await;
        // The document is public: a stranger gets it.
        assert_eq!(rennes.public(GetOpenApi {}).await["openapi"], "3.1.1");
        rennes.stop().await;
        pisa.stop().await;
        Base { dir, pisa: descriptor, roles }
    }

    /// The site as it was made.
    pub async fn open(&self) -> Site {
        let copy = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        let state = copy.join("state");
        copy_folder(&self.dir.path().join("state"), &state);
        let site = Site::open("rennes", &state).await;
        site.ground.trust.add(self.pisa.clone()).unwrap();
        site
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

async fn roles(rennes: &Site, pisa: &Site) -> Vec<(&'static str, Proof)> {
    let ada = rennes.signed_in("ada").await;
    let (dora, mia) = (rennes.known(&ada, "dora").await, rennes.known(&ada, "mia").await);
    let (max, anna) = (rennes.known(&ada, "max").await, rennes.known(&ada, "anna").await);
    let (vera, otto) = (rennes.known(&ada, "vera").await, rennes.known(&ada, "otto").await);
    let olga = rennes.known(&ada, "olga").await;
    let found = |label: &str| FoundVo {
        label: label.to_owned(),
        title: "Demonstration".to_owned(),
        description: String::new(),
    };
    rennes.call(&vera, found("demo")).await;
    rennes.call(&olga, found("other")).await;
    let (vera, olga) = (rennes.member(&vera, DEMO).await, rennes.member(&olga, OTHER).await);
    let demo = || DEMO.parse().unwrap();
    let name = "physics".parse().unwrap();
    rennes.call(&vera, CreateGroup { vo: demo(), name }).await;
    let mia_there = rennes.admit(&vera, (&mia, MIA), DEMO, &["physics"]).await;
    let max_there = rennes.admit(&vera, (&max, "max@rennes"), DEMO, &[]).await;
    rennes.admit(&vera, (&anna, "anna@rennes"), DEMO, &[]).await;
    let otto_there = rennes.admit(&olga, (&otto, "otto@rennes"), OTHER, &[]).await;
    let person = "anna@rennes".parse().unwrap();
    let role = "admin".parse().unwrap();
    rennes.call(&vera, GrantRole { vo: demo(), person, role }).await;
    let share = OfferShare {
        vo: demo(),
        cpu_milli: 4000,
        memory_bytes: 8 << 30,
        storage_bytes: 0,
        until: None,
        base: None,
    };
    rennes.call(&ada, share).await;
    let accept = AcceptShare { vo: demo(), site: "rennes".parse().unwrap(), version: 1 };
    rennes.call(&vera, accept).await;
    let task = TaskSpec {
        name: "main".to_owned(),
        argv: vec!["/bin/true".to_owned()],
        ..TaskSpec::default()
    };
    let (name, none) = ("mias".to_owned(), Vec::new());
    let spec = JobSpec { vo: demo(), name, tasks: vec![task], after_jobs: none, sites: vec![] };
    let job = rennes.call(&mia_there, SubmitJob { spec, proof: None }).await.job;
    assert_eq!(job.to_string(), "1.rennes", "samples name this job");
    let node = rennes.node(&ada, "n1").await;
    let root = pisa.signed_in("ada").await;
    let bob = pisa.known(&root, "bob").await;
    let audience = Some("rennes".parse().unwrap());
    let bob = pisa.call(&bob, RenewToken { audience }).await.token.token;
    vec![
        ("nobody", Proof::Nothing),
        ("person", dora),
        ("person of another site", Proof::Token(bob)),
        ("member of another VO", otto_there),
        ("owner of another VO", olga),
        ("mia herself", mia_there),
        ("member", max_there),
        ("administrator", rennes.member(&anna, DEMO).await),
        ("owner", vera),
        ("site administrator", ada),
        ("node", node),
        ("another site's core", pisa.core()),
        ("own core", rennes.core()),
    ]
}
