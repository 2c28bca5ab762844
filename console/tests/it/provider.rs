//! The core as an OpenID provider, as browsers and programs see it.

use crate::fake::provider::{BACK, LOGIN_CODE, SECRET, USER_CODE};
use crate::oidc::leads_to;
use crate::world::{Answer, Browser, World};
use actix_web::test::TestRequest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const SESSION: &str = "__Host-xos";
const ARRIVE: &str = "/oauth/authorize?response_type=code&client_id=c1&scope=openid+profile\
    &redirect_uri=https%3A%2F%2Fwiki.example%2Fback&state=a*b%26%22%3E&code_challenge=x";

fn notes(world: &World) -> String {
    world.fake.done.lock().unwrap().join("\n")
}

/// The page that asks, as a browser comes to it from the service.
async fn asked(browser: &Browser) -> Answer {
    let page = browser.get(ARRIVE).await;
    browser.get(&leads_to(&page)).await
}

/// The fields that the page's form sends by itself.
fn hidden(page: &Answer) -> Vec<(String, String)> {
    let all = crate::html::elements(&page.body);
    let own = all.iter().filter(|e| e.get("type") == Some("hidden"));
    let own = own.filter(|e| e.get("name") != Some("csrf"));
    let plain = |text: &str| {
        text.replace("&#34;", "\"")
            .replace("&#62;", ">")
            .replace("&quot;", "\"")
            .replace("&gt;", ">")
            .replace("&#38;", "&")
            .replace("&amp;", "&")
    };
    own.map(|e| (e.get("name").unwrap().to_owned(), plain(e.get("value").unwrap()))).collect()
}

async fn decide(browser: &Browser, page: &Answer, path: &str, more: &[(&str, &str)]) -> Answer {
    let hidden = hidden(page);
    let mut fields: Vec<(&str, &str)> =
        hidden.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    fields.extend_from_slice(more);
    browser.post(path, &fields).await
}

/// If it failed, nobody could sign in to a service, or would not be asked.
#[actix_web::test]
async fn a_person_is_asked_and_goes_back_to_the_service() {
    let world = World::new("The <Wiki>");
    let browser = world.signed_in("milo").await;
    let page = asked(&browser).await;
    assert_eq!(page.status, 200, "{}", page.body);
    crate::html::check(&page.body);
    for part in ["The &#60;Wiki&#62;", BACK, "id=\"allow\"", "id=\"decline\"", "demo.rennes"] {
        assert!(page.body.contains(part), "{part} is missing: {}", page.body);
    }
    let (_, asks) = page.body.split_once("id=\"asks\"").expect("nothing says who asks whom");
    for part in ["<strong>The &#60;Wiki&#62;</strong>", "<strong>milo@rennes</strong>"] {
        assert!(asks.contains(part), "{part} is not named: {asks}");
    }
    assert!(!notes(&world).contains("DecideAuthorization"), "looking decided");
    let vo = [("answer", "yes"), ("vo", "demo.rennes")];
    let page = decide(&browser, &page, "/oauth/consent", &vo).await;
    assert_eq!(leads_to(&page), format!("{BACK}?code=the-code&state=s"));
    assert_eq!(page.header("referrer-policy"), "no-referrer", "the code would go elsewhere");
    let noted = notes(&world);
    for part in ["allow: true", "state: \"a*b&\\\">\"", "vo: Some(VoId(\"demo.rennes\"))"] {
        assert!(noted.contains(part), "{part} is missing: {noted}");
    }
    let page = asked(&browser).await;
    decide(&browser, &page, "/oauth/consent", &[("answer", "no"), ("vo", "")]).await;
    assert!(notes(&world).contains("allow: false, vo: None"), "{}", notes(&world));
}

