//! Logins: a node acts for who signed in to it, and for nobody else.

use crate::machines::{invite, join, node};
use crate::mandates::{Alice, ask, grid, submission};
use crate::world::{World, certificate_request, keyed, member};
use std::time::Duration;
use xos_api::cda::{
    IssueCertificate, IssueLoginMandate, IssueTicket, IssueToken, MandateProof, RemoveNode,
    RenewToken, Work,
};
use xos_base::when::Clock;
use xos_base::{Epoch, Kind};
use xos_net::Caller;
use xos_net::ticket::{verify_mandate, verify_ticket_of};

const VO: &str = "demo.rennes";
const MINUTE: Duration = Duration::from_secs(60);

fn login(node: &str) -> IssueLoginMandate {
    IssueLoginMandate { vo: VO.parse().unwrap(), node: node.parse().unwrap() }
}

/// What a node asks its core for.
fn own(mandate: &str, node: &Caller) -> IssueTicket {
    IssueTicket {
        mandate: mandate.into(),
        node: node.node().unwrap().clone(),
        node_key: node.key().unwrap().into(),
    }
}

async fn mandate(home: &World, alice: &Alice, node: &str) -> String {
    let person = home.by_certificate(&alice.chain_pem).unwrap();
    home.call(&person, login(node)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_login_to_ticket() {
    let (rennes, pisa, alice) = grid().await;
    rennes.vos.serve("rennes");
    for site in [&pisa, &rennes] {
        let n1 = node(site, "n1").await;
        let name = n1.node().unwrap().clone();
        let jws = mandate(&rennes, &alice, name.as_str()).await;
        let m = verify_mandate(&site.trust, &jws, site.clock.now()).unwrap();
        assert_eq!(m.work, Work::Login { node: name.clone() });
        let got = site.call(&n1, own(&jws, &n1)).await.unwrap();
        let key = n1.key().unwrap();
        let now = site.clock.now();
        let (who, claims) = verify_ticket_of(&site.trust, &got.ticket, (&name, key), now).unwrap();
        assert_eq!(who, member(VO, "alice@rennes"));
        assert_eq!(claims.job, None);
        assert!(claims.expires.since(now) <= 15 * MINUTE);
    }
}

/// If it failed, a rooted node could act for a person at every other node, or as long as jobs run.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_a_ticket_for_itself_and_for_logins_alone() {
    let (rennes, pisa, alice) = grid().await;
    let (n1, n2) = (node(&pisa, "n1").await, node(&pisa, "n2").await);
    let jws = mandate(&rennes, &alice, "n1.pisa").await;
    let denied = |e: xos_base::Error, word: &str| {
        assert!(e.kind == Kind::Denied && e.message.contains(word), "{e}");
    };
    // For another node; with a key of another; the mandate of another's login; without any.
    denied(pisa.call(&n1, own(&jws, &n2)).await.unwrap_err(), "no ticket for n2.pisa");
    let others_key = IssueTicket { node_key: n2.key().unwrap().into(), ..own(&jws, &n1) };
    denied(pisa.call(&n1, others_key).await.unwrap_err(), "no key of n1.pisa");
    denied(pisa.call(&n2, own(&jws, &n2)).await.unwrap_err(), "logins to n1.pisa");
    let e = pisa.call(&n1, own("x", &n1)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
    // At another core than its own, the VO's home too.
    let at_home = join(&pisa, &invite(&pisa, "n3").await, &keyed()).await.unwrap();
    let at_home = rennes.by_certificate(&at_home.chain_pem).unwrap();
    denied(rennes.call(&at_home, own(&jws, &at_home)).await.unwrap_err(), "no machine of");
    // For a job.
    let signed = alice.sign(&submission("pisa", 1, rennes.clock.now()));
    let job = ask("1.pisa", MandateProof::Submission(signed));
    let job = rennes.call(&rennes.core_of(&pisa), job).await.unwrap();
    denied(pisa.call(&n1, own(&job, &n1)).await.unwrap_err(), "for a job");
    // Once it was removed.
    pisa.call(&n1, own(&jws, &n1)).await.unwrap();
    let root = pisa.root().await;
    pisa.call(&root, RemoveNode { node: n1.node().unwrap().clone() }).await.unwrap();
    denied(pisa.call(&n1, own(&jws, &n1)).await.unwrap_err(), "no machine of");
}

/// If it failed, a core could use what a person gave one node for its others.
#[tokio::test]
async fn at_the_home_too_it_is_for_that_node() {
    let (rennes, pisa, alice) = grid().await;
    let jws = mandate(&rennes, &alice, "n1.pisa").await;
    let core = rennes.core_of(&pisa);
    let ticket = |node: &str| IssueTicket {
        mandate: jws.clone(),
        node: node.parse().unwrap(),
        node_key: "0f".repeat(32),
    };
    rennes.call(&core, ticket("n1.pisa")).await.unwrap();
    let e = rennes.call(&core, ticket("n2.pisa")).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("logins to n1.pisa"), "{e}");
    // The member leaves: no more tickets.
    rennes.vos.members.lock().unwrap().clear();
    let e = rennes.call(&core, ticket("n1.pisa")).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "{e}");
}

