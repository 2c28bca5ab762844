//! Submissions, mandates, tickets: a site acts for nobody who did not ask it to.

use crate::world::{Keyed, World, certificate_request, chain, keyed, keyed_with, member};
use rcgen::PKCS_ED25519;
use std::time::Duration;
use xos_api::cda::{IssueMandate, IssueTicket, IssueToken, MandateProof, Submission, Work};
use xos_base::when::Clock;
use xos_base::{Epoch, Kind, MemberNumber, Millis};
use xos_net::submission;
use xos_net::ticket::{verify_mandate, verify_ticket, verify_ticket_of};

const VO: &str = "demo.rennes";
const MINUTE: Duration = Duration::from_secs(60);

pub struct Alice {
    k: Keyed,
    pub chain_pem: String,
}

/// Rennes is the VO's home, pisa owns jobs; alice is a member with a certificate.
pub async fn grid() -> (World, World, Alice) {
    let (rennes, pisa) = (World::new("rennes").await, World::new("pisa").await);
    rennes.trusts(&pisa);
    pisa.trusts(&rennes);
    rennes.vos.set(member(VO, "alice@rennes"));
    rennes.vos.serve("pisa");
    let token = rennes.person("alice").await;
    let k = keyed();
    let chain_pem =
        rennes.call(&token, certificate_request(VO, &k.csr_pem)).await.unwrap().chain_pem;
    (rennes, pisa, Alice { k, chain_pem })
}

pub fn submission(owner: &str, nonce: u8, issued: Millis) -> Submission {
    Submission {
        vo: VO.parse().unwrap(),
        owner: owner.parse().unwrap(),
        digest: "ab".repeat(32),
        nonce: format!("{nonce:02x}").repeat(16),
        issued,
    }
}

impl Alice {
    pub fn sign(&self, s: &Submission) -> String {
        submission::sign(s, &chain(&self.chain_pem), &self.k.private()).unwrap()
    }
}

pub fn ask(job: &str, proof: MandateProof) -> IssueMandate {
    let digest = "ab".repeat(32);
    IssueMandate { job: job.parse().unwrap(), vo: VO.parse().unwrap(), digest, proof }
}

fn ticket(mandate: &str, node: &str) -> IssueTicket {
    IssueTicket { mandate: mandate.into(), node: node.parse().unwrap(), node_key: "0f".repeat(32) }
}

#[tokio::test]
async fn from_submission_to_ticket() {
    let (rennes, pisa, alice) = grid().await;
    let owner = rennes.core_of(&pisa);
    let jws = alice.sign(&submission("pisa", 1, rennes.clock.now()));
    let request = ask("12.pisa", MandateProof::Submission(jws));
    let mandate = rennes.call(&owner, request.clone()).await.unwrap();
    rennes.call(&owner, request).await.expect("a lost answer may be asked for again");
    let m = verify_mandate(&pisa.trust, &mandate, pisa.clock.now()).unwrap();
    let digest = "ab".repeat(32);
    let (job, owner_site) = ("12.pisa".parse().unwrap(), "pisa".parse().unwrap());
    assert_eq!(m.work, Work::Job { job, owner: owner_site, digest });
    let got = rennes.call(&owner, ticket(&mandate, "n1.pisa")).await.unwrap();
    let now = pisa.clock.now();
    let node = "n1.pisa".parse().unwrap();
    let key = "0f".repeat(32);
    let (who, _) = verify_ticket_of(&pisa.trust, &got.ticket, (&node, &key), now).unwrap();
    assert_eq!(who, member(VO, "alice@rennes"));
    let other = "n2.pisa".parse().unwrap();
    verify_ticket_of(&pisa.trust, &got.ticket, (&other, &key), now).unwrap_err();
    verify_ticket_of(&pisa.trust, &got.ticket, (&node, &"00".repeat(32)), now).unwrap_err();
    let e = verify_ticket(&pisa.trust, &got.ticket, now.plus(15 * MINUTE)).unwrap_err();
    assert!(e.message.contains("lapsed"), "{e}");
    verify_mandate(&pisa.trust, &got.ticket, now).expect_err("a ticket is no mandate");
}

