//! Two small sites with real keys, and a core that listens on a free port.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use xos_api::site::{SiteDescriptor, WithdrawnKey, WithdrawnKeys};
use xos_base::membership::{EXTENSION_OID, Group};
use xos_base::when::SystemClock;
use xos_base::{Epoch, Error, GroupNumber, MemberNumber, Membership, Millis, SiteId};
use xos_net::dial::StreamHandler;
use xos_net::http::Shared;
use xos_net::key::{KeyKind, LocalKey};
use xos_net::port::{Config, Services};
use xos_net::sign::{Kind, Signer, vouch};
use xos_net::trust::{core_name, node_name};
use xos_net::{Grid, Identity, IdentityCell, Nodes, Router, Standing, Trust, Verifier};

/// A site's keys.
pub struct Site {
    pub id: SiteId,
    pub signer: Signer,
    ca: Issuer<'static, KeyPair>,
    root_key: Vec<u8>,
    root: CertificateDer<'static>,
}

impl Site {
    pub fn new(name: &str) -> Site {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("XOS site {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let cert = params.self_signed(&key).unwrap();
        let root = cert.der().clone();
        Site {
            root_key: key.serialize_der(),
            id: name.parse().unwrap(),
            signer: Signer::generate().unwrap(),
            ca: Issuer::new(params, key),
            root,
        }
    }

    pub fn descriptor(&self, addresses: Vec<String>) -> SiteDescriptor {
        SiteDescriptor {
            site: self.id.clone(),
            addresses,
            root: STANDARD.encode(&self.root),
            keys: self.vouch(&[&self.signer], Millis(1)),
            withdrawn: None,
        }
    }

    /// The root's word, said at `issued`, that these are the site's keys.
    pub fn vouch(&self, signers: &[&Signer], issued: Millis) -> String {
        let keys = signers.iter().map(|s| s.public()).collect();
        self.root_says(&xos_api::site::SiteKeys::signing(&self.id, keys, issued))
    }

    /// The root's word.
    pub fn root_says(&self, said: &xos_api::site::SiteKeys) -> String {
        vouch(&LocalKey::from_pkcs8(KeyKind::P256, &self.root_key).unwrap(), said).unwrap()
    }

    /// This site's word, said at `issued`, that these keys of its nodes hold no more.
    pub fn withdraw(&self, keys: &[&str], issued: Millis) -> String {
        let key = |k: &&str| WithdrawnKey { key: (*k).to_owned(), until: Millis(u64::MAX) };
        let keys = keys.iter().map(key).collect();
        let said = WithdrawnKeys { site: self.id.clone(), keys, issued };
        self.signer.sign(Kind::Withdrawn, &said).unwrap()
    }

    /// A certificate with the given DNS names and membership, whatever this site may vouch for.
    pub fn issue(&self, names: &[String], membership: Option<&Membership>) -> Identity {
        self.issue_with_key(names, membership).0
    }

    /// The same, with the private key.
    pub fn issue_with_key(
        &self,
        names: &[String],
        membership: Option<&Membership>,
    ) -> (Identity, PrivateKeyDer<'static>) {
        self.sign(params(names, membership))
    }

    /// A member's certificate from the first day of one year to that of another.
    pub fn between(&self, membership: &Membership, from: i32, until: i32) -> Identity {
        let mut params = params(&[], Some(membership));
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        self.sign(params).0
    }

    fn sign(&self, params: CertificateParams) -> (Identity, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.ca).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (Identity::new(vec![cert.der().clone()], &key).unwrap(), key)
    }

    /// The core's certificate, which names its host for browsers too.
    pub fn core(&self) -> Identity {
        self.issue(&[core_name(&self.id), "localhost".into(), "127.0.0.1".into()], None)
    }

    pub fn node(&self, label: &str) -> Identity {
        self.issue(&[node_name(&self.id.node(label).unwrap())], None)
    }
}

