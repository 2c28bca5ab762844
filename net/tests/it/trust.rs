//! What a site's signed words do: its keys, and the keys that it withdrew.

use crate::world::{Core, Site, membership};
use crate::{CountTo, Who, client, node_as, router, who};
use futures_util::StreamExt;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use xos_api::subscribe;
use xos_base::when::SystemClock;
use xos_base::{Kind, Millis, NodeId};
use xos_net::dial::{Dialer, NodeLink};
use xos_net::identity::key_fingerprint;
use xos_net::nodes::Io;
use xos_net::sign::{self, Signer};
use xos_net::tls::{ALPN_XTREEMFS, provider};
use xos_net::trust::core_name;
use xos_net::{Client, Identity, IdentityCell, Router, Trust};

fn key(identity: &Identity) -> String {
    key_fingerprint(&identity.chain()[0]).unwrap()
}

#[test]
fn keys_hold_only_by_the_roots_word_and_the_later_word_counts() {
    let (rennes, pisa) = (Site::new("rennes"), Site::new("pisa"));
    let good = rennes.descriptor(vec![]);
    let thief = Signer::generate().unwrap();
    let statement = |s: &Signer| s.sign(sign::Kind::Ticket, &serde_json::json!({"a": 1})).unwrap();
    let believed = |trust: &Trust, s: &Signer| {
        let jws = statement(s);
        trust.verify::<serde_json::Value>(sign::Kind::Ticket, &jws, &rennes.id).is_ok()
    };
    let trust = Trust::new();
    trust.add(good.clone()).unwrap();
    let of_pisa = pisa.vouch(&[&thief], Millis(9));
    let by_key = thief.sign(sign::Kind::SiteKeys, &serde_json::json!({})).unwrap();
    for keys in [String::new(), "a.b.c".into(), of_pisa, by_key, format!("{}x", good.keys)] {
        let e = trust.add(xos_api::site::SiteDescriptor { keys, ..good.clone() }).unwrap_err();
        assert_eq!(e.kind, Kind::Invalid, "{e}");
    }
    assert!(believed(&trust, &rennes.signer) && !believed(&trust, &thief));

    // A new key takes the place of one that leaked, and the old word does not bring that back.
    let fresh = Signer::generate().unwrap();
    let keys = rennes.vouch(&[&fresh], Millis(2));
    trust.add(xos_api::site::SiteDescriptor { keys, ..good.clone() }).unwrap();
    assert!(believed(&trust, &fresh) && !believed(&trust, &rennes.signer));
    trust.add(good).unwrap();
    assert!(believed(&trust, &fresh) && !believed(&trust, &rennes.signer));
}

/// If it failed, a hostile site could make every other one keep endless lists, or a former key
/// would sign more than the history that it signed.
#[test]
fn former_keys_count_for_logs_alone_and_lists_are_bounded() {
    use xos_api::site::{DESCRIPTOR_LIST_MAX, LOG_KEYS_MAX, SiteDescriptor, SiteKeys};
    let rennes = Site::new("rennes");
    let good = SiteKeys::signing(&rennes.id, vec![rennes.signer.public()], Millis(1));
    let says = |said: &SiteKeys| {
        let trust = Trust::new();
        let keys = rennes.root_says(said);
        trust.add(SiteDescriptor { keys, ..rennes.descriptor(vec![]) }).map(|()| trust)
    };
    let (key, print) = (rennes.signer.public(), "ab".repeat(32));
    for bad in [
        SiteKeys { logs: vec![key; LOG_KEYS_MAX + 1], ..good.clone() },
        SiteKeys { logs: vec!["AAAA".into()], ..good.clone() },
        SiteKeys { refused: vec![print.clone(); DESCRIPTOR_LIST_MAX + 1], ..good.clone() },
        SiteKeys { refused: vec![print.to_uppercase()], ..good.clone() },
    ] {
        assert_eq!(says(&bad).err().unwrap().kind, Kind::Invalid);
    }
    let former = Signer::generate().unwrap();
    let trust =
        says(&SiteKeys { logs: vec![former.public()], refused: vec![print], ..good }).unwrap();
    for (kind, counts) in [(sign::Kind::VoLog, true), (sign::Kind::Ticket, false)] {
        let jws = former.sign(kind, &serde_json::json!({"a": 1})).unwrap();
        assert_eq!(trust.verify::<serde_json::Value>(kind, &jws, &rennes.id).is_ok(), counts);
    }
}

