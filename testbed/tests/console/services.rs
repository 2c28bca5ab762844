//! The pages to which others send a browser: a service, a device, a machine; the list of what was
//! allowed; and the way back in for who lost all others.

use crate::browser::{Browser, Page};
use crate::check::{Album, cookie};
use crate::service::{NAME, Service, node_asks, text, turn};
use crate::{VO, World};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The password that milo makes by the code of an administrator.
const NEW_PASSWORD: &str = "a boat, a lamp and nine herons";
/// A sign-in is old enough for a service that wants a new one after a minute.
const OLD_MAX: Duration = Duration::from_secs(90);
/// How often to look whether it is.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What the chapters share.
struct Scene<'a> {
    world: &'a World,
    album: Album,
    service: Service,
}

/// All chapters.
pub fn all(world: &World, browser: &Browser) {
    let scene = Scene { world, album: Album::new(world.test), service: Service::start(world) };
    let (vera, milo) = (browser.page(&world.origin, true), browser.page(&world.origin, true));
    let token = vera_allows_a_service(&scene, &vera);
    vera_says_no_by_keys(&scene, &vera);
    vera_lets_a_device_in(&scene, &vera);
    vera_works_at_a_machine(&scene, &vera);
    vera_takes_it_back(&scene, &vera, &token);
    milo_comes_back_by_a_code(&scene, &milo);
    vera_signs_in_again(&scene, &vera);
    vera.visit("/");
    for page in [&vera, &milo] {
        page.check(200);
    }
    assert!(browser.flaws.borrow().is_empty(), "{:#?}", browser.flaws.borrow());
    scene.album.bless("consent", "consent");
}

/// The page says who asks whom about whom.
fn is_asked_about_the_service(page: &Page) {
    assert_eq!(page.text("h1"), format!("Sign in to {NAME}?"));
    let asks = page.text("#asks");
    for part in [NAME, "the site rennes", "vera@rennes"] {
        assert!(asks.contains(part), "{part} is not named: {asks}");
    }
}

/// From the service's page by way of signing in and back, with a code that is worth tokens; the
/// access token.
fn vera_allows_a_service(s: &Scene<'_>, vera: &Page) -> Value {
    s.service.sends(vera, "&state=first");
    s.service.comes_to(vera, "#sign-in-form");
    vera.fill("#user", "vera");
    vera.fill("#password", &s.world.vera.password);
    vera.go("#sign-in");
    is_asked_about_the_service(vera);
    assert_eq!(vera.text("#back"), s.service.back());
    let learns = vera.text("#learns");
    assert!(learns.contains("your name") && learns.contains("your groups in it"), "{learns}");
    s.album.keep(vera, "consent");
    vera.choose("#consent-form", "vo", VO);
    let brought = s.service.gets(vera, || vera.click("#allow"));
    assert_eq!(brought["state"], "first", "{brought}");
    assert!(brought.get("error").is_none() && brought["iss"].is_string(), "{brought}");
    let tokens = s.service.tokens(&brought["code"]);
    assert_eq!(tokens["scope"], "openid profile wlcg.groups", "{tokens}");
    let token = tokens["access_token"].clone();
    let (status, learned) = s.service.learns(&token);
    assert_eq!((status, &learned["preferred_username"]), (200, &json!("vera")), "{learned}");
    token
}

/// Who has no mouse gets past the menu, to the choice and to both answers, and sees where they are.
fn vera_says_no_by_keys(s: &Scene<'_>, vera: &Page) {
    s.service.sends(vera, "&state=second");
    s.service.comes_to(vera, "#allow");
    vera.in_front();
    let focus = "document.activeElement.id || document.activeElement.className";
    vera.press("Tab");
    assert_eq!(vera.eval(focus), "skip", "the first key does not lead past the menu");
    vera.press("Enter");
    vera.until("the content has the focus", "document.activeElement.id === 'main'");
    for want in ["vo", "allow", "decline"] {
        vera.press("Tab");
        assert_eq!(vera.eval(focus), want);
        let seen = vera.eval("getComputedStyle(document.activeElement).outlineStyle");
        assert_eq!(seen, "solid", "nobody sees that {want} has the focus");
    }
    let brought = s.service.gets(vera, || vera.press("Enter"));
    assert_eq!(brought["error"], "access_denied", "{brought}");
    assert_eq!(brought["state"], "second", "{brought}");
    assert!(brought.get("code").is_none(), "a no gave a code: {brought}");
}

