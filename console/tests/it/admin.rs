//! Rules, who runs what, the audit and the pages of the site's administrators: each for whom it
//! is, with every text hostile.

use crate::clusters;
use crate::html::{check, elements};
use crate::pages::{HOSTILE, escaped, golden};
use crate::world::{Browser, World};

/// Pages of the site's administrators.
const SITE_PAGES: &[(&str, &str)] = &[
    ("site", "/site"),
    ("site_vos", "/site/vos?vo=demo.rennes"),
    ("site_withdraw", "/site/vo/demo.rennes/withdraw"),
    ("site_rules", "/site/rules?what=run&vo=demo.rennes&groups=physics"),
    ("site_rule_form", "/site/rules/change?rule=night"),
    ("site_rule_remove", "/site/rules/remove?rule=night"),
    ("site_people", "/site/people?from=m"),
    ("site_person", "/site/person/milo@rennes"),
    ("site_appoint", "/site/person/milo@rennes/appoint"),
    ("site_recover", "/site/person/milo@rennes/recover"),
    ("site_nodes", "/site/nodes"),
    ("site_node_remove", "/site/nodes/n2.rennes/remove"),
    ("site_names", "/site/names"),
    ("site_name_release", "/site/names/milo/release"),
    ("site_sites", "/site/sites"),
    ("site_forget", "/site/sites/pisa/forget"),
    ("site_services", "/site/services"),
    ("site_service_remove", "/site/services/c1/remove"),
    ("site_audit", "/site/audit?outcome=done"),
    ("site_heads", "/site/audit/heads"),
];

/// A form: its path, its fields, and what of it comes to the core.
pub type Form = (&'static str, &'static [(&'static str, &'static str)], &'static str);

/// Forms of the site's administrators, and what of each comes to the core.
const SITE_FORMS: &[Form] = &[
    (
        "/site/vos/offer",
        &[("vo", "open.rennes"), ("cpus", "1.5"), ("memory", "2"), ("until", "2027-01-31")],
        "OfferShare { vo: VoId(\"open.rennes\"), cpu_milli: 1500, memory_bytes: 2147483648",
    ),
    ("/site/vo/demo.rennes/withdraw", &[("reason", "why")], "WithdrawShare"),
    ("/site/vo/demo.rennes/suspend", &[("reason", "why")], "SuspendVo"),
    ("/site/vo/demo.rennes/resume", &[], "ResumeVo"),
    (
        "/site/rules/change",
        &[
            ("version", "4"),
            ("name", "day"),
            ("who", "*"),
            ("what", "*"),
            ("place", "*"),
            ("effect", "allow"),
        ],
        "SetRules 4 night,day",
    ),
    ("/site/rules/remove", &[("version", "5"), ("rule", "night")], "SetRules 5 day"),
    (
        "/site/people",
        &[("name", "otto"), ("password", "a long one"), ("again", "a long one")],
        "CreatePerson",
    ),
    ("/site/person/milo@rennes/suspend", &[], "disabled: Some(true), site_admin: None"),
    ("/site/person/milo@rennes/resume", &[], "disabled: Some(false), site_admin: None"),
    ("/site/person/milo@rennes/appoint", &[], "disabled: None, site_admin: Some(true)"),
    ("/site/person/milo@rennes/dismiss", &[], "disabled: None, site_admin: Some(false)"),
    ("/site/person/milo@rennes/recover", &[], "RecoverPerson"),
    ("/site/nodes", &[("label", "n3")], "CreateJoinToken { label: \"n3\" }"),
    ("/site/nodes/n2.rennes/remove", &[], "RemoveNode"),
    (
        "/site/names",
        &[("vo", "demo.rennes"), ("person", "milo@rennes"), ("name", "mm")],
        "GiveNames",
    ),
    ("/site/names/drop", &[("vo", "demo.rennes"), ("person", "milo@rennes")], "DropName"),
    ("/site/names/milo/release", &[], "ReleaseName"),
    ("/site/sites/offer", &[("site", "lyon")], "OfferTrust"),
    ("/site/sites/accept", &[("offer", "x"), ("fingerprint", "told")], "fingerprint: \"told\""),
    ("/site/sites/pisa/forget", &[], "ForgetSite"),
    ("/site/services", &[("name", "Wiki"), ("scopes", "openid")], "scopes: [OpenId]"),
    ("/site/services/c1/remove", &[], "RemoveClient { id: \"c1\" }"),
];

/// Forms of the site's administrators that change nothing.
const SITE_LOOKS: &[(&str, &[(&str, &str)])] =
    &[("/site/sites/read", &[("offer", "x")]), ("/site/audit/verify", &[])];

fn site_pages() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    SITE_PAGES.iter().chain(clusters::SITE_PAGES)
}

