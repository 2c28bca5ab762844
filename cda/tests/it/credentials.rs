//! The three credentials of a member: one membership in a certificate, an SSH certificate, a JWT.

use crate::mandates::{ask, grid};
use crate::world::{
    ADMIN_PASSWORD, World, certificate_request, keyed, member, ssh_certificate, ssh_line,
};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use ssh_key::HashAlg;
use ssh_key::certificate::CertType;
use ssh_key::public::{Ed25519PublicKey, KeyData};
use std::process::Command;
use std::time::Duration;
use xos_api::cda::{
    Certificate, GetIssuer, GetJwks, IssueCertificate, IssueToken, Jwks, MandateProof,
    SSH_MEMBERSHIP,
};
use xos_base::when::Clock;
use xos_base::{Error, Kind, Membership, Millis};
use xos_net::{Client, Proof};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const VO: &str = "demo.rennes";
const SERVICE: &str = "https://storage.example.org";

fn all_three() -> IssueCertificate {
    IssueCertificate {
        ssh_key: Some(ssh_line()),
        jwt_audience: Some(SERVICE.into()),
        ..certificate_request(VO, &keyed().csr_pem)
    }
}

/// The site's keys and name, as a service outside gets them: over TLS, without proof.
async fn published(w: &World) -> (Jwks, String) {
    let stranger = Client::new(w.site.clone(), &w.trust, &Proof::None).unwrap();
    let issuer = stranger.call(GetIssuer {}).await.unwrap();
    assert_eq!(issuer.jwks_uri, format!("{}/jwks", issuer.issuer));
    (stranger.call(GetJwks {}).await.unwrap(), issuer.issuer)
}

/// What a JWT says, once its signature held under the published key that it names.
fn claims(token: &str, jwks: &Jwks) -> Result<Value, &'static str> {
    let read = |part: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let parts: Vec<&str> = token.split('.').collect();
    let [header, body, signature] = parts[..] else { return Err("it has no three parts") };
    let head = read(header);
    assert_eq!((&head["alg"], &head["typ"]), (&json!("ES256"), &json!("JWT")));
    let key = jwks.keys.iter().find(|k| head["kid"] == k.kid.as_str()).ok_or("no such key")?;
    let number = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let point = [vec![4], number(&key.x), number(&key.y)].concat();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(format!("{header}.{body}").as_bytes(), &number(signature))
        .map_err(|_| "the signature does not hold")?;
    Ok(read(body))
}

fn in_ssh(w: &World, got: &Certificate) -> ssh_key::Certificate {
    let keys = w.trust.ssh_keys(&w.site).unwrap();
    ssh_certificate(got.ssh.as_ref().unwrap(), &keys.people[0], w.clock.now())
}

fn told_in(certificate: &ssh_key::Certificate) -> Membership {
    let text = certificate.extensions().get(SSH_MEMBERSHIP).unwrap();
    Membership::from_der(&STANDARD.decode(text).unwrap()).unwrap()
}

