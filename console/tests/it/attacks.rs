//! What other sites' pages and other people's browsers try, against every route there is.

use crate::table::{Route, routes};
use crate::world::{Answer, Browser, HOST, World};
use actix_web::test::TestRequest;
use std::path::Path;
use std::sync::atomic::Ordering;

const COOKIE: &str = "__Host-xos";
const FORM_COOKIE: &str = "__Host-xos-form";
/// What stands at variable places; what is not here is not looked at before a form is refused.
const PLACES: &[(&str, &str)] = &[
    ("{vo}", "demo.rennes"),
    ("{person}", "milo@rennes"),
    ("{group}", "physics"),
    ("{site}", "pisa"),
    ("{job}", "1.rennes"),
    ("{unit}", "1.rennes:0"),
    ("{stream}", "stdout"),
    ("{provider}", "uni"),
    ("{cluster}", "c1.rennes"),
    ("{node}", "n2.rennes"),
    ("{tree}", "7"),
];
/// The words by which a forged form is refused: where it came from, and which token it has.
const REFUSALS: [&str; 2] =
    ["form was not sent by a page of this console", "form is not from your present session"];

/// Every page.
fn all() -> Vec<Route> {
    let found = routes(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
    let has = |method: &str, path: &str| found.iter().any(|r| r.method == method && r.path == path);
    assert!(has("get", "/") && has("post", "/sign-out") && has("post", "/device/decide"));
    found
}

fn forms() -> Vec<Route> {
    all().into_iter().filter(|r| r.method == "post").collect()
}

/// The path with something at its variable places.
fn filled(route: &Route) -> String {
    let mut path = route.path.clone();
    for (place, value) in PLACES {
        path = path.replace(place, value);
    }
    while let (Some(from), Some(to)) = (path.find('{'), path.find('}')) {
        path.replace_range(from..=to, "x");
    }
    path
}

/// A form as some page sends it: `origin` and `site` are what the browser says of that page.
fn sent(path: &str, (origin, site): (&str, &str), token: Option<&str>) -> TestRequest {
    let body = token.map_or_else(|| "name=chess".to_owned(), |t| format!("csrf={t}&name=chess"));
    let mut request = TestRequest::post()
        .uri(path)
        .insert_header(("content-type", "application/x-www-form-urlencoded"))
        .set_payload(body);
    for (name, value) in [("origin", origin), ("sec-fetch-site", site)] {
        if !value.is_empty() {
            request = request.insert_header((name, value));
        }
    }
    request
}

async fn with_token(browser: Browser, page: &str) -> (Browser, String) {
    browser.get(page).await;
    let token = browser.token.borrow().clone();
    assert_eq!(token.len(), 32, "{page} has no form");
    (browser, token)
}

fn changed(world: &World) -> (usize, usize) {
    (world.fake.done.lock().unwrap().len(), world.fake.peers.lock().unwrap().len())
}

/// If it failed, a page of another site, or of another person's session, could act for whoever
/// looks at it.
#[actix_web::test]
async fn no_route_takes_a_forged_form() {
    let world = World::new("text");
    let own = format!("https://{HOST}");
    let (_milo, foreign) = with_token(world.signed_in("milo").await, "/").await;
    let (vera, of_vera) = with_token(world.signed_in("vera").await, "/").await;
    let (guest, of_guest) = with_token(world.browser().await, "/sign-in").await;
    let before = changed(&world);
    for route in forms() {
        let path = filled(&route);
        let (browser, token) =
            if route.signed_in { (&vera, &of_vera) } else { (&guest, &of_guest) };
        for from in [
            ("https://evil.example", "cross-site"),
            ("https://evil.example", "same-origin"),
            ("https://evil.example", ""),
            (own.as_str(), "cross-site"),
            (own.as_str(), "same-site"),
            (own.as_str(), "none"),
            ("null", "cross-site"),
            ("null", ""),
            ("", ""),
        ] {
            let answer = browser.send(sent(&path, from, Some(token.as_str()))).await;
            assert_eq!(answer.status, 403, "{path} from {from:?}");
        }
        let longer = format!("{token}0");
        for wrong in
            [None, Some(""), Some(foreign.as_str()), Some(&token[1..]), Some(longer.as_str())]
        {
            let answer = browser.send(sent(&path, ("null", "same-origin"), wrong)).await;
            assert_eq!(answer.status, 403, "{path} with the token {wrong:?}");
        }
    }
    assert_eq!(changed(&world), before, "something was done");
    assert_eq!(vera.get("/").await.status, 200, "the session was ended by another's form");
}

/// If it failed, the refusals above would come from something else than the guard of forms, and
/// prove nothing.
#[actix_web::test]
async fn every_route_takes_its_own_pages_form() {
    let world = World::new("text");
    for route in forms() {
        let path = filled(&route);
        let (browser, token) = if route.signed_in {
            with_token(world.signed_in("vera").await, "/").await
        } else {
            with_token(world.browser().await, "/sign-in").await
        };
        let answer = browser.send(sent(&path, ("null", "same-origin"), Some(token.as_str()))).await;
        for words in REFUSALS {
            assert!(!answer.body.contains(words), "{path}: {}", answer.body);
        }
    }
    assert!(!world.fake.done.lock().unwrap().is_empty(), "no form did anything");
}

/// If it failed, a link or a picture's address on another site's page could act for who looks at
/// it; or who is not signed in could act at all.
#[actix_web::test]
async fn an_address_alone_does_nothing_and_nobody_acts_without_signing_in() {
    let world = World::new("text");
    let (vera, token) = with_token(world.signed_in("vera").await, "/").await;
    let nobody = world.browser().await;
    let before = changed(&world);
    for route in forms() {
        let path = filled(&route);
        vera.head(TestRequest::get().uri(&format!("{path}?csrf={token}"))).await;
    }
    for route in all().iter().filter(|r| r.signed_in) {
        let path = filled(route);
        let request = match route.method.as_str() {
            "get" => TestRequest::get().uri(&path),
            _ => sent(&path, ("null", "same-origin"), Some(token.as_str())),
        };
        let (status, headers) = nobody.head(request).await;
        let to = headers.iter().find(|(k, _)| k == "location").map_or("", |(_, v)| v.as_str());
        assert_eq!(status, 303, "{} {path}", route.method);
        assert!(to.starts_with("/sign-in?"), "{} {path} leads to {to}", route.method);
    }
    assert_eq!(changed(&world), before, "something was done");
    assert_eq!(vera.get("/").await.status, 200, "a link ended the session");
}

fn guarded(what: &str, headers: &[(String, String)]) {
    let header =
        |name: &str| headers.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v.as_str());
    let policy = header("content-security-policy");
    assert!(policy.contains("frame-ancestors 'none'"), "{what}: policy {policy:?}");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{what}");
    assert_eq!(header("x-frame-options"), "DENY", "{what}");
    assert_eq!(header("x-content-type-options"), "nosniff", "{what}");
    assert_eq!(header("cross-origin-opener-policy"), "same-origin", "{what}");
    for (_, line) in headers.iter().filter(|(k, _)| k == "set-cookie") {
        assert!(line.starts_with("__Host-"), "{what}: {line}");
        for flag in ["; Secure", "; HttpOnly", "; SameSite=Strict", "; Path=/"] {
            assert!(line.contains(flag), "{what}: {line} lacks {flag}");
        }
        assert!(!line.contains("Domain"), "{what}: {line}");
    }
}

