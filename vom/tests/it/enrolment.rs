//! Terms of use, questions to applicants, reminders and histories, as people meet them.

use crate::world::{Site, until};
use crate::{apply, found, id, join};
use std::time::Duration;
use xos_api::vom::*;
use xos_base::when::Clock;
use xos_base::{Kind, Millis, VoId};
use xos_net::{Caller, Standing};
use xos_vom::Vom;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn vo() -> VoId {
    id("demo.rennes")
}

async fn rennes() -> (Site, Vom) {
    let rennes = Site::new("rennes").await;
    let vom = rennes.start().await;
    found(&rennes).await;
    (rennes, vom)
}

/// Alice sets terms with 14 days of grace.
async fn terms(rennes: &Site, consent_days: Option<u32>) -> u32 {
    let text = "Be kind.\nShare your results.".to_owned();
    let set = SetTermsOfUse { vo: vo(), text, consent_days, grace_days: None };
    rennes.ask(&rennes.own("alice"), set).await.unwrap().version
}

async fn agree(rennes: &Site, who: &Caller, version: u32) {
    rennes.ask(who, Agree { vo: vo(), version }).await.unwrap();
}

fn questions() -> SetQuestions {
    let question = |id: &str, kind, required, choices: &[&str]| Question {
        id: id.into(),
        text: format!("What is your {id}?"),
        kind,
        required,
        choices: choices.iter().map(|c| (*c).to_owned()).collect(),
    };
    SetQuestions {
        vo: vo(),
        questions: vec![
            question("institute", QuestionKind::Line, true, &[]),
            question("status", QuestionKind::Choice, false, &["staff", "student"]),
        ],
    }
}

fn answers(institute: &str) -> Vec<Answer> {
    vec![Answer { question: "institute".into(), value: institute.into() }]
}

