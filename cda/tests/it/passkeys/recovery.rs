//! Recovery by an administrator.

use super::device::Device;
use super::{SECOND, add, alone, enrolling};
use crate::world::{ADMIN_PASSWORD, World};
use std::time::Duration;
use xos_api::cda::{
    BeginRecovery, CreatePerson, FinishRecovery, ListPasskeys, OneTimeCode, Password,
    RecoverPerson, RecoveryCode, RemovePasskey, RenewToken, SetPassword, SetPerson,
};
use xos_base::when::Clock;
use xos_base::{Error, Kind};

const HOUR: Duration = Duration::from_secs(3600);
const NEW: &str = "a new password";

async fn recover(w: &World, name: &str) -> Result<RecoveryCode, Error> {
    let person = w.site.person(name).unwrap();
    w.call(&w.root().await, RecoverPerson { person }).await
}

fn by_password(user: &str, code: &OneTimeCode) -> FinishRecovery {
    FinishRecovery { user: user.into(), code: code.clone(), password: Password(NEW.into()) }
}

fn by_passkey(user: &str, code: &OneTimeCode) -> BeginRecovery {
    BeginRecovery { user: user.into(), code: code.clone() }
}

/// If it failed, a thief with the password or the device would stay in after the recovery, or the
/// person would not come in again or not learn of it.
#[tokio::test]
async fn recovery_ends_all_ways_in_and_its_code_makes_one() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    let mut stolen = Device::new();
    add(&w, &alice, &mut stolen).await.unwrap();
    w.clock.advance(SECOND);
    let made = recover(&w, "alice").await.unwrap();
    assert!(made.address.starts_with("https://") && made.address.ends_with("/recover"));
    assert_eq!(w.sign_in("alice", ADMIN_PASSWORD).await.unwrap_err().kind, Kind::Unauthenticated);
    assert_eq!(alone(&w, &mut stolen).await.unwrap_err().kind, Kind::Unauthenticated);
    let e = w.call(&alice, RenewToken::default()).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "a session goes on: {e}");

    w.public(by_password("alice@rennes", &made.code)).await.unwrap();
    let signed_in = w.sign_in("alice", NEW).await.unwrap();
    let told = signed_in.recovered.expect("the person is not told");
    assert_eq!(told.by.as_str(), "root@rennes");
    w.clock.advance(24 * HOUR);
    assert!(w.sign_in("alice", NEW).await.unwrap().recovered.is_some(), "told once only");
    w.clock.advance(30 * 24 * HOUR);
    assert!(w.sign_in("alice", NEW).await.unwrap().recovered.is_none());
    // The device's id is nobody's now.
    let alice = w.by_token(&w.sign_in("alice", NEW).await.unwrap().token.token);
    add(&w, &alice, &mut stolen).await.unwrap();
}

/// If it failed, a code that was overheard would be good again, or for long.
#[tokio::test]
async fn a_code_is_good_once_for_its_person_and_an_hour() {
    let w = World::new("rennes").await;
    w.person("alice").await;
    w.person("mallory").await;
    let made = recover(&w, "alice").await.unwrap();
    let mut answers = vec![w.public(by_password("mallory", &made.code)).await.unwrap_err()];
    answers.push(w.public(by_password("nobody", &made.code)).await.unwrap_err());
    answers.push(w.public(by_password("alice", &OneTimeCode("wrong".into()))).await.unwrap_err());
    w.public(by_password("alice", &made.code)).await.unwrap();
    answers.push(w.public(by_password("alice", &made.code)).await.unwrap_err());
    answers.push(w.public(by_passkey("alice", &made.code)).await.unwrap_err());
    w.clock.advance(HOUR);
    let made = recover(&w, "alice").await.unwrap();
    w.clock.advance(HOUR);
    answers.push(w.public(by_password("alice", &made.code)).await.unwrap_err());
    let old = recover(&w, "alice").await.unwrap();
    let new = recover(&w, "alice").await.unwrap();
    answers.push(w.public(by_password("alice", &old.code)).await.unwrap_err());
    for e in &answers {
        assert_eq!((e.kind, e), (Kind::Unauthenticated, &answers[0]), "an answer tells something");
    }
    w.public(by_password("alice", &new.code)).await.unwrap();
}

/// If it failed, codes could be guessed.
#[tokio::test]
async fn guesses_of_codes_are_slowed_as_those_of_passwords() {
    let w = World::new("rennes").await;
    w.person("alice").await;
    let made = recover(&w, "alice").await.unwrap();
    for i in 0..5 {
        let e = w.public(by_password("alice", &OneTimeCode(i.to_string()))).await.unwrap_err();
        assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
    }
    let e = w.public(by_password("alice", &made.code)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Limited, "{e}");
}