fn site_forms() -> impl Iterator<Item = &'static Form> {
    SITE_FORMS.iter().chain(clusters::SITE_FORMS)
}

pub fn done(world: &World) -> Vec<String> {
    world.fake.done.lock().unwrap().clone()
}

/// If it failed, what a VO, a site or a service calls itself would run in the browser of a site's
/// administrator.
#[actix_web::test]
async fn hostile_texts_come_out_as_text_on_the_sites_pages() {
    let world = World::new(HOSTILE);
    let ada = world.signed_in("ada").await;
    for (name, path) in site_pages() {
        let page = ada.get(path).await;
        assert_eq!(page.status, 200, "{name}: {}", page.body);
        escaped(name, &page);
        golden(name, &page.body);
    }
    for (path, fields, _) in site_forms() {
        let page = ada.post(path, fields).await;
        if page.status != 303 {
            assert_eq!(page.status, 200, "{path}: {}", page.body);
            escaped(path, &page);
        }
    }
    for (path, fields) in SITE_LOOKS {
        let page = ada.post(path, fields).await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        escaped(path, &page);
    }
}

/// If it failed, a person could see or change what is the site's.
#[actix_web::test]
async fn the_sites_pages_are_for_its_administrators_alone() {
    let world = World::new("text");
    for name in ["vera", "milo", "nina"] {
        let person = world.signed_in(name).await;
        assert!(!person.get("/").await.body.contains("nav-site"), "{name} is led to the site");
        for (page, path) in site_pages() {
            assert_eq!(person.get(path).await.status, 403, "{page} for {name}");
        }
        let forms = site_forms().map(|(path, fields, _)| (*path, *fields));
        for (path, fields) in forms.chain(SITE_LOOKS.iter().copied()) {
            assert_eq!(person.post(path, fields).await.status, 403, "{path} for {name}");
        }
    }
    assert_eq!(done(&world), Vec::<String>::new());
}

/// If it failed, another site's page could make a site's administrator change something.
#[actix_web::test]
async fn the_sites_forms_want_the_sessions_token() {
    let world = World::new("text");
    let ada = world.signed_in("ada").await;
    for (path, fields, _) in site_forms() {
        assert_eq!(ada.post_exactly(path, fields).await.status, 403, "{path}");
    }
    assert_eq!(done(&world), Vec::<String>::new());
}

#[actix_web::test]
async fn a_site_administrators_forms_do_what_they_say() {
    let world = World::new("text");
    let ada = world.signed_in("ada").await;
    let first = ada.get("/").await;
    assert!(first.body.contains("nav-site"), "the menu does not lead to the site");
    for (path, fields, want) in site_forms() {
        let page = ada.post(path, fields).await;
        assert!(matches!(page.status, 200 | 303), "{path}: {}", page.body);
        let last = done(&world).pop().unwrap_or_default();
        assert!(last.starts_with("ada@rennes ") && last.contains(want), "{path}: {last}");
    }
    let page = ada.post("/site/vos/offer", &[("vo", "open.rennes"), ("cpus", "lots")]).await;
    assert_eq!(page.status, 400);
    assert!(page.body.contains("value=\"lots\""), "what was typed is lost");
    let differ = [("name", "otto"), ("password", "a long one"), ("again", "another one")];
    assert_eq!(ada.post("/site/people", &differ).await.status, 400);
}

/// If it failed, an administrator could take the fingerprint that an impostor sent for the one
/// that the other administrator told.
#[actix_web::test]
async fn an_invitation_does_not_tell_its_own_fingerprint() {
    let world = World::new("text");
    let ada = world.signed_in("ada").await;
    ada.get("/site/sites").await;
    let page = ada.post("/site/sites/read", &[("offer", "an invitation")]).await;
    assert!(page.body.contains("Trust site lyon?"), "{}", page.body);
    assert!(!page.body.contains("told-by-nobody"), "{}", page.body);
}

#[actix_web::test]
async fn what_waits_at_the_site_is_told_with_its_page() {
    let world = World::new("a broken share");
    let ada = world.signed_in("ada").await;
    let page = ada.get("/site").await.body;
    for part in ["demo.rennes: a broken share", "n2.rennes is not connected", "not answered"] {
        assert!(page.contains(part), "{part} is not told: {page}");
    }
    assert!(!page.contains("n1.rennes is not connected"), "{page}");
}