/// A code of another device: a wrong one, and the one that it shows.
fn vera_lets_a_device_in(s: &Scene<'_>, vera: &Page) {
    let (codes, begun) = (s.service.begins_at_a_device(), Instant::now());
    vera.visit("/device");
    s.album.keep(vera, "device");
    vera.fill("#user_code", "BCDF-GHJK");
    vera.go_refused("#go-on", 404);
    assert!(vera.text("#device-trouble").contains("no such code"));
    s.album.keep(vera, "device-wrong-code");
    vera.fill("#user_code", text(&codes["user_code"]));
    vera.go("#go-on");
    is_asked_about_the_service(vera);
    assert!(vera.text("#asks").contains("in your own hands"), "{}", vera.text("#asks"));
    s.album.keep(vera, "device-consent");
    vera.go("#allow");
    assert!(vera.text("#notice").contains("goes on by itself"), "{}", vera.text("main"));
    s.album.keep(vera, "device-done");
    turn(begun, &codes["interval"]);
    let tokens = s.service.tokens_of_device(&codes["device_code"]);
    assert_eq!(s.service.learns(&tokens["access_token"]).0, 200, "{tokens}");
}

/// Two logins at a machine: no to the one, yes to the other, and what the machine hears.
fn vera_works_at_a_machine(s: &Scene<'_>, vera: &Page) {
    let person = s.world.vera.id();
    let user = format!("vera.{VO}");
    let begin = |service: &str, vo: Value| {
        let mut login = json!({
            "node": "n1.rennes", "user": user, "service": service, "person": person,
        });
        if !vo.is_null() {
            login["vo"] = vo;
        }
        let codes = node_asks(s.world, "/v1/nodes/logins", &json!({ "login": login }));
        (codes, Instant::now())
    };
    let hears = |(codes, begun): &(Value, Instant)| {
        turn(*begun, &codes["interval_s"]);
        let attempt = &codes["attempt"];
        let poll = json!({ "node": "n1.rennes", "person": person, "attempt": attempt });
        node_asks(s.world, "/v1/nodes/logins/poll", &poll)
    };

    let login = begin("login", json!(VO));
    let code = text(&login.0["code"]);
    vera.visit(&format!("/device?user_code={code}"));
    assert_eq!(vera.eval("document.querySelector('#user_code').value"), code);
    vera.go("#go-on");
    assert_eq!(vera.text("h1"), "Allow login on n1.rennes?");
    assert!(vera.text("#acts").contains(VO), "{}", vera.text("main"));
    s.album.keep(vera, "machine-login");
    vera.go("#decline");
    assert!(vera.text("#notice").contains("Nothing was allowed"), "{}", vera.text("main"));
    assert_eq!(hears(&login), "declined");

    let sudo = begin("sudo", Value::Null);
    let code = text(&sudo.0["code"]);
    vera.fill("#user_code", code);
    vera.go("#go-on");
    assert_eq!(vera.text("h1"), "Allow sudo on n1.rennes?");
    let wanted = vera.text("#wanted");
    for part in ["n1.rennes", "the site rennes", "sudo", user.as_str()] {
        assert!(wanted.contains(part), "{part} is not named: {wanted}");
    }
    assert!(!vera.has("#acts"), "sudo needs no volume: {}", vera.text("main"));
    s.album.keep(vera, "machine-sudo");
    vera.go("#allow");
    assert_eq!(hears(&sudo), json!({ "allowed": {} }));
    vera.fill("#user_code", code);
    vera.go_refused("#go-on", 404);
}

