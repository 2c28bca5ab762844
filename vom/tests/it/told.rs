//! What the site's audit is told.

use crate::world::{Site, until};
use crate::{found, id, join};
use std::collections::BTreeSet;
use std::fmt::Write;
use xos_api::audit::Outcome;
use xos_api::policy::{SetSiteRules, SetVoRules};
use xos_api::vom::*;
use xos_api::{Method, Request};
use xos_net::{Caller, Router};

/// Requests with a body that change nothing of a VO: questions, and what the audit is made of.
const LOOKS: [&str; 5] = [
    "POST /v1/audit/heads",
    "POST /v1/audit/verify",
    "POST /v1/node/audit",
    "POST /v1/vos/{vo}/join/look",
    "POST /v1/vos/{vo}/what-if",
];

fn place(method: Method, path: &str) -> String {
    format!("{} {path}", method.as_str())
}

/// A request, and how the audit called it.
async fn told<R: Request>(site: &Site, caller: &Caller, r: R) -> (String, String) {
    let before = site.audit.events().len();
    let _answer = site.ask(caller, r).await;
    let events = site.audit.events();
    let whats: Vec<_> = events[before..].iter().map(|e| e.what.as_str()).collect();
    (place(R::METHOD, R::PATH), whats.join(" "))
}

/// If it failed, something that changes a VO, or is refused to somebody who tries it, would be in
/// no audit. `XOS_BLESS=1` writes the list anew.
#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_noted() {
    let (rennes, pisa) = (Site::new("rennes").await, Site::new("pisa").await);
    let vom = rennes.start().await;
    rennes.trusts(&pisa);
    found(&rennes).await;
    let (eve, core) = (rennes.own("eve"), rennes.core_of(&pisa));
    let vo = || id::<xos_base::VoId>("demo.rennes");
    let bob = || id::<xos_base::PersonId>("bob@rennes");
    let site = || id::<xos_base::SiteId>("pisa");
    let (reason, name) = (|| String::from("because"), || id("physics"));
    let terms = Terms { cpu_milli: 1, memory_bytes: 1, storage_bytes: 1, until: None, version: 1 };
    let gives = Gives {
        groups: vec![],
        roles: vec![],
        uses: 1,
        expires: xos_base::Millis(u64::MAX / 2),
        person: None,
        ends: None,
        at_once: true,
    };
    let secret = InvitationSecret("x".repeat(43));
    macro_rules! all {
        ($($caller:ident $r:expr;)*) => { vec![$(told(&rennes, &$caller, $r).await),*] };
    }
    let rows = all! {
        eve FoundVo { label: "eves".into(), title: "Eve".into(), description: String::new() };
        eve SuspendVo { vo: vo(), reason: reason() };
        eve ResumeVo { vo: vo() };
        eve DescribeVo { vo: vo(), title: "Eve's".into(), description: reason(), base: None };
        eve SetLease { vo: vo(), lease_s: 600, base: None };
        eve SetRenewal { vo: vo(), renewal_s: 600, base: None };
        eve RecordVolume { vo: vo(), name: "data".into() };
        eve Apply { vo: vo(), message: String::new() , agreed: None, answers: vec![] };
        eve WithdrawApplication { vo: vo() };
        eve Approve { vo: vo(), person: bob(), groups: vec![], roles: vec![], expires: None };
        eve Reject { vo: vo(), person: bob(), reason: reason() };
        eve SuspendMember { vo: vo(), person: bob(), reason: reason() };
        eve ResumeMember { vo: vo(), person: bob() };
        eve RemoveMember { vo: vo(), person: bob(), reason: reason() };
        eve SetExpiry { vo: vo(), person: bob(), expires: None };
        eve GrantRole { vo: vo(), person: bob(), role: id("admin") };
        eve WithdrawRole { vo: vo(), person: bob(), role: id("admin") };
        eve CreateGroup { vo: vo(), name: name() };
        eve DeleteGroup { vo: vo(), name: name() };
        eve AddToGroup { vo: vo(), name: name(), person: bob() };
        eve RemoveFromGroup { vo: vo(), name: name(), person: bob() };
        eve OfferShare { vo: vo(), cpu_milli: 1, memory_bytes: 1, storage_bytes: 1, until: None,
            base: None };
        eve WithdrawShare { vo: vo(), reason: reason() };
        core RecordOffer { vo: vo(), terms };
        core RecordWithdrawal { vo: vo(), version: 1, reason: reason() };
        eve AcceptShare { vo: vo(), site: site(), version: 1 };
        eve RefuseShare { vo: vo(), site: site(), version: 1, reason: reason() };
        eve EndShare { vo: vo(), site: site(), reason: reason() };
        eve GiveNames { vo: vo(), names: vec![], dry_run: false };
        eve DropName { vo: vo(), person: bob() };
        eve ReleaseName { name: id("bob") };
        eve SetGrace { vo: vo(), grace_s: 600, base: None };
        eve SetFileAudit { vo: vo(), opens: true, base: None };
        eve SetVoRules { vo: vo(), version: 0, rules: vec![] };
        eve SetSiteRules { version: 0, rules: vec![] };
        eve SetTermsOfUse { vo: vo(), text: reason(), consent_days: None, grace_days: None };
        eve Agree { vo: vo(), version: 1 };
        eve SetQuestions { vo: vo(), questions: vec![] };
        eve SetReminders { vo: vo(), days: vec![7], base: None };
        eve Invite { vo: vo(), gives, hint: String::new() };
        eve WithdrawInvitation { vo: vo(), invitation: "0123456789abcdef".into() };
        eve Join { vo: vo(), secret, message: String::new(), agreed: None, answers: vec![] };
        eve ExtendMemberships { vo: vo(), persons: vec![bob()], expires: None };
        eve CreateSubgroup { vo: vo(), parent: name(), name: id("physics-optics") };
        eve MoveGroup { vo: vo(), name: name(), parent: None };
        eve AddManager { vo: vo(), name: name(), person: bob() };
        eve RemoveManager { vo: vo(), name: name(), person: bob() };
        eve OfferHandover { vo: vo(), to: bob() };
        eve AcceptHandover { vo: vo(), by: bob() };
        eve EndHandover { vo: vo(), by: bob() };
        eve ExpectPeople { vo: vo(), people: vec![], dry_run: false };
        eve ForgetExpected { vo: vo(), people: vec![bob()] };
        eve DissolveVo { vo: vo(), reason: reason() };
        eve UndoDissolve { vo: vo() };
    };
    let mut router = Router::new();
    vom.register(&mut router);
    let changes = router.served().filter(|(method, ..)| *method != Method::Get);
    let mut served: BTreeSet<_> = changes.map(|(method, path, _)| place(method, path)).collect();
    for only_look in LOOKS {
        assert!(served.remove(only_look), "{only_look} is not served");
    }
    let named: BTreeSet<_> = rows.iter().map(|(place, _)| place.clone()).collect();
    assert_eq!(named, served, "a change has no row, or a row no change");
    let mut table = String::new();
    for (place, what) in rows {
        assert!(!what.is_empty(), "{place} is not noted");
        writeln!(table, "{what:<24} {place}").unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/told.txt");
    if std::env::var_os("XOS_BLESS").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(table, golden, "what is noted has changed: read the table, then XOS_BLESS=1");
}

