//! Signing in at an identity provider, as a browser does it: without scripts, and with what an
//! attacker would try.

use crate::fake::oidc::{AUTHORIZE, FLOW};
use crate::world::{Answer, Browser, HOST, World};
use std::sync::atomic::Ordering;

const SESSION: &str = "__Host-xos";
const COOKIE: &str = "__Host-xos-flow";
const BACK: &str = "/sign-in/callback/uni?code=c1&state=s1&iss=https%3A%2F%2Fid.example";

fn world() -> World {
    let world = World::new("text");
    world.fake.provider.store(true, Ordering::SeqCst);
    world
}

/// Where the page leads by itself.
pub fn leads_to(page: &Answer) -> String {
    assert_eq!(page.status, 200, "{}", page.body);
    let (_, rest) = page.body.split_once("http-equiv=\"refresh\" content=\"0;url=").expect("leads");
    rest.split('"').next().unwrap().replace("&#38;", "&").replace("&amp;", "&")
}

/// Begins to sign in, up to the provider.
async fn begin(browser: &Browser, next: &str) -> Answer {
    browser.get("/sign-in").await;
    browser.post("/sign-in/with/uni", &[("next", next)]).await
}

/// Comes back from the provider, up to the page that decides.
async fn back(browser: &Browser) -> Answer {
    let page = browser.get(BACK).await;
    browser.get(&leads_to(&page)).await
}

/// If it failed, nobody could sign in by a provider, or only with scripts.
#[actix_web::test]
async fn a_person_signs_in_by_a_provider_and_comes_to_where_they_wanted() {
    let world = world();
    let browser = world.browser().await;
    let page = browser.get("/sign-in").await;
    assert!(page.body.contains("id=\"with-uni\"") && page.body.contains("id=\"password\""));
    crate::html::check(&page.body);
    let page = begin(&browser, "/vo/demo.rennes").await;
    assert_eq!(leads_to(&page), AUTHORIZE);
    let asked = world.fake.done.lock().unwrap()[0].clone();
    let redirect = format!("https://{HOST}/sign-in/callback/uni");
    assert!(asked.contains(&format!("{redirect:?}")), "{asked}");
    let page = back(&browser).await;
    assert_eq!((page.status, page.header("location")), (303, "/vo/demo.rennes"));
    assert!(browser.get("/").await.body.contains("milo@rennes"));
    assert!(!browser.cookies.borrow().contains_key(COOKIE), "the flow's cookie stays");
}

/// If it failed, a site that wants no passwords would still ask people for them.
#[actix_web::test]
async fn a_site_without_passwords_asks_for_none() {
    let world = world();
    world.fake.no_passwords.store(true, Ordering::SeqCst);
    let page = world.browser().await.get("/sign-in").await;
    assert!(page.body.contains("id=\"with-uni\"") && !page.body.contains("id=\"password\""));
    crate::html::check(&page.body);
}

/// If it failed, scripts or other sites could read or send what finishes a sign-in.
#[actix_web::test]
async fn the_cookie_of_a_flow_cannot_be_read_or_sent_by_others() {
    let world = world();
    let browser = world.browser().await;
    let page = begin(&browser, "/").await;
    let lines = page.headers.iter().filter(|(k, v)| k == "set-cookie" && v.starts_with(COOKIE));
    let line = lines.map(|(_, v)| v.clone()).next().unwrap();
    for flag in ["; Secure", "; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age=600"] {
        assert!(line.contains(flag), "{line} lacks {flag}");
    }
    assert!(line.contains(FLOW) && !page.body.contains(FLOW));
}

/// If it failed, an attacker could send a link that signs a person in as the attacker, and see what
/// they do there (session fixation).
#[actix_web::test]
async fn what_was_begun_in_another_browser_is_not_finished_here() {
    let world = world();
    let (attacker, victim) = (world.browser().await, world.browser().await);
    begin(&attacker, "/").await;
    let page = back(&victim).await;
    assert_eq!(page.status, 403, "{}", page.body);
    assert!(page.body.contains("not begun in this browser"));
    assert!(!victim.cookies.borrow().contains_key(SESSION));
    // With a sign-in of the victim's own under way, the attacker's state does not fit it.
    begin(&victim, "/").await;
    let bad = BACK.replace("state=s1", "state=s2");
    let page = victim.get(&bad).await;
    let page = victim.get(&leads_to(&page)).await;
    assert_eq!(page.status, 401, "{}", page.body);
    assert!(!victim.cookies.borrow().contains_key(SESSION));
}