/// If it failed, a person could log in where they may not, or be refused where they may, depending
/// on which of their credentials is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn all_three_say_the_same_for_the_same_time() {
    let w = World::new("rennes").await;
    let alice = w.alice_in(VO).await;
    let (jwks, issuer) = published(&w).await;
    for (groups, roles, narrowed) in
        [(None, None, false), (Some(vec![]), Some(vec![]), true), (None, Some(vec![]), true)]
    {
        let before = w.clock.now();
        let ask = IssueCertificate { groups, roles, ..all_three() };
        let got = w.call(&alice, ask).await.unwrap();
        let m = w.by_certificate(&got.chain_pem).unwrap().member().unwrap().clone();
        assert_eq!(m != member(VO, "alice@rennes"), narrowed);

        let ssh = in_ssh(&w, &got);
        assert_eq!(told_in(&ssh), m);
        assert_eq!(ssh.cert_type(), CertType::User);
        assert_eq!(ssh.valid_principals(), ["alice@rennes/demo.rennes"]);
        assert_eq!(ssh.key_id(), format!("alice@rennes demo.rennes {}", got.serial));
        assert_eq!(Millis::from_secs(ssh.valid_before()), got.expires);
        assert_eq!(ssh.valid_after(), before.minus(10 * MINUTE).secs());
        assert_ne!(ssh.serial(), 0);
        let permitted: Vec<&str> = ssh.extensions().keys().map(String::as_str).collect();
        let want = [
            "membership@xos",
            "permit-X11-forwarding",
            "permit-agent-forwarding",
            "permit-port-forwarding",
            "permit-pty",
        ];
        assert_eq!(permitted, want, "permit-user-rc is the site's to say");

        let jwt = got.jwt.unwrap();
        assert!(!format!("{jwt:?}").contains(&jwt.token), "a bearer's right shows in a log");
        let said = claims(&jwt.token, &jwks).unwrap();
        let now = before.secs();
        assert_eq!((&said["iss"], &said["aud"]), (&json!(issuer), &json!(SERVICE)));
        assert_eq!(said["sub"], "alice@rennes");
        assert_eq!((&said["iat"], &said["exp"]), (&json!(now), &json!(now + 1200)));
        assert!(said["nbf"].as_u64().unwrap() <= now && said["auth_time"].as_u64().is_some());
        assert_eq!(jwt.expires, Millis::from_secs(now + 1200));
        assert_eq!((&said["wlcg.ver"], &said["scope"]), (&json!("1.0"), &json!("wlcg.groups")));
        let (mut in_wlcg, mut in_aarc) = (vec!["/demo.rennes".to_owned()], Vec::new());
        let of_vo = "urn:xos:rennes:group:demo.rennes";
        in_aarc.push(format!("{of_vo}#127.0.0.1"));
        for g in &m.groups[1..] {
            in_wlcg.push(format!("/demo.rennes/{}", g.name));
            in_aarc.push(format!("{of_vo}:{}#127.0.0.1", g.name));
        }
        in_aarc.extend(m.roles.iter().map(|r| format!("{of_vo}:role={r}#127.0.0.1")));
        assert_eq!(said["wlcg.groups"], json!(in_wlcg));
        assert_eq!(said["entitlements"], json!(in_aarc));
        assert_eq!(said["eduperson_entitlement"], json!(in_aarc));
    }
    let plain = w.call(&alice, certificate_request(VO, &keyed().csr_pem)).await.unwrap();
    assert!(plain.ssh.is_none() && plain.jwt.is_none(), "nobody asked for them");
}

/// If it failed, a membership would live on in a credential after its end.
#[tokio::test(flavor = "multi_thread")]
async fn all_three_end_with_the_membership() {
    let w = World::new("rennes").await;
    let alice = w.alice_in(VO).await;
    let mut m = member(VO, "alice@rennes");
    let end = w.clock.now().plus(10 * MINUTE);
    m.expires = Some(end);
    w.vos.set(m);
    let got = w.call(&alice, all_three()).await.unwrap();
    assert_eq!(in_ssh(&w, &got).valid_before(), end.secs());
    assert_eq!(got.jwt.unwrap().expires.secs(), end.secs());
    w.clock.advance(10 * MINUTE);
    let e = w.call(&alice, all_three()).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("expired"), "{e}");
    // A renewal gives all three anew, for as long as the sign-in allows.
    w.vos.set(member(VO, "alice@rennes"));
    let got = w.call(&alice, all_three()).await.unwrap();
    let caller = w.by_certificate(&got.chain_pem).unwrap();
    w.clock.advance(8 * HOUR);
    let again = w.call(&caller, all_three()).await.unwrap();
    assert_eq!(Millis::from_secs(in_ssh(&w, &again).valid_before()), again.expires);
    assert!(again.expires > got.expires && again.jwt.is_some());
}

