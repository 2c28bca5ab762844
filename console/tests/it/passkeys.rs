//! Passkeys and recovery, as a browser does them: its script's part is played by the test.

use crate::fake::passkeys::{CODE, FLOW, KEY, RIGHT};
use crate::html::{check, elements};
use crate::world::{Answer, Browser, World};
use std::sync::atomic::Ordering;

/// Breaks out of an attribute where it is not escaped.
const HOSTILE: &str = "\"'><script>alert(1)</script>";

fn world() -> World {
    let world = World::new(HOSTILE);
    world.fake.passkeys.store(true, Ordering::SeqCst);
    world
}

/// Looks the page over on which the browser asks for a passkey.
fn asks(page: &Answer, what: &str, action: &str) {
    assert_eq!(page.status, 200, "{}", page.body);
    check(&page.body);
    assert!(!page.body.contains("<script>"), "{}", page.body);
    let all = elements(&page.body);
    let form = all.iter().find(|e| e.get("data-passkey").is_some()).expect("no form");
    assert_eq!((form.get("data-passkey"), form.get("action")), (Some(what), Some(action)));
    assert!(form.get("data-options").unwrap().contains("challenge"));
    let script = |e: &&crate::html::Element| e.name == "script";
    let sources: Vec<_> = all.iter().filter(script).filter_map(|e| e.get("src")).collect();
    assert!(sources.iter().any(|s| s.starts_with("/static/passkeys.js?v=")), "{sources:?}");
}

async fn answer(browser: &Browser, path: &str, credential: &str, more: &[(&str, &str)]) -> Answer {
    let mut form = vec![("flow", FLOW), ("credential", credential)];
    form.extend_from_slice(more);
    browser.post(path, &form).await
}

/// If it failed, nobody could sign in by a passkey, or it would lead elsewhere than they wanted.
#[actix_web::test]
async fn a_passkey_signs_in_alone() {
    let world = world();
    let browser = world.browser().await;
    let page = browser.get("/sign-in").await;
    check(&page.body);
    assert!(page.body.contains("id=\"use-passkey\""));
    let page = browser.post("/sign-in/passkey", &[("next", "/jobs")]).await;
    asks(&page, "get", "/sign-in/passkey/finish");
    for bad in ["", "no JSON", "{\"said\":\"wrong\"}"] {
        let page = answer(&browser, "/sign-in/passkey/finish", bad, &[]).await;
        assert!(page.status >= 400, "{bad}");
        assert!(page.body.contains("id=\"sign-in-trouble\""), "{}", page.body);
    }
    let page = answer(&browser, "/sign-in/passkey/finish", RIGHT, &[("next", "/jobs")]).await;
    assert_eq!((page.status, page.header("location")), (303, "/jobs"));
    assert!(browser.get("/").await.body.contains("milo@rennes"));
}

/// If it failed, another site's page could bring its own answer into a person's browser.
#[actix_web::test]
async fn an_answer_comes_by_our_own_form_only() {
    let world = world();
    let browser = world.browser().await;
    let form = [("flow", FLOW), ("credential", RIGHT)];
    for path in
        ["/sign-in/passkey", "/sign-in/passkey/finish", "/sign-in/passkey/enrol", "/recover"]
    {
        assert_eq!(browser.post_exactly(path, &form).await.status, 403, "{path}");
    }
    let vera = world.signed_in("vera").await;
    for path in [
        "/account/passkeys/add",
        "/account/passkeys/finish",
        "/account/passkeys/0a0a/remove",
        "/account/second-factor",
        "/account/code",
    ] {
        assert_eq!(vera.post_exactly(path, &form).await.status, 403, "{path}");
    }
    assert!(world.fake.done.lock().unwrap().is_empty());
}

/// If it failed, a password alone would open the console to whoever has it, or the second step
/// would lead nowhere.
#[actix_web::test]
async fn a_second_step_is_asked_for_after_the_password() {
    let world = world();
    world.fake.second_factor.store(true, Ordering::SeqCst);
    let browser = world.browser().await;
    browser.get("/sign-in").await;
    let form = [("user", "milo"), ("password", "right horse"), ("next", "/jobs")];
    let page = browser.post("/sign-in", &form).await;
    asks(&page, "get", "/sign-in/passkey/finish");
    assert_eq!(browser.get("/").await.status, 303, "the password alone opened a session");
    let page = answer(&browser, "/sign-in/passkey/finish", RIGHT, &[("next", "/jobs")]).await;
    assert_eq!(page.header("location"), "/jobs");
}