#[test]
fn a_site_withdraws_keys_of_its_own_nodes_and_nobody_elses() {
    let (rennes, pisa) = (Site::new("rennes"), Site::new("pisa"));
    let (n1, p1) = (rennes.node("n1"), pisa.node("n1"));
    let alice = rennes.issue(&[], Some(&membership("demo.rennes", 2)));
    let trust = Trust::new();
    trust.add(rennes.descriptor(vec![])).unwrap();
    let now = xos_base::Millis::of(std::time::SystemTime::now());
    let holds =
        |id: &Identity| trust.verify_chain(id.chain(), xos_net::trust::Usage::Client, now).is_ok();
    let with = |site: &Site, list: String| {
        let mut d = site.descriptor(vec![]);
        d.withdrawn = Some(list);
        d
    };
    // Pisa names everybody's keys; only its own node is refused.
    let all = [key(&n1), key(&p1), key(&alice), key(&rennes.core())];
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    trust.add(with(&pisa, pisa.withdraw(&all, Millis(5)))).unwrap();
    assert!(!holds(&p1), "a withdrawn key holds");
    assert!(holds(&n1) && holds(&alice), "pisa withdrew what is not its own");
    // An older word, or none, brings nothing back.
    trust.add(with(&pisa, pisa.withdraw(&[], Millis(4)))).unwrap();
    trust.add(pisa.descriptor(vec![])).unwrap();
    assert!(!holds(&p1), "a withdrawn key came back");
    // Nobody else speaks for pisa.
    for list in [rennes.withdraw(&[], Millis(9)), "x".into(), String::new()] {
        assert!(trust.add(with(&pisa, list)).is_err());
    }
    trust.add(with(&pisa, pisa.withdraw(&[], Millis(6)))).unwrap();
    assert!(holds(&p1), "the later word does not count");
}

/// Waits until the stream ends, as one that is cut does.
async fn ends(stream: &mut Box<dyn Io>) {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    let limit = std::time::Duration::from_secs(60);
    // An error or an end: either way it is over.
    tokio::time::timeout(limit, read).await.expect("the stream goes on").ok();
}

