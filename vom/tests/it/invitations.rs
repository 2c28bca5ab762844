//! Invitations by link, and how they are misused.

use crate::world::Site;
use crate::{apply, found, id, join};
use std::time::Duration;
use xos_api::vom::*;
use xos_base::when::Clock;
use xos_base::{Error, Kind, VoId};
use xos_net::Caller;
use xos_vom::Vom;

fn vo() -> VoId {
    id("demo.rennes")
}

async fn rennes() -> (Site, Vom) {
    let rennes = Site::new("rennes").await;
    let vom = rennes.start().await;
    found(&rennes).await;
    (rennes, vom)
}

/// For so many, for ten days, members at once.
fn gives(site: &Site, uses: u32) -> Gives {
    Gives {
        groups: vec![],
        roles: vec![],
        uses,
        expires: site.clock.now().plus(Duration::from_secs(864_000)),
        person: None,
        ends: None,
        at_once: true,
    }
}

async fn invite(site: &Site, by: &Caller, gives: Gives) -> Result<Invited, Error> {
    site.ask(by, Invite { vo: vo(), gives, hint: "nina@example.org".into() }).await
}

async fn follow(site: &Site, who: &Caller, secret: &InvitationSecret) -> Result<Joined, Error> {
    let (secret, message) = (secret.clone(), String::new());
    site.ask(who, Join { vo: vo(), secret, message, agreed: None, answers: vec![] }).await
}

/// If it failed, an invitation would give something else than who made it said, or tell more of
/// itself than it must.
#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_link_gets_what_it_gives() {
    let (rennes, _vom) = rennes().await;
    let (alice, nina) = (rennes.own("alice"), rennes.own("nina"));
    rennes.ask(&alice, CreateGroup { vo: vo(), name: id("physics") }).await.unwrap();
    let ends = Some(rennes.clock.now().plus(Duration::from_secs(8_640_000)));
    let (groups, roles) = (vec![id("physics")], vec![id("pilot")]);
    let given = Gives { groups, roles, ends, ..gives(&rennes, 1) };
    let made = invite(&rennes, &alice, given.clone()).await.unwrap();
    let look = LookAtInvitation { vo: vo(), secret: made.secret.clone() };
    let seen = rennes.ask(&nina, look).await.unwrap();
    assert_eq!((&seen.gives, seen.at_once, seen.title.as_str()), (&given, true, "Demo"));
    let member = follow(&rennes, &nina, &made.secret).await.unwrap().member.unwrap();
    assert_eq!(member.groups, [id("members"), id("physics")]);
    assert_eq!((member.roles, member.expires), (vec![id("pilot")], ends));
    // Once more, by her and by another: the link is used up, and its holders are told.
    let e = follow(&rennes, &nina, &made.secret).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("as many persons"), "{e}");
    let e = follow(&rennes, &rennes.own("eve"), &made.secret).await.unwrap_err();
    assert!(e.message.contains("as many persons"), "{e}");

    let list = ListInvitations { vo: vo(), after: None, limit: None };
    let page = rennes.ask(&alice, list.clone()).await.unwrap();
    assert_eq!(page.invitations[0].state, InvitationState::UsedUp);
    assert_eq!(page.invitations[0].hint, "nina@example.org");
    assert_eq!(rennes.ask(&nina, list).await.unwrap_err().kind, Kind::Denied);
    let below = xos_store::Prefix::of(["vom", "vo"]).unwrap();
    let stored = rennes.store.scan(&below, None, 500).await.unwrap().entries;
    for e in stored {
        use base64::Engine;
        let text = String::from_utf8(e.value.to_vec()).unwrap();
        let payload = text.split('.').nth(1).unwrap();
        let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let plain = String::from_utf8(engine.decode(payload).unwrap()).unwrap();
        assert!(!plain.contains(&made.secret.0), "the log holds the secret");
        assert!(!plain.contains("nina@example.org"), "the log says for whom it is");
    }
}