/// If it failed, a page of another site could show one of ours below its own buttons, or a script
/// or another host could read a cookie: on pages, errors, files, and answers to programs alike.
#[actix_web::test]
async fn no_answer_can_be_framed_or_gives_a_weak_cookie() {
    let world = World::new("text");
    let (vera, _) = with_token(world.signed_in("vera").await, "/").await;
    let nobody = world.browser().await;
    let beside = [
        ("get", "/none"),
        ("get", "/vo/x"),
        ("get", "/vo/none.rennes"),
        ("get", "/static/console.css"),
        ("get", "/static/none"),
        ("get", "/scim/v2/demo.rennes/Users"),
        ("post", "/oauth/token"),
        ("post", "/oauth/introspect"),
    ];
    let listed = all();
    let listed = listed.iter().map(|r| (r.method.as_str(), filled(r)));
    let beside = beside.iter().map(|(method, path)| (*method, (*path).to_owned()));
    for (method, path) in listed.chain(beside) {
        for (who, browser) in [("vera", &vera), ("nobody", &nobody)] {
            let request = match method {
                "get" => TestRequest::get().uri(&path),
                _ => sent(&path, ("null", "same-origin"), None),
            };
            let (status, headers) = browser.head(request).await;
            guarded(&format!("{method} {path} for {who}, {status}"), &headers);
        }
    }
    let large = "x".repeat(1 << 20);
    for answer in [
        vera.post("/submit", &[("command", &large)]).await,
        vera.post("/sign-out", &[]).await,
        signs_in(&nobody, "milo").await,
    ] {
        guarded("a form's answer", &answer.headers);
    }
}

