//! What a thief, another site's page and another person try with passkeys.

use super::device::Device;
use super::{FIVE_MINUTES, add, alone, asked, enrolling, finishing, with_second_factor};
use crate::world::World;
use serde_json::json;
use xos_api::cda::{
    BeginPasskey, BeginPasskeySignIn, FinishPasskey, ListPasskeys, RemovePasskey, SignedIn,
    WebAuthn,
};
use xos_base::{Error, Kind};
use xos_net::Caller;

async fn alice_with(w: &World, device: &mut Device) -> Caller {
    let alice = w.person("alice").await;
    add(w, &alice, device).await.unwrap();
    alice
}

fn refused(result: Result<SignedIn, Error>, what: &str) {
    match result {
        Ok(s) => panic!("{what} signed in {}", s.person),
        Err(e) => assert_eq!(e.kind, Kind::Unauthenticated, "{what}: {e}"),
    }
}

/// If it failed, a page of somebody else that a person was lured to would sign in as them.
#[tokio::test]
async fn answers_for_other_pages_and_hosts_are_refused() {
    let w = World::new("rennes").await;
    let mut device = Device::new();
    alice_with(&w, &mut device).await;
    for origin in [
        "https://evil.example",
        "http://localhost:7443",
        "https://localhost.evil.example",
        "https://evil.localhost:7443",
    ] {
        device.origin = origin.into();
        refused(alone(&w, &mut device).await, origin);
    }
    device.origin = "https://localhost:9999".into();
    alone(&w, &mut device).await.expect("the person's own machine, by another port");
    device.host = Some("evil.example".into());
    refused(alone(&w, &mut device).await, "a key of another host");
    device.host = None;
    device.verifies = false;
    refused(alone(&w, &mut device).await, "a device that did not ask for finger or PIN");
    device.verifies = true;
    alone(&w, &mut device).await.unwrap();
}

/// If it failed, what somebody saw of a sign-in would sign them in, now or later.
#[tokio::test]
async fn answers_are_good_once_in_time_and_for_their_own_question() {
    let w = World::new("rennes").await;
    let mut device = Device::new();
    alice_with(&w, &mut device).await;
    let begin = || w.public(BeginPasskeySignIn {});
    let begun = begin().await.unwrap();
    let answer = device.get(&begun.options.0);
    w.public(finishing(begun.flow.clone(), answer.clone())).await.unwrap();
    refused(w.public(finishing(begun.flow, answer.clone())).await, "a flow that is over");
    let other = begin().await.unwrap();
    refused(w.public(finishing(other.flow.clone(), answer)).await, "an answer to another question");
    let answer = device.get(&other.options.0);
    refused(w.public(finishing(other.flow, answer)).await, "a second try of one flow");
    let late = begin().await.unwrap();
    let answer = device.get(&late.options.0);
    w.clock.advance(FIVE_MINUTES);
    refused(w.public(finishing(late.flow, answer)).await, "an answer that came too late");
    // The flow of a sign-in adds no passkey, and the other way round.
    let begun = begin().await.unwrap();
    let question = json!({ "challenge": begun.options.0["challenge"],
        "rp": { "id": "localhost" }, "user": { "id": "AAAAAAAAAAAAAAAAAAAAAA" } });
    let answer = Device::new().create(&question);
    refused(w.public(enrolling(begun.flow, answer)).await, "the flow of a sign-in");
}

/// If it failed, a person could sign in as another by a passkey of their own.
#[tokio::test]
async fn another_persons_key_and_handle_are_refused() {
    let w = World::new("rennes").await;
    let (mut hers, mut his) = (Device::new(), Device::new());
    alice_with(&w, &mut hers).await;
    let mallory = w.person("mallory").await;
    add(&w, &mallory, &mut his).await.unwrap();
    let (own_id, own_handle) = (his.id.clone(), his.handle.clone());
    his.id.clone_from(&hers.id);
    refused(alone(&w, &mut his).await, "alice's id with mallory's key");
    his.handle.clone_from(&hers.handle);
    refused(alone(&w, &mut his).await, "alice's id and handle with mallory's key");
    his.id.clone_from(&own_id);
    refused(alone(&w, &mut his).await, "mallory's key that says it is alice's");
    his.handle = None;
    refused(alone(&w, &mut his).await, "a key that does not say whose it is");
    refused(alone(&w, &mut Device::new()).await, "a key that nobody knows");
    his.handle = own_handle;
    let s = alone(&w, &mut his).await.unwrap();
    assert_eq!(s.person.as_str(), "mallory@rennes");
    // An id that is alice's already cannot become mallory's: she could not come in any more.
    let mut copy = Device::new();
    copy.id.clone_from(&hers.id);
    let e = add(&w, &mallory, &mut copy).await.unwrap_err();
    assert_eq!(e.kind, Kind::Conflict, "{e}");
    alone(&w, &mut hers).await.unwrap();
    let mallory = w.by_token(&s.token.token);
    let key = w.call(&mallory, ListPasskeys {}).await.unwrap().passkeys[0].key.clone();
    let alice = w.by_token(&alone(&w, &mut hers).await.unwrap().token.token);
    let e = w.call(&alice, RemovePasskey { key }).await.unwrap_err();
    assert_eq!(e.kind, Kind::NotFound, "somebody else's passkey: {e}");
}