/// If it failed, more would come in than were invited.
#[tokio::test(flavor = "multi_thread")]
async fn two_who_come_at_once_do_not_share_the_last_use() {
    let (rennes, _vom) = rennes().await;
    let alice = rennes.own("alice");
    for round in 0..5 {
        let made = invite(&rennes, &alice, gives(&rennes, 1)).await.unwrap();
        let (a, b) = (rennes.own(&format!("a{round}")), rennes.own(&format!("b{round}")));
        let (x, y) =
            tokio::join!(follow(&rennes, &a, &made.secret), follow(&rennes, &b, &made.secret));
        let e = match (x, y) {
            (Ok(_), Err(e)) | (Err(e), Ok(_)) => e,
            other => panic!("one of them comes in: {other:?}"),
        };
        assert!(e.message.contains("as many persons"), "{e}");
    }
}

/// If it failed, a link would open the VO when it should not any more, or strangers learn by trying
/// which links there are.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_over_opens_nothing_and_only_its_holder_learns_why() {
    let (rennes, _vom) = rennes().await;
    let (alice, bob) = (rennes.own("alice"), rennes.own("bob"));
    let nobodys = InvitationSecret("A".repeat(43));
    let e = follow(&rennes, &bob, &nobodys).await.unwrap_err();
    assert_eq!(e.kind, Kind::NotFound);

    let withdrawn = invite(&rennes, &alice, gives(&rennes, 9)).await.unwrap();
    let invitation = withdrawn.invitation.invitation.clone();
    let withdraw = || WithdrawInvitation { vo: vo(), invitation: invitation.clone() };
    assert_eq!(rennes.ask(&bob, withdraw()).await.unwrap_err().kind, Kind::Denied);
    rennes.ask(&alice, withdraw()).await.unwrap();
    let e = follow(&rennes, &bob, &withdrawn.secret).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("withdrawn"), "{e}");

    let carols = Gives { person: Some(id("carol@rennes")), ..gives(&rennes, 9) };
    let carols = invite(&rennes, &alice, carols).await.unwrap();
    let e = follow(&rennes, &bob, &carols.secret).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("carol@rennes"), "{e}");

    // Who made it may not any more.
    join(&rennes, &rennes.own("dora"), "demo.rennes").await;
    let role = |r: &str| GrantRole { vo: vo(), person: id("dora@rennes"), role: id(r) };
    rennes.ask(&alice, role("admin")).await.unwrap();
    let doras = invite(&rennes, &rennes.own("dora"), gives(&rennes, 9)).await.unwrap();
    let remove = RemoveMember { vo: vo(), person: id("dora@rennes"), reason: "x".into() };
    rennes.ask(&alice, remove).await.unwrap();
    let e = follow(&rennes, &bob, &doras.secret).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("dora@rennes"), "{e}");

    let old = invite(&rennes, &alice, gives(&rennes, 9)).await.unwrap();
    rennes.clock.advance(Duration::from_secs(864_001));
    let e = follow(&rennes, &bob, &old.secret).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("expired"), "{e}");

    // Guessing ends, also with a good link at last.
    let good = invite(&rennes, &alice, gives(&rennes, 9)).await.unwrap();
    let eve = rennes.own("eve");
    for _ in 0..20 {
        let e = follow(&rennes, &eve, &nobodys).await.unwrap_err();
        assert_eq!(e.kind, Kind::NotFound, "{e}");
    }
    let e = follow(&rennes, &eve, &good.secret).await.unwrap_err();
    assert_eq!(e.kind, Kind::Limited, "{e}");
}