async fn signs_in(browser: &Browser, user: &str) -> Answer {
    browser.get("/sign-in").await;
    browser.post("/sign-in", &[("user", user), ("password", "right horse")]).await
}

/// If it failed, who put cookies of their own into somebody's browser could act in the session that
/// is begun there, or find that person's doings in their own.
#[actix_web::test]
async fn planted_cookies_are_worth_nothing_once_somebody_signed_in() {
    let world = World::new("text");
    let (attacker, planted) = with_token(world.browser().await, "/sign-in").await;
    let form_cookie = attacker.cookies.borrow()[FORM_COOKIE].clone();
    let own = world.signed_in("milo").await;
    let session = own.cookies.borrow()[COOKIE].clone();

    let victim = world.browser().await;
    victim.cookies.borrow_mut().insert(FORM_COOKIE.into(), form_cookie);
    victim.cookies.borrow_mut().insert(COOKIE.into(), session.clone());
    // A living session leads past the sign-in page; the form is the attacker's page's.
    victim.get("/sign-in").await;
    *victim.token.borrow_mut() = planted.clone();
    let fields = [("user", "vera"), ("password", "right horse")];
    assert_eq!(victim.post("/sign-in", &fields).await.status, 303);
    assert_ne!(victim.cookies.borrow()[COOKIE], session, "the planted id became the session's");
    assert!(!victim.cookies.borrow().contains_key(FORM_COOKIE), "the planted form cookie stays");
    assert!(victim.get("/").await.body.contains("vera@rennes"));
    let stolen = [("csrf", planted.as_str()), ("name", "chess")];
    assert_eq!(victim.post_exactly("/vo/demo.rennes/groups", &stolen).await.status, 403);
    assert!(!own.get("/").await.body.contains("vera@rennes"), "the attacker is vera now");
    assert!(world.fake.done.lock().unwrap().is_empty());
}

/// If it failed, who gets in by another way than a password would keep the id from before, which
/// somebody else may know.
#[actix_web::test]
async fn registering_gives_another_id_too() {
    let world = World::new("text");
    world.fake.open_registration.store(true, Ordering::SeqCst);
    let browser = world.signed_in("milo").await;
    let before = browser.cookies.borrow()[COOKIE].clone();
    browser.get("/register").await;
    let fields = [("name", "nina"), ("password", "right horse"), ("again", "right horse")];
    assert_eq!(browser.post("/register", &fields).await.status, 303);
    let after = browser.cookies.borrow()[COOKIE].clone();
    assert_ne!(after, before);
    assert!(browser.get("/").await.body.contains("nina@rennes"));
    browser.cookies.borrow_mut().insert(COOKIE.into(), before);
    assert_eq!(browser.get("/").await.status, 303, "the session from before goes on");
}

/// If it failed, a browser that is left open would act for somebody who was suspended or removed,
/// for as long as the session lasts.
#[actix_web::test]
async fn an_open_session_does_not_outlive_the_membership() {
    const PAGES: [&str; 2] =
        ["/vo/demo.rennes/job/1.rennes", "/vo/demo.rennes/unit/1.rennes:0/stdout.txt"];
    let world = World::new("text");
    let milo = world.signed_in("milo").await;
    for path in PAGES {
        assert_eq!(milo.get(path).await.status, 200, "{path}");
    }
    milo.get("/submit").await;
    let job = [("vo", "demo.rennes"), ("command", "/bin/true")];
    assert_eq!(milo.post("/submit", &job).await.status, 303);
    let done = changed(&world);
    milo.get("/submit").await;
    world.fake.suspended.store(true, Ordering::SeqCst);
    world.fake.epoch.store(2, Ordering::SeqCst);
    assert_eq!(milo.post("/submit", &job).await.status, 403);
    for path in PAGES {
        assert_eq!(milo.get(path).await.status, 403, "{path} is still shown");
    }
    assert_eq!(changed(&world), done, "a suspended member did something");
}