/// If it failed, who stole a laptop could renew in a VO for longer than the VO wants, or a VO could
/// let its people go on for longer than the site does.
#[tokio::test(flavor = "multi_thread")]
async fn a_vo_has_its_people_sign_in_again() {
    let w = World::with("rennes", |c| c.renewal_s = 4 * 3600).await;
    let alice = w.alice_in(VO).await;
    // The site's time is the shorter one.
    let got = w.call(&alice, all_three()).await.unwrap();
    let signed_in = alice.signed_in().unwrap();
    assert_eq!(got.renewable_until, Some(signed_in.plus(4 * HOUR)));
    assert!(got.expires <= signed_in.plus(4 * HOUR));
    // Now the VO's.
    w.vos.renew_for(2 * 3600);
    w.clock.advance(HOUR);
    let end = signed_in.plus(2 * HOUR);
    let by_certificate = w.by_certificate(&got.chain_pem).unwrap();
    let again = w.call(&by_certificate, all_three()).await.unwrap();
    assert_eq!(again.renewable_until, Some(end));
    assert_eq!(again.expires, end);
    assert_eq!(Millis::from_secs(in_ssh(&w, &again).valid_before()), end);
    w.clock.advance(50 * MINUTE);
    let last = w.call(&by_certificate, all_three()).await.unwrap();
    assert_eq!(last.jwt.unwrap().expires, end);
    w.clock.advance(11 * MINUTE);
    let e = w.call(&by_certificate, all_three()).await.unwrap_err();
    assert!(e.kind == Kind::Unauthenticated && e.message.contains("demo.rennes"), "{e}");
    assert!(e.message.contains("too long ago") && e.to_string().contains("xos login"), "{e}");
    let token =
        || IssueToken { vo: VO.parse().unwrap(), audience: None, groups: None, roles: None };
    let e = w.call(&by_certificate, token()).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
    // A narrowed one is no way around it.
    let ask = IssueCertificate { roles: Some(vec![]), ..all_three() };
    let e = w.call(&by_certificate, ask).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
    // A new sign-in is.
    let alice = w.by_token(&w.sign_in("alice", ADMIN_PASSWORD).await.unwrap().token.token);
    let got = w.call(&alice, all_three()).await.unwrap();
    assert_eq!(got.renewable_until, Some(alice.signed_in().unwrap().plus(2 * HOUR)));
    w.call(&alice, token()).await.unwrap();
}

/// If it failed, a person could choose whose account their SSH certificate opens.
#[tokio::test]
async fn nobody_chooses_a_principal() {
    let w = World::new("rennes").await;
    let alice = w.alice_in(VO).await;
    let key = format!("{} root,bob@rennes/demo.rennes", ssh_line());
    let ask = IssueCertificate { ssh_key: Some(key), ..all_three() };
    let ssh = in_ssh(&w, &w.call(&alice, ask.clone()).await.unwrap());
    assert_eq!(ssh.valid_principals(), ["alice@rennes/demo.rennes"]);
    assert_eq!(ssh.comment(), "");
    let mut json = serde_json::to_value(&ask).unwrap();
    json["principals"] = json!(["root"]);
    let e = serde_json::from_value::<IssueCertificate>(json).unwrap_err();
    assert!(e.to_string().contains("principals"), "{e}");
    // Nor does a machine's key speak for people.
    let keys = w.trust.ssh_keys(&w.site).unwrap();
    assert!(!keys.machines.contains(&keys.people[0]));
}

