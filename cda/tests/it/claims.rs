//! What clients claim and do not have: groups and roles, other names, an authority.

use crate::machines::{invite, join};
use crate::world::{
    ADMIN_PASSWORD, World, certificate_request, chain, keyed, keyed_with, member, ssh_line,
};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use serde_json::json;
use std::time::Duration;
use xos_api::cda::{CreatePerson, IssueCertificate, IssueToken, Password, RenewMachine};
use xos_base::membership::EXTENSION_OID;
use xos_base::when::Clock;
use xos_base::{GroupName, Kind, RoleName};
use xos_net::caller::SIGNED_IN_OID;
use xos_net::trust::{Subject, Usage};

const VO: &str = "demo.rennes";

fn groups(names: &[&str]) -> Option<Vec<GroupName>> {
    Some(names.iter().map(|n| n.parse().unwrap()).collect())
}

fn roles(names: &[&str]) -> Option<Vec<RoleName>> {
    Some(names.iter().map(|n| n.parse().unwrap()).collect())
}

/// If it failed, a member would choose their own groups and roles, in one credential or in all.
#[tokio::test]
async fn nobody_gets_groups_and_roles_by_asking_for_them() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    w.vos.set(member(VO, "alice@rennes"));
    let got = w.call(&alice, certificate_request(VO, &keyed().csr_pem)).await.unwrap();
    let certified = w.by_certificate(&got.chain_pem).unwrap();
    for caller in [&alice, &certified] {
        for (groups, roles, lacks) in [
            (groups(&["staff"]), None, "staff"),
            (groups(&["physics", "staff"]), None, "staff"),
            (None, roles(&["owner"]), "owner"),
            (groups(&["physics"]), roles(&["admin", "owner"]), "owner"),
            // One is not the other.
            (groups(&["admin"]), None, "admin"),
            (None, roles(&["physics"]), "physics"),
        ] {
            let ask = IssueCertificate {
                ssh_key: Some(ssh_line()),
                jwt_audience: Some("https://storage.example".into()),
                groups: groups.clone(),
                roles: roles.clone(),
                ..certificate_request(VO, &keyed().csr_pem)
            };
            let e = w.call(caller, ask).await.unwrap_err();
            assert!(e.kind == Kind::Denied && e.message.contains(lacks), "{lacks}: {e}");
            let ask = IssueToken { vo: VO.parse().unwrap(), audience: None, groups, roles };
            let e = w.call(caller, ask).await.unwrap_err();
            assert!(e.kind == Kind::Denied && e.message.contains(lacks), "{lacks}: {e}");
        }
    }
    for field in ["membership", "person", "number", "epoch", "site_admin", "principals", "sub"] {
        let ask = certificate_request(VO, &got.chain_pem);
        let mut ask = serde_json::to_value(ask).unwrap();
        ask[field] = json!("owner");
        let e = serde_json::from_value::<IssueCertificate>(ask).unwrap_err();
        assert!(e.to_string().contains(field), "{e}");
    }
    let has = IssueCertificate {
        groups: groups(&["physics"]),
        roles: roles(&[]),
        ..certificate_request(VO, &keyed().csr_pem)
    };
    let got = w.call(&alice, has).await.unwrap();
    let got = w.by_certificate(&got.chain_pem).unwrap();
    let got = got.member().unwrap();
    assert_eq!((got.groups.len(), got.roles.len()), (2, 0), "what one has one gets");
}

/// If it failed, who once had a group, or wrote it into a certificate, would keep it by renewing.
#[tokio::test]
async fn a_renewal_gives_what_the_vo_says_and_not_what_the_certificate_does() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    w.vos.set(member(VO, "alice@rennes"));
    let got = w.call(&alice, certificate_request(VO, &keyed().csr_pem)).await.unwrap();
    // As if the certificate said too much: the epoch, which would void it, stays.
    let mut now = member(VO, "alice@rennes");
    now.groups.truncate(1);
    now.roles.clear();
    w.vos.set(now.clone());
    let certified = w.by_certificate(&got.chain_pem).unwrap();
    assert_eq!(certified.member().unwrap().groups.len(), 2, "the certificate claims no more");
    let got = w.call(&certified, certificate_request(VO, &keyed().csr_pem)).await.unwrap();
    let subject =
        w.trust.verify_chain(&chain(&got.chain_pem), Usage::Client, w.clock.now()).unwrap();
    assert_eq!(subject, Subject::Member(now));
    for ask in [
        IssueCertificate {
            groups: groups(&["physics"]),
            ..certificate_request(VO, &keyed().csr_pem)
        },
        IssueCertificate { roles: roles(&["admin"]), ..certificate_request(VO, &keyed().csr_pem) },
    ] {
        assert_eq!(w.call(&certified, ask).await.unwrap_err().kind, Kind::Denied);
    }
}

/// What a request asks for beside the certification of its key.
type Wish = Box<dyn Fn(&mut CertificateParams)>;