#[tokio::test]
async fn ed25519_keys_sign_submissions_too_and_foreign_keys_do_not() {
    let (rennes, pisa, _) = grid().await;
    let token = rennes.by_token(
        &rennes.sign_in("alice", crate::world::ADMIN_PASSWORD).await.unwrap().token.token,
    );
    let k = keyed_with(&PKCS_ED25519, |_| {});
    let chain_pem =
        rennes.call(&token, certificate_request(VO, &k.csr_pem)).await.unwrap().chain_pem;
    let alice = Alice { k, chain_pem };
    let s = submission("pisa", 1, rennes.clock.now());
    submission::verify(&pisa.trust, &alice.sign(&s), rennes.clock.now()).unwrap();
    let thief = Alice { k: keyed(), chain_pem: alice.chain_pem.clone() };
    let e = submission::verify(&pisa.trust, &thief.sign(&s), rennes.clock.now()).unwrap_err();
    assert!(e.message.contains("signature"), "{e}");
}

#[tokio::test]
async fn stale_future_and_changed_submissions_are_refused() {
    let (rennes, pisa, alice) = grid().await;
    let now = rennes.clock.now();
    let verify = |jws: &str, at| submission::verify(&pisa.trust, jws, at);
    let jws = alice.sign(&submission("pisa", 1, now));
    verify(&jws, now.plus(10 * MINUTE)).unwrap();
    let e = verify(&jws, now.plus(11 * MINUTE)).unwrap_err();
    assert!(e.message.contains("too old"), "{e}");
    assert!(verify(&jws, now.minus(2 * MINUTE)).unwrap_err().message.contains("future"));
    for at in (0..jws.len()).step_by(97) {
        let mut bytes = jws.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        assert!(verify(&String::from_utf8(bytes).unwrap(), now).is_err(), "changed at {at}");
    }
    let foreign_vo =
        Submission { vo: "other.rennes".parse().unwrap(), ..submission("pisa", 1, now) };
    assert!(verify(&alice.sign(&foreign_vo), now).is_err());
    let core = pisa.keys.core_identity().get();
    let by_core =
        submission::sign(&submission("pisa", 1, now), core.chain(), &alice.k.private()).unwrap();
    assert!(verify(&by_core, now).unwrap_err().message.contains("machine"));
}

#[tokio::test]
async fn a_mandate_is_for_the_owner_and_the_job_that_were_meant() {
    let (rennes, pisa, alice) = grid().await;
    let lyon = World::new("lyon").await;
    rennes.trusts(&lyon);
    let (owner, thief) = (rennes.core_of(&pisa), rennes.core_of(&lyon));
    let jws = alice.sign(&submission("pisa", 1, rennes.clock.now()));
    let proof = MandateProof::Submission(jws);
    let e = rennes.call(&thief, ask("1.lyon", proof.clone())).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("not lyon"), "{e}");
    let e = rennes.call(&thief, ask("1.pisa", proof.clone())).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "a job of another owner: {e}");
    rennes.call(&owner, ask("1.pisa", proof.clone())).await.unwrap();
    let e = rennes.call(&owner, ask("2.pisa", proof.clone())).await.unwrap_err();
    assert!(e.message.contains("another job"), "{e}");
    let person = rennes.by_certificate(&alice.chain_pem).unwrap();
    let e = rennes.call(&person, ask("1.pisa", proof)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "a person is no core: {e}");
}

