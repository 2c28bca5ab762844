//! Certificates of members: what stands in them, who gets one, how far it reaches.

use crate::world::{World, certificate_request, chain, keyed, keyed_with, member};
use rcgen::{BasicConstraints, IsCa, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use std::process::Command;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};
use xos_api::cda::{IssueCertificate, IssueToken, RenewToken};
use xos_base::{Epoch, Kind};
use xos_net::trust::{Subject, Usage};

const HOUR: Duration = Duration::from_secs(3600);
const VO: &str = "demo.rennes";

#[tokio::test]
async fn a_member_gets_a_certificate_that_says_who_they_are() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    w.vos.set(member(VO, "alice@rennes"));
    for alg in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
        // The subject in the request is somebody else's name, and must not count.
        let k = keyed_with(alg, |p| {
            p.distinguished_name.push(rcgen::DnType::CommonName, "bob@rennes");
        });
        let got = w.call(&alice, certificate_request(VO, &k.csr_pem)).await.unwrap();
        let ders = chain(&got.chain_pem);
        let (_, leaf) = X509Certificate::from_der(&ders[0]).unwrap();
        assert_eq!(leaf.subject().to_string(), "O=demo.rennes, CN=alice@rennes");
        assert!(
            !leaf
                .extensions()
                .iter()
                .any(|e| e.critical && e.oid.to_id_string().starts_with("1.34."))
        );
        let texts: Vec<String> = (1..=8)
            .map(|n| {
                let oid = format!("1.34.5.0.14.{n}");
                let ext = leaf.extensions().iter().find(|e| e.oid.to_id_string() == oid).unwrap();
                assert_eq!(ext.value[0], 4, "an OCTET STRING, which original readers take");
                String::from_utf8(ext.value[2..].to_vec()).unwrap()
            })
            .collect();
        let want = [
            "demo.rennes",
            "",
            "alice@rennes",
            "members",
            "physics",
            "admin",
            "members,physics",
            "",
        ];
        assert_eq!(texts, want);
        let subject = w.trust.verify_chain(&ders, Usage::Client, got_now(&w)).unwrap();
        assert_eq!(subject, Subject::Member(member(VO, "alice@rennes")));
        w.trust.verify_chain(&ders, Usage::Server, got_now(&w)).unwrap_err();
        let life = got.expires.since(got_now(&w));
        assert!(life <= 12 * HOUR && life > 11 * HOUR);
    }
}

fn got_now(w: &World) -> xos_base::Millis {
    use xos_base::when::Clock;
    w.clock.now()
}

#[tokio::test]
async fn requests_for_more_than_a_key_are_refused() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    w.vos.set(member(VO, "alice@rennes"));
    let ca = keyed_with(&PKCS_ECDSA_P256_SHA256, |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let e = w.call(&alice, certificate_request(VO, &ca.csr_pem)).await.unwrap_err();
    assert!(e.kind == Kind::Invalid && e.message.contains("authority"), "{e}");
    let e = w.call(&alice, certificate_request(VO, "nonsense")).await.unwrap_err();
    assert_eq!(e.kind, Kind::Invalid);
}

#[tokio::test]
async fn who_is_no_member_or_asks_elsewhere_gets_none() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    let k = keyed();
    let e = w.call(&alice, certificate_request(VO, &k.csr_pem)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "{e}");
    w.vos.set(member("demo.pisa", "alice@rennes"));
    let e = w.call(&alice, certificate_request("demo.pisa", &k.csr_pem)).await.unwrap_err();
    assert!(e.message.contains("home at site pisa"), "{e}");
}

#[tokio::test]
async fn a_certificate_ends_with_the_membership() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    let mut m = member(VO, "alice@rennes");
    let end = got_now(&w).plus(HOUR);
    m.expires = Some(end);
    w.vos.set(m);
    let k = keyed();
    let got = w.call(&alice, certificate_request(VO, &k.csr_pem)).await.unwrap();
    assert_eq!(got.expires.secs(), end.secs());
    w.clock.advance(HOUR);
    let e = w.call(&alice, certificate_request(VO, &k.csr_pem)).await.unwrap_err();
    assert!(e.message.contains("expired"), "{e}");
}