/// Wishes that are refused, whoever asks.
fn too_much() -> Vec<(&'static str, Wish)> {
    fn named(name: SanType) -> Wish {
        Box::new(move |p| p.subject_alt_names = vec![name.clone()])
    }
    fn uses(purpose: KeyUsagePurpose) -> Wish {
        Box::new(move |p| p.key_usages = vec![purpose])
    }
    fn says(oid: &'static [u64], content: Vec<u8>) -> Wish {
        Box::new(move |p| {
            let extension = CustomExtension::from_oid_content(oid, content.clone());
            p.custom_extensions = vec![extension];
        })
    }
    fn authority(constraints: BasicConstraints) -> Wish {
        Box::new(move |p| p.is_ca = IsCa::Ca(constraints))
    }
    let mut owner = member(VO, "bob@rennes");
    owner.roles = vec!["owner".parse().unwrap()];
    let ia5 = |text: &str| -> Ia5String { text.try_into().unwrap() };
    vec![
        ("the core's name", named(SanType::DnsName(ia5("core.rennes.xos.internal")))),
        ("a node's name", named(SanType::DnsName(ia5("n2.node.rennes.xos.internal")))),
        ("another's address", named(SanType::Rfc822Name(ia5("bob@rennes")))),
        ("another's URI", named(SanType::URI(ia5("xos://bob@rennes/demo.rennes")))),
        ("an IP address", named(SanType::IpAddress([127, 0, 0, 1].into()))),
        ("an authority", authority(BasicConstraints::Unconstrained)),
        ("a last authority", authority(BasicConstraints::Constrained(0))),
        ("to sign certificates", uses(KeyUsagePurpose::KeyCertSign)),
        ("to sign revocations", uses(KeyUsagePurpose::CrlSign)),
        ("another's membership", says(EXTENSION_OID, owner.to_der().unwrap())),
        ("a later sign-in", says(SIGNED_IN_OID, vec![2, 5, 0, 0xff, 0xff, 0xff, 0xff])),
        (
            "a role, as the original wrote it",
            says(&[1, 34, 5, 0, 14, 6], b"\x04\x05owner".to_vec()),
        ),
    ]
}

/// If it failed, who asks for a certificate would write into it: another's name, rights, or that
/// they sign for others.
#[tokio::test]
async fn a_request_that_asks_for_more_than_a_key_gets_nothing() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    w.vos.set(member(VO, "alice@rennes"));
    let joined = join(&w, &invite(&w, "n1").await, &keyed()).await.unwrap();
    let node = w.by_certificate(&joined.chain_pem).unwrap();
    let token = invite(&w, "n3").await;
    for (what, wish) in too_much() {
        let k = keyed_with(&PKCS_ECDSA_P256_SHA256, |p| wish(p));
        let e = w.call(&alice, certificate_request(VO, &k.csr_pem)).await.expect_err(what);
        assert_eq!(e.kind, Kind::Invalid, "{what}: {e}");
        let e = w.call(&node, RenewMachine { csr_pem: k.csr_pem.clone() }).await.expect_err(what);
        assert_eq!(e.kind, Kind::Invalid, "{what}: {e}");
        let e = join(&w, &token, &k).await.expect_err(what);
        assert_eq!(e.kind, Kind::Invalid, "{what}: {e}");
    }
    // A subject and a use are taken from who asks, not from the request.
    let k = keyed_with(&PKCS_ECDSA_P256_SHA256, |p| {
        p.distinguished_name.push(DnType::CommonName, "bob@rennes");
        p.distinguished_name.push(DnType::OrganizationName, "other.rennes");
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        p.is_ca = IsCa::ExplicitNoCa;
    });
    let got = w.call(&alice, certificate_request(VO, &k.csr_pem)).await.unwrap();
    let ders = chain(&got.chain_pem);
    let subject = w.trust.verify_chain(&ders, Usage::Client, w.clock.now()).unwrap();
    assert_eq!(subject, Subject::Member(member(VO, "alice@rennes")));
    w.trust.verify_chain(&ders, Usage::Server, w.clock.now()).unwrap_err();
    let k = keyed_with(&PKCS_ECDSA_P256_SHA256, |p| {
        p.distinguished_name.push(DnType::CommonName, "n2.node.rennes.xos.internal");
    });
    let joined = join(&w, &token, &k).await.unwrap();
    let ders = chain(&joined.chain_pem);
    let subject = w.trust.verify_chain(&ders, Usage::Client, w.clock.now()).unwrap();
    assert_eq!(subject, Subject::Node("n3.rennes".parse().unwrap()));
}

/// Names that a file, a path or a reader would take for another than they are.
fn strange(name: &str) -> Vec<String> {
    vec![
        format!("{name}\n"),
        format!("{name}\nroot:x:0:0"),
        format!("{name}:x"),
        format!("{name}/../root"),
        format!("/{name}"),
        format!("{name}\0"),
        format!(" {name}"),
        format!("{name}.demo.rennes"),
        format!("{name}@rennes@rennes"),
        format!("{name}@Rennes"),
        name.to_uppercase(),
        "a".repeat(33),
        "a".repeat(256),
        // Cyrillic, full width, with an accent that stands apart; what no terminal shows, or shows
        // from right to left.
        name.replacen('a', "\u{430}", 1),
        name.replacen('a', "\u{ff41}", 1),
        name.replacen('a', "a\u{301}", 1),
        format!("{name}\u{200b}"),
        format!("\u{202e}{name}"),
        String::new(),
    ]
}

/// If it failed, somebody would be taken for another person whose name looks the same, or break the
/// files in which names stand.
#[tokio::test]
async fn a_name_that_could_be_read_otherwise_is_nobodys() {
    let w = World::new("rennes").await;
    let root = w.root().await;
    w.person("alice").await;
    w.sign_in("alice", ADMIN_PASSWORD).await.unwrap();
    for name in strange("alice") {
        let password = Password(ADMIN_PASSWORD.into());
        let r = CreatePerson { name: name.clone(), password, site_admin: false };
        assert_eq!(w.call(&root, r).await.unwrap_err().kind, Kind::Invalid, "{name:?}");
    }
    for name in strange("alice") {
        // So that it is the name, and not the number of tries.
        w.clock.advance(Duration::from_secs(3600));
        let e = w.sign_in(&name, ADMIN_PASSWORD).await.map(|s| s.person).expect_err(&name);
        let kind = e.kind;
        assert!(matches!(kind, Kind::Unauthenticated | Kind::Invalid), "{name:?}: {e}");
    }
    w.sign_in("alice", ADMIN_PASSWORD).await.unwrap();
}