/// If it failed, people of a site without passwords could not come in again; or a code would be
/// used up by a device that failed, or add a second passkey.
#[tokio::test]
async fn a_code_makes_a_passkey_instead() {
    let w = World::new("rennes").await;
    w.person("alice").await;
    let made = recover(&w, "alice").await.unwrap();
    let failed = w.public(by_passkey("alice", &made.code)).await.unwrap();
    let mut bad = Device::new();
    bad.verifies = false;
    let answer = bad.create(&failed.options.0);
    assert_eq!(w.public(enrolling(failed.flow, answer)).await.unwrap_err().kind, Kind::Invalid);
    let again = w.public(by_passkey("alice", &made.code)).await.unwrap();
    let late = w.public(by_passkey("alice", &made.code)).await.unwrap();
    let mut device = Device::new();
    let answer = device.create(&again.options.0);
    let signed_in = w.public(enrolling(again.flow, answer)).await.unwrap();
    assert!(signed_in.recovered.is_some());
    let answer = Device::new().create(&late.options.0);
    let e = w.public(enrolling(late.flow, answer)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "the code was used: {e}");
    alone(&w, &mut device).await.unwrap();
    // It is the only way in, so it stays.
    let alice = w.by_token(&signed_in.token.token);
    let list = w.call(&alice, ListPasskeys {}).await.unwrap().passkeys;
    assert_eq!(list.len(), 1);
    let e = w.call(&alice, RemovePasskey { key: list[0].key.clone() }).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("last way"), "{e}");
}

/// If it failed, an administrator could become a person by a password beside what they sign in by,
/// and the person would never learn of it; or people would be alarmed by what they did themselves.
#[tokio::test]
async fn a_password_that_an_administrator_sets_is_told_as_a_recovery_is() {
    let w = World::new("rennes").await;
    w.person("bob").await;
    w.person("alice").await;
    let set = |name: &str, present: Option<&str>| SetPassword {
        person: w.site.person(name).unwrap(),
        present: present.map(|p| Password(p.into())),
        password: Password(NEW.into()),
    };
    let made = recover(&w, "alice").await.unwrap();
    let begun = w.public(by_passkey("alice", &made.code)).await.unwrap();
    let mut device = Device::new();
    let answer = device.create(&begun.options.0);
    w.public(enrolling(begun.flow, answer)).await.unwrap();
    w.clock.advance(31 * 24 * HOUR);
    assert!(alone(&w, &mut device).await.unwrap().recovered.is_none());
    let done = w.call(&w.root().await, set("alice", None)).await.unwrap();
    assert!(done.first, "the administrator does not hear that she came in by something else");
    let at = w.clock.now();
    w.clock.advance(SECOND);
    let told = alone(&w, &mut device).await.unwrap().recovered.expect("she is not told");
    assert_eq!((told.by.as_str(), told.at), ("root@rennes", at));
    assert!(w.sign_in("alice", NEW).await.unwrap().recovered.is_some());
    let done = w.call(&w.root().await, set("alice", None)).await.unwrap();
    assert!(!done.first);
    // A code from before would be one more way in that nobody is told of.
    let made = recover(&w, "alice").await.unwrap();
    assert!(w.call(&w.root().await, set("alice", None)).await.unwrap().first);
    let e = w.public(by_password("alice", &made.code)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "{e}");

    w.clock.advance(SECOND);
    let bob = w.sign_in("bob", ADMIN_PASSWORD).await.map(|s| w.by_token(&s.token.token)).unwrap();
    w.call(&bob, set("bob", Some(ADMIN_PASSWORD))).await.unwrap();
    assert!(w.sign_in("bob", NEW).await.unwrap().recovered.is_none());
}

/// If it failed, a stolen session of an administrator would take over their access for good, or a
/// disabled person would come back.
#[tokio::test]
async fn nobody_recovers_themselves_and_the_disabled_stay_out() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    let e = recover(&w, "root").await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("themselves"), "{e}");
    w.sign_in("root", ADMIN_PASSWORD).await.expect("a refused recovery changed something");
    let person = w.site.person("alice").unwrap();
    let own = w.call(&alice, RecoverPerson { person: person.clone() }).await.unwrap_err();
    assert_eq!(own.kind, Kind::Denied, "{own}");
    assert_eq!(recover(&w, "nobody").await.unwrap_err().kind, Kind::NotFound);
    let made = recover(&w, "alice").await.unwrap();
    let disable = SetPerson { person, disabled: Some(true), site_admin: None };
    w.call(&w.root().await, disable).await.unwrap();
    let e = w.public(by_password("alice", &made.code)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
    assert_eq!(recover(&w, "alice").await.unwrap_err().kind, Kind::Conflict);
    // Another administrator does it.
    let password = Password(ADMIN_PASSWORD.into());
    let ada = CreatePerson { name: "ada".into(), password, site_admin: true };
    w.call(&w.root().await, ada).await.unwrap();
    let ada = w.by_token(&w.sign_in("ada", ADMIN_PASSWORD).await.unwrap().token.token);
    let person = w.site.person("root").unwrap();
    let made = w.call(&ada, RecoverPerson { person }).await.unwrap();
    w.public(by_password("root", &made.code)).await.unwrap();
    assert!(w.sign_in("root", NEW).await.unwrap().site_admin);
}
