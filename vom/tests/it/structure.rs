//! How VOs are built and end: over the services, at two sites.

use crate::hostile::{admitted, log};
use crate::world::{Site, until};
use crate::{apply, found, id, join};
use std::time::Duration;
use xos_api::vom::*;
use xos_base::{GroupNumber, Kind, Millis, PersonId};
use xos_net::Standing;
use xos_vom::Vom;
use xos_vom::names::Owned;
use xos_vom::registry::{Grave, Registry};
use xos_vom::state::Whose;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn vo() -> xos_base::VoId {
    id("demo.rennes")
}

/// Rennes with demo.rennes, which pisa serves.
async fn grid() -> (Site, Vom, Site, Vom) {
    let (rennes, pisa) = (Site::new("rennes").await, Site::new("pisa").await);
    rennes.trusts(&pisa);
    pisa.trusts(&rennes);
    let (home, replica) = (rennes.start().await, pisa.start().await);
    found(&rennes).await;
    let offer = OfferShare {
        vo: vo(),
        cpu_milli: 4000,
        memory_bytes: 1 << 30,
        storage_bytes: 0,
        until: None,
        base: Some(2_000_000_000),
    };
    pisa.ask(&pisa.admin(), offer).await.unwrap();
    let accept = AcceptShare { vo: vo(), site: id("pisa"), version: 1 };
    rennes.ask(&rennes.own("alice"), accept).await.unwrap();
    until("the node has accounts", || {
        let heard = pisa.ear.heard.lock().unwrap();
        heard.iter().any(|a| a.state == AccountState::Active).then_some(())
    })
    .await;
    (rennes, home, pisa, replica)
}

fn last_state(site: &Site) -> Option<AccountState> {
    site.ear.heard.lock().unwrap().last().map(|a| a.state)
}

/// If it failed, work would go on in a VO that is over, or its people and its log stay for good at
/// a site that was cut off when it ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_dissolved_vo_ends_everywhere_returns_and_is_erased() {
    let (rennes, home, pisa, replica) = grid().await;
    let (alice, admin) = (rennes.own("alice"), rennes.admin());
    let of = MembershipOf { vo: vo(), person: id("alice@rennes"), since: None };
    let m = rennes.serve_ask(of).await.unwrap().membership;
    rennes.serve_ask(RecordVolume { vo: vo(), name: "main".into() }).await.unwrap();
    let dissolve = || DissolveVo { vo: vo(), reason: "over".into() };
    rennes.ask(&alice, dissolve()).await.unwrap();
    until("the node ends all", || (last_state(&pisa) == Some(AccountState::Ended)).then_some(()))
        .await;
    let now = xos_base::when::Clock::now(&*pisa.clock);
    assert_eq!(replica.effective(&m, now).unwrap_err().kind, Kind::Denied);
    assert_eq!(home.erase_due(HOUR).await.unwrap(), 0, "it is not time");
    rennes.ask(&alice, ExportVo { vo: vo(), after: None, log: false }).await.unwrap();
    rennes.ask(&admin, ExportVo { vo: vo(), after: None, log: false }).await.unwrap();
    rennes.ask(&alice, UndoDissolve { vo: vo() }).await.unwrap();
    until("accounts are back", || (last_state(&pisa) == Some(AccountState::Active)).then_some(()))
        .await;

    // Pisa is cut off from here on, and hears of the end when the log is gone.
    replica.stop();
    rennes.ask(&alice, dissolve()).await.unwrap();
    rennes.clock.advance(30 * DAY + Duration::from_secs(1));
    let other = FoundVo { label: "other".into(), title: "Other".into(), description: "".into() };
    rennes.ask(&alice, other).await.unwrap();
    assert_eq!(home.erase_due(HOUR / 2).await.unwrap(), 0, "the clock may have jumped");
    assert_eq!(home.erase_due(HOUR).await.unwrap(), 1);
    let e = rennes.ask(&alice, GetVo { vo: vo() }).await.unwrap_err();
    assert!(e.kind == Kind::NotFound && e.message.contains("erased"), "{e}");
    let again = FoundVo { label: "demo".into(), title: "Demo".into(), description: "".into() };
    assert_eq!(rennes.ask(&alice, again).await.unwrap_err().kind, Kind::Conflict);
    assert!(rennes.ask(&rennes.own("bob"), ErasedVos {}).await.is_err());
    let left = rennes.ask(&admin, ErasedVos {}).await.unwrap();
    assert_eq!((left[0].vo.clone(), left[0].volumes.clone()), (vo(), vec!["main".to_owned()]));
    nothing_is_kept(&rennes).await;

    pisa.clock.advance(30 * DAY + HOUR);
    let back = pisa.vom_through(std::sync::Arc::new(pisa.grid.clone())).await;
    until("pisa hears of it", || (!back.erased().is_empty()).then_some(())).await;
    until("pisa's node ends all", || {
        (last_state(&pisa) == Some(AccountState::Ended)).then_some(())
    })
    .await;
    let now = xos_base::when::Clock::now(&*pisa.clock);
    assert_eq!(back.effective(&m, now).unwrap_err().kind, Kind::Denied);
    // What is known of it outlives a restart, and the uids stay nobody else's.
    back.stop();
    let anew = pisa.vom_through(std::sync::Arc::new(pisa.grid.clone())).await;
    assert_eq!(anew.erased().len(), 1);
    nothing_is_kept(&pisa).await;
}