#[tokio::test]
async fn a_certificate_renews_itself_for_a_week_and_in_its_vo_only() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    w.vos.set(member(VO, "alice@rennes"));
    w.vos.set(member("other.rennes", "alice@rennes"));
    let k = keyed();
    let mut got = w.call(&alice, certificate_request(VO, &k.csr_pem)).await.unwrap();
    let end = got.renewable_until.unwrap();
    let caller = w.by_certificate(&got.chain_pem).unwrap();
    let other = certificate_request("other.rennes", &k.csr_pem);
    let e = w.call(&caller, other).await.unwrap_err();
    assert!(e.message.contains("another VO"), "{e}");
    while got_now(&w).plus(8 * HOUR) < end {
        w.clock.advance(8 * HOUR);
        let caller = w.by_certificate(&got.chain_pem).unwrap();
        got = w.call(&caller, certificate_request(VO, &keyed().csr_pem)).await.unwrap();
        assert_eq!(got.renewable_until, Some(end), "a renewal must not lengthen the chain");
        assert!(got.expires <= end);
    }
    let caller = w.by_certificate(&got.chain_pem).unwrap();
    w.clock.advance(8 * HOUR);
    let e = w.call(&caller, certificate_request(VO, &k.csr_pem)).await.unwrap_err();
    assert!(e.message.contains("too long ago"), "{e}");
}

/// If it failed, who has a certificate of one VO would be the whole person: in all their VOs, and
/// as administrator of the site.
#[tokio::test]
async fn a_certificate_of_a_vo_gives_no_token_of_its_person() {
    let w = World::new("rennes").await;
    let root = w.root().await;
    w.vos.set(member(VO, "root@rennes"));
    let got = w.call(&root, certificate_request(VO, &keyed().csr_pem)).await.unwrap();
    let caller = w.by_certificate(&got.chain_pem).unwrap();
    assert!(caller.signed_in().is_some() && !caller.site_admin());
    for audience in [None, Some("rennes".parse().unwrap())] {
        let e = w.call(&caller, RenewToken { audience }).await.unwrap_err();
        assert!(e.kind == Kind::Denied && e.message.contains("no token"), "{e}");
    }
    let vo = VO.parse().unwrap();
    let token = IssueToken { vo, audience: None, groups: None, roles: None };
    let token = w.call(&caller, token).await.unwrap();
    let member = w.by_token(&token.token);
    assert!(!member.site_admin() && member.signed_in().is_none());
    assert_eq!(member.member().unwrap().vo.as_str(), VO);
}

#[tokio::test]
async fn a_narrowed_certificate_is_not_widened() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    w.vos.set(member(VO, "alice@rennes"));
    let narrow = IssueCertificate {
        groups: Some(vec![]),
        roles: Some(vec![]),
        ..certificate_request(VO, &keyed().csr_pem)
    };
    let got = w.call(&alice, narrow).await.unwrap();
    assert_eq!(got.renewable_until, None);
    let caller = w.by_certificate(&got.chain_pem).unwrap();
    assert_eq!(caller.member().unwrap().groups.len(), 1);
    let vo = VO.parse().unwrap();
    let token = IssueToken { vo, audience: None, groups: None, roles: None };
    for e in [
        w.call(&caller, certificate_request(VO, &keyed().csr_pem)).await.unwrap_err(),
        w.call(&caller, token).await.unwrap_err(),
        w.call(&caller, RenewToken::default()).await.unwrap_err(),
    ] {
        assert!(e.message.contains("nothing further"), "{e}");
    }
}

