//! Tokens that nobody signed who may: every way in which a JWT says itself how it is to be checked.

use crate::claims;
use crate::world::Site;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::sync::Arc;
use xos_base::Kind;
use xos_base::when::SystemClock;
use xos_net::key::{KeyKind, LocalKey, PrivateKey};
use xos_net::sign::{self, compact};
use xos_net::{Trust, Verifier};

fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

/// A verifier of rennes, which trusts pisa too.
fn verifier(rennes: &Site, pisa: &Site) -> Verifier {
    let trust = Trust::new();
    trust.add(rennes.descriptor(vec![])).unwrap();
    trust.add(pisa.descriptor(vec![])).unwrap();
    Verifier::new(rennes.id.clone(), trust, Arc::new(SystemClock))
}

/// If it failed, who asks would choose how their token is checked, and so be anybody.
#[test]
fn a_token_does_not_say_how_it_is_checked() {
    let (rennes, pisa) = (Site::new("rennes"), Site::new("pisa"));
    let verifier = verifier(&rennes, &pisa);
    let said = serde_json::to_value(claims("rennes", "rennes", None)).unwrap();
    let good = rennes.signer.sign(sign::Kind::Token, &said).unwrap();
    // So that what follows fails for its own reason.
    verifier.token(&good, None).unwrap();
    let (body, payload) = (encode(&said), said.to_string());
    let signature = good.rsplit('.').next().unwrap();
    let mut forged = Vec::new();
    for algorithm in ["none", "None", "NONE", "nOnE", "", "EdDSA"] {
        let head = encode(&json!({ "typ": "JWT", "alg": algorithm }));
        forged.push((format!("alg {algorithm:?} without a signature"), format!("{head}.{body}.")));
        forged.push((format!("alg {algorithm:?} in two parts"), format!("{head}.{body}")));
    }
    // The key that everybody knows, as a secret in each of its forms.
    let public = rennes.signer.public();
    let raw = STANDARD.decode(&public).unwrap();
    for secret in [raw.as_slice(), public.as_bytes()] {
        let head = encode(&json!({ "typ": "JWT", "alg": "HS256" }));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let tag = hmac::sign(&key, format!("{head}.{body}").as_bytes());
        let tag = URL_SAFE_NO_PAD.encode(tag.as_ref());
        forged.push(("a known secret".into(), format!("{head}.{body}.{tag}")));
    }
    // A key of the thief's own, which the header offers.
    let thief = LocalKey::generate(KeyKind::Ed25519).unwrap();
    let thief = LocalKey::from_pkcs8(KeyKind::Ed25519, &thief).unwrap();
    let jwk =
        json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(thief.public()) });
    for head in [
        json!({ "typ": "JWT", "alg": "EdDSA" }),
        json!({ "typ": "JWT", "alg": "EdDSA", "jwk": jwk }),
        json!({ "typ": "JWT", "alg": "EdDSA", "jku": "https://thief.example/jwks" }),
        json!({ "typ": "JWT", "alg": "EdDSA", "kid": "../../dev/null" }),
        json!({ "typ": "JWT", "alg": "EdDSA", "x5u": "https://thief.example/cert" }),
    ] {
        let token = compact(&head.to_string(), payload.as_bytes(), &thief).unwrap();
        forged.push((format!("the thief's key under {head}"), token));
    }
    // A true signature under another header: it covers that too.
    let head = encode(&json!({ "typ": "JWT", "alg": "EdDSA", "more": 1 }));
    forged.push(("another header".into(), format!("{head}.{body}.{signature}")));
    for (what, token) in forged {
        let e = verifier.token(&token, None).expect_err(&what);
        assert_eq!(e.kind, Kind::Unauthenticated, "{what}: {e}");
    }
}

/// If it failed, a site could speak for people and sites that are not its own, or a person write
/// into their token.
#[test]
fn each_claim_is_signed_and_an_issuer_speaks_for_its_own() {
    let (rennes, pisa) = (Site::new("rennes"), Site::new("pisa"));
    let verifier = verifier(&rennes, &pisa);
    let mut said = serde_json::to_value(claims("rennes", "rennes", None)).unwrap();
    said["site_admin"] = json!(false);
    let good = rennes.signer.sign(sign::Kind::Token, &said).unwrap();
    assert!(!verifier.token(&good, None).unwrap().site_admin());
    let parts: Vec<&str> = good.split('.').collect();
    for (name, value) in [
        ("sub", json!("root@rennes")),
        ("iss", json!("pisa")),
        ("aud", json!("pisa")),
        ("exp", json!(u64::MAX)),
        ("site_admin", json!(true)),
        ("membership", json!("AAAA")),
    ] {
        let mut changed = said.clone();
        changed[name] = value;
        let token = format!("{}.{}.{}", parts[0], encode(&changed), parts[2]);
        let e = verifier.token(&token, None).expect_err(name);
        assert_eq!(e.kind, Kind::Unauthenticated, "{name}: {e}");
    }
    let sign = |site: &Site, changes: &[(&str, Value)]| {
        let mut claims = said.clone();
        for (name, value) in changes {
            claims[*name] = value.clone();
        }
        site.signer.sign(sign::Kind::Token, &claims).unwrap()
    };
    let lyon = Site::new("lyon");
    let power = ("site_admin", json!(true));
    for (what, token) in [
        ("a site that is not trusted", sign(&lyon, &[("iss", json!("lyon"))])),
        ("a stranger as rennes", sign(&lyon, &[])),
        ("pisa as rennes", sign(&pisa, &[])),
        ("pisa of a person of rennes", sign(&pisa, &[("iss", json!("pisa"))])),
        ("an issuer that is none", sign(&rennes, &[("iss", json!("Rennes"))])),
        ("several issuers", sign(&rennes, &[("iss", json!(["rennes", "pisa"]))])),
        ("several audiences", sign(&rennes, &[("aud", json!(["rennes", "pisa"]))])),
        ("a name that is none", sign(&rennes, &[("sub", json!("root@rennes\n"))])),
        ("a time that is none", sign(&rennes, &[("exp", json!(-1))])),
    ] {
        let e = verifier.token(&token, None).expect_err(what);
        assert_eq!(e.kind, Kind::Unauthenticated, "{what}: {e}");
    }
    // What pisa may say of its own people gives no power over rennes.
    let own = [("iss", json!("pisa")), ("sub", json!("root@pisa")), power];
    assert!(!verifier.token(&sign(&pisa, &own), None).unwrap().site_admin());
}
