//! Passkeys: made, used alone and as the second step, with a device in software.

mod attacks;
pub mod device;
mod recovery;

use crate::world::{ADMIN_PASSWORD, World};
use device::Device;
use std::time::Duration;
use xos_api::cda::{
    BeginPasskey, BeginPasskeySignIn, Ceremony, CreateSignInCode, EnrolPasskey, FinishPasskey,
    FinishPasskeySignIn, FirstProof, FirstStep, Flow, ListPasskeys, OneTimeCode, PASSKEYS_MAX,
    Passkey, Password, RemovePasskey, RenewToken, SetPassword, SetSecondFactor, SignInByCode,
    SignedIn, Stepped, WebAuthn,
};
use xos_base::{Error, Kind};
use xos_cda::SecondFactor;
use xos_net::Caller;

const SECOND: Duration = Duration::from_secs(1);
const FIVE_MINUTES: Duration = Duration::from_secs(5 * 60);

pub fn finishing(flow: Flow, credential: WebAuthn) -> FinishPasskeySignIn {
    FinishPasskeySignIn { flow, credential, audience: None, memberships: false }
}

pub fn enrolling(flow: Flow, credential: WebAuthn) -> EnrolPasskey {
    let name = "laptop".into();
    EnrolPasskey { flow, name, credential, audience: None, memberships: false }
}

pub async fn add(w: &World, caller: &Caller, device: &mut Device) -> Result<Passkey, Error> {
    let begun = w.call(caller, BeginPasskey {}).await?;
    let credential = device.create(&begun.options.0);
    let finish = FinishPasskey { flow: begun.flow, name: " laptop ".into(), credential };
    w.call(caller, finish).await
}

pub async fn alone(w: &World, device: &mut Device) -> Result<SignedIn, Error> {
    let begun = w.public(BeginPasskeySignIn {}).await?;
    let credential = device.get(&begun.options.0);
    w.public(finishing(begun.flow, credential)).await
}

pub async fn first(w: &World, user: &str, password: &str) -> Result<Stepped, Error> {
    let proof = FirstProof::Password { user: user.into(), password: Password(password.to_owned()) };
    w.public(FirstStep { proof, audience: None, memberships: false }).await
}

pub async fn asked(w: &World, user: &str) -> Ceremony {
    match first(w, user, ADMIN_PASSWORD).await.unwrap() {
        Stepped::Prove(ceremony) => ceremony,
        other => panic!("no passkey is asked for: {other:?}"),
    }
}

/// If it failed, nobody could make or use a passkey; or one that shows its person's name to whoever
/// finds the device, or that works without finger or PIN.
#[tokio::test]
async fn a_passkey_is_made_and_signs_in_alone() {
    let w = World::new("rennes").await;
    assert_eq!(
        w.public(xos_api::cda::SignInOptions {}).await.unwrap().passkeys.unwrap(),
        "localhost"
    );
    let alice = w.person("alice").await;
    let begun = w.call(&alice, BeginPasskey {}).await.unwrap();
    let options = &begun.options.0;
    let selection = &options["authenticatorSelection"];
    assert_eq!(selection["userVerification"], "required");
    assert_eq!(selection["residentKey"], "required");
    assert_eq!(options["attestation"], "none");
    assert_eq!(options["rp"]["id"], "localhost");

    let mut device = Device::new();
    let passkey = add(&w, &alice, &mut device).await.unwrap();
    assert_eq!((passkey.name.as_str(), passkey.last_used), ("laptop", None));
    let handle = device.handle.clone().unwrap();
    assert!(handle.len() == 16 && !handle.starts_with(b"alice"), "the handle tells who it is");
    w.clock.advance(SECOND);
    let signed_in = alone(&w, &mut device).await.unwrap();
    assert_eq!(signed_in.person.as_str(), "alice@rennes");
    let caller = w.by_token(&signed_in.token.token);
    let list = w.call(&caller, ListPasskeys {}).await.unwrap();
    assert_eq!((list.passkeys.len(), list.second_factor, list.required), (1, false, false));
    assert!(list.passkeys[0].last_used > Some(passkey.created));
    // The password goes on, and another device has the same handle and a key of its own.
    w.sign_in("alice", ADMIN_PASSWORD).await.unwrap();
    let mut other = Device::new();
    add(&w, &caller, &mut other).await.unwrap();
    assert_eq!(other.handle, device.handle);
    alone(&w, &mut other).await.unwrap();
    alone(&w, &mut device).await.unwrap();
    // It is known after a restart of the core.
    let w = w.restarted().await.unwrap();
    alone(&w, &mut device).await.unwrap();
}

