//! Sessions, forms, headers: what an attacker would try.

use crate::world::{Answer, HOST, World};
use actix_web::test::TestRequest;
use std::sync::atomic::Ordering;
use std::time::Duration;
use xos_console::{IDLE_MAX, LIFE_MAX};

const COOKIE: &str = "__Host-xos";

fn cookie_line(answer: &Answer, name: &str) -> String {
    let start = format!("{name}=");
    let lines = answer.headers.iter().filter(|(k, v)| k == "set-cookie" && v.starts_with(&start));
    lines.map(|(_, v)| v.clone()).next().unwrap_or_default()
}

#[actix_web::test]
async fn the_session_cookie_cannot_be_read_or_sent_by_others() {
    let world = World::new("text");
    let browser = world.browser().await;
    let page = browser.get("/sign-in").await;
    let form = cookie_line(&page, "__Host-xos-form");
    let page = browser.post("/sign-in", &[("user", "milo"), ("password", "right horse")]).await;
    for line in [form, cookie_line(&page, COOKIE)] {
        for flag in ["; Secure", "; HttpOnly", "; SameSite=Strict", "; Path=/"] {
            assert!(line.contains(flag), "{line} lacks {flag}");
        }
        assert!(!line.contains("Domain"), "{line}");
        let value = line.split(['=', ';']).nth(1).unwrap();
        assert_eq!(value.len(), 32, "128 bits in hexadecimal: {line}");
    }
    assert_eq!(page.header("location"), "/");
    let peers = world.fake.peers.lock().unwrap();
    assert_eq!(peers[0].address, Some("192.0.2.7".parse().unwrap()), "tries must be countable");
}

#[actix_web::test]
async fn an_id_that_somebody_planted_never_becomes_a_session() {
    let world = World::new("text");
    let browser = world.browser().await;
    let planted = "00000000000000000000000000000000";
    browser.cookies.borrow_mut().insert(COOKIE.into(), planted.into());
    browser.get("/sign-in").await;
    browser.post("/sign-in", &[("user", "milo"), ("password", "right horse")]).await;
    let first = browser.cookies.borrow()[COOKIE].clone();
    assert_ne!(first, planted);

    // Signing in again in a living session gives another id and ends the first.
    let other = world.browser().await;
    other.get("/sign-in").await;
    other.cookies.borrow_mut().insert(COOKIE.into(), first.clone());
    other.post("/sign-in", &[("user", "vera"), ("password", "right horse")]).await;
    assert_ne!(other.cookies.borrow()[COOKIE], first);
    assert_eq!(browser.get("/").await.status, 303, "the first session should be over");
}

#[actix_web::test]
async fn forms_without_the_sessions_token_are_refused() {
    let world = World::new("text");
    let vera = world.signed_in("vera").await;
    let milo = world.signed_in("milo").await;
    milo.get("/").await;
    let foreign = milo.token.borrow().clone();
    vera.get("/").await;
    let own = vera.token.borrow().clone();
    assert_ne!(own, foreign);
    let path = "/vo/demo.rennes/groups";
    for token in ["", "x", &foreign, &own[1..], &own.to_uppercase().replace('0', "1")] {
        let page = vera.post_exactly(path, &[("csrf", token), ("name", "chess")]).await;
        assert_eq!(page.status, 403, "token {token:?} was taken");
    }
    assert_eq!(vera.post_exactly(path, &[("name", "chess")]).await.status, 403);
    assert!(world.fake.done.lock().unwrap().is_empty());
    assert_eq!(vera.post(path, &[("name", "chess")]).await.status, 303);
    assert_eq!(world.fake.done.lock().unwrap().len(), 1);
}