/// If it failed, who is not signed in could not use the service, or would lose what it asked.
#[actix_web::test]
async fn who_is_not_signed_in_signs_in_first_and_is_asked_then() {
    let world = World::new("text");
    let browser = world.browser().await;
    let page = asked(&browser).await;
    assert_eq!(page.status, 303);
    let to = page.header("location").to_owned();
    assert!(to.starts_with("/sign-in?next=%2Foauth%2Fconsent%3F"), "{to}");
    let page = browser.get(&to).await;
    let (_, rest) = page.body.split_once("name=\"next\" value=\"").unwrap();
    let next = rest.split('"').next().unwrap().replace("&#38;", "&").replace("&amp;", "&");
    let fields = [("user", "milo"), ("password", "right horse"), ("next", next.as_str())];
    let page = browser.post("/sign-in", &fields).await;
    let page = browser.get(page.header("location")).await;
    assert!(page.status == 200 && page.body.contains("id=\"allow\""), "{}", page.body);
    let state = hidden(&page).into_iter().find(|(k, _)| k == "state").unwrap().1;
    assert_eq!(state, "a*b&\">");
}

/// If it failed, another site's page could say yes for a person, or errors would go anywhere.
#[actix_web::test]
async fn others_decide_nothing_and_nobody_is_sent_to_strangers() {
    let world = World::new("text");
    let browser = world.signed_in("milo").await;
    let page = asked(&browser).await;
    let fields = [("client_id", "c1"), ("answer", "yes")];
    assert_eq!(browser.post_exactly("/oauth/consent", &fields).await.status, 403);
    assert_eq!(
        decide(&browser, &page, "/oauth/consent", &[("answer", "perhaps")]).await.status,
        400
    );
    let twice = browser.get(&format!("{ARRIVE}&redirect_uri=https%3A%2F%2Fevil.example")).await;
    assert_eq!(twice.status, 400, "{}", twice.body);
    let unknown = browser.get(&ARRIVE.replace("client_id=c1", "client_id=c2")).await;
    let unknown = browser.get(&leads_to(&unknown)).await;
    assert!(unknown.status == 400 && !unknown.body.contains("wiki.example"), "{}", unknown.body);
    assert!(!notes(&world).contains("DecideAuthorization"));
    let error = browser.get(&format!("{ARRIVE}&prompt=none")).await;
    let error = browser.get(&leads_to(&error)).await;
    assert_eq!(leads_to(&error), format!("{BACK}?error=consent_required"));
}

/// If it failed, a link of anybody would sign people out, or who signs in anew would lose what the
/// service asked.
#[actix_web::test]
async fn a_newer_sign_in_ends_the_session_by_our_own_form_only() {
    let world = World::new("The <Wiki>");
    let browser = world.signed_in("milo").await;
    let page = browser.get(&format!("{ARRIVE}&prompt=login")).await;
    let page = browser.get(&leads_to(&page)).await;
    assert!(page.status == 200 && page.body.contains("id=\"again-form\""), "{}", page.body);
    assert!(page.body.contains("The &#60;Wiki&#62;"), "who asks is not named: {}", page.body);
    crate::html::check(&page.body);
    assert_eq!(browser.post_exactly("/oauth/again", &[("client_id", "c1")]).await.status, 403);
    assert!(browser.cookies.borrow().contains_key(SESSION), "the browser forgot the session");
    assert_eq!(browser.get("/vos").await.status, 200, "the session ended without a yes");

    let page = decide(&browser, &page, "/oauth/again", &[]).await;
    assert_eq!(page.status, 303, "{}", page.body);
    assert!(!browser.cookies.borrow().contains_key(SESSION), "the old session goes on");
    let (path, query) = page.header("location").split_once('?').unwrap();
    let query: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap();
    assert_eq!((path, query[0].0.as_str()), ("/sign-in", "next"));
    let next = query[0].1.as_str();
    browser.get("/sign-in").await;
    let fields = [("user", "milo"), ("password", "right horse"), ("next", next)];
    let page = browser.post("/sign-in", &fields).await;
    assert_eq!((page.status, page.header("location")), (303, next));
    let state = hidden(&browser.get(next).await).into_iter().find(|(k, _)| k == "state");
    assert_eq!(state.unwrap().1, "a*b&\">");
}

