//! What reaches other sites of a site's keys: that a node's was withdrawn, and never that a thief
//! has new ones.

use crate::machines::{invite, join};
use crate::sites::{accept, offer};
use crate::world::{World, keyed};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use xos_api::cda::RemoveNode;
use xos_api::site::{GetSite, SiteDescriptor, WithdrawnKeys};
use xos_base::when::Clock;
use xos_net::http::Shared;
use xos_net::key::{KeyKind, LocalKey};
use xos_net::port::{self, Services};
use xos_net::sign::{Kind, Signer, vouch};
use xos_net::{Nodes, Router};

/// Two sites that trust one another.
pub async fn pair() -> (World, World) {
    let (rennes, pisa) = (World::new("rennes").await, World::new("pisa").await);
    accept(&pisa, &offer(&rennes, "pisa", None).await).await.unwrap();
    (rennes, pisa)
}

/// Looks again and again until it is so; a minute at most.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not come to this within a minute: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_soon_refused_by_other_sites_and_after_their_restart() {
    let (rennes, pisa) = pair().await;
    let (k1, k2) = (keyed(), keyed());
    let n1 = join(&rennes, &invite(&rennes, "n1").await, &k1).await.unwrap();
    let n2 = join(&rennes, &invite(&rennes, "n2").await, &k2).await.unwrap();
    pisa.by_certificate(&n1.chain_pem).unwrap();
    let root = rennes.root().await;
    rennes.call(&root, RemoveNode { node: n1.node.clone() }).await.unwrap();
    // The next refresh is ten minutes away: rennes itself says that there is something new.
    until("pisa refuses the removed node", || pisa.by_certificate(&n1.chain_pem).is_err()).await;
    pisa.by_certificate(&n2.chain_pem).expect("another node is refused too");
    let again = pisa.restarted().await.unwrap();
    assert!(again.by_certificate(&n1.chain_pem).is_err(), "a restart forgot what was withdrawn");
    again.by_certificate(&n2.chain_pem).unwrap();
    // Nodes and later partners learn it from the descriptor.
    let told = rennes.restarted().await.unwrap().cda.descriptor();
    assert!(told.withdrawn.is_some(), "the home's restart forgot it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_comes_to_know_another_learns_what_that_withdrew_before() {
    let (rennes, pisa) = (World::new("rennes").await, World::new("pisa").await);
    let n1 = join(&rennes, &invite(&rennes, "n1").await, &keyed()).await.unwrap();
    let root = rennes.root().await;
    rennes.call(&root, RemoveNode { node: n1.node }).await.unwrap();
    accept(&pisa, &offer(&rennes, "pisa", None).await).await.unwrap();
    until("pisa refuses the removed node", || pisa.by_certificate(&n1.chain_pem).is_err()).await;
}

/// Somebody with the core's own key and nothing else answers in the core's place.
struct Thief {
    says: Arc<Mutex<SiteDescriptor>>,
    asked: Arc<AtomicUsize>,
    address: String,
    stop: CancellationToken,
}