#[actix_web::test]
async fn forms_that_another_site_sends_are_refused_even_with_the_token() {
    let world = World::new("text");
    let vera = world.signed_in("vera").await;
    vera.get("/").await;
    let body = format!("csrf={}&name=chess", vera.token.borrow());
    let own = format!("https://{HOST}");
    for (origin, site) in [
        ("https://evil.example", "cross-site"),
        ("https://evil.example", "same-origin"),
        (own.as_str(), "cross-site"),
        ("null", "same-site"),
        ("null", ""),
    ] {
        let mut request = TestRequest::post()
            .uri("/vo/demo.rennes/groups")
            .insert_header(("origin", origin))
            .insert_header(("content-type", "application/x-www-form-urlencoded"))
            .set_payload(body.clone());
        if !site.is_empty() {
            request = request.insert_header(("sec-fetch-site", site));
        }
        assert_eq!(vera.send(request).await.status, 403, "{origin} {site}");
    }
    assert!(world.fake.done.lock().unwrap().is_empty());
}

#[actix_web::test]
async fn signing_in_from_another_sites_form_is_refused() {
    let world = World::new("text");
    let browser = world.browser().await;
    let fields = [("user", "milo"), ("password", "right horse")];
    assert_eq!(browser.post_exactly("/sign-in", &fields).await.status, 403, "no form cookie");
    browser.get("/sign-in").await;
    let forged = [("csrf", "ffffffffffffffffffffffffffffffff"), fields[0], fields[1]];
    assert_eq!(browser.post_exactly("/sign-in", &forged).await.status, 403);
    assert!(!browser.cookies.borrow().contains_key(COOKIE));
}

#[actix_web::test]
async fn sessions_end_when_idle_and_at_their_longest_life() {
    let world = World::new("text");
    let browser = world.signed_in("milo").await;
    // Tokens end after 15 minutes; upkeep renews them while nobody clicks.
    for _ in 0..5 {
        world.clock.step(Duration::from_secs(300));
        world.console.keep().await;
    }
    assert!(world.fake.renewed.load(Ordering::SeqCst) >= 1, "no token was renewed");
    assert_eq!(browser.get("/").await.status, 200, "25 minutes are not idle yet");
    // A page that follows a job is no use by a person.
    for _ in 0..6 {
        world.clock.step(Duration::from_secs(299));
        world.console.keep().await;
        assert_eq!(browser.get_live("/vo/demo.rennes/job/1.rennes").await.status, 200);
    }
    world.clock.step(Duration::from_secs(7));
    assert!(IDLE_MAX <= Duration::from_secs(6 * 299 + 7));
    assert_eq!(browser.get_live("/vo/demo.rennes/job/1.rennes").await.status, 401);
    let page = browser.get("/vo/demo.rennes").await;
    assert_eq!((page.status, page.header("location")), (303, "/sign-in?next=%2Fvo%2Fdemo.rennes"));

    let browser = world.signed_in("milo").await;
    let mut age = Duration::ZERO;
    while age < LIFE_MAX {
        assert_eq!(browser.get("/").await.status, 200, "after {age:?}");
        let step = Duration::from_secs(240);
        world.clock.step(step);
        world.console.keep().await;
        age += step;
    }
    assert_eq!(browser.get("/").await.status, 303, "12 hours are the end, used or not");
}

#[actix_web::test]
async fn signing_out_and_being_disabled_end_the_session() {
    let world = World::new("text");
    let browser = world.signed_in("milo").await;
    browser.get("/").await;
    let kept = browser.cookies.borrow().clone();
    assert_eq!(browser.post("/sign-out", &[]).await.header("location"), "/sign-in");
    assert!(!browser.cookies.borrow().contains_key(COOKIE));
    *browser.cookies.borrow_mut() = kept;
    assert_eq!(browser.get("/").await.status, 303, "the id works after signing out");

    let browser = world.signed_in("milo").await;
    world.fake.disabled.store(true, Ordering::SeqCst);
    assert_eq!(browser.get("/").await.status, 200, "the token in hand still holds");
    world.clock.step(Duration::from_secs(11 * 60));
    world.console.keep().await;
    assert_eq!(browser.get("/").await.status, 303, "who may not sign in lost the session");
}

