use crate::world::Site;
use crate::{apply, found, id, join};
use xos_api::vom::*;
use xos_base::{Kind, Millis};
use xos_net::Standing;
use xos_net::{Client, Proof};

#[tokio::test(flavor = "multi_thread")]
async fn from_founding_to_a_credential() {
    let rennes = Site::new("rennes").await;
    let _vom = rennes.start().await;
    found(&rennes).await;
    let bob = rennes.own("bob");

    // Anybody may list; who has proved nothing may do no more. Over the wire.
    let client = Client::new(rennes.id.clone(), &rennes.trust, &Proof::None).unwrap();
    let page = client.call(ListVos::default()).await.unwrap();
    assert_eq!(page.vos[0].vo.as_str(), "demo.rennes");
    let e = client.call(GetVo { vo: id("demo.rennes") }).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated);

    let seen = rennes.ask(&bob, GetVo { vo: id("demo.rennes") }).await.unwrap();
    assert!(seen.details.is_none() && seen.me.is_none(), "strangers see no members");
    let members = ListMembers { vo: id("demo.rennes"), after: None, limit: None };
    assert_eq!(rennes.ask(&bob, members.clone()).await.unwrap_err().kind, Kind::Denied);

    join(&rennes, &bob, "demo.rennes").await;
    assert_eq!(rennes.ask(&bob, members).await.unwrap().members.len(), 2);
    let asked = ListApplications { vo: id("demo.rennes"), after: None, limit: None };
    assert_eq!(rennes.ask(&bob, asked).await.unwrap_err().kind, Kind::Denied);

    let of = MembershipOf { vo: id("demo.rennes"), person: id("bob@rennes"), since: None };
    assert_eq!(rennes.ask(&bob, of.clone()).await.unwrap_err().kind, Kind::Denied);
    let m = rennes.serve_ask(of.clone()).await.unwrap().membership;
    assert_eq!((m.number.0, m.epoch.0), (2, 1));
    let all = rennes.serve_ask(Memberships { person: id("bob@rennes") }).await.unwrap();
    assert_eq!(all[0].member.number, m.number);
    let others = Memberships { person: id("alice@rennes") };
    assert_eq!(rennes.ask(&bob, others).await.unwrap_err().kind, Kind::Denied);

    // With the credential: what both it and the VO say.
    let member = rennes.caller(&rennes, "bob@rennes", Some(&m), false);
    assert_eq!(member.member().unwrap(), &m);
    let r = SuspendMember { vo: id("demo.rennes"), person: id("bob@rennes"), reason: "x".into() };
    assert_eq!(rennes.ask(&member, r.clone()).await.unwrap_err().kind, Kind::Denied);
    rennes.ask(&rennes.own("alice"), r).await.unwrap();
    assert_eq!(rennes.serve_ask(of).await.unwrap_err().kind, Kind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_texts_are_checked_before_anything_is_stored() {
    let rennes = Site::new("rennes").await;
    let _vom = rennes.start().await;
    let alice = rennes.own("alice");
    let f = |label: &str, title: &str| FoundVo {
        label: label.into(),
        title: title.into(),
        description: String::new(),
    };
    for (label, title) in [
        ("", "t"),
        ("a\nb", "t"),
        ("../x", "t"),
        ("Demo", "t"),
        ("demo", ""),
        ("demo", "a\u{7}b"),
        ("demo", &"x".repeat(TITLE_MAX + 1)),
    ] {
        let e = rennes.ask(&alice, f(label, title)).await.unwrap_err();
        assert_eq!(e.kind, Kind::Invalid, "{label:?} {title:?}");
    }
    assert!(rennes.grid.call(&rennes.id, ListVos::default()).await.unwrap().vos.is_empty());
    rennes.ask(&alice, f("demo", "Demo")).await.unwrap();
    assert_eq!(rennes.ask(&alice, f("demo", "Demo")).await.unwrap_err().kind, Kind::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_knows_all_that_was_acknowledged() {
    let rennes = Site::new("rennes").await;
    let vom = rennes.start().await;
    found(&rennes).await;
    let alice = rennes.own("alice");
    // Enough changes for a checkpoint and some entries after it.
    for i in 0..300 {
        let r = CreateGroup { vo: id("demo.rennes"), name: id(&format!("g{i}")) };
        rennes.ask(&alice, r).await.unwrap();
    }
    join(&rennes, &rennes.own("bob"), "demo.rennes").await;
    let before = rennes.ask(&alice, GetVo { vo: id("demo.rennes") }).await.unwrap();
    let of = MembershipOf { vo: id("demo.rennes"), person: id("bob@rennes"), since: None };
    let m = rennes.serve_ask(of).await.unwrap().membership;
    vom.stop();

    let mut again = Site::new("rennes").await;
    again.store = rennes.store.clone();
    let vom = again.start().await;
    let after = again.ask(&again.own("alice"), GetVo { vo: id("demo.rennes") }).await.unwrap();
    assert_eq!(before, after);
    assert_eq!(vom.effective(&m, Millis(1)).unwrap(), m);
    let key = xos_store::Key::of(["vom", "vo", "demo.rennes", "checkpoint"]).unwrap();
    assert!(again.store.get(&key).await.unwrap().is_some(), "no checkpoint was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_cores_of_a_site_make_one_log() {
    // Two voms over one registry: each decides on what the other has stored.
    let rennes = Site::new("rennes").await;
    let _vom = rennes.start().await;
    found(&rennes).await;
    let mut twin = Site::new("rennes").await;
    twin.store = rennes.store.clone();
    let _twin = twin.start().await;
    let make = |name: &str| CreateGroup { vo: id("demo.rennes"), name: id(name) };
    let (a, b) = (rennes.own("alice"), twin.own("alice"));
    let mut numbers = Vec::new();
    for i in 0..10 {
        let (one, two) = (make(&format!("a{i}")), make(&format!("b{i}")));
        let (x, y) = tokio::join!(rennes.ask(&a, one), twin.ask(&b, two));
        numbers.extend([x.unwrap().number.0, y.unwrap().number.0]);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (2..22).collect::<Vec<u32>>(), "a number was given twice or lost");
    assert_eq!(twin.ask(&b, make("a0")).await.unwrap_err().kind, Kind::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_site_serves_its_vo_after_offer_and_acceptance() {
    let rennes = Site::new("rennes").await;
    let _vom = rennes.start().await;
    found(&rennes).await;
    let offer = OfferShare {
        vo: id("demo.rennes"),
        cpu_milli: 4000,
        memory_bytes: 1 << 30,
        storage_bytes: 0,
        until: None,
        base: None,
    };
    let alice = rennes.own("alice");
    assert_eq!(rennes.ask(&alice, offer.clone()).await.unwrap_err().kind, Kind::Denied);
    let served = rennes.ask(&rennes.admin(), offer.clone()).await.unwrap();
    assert!(!served.serving && served.offered.is_some(), "{served:?}");
    assert_eq!(served.base, 1_879_048_192);
    let r = AcceptShare { vo: id("demo.rennes"), site: id("rennes"), version: 1 };
    rennes.ask(&alice, r).await.unwrap();
    let served = rennes.serve_ask(ServedVos {}).await.unwrap();
    assert!(served[0].serving && served[0].trouble.is_none(), "{served:?}");
    let view = rennes.serve_ask(VoView { vo: id("demo.rennes") }).await.unwrap();
    assert_eq!(view.sites[0].site.as_str(), "rennes");
    let other = OfferShare { base: Some(2_000_000_000), ..offer };
    let e = rennes.ask(&rennes.admin(), other).await.unwrap_err();
    assert_eq!(e.kind, Kind::Conflict, "uids of files that exist cannot change");
    let heard = rennes.ear.clone();
    crate::world::until("the node has the accounts", || {
        let heard = heard.heard.lock().unwrap();
        let last = heard.iter().find(|a| a.full && a.state == AccountState::Active)?;
        (last.members[0].name == "alice.demo.rennes" && !last.more).then_some(())
    })
    .await;
}

/// If it failed, one person could fill the site's list of VOs: by giving each away, or by founding
/// many at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_founds_so_many_vos_given_away_or_at_once() {
    let rennes = Site::new("rennes").await;
    let _vom = rennes.start().await;
    found(&rennes).await;
    let (alice, bob) = (rennes.own("alice"), rennes.own("bob"));
    join(&rennes, &bob, "demo.rennes").await;
    let (vo, person) = (id("demo.rennes"), id("bob@rennes"));
    rennes.ask(&alice, GrantRole { vo, person, role: id("owner") }).await.unwrap();
    let r =
        RemoveMember { vo: id("demo.rennes"), person: id("alice@rennes"), reason: String::new() };
    rennes.ask(&bob, r).await.unwrap();
    let more = (0..30).map(|i| FoundVo {
        label: format!("v{i}"),
        title: "t".into(),
        description: String::new(),
    });
    let asked = more.map(|r| rennes.ask(&alice, r));
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 19, "20 with the one given away");
    let e = answers.into_iter().find_map(Result::err).unwrap();
    assert_eq!(e.kind, Kind::Limited, "{e}");
    let r = FoundVo { label: "bobs".into(), title: "t".into(), description: String::new() };
    rennes.ask(&bob, r).await.expect("owning is not founding");
}

/// If it failed, the home would go on renewing after what the VO set, or its members not see it.
#[tokio::test(flavor = "multi_thread")]
async fn the_home_is_told_how_long_credentials_are_renewed() {
    let rennes = Site::new("rennes").await;
    let _vom = rennes.start().await;
    found(&rennes).await;
    let alice = rennes.own("alice");
    let of = MembershipOf { vo: id("demo.rennes"), person: id("alice@rennes"), since: None };
    let told = rennes.serve_ask(of.clone()).await.unwrap();
    assert_eq!(told.renewal_s, RENEWAL_S_DEFAULT);
    let set = |renewal_s| SetRenewal { vo: id("demo.rennes"), renewal_s, base: None };
    let e = rennes.ask(&rennes.own("bob"), set(7200)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied);
    assert_eq!(rennes.ask(&alice, set(60)).await.unwrap_err().kind, Kind::Invalid);
    rennes.ask(&alice, set(7200)).await.unwrap();
    let now = rennes.serve_ask(of).await.unwrap();
    assert_eq!(now.renewal(), std::time::Duration::from_secs(7200));
    assert_eq!(now.membership, told.membership, "nobody must sign in again for it");
    let info = rennes.ask(&alice, GetVo { vo: id("demo.rennes") }).await.unwrap();
    assert_eq!(info.details.unwrap().renewal_s, Some(7200));
}

/// If it failed, a credential in one VO would tell its holder's place in others, and a person could
/// fill a log by applying and withdrawing.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_of_another_vo_sees_nothing_and_withdrawals_count() {
    let rennes = Site::new("rennes").await;
    let _vom = rennes.start().await;
    found(&rennes).await;
    let alice = rennes.own("alice");
    let r = FoundVo { label: "other".into(), title: "t".into(), description: String::new() };
    rennes.ask(&alice, r).await.unwrap();
    let of = MembershipOf { vo: id("other.rennes"), person: id("alice@rennes"), since: None };
    let m = rennes.serve_ask(of).await.unwrap().membership;
    let other = rennes.caller(&rennes, "alice@rennes", Some(&m), false);
    let info = rennes.ask(&other, GetVo { vo: id("demo.rennes") }).await.unwrap();
    assert!(info.me.is_none() && info.application.is_none() && info.details.is_none(), "{info:?}");
    let info = rennes.ask(&other, GetVo { vo: id("other.rennes") }).await.unwrap();
    assert!(info.me.is_some());

    let bob = rennes.own("bob");
    let vo = || id("demo.rennes");
    for _ in 0..10 {
        rennes.ask(&bob, apply("demo.rennes", "")).await.unwrap();
        rennes.ask(&bob, WithdrawApplication { vo: vo() }).await.unwrap();
    }
    let e = rennes.ask(&bob, apply("demo.rennes", "")).await.unwrap_err();
    assert_eq!(e.kind, Kind::Limited, "{e}");
}
