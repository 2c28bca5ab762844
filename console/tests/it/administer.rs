//! What administrators of a VO, managers of a group and owners do.

use crate::fake::enrolment::SECRET;
use crate::html::{check, elements};
use crate::pages::{HOSTILE, escaped};
use crate::world::World;
use std::sync::atomic::Ordering;

/// Pages for administrators, each with whether the API shows it to them only.
const PAGES: &[(&str, bool)] = &[
    ("/vo/demo.rennes/invitations", true),
    ("/vo/demo.rennes/expiring", true),
    ("/vo/demo.rennes/expiring?days=90", true),
    ("/vo/demo.rennes/expected", true),
    ("/vo/demo.rennes/member/susi@rennes/record", true),
    ("/vo/demo.rennes/settings", false),
    ("/vo/demo.rennes/settings/terms", false),
    ("/vo/demo.rennes/settings/questions", false),
    ("/vo/demo.rennes/group/physics", false),
    ("/vo/demo.rennes/group/members", false),
    ("/vo/demo.rennes/ending", false),
    ("/vo/demo.rennes/dissolve", false),
];

/// Forms of administrators: path, fields, what is asked of the API, and a part of it.
const FORMS: &[(&str, &[(&str, &str)], &str, &str)] = &[
    (
        "/vo/demo.rennes/invitation/0123456789abcdef/withdraw",
        &[],
        "WithdrawInvitation",
        "0123456789abcdef",
    ),
    (
        "/vo/demo.rennes/member/milo@rennes/expiry",
        &[("until", "2027-01-31")],
        "SetExpiry",
        "Some(Millis(1801439999999))",
    ),
    ("/vo/demo.rennes/member/milo@rennes/expiry", &[("until", "")], "SetExpiry", "expires: None"),
    (
        "/vo/demo.rennes/expiring",
        &[("person", "milo@rennes"), ("person", "vera@rennes"), ("until", "2027-01-31")],
        "ExtendMemberships",
        "[PersonId(\"milo@rennes\"), PersonId(\"vera@rennes\")]",
    ),
    ("/vo/demo.rennes/expected/forget", &[("person", "otto@pisa")], "ForgetExpected", "otto"),
    ("/vo/demo.rennes/group/physics/groups", &[("name", "lasers")], "CreateSubgroup", "lasers"),
    ("/vo/demo.rennes/group/physics/move", &[("parent", "press")], "MoveGroup", "press"),
    ("/vo/demo.rennes/group/optics/move", &[("parent", "")], "MoveGroup", "parent: None"),
    ("/vo/demo.rennes/group/physics/managers", &[("person", "susi")], "AddManager", "susi@rennes"),
    (
        "/vo/demo.rennes/group/physics/managers/drop",
        &[("person", "milo@rennes")],
        "RemoveManager",
        "milo",
    ),
    (
        "/vo/demo.rennes/settings/description",
        &[("title", "Phantoms"), ("description", "one\r\ntwo"), ("version", "7")],
        "DescribeVo",
        "title: \"Phantoms\", description: \"one\\ntwo\", base: Some(7)",
    ),
    ("/vo/demo.rennes/settings/lease", &[("amount", "90")], "SetLease", "lease_s: 5400"),
    ("/vo/demo.rennes/settings/grace", &[("amount", "2")], "SetGrace", "grace_s: 7200"),
    ("/vo/demo.rennes/settings/renewal", &[("amount", "24")], "SetRenewal", "renewal_s: 86400"),
    ("/vo/demo.rennes/settings/audit", &[("opens", "yes")], "SetFileAudit", "opens: true"),
    ("/vo/demo.rennes/settings/reminders", &[("days", "60, 30 7")], "SetReminders", "[60, 30, 7]"),
    ("/vo/demo.rennes/handovers", &[("person", "milo@rennes")], "OfferHandover", "milo"),
    ("/vo/demo.rennes/handover/vera@rennes/end", &[], "EndHandover", "vera"),
    ("/vo/demo.rennes/handover/vera@rennes/accept", &[], "AcceptHandover", "vera"),
    ("/vo/demo.rennes/suspend", &[("reason", "moving")], "SuspendVo", "moving"),
    ("/vo/demo.rennes/resume", &[], "ResumeVo", "demo"),
    (
        "/vo/demo.rennes/dissolve",
        &[("id", "demo.rennes"), ("reason", "over")],
        "DissolveVo",
        "over",
    ),
    ("/vo/demo.rennes/dissolve/undo", &[], "UndoDissolve", "demo"),
];