#[actix_web::test]
async fn a_changed_membership_gets_a_new_token_by_itself() {
    let world = World::new("text");
    let browser = world.signed_in("milo").await;
    for _ in 0..3 {
        assert_eq!(browser.get("/jobs?vo=demo.rennes").await.status, 200);
    }
    assert_eq!(world.fake.issued.load(Ordering::SeqCst), 1, "a token is kept while it holds");
    world.fake.epoch.store(2, Ordering::SeqCst);
    assert_eq!(browser.get("/jobs?vo=demo.rennes").await.status, 200);
    assert_eq!(world.fake.issued.load(Ordering::SeqCst), 2);
    world.clock.step(Duration::from_secs(16 * 60));
    assert_eq!(browser.get("/").await.status, 303, "nobody renewed in time: sign in again");
}

#[actix_web::test]
async fn wrong_passwords_and_too_many_tries_are_told_kindly() {
    let world = World::new("text");
    let browser = world.browser().await;
    browser.get("/sign-in").await;
    let wrong = [("user", "milo"), ("password", "secret-typo")];
    let page = browser.post("/sign-in", &wrong).await;
    assert_eq!(page.status, 401);
    assert!(page.body.contains("Wrong name or password."), "{}", page.body);
    assert!(page.body.contains("value=\"milo\"") && !page.body.contains("secret-typo"));
    world.fake.limited.store(true, Ordering::SeqCst);
    let page = browser.post("/sign-in", &wrong).await;
    assert_eq!(page.status, 429);
    assert!(page.body.contains("Please wait a little.") && page.body.contains("30 s"));
}

#[actix_web::test]
async fn registering_is_there_only_where_the_site_allows_it() {
    let world = World::new("text");
    let browser = world.browser().await;
    assert!(!browser.get("/sign-in").await.body.contains("/register"));
    assert_eq!(browser.get("/register").await.status, 403);
    world.fake.open_registration.store(true, Ordering::SeqCst);
    assert!(browser.get("/sign-in").await.body.contains("/register"));
    browser.get("/register").await;
    let differ = [("name", "nina"), ("password", "right horse"), ("again", "left horse")];
    let page = browser.post("/register", &differ).await;
    assert_eq!(page.status, 400);
    assert!(page.body.contains("differ") && !page.body.contains("right horse"));
    let same = [("name", "nina"), ("password", "right horse"), ("again", "right horse")];
    assert_eq!(browser.post("/register", &same).await.status, 303);
    assert!(browser.get("/").await.body.contains("nina@rennes"));
}

#[actix_web::test]
async fn after_signing_in_one_is_where_one_wanted_to_be_and_never_elsewhere() {
    let world = World::new("text");
    for (next, to) in [
        ("/vo/demo.rennes", "/vo/demo.rennes"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
    ] {
        let browser = world.browser().await;
        browser.get("/sign-in").await;
        let fields = [("user", "milo"), ("password", "right horse"), ("next", next)];
        assert_eq!(browser.post("/sign-in", &fields).await.header("location"), to);
    }
}

#[actix_web::test]
async fn a_form_that_is_too_large_or_malformed_is_told_so() {
    let world = World::new("text");
    let vera = world.signed_in("vera").await;
    vera.get("/").await;
    let large = "x".repeat(10 * 1024 * 1024);
    let page = vera.post("/submit", &[("command", &large)]).await;
    assert_eq!(page.status, 413);
    assert!(page.body.contains("too large"), "{}", page.body);
    let name = "x\ny".repeat(300);
    assert_eq!(vera.post("/vo/demo.rennes/groups", &[("name", &name)]).await.status, 400);
    for path in ["/vo/a%0Ab", "/vo/x", "/vo/demo.rennes/job/x", "/vo/demo.rennes/member/x", "/none"]
    {
        let page = vera.get(path).await;
        assert_eq!(page.status, 404, "{path}");
        crate::html::check(&page.body);
    }
    let bad = TestRequest::get().uri("/v1/none");
    assert_eq!(vera.send(bad).await.body, "the API", "the API answers for its own paths");
}