const NIGHT: [(&str, &str); 9] = [
    ("rule", "night"),
    ("name", "night"),
    ("who", "group"),
    ("whom", "press"),
    ("what", "run"),
    ("place", "site"),
    ("at", "rennes"),
    ("effect", "deny"),
    ("note", "no work at night"),
];

async fn send(browser: &Browser, version: &'static str) -> crate::world::Answer {
    let mut fields = vec![("version", version)];
    fields.extend_from_slice(&NIGHT);
    browser.post("/vo/demo.rennes/rules/change", &fields).await
}

/// If it failed, of two administrators at once the second would undo what the first did, or lose
/// what they typed.
#[actix_web::test]
async fn the_second_of_two_administrators_is_told_what_changed() {
    let world = World::new("text");
    let vera = world.signed_in("vera").await;
    let form = vera.get("/vo/demo.rennes/rules/change?rule=night").await;
    assert!(form.body.contains("name=\"version\" value=\"4\""), "{}", form.body);
    let page = send(&vera, "4").await;
    assert_eq!((page.status, page.header("location")), (303, "/vo/demo.rennes/rules"));
    assert_eq!(done(&world), ["vera@rennes SetRules 4 night no work at night"]);
    let page = vera.get("/vo/demo.rennes/rules").await;
    assert!(page.body.contains("The rule night is set. Take care: Text."), "{}", page.body);
    assert!(page.body.contains("group press"), "{}", page.body);

    let page = send(&vera, "4").await;
    assert_eq!(page.status, 409);
    check(&page.body);
    assert!(page.body.contains("The rules are others meanwhile: vera@rennes set night"));
    assert!(page.body.contains("value=\"no work at night\""), "what was typed is lost");
    assert!(page.body.contains("name=\"version\" value=\"5\""), "it can never be sent");
    assert_eq!(done(&world).len(), 1);
    assert_eq!(send(&vera, "9").await.status, 409, "a version that never was");
    assert_eq!(send(&vera, "5").await.status, 303);

    let stale = [("version", "5"), ("rule", "night")];
    assert_eq!(vera.post("/vo/demo.rennes/rules/remove", &stale).await.status, 409);
    let fresh = [("version", "6"), ("rule", "night")];
    assert_eq!(vera.post("/vo/demo.rennes/rules/remove", &fresh).await.status, 303);
    assert!(vera.get("/vo/demo.rennes/rules").await.body.contains("nobody may do anything"));
}

/// If it failed, a member could change rules, or ask what they would say of others.
#[actix_web::test]
async fn a_member_reads_the_rules_and_asks_for_themselves() {
    let world = World::new("text");
    let milo = world.signed_in("milo").await;
    let page = milo.get("/vo/demo.rennes/rules").await;
    assert!(page.body.contains("data-rule=\"night\""), "{}", page.body);
    for part in ["to-change-night", "to-remove-night", "to-new-rule", "ask-person"] {
        assert!(!page.body.contains(part), "{part} is shown to a member");
    }
    assert_eq!(send(&milo, "4").await.status, 403);
    let remove = [("version", "4"), ("rule", "night")];
    assert_eq!(milo.post("/vo/demo.rennes/rules/remove", &remove).await.status, 403);
    assert!(done(&world).is_empty());
    let asked = "/vo/demo.rennes/rules?what=run&site=rennes&person=vera@rennes&roles=owner";
    let page = milo.get(asked).await;
    assert!(page.body.contains("the rules of the VO: night (deny)"), "{}", page.body);
    assert!(page.body.contains("Asked for you, milo@rennes."), "{}", page.body);
    let nina = world.signed_in("nina").await;
    assert_eq!(nina.get("/vo/demo.rennes/running").await.status, 403);
}

#[actix_web::test]
async fn the_box_names_the_rule_that_decided_and_all_that_matched() {
    let world = World::new("text");
    let vera = world.signed_in("vera").await;
    let page = vera.get("/vo/demo.rennes/rules?what=run&site=rennes&person=milo@rennes").await;
    check(&page.body);
    assert!(page.body.contains("text may not run jobs"), "{}", page.body);
    let site = page.body.find("everybody").unwrap();
    let decided = page.body.find("night <span class=\"quiet\">decided</span>").unwrap();
    assert!(site < decided, "the site's rules come first");
    let page = vera.get("/vo/demo.rennes/rules?what=fly").await;
    assert!(page.body.contains("what-if-trouble") && page.status == 200, "{}", page.body);
}