/// If it failed, one person's passkey would do as another's second step.
#[tokio::test]
async fn the_second_step_takes_the_same_persons_passkey() {
    let w = World::new("rennes").await;
    let (mut hers, mut his) = (Device::new(), Device::new());
    with_second_factor(&w, &mut hers).await;
    let mallory = w.person("mallory").await;
    add(&w, &mallory, &mut his).await.unwrap();
    let ceremony = asked(&w, "alice").await;
    let answer = his.get(&ceremony.options.0);
    refused(w.public(finishing(ceremony.flow, answer)).await, "mallory's passkey for alice");
    let ceremony = asked(&w, "alice").await;
    let answer = hers.get(&ceremony.options.0);
    w.public(finishing(ceremony.flow, answer)).await.unwrap();
}

/// If it failed, a copy of a key would work beside the original, and nobody would notice.
#[tokio::test]
async fn a_counter_that_does_not_go_on_shows_a_copy() {
    let w = World::new("rennes").await;
    let mut device = Device::new();
    alice_with(&w, &mut device).await;
    for _ in 0..3 {
        alone(&w, &mut device).await.unwrap();
    }
    let ahead = device.counter;
    for behind in [0, ahead - 1] {
        // What it counts to next is at most what was seen.
        device.counter = behind;
        let e = alone(&w, &mut device).await.unwrap_err();
        assert!(e.kind == Kind::Unauthenticated && e.message.contains("copied"), "{behind}: {e}");
    }
    device.counter = ahead;
    alone(&w, &mut device).await.expect("the original goes on");
}

/// If it failed, whoever finds a session open would add a passkey of their own to it.
#[tokio::test]
async fn a_passkey_is_added_by_its_person_after_a_fresh_sign_in() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    let mallory = w.person("mallory").await;
    let begun = w.call(&alice, BeginPasskey {}).await.unwrap();
    let credential = Device::new().create(&begun.options.0);
    let finish = |name: &str, flow: &xos_api::cda::Flow, credential: &WebAuthn| FinishPasskey {
        flow: flow.clone(),
        name: name.into(),
        credential: credential.clone(),
    };
    let e = w.call(&mallory, finish("x", &begun.flow, &credential)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
    let begun = w.call(&alice, BeginPasskey {}).await.unwrap();
    let credential = Device::new().create(&begun.options.0);
    refused(w.public(enrolling(begun.flow, credential)).await, "the flow of a session");
    for name in ["", "  ", "a\nb", &"x".repeat(61)] {
        let begun = w.call(&alice, BeginPasskey {}).await.unwrap();
        let credential = Device::new().create(&begun.options.0);
        let e = w.call(&alice, finish(name, &begun.flow, &credential)).await.unwrap_err();
        assert_eq!(e.kind, Kind::Invalid, "{name:?}: {e}");
    }
    let bad = |change: fn(&mut Device)| {
        let mut device = Device::new();
        change(&mut device);
        device
    };
    for mut device in [
        bad(|d| d.origin = "https://evil.example".into()),
        bad(|d| d.host = Some("evil.example".into())),
        bad(|d| d.verifies = false),
    ] {
        assert_eq!(add(&w, &alice, &mut device).await.unwrap_err().kind, Kind::Invalid);
    }
    for junk in [json!(null), json!({}), json!([1]), json!({ "id": "x" })] {
        let begun = w.call(&alice, BeginPasskey {}).await.unwrap();
        let e = w.call(&alice, finish("x", &begun.flow, &WebAuthn(junk))).await.unwrap_err();
        assert_eq!(e.kind, Kind::Invalid, "{e}");
    }
    assert!(w.call(&alice, ListPasskeys {}).await.unwrap().passkeys.is_empty());
    w.clock.advance(FIVE_MINUTES + super::SECOND);
    let e = w.call(&alice, BeginPasskey {}).await.unwrap_err();
    assert!(e.kind == Kind::Unauthenticated && e.message.contains("five minutes"), "{e}");
}