/// All that the registry holds of the VO's log and checkpoints, and of what is kept beside.
async fn stored(site: &Site, what: &str) -> String {
    let below = xos_store::Prefix::of(["vom", what]).unwrap();
    let mut all = String::new();
    let mut after = None;
    loop {
        let page = site.store.scan(&below, after.as_ref(), 500).await.unwrap();
        for e in page.entries {
            let text = String::from_utf8_lossy(&e.value).into_owned();
            // What a signed entry says stands between its dots.
            match text.split('.').nth(1).filter(|_| text.starts_with("ey")) {
                Some(payload) => {
                    use base64::Engine;
                    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
                    let bytes = engine.decode(payload).unwrap();
                    all.push_str(&String::from_utf8(bytes).unwrap());
                }
                None => all.push_str(&text),
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

/// If it failed, people would work under terms that they never saw, or be shut out for good, or
/// nodes would not learn of it while they are cut off from their core.
#[tokio::test(flavor = "multi_thread")]
async fn consent_lapses_and_comes_back() {
    let (rennes, vom) = rennes().await;
    let (alice, bob) = (rennes.own("alice"), rennes.own("bob"));
    join(&rennes, &bob, "demo.rennes").await;
    let of = MembershipOf { vo: vo(), person: id("bob@rennes"), since: None };
    let m = rennes.serve_ask(of.clone()).await.unwrap().membership;
    let offer = OfferShare {
        vo: vo(),
        cpu_milli: 4000,
        memory_bytes: 1 << 30,
        storage_bytes: 0,
        until: None,
        base: None,
    };
    rennes.ask(&rennes.admin(), offer).await.unwrap();
    let accept = AcceptShare { vo: vo(), site: id("rennes"), version: 1 };
    rennes.ask(&alice, accept).await.unwrap();

    assert_eq!(terms(&rennes, None).await, 1);
    agree(&rennes, &alice, 1).await;
    let lapses = || {
        let heard = rennes.ear.heard.lock().unwrap();
        let bob = heard.iter().rev().flat_map(|a| &a.members).find(|m| m.number.0 == 2)?;
        heard.last()?.terms.as_ref()?.lapses(bob)
    };
    let at = until("the node knows when bob's consent lapses", lapses).await;
    assert!(at > rennes.clock.now());
    assert_eq!(vom.effective(&m, rennes.clock.now()).unwrap(), m, "there is a grace");
    let told = rennes.ask(&bob, Reminders { person: id("bob@rennes") }).await.unwrap();
    assert_eq!((told[0].what, told[0].at), (Ending::Consent, at));

    rennes.clock.advance(15 * DAY);
    let e = vom.effective(&m, rennes.clock.now()).unwrap_err();
    assert!(e.kind == Kind::Denied && e.to_string().contains("xos vo agree demo.rennes"), "{e}");
    let e = rennes.serve_ask(of.clone()).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "no new credential");
    let members = ListMembers { vo: vo(), after: None, limit: None };
    let e = rennes.ask(&bob, members.clone()).await.unwrap_err();
    assert!(e.to_string().contains("xos vo agree demo.rennes"), "{e}");
    let get = GetMember { vo: vo(), person: id("bob@rennes") };
    assert!(!rennes.ask(&alice, get).await.unwrap().acts, "members are told that he acts");

    let e = rennes.ask(&bob, Agree { vo: vo(), version: 2 }).await.unwrap_err();
    assert_eq!(e.kind, Kind::Conflict, "not what he read");
    agree(&rennes, &bob, 1).await;
    assert_eq!(vom.effective(&m, rennes.clock.now()).unwrap(), m, "the same credential");
    rennes.serve_ask(of).await.unwrap();
    let listed = rennes.ask(&bob, members).await.unwrap().members;
    assert!(listed.iter().all(|m| m.acts), "{listed:?}");
    until("the node knows that he agreed", || lapses().is_none().then_some(())).await;
    assert_eq!(rennes.ask(&bob, Reminders { person: id("bob@rennes") }).await.unwrap(), []);
}

/// If it failed, a program that holds somebody's credential could agree for them, or an owner be
/// shut out of their own VO for good.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_person_agrees_and_an_owner_gets_back_in() {
    let (rennes, _vom) = rennes().await;
    let alice = rennes.own("alice");
    let of = MembershipOf { vo: vo(), person: id("alice@rennes"), since: None };
    let m = rennes.serve_ask(of).await.unwrap().membership;
    let program = rennes.caller(&rennes, "alice@rennes", Some(&m), false);
    assert_eq!(terms(&rennes, Some(30)).await, 1);
    let e = rennes.ask(&program, Agree { vo: vo(), version: 1 }).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied);
    let e = rennes.ask(&rennes.own("eve"), Agree { vo: vo(), version: 1 }).await.unwrap_err();
    assert_eq!(e.kind, Kind::NotFound, "eve is no member");
    rennes.clock.advance(15 * DAY);
    let group = || CreateGroup { vo: vo(), name: id("physics") };
    assert_eq!(rennes.ask(&alice, group()).await.unwrap_err().kind, Kind::Denied);
    agree(&rennes, &alice, 1).await;
    rennes.ask(&alice, group()).await.unwrap();
    // Again after its 30 days and the grace.
    rennes.clock.advance(45 * DAY);
    let late = CreateGroup { vo: vo(), name: id("late") };
    assert_eq!(rennes.ask(&alice, late).await.unwrap_err().kind, Kind::Denied);
}

/// If it failed, what people say of themselves would stand for good at every site that serves the
/// VO, or stay at the home when they are gone.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_kept_at_the_home_alone_and_erased() {
    let (rennes, _vom) = rennes().await;
    let (alice, bob) = (rennes.own("alice"), rennes.own("bob"));
    rennes.ask(&alice, questions()).await.unwrap();
    let e = rennes.ask(&bob, apply("demo.rennes", "")).await.unwrap_err();
    assert!(e.kind == Kind::Invalid && e.message.contains("institute"), "{e}");
    let applying =
        |institute: &str| Apply { answers: answers(institute), ..apply("demo.rennes", "hello") };
    rennes.ask(&bob, applying("Institute of Shoes")).await.unwrap();
    let of = |p: &str| GetEnrolment { vo: vo(), person: id(p) };
    let seen = rennes.ask(&alice, of("bob@rennes")).await.unwrap();
    assert_eq!(seen.answers[0].value, "Institute of Shoes");
    assert_eq!(seen.answers[0].text, "What is your institute?");
    assert_eq!(rennes.ask(&bob, of("bob@rennes")).await.unwrap(), seen);
    let e = rennes.ask(&rennes.own("eve"), of("bob@rennes")).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied);
    assert!(!stored(&rennes, "vo").await.contains("Shoes"), "the log says what he answered");
    assert!(stored(&rennes, "vo").await.contains("bob@rennes"), "the log cannot be read");
    assert!(stored(&rennes, "private").await.contains("Shoes"));

    // Approved, they stay; removed, they go. So they do when an application ends.
    let approve = Approve {
        vo: vo(),
        person: id("bob@rennes"),
        groups: vec![],
        roles: vec![],
        expires: None,
    };
    rennes.ask(&alice, approve).await.unwrap();
    assert_eq!(rennes.ask(&alice, of("bob@rennes")).await.unwrap().answers, seen.answers);
    let remove = RemoveMember { vo: vo(), person: id("bob@rennes"), reason: "left".into() };
    rennes.ask(&alice, remove).await.unwrap();
    assert_eq!(stored(&rennes, "private").await, "");
    rennes.ask(&bob, applying("Institute of Hats")).await.unwrap();
    let reject = Reject { vo: vo(), person: id("bob@rennes"), reason: "no".into() };
    rennes.ask(&alice, reject).await.unwrap();
    assert_eq!(stored(&rennes, "private").await, "");
    rennes.ask(&bob, applying("Institute of Hats")).await.unwrap();
    rennes.ask(&bob, applying("Institute of Hats")).await.unwrap_err();
    rennes.ask(&bob, WithdrawApplication { vo: vo() }).await.unwrap();
    assert_eq!(stored(&rennes, "private").await, "", "nor what was refused");
}

