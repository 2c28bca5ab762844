//! Coming into a VO: terms, questions, invitations, and what ends.

use crate::fake::enrolment::SECRET;
use crate::html::{check, elements};
use crate::pages::{HOSTILE, escaped};
use crate::world::{Browser, World};
use std::sync::atomic::Ordering;

fn done(world: &World) -> String {
    world.fake.done.lock().unwrap().join("\n")
}

fn join_path() -> String {
    format!("/join/demo.rennes/{SECRET}/form")
}

/// Which fields a form asks for.
fn fields(html: &str) -> Vec<(String, bool)> {
    let all = elements(html);
    let named = all.iter().filter(|e| e.name != "meta" && e.get("type") != Some("hidden"));
    let field = |e: &crate::html::Element| {
        let name = e.get("name").filter(|_| e.name != "button")?;
        Some((name.to_owned(), e.get("required").is_some()))
    };
    named.filter_map(field).collect()
}

/// If it failed, a text that an administrator or applicant wrote would become a part of a page, or
/// would not be readable as it was written.
#[actix_web::test]
async fn hostile_terms_questions_and_invitations_stay_text() {
    let world = World::new(HOSTILE);
    let nina = world.signed_in("nina").await;
    let milo = world.signed_in("milo").await;
    let pages: [(&Browser, String); 7] = [
        (&nina, "/vo/open.rennes".into()),
        (&nina, "/vo/open.rennes/terms".into()),
        (&nina, join_path()),
        (&milo, "/".into()),
        (&milo, "/vo/demo.rennes".into()),
        (&milo, "/vo/demo.rennes/terms".into()),
        (&milo, "/vo/demo.rennes/member/milo@rennes/record".into()),
    ];
    for (browser, path) in pages {
        let page = browser.get(&path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        escaped(&path, &page);
        assert!(page.body.contains("&#60;script&#62;alert(1)"), "{path} does not show the text");
    }
    // What was typed comes back in the form, as what the API said about it.
    nina.get(&join_path()).await;
    let typed = [
        ("message", HOSTILE),
        ("q-why", HOSTILE),
        ("q-plan", HOSTILE),
        ("q-site", HOSTILE),
        ("terms", "1"),
        ("agree", "yes"),
    ];
    let page = nina.post(&join_path(), &typed).await;
    assert_eq!(page.status, 409, "{}", page.body);
    escaped("join again", &page);
    assert!(page.body.contains("join-trouble") && page.body.contains(" selected"));
    for field in ["terms", "q-why"] {
        let page = nina.post("/vo/open.rennes/apply", &[(field, HOSTILE)]).await;
        assert!(page.status == 303 || page.status == 400, "{field}: {}", page.status);
        if page.status == 400 {
            escaped(field, &page);
        }
    }
}

/// If it failed, people would apply without the terms or the questions that the VO has for them.
#[actix_web::test]
async fn who_applies_reads_the_terms_and_answers_the_questions() {
    let world = World::new("text");
    let nina = world.signed_in("nina").await;
    let page = nina.get("/vo/open.rennes").await;
    check(&page.body);
    let want = [
        ("q-why", false),
        ("q-plan", false),
        ("q-site", false),
        ("q-adult", true),
        ("message", false),
        ("agree", true),
    ];
    assert_eq!(fields(&page.body), want.map(|(name, must)| (name.to_owned(), must)));
    let fields = [
        ("message", "I make pictures"),
        ("q-why", "to see"),
        ("q-plan", "one\r\ntwo"),
        ("q-site", ""),
        ("q-adult", "yes"),
        ("terms", "3"),
        ("agree", "yes"),
    ];
    assert_eq!(nina.post("/vo/open.rennes/apply", &fields).await.status, 303);
    let done = done(&world);
    for part in [
        "nina@rennes Apply",
        "agreed: Some(3)",
        "question: \"why\", value: \"to see\"",
        "value: \"one\\ntwo\"",
        "question: \"adult\", value: \"yes\"",
    ] {
        assert!(done.contains(part), "{part} is missing in {done}");
    }
    assert!(!done.contains("\"site\""), "what was left open became an answer: {done}");
    // Without the tick nobody agrees.
    nina.post("/vo/open.rennes/apply", &[("terms", "3")]).await;
    assert!(self::done(&world).ends_with("agreed: None, answers: [] }"), "{}", self::done(&world));
}

/// If it failed, a link in a letter would lead nowhere, or into a VO without a word from the
/// person.
#[actix_web::test]
async fn a_link_leads_past_the_sign_in_to_what_it_offers() {
    let world = World::new("text");
    let browser = world.browser().await;
    let link = format!("/join/demo.rennes/{SECRET}");
    let page = browser.get(&link).await;
    assert_eq!(page.status, 200);
    check(&page.body);
    assert!(page.body.contains(&format!("href=\"{}\"", join_path())), "{}", page.body);
    let page = browser.get(&join_path()).await;
    let next = format!("/sign-in?next=%2Fjoin%2Fdemo.rennes%2F{SECRET}%2Fform");
    assert_eq!((page.status, page.header("location")), (303, next.as_str()));
    browser.get(&next).await;
    let path = join_path();
    let fields = [("user", "nina"), ("password", "right horse"), ("next", path.as_str())];
    let page = browser.post("/sign-in", &fields).await;
    assert_eq!(page.header("location"), join_path(), "signing in lost the link");

    let page = browser.get(&join_path()).await;
    check(&page.body);
    for part in ["vera@rennes", "members, physics", "reviewer", "as soon as you press Join"] {
        assert!(page.body.contains(part), "{part} is not said: {}", page.body);
    }
    assert!(done(&world).is_empty(), "looking at a link joined by it");
    let page = browser.post(&join_path(), &[("terms", "3"), ("agree", "yes")]).await;
    assert_eq!(page.header("location"), "/vo/demo.rennes", "{}", page.body);
    assert!(browser.get("/vo/demo.rennes").await.body.contains("You are a member of demo.rennes"));
    assert!(done(&world).starts_with("nina@rennes Join"), "{}", done(&world));
    assert!(!done(&world).contains(SECRET), "the secret is printed");
}

/// If it failed, a bad link would say nothing, or lead a browser to another place.
#[actix_web::test]
async fn bad_links_are_told_so() {
    let world = World::new("text");
    let nina = world.signed_in("nina").await;
    for path in ["/join/demo.rennes/none/form", "/join/demo.rennes/a%22b", "/join/demo/abc"] {
        let page = nina.get(path).await;
        assert_eq!(page.status, 404, "{path}");
        check(&page.body);
    }
    let long = format!("/join/demo.rennes/{}", "a".repeat(65));
    assert_eq!(nina.get(&long).await.status, 404);
    let milo = world.signed_in("milo").await;
    assert_eq!(milo.get(&join_path()).await.status, 404, "a member was offered to join");
}

/// If it failed, a member would not learn that their time ends, or would agree to other terms than
/// those that they read.
#[actix_web::test]
async fn a_member_is_told_what_ends_and_agrees_to_what_was_read() {
    let world = World::new("text");
    let milo = world.signed_in("milo").await;
    let home = milo.get("/").await;
    check(&home.body);
    assert!(home.body.contains("agree to the terms before") && home.body.contains("/terms\""));
    assert!(home.body.contains("your membership ended"));
    let page = milo.get("/vo/demo.rennes").await;
    for part in ["Your consent to the terms of use is due", "vera@rennes offers you to own"] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    assert!(!page.body.contains("Applications that wait"), "that is for administrators");
    let page = milo.get("/vo/demo.rennes/terms").await;
    assert!(page.body.contains("agree-form") && page.body.contains("version 2"));
    assert_eq!(milo.post("/vo/demo.rennes/terms/agree", &[("terms", "3")]).await.status, 400);
    world.fake.terms_version.store(4, Ordering::SeqCst);
    let agree = [("terms", "3"), ("agree", "yes")];
    let page = milo.post("/vo/demo.rennes/terms/agree", &agree).await;
    assert_eq!(page.status, 409, "agreed to what was not read");
    assert!(page.body.contains("It changed meanwhile"));
    let agree = [("terms", "4"), ("agree", "yes")];
    assert_eq!(milo.post("/vo/demo.rennes/terms/agree", &agree).await.status, 303);
    assert!(done(&world).contains("Agree { vo: VoId(\"demo.rennes\"), version: 4 }"));
    let nina = world.signed_in("nina").await;
    let page = nina.get("/vo/demo.rennes/terms").await;
    assert!(!page.body.contains("agree-form"), "who is no member agrees when they apply");
}
