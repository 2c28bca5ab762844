//! The port with real TLS: who is let in as whom, requests, streams, control and dial-back.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod flood;
mod foreign;
mod mutated;
mod people;
mod resumed;
mod tokens;
mod trust;
mod world;

use futures_util::{StreamExt, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::{Core, Site, membership};
use xos_api::node::{Capacity, DialBack, Hello};
use xos_api::{Done, request, subscribe};
use xos_base::when::SystemClock;
use xos_base::{Error, Kind, Millis};
use xos_net::caller::TokenClaims;
use xos_net::dial::{Dialer, NodeLink};
use xos_net::sign;
use xos_net::tls::ALPN_SSH;
use xos_net::trust::{core_name, node_name};
use xos_net::{Client, Identity, IdentityCell, Proof, Router, Trust, Verifier};

/// Who am I, with a text that comes back.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Who {
    text: String,
}
request!(Who => String, Post "/v1/who");

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CountTo {
    to: u32,
}
subscribe!(CountTo => u32, Get "/v1/count");

fn router() -> Router {
    let mut router = Router::new();
    router.on::<Who, _, _>(|caller, who| async move {
        Ok(format!("{} {}", caller.describe(), who.text))
    });
    router.stream::<CountTo, _, _, _>(|_, c| async move {
        let items = (0..c.to).map(Ok).chain([Err(Error::conflict("the end"))]);
        Ok(stream::iter(items.collect::<Vec<Result<u32, Error>>>()))
    });
    router
}

fn client(core: &Core, id: Identity) -> Client {
    Client::with_identity(core.descriptor.site.clone(), &core.trust, id).unwrap()
}