/// What she allowed is listed, and ends when she says so.
fn vera_takes_it_back(s: &Scene<'_>, vera: &Page, token: &Value) {
    vera.visit("/account");
    let services = vera.text("#services");
    for part in [NAME, "your groups in it", VO] {
        assert!(services.contains(part), "{part} is not listed: {services}");
    }
    s.album.keep_part(vera, "services-allowed", "#services");
    vera.go("#services form button");
    assert!(vera.text("#notice").contains("gets nothing more"), "{}", vera.text("main"));
    assert!(vera.has("#services .empty"), "{}", vera.text("#services"));
    let (status, said) = s.service.learns(token);
    assert_eq!((status, &said["error"]), (401, &json!("invalid_token")), "{said}");
}

/// All of milo's ways in are gone, and he makes a new one himself. He is told who let him.
fn milo_comes_back_by_a_code(s: &Scene<'_>, milo: &Page) {
    let recover = s.world.rennes.admin(&["person", "recover", "milo", "--json"]);
    let code: Value = serde_json::from_str(&recover.expect("person recover")).expect("JSON");
    milo.visit("/sign-in");
    milo.fill("#user", "milo");
    milo.fill("#password", &s.world.milo.password);
    milo.go_refused("#sign-in", 401);
    milo.go("#to-recover");
    s.album.keep(milo, "recover");
    let typed = |code: &str| {
        milo.fill("#user", "milo");
        milo.fill("#recovery-code", code);
        milo.fill("#password", NEW_PASSWORD);
        milo.fill("#again", NEW_PASSWORD);
    };
    typed("not-the-code");
    milo.go_refused("#recover", 401);
    assert!(milo.text("#recover-trouble").contains("name or code"), "{}", milo.text("main"));
    s.album.keep(milo, "recover-wrong-code");
    typed(text(&code["code"]));
    milo.go("#recover");
    assert_eq!(milo.path(), "/sign-in", "{}", milo.text("main"));
    assert!(milo.text("main").contains("Your new password is set"), "{}", milo.text("main"));
    s.album.keep(milo, "recovered");
    milo.sign_in("milo", NEW_PASSWORD);
    let told = milo.text("#notice");
    assert!(told.contains("ada@rennes made a way to sign in as you"), "{told}");
    s.album.keep(milo, "recovery-told");
}

/// A service wants a newer sign-in. She is asked whether her session shall end for it, and what
/// the service wants is not forgotten meanwhile.
fn vera_signs_in_again(s: &Scene<'_>, vera: &Page) {
    let comes = |state: &str| {
        s.service.sends(vera, &format!("&state={state}&prompt=login"));
        s.service.comes_to(vera, "#again-form, #allow");
        vera.has("#again-form")
    };
    let begun = Instant::now();
    while !comes("third") {
        assert!(begun.elapsed() < OLD_MAX, "a sign-in of long ago is new enough");
        std::thread::sleep(LOOK_EVERY);
    }
    let asks = vera.text("main");
    assert!(asks.contains(NAME) && asks.contains("the site rennes"), "{asks}");
    s.album.keep(vera, "sign-in-again");
    let session = cookie(vera, "__Host-xos");
    vera.go("#stay");
    assert_eq!(cookie(vera, "__Host-xos"), session, "a no ended the session");

    assert!(comes("fourth"), "she is not asked again");
    vera.go("#again");
    assert_eq!(vera.path(), "/sign-in");
    assert!(cookie(vera, "__Host-xos").is_null(), "the old session stays");
    vera.fill("#user", "vera");
    vera.fill("#password", &s.world.vera.password);
    vera.go("#sign-in");
    is_asked_about_the_service(vera);
    let brought = s.service.gets(vera, || vera.click("#decline"));
    assert_eq!(brought["error"], "access_denied", "{brought}");
    assert_eq!(brought["state"], "fourth", "{brought}");
}