/// If it failed, nobody could tell later who removed whom and why, nor since when it counted at
/// another site.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_is_noted_at_its_home_and_where_it_counts() {
    let (rennes, pisa) = (Site::new("rennes").await, Site::new("pisa").await);
    rennes.trusts(&pisa);
    pisa.trusts(&rennes);
    let (_home, _serves) = (rennes.start().await, pisa.start().await);
    found(&rennes).await;
    let (alice, bob) = (rennes.own("alice"), rennes.own("bob"));
    join(&rennes, &bob, "demo.rennes").await;
    let (vo, cpu_milli, memory_bytes) = (id("demo.rennes"), 1000, 1 << 30);
    let offer =
        OfferShare { vo, cpu_milli, memory_bytes, storage_bytes: 0, until: None, base: None };
    pisa.ask(&pisa.admin(), offer).await.unwrap();
    let accept = AcceptShare { vo: id("demo.rennes"), site: id("pisa"), version: 1 };
    rennes.ask(&alice, accept).await.unwrap();
    let reason = "left the institute".to_owned();
    let remove = RemoveMember { vo: id("demo.rennes"), person: id("bob@rennes"), reason };
    rennes
        .ask(&bob, RemoveMember { person: id("alice@rennes"), ..remove.clone() })
        .await
        .unwrap_err();
    rennes.ask(&alice, remove).await.unwrap();

    let told: Vec<_> =
        rennes.audit.events().into_iter().filter(|e| e.what == "remove_member").collect();
    let short: Vec<_> = told.iter().map(|e| (e.who.as_str(), e.outcome)).collect();
    assert_eq!(short, [("bob@rennes", Outcome::Refused), ("alice@rennes", Outcome::Done)]);
    assert_eq!(told[1].person, Some(id("bob@rennes")));
    assert_eq!(
        (told[1].vo.as_ref(), told[1].why.as_str()),
        (Some(&id("demo.rennes")), "left the institute")
    );
    let there = until("pisa notes the removal", || {
        pisa.audit.events().into_iter().find(|e| e.what == "member_removed")
    })
    .await;
    assert_eq!((there.who.as_str(), there.person), ("alice@rennes", Some(id("bob@rennes"))));
    let offered = pisa.audit.events().into_iter().find(|e| e.what == "offer_share").unwrap();
    assert_eq!((offered.who.as_str(), offered.outcome), ("root@pisa", Outcome::Done));
}

