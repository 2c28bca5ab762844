//! TLS sessions: none is resumed, and nothing that was opened before carries a caller past a
//! revocation. The client here is not ours: it keeps what it is given and wants to go on.

use crate::router;
use crate::world::{Core, Site, membership};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use xos_net::Identity;
use xos_net::identity::key_fingerprint;
use xos_net::tls::provider;
use xos_net::trust::{core_name, node_name};

/// A client of `site` that keeps sessions and resumes them.
fn keeps_sessions(site: &Site, core: &Core, proof: (Identity, PrivateKeyDer<'static>)) -> Keeper {
    let mut roots = RootCertStore::empty();
    roots.add(core.trust.root(&site.id).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(proof.0.chain().to_vec(), proof.1)
        .unwrap();
    Keeper { config: Arc::new(config), name: core_name(&site.id) }
}

struct Keeper {
    config: Arc<ClientConfig>,
    name: String,
}

impl Keeper {
    /// A new connection, on the sessions that it has.
    async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(self.name.clone()).unwrap();
        let tcp = TcpStream::connect(address).await?;
        TlsConnector::from(self.config.clone()).connect(name, tcp).await
    }

    /// The status of a request on a new connection; `None` when there is no answer.
    async fn comes_back(&self, address: SocketAddr) -> Option<u16> {
        let mut stream = self.connect(address).await.ok()?;
        assert_ne!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        asked(&mut stream).await
    }
}

/// The status of one request on a connection; `None` when that ends instead.
async fn asked(stream: &mut TlsStream<TcpStream>) -> Option<u16> {
    let request = "POST /v1/who HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                   Content-Length: 13\r\n\r\n{\"text\":\"hi\"}";
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut got = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&got).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                let named = name.eq_ignore_ascii_case("content-length");
                named.then(|| value.trim().parse::<usize>().unwrap())
            });
            if body.len() >= length.expect("a length") {
                return head.get(9..12)?.parse().ok();
            }
        }
        match stream.read_buf(&mut got).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// A server with the library's own settings, which lets sessions be resumed.
async fn lenient(site: &Site) -> SocketAddr {
    let (identity, key) = site.issue_with_key(&[core_name(&site.id)], None);
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain().to_vec(), key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut stream = acceptor.accept(tcp).await.unwrap();
            stream.read_buf(&mut Vec::new()).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            // The client may be gone by now.
            stream.shutdown().await.ok();
        }
    });
    address
}

/// If it failed, a session could be resumed: who was let in once would come in again without being
/// looked at.
#[tokio::test(flavor = "multi_thread")]
async fn no_session_is_resumed() {
    let rennes = Site::new("rennes");
    let core = Core::start(&rennes, &[], router()).await;
    let alice = rennes.issue_with_key(&[], Some(&membership("demo.rennes", 2)));
    let keeper = keeps_sessions(&rennes, &core, alice);
    // So that what follows shows something: this client resumes where it can.
    let other = lenient(&rennes).await;
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut stream = keeper.connect(other).await.unwrap();
        assert_eq!(asked(&mut stream).await, Some(200));
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
    }
    // A session of the other server is none here, and no new one is given.
    for _ in 0..3 {
        let mut stream = keeper.connect(core.address).await.unwrap();
        assert_eq!(asked(&mut stream).await, Some(200));
        let (_, tls) = stream.get_ref();
        assert_eq!(tls.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(tls.tls13_tickets_received(), 0, "the core gave something to resume by");
    }
}

/// If it failed, a revocation would count for new connections only, and who keeps an old one, or
/// a session of it, would go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_client_goes_on_by_nothing_that_it_has() {
    let (rennes, pisa) = (Site::new("rennes"), Site::new("pisa"));
    let core = Core::start(&rennes, &[&pisa.descriptor(vec![])], router()).await;
    let node = rennes.issue_with_key(&[node_name(&"n1.rennes".parse().unwrap())], None);
    let withdrawn = key_fingerprint(&node.0.chain()[0]).unwrap();
    let member = pisa.issue_with_key(&[], Some(&membership("demo.pisa", 2)));
    let stays = rennes.issue_with_key(&[], Some(&membership("demo.rennes", 2)));
    let mut open = Vec::new();
    for proof in [node, member, stays] {
        let keeper = keeps_sessions(&rennes, &core, proof);
        let mut stream = keeper.connect(core.address).await.unwrap();
        for _ in 0..2 {
            assert_eq!(asked(&mut stream).await, Some(200), "a connection is used again");
        }
        open.push((keeper, stream));
    }
    core.trust.ban_key(&rennes.id, &withdrawn);
    core.trust.remove(&pisa.id);
    let (keeper, mut stream) = open.pop().unwrap();
    assert_eq!(asked(&mut stream).await, Some(200), "others go on");
    assert_eq!(keeper.comes_back(core.address).await, Some(200));
    for (keeper, mut stream) in open {
        for status in [asked(&mut stream).await, keeper.comes_back(core.address).await] {
            assert!(matches!(status, None | Some(401 | 403)), "it goes on: {status:?}");
        }
    }
}