async fn echoes(stream: &mut Box<dyn Io>) {
    stream.write_all(b"!").await.unwrap();
    let mut byte = [0];
    while byte != *b"!" {
        stream.read_exact(&mut byte).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_withdrawn_key_are_cut_and_others_go_on() {
    let (rennes, pisa) = (Site::new("rennes"), Site::new("pisa"));
    let core = Core::start(&rennes, &[&pisa.descriptor(vec![])], router()).await;
    let n1 = rennes.node("n1");
    let control = node_as(n1.clone(), &core).await;
    let (bad, good) = (pisa.node("n1"), pisa.node("n2"));
    let dial = |id: &Identity| Dialer::new(core.descriptor_trust(), IdentityCell::new(id.clone()));
    let node: NodeId = "n1.rennes".parse().unwrap();
    // To the core, and through it to a node, whose trust is the core's here.
    let mut of_bad = dial(&bad).core(&rennes.id, ALPN_XTREEMFS).await.unwrap();
    let mut of_good = dial(&good).core(&rennes.id, ALPN_XTREEMFS).await.unwrap();
    let mut far_bad = dial(&bad).node(&node, b"echo/1").await.unwrap();
    let mut far_good = dial(&good).node(&node, b"echo/1").await.unwrap();
    for stream in [&mut of_bad, &mut of_good, &mut far_bad, &mut far_good] {
        echoes(stream).await;
    }
    let mut told = pisa.descriptor(vec![]);
    told.withdrawn = Some(pisa.withdraw(&[&key(&bad)], Millis(5)));
    core.trust.add(told).unwrap();
    ends(&mut of_bad).await;
    ends(&mut far_bad).await;
    echoes(&mut of_good).await;
    echoes(&mut far_good).await;
    let e = who(&core, bad).await.unwrap_err();
    // Nobody signs a machine in: what it wants is tried again.
    assert_eq!(e.kind, Kind::Unavailable, "{e}");
    assert!(e.message.contains("node n1.pisa: its key was withdrawn"), "{e}");

    // The node at whose end the streams are served: all of them, and its control stream.
    core.trust.ban_key(&rennes.id, &key(&n1));
    ends(&mut far_good).await;
    control.closed().await;
    // A site that is trusted no more: its streams too.
    core.trust.remove(&pisa.id);
    ends(&mut of_good).await;
}

/// A stream that only ends when it is cut.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Endless {}
subscribe!(Endless => u32, Get "/v1/endless");

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_answers_ends_when_its_reader_is_refused() {
    let (rennes, pisa) = (Site::new("rennes"), Site::new("pisa"));
    let core = Core::start(&rennes, &[&pisa.descriptor(vec![])], endless()).await;
    let mut items = client(&core, pisa.core()).subscribe(Endless {}).await.unwrap();
    assert_eq!(items.next().await.unwrap().unwrap(), 1);
    core.trust.remove(&pisa.id);
    let limit = std::time::Duration::from_secs(60);
    let last = tokio::time::timeout(limit, items.next()).await.expect("it goes on");
    assert!(last.is_none_or(|l| l.is_err()));
    let counted = client(&core, rennes.core()).subscribe(CountTo { to: 1 }).await.unwrap();
    assert_eq!(counted.count().await, 2, "others are served");
}

fn endless() -> Router {
    let mut router: Router = router();
    router.stream::<Endless, _, _, _>(|_, _| async move {
        let first = futures_util::stream::once(async { Ok(1) });
        Ok(first.chain(futures_util::stream::pending()))
    });
    router
}

/// If it failed, a site that is forgotten, or whose name has another root now, would be spoken to
/// and believed on over what was opened before.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_opened_to_a_forgotten_site_ends() {
    let (rennes, pisa) = (Site::new("rennes"), Site::new("pisa"));
    let core = Core::start(&rennes, &[&pisa.descriptor(vec![])], endless()).await;
    let other_root = Site::new("rennes").descriptor(core.descriptor.addresses.clone());
    for instead in [None, Some(other_root)] {
        let trust = core.descriptor_trust();
        let client = Client::with_identity(rennes.id.clone(), &trust, pisa.core()).unwrap();
        let mut items = client.subscribe(Endless {}).await.unwrap();
        assert_eq!(items.next().await.unwrap().unwrap(), 1);
        // Leaves a connection for the next call.
        client.call(Who { text: "hi".into() }).await.unwrap();
        let dialer = Dialer::new(trust.clone(), IdentityCell::new(pisa.node("n1")));
        let mut stream = dialer.core(&rennes.id, ALPN_XTREEMFS).await.unwrap();
        echoes(&mut stream).await;
        match instead {
            None => trust.remove(&rennes.id),
            Some(other) => trust.add(other).unwrap(),
        }
        client.call(Who { text: "hi".into() }).await.unwrap_err();
        let limit = std::time::Duration::from_secs(60);
        let last = tokio::time::timeout(limit, items.next()).await.expect("it goes on");
        assert!(last.is_none_or(|l| l.is_err()));
        ends(&mut stream).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_node_gets_no_control_stream() {
    let rennes = Site::new("rennes");
    let core = Core::start(&rennes, &[], router()).await;
    let id = rennes.node("n1");
    let mut told = core.descriptor.clone();
    told.withdrawn = Some(rennes.withdraw(&[&key(&id)], Millis(5)));
    core.trust.add(told).unwrap();
    let dialer = Dialer::new(core.descriptor_trust(), IdentityCell::new(id));
    let node = "n1.rennes".parse().unwrap();
    let link = NodeLink::new(node, dialer, HashMap::new(), Arc::new(SystemClock)).unwrap();
    assert!(link.connect(Arc::new(Router::new())).await.is_err());
    assert!(core.nodes.connected().is_empty());
}

/// What the core shows to whoever asks for it by `name` and trusts this root only, as a browser
/// does.
async fn shown(
    core: &Core,
    root: &CertificateDer<'static>,
    name: &str,
) -> Vec<CertificateDer<'static>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let tcp = TcpStream::connect(core.address).await.unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap().to_vec()
}

/// If it failed, a browser would show nothing to compare with the fingerprint of the site's root,
/// or every machine would be sent a certificate at each connection that it has already.
#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_shown_the_root_and_machines_are_not() {
    let rennes = Site::new("rennes");
    let core = Core::start(&rennes, &[], router()).await;
    let root = core.trust.root(&rennes.id).unwrap();
    for name in ["localhost", "127.0.0.1"] {
        let chain = shown(&core, &root, name).await;
        assert_eq!((chain.len(), chain.last()), (2, Some(&root)), "as {name}");
    }
    let chain = shown(&core, &root, &core_name(&rennes.id)).await;
    assert!(!chain.contains(&root), "a machine is sent the root");
}