/// If it failed, a device without a browser could not be signed in, or by a link alone.
#[actix_web::test]
async fn a_code_of_another_device_is_typed_shown_and_decided() {
    let world = World::new("text");
    let browser = world.signed_in("milo").await;
    let page = browser.get(&format!("/device?user_code={USER_CODE}")).await;
    crate::html::check(&page.body);
    assert!(page.body.contains(&format!("value=\"{USER_CODE}\"")) && notes(&world).is_empty());
    let page = browser.post("/device", &[("user_code", "BCDF-BCDF")]).await;
    assert!(page.status == 404 && page.body.contains("id=\"device-trouble\""), "{}", page.body);
    crate::html::check(&page.body);
    let page = browser.post("/device", &[("user_code", USER_CODE)]).await;
    crate::html::check(&page.body);
    assert!(page.body.contains("in your own hands"), "{}", page.body);
    let fields = [("user_code", USER_CODE), ("answer", "yes")];
    assert_eq!(browser.post_exactly("/device/decide", &fields).await.status, 403);
    let page = decide(&browser, &page, "/device/decide", &[("answer", "yes"), ("vo", "")]).await;
    assert_eq!((page.status, page.header("location")), (303, "/device"));
    assert!(browser.get("/device").await.body.contains("goes on by itself"));
    assert!(notes(&world).contains("milo@rennes DecideDevice"), "{}", notes(&world));
    let page = world.browser().await.get("/device?user_code=X").await;
    assert!(page.header("location").starts_with("/sign-in?next="));
}

/// If it failed, a person would allow something else than what they read, or somebody else would.
#[actix_web::test]
async fn a_login_to_a_machine_is_named_exactly_before_it_is_allowed() {
    let world = World::new("text");
    let browser = world.signed_in("milo").await;
    browser.get("/device").await;
    let page = browser.post("/device", &[("user_code", LOGIN_CODE)]).await;
    crate::html::check(&page.body);
    for part in [
        "Allow sudo on n1.rennes?",
        "a machine of the site <strong>rennes</strong>",
        "milo.demo.rennes",
        "acts for you on the volume of",
    ] {
        assert!(page.body.contains(part), "{part} is missing: {}", page.body);
    }
    assert!(!notes(&world).contains("DecideDevice"));
    decide(&browser, &page, "/device/decide", &[("answer", "no")]).await;
    let noted = notes(&world);
    assert!(noted.contains(LOGIN_CODE) && noted.contains("allow: false"), "{noted}");
}

/// If it failed, a person could not see or end what a service may do, or another site's page would
/// end it for them.
#[actix_web::test]
async fn what_services_may_do_is_listed_and_taken_back() {
    let world = World::new("The <Wiki>");
    let browser = world.signed_in("milo").await;
    let page = browser.get("/account").await;
    crate::html::check(&page.body);
    let (_, services) = page.body.split_once("id=\"services\"").expect("they are not listed");
    for part in ["The &#60;Wiki&#62;", "demo.rennes", "your name at this site", "2 Jan 1970"] {
        assert!(services.contains(part), "{part} is missing: {services}");
    }
    let path = "/account/services/c1/revoke";
    assert!(services.contains(&format!("action=\"{path}\"")), "{services}");
    assert_eq!(browser.post_exactly(path, &[]).await.status, 403);
    assert!(browser.get(path).await.status >= 400 && notes(&world).is_empty());
    browser.get("/account").await;
    let page = browser.post(path, &[]).await;
    assert_eq!((page.status, page.header("location")), (303, "/account"));
    let noted = notes(&world);
    assert!(noted.contains("milo@rennes EndGrants { client: \"c1\" }"), "{noted}");
    assert!(browser.get("/account").await.body.contains("gets nothing more from this site"));
    assert_eq!(browser.post("/account/services/c2/revoke", &[]).await.status, 404);
    let guest = world.browser().await;
    guest.get("/sign-in").await;
    guest.post(path, &[]).await;
    assert_eq!(notes(&world), noted, "somebody who is not signed in ended it");
}

fn form(path: &str, body: &str) -> TestRequest {
    TestRequest::post()
        .uri(path)
        .insert_header(("content-type", "application/x-www-form-urlencoded"))
        .set_payload(body.to_owned())
}

fn basic(id: &str, secret: &str) -> (&'static str, String) {
    ("authorization", format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))))
}

fn error(answer: &Answer) -> String {
    let said: Value = serde_json::from_str(&answer.body).unwrap();
    said["error"].as_str().unwrap().to_owned()
}

