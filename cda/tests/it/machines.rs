//! Machines: join tokens, renewal, removal.

use crate::world::{Keyed, World, keyed, keyed_with};
use rcgen::{BasicConstraints, IsCa, PKCS_ECDSA_P256_SHA256};
use std::sync::Arc;
use std::time::Duration;
use xos_api::cda::{
    CreateJoinToken, JoinMachine, JoinToken, Joined, ListMachines, RemoveNode, RenewMachine,
};
use xos_base::{Error, Kind, NodeId};
use xos_net::trust::Usage;
use xos_net::{Caller, Client, ClusterNames, Identity};

const HOUR: Duration = Duration::from_secs(3600);

pub async fn invite(w: &World, label: &str) -> JoinToken {
    let root = w.root().await;
    w.call(&root, CreateJoinToken { label: label.into() }).await.unwrap().token
}

pub async fn join(w: &World, token: &JoinToken, k: &Keyed) -> Result<Joined, Error> {
    w.public(JoinMachine { token: token.clone(), csr_pem: k.csr_pem.clone() }).await
}

/// A machine that joined `w`, as its core knows it.
pub async fn node(w: &World, label: &str) -> Caller {
    let joined = join(w, &invite(w, label).await, &keyed()).await.unwrap();
    w.by_certificate(&joined.chain_pem).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_joins_over_tls_and_renews_by_its_certificate() {
    let w = World::new("rennes").await;
    let token = invite(&w, "n1").await;
    let root_print = w.keys.fingerprint();
    assert_eq!(format!("sha256:{}", token.root), root_print, "the machine checks its core by it");
    let k = keyed();
    let joined = join(&w, &token, &k).await.unwrap();
    assert_eq!(joined.node.as_str(), "n1.rennes");
    assert_eq!(joined.site, w.cda.descriptor());
    let identity = Identity::from_pem(&joined.chain_pem, &k.key.serialize_pem()).unwrap();
    for usage in [Usage::Client, Usage::Server] {
        w.trust.verify_chain(identity.chain(), usage, joined.site_now()).unwrap();
    }
    let client = Client::with_identity(w.site.clone(), &w.trust, identity).unwrap();
    let fresh = keyed();
    let again = client.call(RenewMachine { csr_pem: fresh.csr_pem.clone() }).await.unwrap();
    assert_eq!(again.node, joined.node);
    let root = w.root().await;
    let machines = w.call(&root, ListMachines {}).await.unwrap();
    assert_eq!(machines.len(), 1);
    assert_eq!(machines[0].certificate_until.secs(), again.expires.secs());
}

trait Now {
    fn site_now(&self) -> xos_base::Millis;
}

impl Now for Joined {
    fn site_now(&self) -> xos_base::Millis {
        xos_base::Millis::of(std::time::SystemTime::now())
    }
}

struct OneCluster;

impl ClusterNames for OneCluster {
    fn has(&self, name: &NodeId) -> bool {
        name.as_str() == "c1.rennes"
    }

    fn keep_for_node(&self, name: &NodeId) -> Option<Box<dyn Send>> {
        if self.has(name) { None } else { Some(Box::new(())) }
    }
}

/// If it failed, a job for a cluster would go to a machine that joined under its name.
#[tokio::test]
async fn no_machine_joins_under_the_name_of_a_cluster() {
    let w = World::new("rennes").await;
    let before = invite(&w, "c1").await;
    let clusters: Arc<dyn ClusterNames> = Arc::new(OneCluster);
    w.cda.set_clusters(Arc::downgrade(&clusters));
    let root = w.root().await;
    let asked = w.call(&root, CreateJoinToken { label: "c1".into() }).await;
    assert_eq!(asked.unwrap_err().kind, Kind::Conflict);
    assert_eq!(join(&w, &before, &keyed()).await.unwrap_err().kind, Kind::Conflict);
    node(&w, "n1").await;
    assert!(w.cda.has_node(&"n1.rennes".parse().unwrap()).await.unwrap());
    assert!(!w.cda.has_node(&"c1.rennes".parse().unwrap()).await.unwrap());
}

#[tokio::test]
async fn a_join_token_holds_once_for_one_key_and_an_hour() {
    let w = World::new("rennes").await;
    let token = invite(&w, "n1").await;
    let k = keyed();
    join(&w, &token, &k).await.unwrap();
    join(&w, &token, &k).await.expect("the answer may have been lost");
    let e = join(&w, &token, &keyed()).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "another machine came with a used token: {e}");

    let late = invite(&w, "n2").await;
    w.clock.advance(HOUR);
    assert_eq!(join(&w, &late, &k).await.unwrap_err().kind, Kind::Unauthenticated);

    let mut other_node = invite(&w, "n3").await;
    other_node.node = "n1.rennes".parse().unwrap();
    assert_eq!(join(&w, &other_node, &k).await.unwrap_err().kind, Kind::Unauthenticated);
    let mut guessed = invite(&w, "n4").await;
    guessed.secret = "00".repeat(32);
    assert_eq!(join(&w, &guessed, &k).await.unwrap_err().kind, Kind::Unauthenticated);
}