/// If it failed, an administrator could not say who did what to a member and why, others could read
/// it, or who was turned down learn what was said of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_told_page_by_page_to_those_whom_it_concerns() {
    let (rennes, _vom) = rennes().await;
    let (alice, bob) = (rennes.own("alice"), rennes.own("bob"));
    rennes.ask(&bob, apply("demo.rennes", "")).await.unwrap();
    let reject = Reject { vo: vo(), person: id("bob@rennes"), reason: "who is he?".into() };
    rennes.ask(&alice, reject).await.unwrap();
    join(&rennes, &bob, "demo.rennes").await;
    for i in 0..6 {
        let group = CreateGroup { vo: vo(), name: id(&format!("g{i}")) };
        rennes.ask(&alice, group).await.unwrap();
        let expires = Some(rennes.clock.now().plus((i + 10) * DAY));
        let extend = ExtendMemberships { vo: vo(), persons: vec![id("bob@rennes")], expires };
        assert_eq!(rennes.ask(&alice, extend).await.unwrap()[0].trouble, None);
    }
    let page = |after| MemberHistory { vo: vo(), person: id("bob@rennes"), after, limit: Some(4) };
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let got = rennes.ask(&alice, page(after)).await.unwrap();
        assert!(got.entries.len() <= 4);
        all.extend(got.entries);
        after = got.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(all.len(), 10, "applied, turned down, applied, admitted, six ends: {all:?}");
    assert_eq!(all[0].actor, Actor::Person(id("bob@rennes")));
    let reason = |e: &HistoryEntry| match &e.change {
        Change::ApplicationRejected { reason, .. } => reason.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(&all[1]), "who is he?");
    assert!(matches!(all[9].change, Change::MemberExpirySet { .. }));
    let own = rennes.ask(&bob, page(None)).await.unwrap();
    assert_eq!(reason(&own.entries[1]), "");
    let e = rennes.ask(&rennes.own("eve"), page(None)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied);

    let soon = |days| ListExpiring { vo: vo(), days, after: None, limit: None };
    assert_eq!(rennes.ask(&alice, soon(Some(7))).await.unwrap().members, []);
    let found = rennes.ask(&alice, soon(None)).await.unwrap().members;
    assert_eq!(found[0].person, id("bob@rennes"));
    assert_eq!(rennes.ask(&bob, soon(None)).await.unwrap_err().kind, Kind::Denied);
    let persons = vec![id("bob@rennes"), id("alice@rennes"), id("eve@rennes")];
    let never = ExtendMemberships { vo: vo(), persons, expires: Some(Millis(u64::MAX)) };
    let done = rennes.ask(&alice, never).await.unwrap();
    let kinds: Vec<_> = done.iter().map(|e| e.trouble.as_ref().map(|t| t.kind)).collect();
    let want = [Some(Kind::Invalid), None, Some(Kind::NotFound)];
    assert_eq!(kinds, want, "an owner has no end, eve is no member: {done:?}");
}
