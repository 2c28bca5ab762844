//! Trust between sites, over the real port.

use crate::world::World;
use std::time::Duration;
use xos_api::cda::{
    AcceptTrust, CompleteTrust, ForgetSite, ListSites, OfferTrust, ReadOffer, SiteStatement,
    TrustOffer,
};
use xos_api::site::GetSite;
use xos_base::{Error, Kind};

const DAY: Duration = Duration::from_secs(24 * 3600);

pub async fn offer(from: &World, to: &str, fingerprint: Option<String>) -> TrustOffer {
    let root = from.root().await;
    from.call(&root, OfferTrust { site: to.parse().unwrap(), fingerprint }).await.unwrap()
}

pub async fn accept(at: &World, o: &TrustOffer) -> Result<(), Error> {
    let root = at.root().await;
    let r = AcceptTrust { offer: o.offer.clone(), fingerprint: o.fingerprint.clone() };
    at.call(&root, r).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_administrators_make_two_sites_trust_each_other() {
    let (rennes, pisa) = (World::new("rennes").await, World::new("pisa").await);
    let o = offer(&rennes, "pisa", None).await;
    let root = pisa.root().await;
    let view = pisa.call(&root, ReadOffer { offer: o.offer.clone() }).await.unwrap();
    assert_eq!((view.site.as_str(), &view.fingerprint), ("rennes", &o.fingerprint));
    assert!(pisa.grid.call(&rennes.site, GetSite {}).await.is_err(), "nobody accepted yet");
    accept(&pisa, &o).await.unwrap();
    accept(&pisa, &o).await.expect("the answer may have been lost");
    assert_eq!(pisa.grid.call(&rennes.site, GetSite {}).await.unwrap(), rennes.cda.descriptor());
    assert_eq!(rennes.grid.call(&pisa.site, GetSite {}).await.unwrap(), pisa.cda.descriptor());
    let listed = pisa.call(&root, ListSites {}).await.unwrap();
    let names: Vec<_> = listed.iter().map(|s| s.descriptor.site.as_str()).collect();
    assert_eq!(names, ["pisa", "rennes"]);

    // A restarted core still trusts, and its new address reaches the other by the refresh.
    let moved = rennes.restarted().await.unwrap();
    assert_ne!(moved.cda.descriptor(), rennes.cda.descriptor());
    moved.cda.refresh_sites().await;
    assert!(moved.trust.descriptor(&pisa.site).is_ok());
    pisa.trust.add(moved.cda.descriptor()).unwrap();
    pisa.cda.refresh_sites().await;
    let again = pisa.restarted().await.unwrap();
    assert_eq!(again.trust.descriptor(&rennes.site).unwrap().root, moved.cda.descriptor().root);

    let forget = ForgetSite { site: rennes.site.clone() };
    pisa.call(&root, forget).await.unwrap();
    assert!(pisa.trust.descriptor(&rennes.site).is_err());
    assert!(pisa.restarted().await.unwrap().trust.descriptor(&rennes.site).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_descriptor_is_fetched_and_kept() {
    let (rennes, pisa) = (World::new("rennes").await, World::new("pisa").await);
    accept(&pisa, &offer(&rennes, "pisa", None).await).await.unwrap();
    // Pisa's view is older than what rennes says now.
    let mut old = rennes.cda.descriptor();
    old.addresses.push("127.0.0.1:1".into());
    pisa.trust.add(old).unwrap();
    pisa.cda.refresh_sites().await;
    assert_eq!(pisa.trust.descriptor(&rennes.site).unwrap(), rennes.cda.descriptor());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_fingerprint_a_changed_late_or_misdirected_offer_is_refused() {
    let (rennes, pisa) = (World::new("rennes").await, World::new("pisa").await);
    let good = offer(&rennes, "pisa", None).await;
    let wrong = TrustOffer { fingerprint: pisa.keys.fingerprint(), ..good.clone() };
    assert_eq!(accept(&pisa, &wrong).await.unwrap_err().kind, Kind::Denied);
    let elsewhere = offer(&rennes, "lyon", None).await;
    let e = accept(&pisa, &elsewhere).await.unwrap_err();
    assert!(e.message.contains("for site lyon"), "{e}");
    for at in [5, good.offer.len() / 2, good.offer.len() - 5] {
        let mut bytes = good.offer.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = TrustOffer { offer: String::from_utf8(bytes).unwrap(), ..good.clone() };
        accept(&pisa, &changed).await.unwrap_err();
    }
    pisa.clock.advance(DAY);
    let e = accept(&pisa, &good).await.unwrap_err();
    assert!(e.message.contains("expired"), "{e}");
    assert!(rennes.trust.descriptor(&pisa.site).is_err());
    assert!(pisa.trust.descriptor(&rennes.site).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_the_offer_on_the_way_is_kept_out_by_the_pinned_root_or_comes_too_late() {
    let (rennes, pisa) = (World::new("rennes").await, World::new("pisa").await);
    // Mallory reads the offer and calls herself pisa.
    let mallory = World::new("pisa").await;
    let pinned = offer(&rennes, "pisa", Some(pisa.keys.fingerprint())).await;
    assert_eq!(accept(&mallory, &pinned).await.unwrap_err().kind, Kind::Denied);
    accept(&pisa, &pinned).await.unwrap();
    let open = offer(&rennes, "lyon", None).await;
    let (lyon, thief) = (World::new("lyon").await, World::new("lyon").await);
    accept(&lyon, &open).await.unwrap();
    accept(&thief, &open).await.unwrap_err();
    assert_eq!(rennes.trust.descriptor(&lyon.site).unwrap().root, lyon.cda.descriptor().root);
}

#[tokio::test]
async fn completing_needs_the_secret() {
    let (rennes, pisa) = (World::new("rennes").await, World::new("pisa").await);
    let statement = SiteStatement {
        from: pisa.cda.descriptor(),
        to: rennes.site.clone(),
        secret: None,
        expires: xos_base::Millis(u64::MAX),
    };
    let statement = pisa.keys.signer().sign(xos_net::sign::Kind::SiteOffer, &statement).unwrap();
    let uninvited = CompleteTrust { site: pisa.site.clone(), statement, proof: "00".repeat(32) };
    assert_eq!(rennes.public(uninvited.clone()).await.unwrap_err().kind, Kind::Denied);
    offer(&rennes, "pisa", None).await;
    for proof in ["00".repeat(32), "zz".into(), String::new(), "é".into()] {
        let bad = CompleteTrust { proof, ..uninvited.clone() };
        assert_eq!(rennes.public(bad).await.unwrap_err().kind, Kind::Denied);
    }
    assert!(rennes.trust.descriptor(&pisa.site).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_site_with_a_new_root_must_be_forgotten_first() {
    // Else who takes over a site's name would take over its trust.
    let (rennes, pisa) = (World::new("rennes").await, World::new("pisa").await);
    accept(&pisa, &offer(&rennes, "pisa", None).await).await.unwrap();
    let anew = World::new("pisa").await;
    let e = accept(&anew, &offer(&rennes, "pisa", None).await).await.unwrap_err();
    assert_eq!(e.kind, Kind::Conflict, "{e}");
    let root = rennes.root().await;
    rennes.call(&root, ForgetSite { site: pisa.site.clone() }).await.unwrap();
    accept(&anew, &offer(&rennes, "pisa", None).await).await.unwrap();
}

#[tokio::test]
async fn a_site_does_not_invite_or_forget_itself() {
    let w = World::new("rennes").await;
    let root = w.root().await;
    let own = OfferTrust { site: w.site.clone(), fingerprint: None };
    assert_eq!(w.call(&root, own).await.unwrap_err().kind, Kind::Invalid);
    let forget = ForgetSite { site: w.site.clone() };
    assert_eq!(w.call(&root, forget).await.unwrap_err().kind, Kind::Invalid);
}