#[tokio::test]
async fn a_person_of_another_site_comes_with_its_token_and_a_hostile_site_gains_nothing() {
    let (rennes, pisa) = (World::new("rennes").await, World::new("pisa").await);
    rennes.trusts(&pisa);
    pisa.trusts(&rennes);
    let bob = pisa.person("bob").await;
    rennes.vos.set(member(VO, "bob@pisa"));
    let r = RenewToken { audience: Some("rennes".parse().unwrap()) };
    let token = pisa.call(&bob, r).await.unwrap().token;
    let bob_here = rennes.by_token(&token.token);
    let got = rennes.call(&bob_here, certificate_request(VO, &keyed().csr_pem)).await.unwrap();
    let bob_certified = rennes.by_certificate(&got.chain_pem).unwrap();
    assert_eq!(bob_certified.member().unwrap().person.as_str(), "bob@pisa");

    // Pisa makes a certificate of alice@rennes in a VO of its own, without alice.
    rennes.vos.set(member("trap.pisa", "alice@rennes"));
    pisa.vos.set(member("trap.pisa", "alice@rennes"));
    rennes.person("alice").await;
    let forged = forges(&pisa, "people", "trap.pisa", "alice@rennes");
    let fake = rennes.by_certificate(&forged).unwrap();
    let e = rennes.call(&fake, RenewToken::default()).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "pisa got a token of alice: {e}");
    rennes.vos.set(member(VO, "alice@rennes"));
    let e = rennes.call(&fake, certificate_request(VO, &keyed().csr_pem)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "pisa got a certificate of alice: {e}");

    // And a certificate for a VO of rennes, signed by pisa, is none.
    let outside = forges(&pisa, "people", VO, "alice@rennes");
    let e = rennes.by_certificate(&outside).unwrap_err();
    assert!(e.message.contains("which alone may sign it"), "{e}");
}

/// If it failed, who has the key for machines could be any member too.
#[tokio::test]
async fn the_machines_authority_makes_no_members() {
    let w = World::new("rennes").await;
    w.vos.set(member(VO, "alice@rennes"));
    w.by_certificate(&forges(&w, "people", VO, "alice@rennes")).expect("the test forges wrongly");
    let e = w.by_certificate(&forges(&w, "machines", VO, "alice@rennes")).unwrap_err();
    assert!(e.message.contains("one for machines"), "{e}");
}

/// What a site can make with its own keys, whatever the service would allow.
fn forges(site: &World, authority: &str, vo: &str, person: &str) -> String {
    use xos_base::membership::EXTENSION_OID;
    let file = site.dir.path().join(format!("ca/{authority}.pem"));
    let text = std::fs::read_to_string(file).unwrap();
    let key = rcgen::KeyPair::from_pem(&text).unwrap();
    let authority = chain(&text).remove(0);
    let issuer = rcgen::Issuer::from_ca_cert_der(&authority, key).unwrap();
    let mut p = rcgen::CertificateParams::default();
    p.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let der = member(vo, person).to_der().unwrap();
    p.custom_extensions =
        vec![rcgen::CustomExtension::from_oid_content(EXTENSION_OID, der), signed_in_now()];
    let leaf = p.signed_by(&keyed().key, &issuer).unwrap();
    let second = text.find("-----BEGIN CERT").unwrap();
    format!("{}{}", leaf.pem(), &text[second..])
}

fn signed_in_now() -> rcgen::CustomExtension {
    let secs = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let content = der::Encode::to_der(&secs).unwrap();
    rcgen::CustomExtension::from_oid_content(xos_net::caller::SIGNED_IN_OID, content)
}

#[tokio::test]
async fn an_old_epoch_is_no_proof() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    w.vos.set(member(VO, "alice@rennes"));
    let got = w.call(&alice, certificate_request(VO, &keyed().csr_pem)).await.unwrap();
    let mut m = member(VO, "alice@rennes");
    m.epoch = Epoch(4);
    w.vos.set(m);
    assert_eq!(w.by_certificate(&got.chain_pem).unwrap_err().kind, Kind::Unauthenticated);
}

