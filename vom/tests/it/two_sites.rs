use crate::world::{Site, until};
use crate::{apply, found, id, join};
use futures_util::StreamExt;
use std::sync::atomic::Ordering;
use std::time::Duration;
use xos_api::vom::*;
use xos_base::{Kind, Membership};
use xos_net::Standing;
use xos_vom::{Kept, Vom};

async fn grid() -> (Site, Vom, Site, Vom) {
    let (rennes, pisa) = (Site::new("rennes").await, Site::new("pisa").await);
    rennes.trusts(&pisa);
    pisa.trusts(&rennes);
    let (home, replica) = (rennes.start().await, pisa.start().await);
    found(&rennes).await;
    (rennes, home, pisa, replica)
}

fn offer() -> OfferShare {
    OfferShare {
        vo: id("demo.rennes"),
        cpu_milli: 4000,
        memory_bytes: 1 << 30,
        storage_bytes: 0,
        until: None,
        base: Some(2_000_000_000),
    }
}

async fn accept(rennes: &Site, version: u32) {
    let r = AcceptShare { vo: id("demo.rennes"), site: id("pisa"), version };
    rennes.ask(&rennes.own("alice"), r).await.unwrap();
}

/// Waits until bob's credential is worth something at the replica, or not.
async fn worth(replica: &Vom, m: &Membership, kind: Option<Kind>) {
    until(&format!("standing {kind:?}"), || {
        let now = xos_base::when::Clock::now(&xos_base::when::SystemClock);
        let got = replica.effective(m, now).err().map(|e| e.kind);
        (got == kind).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_at_home_counts_elsewhere_within_moments() {
    let (rennes, _home, pisa, replica) = grid().await;
    let bob = rennes.caller(&pisa, "bob@pisa", None, false);
    join(&rennes, &bob, "demo.rennes").await;
    let of = MembershipOf { vo: id("demo.rennes"), person: id("bob@pisa"), since: None };
    let m = rennes.serve_ask(of.clone()).await.unwrap().membership;
    worth(&replica, &m, Some(Kind::Denied)).await;

    let served = pisa.ask(&pisa.admin(), offer()).await.unwrap();
    assert_eq!((served.base, served.serving), (2_000_000_000, false));
    worth(&replica, &m, Some(Kind::Denied)).await;
    accept(&rennes, 1).await;
    worth(&replica, &m, None).await;
    let served = pisa.serve_ask(ServedVos {}).await.unwrap();
    assert!(served[0].serving, "{served:?}");
    until("the node knows bob", || {
        let heard = pisa.ear.heard.lock().unwrap();
        heard.iter().any(|a| a.members.iter().any(|m| m.number.0 == 2)).then_some(())
    })
    .await;

    // A role, then its withdrawal: the old credential is void at pisa too.
    let role =
        |role: &str| GrantRole { vo: id("demo.rennes"), person: id("bob@pisa"), role: id(role) };
    rennes.ask(&rennes.own("alice"), role("pilot")).await.unwrap();
    let m = rennes.serve_ask(of).await.unwrap().membership;
    until("the role is there", || {
        let now = xos_base::when::Clock::now(&xos_base::when::SystemClock);
        replica.effective(&m, now).ok().filter(|m| m.has_role("pilot"))
    })
    .await;
    let r = WithdrawRole { vo: id("demo.rennes"), person: id("bob@pisa"), role: id("pilot") };
    rennes.ask(&rennes.own("alice"), r).await.unwrap();
    worth(&replica, &m, Some(Kind::Unauthenticated)).await;

    let r = RemoveMember { vo: id("demo.rennes"), person: id("bob@pisa"), reason: "left".into() };
    rennes.ask(&rennes.own("alice"), r).await.unwrap();
    worth(&replica, &m, Some(Kind::Denied)).await;
    until("the node ends bob's processes", || {
        let heard = pisa.ear.heard.lock().unwrap();
        let ended = |m: &AccountMember| m.number.0 == 2 && m.state == AccountState::Ended;
        heard.iter().any(|a| !a.full && a.members.iter().any(ended)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_ends_its_share_whatever_the_home_says() {
    let (rennes, home, pisa, replica) = grid().await;
    let alice = rennes.serve_ask(MembershipOf {
        vo: id("demo.rennes"),
        person: id("alice@rennes"),
        since: None,
    });
    let m = alice.await.unwrap().membership;
    pisa.ask(&pisa.admin(), offer()).await.unwrap();
    accept(&rennes, 1).await;
    worth(&replica, &m, None).await;
    let r = WithdrawShare { vo: id("demo.rennes"), reason: "power cut".into() };
    assert_eq!(pisa.ask(&pisa.own("eve"), r.clone()).await.unwrap_err().kind, Kind::Denied);
    pisa.ask(&pisa.admin(), r).await.unwrap();
    // At once here, without waiting for the home.
    let now = xos_base::when::Clock::now(&xos_base::when::SystemClock);
    assert_eq!(replica.effective(&m, now).unwrap_err().kind, Kind::Denied);
    home.effective(&m, now).unwrap();
    let mut state = ShareState::Accepted;
    for _ in 0..500 {
        let r = ListShares { vo: id("demo.rennes") };
        state = rennes.ask(&rennes.own("alice"), r).await.unwrap()[0].state;
        if state == ShareState::Withdrawn {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(state, ShareState::Withdrawn);
    // The same numbers when it comes back.
    let served = pisa.ask(&pisa.admin(), OfferShare { base: None, ..offer() }).await.unwrap();
    assert_eq!(served.base, 2_000_000_000);
    accept(&rennes, 2).await;
    worth(&replica, &m, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_offers_reads_nothing() {
    let (rennes, _home, pisa, _replica) = grid().await;
    let core = rennes.core_of(&pisa);
    let log = || VoLog { vo: id("demo.rennes"), after: 0 };
    let e = rennes.grid.local_stream(core.clone(), log()).await.err().unwrap();
    assert_eq!(e.kind, Kind::Denied);
    let terms = Terms { cpu_milli: 1, memory_bytes: 1, storage_bytes: 0, until: None, version: 1 };
    rennes.ask(&core, RecordOffer { vo: id("demo.rennes"), terms }).await.unwrap();
    let mut items = rennes.grid.local_stream(core, log()).await.unwrap();
    assert_eq!(items.next().await.unwrap().unwrap(), LogItem::Beat { number: 0 });
    accept(&rennes, 1).await;
    let LogItem::Entry { jws } = items.next().await.unwrap().unwrap() else {
        panic!("the log opens with acceptance")
    };
    assert!(xos_vom::log::open(&pisa.trust, &id("demo.rennes"), &jws).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_unheard_for_longer_than_the_lease_opens_nothing() {
    let (rennes, _home, pisa, replica) = grid().await;
    let m = shared_with_alice(&rennes, &pisa, &replica).await;
    replica.stop();
    pisa.clock.advance(Duration::from_secs(3601));
    let now = xos_base::when::Clock::now(&*pisa.clock);
    let e = replica.effective(&m, now).unwrap_err();
    assert_eq!(e.kind, Kind::Denied);
    assert!(e.message.contains("has not heard from rennes"), "{e}");
    assert!(!pisa.serve_ask(ServedVos {}).await.unwrap()[0].serving);
}

/// Pisa gives the VO a share; alice's membership, which is worth something there.
async fn shared_with_alice(rennes: &Site, pisa: &Site, replica: &Vom) -> Membership {
    let of = MembershipOf { vo: id("demo.rennes"), person: id("alice@rennes"), since: None };
    let m = rennes.serve_ask(of).await.unwrap().membership;
    pisa.ask(&pisa.admin(), offer()).await.unwrap();
    accept(rennes, 1).await;
    worth(replica, &m, None).await;
    m
}

/// If it failed, work would go on at a site that is cut off for longer than the VO or the site
/// wants, or nodes would go by another time than their core.
#[tokio::test(flavor = "multi_thread")]
async fn the_smaller_lease_counts_and_nodes_are_told_of_it() {
    let (rennes, _home, pisa, replica) = grid().await;
    let m = shared_with_alice(&rennes, &pisa, &replica).await;
    let last = || pisa.ear.heard.lock().unwrap().last().map(|a| a.lease_s);
    until("the node has accounts", || (last() == Some(None)).then_some(())).await;
    let alice = rennes.own("alice");
    let set = |lease_s| rennes.ask(&alice, SetLease { vo: id("demo.rennes"), lease_s, base: None });
    set(600).await.unwrap();
    until("the VO's is told", || (last() == Some(Some(600))).then_some(())).await;
    // The site's own is an hour, which is not told.
    set(7200).await.unwrap();
    until("the site's counts", || (last() == Some(None)).then_some(())).await;
    set(600).await.unwrap();
    until("the VO's is told again", || (last() == Some(Some(600))).then_some(())).await;
    let info = rennes.ask(&alice, GetVo { vo: id("demo.rennes") }).await.unwrap();
    assert_eq!(info.details.unwrap().lease_s, Some(600));
    replica.stop();
    pisa.clock.advance(Duration::from_secs(601));
    let now = xos_base::when::Clock::now(&*pisa.clock);
    let e = replica.effective(&m, now).unwrap_err();
    assert!(e.message.contains("has not heard from rennes"), "{e}");
}

/// If it failed, forgetting a site would leave its VOs at work here, kept alive by a stream that
/// was opened before.
#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_home_is_heard_no_more_and_its_accounts_end() {
    let (rennes, _home, pisa, replica) = grid().await;
    let m = shared_with_alice(&rennes, &pisa, &replica).await;
    let last = || pisa.ear.heard.lock().unwrap().last().map(|a| a.state);
    until("the node has accounts", || (last() == Some(AccountState::Active)).then_some(())).await;

    pisa.trust.remove(&rennes.id);
    let now = xos_base::when::Clock::now(&*pisa.clock);
    let e = replica.effective(&m, now).unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("no more"), "{e}");
    until("accounts end", || (last() == Some(AccountState::Ended)).then_some(())).await;
    // The stream of the log ended, and none is opened again.
    let mut trouble = None;
    for _ in 0..3000 {
        let served = pisa.serve_ask(ServedVos {}).await.unwrap();
        assert!(!served[0].serving, "{served:?}");
        trouble = served[0].trouble.clone().filter(|t| t.contains("is not trusted here"));
        if trouble.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(trouble.is_some(), "the stream of the log lives on");
    pisa.trusts(&rennes);
    worth(&replica, &m, None).await;
    until("accounts are back", || (last() == Some(AccountState::Active)).then_some(())).await;
}

/// If it failed, whoever fills a node's disk would stay at work there for up to a minute after the
/// suspension.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_keeps_nothing_hears_of_a_suspension_at_once() {
    let (rennes, _home, pisa, _replica) = grid().await;
    pisa.ask(&pisa.admin(), offer()).await.unwrap();
    accept(&rennes, 1).await;
    let heard = || pisa.ear.heard.lock().unwrap().iter().map(|a| a.state).collect::<Vec<_>>();
    until("the node has accounts", || heard().contains(&AccountState::Active).then_some(())).await;
    pisa.ear.full.store(true, Ordering::SeqCst);
    bob_joins(&rennes, &pisa).await;
    // After so many attempts the pause is of more than two seconds.
    let before = heard().len();
    until("it was told again and again", || (heard().len() >= before + 4).then_some(())).await;
    let r = SuspendVo { vo: id("demo.rennes"), reason: "misuse".into() };
    rennes.ask(&rennes.own("alice"), r).await.unwrap();
    let at_once = until("it hears", || heard().contains(&AccountState::Suspended).then_some(()));
    tokio::time::timeout(Duration::from_secs(2), at_once).await.expect("the pause was slept");
}

async fn bob_joins(rennes: &Site, pisa: &Site) {
    let bob = rennes.caller(pisa, "bob@pisa", None, false);
    join(rennes, &bob, "demo.rennes").await;
}

/// If it failed, people whom a site invents, or one of its own people, would keep it from offering
/// a share, or from taking back what it gave.
#[tokio::test(flavor = "multi_thread")]
async fn a_sites_people_do_not_use_up_what_its_core_may_bring() {
    let (rennes, _home, pisa, _replica) = grid().await;
    let vo = || id("demo.rennes");
    let mut taken = 0;
    let e = loop {
        let person = rennes.caller(&pisa, &format!("p{taken}@pisa"), None, false);
        if let Err(e) = rennes.ask(&person, apply("demo.rennes", "")).await {
            break e;
        }
        taken += 1;
    };
    assert_eq!((e.kind, taken), (Kind::Limited, 100));
    let core = rennes.core_of(&pisa);
    let terms =
        |version| Terms { cpu_milli: 1, memory_bytes: 1, storage_bytes: 0, until: None, version };
    let offer = |version| rennes.ask(&core, RecordOffer { vo: vo(), terms: terms(version) });
    offer(1).await.unwrap();
    accept(&rennes, 1).await;
    let mut version = 1;
    let e = loop {
        version += 1;
        if let Err(e) = offer(version).await {
            break e;
        }
    };
    assert_eq!((e.kind, version), (Kind::Limited, 61));
    let withdrawal = RecordWithdrawal { vo: vo(), version: 60, reason: "power cut".into() };
    rennes.ask(&core, withdrawal).await.unwrap();
    let shares = rennes.ask(&rennes.own("alice"), ListShares { vo: vo() }).await.unwrap();
    assert_eq!(shares[0].state, ShareState::Withdrawn);
}

/// If it failed, work that is held would find its open files gone when it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_keeps_its_volume_and_what_ended_does_not() {
    let (rennes, home, pisa, replica) = grid().await;
    pisa.ask(&pisa.admin(), offer()).await.unwrap();
    assert_eq!(replica.kept(), []);
    accept(&rennes, 1).await;
    let volume = RecordVolume { vo: id("demo.rennes"), name: "main".into() };
    rennes.serve_ask(volume).await.unwrap();
    let kept = |volumes: &[&str]| {
        let volumes = volumes.iter().map(|v| (*v).to_owned()).collect();
        vec![Kept { vo: id("demo.rennes"), volumes, store: false }]
    };
    until("pisa knows", || (replica.kept() == kept(&["main"])).then_some(())).await;
    let suspend = SuspendVo { vo: id("demo.rennes"), reason: "misuse".into() };
    rennes.ask(&rennes.own("alice"), suspend).await.unwrap();
    until("pisa's node holds its work", || {
        let heard = pisa.ear.heard.lock().unwrap();
        heard.iter().any(|a| a.state == AccountState::Suspended).then_some(())
    })
    .await;
    assert_eq!(replica.kept(), kept(&["main"]), "suspended");
    let homed = home.homed().remove(0);
    assert!(!homed.active && homed.sites[0].site == pisa.id, "{homed:?}");
    replica.stop();
    pisa.clock.advance(Duration::from_secs(3601));
    assert_eq!(replica.kept(), kept(&["main"]), "its home is unheard");
    pisa.trust.remove(&rennes.id);
    assert_eq!(replica.kept(), [], "its home is forgotten");
    pisa.trusts(&rennes);
    assert_eq!(replica.kept(), kept(&["main"]));
    let withdraw = WithdrawShare { vo: id("demo.rennes"), reason: "power cut".into() };
    pisa.ask(&pisa.admin(), withdraw).await.unwrap();
    assert_eq!(replica.kept(), [], "the share ended");
}

/// If it failed, a site that is cut off for good would keep the work of members who were removed
/// long ago, and go on with it whenever somebody lets it.
#[tokio::test(flavor = "multi_thread")]
async fn after_lease_and_grace_the_vo_of_an_unheard_home_ends() {
    let (rennes, _home, pisa, replica) = grid().await;
    shared_with_alice(&rennes, &pisa, &replica).await;
    let last = || pisa.ear.heard.lock().unwrap().last().map(|a| a.grace_s);
    until("the node has accounts", || (last() == Some(None)).then_some(())).await;
    let set = SetGrace { vo: id("demo.rennes"), grace_s: 600, base: None };
    rennes.ask(&rennes.own("alice"), set).await.unwrap();
    until("the VO's is told", || (last() == Some(Some(600))).then_some(())).await;
    replica.stop();
    pisa.clock.advance(Duration::from_secs(3601));
    assert_eq!(replica.kept().len(), 1, "it is ended while it is to be held");
    pisa.clock.advance(Duration::from_secs(600));
    assert!(replica.kept().is_empty(), "it is held for good");
}