/// If it failed, somebody could raise themselves or others by a link, or come back by one after
/// they were removed.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_rises_by_an_invitation() {
    let (rennes, _vom) = rennes().await;
    let (alice, bob, carol) = (rennes.own("alice"), rennes.own("bob"), rennes.own("carol"));
    join(&rennes, &bob, "demo.rennes").await;
    let invites = |roles: &[&str]| Gives {
        roles: roles.iter().map(|r| id(r)).collect(),
        ..gives(&rennes, 9)
    };
    let e = invite(&rennes, &bob, invites(&[])).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "he administers nothing");
    let (person, role) = (id("bob@rennes"), id("admin"));
    rennes.ask(&alice, GrantRole { vo: vo(), person, role }).await.unwrap();
    for high in ["owner", "admin"] {
        let e = invite(&rennes, &bob, invites(&[high])).await.unwrap_err();
        assert_eq!(e.kind, Kind::Denied, "{high} is for owners to give");
    }
    let own = invite(&rennes, &bob, invites(&["pilot"])).await.unwrap();
    let owners = invite(&rennes, &alice, invites(&["owner"])).await.unwrap();
    for secret in [&own.secret, &owners.secret] {
        let e = follow(&rennes, &bob, secret).await.unwrap_err();
        assert_eq!(e.kind, Kind::Conflict, "a member is one already: {e}");
    }

    // Removed, and back by the link: an application, and no member.
    follow(&rennes, &carol, &own.secret).await.unwrap().member.unwrap();
    let remove = RemoveMember { vo: vo(), person: id("carol@rennes"), reason: "misuse".into() };
    rennes.ask(&bob, remove).await.unwrap();
    assert!(follow(&rennes, &carol, &own.secret).await.unwrap().member.is_none());

    // An invitation of an owner to be one, with approval: an administrator cannot confirm that.
    let asks = Gives { at_once: false, ..invites(&["owner"]) };
    let asks = invite(&rennes, &alice, asks).await.unwrap();
    let nina = rennes.own("nina");
    assert!(follow(&rennes, &nina, &asks.secret).await.unwrap().member.is_none());
    let approve = Approve {
        vo: vo(),
        person: id("nina@rennes"),
        groups: vec![],
        roles: vec![],
        expires: None,
    };
    assert_eq!(rennes.ask(&bob, approve.clone()).await.unwrap_err().kind, Kind::Denied);
    let member = rennes.ask(&alice, approve).await.unwrap();
    assert_eq!(member.roles, [id("owner")], "what she was invited to");
}

/// If it failed, terms and questions would not hold for who is invited.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_invited_agrees_and_answers_too() {
    let (rennes, _vom) = rennes().await;
    let (alice, nina) = (rennes.own("alice"), rennes.own("nina"));
    let terms =
        SetTermsOfUse { vo: vo(), text: "Be kind.".into(), consent_days: None, grace_days: None };
    rennes.ask(&alice, terms).await.unwrap();
    let question = Question {
        id: "institute".into(),
        text: "Where do you work?".into(),
        kind: QuestionKind::Line,
        required: true,
        choices: vec![],
    };
    rennes.ask(&alice, SetQuestions { vo: vo(), questions: vec![question] }).await.unwrap();
    let made = invite(&rennes, &alice, gives(&rennes, 1)).await.unwrap();
    let joining = |agreed, institute: &str| Join {
        vo: vo(),
        secret: made.secret.clone(),
        message: String::new(),
        agreed,
        answers: vec![Answer { question: "institute".into(), value: institute.into() }],
    };
    let e = rennes.ask(&nina, joining(None, "Rennes")).await.unwrap_err();
    assert_eq!(e.kind, Kind::Conflict, "{e}");
    let e = rennes.ask(&nina, joining(Some(1), "")).await.unwrap_err();
    assert_eq!(e.kind, Kind::Invalid, "{e}");
    rennes.ask(&nina, joining(Some(1), "Rennes")).await.unwrap().member.unwrap();
    let of = GetEnrolment { vo: vo(), person: id("nina@rennes") };
    let seen = rennes.ask(&alice, of).await.unwrap();
    assert_eq!(seen.answers[0].value, "Rennes");
    assert_eq!(seen.consent.agreed.unwrap().version, 1);
    assert_eq!(seen.invitation.unwrap().invitation, made.invitation.invitation);
    let e = rennes.ask(&rennes.own("eve"), apply("demo.rennes", "")).await.unwrap_err();
    assert_eq!(e.kind, Kind::Invalid, "{e}");
}