#[tokio::test]
async fn a_tampered_chain_is_refused() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    w.vos.set(member(VO, "alice@rennes"));
    let got = w.call(&alice, certificate_request(VO, &keyed().csr_pem)).await.unwrap();
    let good = chain(&got.chain_pem);
    for at in (0..good[0].len()).step_by(7) {
        let mut bytes = good[0].to_vec();
        bytes[at] ^= 1;
        let bad = [bytes.into(), good[1].clone()];
        assert!(w.verifier.certificate(&bad, None).is_err(), "changed at {at} and still accepted");
    }
    assert!(w.verifier.certificate(&good[..1], None).is_err(), "without its authority");
}

#[tokio::test]
async fn openssl_reads_and_verifies_what_is_issued() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: openssl is not installed");
        return;
    }
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    w.vos.set(member(VO, "alice@rennes"));
    let got = w.call(&alice, certificate_request(VO, &keyed().csr_pem)).await.unwrap();
    let at = |name: &str| w.dir.path().join(name);
    std::fs::write(at("alice.crt"), &got.chain_pem).unwrap();
    for name in ["root", "people"] {
        let both = std::fs::read_to_string(at(&format!("ca/{name}.pem"))).unwrap();
        let certificate = &both[both.find("-----BEGIN CERT").unwrap()..];
        std::fs::write(at(&format!("{name}.crt")), certificate).unwrap();
    }
    let run = |args: &[&str]| {
        let out = Command::new("openssl").args(args).current_dir(w.dir.path()).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        text
    };
    let verify = ["verify", "-x509_strict", "-CAfile", "root.crt"];
    run(&[&verify[..], &["-purpose", "sslclient", "-untrusted", "people.crt", "alice.crt"]]
        .concat());
    let text = run(&["x509", "-in", "alice.crt", "-noout", "-text"]);
    for part in [
        "O = demo.rennes, CN = alice@rennes",
        "1.34.5.0.14.1",
        "1.34.5.0.14.100",
        "TLS Web Client Authentication",
        "CN = XOS site rennes people",
    ] {
        let plain = text.replace(" = ", "=");
        assert!(plain.contains(&part.replace(" = ", "=")), "{part} is missing in\n{text}");
    }
    std::fs::write(at("core.crt"), core_pem(&w)).unwrap();
    let machines = std::fs::read_to_string(at("ca/machines.pem")).unwrap();
    let cert = &machines[machines.find("-----BEGIN CERT").unwrap()..];
    std::fs::write(at("machines.crt"), cert).unwrap();
    for host in ["core.rennes.xos.internal", "localhost"] {
        let args = [
            "-purpose",
            "sslserver",
            "-verify_hostname",
            host,
            "-untrusted",
            "machines.crt",
            "core.crt",
        ];
        run(&[&verify[..], &args[..]].concat());
    }
}

fn core_pem(w: &World) -> String {
    let text = std::fs::read_to_string(w.dir.path().join("ca/core.pem")).unwrap();
    text[text.find("-----BEGIN CERT").unwrap()..].to_owned()
}

#[tokio::test]
async fn a_restart_keeps_keys_and_what_was_issued() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    w.vos.set(member(VO, "alice@rennes"));
    let got = w.call(&alice, certificate_request(VO, &keyed().csr_pem)).await.unwrap();
    let again = w.restarted().await.unwrap();
    again.vos.set(member(VO, "alice@rennes"));
    assert_eq!(w.keys.fingerprint(), again.keys.fingerprint());
    again.by_certificate(&got.chain_pem).unwrap();

    // The key folder was lost and made anew: the registry notices.
    let empty = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let lost = World::open(w.site.clone(), empty, w.store.clone(), w.clock.clone(), |_| {}).await;
    let e = lost.err().unwrap();
    assert!(e.message.contains("registry belongs"), "{e}");
}