/// If it failed, one provider's answer could be handed to another (mix-up).
#[actix_web::test]
async fn an_answer_of_another_provider_is_refused() {
    let world = world();
    let browser = world.browser().await;
    begin(&browser, "/").await;
    let page = browser.get(&BACK.replace("/uni?", "/other?")).await;
    let page = browser.get(&leads_to(&page)).await;
    assert_eq!(page.status, 403, "{}", page.body);
    assert_eq!(browser.get("/sign-in/callback/NO?code=c1").await.status, 404);
}

/// If it failed, another site's page could begin sign-ins in a person's browser.
#[actix_web::test]
async fn a_sign_in_is_begun_by_our_own_form_only() {
    let world = world();
    let browser = world.browser().await;
    assert_eq!(browser.post_exactly("/sign-in/with/uni", &[("next", "/")]).await.status, 403);
    assert!(browser.get("/sign-in/with/uni").await.status >= 400);
    assert!(world.fake.done.lock().unwrap().is_empty());
}

/// If it failed, texts of a stranger would stand in our pages.
#[actix_web::test]
async fn a_declined_sign_in_is_told_in_our_own_words() {
    let world = world();
    let browser = world.browser().await;
    begin(&browser, "/").await;
    for (error, said) in [("access_denied", "did not sign in there"), ("<script>", "could not")] {
        let error = serde_urlencoded::to_string([("error", error)]).unwrap();
        let page = browser.get(&format!("/sign-in/callback/uni?{error}")).await;
        let page = browser.get(&leads_to(&page)).await;
        assert!(page.status >= 400 && page.body.contains(said), "{}", page.body);
        assert!(!page.body.contains("<script>") && !page.body.contains("&#60;script"));
    }
}

/// If it failed, people could not come in by their new account, or an attacker could link their
/// own to a person who only opened a page.
#[actix_web::test]
async fn an_account_is_linked_and_unlinked_by_the_persons_own_forms() {
    let world = world();
    let browser = world.signed_in("vera").await;
    let page = browser.get("/account").await;
    assert!(page.body.contains("id=\"link-to-uni\""));
    let token = browser.token.borrow().clone();
    assert_eq!(browser.post_exactly("/account/link/uni", &[]).await.status, 403);
    let page = browser.post("/account/link/uni", &[]).await;
    assert_eq!(leads_to(&page), AUTHORIZE);
    let page = back(&browser).await;
    assert_eq!((page.status, page.header("location")), (303, "/account"));
    assert!(browser.get("/account").await.body.contains("is linked."));
    let key = "0f".repeat(32);
    let path = format!("/account/unlink/uni/{key}");
    let page = browser.post_exactly(&path, &[("csrf", &token)]).await;
    assert_eq!(page.header("location"), "/sign-in");
    let done = world.fake.done.lock().unwrap().join("\n");
    assert!(done.contains("vera@rennes LinkIdentity"), "{done}");
    assert!(done.contains("vera@rennes UnlinkIdentity") && done.contains(&key), "{done}");
    assert_eq!(browser.get("/").await.status, 303, "the session outlived the unlinking");
}

/// If it failed, who signed out meanwhile could have accounts linked.
#[actix_web::test]
async fn linking_needs_the_session() {
    let world = world();
    let browser = world.signed_in("vera").await;
    browser.get("/account").await;
    browser.post("/account/link/uni", &[]).await;
    browser.cookies.borrow_mut().remove(SESSION);
    let page = back(&browser).await;
    assert_eq!(page.status, 401, "{}", page.body);
    assert!(!world.fake.done.lock().unwrap().join("\n").contains("LinkIdentity"));
}