/// Nothing of the VO is left in a site's registry but its grave and the site's side of the share.
async fn nothing_is_kept(site: &Site) {
    let below = xos_store::Prefix::of(["vom"]).unwrap();
    let mut left = Vec::new();
    // Removing goes on after the VO is known to be no more.
    for _ in 0..3000 {
        let all = site.store.scan(&below, None, 500).await.unwrap().entries;
        let keys = all.iter().map(|e| e.key.to_string()).filter(|k| k.contains("demo.rennes"));
        let stays = |k: &String| k.starts_with("vom/erased/") || k.starts_with("vom/served/");
        left = keys.filter(|k| !stays(k)).collect();
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{left:?}");
}

/// If it failed, what a core left of a VO's people that stopped half-way would stay for good, or
/// another core of the site would write of them anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_an_erased_vo_goes_and_nothing_comes_anew() {
    let rennes = Site::new("rennes").await;
    let registry = Registry::new(rennes.store.clone());
    let at = vo();
    let whose = || Whose::Person(id("bob@rennes"));
    let answer = || registry.keep_private(&at, whose(), "an answer".into(), Millis(1));
    answer().await.unwrap();
    let (name, person) = (id("bob"), id("bob@rennes"));
    let name = Owned { name, person, used: true, since: Millis(1), released: None };
    registry.put_names(&vo(), &[name], None).await.unwrap();
    let (volumes, jws) = (Vec::new(), "x".to_owned());
    let grave = Grave { vo: vo(), number: 9, at: Millis(1), volumes, jws, clean: false };
    registry.note_grave(&grave).await.unwrap();
    let _vom = rennes.start().await;
    nothing_is_kept(&rennes).await;
    let names = rennes.ask(&rennes.admin(), ListNames::default()).await.unwrap();
    assert!(names.names.is_empty(), "in memory too");
    assert_eq!(answer().await.unwrap_err().kind, Kind::Conflict);
    assert_eq!(registry.note_heard(&vo(), Millis(1)).await.unwrap_err().kind, Kind::Conflict);
    assert_eq!(registry.append(&vo(), 10, "x").await.unwrap_err().kind, Kind::Conflict);
}

/// If it failed, a second core of the site would show a VO that is no more, and act by it, until it
/// is started anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_core_of_the_site_erased_is_learnt() {
    let rennes = Site::new("rennes").await;
    let vom = rennes.start().await;
    found(&rennes).await;
    assert_eq!(vom.homed().len(), 1);
    let (volumes, jws) = (Vec::new(), "x".to_owned());
    let grave = Grave { vo: vo(), number: 9, at: Millis(1), volumes, jws, clean: false };
    Registry::new(rennes.store.clone()).note_grave(&grave).await.unwrap();
    vom.erase_due(Duration::ZERO).await.unwrap();
    assert_eq!(vom.erased().len(), 1);
    assert!(vom.homed().is_empty());
    let e = rennes.ask(&rennes.own("alice"), GetVo { vo: vo() }).await.unwrap_err();
    assert!(e.kind == Kind::NotFound && e.message.contains("erased"), "{e}");
    nothing_is_kept(&rennes).await;
}