async fn who(core: &Core, id: Identity) -> Result<String, Error> {
    client(core, id).call(Who { text: "hi".into() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_and_machines_are_known_by_their_certificates() {
    let rennes = Site::new("rennes");
    let core = Core::start(&rennes, &[], router()).await;
    let alice = rennes.issue(&[], Some(&membership("demo.rennes", 2)));
    assert_eq!(who(&core, alice).await.unwrap(), "alice@rennes of demo.rennes hi");
    assert_eq!(who(&core, rennes.node("n1")).await.unwrap(), "node n1.rennes hi");
    assert_eq!(who(&core, rennes.core()).await.unwrap(), "the core of rennes hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_again() {
    let rennes = Site::new("rennes");
    let core = Core::start(&rennes, &[], router()).await;
    let client = client(&core, rennes.core());
    for i in 0..50 {
        let text = format!("{i}");
        let got = client.call(Who { text: text.clone() }).await.unwrap();
        assert!(got.ends_with(&text));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_vouches_only_for_its_own() {
    let (rennes, pisa) = (Site::new("rennes"), Site::new("pisa"));
    let pisa_descriptor = pisa.descriptor(vec![]);
    let core = Core::start(&rennes, &[&pisa_descriptor], router()).await;
    let of_rennes = membership("demo.rennes", 2);
    let node = [node_name(&"n1.rennes".parse().unwrap())];
    let both = [core_name(&pisa.id), core_name(&rennes.id)];
    // Every one of these is signed by pisa, which rennes trusts, but not for these.
    for (id, kind, word) in [
        (pisa.issue(&[], Some(&of_rennes)), Kind::Unauthenticated, "rennes did not sign it"),
        (pisa.issue(&[core_name(&rennes.id)], None), Kind::Unavailable, "rennes did not sign it"),
        (pisa.issue(&node, None), Kind::Unavailable, "rennes did not sign it"),
        (pisa.issue(&both, None), Kind::Unauthenticated, "does not hold there"),
        (
            pisa.issue(&[core_name(&pisa.id)], Some(&membership("demo.pisa", 2))),
            Kind::Unauthenticated,
            "does not hold there",
        ),
        (
            pisa.issue(&["www.example.org".into()], None),
            Kind::Unauthenticated,
            "does not hold there",
        ),
    ] {
        let e = who(&core, id).await.unwrap_err();
        assert_eq!(e.kind, kind, "{e}");
        assert!(e.message.contains("site rennes refused") && e.message.contains(word), "{e}");
        assert!(e.hint.is_some(), "nobody is told what to do: {e}");
    }
    let own = pisa.issue(&[], Some(&membership("demo.pisa", 2)));
    assert_eq!(who(&core, own).await.unwrap(), "alice@rennes of demo.pisa hi");
}

/// If it failed, who must sign in, or ask an administrator, would be told to try again later; a
/// large body would hide the answer.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_by_tls_is_told_why_and_what_to_do() {
    let (rennes, pisa) = (Site::new("rennes"), Site::new("pisa"));
    let core = Core::start(&rennes, &[&pisa.descriptor(vec![])], router()).await;
    let alice = membership("demo.rennes", 2);
    let of_pisa = pisa.issue(&[], Some(&membership("demo.pisa", 2)));
    who(&core, of_pisa.clone()).await.unwrap();
    core.trust.remove(&pisa.id);
    let until = "from 1990-01-01T00:00:00Z to 2000-01-01T00:00:00Z";
    for (id, words) in [
        (rennes.between(&alice, 1990, 2000), ["it has expired", until, "xos login", "clock"]),
        (rennes.between(&alice, 4000, 4001), ["not valid yet", "4000", "xos login", "clock"]),
        (of_pisa, ["refused your certificate", "pisa", "is not trusted there", "administrator"]),
    ] {
        // What comes first, a broken pipe or the alert, is chance.
        for size in [0, 0, 0, 0, 0, 100_000, 10 << 20] {
            let ask = Who { text: "x".repeat(size) };
            let e = client(&core, id.clone()).call(ask).await.unwrap_err();
            assert_eq!(e.kind, Kind::Unauthenticated, "{size} bytes: {e}");
            for word in words {
                assert!(e.to_string().contains(word), "{word:?} is not said: {e}");
            }
            let ask = CountTo { to: 1 };
            let e = client(&core, id.clone()).subscribe(ask).await.err().unwrap();
            assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_epoch_is_told_to_sign_in_again() {
    let rennes = Site::new("rennes");
    let core = Core::start(&rennes, &[], router()).await;
    let old = rennes.issue(&[], Some(&membership("demo.rennes", 1)));
    let e = who(&core, old).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated);
    assert!(e.message.contains("sign in again"), "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_nothing() {
    let rennes = Site::new("rennes");
    let core = Core::start(&rennes, &[], router()).await;
    let client = Client::new(rennes.id.clone(), &core.trust, &Proof::None).unwrap();
    let e = client.call(Who { text: String::new() }).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_refuses_a_core_that_is_another() {
    let (rennes, pisa) = (Site::new("rennes"), Site::new("pisa"));
    let core = Core::start(&rennes, &[], router()).await;
    let trust = Trust::new();
    // pisa's root with rennes' address: whoever answers there is not pisa.
    trust.add(pisa.descriptor(core.descriptor.addresses.clone())).unwrap();
    let client = Client::new(pisa.id.clone(), &trust, &Proof::None).unwrap();
    let e = client.call(Who { text: String::new() }).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unavailable);
}

fn claims(iss: &str, aud: &str, vo: Option<&str>) -> TokenClaims {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    use base64::Engine;
    TokenClaims {
        iss: iss.parse().unwrap(),
        sub: "alice@rennes".parse().unwrap(),
        aud: aud.parse().unwrap(),
        iat: now,
        exp: now + 600,
        jti: "1".into(),
        membership: vo.map(|vo| {
            let der = membership(vo, 2).to_der().unwrap();
            base64::engine::general_purpose::STANDARD.encode(der)
        }),
        ..claims_rest()
    }
}

fn claims_rest() -> TokenClaims {
    serde_json::from_value(serde_json::json!({
        "iss": "a", "sub": "a@a", "aud": "a", "iat": 0, "exp": 0, "jti": "",
        "site_admin": true, "auth_time": 0,
    }))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_hold_for_their_audience_and_their_issuers_people() {
    let (rennes, pisa) = (Site::new("rennes"), Site::new("pisa"));
    let core = Core::start(&rennes, &[&pisa.descriptor(vec![])], router()).await;
    let call = |token: String| {
        let proof = Proof::Token(token.into());
        let client = Client::new(rennes.id.clone(), &core.trust, &proof).unwrap();
        async move { client.call(Who { text: "hi".into() }).await }
    };
    let sign = |site: &Site, c: &TokenClaims| site.signer.sign(sign::Kind::Token, c).unwrap();
    let good = sign(&rennes, &claims("rennes", "rennes", None));
    assert_eq!(call(good.clone()).await.unwrap(), "alice@rennes hi");
    let member = sign(&rennes, &claims("rennes", "rennes", Some("demo.rennes")));
    assert_eq!(call(member).await.unwrap(), "alice@rennes of demo.rennes hi");
    // A stream that only a token gave right to must end with it.
    let verifier = Verifier::new(rennes.id.clone(), core.trust.clone(), Arc::new(SystemClock));
    let mut c = claims("rennes", "rennes", None);
    let ends = |c: &TokenClaims| verifier.token(&sign(&rennes, c), None).unwrap().expires();
    assert_eq!(ends(&c), Some(Millis::from_secs(c.exp)));
    c.exp = c.iat + 7200;
    assert_eq!(ends(&c), Some(Millis::from_secs(c.iat + 1200)), "whatever it says itself");
    let mut old = claims("rennes", "rennes", None);
    old.exp = old.iat - 1;
    let mut long = claims("rennes", "rennes", None);
    long.iat -= 3600;
    long.exp += 3600;
    let mut future = claims("rennes", "rennes", None);
    future.iat += 3600;
    future.exp += 7200;
    for (what, token) in [
        ("another audience", sign(&rennes, &claims("rennes", "pisa", None))),
        ("expired", sign(&rennes, &old)),
        ("lives too long", sign(&rennes, &long)),
        ("not yet", sign(&rennes, &future)),
        ("pisa for a person of rennes", sign(&pisa, &claims("pisa", "rennes", None))),
        ("pisa for a VO of rennes", sign(&pisa, &claims("pisa", "rennes", Some("demo.rennes")))),
        ("signed by pisa as rennes", sign(&pisa, &claims("rennes", "rennes", None))),
        (
            "another kind",
            rennes.signer.sign(sign::Kind::Ticket, &claims("rennes", "rennes", None)).unwrap(),
        ),
        ("cut", good[..good.len() - 2].to_owned()),
        ("empty", String::new()),
    ] {
        let e = call(token).await.unwrap_err();
        assert_eq!(e.kind, Kind::Unauthenticated, "{what}: {e}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_give_their_items_and_then_the_error() {
    let rennes = Site::new("rennes");
    let core = Core::start(&rennes, &[], router()).await;
    let items = client(&core, rennes.core()).subscribe(CountTo { to: 3 }).await.unwrap();
    let items: Vec<_> = items.collect().await;
    assert_eq!(items.len(), 4);
    assert_eq!(items[2].as_ref().unwrap(), &2);
    assert_eq!(items[3].as_ref().unwrap_err().kind, Kind::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grid_serves_the_own_site_in_process_and_others_by_tls() {
    let (rennes, pisa) = (Site::new("rennes"), Site::new("pisa"));
    let there = Core::start(&pisa, &[&rennes.descriptor(vec![])], router()).await;
    let here = Core::start(&rennes, &[&there.descriptor], router()).await;
    let who = || Who { text: "hi".into() };
    assert_eq!(here.grid.call(&rennes.id, who()).await.unwrap(), "the core of rennes hi");
    assert_eq!(here.grid.call(&pisa.id, who()).await.unwrap(), "the core of rennes hi");
    let unknown = "nowhere".parse().unwrap();
    assert_eq!(here.grid.call(&unknown, who()).await.unwrap_err().kind, Kind::NotFound);
}

/// A node of rennes with an echo service, connected to `core`.
async fn node(rennes: &Site, core: &Core) -> Arc<xos_net::control::Control> {
    node_as(rennes.node("n1"), core).await
}

async fn node_as(identity: Identity, core: &Core) -> Arc<xos_net::control::Control> {
    let identity = IdentityCell::new(identity);
    let handlers = [b"echo/1".as_slice(), ALPN_SSH].map(|alpn| (alpn.to_vec(), world::echo()));
    let handlers = HashMap::from(handlers);
    let dialer = Dialer::new(core.trust.clone(), identity);
    let link = NodeLink::new("n1.rennes".parse().unwrap(), dialer, handlers, Arc::new(SystemClock))
        .unwrap();
    let mut router = Router::new();
    let back = link.clone();
    router.on::<DialBack, _, _>(move |caller, d| {
        let back = back.clone();
        async move {
            caller.core()?;
            tokio::spawn(async move { back.accept(d.token).await });
            Ok(Done {})
        }
    });
    router.on::<Who, _, _>(|caller, who| async move {
        Ok(format!("{} {}", caller.describe(), who.text))
    });
    let control = link.connect(Arc::new(router)).await.unwrap();
    let capacity = Capacity { cpu_milli: 1000, memory_bytes: 1, arch: "x86_64".into() };
    let hello = Hello {
        node: "n1.rennes".parse().unwrap(),
        version: "0".into(),
        capacity,
        key: String::new(),
    };
    control.call(hello).await.unwrap();
    control
}

#[tokio::test(flavor = "multi_thread")]
async fn core_and_node_call_one_another_on_the_nodes_stream() {
    let rennes = Site::new("rennes");
    let core = Core::start(&rennes, &[], router()).await;
    let mut changes = core.nodes.changes();
    let control = node(&rennes, &core).await;
    assert!(changes.recv().await.unwrap().connected);
    let n1 = "n1.rennes".parse().unwrap();
    let got = core.nodes.call(&n1, Who { text: "down".into() }).await.unwrap();
    assert_eq!(got, "the core of rennes down");
    assert_eq!(control.call(Who { text: "up".into() }).await.unwrap(), "node n1.rennes up");
    control.close();
    assert!(!changes.recv().await.unwrap().connected);
    let e = core.nodes.call(&n1, Who { text: String::new() }).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_inbound_ports_is_reached_end_to_end() {
    let (rennes, pisa) = (Site::new("rennes"), Site::new("pisa"));
    let core = Core::start(&rennes, &[&pisa.descriptor(vec![])], router()).await;
    let _control = node(&rennes, &core).await;
    let trust = Trust::new();
    trust.add(core.descriptor.clone()).unwrap();
    let dialer = Dialer::new(trust.clone(), IdentityCell::new(pisa.node("n2")));
    let mut stream = dialer.node(&"n1.rennes".parse().unwrap(), b"echo/1").await.unwrap();
    stream.write_all(b"over two cores").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = String::new();
    stream.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "node n2.pisa:over two cores");
    let absent = dialer.node(&"n9.rennes".parse().unwrap(), b"echo/1").await.err().unwrap();
    assert_eq!(absent.kind, Kind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_node_gets_no_control_stream() {
    let (rennes, pisa) = (Site::new("rennes"), Site::new("pisa"));
    let core = Core::start(&rennes, &[&pisa.descriptor(vec![])], router()).await;
    let dialer = Dialer::new(core.trust.clone(), IdentityCell::new(pisa.node("n1")));
    let clock = Arc::new(SystemClock);
    // A link that says it is n1.rennes, with the certificate of n1.pisa.
    let link = NodeLink::new("n1.rennes".parse().unwrap(), dialer, HashMap::new(), clock).unwrap();
    let e = link.connect(Arc::new(Router::new())).await.err().unwrap();
    assert_eq!(e.kind, Kind::Denied, "{e}");
    assert!(core.nodes.connected().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_key_is_refused_is_cut_off_and_stays_out() {
    let rennes = Site::new("rennes");
    let core = Core::start(&rennes, &[], router()).await;
    let identity = rennes.node("n1");
    let key = xos_net::identity::key_fingerprint(&identity.chain()[0]).unwrap();
    let clock = Arc::new(SystemClock);
    let n1: xos_base::NodeId = "n1.rennes".parse().unwrap();
    let dialer = Dialer::new(core.descriptor_trust(), IdentityCell::new(identity));
    let link = NodeLink::new(n1.clone(), dialer, HashMap::new(), clock).unwrap();
    let mut changes = core.nodes.changes();
    let _control = link.connect(Arc::new(Router::new())).await.unwrap();
    assert!(changes.recv().await.unwrap().connected);
    core.trust.ban_key(&rennes.id, &key);
    assert!(!changes.recv().await.unwrap().connected);
    assert!(link.connect(Arc::new(Router::new())).await.is_err());
    assert!(core.nodes.connected().is_empty());
}