/// What a certificate with these names and this membership says.
fn params(names: &[String], membership: Option<&Membership>) -> CertificateParams {
    let mut params = CertificateParams::new(names.to_vec()).unwrap();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    if let Some(m) = membership {
        let der = m.to_der().unwrap();
        params.custom_extensions.push(CustomExtension::from_oid_content(EXTENSION_OID, der));
    }
    params
}

/// Alice in a VO.
pub fn membership(vo: &str, epoch: u64) -> Membership {
    Membership {
        vo: vo.parse().unwrap(),
        person: "alice@rennes".parse().unwrap(),
        number: MemberNumber(7),
        epoch: Epoch(epoch),
        groups: vec![Group { name: "members".parse().unwrap(), number: GroupNumber(1) }],
        roles: vec![],
        expires: None,
    }
}

/// Holds memberships of any VO from epoch 2 on.
pub struct FromEpochTwo;

impl Standing for FromEpochTwo {
    fn effective(&self, m: &Membership, _: Millis) -> Result<Membership, Error> {
        if m.epoch < Epoch(2) {
            return Err(Error::unauthenticated("your membership changed: sign in again"));
        }
        Ok(m.clone())
    }
}

/// A running core.
pub struct Core {
    pub trust: Trust,
    pub nodes: Nodes,
    pub grid: Grid,
    pub descriptor: SiteDescriptor,
    pub address: SocketAddr,
    stop: CancellationToken,
}

impl Core {
    /// Starts the core of `site`, which trusts itself and `others`.
    pub async fn start(site: &Site, others: &[&SiteDescriptor], router: Router) -> Core {
        Core::with(site, others, router, Config { http_workers: 1, ..Config::default() }).await
    }

    /// The same with a port as `config` says, wherever it listens.
    pub async fn with(
        site: &Site,
        others: &[&SiteDescriptor],
        mut router: Router,
        config: Config,
    ) -> Core {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let descriptor = site.descriptor(vec![address.to_string()]);
        let trust = Trust::new();
        trust.add(descriptor.clone()).unwrap();
        for other in others {
            trust.add((*other).clone()).unwrap();
        }
        let identity = IdentityCell::new(site.core());
        let verifier = Verifier::new(site.id.clone(), trust.clone(), Arc::new(SystemClock));
        verifier.set_standing(Arc::new(FromEpochTwo));
        let nodes = Nodes::new(site.id.clone());
        let grid = Grid::new(site.id.clone(), trust.clone(), identity.clone());
        router.on::<xos_api::node::Hello, _, _>(|caller, hello| async move {
            assert_eq!(caller.node()?, &hello.node);
            Ok(xos_api::Done {})
        });
        let router = Arc::new(router);
        nodes.set_router(router.clone());
        grid.set_router(router.clone());
        let runtime = tokio::runtime::Handle::current();
        let http = Shared { router, verifier: verifier.clone(), runtime, pages: None };
        let stop = CancellationToken::new();
        let services = Services { http, verifier, nodes: nodes.clone(), files: Some(echo()) };
        let stopped = stop.clone();
        tokio::spawn(async move {
            xos_net::port::serve(listener, &config, &identity, services, stopped).await.unwrap();
        });
        Core { trust, nodes, grid, descriptor, address, stop }
    }
}

impl Core {
    /// What a machine that knows only this core trusts.
    pub fn descriptor_trust(&self) -> Trust {
        let trust = Trust::new();
        trust.add(self.descriptor.clone()).unwrap();
        trust
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Says who came, then sends back what comes.
pub fn echo() -> StreamHandler {
    Arc::new(|caller, mut stream| {
        Box::pin(async move {
            let hello = format!("{}:", caller.describe());
            // Streams are cut in tests: then there is nobody to tell.
            if stream.write_all(hello.as_bytes()).await.is_ok() {
                let (mut r, mut w) = tokio::io::split(stream);
                if tokio::io::copy(&mut r, &mut w).await.is_ok() {
                    w.shutdown().await.unwrap();
                }
            }
        })
    })
}