/// If it failed, passkeys would fill a person's record without end.
#[tokio::test]
async fn a_person_has_a_bounded_number_of_passkeys() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    for _ in 0..PASSKEYS_MAX {
        add(&w, &alice, &mut Device::new()).await.unwrap();
    }
    let e = add(&w, &alice, &mut Device::new()).await.unwrap_err();
    assert!(e.kind == Kind::Invalid && e.message.contains("already"), "{e}");
}

pub async fn with_second_factor(w: &World, device: &mut Device) {
    let alice = w.person("alice").await;
    let on = SetSecondFactor { on: true };
    let e = w.call(&alice, on.clone()).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "nobody could come in any more: {e}");
    add(w, &alice, device).await.unwrap();
    w.clock.advance(SECOND);
    w.call(&alice, on).await.unwrap();
    let e = w.call(&alice, RenewToken::default()).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "a session by less than is wanted goes on: {e}");
}

/// If it failed, a stolen password would be enough after all; or the person would be locked out.
#[tokio::test]
async fn a_second_step_is_wanted_after_the_password() {
    let w = World::new("rennes").await;
    let mut device = Device::new();
    with_second_factor(&w, &mut device).await;
    let e = w.sign_in("alice", ADMIN_PASSWORD).await.unwrap_err();
    assert!(e.kind == Kind::Unauthenticated && e.message.contains("passkey"), "{e}");
    assert!(e.hint.unwrap().contains("xos login --code"));
    let e = first(&w, "alice", "wrong password").await.unwrap_err();
    assert!(e.message.contains("wrong name or password"), "{e}");
    let ceremony = asked(&w, "alice").await;
    assert_eq!(ceremony.options.0["allowCredentials"].as_array().unwrap().len(), 1);
    let credential = device.get(&ceremony.options.0);
    let signed_in = w.public(finishing(ceremony.flow, credential)).await.unwrap();
    assert_eq!(signed_in.person.as_str(), "alice@rennes");
    alone(&w, &mut device).await.expect("a passkey is device and finger already");
    assert!(matches!(first(&w, "root", ADMIN_PASSWORD).await.unwrap(), Stepped::In(_)));

    // While it is wanted, the last one stays.
    let caller = w.by_token(&signed_in.token.token);
    let key = w.call(&caller, ListPasskeys {}).await.unwrap().passkeys[0].key.clone();
    let e = w.call(&caller, RemovePasskey { key: key.clone() }).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("last passkey"), "{e}");
    w.call(&caller, SetSecondFactor { on: false }).await.unwrap();
    w.clock.advance(SECOND);
    let caller = w.by_token(&w.sign_in("alice", ADMIN_PASSWORD).await.unwrap().token.token);
    w.clock.advance(SECOND);
    w.call(&caller, RemovePasskey { key }).await.unwrap();
    assert_eq!(alone(&w, &mut device).await.unwrap_err().kind, Kind::Unauthenticated);
    let e = w.call(&caller, ListPasskeys {}).await.map(|l| l.passkeys.len());
    assert_eq!(e.ok(), Some(0));
    let e = w.call(&caller, RenewToken::default()).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "sessions from before end: {e}");
}