#[tokio::test]
async fn bad_keys_and_audiences_are_refused_with_the_reason_and_nothing_is_issued() {
    let w = World::new("rennes").await;
    let alice = w.alice_in(VO).await;
    let good = w.call(&alice, all_three()).await.unwrap();
    for (bad, reason) in [
        ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQU=".to_owned(), "must be Ed25519"),
        ("ssh-dss AAAA".to_owned(), "DSA"),
        ("sk-ssh-ed25519@openssh.com AAAA".to_owned(), "security keys"),
        (good.ssh.unwrap(), "certificate already"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl".to_owned(), "private key"),
        ("nonsense".to_owned(), "no public key"),
        (String::new(), "no public key"),
        ("a".repeat(1 << 20), "bytes"),
    ] {
        let ask = IssueCertificate { ssh_key: Some(bad), ..all_three() };
        let e = w.call(&alice, ask).await.unwrap_err();
        assert!(matches!(e.kind, Kind::Invalid | Kind::TooLarge), "{e}");
        assert!(e.message.contains(reason), "{reason} is not said: {e}");
    }
    for bad in ["", "two words", "a\nb", &"a".repeat(256)] {
        let ask = IssueCertificate { jwt_audience: Some(bad.into()), ..all_three() };
        let e = w.call(&alice, ask).await.unwrap_err();
        assert!(e.kind == Kind::Invalid && e.message.contains("jwt_audience"), "{e}");
    }
}

/// If it failed, a service that got a person's JWT could act as them in the grid.
#[tokio::test(flavor = "multi_thread")]
async fn no_core_takes_such_a_jwt() {
    let (rennes, pisa, alice) = grid().await;
    let person = rennes.by_certificate(&alice.chain_pem).unwrap();
    let refused = |e: Error| assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
    for audience in ["rennes", "pisa", SERVICE, "https://core.rennes.xos.internal"] {
        let ask = IssueCertificate { jwt_audience: Some(audience.into()), ..all_three() };
        let token = rennes.call(&person, ask).await.unwrap().jwt.unwrap().token;
        refused(rennes.verifier.token(&token, None).unwrap_err());
        refused(pisa.verifier.token(&token, None).unwrap_err());
        let proof = MandateProof::Token(token);
        refused(rennes.call(&rennes.core_of(&pisa), ask_job(proof)).await.unwrap_err());
    }
}

fn ask_job(proof: MandateProof) -> xos_api::cda::IssueMandate {
    ask("1.pisa", proof)
}

/// If it failed, whoever carries a JWT could write their own groups into it.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_jwt_does_not_verify() {
    let w = World::new("rennes").await;
    let alice = w.alice_in(VO).await;
    let token = w.call(&alice, all_three()).await.unwrap().jwt.unwrap().token;
    let (jwks, _) = published(&w).await;
    let mut said = claims(&token, &jwks).unwrap();
    said["wlcg.groups"] = json!(["/demo.rennes/owners"]);
    let parts: Vec<&str> = token.split('.').collect();
    let body = URL_SAFE_NO_PAD.encode(said.to_string());
    let forged = format!("{}.{body}.{}", parts[0], parts[2]);
    assert_eq!(claims(&forged, &jwks), Err("the signature does not hold"));
    let pisa = World::new("pisa").await;
    let (others, _) = published(&pisa).await;
    assert_eq!(claims(&token, &others), Err("no such key"));
}

#[tokio::test]
async fn openssh_reads_what_is_issued() {
    if Command::new("ssh-keygen").arg("-?").output().is_err() {
        println!("skipped: ssh-keygen is not installed");
        return;
    }
    let w = World::new("rennes").await;
    let alice = w.alice_in(VO).await;
    let got = w.call(&alice, all_three()).await.unwrap();
    let at = w.dir.path().join("alice-cert.pub");
    std::fs::write(&at, format!("{}\n", got.ssh.unwrap())).unwrap();
    let out = Command::new("ssh-keygen").arg("-L").arg("-f").arg(&at).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let people = w.trust.ssh_keys(&w.site).unwrap().people[0];
    let authority = KeyData::Ed25519(Ed25519PublicKey(people)).fingerprint(HashAlg::Sha256);
    for part in [
        "user certificate",
        "alice@rennes/demo.rennes",
        "\"alice@rennes demo.rennes ",
        "permit-pty",
        "membership@xos",
        "Critical Options: (none)",
        &authority.to_string(),
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(!text.contains("permit-user-rc"), "{text}");
}