/// The forms of a page besides the one to sign out.
fn forms(html: &str) -> Vec<String> {
    let all = elements(html);
    let own = all.iter().filter(|e| e.name == "form" && e.get("id") != Some("sign-out-form"));
    own.filter_map(|e| e.get("id").map(str::to_owned)).collect()
}

fn done(world: &World) -> String {
    world.fake.done.lock().unwrap().join("\n")
}

/// If it failed, a text that somebody wrote would become a part of an administrator's page.
#[actix_web::test]
async fn hostile_texts_stay_text_on_administrators_pages() {
    let world = World::new(HOSTILE);
    let vera = world.signed_in("vera").await;
    for (path, _) in PAGES {
        let page = vera.get(path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        escaped(path, &page);
    }
    for path in [
        "/vo/demo.rennes/applications",
        "/vo/demo.rennes/invitations",
        "/vo/demo.rennes/member/susi@rennes/record",
        "/vo/demo.rennes/settings/terms",
        "/vo/demo.rennes/settings/questions",
    ] {
        let page = vera.get(path).await;
        assert!(page.body.contains("&#60;script&#62;alert(1)"), "{path} does not show the text");
    }
    // What is typed comes back as it was typed.
    let typed: &[(&str, &[(&str, &str)])] = &[
        ("/vo/demo.rennes/settings/terms", &[("text", HOSTILE), ("do", "look"), ("seen", "3")]),
        ("/vo/demo.rennes/settings/terms", &[("text", HOSTILE), ("do", "set"), ("seen", "2")]),
        (
            "/vo/demo.rennes/settings/questions",
            &[
                ("rows", "1"),
                ("id-0", HOSTILE),
                ("text-0", HOSTILE),
                ("kind-0", HOSTILE),
                ("choices-0", HOSTILE),
                ("seen", HOSTILE),
                ("do", "add"),
            ],
        ),
        ("/vo/demo.rennes/dissolve", &[("id", "demo"), ("reason", HOSTILE)]),
        ("/vo/demo.rennes/expiring", &[("person", "susi@rennes"), ("end", "never")]),
    ];
    for (path, fields) in typed {
        let page = vera.post(path, fields).await;
        assert_ne!(page.status, 303, "{path}");
        escaped(path, &page);
        assert!(page.body.contains("&#60;script&#62;alert(1)"), "{path} lost what was typed");
    }
    for (path, field) in [
        ("/vo/demo.rennes/member/milo@rennes/expiry", "until"),
        ("/vo/demo.rennes/members/find", "person"),
        ("/vo/demo.rennes/group/physics/add", "person"),
        ("/vo/demo.rennes/group/physics/groups", "name"),
        ("/vo/demo.rennes/group/physics/move", "parent"),
        ("/vo/demo.rennes/settings/lease", "amount"),
        ("/vo/demo.rennes/settings/reminders", "days"),
        ("/vo/demo.rennes/invitations", "groups"),
        ("/vo/demo.rennes/invitations", "uses"),
        ("/vo/demo.rennes/handovers", "person"),
    ] {
        let page = vera.post(path, &[(field, HOSTILE)]).await;
        assert_eq!(page.status, 400, "{path} {field}");
        escaped(path, &page);
    }
}

/// If it failed, a button would do something else than it says, or nothing.
#[actix_web::test]
async fn each_form_asks_for_what_it_says() {
    let world = World::new("text");
    let vera = world.signed_in("vera").await;
    vera.get("/").await;
    for (path, fields, what, part) in FORMS {
        world.fake.done.lock().unwrap().clear();
        let page = vera.post(path, fields).await;
        assert_eq!(page.status, 303, "{path}: {}", page.body);
        let done = done(&world);
        let start = format!("vera@rennes {what} ");
        assert!(done.starts_with(&start) && done.contains(part), "{path}: {done}");
        let page = vera.get(page.header("location")).await;
        assert!(page.body.contains("id=\"notice\""), "{path} says nothing");
        check(&page.body);
    }
    let page = vera.post("/vo/demo.rennes/members/find", &[("person", "milo")]).await;
    assert_eq!(page.header("location"), "/vo/demo.rennes/member/milo@rennes");
}

/// If it failed, a member or a stranger could do by a form what the API keeps for administrators,
/// an administrator could do it in a VO of others, or another site's page could do it for them.
#[actix_web::test]
async fn nobody_else_does_it_and_not_in_another_vo() {
    let world = World::new("text");
    let (vera, nina) = (world.signed_in("vera").await, world.signed_in("nina").await);
    let milo = world.signed_in("milo").await;
    for browser in [&vera, &nina, &milo] {
        browser.get("/").await;
    }
    let extra: [(&str, &[(&str, &str)]); 3] = [
        ("/vo/demo.rennes/invitations", &[("uses", "1")]),
        ("/vo/demo.rennes/settings/terms", &[("text", "x"), ("do", "set"), ("seen", "3")]),
        ("/vo/demo.rennes/terms/agree", &[("terms", "3"), ("agree", "yes")]),
    ];
    let all = FORMS.iter().map(|(path, fields, ..)| (*path, *fields)).chain(extra);
    for (path, fields) in all {
        assert_eq!(nina.post(path, fields).await.status, 403, "{path} by a stranger");
        let there = path.replace("demo.rennes", "open.rennes");
        let fields_there: Vec<(&str, &str)> = fields
            .iter()
            .map(|(k, v)| (*k, if *v == "demo.rennes" { "open.rennes" } else { *v }))
            .collect();
        let page = vera.post(&there, &fields_there).await;
        assert_eq!(page.status, 403, "{there} by the administrator of another VO");
        assert_eq!(vera.post_exactly(path, fields).await.status, 403, "{path} without a token");
        // What a member may do besides: they manage a group, and were offered the VO.
        let own = ["/group/physics/groups", "/accept", "/agree"];
        if !own.iter().any(|end| path.ends_with(end)) {
            assert_eq!(milo.post(path, fields).await.status, 403, "{path} by a member");
        }
    }
    assert_eq!(done(&world), "", "something was done all the same");
    for (path, closed) in PAGES {
        let page = milo.get(path).await;
        let want = if *closed { 403 } else { 200 };
        assert_eq!(page.status, want, "{path} by a member");
        check(&page.body);
        let there = path.replace("demo.rennes", "open.rennes");
        let page = vera.get(&there).await;
        assert!(page.status == 403 || forms(&page.body).is_empty(), "{there}: {}", page.body);
    }
}

/// If it failed, a manager would find no way to do their part, or forms that are not theirs.
#[actix_web::test]
async fn a_manager_fills_the_group_without_administering_the_vo() {
    let world = World::new("text");
    let milo = world.signed_in("milo").await;
    let page = milo.get("/vo/demo.rennes/group/physics").await;
    let want =
        ["add-member-form", "drop-form-1", "drop-form-2", "manager-form-1", "create-within-form"];
    assert_eq!(forms(&page.body), want);
    let page = milo.get("/vo/demo.rennes/group/optics").await;
    assert!(forms(&page.body).contains(&"add-member-form".to_owned()), "it lies in physics");
    assert!(forms(&milo.get("/vo/demo.rennes/group/press").await.body).is_empty());
    assert!(forms(&milo.get("/vo/demo.rennes/group/members").await.body).is_empty());
    assert_eq!(milo.get("/vo/demo.rennes/group/none").await.status, 404);
    let page = milo.get("/vo/demo.rennes/ending").await;
    assert_eq!(forms(&page.body), ["accept-form-1", "end-form-1"], "the offer is to milo");
    let vera = world.signed_in("vera").await;
    let page = vera.get("/vo/demo.rennes/groups").await;
    let optics = page.body.find("data-group=\"optics\"").unwrap();
    let press = page.body.find("data-group=\"press\"").unwrap();
    assert!(optics < press && page.body.contains("depth-1"), "no tree: {}", page.body);
}

/// If it failed, the link of an invitation would be lost, or could be read again later.
#[actix_web::test]
async fn an_invitations_link_is_shown_once() {
    let world = World::new("text");
    let vera = world.signed_in("vera").await;
    vera.get("/vo/demo.rennes/invitations").await;
    let fields = [
        ("person", "otto@pisa"),
        ("uses", "2"),
        ("days", "3"),
        ("ends", "2027-01-31"),
        ("groups", "physics"),
        ("groups", "press"),
        ("roles", "reviewer"),
        ("hint", "otto@example.org"),
        ("ask", "yes"),
    ];
    let page = vera.post("/vo/demo.rennes/invitations", &fields).await;
    assert_eq!(page.status, 200, "{}", page.body);
    check(&page.body);
    let link = format!("https://core.test:7443/join/demo.rennes/{SECRET}");
    assert!(page.body.contains(&link), "{}", page.body);
    let asked = done(&world);
    for part in [
        "uses: 2",
        "expires: Millis(1795259200000)",
        "person: Some(PersonId(\"otto@pisa\"))",
        "ends: Some(Millis(1801439999999))",
        "at_once: false",
        "hint: \"otto@example.org\"",
        "[GroupName(\"physics\"), GroupName(\"press\")]",
    ] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    let page = vera.get("/vo/demo.rennes/invitations").await;
    assert!(!page.body.contains(SECRET), "the secret is shown again");
    for days in ["0", "367"] {
        let page = vera.post("/vo/demo.rennes/invitations", &[("days", days)]).await;
        assert_eq!(page.status, 400, "{days} days");
    }
}

/// If it failed, one administrator would overwrite what another one just set without knowing, or
/// lose what they wrote.
#[actix_web::test]
async fn the_second_of_two_administrators_is_told() {
    let world = World::new("text");
    let vera = world.signed_in("vera").await;
    vera.get("/vo/demo.rennes/settings/terms").await;
    world.fake.terms_version.store(4, Ordering::SeqCst);
    let path = "/vo/demo.rennes/settings/terms";
    let fields = [("text", "my own terms"), ("grace_days", "7"), ("seen", "3")];
    for step in ["look", "set"] {
        let mut fields = fields.to_vec();
        fields.push(("do", step));
        let page = vera.post(path, &fields).await;
        assert_eq!(page.status, 409, "{step}");
        check(&page.body);
        for part in ["terms-overtaken", "version 4", "my own terms", "name=\"seen\" value=\"4\""] {
            assert!(page.body.contains(part), "{step}: {part} is missing: {}", page.body);
        }
    }
    assert_eq!(done(&world), "");
    let fields = [("text", "my own terms"), ("grace_days", "7"), ("seen", "4"), ("do", "look")];
    let page = vera.post(path, &fields).await;
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(page.body.contains("cannot be changed or taken back") && done(&world).is_empty());
    let fields = [("text", "my own terms"), ("grace_days", "7"), ("seen", "4"), ("do", "set")];
    assert_eq!(vera.post(path, &fields).await.status, 303);
    assert!(done(&world).contains("SetTermsOfUse") && done(&world).contains("grace_days: Some(7)"));

    let path = "/vo/demo.rennes/settings/questions";
    let page = vera.get(path).await;
    let seen = |html: &str| -> String {
        let all = elements(html);
        let seen = all.iter().find(|e| e.get("name") == Some("seen")).unwrap();
        seen.get("value").unwrap().to_owned()
    };
    let before = seen(&page.body);
    world.fake.fewer_questions.store(true, Ordering::SeqCst);
    let row = [("rows", "1"), ("text-0", "Why not?"), ("kind-0", "text"), ("do", "save")];
    let save = |seen: String| -> Vec<(String, String)> {
        let row = row.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        row.chain([("seen".to_owned(), seen)]).collect()
    };
    let fields = save(before);
    let fields: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let page = vera.post(path, &fields).await;
    assert_eq!(page.status, 409, "{}", page.body);
    assert!(page.body.contains("questions-overtaken") && page.body.contains("Why not?"));
    assert!(!done(&world).contains("SetQuestions"));
    let fields = save(seen(&page.body));
    let fields: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(vera.post(path, &fields).await.status, 303);
    let done = done(&world);
    assert!(done.contains("SetQuestions") && done.contains("question-1"), "{done}");
}

/// If it failed, an export would be cut without anybody seeing it, or a slip of the hand would
/// dissolve a VO.
#[actix_web::test]
async fn owners_take_the_vo_away_whole_and_end_it_only_on_purpose() {
    let world = World::new("text");
    let vera = world.signed_in("vera").await;
    let file = vera.get("/vo/demo.rennes/export.jsonl").await;
    assert_eq!(file.header("content-type"), "text/plain; charset=utf-8");
    let name = "attachment; filename=\"demo.rennes.jsonl\"";
    assert_eq!(file.header("content-disposition"), name);
    let kinds: Vec<String> = file
        .body
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["kind"].to_string())
        .collect();
    assert_eq!(kinds, ["\"group\"", "\"group\"", "\"end\""]);
    let milo = world.signed_in("milo").await;
    assert_eq!(milo.get("/vo/demo.rennes/export.jsonl").await.status, 403);
    vera.get("/").await;
    for wrong in ["", "demo", "open.rennes", "DEMO.rennes"] {
        let fields = [("id", wrong), ("reason", "over")];
        let page = vera.post("/vo/demo.rennes/dissolve", &fields).await;
        assert_eq!(page.status, 400, "{wrong:?} dissolved it");
        assert!(page.body.contains("value=\"over\""), "the reason is lost");
    }
    assert_eq!(done(&world), "");
}