#[tokio::test]
async fn asking_again_with_a_used_token_takes_nothing_from_the_node() {
    // Else who got hold of the old request could throw the node out by sending it again.
    let w = World::new("rennes").await;
    let token = invite(&w, "n1").await;
    let k = keyed();
    let first = join(&w, &token, &k).await.unwrap();
    let caller = w.by_certificate(&first.chain_pem).unwrap();
    let renew = RenewMachine { csr_pem: keyed().csr_pem };
    let renewed = w.call(&caller, renew).await.unwrap();
    join(&w, &token, &k).await.unwrap();
    let caller = w.by_certificate(&renewed.chain_pem).unwrap();
    w.call(&caller, RenewMachine { csr_pem: keyed().csr_pem }).await.unwrap();
}

#[tokio::test]
async fn a_bad_request_does_not_use_up_the_token() {
    let w = World::new("rennes").await;
    let token = invite(&w, "n1").await;
    let ca = keyed_with(&PKCS_ECDSA_P256_SHA256, |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    assert_eq!(join(&w, &token, &ca).await.unwrap_err().kind, Kind::Invalid);
    join(&w, &token, &keyed()).await.unwrap();
}

#[tokio::test]
async fn bad_labels_and_callers_get_no_token() {
    let w = World::new("rennes").await;
    let root = w.root().await;
    for bad in ["", "N1", "n1.rennes", "a\nb", &"a".repeat(300)] {
        let e = w.call(&root, CreateJoinToken { label: bad.into() }).await.unwrap_err();
        assert_eq!(e.kind, Kind::Invalid, "{bad:?}");
    }
    let alice = w.person("alice").await;
    let e = w.call(&alice, CreateJoinToken { label: "n1".into() }).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_refused_at_once_and_after_a_restart() {
    let w = World::new("rennes").await;
    let token = invite(&w, "n1").await;
    let k = keyed();
    let joined = join(&w, &token, &k).await.unwrap();
    let caller = w.by_certificate(&joined.chain_pem).unwrap();
    let renew = RenewMachine { csr_pem: keyed().csr_pem };
    let root = w.root().await;
    w.call(&root, RemoveNode { node: joined.node.clone() }).await.unwrap();
    let e = w.by_certificate(&joined.chain_pem).unwrap_err();
    assert!(e.message.contains("withdrawn"), "{e}");
    let e = w.call(&caller, renew).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "an old connection renewed a removed node: {e}");
    let e = join(&w, &token, &k).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "a withdrawn key joined again: {e}");
    let again = w.restarted().await.unwrap();
    assert!(again.by_certificate(&joined.chain_pem).is_err(), "a restart forgot the removal");
    let e = w.call(&root, RemoveNode { node: joined.node }).await.unwrap_err();
    assert_eq!(e.kind, Kind::NotFound);
}

#[tokio::test]
async fn a_machine_set_up_anew_takes_the_place_of_the_old_one() {
    let w = World::new("rennes").await;
    let old = join(&w, &invite(&w, "n1").await, &keyed()).await.unwrap();
    let new = join(&w, &invite(&w, "n1").await, &keyed()).await.unwrap();
    assert!(w.by_certificate(&old.chain_pem).is_err(), "the old disk still is the node");
    w.by_certificate(&new.chain_pem).unwrap();
}

#[tokio::test]
async fn another_sites_node_renews_nothing_here() {
    let (rennes, pisa) = (World::new("rennes").await, World::new("pisa").await);
    rennes.trusts(&pisa);
    let joined = join(&pisa, &invite(&pisa, "n1").await, &keyed()).await.unwrap();
    join(&rennes, &invite(&rennes, "n1").await, &keyed()).await.unwrap();
    let caller = rennes.by_certificate(&joined.chain_pem).unwrap();
    let e = rennes.call(&caller, RenewMachine { csr_pem: keyed().csr_pem }).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "{e}");
}