/// If it failed, who had the password until it was changed could still finish what they began.
#[tokio::test]
async fn a_password_that_changes_between_the_steps_voids_the_first() {
    let w = World::new("rennes").await;
    let mut device = Device::new();
    with_second_factor(&w, &mut device).await;
    let ceremony = asked(&w, "alice").await;
    w.clock.advance(SECOND);
    let password = Password("quite another one".into());
    let person = "alice@rennes".parse().unwrap();
    w.call(&w.root().await, SetPassword { person, present: None, password }).await.unwrap();
    let credential = device.get(&ceremony.options.0);
    let e = w.public(finishing(ceremony.flow, credential)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
}

/// If it failed, a site that wants a second step of everybody would let some in by less, or nobody
/// at all.
#[tokio::test]
async fn a_site_wants_a_passkey_of_everybody_and_the_first_is_made_on_the_way_in() {
    let want = |c: &mut xos_cda::Config| c.passkeys.second_factor = SecondFactor::Required;
    let w = World::with("rennes", want).await;
    let e = w.sign_in("root", ADMIN_PASSWORD).await.unwrap_err();
    assert!(e.kind == Kind::Unauthenticated && e.message.contains("wants a passkey"), "{e}");
    let mut begun = Vec::new();
    for _ in 0..2 {
        let Stepped::Enrol(c) = first(&w, "root", ADMIN_PASSWORD).await.unwrap() else {
            panic!("no passkey is made")
        };
        begun.push(c);
    }
    let (late, ceremony) = (begun.remove(0), begun.remove(0));
    let mut device = Device::new();
    let answer = device.create(&ceremony.options.0);
    let signed_in = w.public(enrolling(ceremony.flow.clone(), answer.clone())).await.unwrap();
    assert!(signed_in.site_admin);
    let e = w.public(enrolling(ceremony.flow, answer)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "a flow is finished once: {e}");
    let answer = Device::new().create(&late.options.0);
    let e = w.public(enrolling(late.flow, answer)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "a password alone added a second one: {e}");
    let ceremony = asked(&w, "root").await;
    let credential = device.get(&ceremony.options.0);
    w.public(finishing(ceremony.flow, credential)).await.unwrap();
    let caller = w.by_token(&signed_in.token.token);
    let list = w.call(&caller, ListPasskeys {}).await.unwrap();
    assert!(list.required);
    let e = w.call(&caller, RemovePasskey { key: list.passkeys[0].key.clone() }).await;
    assert_eq!(e.unwrap_err().kind, Kind::Denied);
}

fn by_code(code: &OneTimeCode) -> SignInByCode {
    SignInByCode { code: code.clone(), audience: None, memberships: true }
}

/// If it failed, people with a second step could not use the tool, or a code that somebody saw
/// would let them in.
#[tokio::test]
async fn a_code_signs_the_tool_in_once_and_within_five_minutes() {
    let w = World::new("rennes").await;
    let mut device = Device::new();
    with_second_factor(&w, &mut device).await;
    let came = alone(&w, &mut device).await.unwrap();
    let caller = w.by_token(&came.token.token);
    let made = w.call(&caller, CreateSignInCode {}).await.unwrap();
    w.clock.advance(60 * SECOND);
    let typed = OneTimeCode(made.code.0.to_uppercase().replace('-', " "));
    let signed_in = w.public(by_code(&typed)).await.unwrap();
    assert_eq!(signed_in.person, came.person);
    assert_eq!(signed_in.session_until, came.session_until, "a code made a session longer");
    assert_eq!(signed_in.memberships, Some(Vec::new()));
    let e = w.public(by_code(&made.code)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "a code is good once: {e}");

    let made = w.call(&caller, CreateSignInCode {}).await.unwrap();
    w.clock.advance(FIVE_MINUTES);
    let late = w.public(by_code(&made.code)).await.unwrap_err();
    assert_eq!(late, e, "what is wrong with a code is not told");
    let e = w.call(&caller, CreateSignInCode {}).await.unwrap_err();
    assert!(e.message.contains("five minutes"), "a session left open made a code: {e}");

    // Ended sessions take their codes with them.
    let caller = w.by_token(&alone(&w, &mut device).await.unwrap().token.token);
    let made = w.call(&caller, CreateSignInCode {}).await.unwrap();
    w.clock.advance(SECOND);
    w.call(&caller, SetSecondFactor { on: true }).await.unwrap();
    assert_eq!(w.public(by_code(&made.code)).await.unwrap_err().kind, Kind::Unauthenticated);
}

/// If it failed, a core that is reached by address only would fail in a way that nobody
/// understands.
#[tokio::test]
async fn without_a_host_name_there_are_no_passkeys() {
    let w = World::with("rennes", |c| c.names = vec!["127.0.0.1".into()]).await;
    let e = w.public(BeginPasskeySignIn {}).await.unwrap_err();
    assert!(
        e.kind == Kind::Unsupported && e.hint.unwrap().contains("[cda.passkeys]"),
        "{}",
        e.message
    );
    let root = w.root().await;
    assert_eq!(w.call(&root, BeginPasskey {}).await.unwrap_err().kind, Kind::Unsupported);
}