/// If it failed, who was let in ahead of time, who took the whole VO along, or who changed the
/// site's own rules, would be in no audit.
#[tokio::test(flavor = "multi_thread")]
async fn people_expected_exports_and_rules_of_the_site_are_noted() {
    let rennes = Site::new("rennes").await;
    let _vom = rennes.start().await;
    found(&rennes).await;
    let (alice, eve, root) = (rennes.own("alice"), rennes.own("eve"), rennes.admin());
    let vo = || id::<xos_base::VoId>("demo.rennes");
    let noted = |what: &str| {
        let events = rennes.audit.events().into_iter().filter(|e| e.what == what);
        events.map(|e| (e.who, e.outcome, e.on)).collect::<Vec<_>>()
    };
    let row = |who: &str, how: Outcome, on: &str| (who.to_owned(), how, on.to_owned());
    let (done, refused) = (Outcome::Done, Outcome::Refused);

    let person = |name: &str| {
        let person = id(&format!("{name}@rennes"));
        ExpectedPerson { person, groups: vec![], roles: vec![], expires: None }
    };
    let people = || vec![person("bob"), person("carol")];
    let expect = |dry_run| ExpectPeople { vo: vo(), people: people(), dry_run };
    rennes.ask(&eve, expect(true)).await.unwrap_err();
    rennes.ask(&alice, expect(true)).await.unwrap();
    rennes.ask(&alice, expect(false)).await.unwrap();
    let on = "people bob@rennes carol@rennes";
    let rows = [row("eve@rennes", refused, on), row("alice@rennes", done, on)];
    assert_eq!(noted("expect_people"), rows);
    rennes.ask(&rennes.own("bob"), crate::apply("demo.rennes", "hello")).await.unwrap();
    assert_eq!(noted("approve"), [row("alice@rennes", done, "")]);
    let forget = ForgetExpected { vo: vo(), people: vec![id("carol@rennes")] };
    rennes.ask(&alice, forget).await.unwrap();
    let on = "people carol@rennes";
    assert_eq!(noted("forget_expected"), [row("alice@rennes", done, on)]);

    let mut export = ExportVo { vo: vo(), after: None, log: false };
    rennes.ask(&eve, export.clone()).await.unwrap_err();
    let mut parts = 0;
    loop {
        export.after = rennes.ask(&alice, export.clone()).await.unwrap().next;
        parts += 1;
        if export.after.is_none() {
            break;
        }
    }
    assert!(parts > 1);
    let rows = [row("eve@rennes", refused, ""), row("alice@rennes", done, "")];
    assert_eq!(noted("export_vo"), rows);

    let rule = serde_json::json!({
        "name": "no-cron", "who": "*", "what": "login", "effect": "deny"
    });
    let rules = || vec![serde_json::from_value(rule.clone()).unwrap()];
    let set = || xos_api::policy::SetSiteRules { version: 0, rules: rules() };
    rennes.ask(&eve, set()).await.unwrap_err();
    rennes.ask(&root, set()).await.unwrap();
    let on = "put no-cron, remove everybody";
    let rows = [row("eve@rennes", refused, ""), row("root@rennes", done, on)];
    assert_eq!(noted("set_site_rules"), rows);
}