/// If it failed, two people would both believe to own what only one was to have, or none would.
#[tokio::test(flavor = "multi_thread")]
async fn of_an_offer_taken_back_and_accepted_at_once_one_counts() {
    let rennes = Site::new("rennes").await;
    let _vom = rennes.start().await;
    found(&rennes).await;
    let (alice, bob) = (rennes.own("alice"), rennes.own("bob"));
    join(&rennes, &bob, "demo.rennes").await;
    let offer = OfferHandover { vo: vo(), to: id("bob@rennes") };
    rennes.ask(&alice, offer).await.unwrap();
    let by: PersonId = id("alice@rennes");
    let (taken, ended) = tokio::join!(
        rennes.ask(&bob, AcceptHandover { vo: vo(), by: by.clone() }),
        rennes.ask(&alice, EndHandover { vo: vo(), by: by.clone() }),
    );
    assert!(taken.is_ok() != ended.is_ok(), "{taken:?} {ended:?}");
    let owner = |info: &VoInfo| info.me.as_ref().unwrap().roles.contains(&id("owner"));
    let get = GetVo { vo: vo() };
    let of_alice = rennes.ask(&alice, get.clone()).await.unwrap();
    let of_bob = rennes.ask(&bob, get).await.unwrap();
    assert_eq!((owner(&of_alice), owner(&of_bob)), (ended.is_ok(), taken.is_ok()));
}

/// If it failed, a hostile home would put two groups into one another, and the sites that follow it
/// would go round for ever.
#[tokio::test]
async fn a_cycle_in_the_log_of_a_hostile_home_is_not_believed() {
    let rennes = Site::new("rennes").await;
    let (a, b) = (|| id("a"), || id("b"));
    let entries = log(
        &rennes,
        "demo.rennes",
        vec![
            admitted("bob@pisa", 2),
            Change::GroupCreated { name: a(), number: GroupNumber(2) },
            Change::SubgroupCreated { name: b(), number: GroupNumber(3), parent: a() },
            Change::GroupMoved { name: a(), parent: Some(b()) },
        ],
    );
    let (last, good) = entries.split_last().unwrap();
    let read = |jws: &String| xos_vom::log::reread(jws).unwrap();
    let mut state = xos_vom::state::Vo::found(&read(&good[0])).unwrap();
    for jws in &good[1..] {
        state.check(&read(jws)).unwrap();
        state.apply(&read(jws));
    }
    let e = state.check(&read(last)).unwrap_err().to_string();
    assert!(e.contains("within itself"), "{e}");
}

fn expected(person: &str, groups: &[&str], roles: &[&str]) -> ExpectedPerson {
    ExpectedPerson {
        person: id(person),
        groups: groups.iter().map(|g| id(g)).collect(),
        roles: roles.iter().map(|r| id(r)).collect(),
        expires: None,
    }
}