const EXCHANGE: &str =
    "grant_type=authorization_code&code=c&redirect_uri=https%3A%2F%2Fa&code_verifier=v";

/// If it failed, clients of other makers could not get tokens.
#[actix_web::test]
async fn programs_get_tokens_in_the_form_of_the_standard() {
    let world = World::new("text");
    let browser = world.browser().await;
    let by_body = format!("{EXCHANGE}&client_id=c1&client_secret={SECRET}");
    for request in [
        form("/oauth/token", &by_body),
        form("/oauth/token", EXCHANGE).insert_header(basic("c1", SECRET)),
        form("/oauth/token", "grant_type=refresh_token&refresh_token=r&scope=openid profile")
            .insert_header(basic("c1", SECRET)),
        form(
            "/oauth/token",
            "grant_type=urn:ietf:params:oauth:grant-type:device_code&device_code=d&client_id=c1",
        )
        .insert_header(basic("c1", SECRET)),
    ] {
        let answer = browser.send(request).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let said: Value = serde_json::from_str(&answer.body).unwrap();
        let want = json!({ "access_token": "access", "token_type": "Bearer", "expires_in": 1200,
            "scope": "openid" });
        assert_eq!(said, want);
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.header("content-type").starts_with("application/json"));
    }
    let noted = notes(&world);
    for part in ["Code {", "Refresh {", "scope: Some(\"openid profile\")", "Device {"] {
        assert!(noted.contains(part), "{part} is missing: {noted}");
    }
    assert!(!noted.contains(SECRET), "a secret shows in a log");
    let revoke = form("/oauth/revoke", "token=x&token_type_hint=refresh_token");
    let answer = browser.send(revoke.insert_header(basic("c1", SECRET))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    for request in [TestRequest::get(), TestRequest::post()] {
        let request = request.uri("/oauth/userinfo");
        let answer = browser.send(request.insert_header(("authorization", "Bearer access"))).await;
        assert!(answer.status == 200 && answer.body.contains("milo@rennes"), "{}", answer.body);
    }
}

/// If it failed, a client would hear of an error in words that it does not know, or prove itself by
/// what a browser sends along.
#[actix_web::test]
async fn programs_hear_of_errors_in_the_words_of_the_standard() {
    let world = World::new("text");
    let browser = world.signed_in("milo").await;
    let proved = |body: &str| form("/oauth/token", body).insert_header(basic("c1", SECRET));
    for (request, status, want) in [
        (form("/oauth/token", EXCHANGE), 401, "invalid_client"),
        (form("/oauth/token", EXCHANGE).insert_header(basic("c1", "x")), 401, "invalid_client"),
        (form("/oauth/token", EXCHANGE).insert_header(basic("c1", "")), 401, "invalid_client"),
        (proved("grant_type=password&username=a&password=b"), 400, "unsupported_grant_type"),
        (proved("grant_type="), 400, "invalid_request"),
        (proved("grant_type=refresh_token"), 400, "invalid_request"),
        (proved(&EXCHANGE.replace("&code_verifier=v", "")), 400, "invalid_request"),
        (proved(&format!("{EXCHANGE}&code=d")), 400, "invalid_request"),
        (proved(&format!("{EXCHANGE}&client_secret={SECRET}")), 400, "invalid_request"),
        (proved(&format!("{EXCHANGE}&client_id=c2")), 400, "invalid_request"),
        (
            TestRequest::post()
                .uri("/oauth/token")
                .set_payload("{}")
                .insert_header(("content-type", "application/json")),
            400,
            "invalid_request",
        ),
        (TestRequest::get().uri("/oauth/userinfo"), 401, "invalid_token"),
        (
            TestRequest::get()
                .uri("/oauth/userinfo")
                .insert_header(("authorization", "Bearer other")),
            401,
            "invalid_token",
        ),
    ] {
        let answer = browser.send(request).await;
        assert_eq!((answer.status, error(&answer).as_str()), (status, want), "{}", answer.body);
        let asks = !answer.header("www-authenticate").is_empty();
        assert_eq!(asks, status == 401, "{}", answer.body);
    }
    assert!(!notes(&world).contains("milo"), "the session of a browser counted");
}
