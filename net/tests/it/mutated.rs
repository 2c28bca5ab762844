//! Every decoder here that reads bytes of strangers, given good ones made bad: none may panic, hang
//! or take much memory. A panic would let a stranger end a core or a node.

#[path = "../../../tools/mutate.rs"]
mod mutate;

use crate::world::{Site, membership};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mutate::{modest, survives};
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use xos_api::cda::Submission;
use xos_api::site::SiteDescriptor;
use xos_base::when::SystemClock;
use xos_base::{Millis, NodeId};
use xos_net::frames::{self, FRAME_MAX, Frame, OPENING_MAX, Opened, Opening};
use xos_net::router::Parts;
use xos_net::sign::{Kind, verify_with};
use xos_net::trust::{Usage, subject_of};
use xos_net::{Trust, Verifier, discover, identity, path, submission, ticket};

const ROUNDS: usize = 40_000;
/// For those that verify signatures, which takes long.
const FEWER: usize = 2_000;

fn now() -> Millis {
    Millis::of(std::time::SystemTime::now())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A compact JWS whose parts are changed one by one, then the text as a whole.
fn as_jws(sample: &str, input: &[u8]) -> Vec<String> {
    let parts: Vec<&str> = sample.split('.').collect();
    let part = URL_SAFE_NO_PAD.encode(input);
    vec![
        text(input),
        format!("{part}.{}.{}", parts[1], parts[2]),
        format!("{}.{part}.{}", parts[0], parts[2]),
        format!("{}.{}.{part}", parts[0], parts[1]),
    ]
}

/// The text of a JWS, and its decoded parts.
fn pieces(jws: &str) -> Vec<Vec<u8>> {
    let decoded = jws.split('.').map(|p| URL_SAFE_NO_PAD.decode(p).unwrap());
    std::iter::once(jws.as_bytes().to_vec()).chain(decoded).collect()
}

#[test]
fn frames() {
    let node: NodeId = "n1.rennes".parse().unwrap();
    let body = || serde_json::value::to_raw_value(&serde_json::json!({"a": [1, "x"]})).unwrap();
    let error = xos_base::Error::denied("no").hint("ask");
    let frame = |f: Frame| frames::encode(&f).unwrap();
    let (id, method, target) = (1, "POST".to_owned(), "/v1/x?a=1".to_owned());
    let samples = vec![
        frames::encode(&Opening::Control {}).unwrap(),
        frames::encode(&Opening::Accept { token: "0f".repeat(16) }).unwrap(),
        frames::encode(&Opening::Dial { node }).unwrap(),
        frames::encode(&Opened::Error(error.clone())).unwrap(),
        frame(Frame::Call { id, method, target, body: Some(body()) }),
        frame(Frame::Reply { id, body: body() }),
        frame(Frame::Failed { id, error }),
        frame(Frame::Alive {}),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    survives(&samples, ROUNDS, modest, |input| {
        runtime.block_on(async {
            let mut stream = input;
            while let Ok(Some(_)) = frames::read::<Frame>(&mut stream, FRAME_MAX).await {}
            // Whether it is one does not matter, only that it is answered.
            frames::read::<Opening>(&mut { input }, OPENING_MAX).await.ok();
            frames::read::<Opened>(&mut { input }, OPENING_MAX).await.ok();
        });
    });
}

#[test]
fn paths_queries_and_bodies() {
    let template = path::Template::parse("/v1/vos/{vo}/members/{person}");
    let samples: Vec<Vec<u8>> = [
        "/v1/vos/demo.rennes/members/alice%40rennes",
        "a=1&b=%20x&after=7",
        r#"{"text":"a","n":1,"list":[{"a":null},[1.5e3]],"s":"\u00e9"}"#,
        "core.example.org:7443",
        "[2001:db8::1]:7443",
    ]
    .iter()
    .map(|s| s.as_bytes().to_vec())
    .collect();
    survives(&samples, ROUNDS, modest, |input| {
        let input_text = text(input);
        let fields = template.matches(&input_text).unwrap_or_default();
        let whole = || bytes::Bytes::copy_from_slice(input);
        for path in [fields, vec![("vo", input_text.clone())]] {
            let parts = Parts { path, query: String::new(), body: whole() };
            path::read::<serde_json::Value>(xos_api::Method::Post, &parts).ok();
        }
        let parts = Parts { query: input_text.clone(), ..Parts::default() };
        path::read::<std::collections::BTreeMap<String, String>>(xos_api::Method::Get, &parts).ok();
        discover::with_port(&input_text).ok();
        assert!(!path::shown(&input_text).contains(char::is_control));
    });
}

#[test]
fn certificates() {
    let rennes = Site::new("rennes");
    let trust = Trust::new();
    trust.add(rennes.descriptor(vec![])).unwrap();
    let member = rennes.issue(&[], Some(&membership("demo.rennes", 2)));
    let samples: Vec<Vec<u8>> = [&member, &rennes.node("n1"), &rennes.core()]
        .iter()
        .map(|id| id.chain()[0].to_vec())
        .collect();
    let verifier = Verifier::new(rennes.id.clone(), trust.clone(), Arc::new(SystemClock));
    survives(&samples, ROUNDS / 4, modest, |input| {
        let cert = CertificateDer::from(input.to_vec());
        subject_of(&cert).ok();
        identity::validity(&cert).ok();
        identity::key_fingerprint(&cert).ok();
        let chain = [cert.clone(), cert];
        let good = trust.verify_chain(&chain[..1], Usage::Client, now()).is_ok();
        assert!(!good || samples.iter().any(|s| s == input), "a changed certificate holds");
        trust.verify_chain(&chain, Usage::Server, now()).ok();
        verifier.certificate(&chain[..1], None).ok();
    });
}

#[test]
fn descriptors() {
    let rennes = Site::new("rennes");
    let mut good = rennes.descriptor(vec!["core.example.org:7443".into()]);
    good.withdrawn = Some(rennes.withdraw(&[&"a1".repeat(32)], Millis(2)));
    let json = serde_json::to_vec(&good).unwrap();
    let mut samples = vec![json];
    samples.extend(pieces(&good.keys));
    samples.extend(pieces(good.withdrawn.as_deref().unwrap()));
    let root = base64::engine::general_purpose::STANDARD.decode(&good.root).unwrap();
    samples.push(root);
    survives(
        &samples,
        FEWER,
        |n| modest(n) + (1 << 20),
        |input| {
            let trust = Trust::new();
            if let Ok(descriptor) = serde_json::from_slice::<SiteDescriptor>(input) {
                trust.add(descriptor).ok();
            }
            for keys in as_jws(&good.keys, input) {
                trust.add(SiteDescriptor { keys, ..good.clone() }).ok();
            }
            for jws in as_jws(good.withdrawn.as_deref().unwrap(), input) {
                trust.add(SiteDescriptor { withdrawn: Some(jws), ..good.clone() }).ok();
            }
            let root = base64::engine::general_purpose::STANDARD.encode(input);
            trust.add(SiteDescriptor { root, ..good.clone() }).ok();
        },
    );
}

#[test]
fn statements() {
    let rennes = Site::new("rennes");
    let trust = Trust::new();
    trust.add(rennes.descriptor(vec![])).unwrap();
    let verifier = Verifier::new(rennes.id.clone(), trust.clone(), Arc::new(SystemClock));
    let m = membership("demo.rennes", 2);
    let der = base64::engine::general_purpose::STANDARD.encode(m.to_der().unwrap());
    let until = now().plus(std::time::Duration::from_secs(60));
    let claims = serde_json::json!({
        "membership": der, "node": "n1.rennes", "key": "a1".repeat(32), "job": "1.rennes",
        "issued": now(), "expires": until,
    });
    let mandate = serde_json::json!({
        "work": {"job": {"job": "1.rennes", "owner": "rennes", "digest": "a1".repeat(32)}},
        "membership": m, "issued": now(), "until": until,
    });
    let token = serde_json::json!({
        "iss": "rennes", "sub": "alice@rennes", "aud": "rennes", "iat": now().secs(),
        "exp": now().secs() + 60, "jti": "1", "membership": der, "auth_time": 1,
    });
    let ticket_jws = rennes.signer.sign(Kind::Ticket, &claims).unwrap();
    let mandate_jws = rennes.signer.sign(Kind::Mandate, &mandate).unwrap();
    let token_jws = rennes.signer.sign(Kind::Token, &token).unwrap();
    ticket::verify_ticket(&trust, &ticket_jws, now()).unwrap();
    ticket::verify_mandate(&trust, &mandate_jws, now()).unwrap();
    let mut samples = Vec::new();
    for jws in [&ticket_jws, &mandate_jws, &token_jws] {
        samples.extend(pieces(jws));
    }
    survives(
        &samples,
        FEWER,
        |n| modest(n) + (1 << 20),
        |input| {
            for jws in as_jws(&ticket_jws, input) {
                ticket::verify_ticket(&trust, &jws, now()).ok();
                verify_with::<serde_json::Value>(Kind::VoLog, &jws, &[7; 32]).ok();
            }
            for jws in as_jws(&mandate_jws, input) {
                ticket::verify_mandate(&trust, &jws, now()).ok();
            }
            for jws in as_jws(&token_jws, input) {
                verifier.token(&jws, None).ok();
            }
            // What a hostile home signs is well signed, whatever stands in it.
            if let Ok(body) = serde_json::from_slice::<serde_json::Value>(input) {
                for kind in [Kind::Ticket, Kind::Mandate, Kind::Token] {
                    let jws = rennes.signer.sign(kind, &body).unwrap();
                    ticket::verify_ticket(&trust, &jws, now()).ok();
                    ticket::verify_mandate(&trust, &jws, now()).ok();
                    verifier.token(&jws, None).ok();
                }
            }
        },
    );
}

#[test]
fn submissions() {
    let rennes = Site::new("rennes");
    let trust = Trust::new();
    trust.add(rennes.descriptor(vec![])).unwrap();
    let (alice, key) = rennes.issue_with_key(&[], Some(&membership("demo.rennes", 2)));
    let said = Submission {
        vo: "demo.rennes".parse().unwrap(),
        owner: "rennes".parse().unwrap(),
        digest: "a1".repeat(32),
        nonce: "0f".repeat(16),
        issued: now(),
    };
    let good = submission::sign(&said, alice.chain(), &key).unwrap();
    submission::verify(&trust, &good, now()).unwrap();
    let mut samples = pieces(&good);
    samples.push(alice.chain()[0].to_vec());
    survives(
        &samples,
        FEWER,
        |n| modest(n) + (1 << 20),
        |input| {
            for jws in as_jws(&good, input) {
                submission::verify(&trust, &jws, now()).ok();
            }
            let cert = base64::engine::general_purpose::STANDARD.encode(input);
            let header =
                format!(r#"{{"alg":"ES256","typ":"xos-submission+jws","x5c":["{cert}"]}}"#);
            let rest = good.split_once('.').unwrap().1;
            let jws = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
            submission::verify(&trust, &jws, now()).ok();
        },
    );
}