/// If it failed, an import would make members of people who never asked, let administrators make
/// owners, or let in later whom an administrator who is gone had planted.
#[tokio::test(flavor = "multi_thread")]
async fn expected_people_are_admitted_when_they_apply() {
    let rennes = Site::new("rennes").await;
    let _vom = rennes.start().await;
    found(&rennes).await;
    let (alice, adam) = (rennes.own("alice"), rennes.own("adam"));
    rennes.ask(&alice, CreateGroup { vo: vo(), name: id("physics") }).await.unwrap();
    join(&rennes, &adam, "demo.rennes").await;
    let role = |role: &str| GrantRole { vo: vo(), person: id("adam@rennes"), role: id(role) };
    rennes.ask(&alice, role("admin")).await.unwrap();
    let expect = |people: Vec<ExpectedPerson>, dry_run| ExpectPeople { vo: vo(), people, dry_run };
    let people = vec![
        expected("bob@rennes", &["physics"], &["pilot"]),
        expected("carol@rennes", &[], &["owner"]),
        expected("dan@rennes", &["nothing"], &[]),
        expected("alice@rennes", &[], &[]),
        expected("eve@rennes", &[], &[]),
        expected("bob@rennes", &[], &[]),
    ];
    let refused = |e: &Expecting| matches!(e, Expecting::Refused { .. });
    for dry_run in [true, false] {
        let said = rennes.ask(&adam, expect(people.clone(), dry_run)).await.unwrap();
        assert_eq!(
            (&said[0], &said[3], &said[4]),
            (&Expecting::New, &Expecting::Member, &Expecting::New)
        );
        assert!([1, 2, 5].iter().all(|i| refused(&said[*i])), "{said:?}");
    }
    let again = rennes.ask(&adam, expect(vec![people[0].clone()], false)).await.unwrap();
    assert_eq!(again, [Expecting::Same], "an import that is repeated does nothing twice");
    let stranger = rennes.ask(&rennes.own("bob"), expect(vec![], true)).await;
    assert_eq!(stranger.unwrap_err().kind, Kind::Denied);

    let member = |name: &str| GetMember { vo: vo(), person: id(&format!("{name}@rennes")) };
    assert_eq!(rennes.ask(&alice, member("bob")).await.unwrap_err().kind, Kind::NotFound);
    let apply = || Apply { vo: vo(), message: String::new(), agreed: None, answers: vec![] };
    rennes.ask(&rennes.own("bob"), apply()).await.unwrap();
    let bob = rennes.ask(&alice, member("bob")).await.unwrap();
    assert_eq!(bob.roles.iter().map(|r| r.as_str()).collect::<Vec<_>>(), ["pilot"]);
    assert!(bob.groups.contains(&id("physics")));

    // Adam is no administrator now: what he noted counts no more.
    let withdraw = WithdrawRole { vo: vo(), person: id("adam@rennes"), role: id("admin") };
    rennes.ask(&alice, withdraw).await.unwrap();
    rennes.ask(&rennes.own("eve"), apply()).await.unwrap();
    assert_eq!(rennes.ask(&alice, member("eve")).await.unwrap_err().kind, Kind::NotFound);
    // Whoever was removed does not come back by a note.
    let remove = RemoveMember { vo: vo(), person: id("bob@rennes"), reason: "left".into() };
    rennes.ask(&alice, remove).await.unwrap();
    let said = rennes.ask(&alice, expect(vec![people[0].clone()], false)).await.unwrap();
    assert!(refused(&said[0]), "{said:?}");
    let list = ListExpected { vo: vo(), after: None, limit: None };
    let waiting = rennes.ask(&alice, list).await.unwrap().people;
    assert_eq!(waiting.iter().map(|p| p.person.as_str()).collect::<Vec<_>>(), ["eve@rennes"]);
    // A group that is made anew is not the one that was meant.
    let dora = vec![expected("dora@rennes", &["physics"], &[])];
    assert_eq!(rennes.ask(&alice, expect(dora, false)).await.unwrap(), [Expecting::New]);
    rennes.ask(&alice, DeleteGroup { vo: vo(), name: id("physics") }).await.unwrap();
    rennes.ask(&alice, CreateGroup { vo: vo(), name: id("physics") }).await.unwrap();
    rennes.ask(&rennes.own("dora"), apply()).await.unwrap();
    assert_eq!(rennes.ask(&alice, member("dora")).await.unwrap_err().kind, Kind::NotFound);
}