#[tokio::test]
async fn a_member_token_for_the_owner_is_a_proof_and_others_are_not() {
    let (rennes, pisa, alice) = grid().await;
    let owner = rennes.core_of(&pisa);
    let person = rennes.by_certificate(&alice.chain_pem).unwrap();
    let token = |audience: &str| IssueToken {
        vo: VO.parse().unwrap(),
        audience: Some(audience.parse().unwrap()),
        groups: None,
        roles: Some(vec![]),
    };
    let good = rennes.call(&person, token("pisa")).await.unwrap().token;
    let request = ask("1.pisa", MandateProof::Token(good.clone()));
    let mandate = rennes.call(&owner, request.clone()).await.unwrap();
    let m = verify_mandate(&rennes.trust, &mandate, rennes.clock.now()).unwrap();
    assert!(m.membership.roles.is_empty(), "a narrowed token gives a narrowed mandate");
    rennes.call(&owner, request.clone()).await.expect("a lost answer may be asked for again");
    let own = rennes.call(&person, token("rennes")).await.unwrap().token;
    let e = rennes.call(&owner, ask("1.pisa", MandateProof::Token(own))).await.unwrap_err();
    assert!(e.message.contains("another site"), "{e}");
    let plain = rennes.sign_in("root", crate::world::ADMIN_PASSWORD).await.unwrap().token.token;
    assert!(rennes.call(&owner, ask("1.pisa", MandateProof::Token(plain))).await.is_err());
    rennes.clock.advance(16 * MINUTE);
    let owner = rennes.core_of(&pisa);
    assert!(rennes.call(&owner, request).await.unwrap_err().message.contains("expired"));
}

/// If it failed, the site to which one job was submitted with a token could make itself any number
/// of mandates for a month, each for a program of its own.
#[tokio::test]
async fn one_token_proves_one_job() {
    let (rennes, pisa, alice) = grid().await;
    let owner = rennes.core_of(&pisa);
    let person = rennes.by_certificate(&alice.chain_pem).unwrap();
    let token = || IssueToken {
        vo: VO.parse().unwrap(),
        audience: Some("pisa".parse().unwrap()),
        groups: None,
        roles: None,
    };
    let first = MandateProof::Token(rennes.call(&person, token()).await.unwrap().token);
    rennes.call(&owner, ask("1.pisa", first.clone())).await.unwrap();
    let other_program = IssueMandate { digest: "cd".repeat(32), ..ask("1.pisa", first.clone()) };
    rennes.clock.advance(14 * MINUTE);
    let owner = rennes.core_of(&pisa);
    for again in [ask("2.pisa", first.clone()), other_program] {
        let e = rennes.call(&owner, again).await.unwrap_err();
        assert!(e.kind == Kind::Denied && e.message.contains("another job"), "{e}");
    }
    let second = MandateProof::Token(rennes.call(&person, token()).await.unwrap().token);
    rennes.call(&owner, ask("2.pisa", second)).await.expect("another token, another job");
}

/// If it failed, the site that owns a job could have another one run as that person.
#[tokio::test]
async fn a_mandate_is_for_the_description_that_was_signed() {
    let (rennes, pisa, alice) = grid().await;
    let owner = rennes.core_of(&pisa);
    let jws = alice.sign(&submission("pisa", 1, rennes.clock.now()));
    let signed = ask("1.pisa", MandateProof::Submission(jws));
    for digest in ["cd".repeat(32), "AB".repeat(32), String::new(), "ab".repeat(33)] {
        let other = IssueMandate { digest, ..signed.clone() };
        let e = rennes.call(&owner, other).await.unwrap_err();
        assert!(matches!(e.kind, Kind::Denied | Kind::Invalid), "{e}");
    }
    let mandate = rennes.call(&owner, signed).await.unwrap();
    let m = verify_mandate(&rennes.trust, &mandate, rennes.clock.now()).unwrap();
    let Work::Job { digest, .. } = m.work else { panic!("{:?}", m.work) };
    assert_eq!(digest, "ab".repeat(32));
}