/// If it failed, who holds a token of a person, a script or another site's core, could have any
/// node act for them.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_certificate_of_the_vo_is_a_proof() {
    let (rennes, pisa, alice) = grid().await;
    let person = rennes.by_certificate(&alice.chain_pem).unwrap();
    let token = IssueToken { vo: VO.parse().unwrap(), audience: None, groups: None, roles: None };
    let by_token = rennes.by_token(&rennes.call(&person, token).await.unwrap().token);
    let signed_in = rennes.sign_in("alice", crate::world::ADMIN_PASSWORD).await.unwrap();
    let plain = rennes.by_token(&signed_in.token.token);
    let n1 = node(&rennes, "n1").await;
    for caller in [&by_token, &plain, &n1, &rennes.core_of(&pisa)] {
        let e = rennes.call(caller, login("n1.pisa")).await.unwrap_err();
        assert_eq!(e.kind, Kind::Denied, "{}: {e}", caller.describe());
    }
    rennes.vos.set(member("other.rennes", "alice@rennes"));
    let other = certificate_request("other.rennes", &keyed().csr_pem);
    let other = rennes.call(&plain, other).await.unwrap();
    let other = rennes.by_certificate(&other.chain_pem).unwrap();
    let e = rennes.call(&other, login("n1.pisa")).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("another VO"), "{e}");

    // A VO of pisa: pisa alone says who signs in where.
    for w in [&rennes, &pisa] {
        w.vos.set(member("demo.pisa", "alice@rennes"));
    }
    let at_pisa = RenewToken { audience: Some("pisa".parse().unwrap()) };
    let at_pisa = pisa.by_token(&rennes.call(&plain, at_pisa).await.unwrap().token.token);
    let ask = certificate_request("demo.pisa", &keyed().csr_pem);
    let got = pisa.call(&at_pisa, ask).await.unwrap();
    let foreign = rennes.by_certificate(&got.chain_pem).unwrap();
    let vo = "demo.pisa".parse().unwrap();
    let e = rennes.call(&foreign, IssueLoginMandate { vo, ..login("n1.pisa") }).await.unwrap_err();
    assert!(e.message.contains("home at site pisa"), "{e}");
}

#[tokio::test]
async fn a_node_of_a_site_that_does_not_serve_the_vo_is_refused() {
    let (rennes, _pisa, alice) = grid().await;
    let person = rennes.by_certificate(&alice.chain_pem).unwrap();
    for node in ["n1.lyon", "n1.rennes"] {
        let e = rennes.call(&person, login(node)).await.unwrap_err();
        assert!(e.kind == Kind::Denied && e.message.contains("does not serve"), "{e}");
    }
}

/// If it failed, a login would give a node more than the person showed, or for longer.
#[tokio::test]
async fn a_mandate_is_as_narrow_and_as_short_as_its_proof() {
    let (rennes, _pisa, alice) = grid().await;
    let person = rennes.by_certificate(&alice.chain_pem).unwrap();
    let narrow = IssueCertificate {
        groups: Some(vec![]),
        roles: Some(vec![]),
        ..certificate_request(VO, &keyed().csr_pem)
    };
    let narrow = rennes.call(&person, narrow).await.unwrap();
    let caller = rennes.by_certificate(&narrow.chain_pem).unwrap();
    let read = |jws: &str| verify_mandate(&rennes.trust, jws, rennes.clock.now()).unwrap();
    let m = read(&rennes.call(&caller, login("n1.pisa")).await.unwrap());
    assert_eq!((m.membership.groups.len(), m.membership.roles.len()), (1, 0));
    assert_eq!(m.until, narrow.expires, "it outlives the certificate");

    let mut ending = member(VO, "alice@rennes");
    let end = rennes.clock.now().plus(5 * MINUTE);
    ending.expires = Some(end);
    rennes.vos.set(ending.clone());
    let m = read(&rennes.call(&person, login("n1.pisa")).await.unwrap());
    assert_eq!(m.until, end, "it outlives the membership");
    ending.epoch = Epoch(4);
    rennes.vos.set(ending);
    let e = rennes.call(&person, login("n1.pisa")).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
}