/// If it failed, a site that invents people would keep those out whom the VO expects; or somebody
/// who came would be expected for good.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_expected_comes_in_whatever_others_of_the_site_do() {
    let (rennes, pisa) = (Site::new("rennes").await, Site::new("pisa").await);
    rennes.trusts(&pisa);
    let _vom = rennes.start().await;
    found(&rennes).await;
    let alice = rennes.own("alice");
    let people = ["nina@pisa", "otto@pisa", "paul@pisa"].map(|p| expected(p, &[], &[])).into();
    rennes.ask(&alice, ExpectPeople { vo: vo(), people, dry_run: false }).await.unwrap();
    let caller = |name: &str| rennes.caller(&pisa, &format!("{name}@pisa"), None, false);
    for i in 0..100 {
        rennes.ask(&caller(&format!("p{i}")), apply("demo.rennes", "")).await.unwrap();
    }
    let e = rennes.ask(&caller("eve"), apply("demo.rennes", "")).await.unwrap_err();
    assert_eq!(e.kind, Kind::Limited);
    rennes.ask(&caller("nina"), apply("demo.rennes", "")).await.unwrap();
    // By an invitation that asks an administrator, who has answered already.
    let gives = Gives {
        groups: vec![],
        roles: vec![],
        uses: 1,
        expires: xos_base::when::Clock::now(&*rennes.clock).plus(DAY),
        person: None,
        ends: None,
        at_once: false,
    };
    let made = rennes.ask(&alice, Invite { vo: vo(), gives, hint: String::new() }).await.unwrap();
    let (secret, message) = (made.secret, String::new());
    let follow = Join { vo: vo(), secret, message, agreed: None, answers: vec![] };
    rennes.ask(&caller("otto"), follow).await.unwrap().member.unwrap();
    let list = ListExpected { vo: vo(), after: None, limit: None };
    let waiting = rennes.ask(&alice, list).await.unwrap().people;
    assert_eq!(waiting.iter().map(|p| p.person.as_str()).collect::<Vec<_>>(), ["paul@pisa"]);
}

/// If it failed, an export would miss some, or what it wrote could not be read again.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_holds_everybody_once_and_ends() {
    let rennes = Site::new("rennes").await;
    let _vom = rennes.start().await;
    found(&rennes).await;
    let alice = rennes.own("alice");
    let name = |i: usize| format!("p{i}@rennes");
    for batch in (0..700).collect::<Vec<usize>>().chunks(EXPECT_MAX) {
        let people = batch.iter().map(|i| expected(&name(*i), &[], &[])).collect();
        let ask = ExpectPeople { vo: vo(), people, dry_run: false };
        let said = rennes.ask(&alice, ask).await.unwrap();
        assert!(said.iter().all(|e| *e == Expecting::New));
    }
    for i in 0..700 {
        let apply = Apply { vo: vo(), message: String::new(), agreed: None, answers: vec![] };
        rennes.ask(&rennes.own(&format!("p{i}")), apply).await.unwrap();
    }
    rennes.ask(&alice, CreateGroup { vo: vo(), name: id("physics") }).await.unwrap();
    let below = CreateSubgroup { vo: vo(), parent: id("physics"), name: id("optics") };
    rennes.ask(&alice, below).await.unwrap();
    rennes.ask(&alice, SetReminders { vo: vo(), days: vec![7], base: None }).await.unwrap();
    let people = vec![expected("zoe@rennes", &["optics"], &[])];
    rennes.ask(&alice, ExpectPeople { vo: vo(), people, dry_run: false }).await.unwrap();
    let (mut lines, mut after) = (Vec::new(), None);
    loop {
        let page = rennes.ask(&alice, ExportVo { vo: vo(), after, log: true }).await.unwrap();
        lines.extend(page.lines);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let count = |f: fn(&ExportLine) -> bool| lines.iter().filter(|l| f(l)).count();
    assert_eq!(count(|l| matches!(l, ExportLine::Member { .. })), 701);
    assert_eq!(count(|l| matches!(l, ExportLine::Group { .. })), 2);
    assert_eq!(count(|l| matches!(l, ExportLine::Entry { .. })), 1 + 2 * 700 + 3);
    assert_eq!(count(|l| matches!(l, ExportLine::Reminders { .. })), 1);
    assert_eq!(count(|l| matches!(l, ExportLine::Expected { .. })), 1);
    assert!(count(|l| matches!(l, ExportLine::Rule { .. })) > 0);
    let ExportLine::Vo { number, .. } = &lines[0] else { panic!("{:?}", lines[0]) };
    assert_eq!(lines.last(), Some(&ExportLine::End { number: *number }));
    for line in &lines {
        let text = serde_json::to_string(line).unwrap();
        assert_eq!(&serde_json::from_str::<ExportLine>(&text).unwrap(), line);
    }
    let bob = rennes.own("p1");
    let ask = ExportVo { vo: vo(), after: None, log: false };
    assert_eq!(rennes.ask(&bob, ask).await.unwrap_err().kind, Kind::Denied);
    let bad = ExportVo { vo: vo(), after: Some("members:../x".into()), log: false };
    assert_eq!(rennes.ask(&alice, bad).await.unwrap_err().kind, Kind::Invalid);
}