#[tokio::test]
async fn tickets_are_for_own_nodes_of_serving_sites_and_for_living_memberships() {
    let (rennes, pisa, alice) = grid().await;
    let lyon = World::new("lyon").await;
    rennes.trusts(&lyon);
    let owner = rennes.core_of(&pisa);
    let jws = alice.sign(&submission("pisa", 1, rennes.clock.now()));
    let mandate = rennes.call(&owner, ask("1.pisa", MandateProof::Submission(jws))).await.unwrap();
    let e = rennes.call(&owner, ticket(&mandate, "n1.lyon")).await.unwrap_err();
    assert!(e.message.contains("not of site pisa"), "{e}");
    let e = rennes.call(&rennes.core_of(&lyon), ticket(&mandate, "n1.lyon")).await.unwrap_err();
    assert!(e.message.contains("does not serve"), "{e}");
    let bad_key = IssueTicket { node_key: "x".into(), ..ticket(&mandate, "n1.pisa") };
    assert_eq!(rennes.call(&owner, bad_key).await.unwrap_err().kind, Kind::Invalid);

    // Pisa signs a mandate of its own for a VO of rennes.
    let mut claims = verify_mandate(&rennes.trust, &mandate, rennes.clock.now()).unwrap();
    claims.membership.roles.push("owner".parse().unwrap());
    let forged = pisa.keys.signer().sign(xos_net::sign::Kind::Mandate, &claims).unwrap();
    let e = rennes.call(&owner, ticket(&forged, "n1.pisa")).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "{e}");

    // Alice loses a role that the job carries: no ticket. She has it again: one of the new epoch.
    // She leaves and comes back: no ticket.
    let mut m = member(VO, "alice@rennes");
    let roles = std::mem::take(&mut m.roles);
    m.epoch = Epoch(4);
    rennes.vos.set(m.clone());
    let e = rennes.call(&owner, ticket(&mandate, "n1.pisa")).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("the role"), "{e}");
    m.roles = roles;
    rennes.vos.set(m.clone());
    let got = rennes.call(&owner, ticket(&mandate, "n1.pisa")).await.unwrap();
    let (who, _) = verify_ticket(&rennes.trust, &got.ticket, rennes.clock.now()).unwrap();
    assert_eq!((who.roles.len(), who.epoch), (m.roles.len(), Epoch(4)));
    m.number = MemberNumber(8);
    rennes.vos.set(m);
    assert!(rennes.call(&owner, ticket(&mandate, "n1.pisa")).await.is_err());
    rennes.vos.members.lock().unwrap().clear();
    let e = rennes.call(&owner, ticket(&mandate, "n1.pisa")).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "{e}");
}

/// If it failed, a thief's jobs would get tickets for a month, whatever the administrator did.
#[tokio::test]
async fn a_suspension_ends_the_mandates_from_before_it() {
    let (rennes, pisa, alice) = grid().await;
    let owner = rennes.core_of(&pisa);
    let jws = alice.sign(&submission("pisa", 1, rennes.clock.now()));
    let mandate = rennes.call(&owner, ask("1.pisa", MandateProof::Submission(jws))).await.unwrap();
    rennes.call(&owner, ticket(&mandate, "n1.pisa")).await.unwrap();
    // Suspended and resumed: a member as before, of a higher epoch.
    let mut m = member(VO, "alice@rennes");
    m.epoch = Epoch(5);
    rennes.vos.set(m);
    rennes.vos.suspended.lock().unwrap().insert("alice@rennes".parse().unwrap(), Epoch(4));
    let e = rennes.call(&owner, ticket(&mandate, "n1.pisa")).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("suspended"), "{e}");
}

#[tokio::test]
async fn a_narrowed_membership_voids_the_proof_and_a_mandate_ends() {
    let (rennes, pisa, alice) = grid().await;
    let owner = rennes.core_of(&pisa);
    let jws = alice.sign(&submission("pisa", 1, rennes.clock.now()));
    let request = ask("1.pisa", MandateProof::Submission(jws));
    let mandate = rennes.call(&owner, request.clone()).await.unwrap();
    let mut m = member(VO, "alice@rennes");
    m.epoch = Epoch(4);
    rennes.vos.set(m);
    assert_eq!(rennes.call(&owner, request).await.unwrap_err().kind, Kind::Unauthenticated);
    rennes.clock.advance(Duration::from_secs(30 * 24 * 3600));
    let owner = rennes.grid.clone();
    let own = IssueTicket { node: "n1.rennes".parse().unwrap(), ..ticket(&mandate, "n1.rennes") };
    let e = owner.call(&rennes.site, own).await.unwrap_err();
    assert!(e.message.contains("has ended"), "{e}");
}