/// If it failed, people could not manage their passkeys, or would lose one by a slip.
#[actix_web::test]
async fn passkeys_are_added_and_removed_by_the_persons_own_forms() {
    let world = world();
    let vera = world.signed_in("vera").await;
    let page = vera.get("/account").await;
    check(&page.body);
    assert!(page.body.contains("not used yet") && page.body.contains("id=\"second-on\""));
    let page = vera.post("/account/passkeys/add", &[]).await;
    asks(&page, "create", "/account/passkeys/finish");
    let page = answer(&vera, "/account/passkeys/finish", RIGHT, &[("name", "laptop")]).await;
    assert_eq!((page.status, page.header("location")), (303, "/account"));
    assert!(vera.get("/account").await.body.contains("is added"));
    assert_eq!(vera.get("/account/passkeys/ffff/remove").await.status, 404);
    let path = format!("/account/passkeys/{KEY}/remove");
    let page = vera.get(&path).await;
    check(&page.body);
    assert!(page.body.contains("all your sessions end"));
    assert!(!world.fake.done.lock().unwrap().join("\n").contains("RemovePasskey"));
    assert_eq!(vera.post(&path, &[]).await.header("location"), "/sign-in");
    assert_eq!(vera.get("/").await.status, 303, "the session outlived the passkey");
    let vera = world.signed_in("vera").await;
    vera.get("/account").await;
    assert_eq!(vera.post("/account/second-factor", &[("on", "maybe")]).await.status, 400);
    vera.get("/account").await;
    let page = vera.post("/account/second-factor", &[("on", "yes")]).await;
    assert_eq!(page.header("location"), "/sign-in");
    let done = world.fake.done.lock().unwrap().join("\n");
    for part in ["FinishPasskey", "laptop", "RemovePasskey", "SetSecondFactor { on: true }"] {
        assert!(done.contains(part), "{part} in {done}");
    }
    assert!(!done.contains("right"), "what a browser answered is shown: {done}");
}

/// If it failed, people with a second step could not use the tool.
#[actix_web::test]
async fn a_code_for_the_tool_is_shown_once_it_is_asked_for() {
    let world = world();
    let vera = world.signed_in("vera").await;
    assert!(!vera.get("/account").await.body.contains(CODE));
    let page = vera.post("/account/code", &[]).await;
    check(&page.body);
    assert!(page.body.contains(CODE) && page.body.contains("vera@rennes --code"));
}

/// If it failed, passkeys would be offered at an address where browsers refuse them.
#[actix_web::test]
async fn nothing_is_offered_where_the_site_has_no_passkeys() {
    let world = World::new("text");
    let browser = world.browser().await;
    assert!(!browser.get("/sign-in").await.body.contains("passkey"));
    assert!(!browser.get("/recover").await.body.contains("passkey"));
    let vera = world.signed_in("vera").await;
    assert!(!vera.get("/account").await.body.contains("passkey"));
}

/// If it failed, who lost everything could not come in again; or would not hear that somebody else
/// had used the code.
#[actix_web::test]
async fn a_recovery_code_makes_a_new_way_in_and_the_person_is_told() {
    let world = world();
    let browser = world.browser().await;
    let page = browser.get("/recover").await;
    check(&page.body);
    let form = |by: &'static str, code: &'static str, again: &'static str| {
        [
            ("by", by),
            ("user", "milo"),
            ("code", code),
            ("password", "a new password"),
            ("again", again),
        ]
    };
    for (code, again) in [("wrong", "a new password"), (CODE, "another password")] {
        let page = browser.post("/recover", &form("password", code, again)).await;
        assert!(page.status >= 400 && page.body.contains("id=\"recover-trouble\""));
        assert!(!page.body.contains(CODE), "the code stands in the page");
    }
    assert!(world.fake.done.lock().unwrap().is_empty());
    let page = browser.post("/recover", &form("password", CODE, "a new password")).await;
    assert_eq!(page.header("location"), "/sign-in?recovered=1");
    let page = browser.get("/sign-in?recovered=1").await;
    check(&page.body);
    assert!(page.body.contains("Your new password is set"));
    browser.get("/recover").await;
    let page = browser.post("/recover", &form("passkey", CODE, "")).await;
    asks(&page, "create", "/sign-in/passkey/enrol");
    world.fake.recovered.store(true, Ordering::SeqCst);
    let page = answer(&browser, "/sign-in/passkey/enrol", RIGHT, &[("name", "laptop")]).await;
    assert_eq!(page.status, 303, "{}", page.body);
    let page = browser.get("/").await;
    assert!(page.body.contains("ada@rennes made a way to sign in as you"), "{}", page.body);
}
