//! SCIM before a proof was seen; with one, `xos/tests/cli/api_docs.rs` asks a real core.

use crate::world::{Answer, World};
use actix_web::test::TestRequest;
use serde_json::Value;

const USERS: &str = "/scim/v2/demo.rennes/Users";

/// The error, in the shape of RFC 7644, 3.12.
fn error(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), "application/scim+json");
    let said: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(said["schemas"][0], "urn:ietf:params:scim:api:messages:2.0:Error");
    assert_eq!(said["status"], answer.status.to_string());
    assert!(said["detail"].is_string(), "{said}");
    said
}

/// If it failed, a page of another site could read a VO's members by the session of who looks at it.
#[actix_web::test]
async fn a_session_is_no_proof_and_a_token_that_is_none_neither() {
    let world = World::new("text");
    let browser = world.signed_in("vera").await;
    let answer = browser.get(USERS).await;
    assert_eq!(answer.status, 401);
    error(&answer);
    assert!(answer.header("www-authenticate").starts_with("Bearer"));
    for proof in ["Bearer x.y.z", "Basic dmVyYTp4", "Bearer", ""] {
        let request = TestRequest::get().uri(USERS).insert_header(("authorization", proof));
        assert_eq!(browser.send(request).await.status, 401, "{proof:?}");
    }
    let nowhere = browser.get("/scim/v2/No.Where.At.All/Users").await;
    assert_eq!(nowhere.status, 400);
    assert_eq!(error(&nowhere)["scimType"], "invalidValue");
}

#[actix_web::test]
async fn nothing_is_changed_by_it() {
    let world = World::new("text");
    let browser = world.browser().await;
    for request in [
        TestRequest::post().uri(USERS),
        TestRequest::put().uri("/scim/v2/demo.rennes/Users/milo@rennes"),
        TestRequest::patch().uri("/scim/v2/demo.rennes/Groups/2"),
        TestRequest::delete().uri("/scim/v2/demo.rennes/Users/milo@rennes"),
    ] {
        let answer = browser.send(request).await;
        assert_eq!((answer.status, answer.header("allow")), (405, "GET"));
        error(&answer);
    }
    assert!(world.fake.done.lock().unwrap().is_empty(), "something was changed");
}
