//! Signing in by a Kerberos ticket, as a browser does it.

use crate::fake::kerberos::TICKET;
use crate::world::{Answer, Browser, World};
use actix_web::test::TestRequest;
use std::sync::atomic::Ordering;

const SESSION: &str = "__Host-xos";

fn world() -> World {
    let world = World::new("text");
    world.fake.kerberos.store(true, Ordering::SeqCst);
    world
}

/// Opens a page with a ticket, as a browser does once it was asked for one.
async fn with(browser: &Browser, path: &str, authorization: &str) -> Answer {
    let request = TestRequest::get().uri(path).insert_header(("authorization", authorization));
    browser.send(request).await
}

/// If it failed, who holds a ticket could not sign in by it.
#[actix_web::test]
async fn a_ticket_signs_in_and_leads_to_where_the_person_wanted() {
    let world = world();
    let browser = world.browser().await;
    let page = browser.get("/sign-in?next=/vo/demo.rennes").await;
    assert!(page.body.contains("id=\"with-kerberos\""), "{}", page.body);
    crate::html::check(&page.body);
    let path = "/sign-in/kerberos?next=/vo/demo.rennes";
    let page = browser.get(path).await;
    assert_eq!((page.status, page.header("www-authenticate")), (401, "Negotiate"));
    assert!(!browser.cookies.borrow().contains_key(SESSION));
    let page = with(&browser, path, &format!("Negotiate {TICKET}")).await;
    assert_eq!((page.status, page.header("location")), (303, "/vo/demo.rennes"));
    assert!(browser.get("/").await.body.contains("milo@rennes"));
    // Tries are counted by the address of the browser.
    let peers = world.fake.peers.lock().unwrap();
    assert_eq!(peers[0].address, Some("192.0.2.7".parse().unwrap()));
}

/// If it failed, a ticket alone would open the console where a passkey is wanted too.
#[actix_web::test]
async fn a_second_step_is_asked_for_after_the_ticket() {
    let world = world();
    world.fake.second_factor.store(true, Ordering::SeqCst);
    let browser = world.browser().await;
    let page = with(&browser, "/sign-in/kerberos?next=/jobs", &format!("Negotiate {TICKET}")).await;
    assert_eq!(page.status, 200, "{}", page.body);
    crate::html::check(&page.body);
    assert!(page.body.contains("data-passkey=\"get\""), "{}", page.body);
    assert_eq!(browser.get("/").await.status, 303, "the ticket alone opened a session");
}

/// If it failed, who holds no ticket would see an empty page, and could not sign in otherwise.
#[actix_web::test]
async fn a_browser_without_a_ticket_can_still_sign_in_by_password() {
    let world = world();
    let browser = world.browser().await;
    let page = browser.get("/sign-in/kerberos").await;
    assert!(page.body.contains("shows no Kerberos ticket"), "{}", page.body);
    crate::html::check(&page.body);
    let fields = [("user", "milo"), ("password", "right horse"), ("next", "/")];
    assert_eq!(browser.post("/sign-in", &fields).await.status, 303);
}

/// If it failed, anything in place of a ticket would sign in, or make the browser ask for ever.
#[actix_web::test]
async fn what_is_no_ticket_signs_nobody_in() {
    let world = world();
    let browser = world.browser().await;
    for (sent, asked_again) in [
        ("Negotiate YIIB", false),
        ("Negotiate ", false),
        ("Negotiate", true),
        ("Basic bWlsbzp4", true),
        ("Bearer YIIClg==", true),
    ] {
        let page = with(&browser, "/sign-in/kerberos", sent).await;
        assert_eq!(page.status, 401, "{sent}");
        assert_eq!(page.header("www-authenticate") == "Negotiate", asked_again, "{sent}");
        assert!(!browser.cookies.borrow().contains_key(SESSION), "{sent}");
    }
    let page = with(&browser, "/", &format!("Negotiate {TICKET}")).await;
    assert_eq!(page.status, 303, "a ticket was taken where none is asked for");
}

/// If it failed, browsers would show tickets to a core that has no use for them.
#[actix_web::test]
async fn a_site_without_kerberos_asks_for_no_ticket() {
    let world = World::new("text");
    let browser = world.browser().await;
    assert!(!browser.get("/sign-in").await.body.contains("kerberos"));
    let page = browser.get("/sign-in/kerberos").await;
    assert_eq!((page.status, page.header("www-authenticate")), (404, ""));
}

/// If it failed, a person who has a password could not go over to tickets, or another site's page
/// could link a ticket to whoever is signed in.
#[actix_web::test]
async fn a_ticket_is_linked_by_the_persons_own_form() {
    let world = world();
    let browser = world.signed_in("vera").await;
    let page = browser.get("/account").await;
    assert!(page.body.contains("id=\"link-kerberos\""));
    let path = "/account/link-kerberos";
    assert_eq!(browser.post_exactly(path, &[]).await.status, 403);
    let page = browser.post(path, &[]).await;
    assert_eq!((page.status, page.header("www-authenticate")), (401, "Negotiate"));
    assert!(!world.fake.done.lock().unwrap().join("\n").contains("LinkKerberos"));

    browser.get("/account").await;
    let form = serde_urlencoded::to_string([("csrf", browser.token.borrow().as_str())]).unwrap();
    let request = TestRequest::post()
        .uri(path)
        .insert_header(("origin", "null"))
        .insert_header(("sec-fetch-site", "same-origin"))
        .insert_header(("content-type", "application/x-www-form-urlencoded"))
        .insert_header(("authorization", format!("Negotiate {TICKET}")))
        .set_payload(form);
    let page = browser.send(request).await;
    assert_eq!((page.status, page.header("location")), (303, "/account"), "{}", page.body);
    assert!(browser.get("/account").await.body.contains("milo@RENNES.TEST is linked."));
    let done = world.fake.done.lock().unwrap().join("\n");
    assert!(done.contains("vera@rennes LinkKerberos") && !done.contains(TICKET), "{done}");
}
