//! Clients of a core's API that put load on it; they run inside a host.

use super::within::{AT_ONCE_MAX, RUNS_MAX, Timing, nanos};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ssh_key::PublicKey;
use ssh_key::public::{Ed25519PublicKey, KeyData};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Barrier;
use xos_api::Request;
use xos_api::aem::{JobSpec, SubmitJob, TaskSpec};
use xos_api::cda::{IssueCertificate, IssueToken, Submission};
use xos_api::site::{GetSite, SiteDescriptor};
use xos_base::when::{Clock, SystemClock};
use xos_base::{Error, JobId, SiteId, VoId};
use xos_net::identity::hex;
use xos_net::{Client, Identity, Trust, submission};

/// For whom the JWTs are.
const AUDIENCE: &str = "https://storage.example";

/// How load is made.
#[derive(Clone, Debug)]
pub struct LoadArgs {
    /// Where the person's `xos` keeps its files.
    pub home: PathBuf,
    /// The VO whose certificate the clients use; its home is the core that is asked.
    pub vo: VoId,
    /// Clients, each with a connection of its own and one request at a time.
    pub clients: usize,
    /// Requests of all clients together.
    pub count: usize,
}

/// Submits jobs that wait for job `after`: accepted, and not run.
///
/// # Errors
/// The first refusal.
pub async fn submit(args: &LoadArgs, after: &JobId) -> Result<Timing, Error> {
    let person = Person::read(&args.home, &args.vo)?;
    let task =
        TaskSpec { name: "main".into(), argv: vec!["/bin/true".into()], ..TaskSpec::default() };
    let spec = JobSpec {
        vo: args.vo.clone(),
        name: "true".into(),
        tasks: vec![task],
        after_jobs: vec![after.clone()],
        sites: Vec::new(),
    };
    let ask = || Ok(SubmitJob { proof: Some(person.sign(&spec)?), spec: spec.clone() });
    run(&person, args, ask).await
}

/// Asks for certificates by the present one, each for a fresh key.
///
/// # Errors
/// The first refusal.
pub async fn issue(args: &LoadArgs) -> Result<Timing, Error> {
    let person = Person::read(&args.home, &args.vo)?;
    run(&person, args, || renewal(args)).await
}

/// The same with an SSH certificate, for a fresh key too, and a JWT beside each.
///
/// # Errors
/// The first refusal.
pub async fn issue_sets(args: &LoadArgs) -> Result<Timing, Error> {
    let person = Person::read(&args.home, &args.vo)?;
    let ask = || {
        // The core looks at no point of a key: any 32 bytes are one.
        let key = KeyData::Ed25519(Ed25519PublicKey(random()?));
        let line = PublicKey::new(key, "").to_openssh();
        let line = line.map_err(|e| Error::internal(format!("cannot write an SSH key: {e}")))?;
        let (ssh_key, jwt_audience) = (Some(line), Some(AUDIENCE.to_owned()));
        Ok(IssueCertificate { ssh_key, jwt_audience, ..renewal(args)? })
    };
    run(&person, args, ask).await
}

/// A token of a member's in a VO, for a site. `home`: where the person's `xos` keeps its files.
///
/// # Errors
/// What is missing there, or the refusal.
pub async fn member_token(home: &Path, vo: VoId, audience: SiteId) -> Result<String, Error> {
    let client = Person::read(home, &vo)?.client()?;
    let audience = Some(audience);
    Ok(client.call(IssueToken { vo, audience, groups: None, roles: None }).await?.token)
}

fn renewal(args: &LoadArgs) -> Result<IssueCertificate, Error> {
    let fail = |e: rcgen::Error| Error::internal(format!("cannot make a key: {e}"));
    let key = KeyPair::generate().map_err(fail)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let csr_pem = params.serialize_request(&key).and_then(|r| r.pem()).map_err(fail)?;
    Ok(IssueCertificate {
        vo: args.vo.clone(),
        csr_pem,
        ssh_key: None,
        jwt_audience: None,
        groups: None,
        roles: None,
    })
}

/// Makes all requests, connects all clients, and only then looks at the clock.
async fn run<R: Request>(
    person: &Person,
    args: &LoadArgs,
    ask: impl Fn() -> Result<R, Error>,
) -> Result<Timing, Error> {
    let clients = args.clients.clamp(1, AT_ONCE_MAX);
    let each = args.count.min(RUNS_MAX).div_ceil(clients);
    let start = Arc::new(Barrier::new(clients + 1));
    let mut tasks = Vec::with_capacity(clients);
    for _ in 0..clients {
        let client = person.client()?;
        client.call(GetSite {}).await?;
        let requests = (0..each).map(|_| ask()).collect::<Result<Vec<R>, Error>>()?;
        tasks.push(tokio::spawn(one(client, requests, start.clone())));
    }
    start.wait().await;
    let begin = Instant::now();
    let mut each_ns = Vec::with_capacity(clients * each);
    for task in tasks {
        let times = task.await.map_err(|e| Error::internal(format!("a client broke: {e}")))?;
        each_ns.extend(times?);
    }
    Ok(Timing { each_ns, total_ns: nanos(begin) })
}

async fn one<R: Request>(
    client: Client,
    requests: Vec<R>,
    start: Arc<Barrier>,
) -> Result<Vec<u64>, Error> {
    start.wait().await;
    let mut times = Vec::with_capacity(requests.len());
    for request in requests {
        let begin = Instant::now();
        client.call(request).await?;
        times.push(nanos(begin));
    }
    Ok(times)
}

/// What the tool `xos` keeps about a person, as far as it is needed here.
struct Person {
    vo: VoId,
    trust: Trust,
    kept: Kept,
    identity: Identity,
}

#[derive(Deserialize)]
struct Sites {
    sites: Vec<KnownSite>,
}

#[derive(Deserialize)]
struct KnownSite {
    descriptor: SiteDescriptor,
}

#[derive(Deserialize)]
struct Kept {
    key_pem: String,
    chain_pem: String,
}

impl Person {
    fn read(home: &Path, vo: &VoId) -> Result<Person, Error> {
        let trust = Trust::new();
        for site in json::<Sites>(&home.join("sites.json"))?.sites {
            trust.add(site.descriptor)?;
        }
        let kept: Kept = json(&home.join(format!("vo/{vo}/credential.json")))?;
        let identity = Identity::from_pem(&kept.chain_pem, &kept.key_pem)?;
        Ok(Person { vo: vo.clone(), trust, kept, identity })
    }

    /// A client with a connection of its own.
    fn client(&self) -> Result<Client, Error> {
        Client::with_identity(self.vo.site(), &self.trust, self.identity.clone())
    }

    fn sign(&self, spec: &JobSpec) -> Result<String, Error> {
        let fail = |what: &str| Error::internal(format!("cannot sign a submission: {what}"));
        let word = Submission {
            vo: self.vo.clone(),
            owner: self.vo.site(),
            digest: xos_aem::digest(spec)?,
            nonce: hex(&random::<16>()?),
            issued: SystemClock.now(),
        };
        let key = PrivateKeyDer::from_pem_slice(self.kept.key_pem.as_bytes())
            .map_err(|e| fail(&e.to_string()))?;
        submission::sign(&word, self.identity.chain(), &key)
    }
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|e| Error::internal(format!("cannot read /dev/urandom: {e}")))?;
    Ok(bytes)
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = std::fs::read(path)
        .map_err(|e| Error::not_found(format!("cannot read {}: {e}", path.display())))?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::invalid(format!("{} is not understood: {e}", path.display())))
}