/// If it failed, work at one site would be told as all there is, or its owner not found.
#[actix_web::test]
async fn who_runs_what_names_people_and_the_sites_that_do_not_answer() {
    let world = World::new("text");
    for name in ["vera", "milo"] {
        let browser = world.signed_in(name).await;
        let page = browser.get("/vo/demo.rennes/running").await;
        assert_eq!(page.status, 200, "{}", page.body);
        check(&page.body);
        for part in [
            "href=\"/vo/demo.rennes/job/1.rennes\"",
            "href=\"/vo/demo.rennes/member/milo@rennes\"",
            "units: 6, processors: 3",
            "waits for one",
            "6 of 8",
            "What its nodes run is missing.",
        ] {
            assert!(page.body.contains(part), "{part} is missing: {}", page.body);
        }
        assert!(!page.body.contains("job/9.pisa"), "a link to a job that another core owns");
        let all = elements(&page.body);
        let charts: Vec<_> =
            all.iter().filter(|e| e.name == "svg" && e.get("role").is_some()).collect();
        assert_eq!(charts.len(), 2, "{charts:?}");
        assert!(charts.iter().all(|c| c.get("aria-labelledby").is_some()), "{charts:?}");
    }
}

/// If it failed, what runs would still come to the browser of somebody who signed out.
#[actix_web::test]
async fn the_page_of_what_runs_is_not_kept_up_after_signing_out() {
    let world = World::new("text");
    let milo = world.signed_in("milo").await;
    milo.get("/").await;
    let (events, _) = futures_util::future::join(
        milo.get_live("/vo/demo.rennes/running/events"),
        milo.post("/sign-out", &[]),
    )
    .await;
    assert!(events.body.trim().is_empty(), "{}", events.body);
    let nina = world.signed_in("nina").await;
    assert_eq!(nina.get_live("/vo/demo.rennes/running/events").await.status, 403);
}

fn older(body: &str) -> Option<String> {
    let all = elements(body);
    let link = all.iter().find(|e| e.get("id") == Some("older"))?;
    Some(link.get("href")?.replace("&#38;", "&"))
}

/// If it failed, older lines would not be reached, or be those of another search or person.
#[actix_web::test]
async fn the_audit_goes_on_with_the_same_search() {
    let world = World::new("text");
    let vera = world.signed_in("vera").await;
    let page = vera.get("/vo/demo.rennes/audit?what=set_rules&since=2026-01-31").await;
    check(&page.body);
    assert!(page.body.contains("line 2") && !page.body.contains("line 1"), "{}", page.body);
    assert!(page.body.contains("Its lines are missing."), "pisa is not named: {}", page.body);
    let next = older(&page.body).expect("older lines");
    assert!(
        next.starts_with("/vo/demo.rennes/audit?") && next.contains("what=set_rules"),
        "{next}"
    );
    let page = vera.get(&next).await;
    assert!(page.body.contains("line 1") && older(&page.body).is_none(), "{}", page.body);
    let asked = done(&world);
    assert!(
        asked.iter().all(|a| a.contains("set_rules") && a.contains("demo.rennes")),
        "{asked:?}"
    );

    let milo = world.signed_in("milo").await;
    let page = milo.get("/vo/demo.rennes/audit").await;
    assert_eq!(page.status, 200);
    let page = milo.get("/audit?person=vera@rennes").await;
    assert!(page.body.contains("What is noted of me"), "{}", page.body);
    let last = done(&world).pop().unwrap_or_default();
    assert!(last.contains("person: Some(PersonId(\"milo@rennes\"))"), "{last}");
}

/// If it failed, a damaged record would pass for whole.
#[actix_web::test]
async fn a_fault_of_the_audit_is_told() {
    let world = World::new("text");
    let ada = world.signed_in("ada").await;
    ada.get("/site/audit").await;
    let page = ada.post("/site/audit/verify", &[]).await;
    check(&page.body);
    for part in
        ["No: something was tampered with", "altered", "did not say what they witnessed: pisa"]
    {
        assert!(page.body.contains(part), "{part} is missing: {}", page.body);
    }
    // What this site did not sign is no witness.
    let page = ada.get("/site/audit/heads").await;
    assert!(page.body.contains("No other site holds a word"), "{}", page.body);
}