impl Drop for Thief {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Thief {
    async fn of(robbed: &World) -> Thief {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let says = Arc::new(Mutex::new(robbed.cda.descriptor()));
        let mut router = Router::new();
        let (said, asked) = (says.clone(), Arc::new(AtomicUsize::new(0)));
        let count = asked.clone();
        router.public::<GetSite, _, _>(move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
            let said = said.lock().unwrap().clone();
            async move { Ok(said) }
        });
        let verifier = robbed.verifier.clone();
        let runtime = tokio::runtime::Handle::current();
        let router = Arc::new(router);
        let http = Shared { router, verifier: verifier.clone(), runtime, pages: None };
        let nodes = Nodes::new(robbed.site.clone());
        let services = Services { http, verifier, nodes, files: None };
        let (identity, stop) = (robbed.keys.core_identity(), CancellationToken::new());
        let stopped = stop.clone();
        tokio::spawn(async move {
            let config = port::Config { http_workers: 1, ..port::Config::default() };
            port::serve(listener, &config, &identity, services, stopped).await.unwrap();
        });
        Thief { says, asked, address, stop }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_core_key_brings_no_signing_keys_and_no_withdrawn_key_back() {
    let (rennes, pisa) = pair().await;
    let joined = join(&rennes, &invite(&rennes, "n1").await, &keyed()).await.unwrap();
    let before = rennes.cda.descriptor();
    let root = rennes.root().await;
    rennes.call(&root, RemoveNode { node: joined.node }).await.unwrap();
    until("pisa refuses the node", || pisa.by_certificate(&joined.chain_pem).is_err()).await;
    let thief = Thief::of(&rennes).await;
    // Whoever answers at that address, by whatever trick, is asked. A restart leaves no connection
    // to the true core.
    let pisa = pisa.restarted().await.unwrap();
    let mut known = rennes.cda.descriptor();
    known.addresses = vec![thief.address.clone()];
    pisa.trust.add(known.clone()).unwrap();

    let own = Signer::generate().unwrap();
    let statement = |s: &Signer| s.sign(Kind::Ticket, &serde_json::json!({"a": 1})).unwrap();
    let believed = |s: &Signer| {
        let jws = statement(s);
        pisa.trust.verify::<serde_json::Value>(Kind::Ticket, &jws, &rennes.site).is_ok()
    };
    let later = rennes.clock.now().plus(Duration::from_secs(1));
    let some_root = LocalKey::from_pkcs8(KeyKind::P256, &keyed().key.serialize_der()).unwrap();
    let keys = vec![own.public(), rennes.keys.signer().public()];
    let by_another_root =
        vouch(&some_root, &xos_api::site::SiteKeys::signing(&rennes.site, keys.clone(), later))
            .unwrap();
    let said = serde_json::json!({"site": "rennes", "keys": keys, "issued": later});
    let by_itself = own.sign(Kind::SiteKeys, &said).unwrap();
    let nothing = WithdrawnKeys { site: rennes.site.clone(), keys: vec![], issued: later };
    let nothing = own.sign(Kind::Withdrawn, &nothing).unwrap();
    let own_raw = STANDARD.encode(LocalKey::generate(KeyKind::Ed25519).unwrap());
    for lie in [
        SiteDescriptor { keys: by_another_root, ..known.clone() },
        SiteDescriptor { keys: by_itself, ..known.clone() },
        SiteDescriptor { keys: own_raw, ..known.clone() },
        SiteDescriptor { withdrawn: Some(nothing), ..known.clone() },
        SiteDescriptor { withdrawn: None, ..known.clone() },
        SiteDescriptor { addresses: known.addresses.clone(), ..before },
    ] {
        *thief.says.lock().unwrap() = lie;
        let before = thief.asked.load(Ordering::SeqCst);
        pisa.cda.refresh_sites().await;
        assert_eq!(thief.asked.load(Ordering::SeqCst), before + 1, "the thief was not asked");
        assert!(believed(rennes.keys.signer()), "the site's own key is lost");
        assert!(!believed(&own), "the thief's key signs for the site");
        assert!(pisa.by_certificate(&joined.chain_pem).is_err(), "a withdrawn key is back");
    }
    let again = pisa.restarted().await.unwrap();
    assert!(again.by_certificate(&joined.chain_pem).is_err(), "a withdrawn key is back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_signing_key_that_the_root_vouches_for_is_taken() {
    // Else a site could never replace a key that leaked.
    let (rennes, pisa) = pair().await;
    let file = rennes.dir.path().join("ca/signing.pem");
    let old = rennes.keys.signer().public();
    let pkcs8 = STANDARD.encode(LocalKey::generate(KeyKind::Ed25519).unwrap());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{pkcs8}\n-----END PRIVATE KEY-----\n");
    let sign =
        |w: &World| w.keys.signer().sign(Kind::Ticket, &serde_json::json!({"a": 1})).unwrap();
    let by_old = sign(&rennes);
    std::fs::write(&file, pem).unwrap();
    rennes.clock.advance(Duration::from_secs(1));
    let moved = rennes.restarted().await.unwrap();
    // A restart leaves no connection to the core that was.
    let pisa = pisa.restarted().await.unwrap();
    assert_ne!(moved.keys.signer().public(), old);
    let mut known = pisa.trust.descriptor(&rennes.site).unwrap();
    known.addresses = moved.cda.descriptor().addresses;
    pisa.trust.add(known).unwrap();
    pisa.cda.refresh_sites().await;
    let verify =
        |jws: &str| pisa.trust.verify::<serde_json::Value>(Kind::Ticket, jws, &rennes.site).is_ok();
    assert!(verify(&sign(&moved)), "the new key does not count");
    assert!(!verify(&by_old), "the old key still counts");
}
