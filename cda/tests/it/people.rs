//! Signing in, sessions, and the people of a site.

use crate::world::{ADMIN_PASSWORD, World, member, sign_in};
use std::time::Duration;
use xos_api::cda::{
    CreatePerson, IssueToken, ListPeople, Password, Register, RenewToken, SetPassword, SetPerson,
    SignInOptions, WhoAmI,
};
use xos_base::Kind;
use xos_cda::Registration;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_person_signs_in_and_is_known_by_the_token() {
    let w = World::new("rennes").await;
    let s = w.sign_in("root@rennes", ADMIN_PASSWORD).await.unwrap();
    assert!(s.site_admin);
    let caller = w.by_token(&s.token.token);
    assert!(caller.site_admin());
    assert_eq!(caller.person().unwrap().as_str(), "root@rennes");
    let me = w.call(&caller, WhoAmI {}).await.unwrap();
    assert_eq!((me.person.unwrap().as_str(), me.site_admin), ("root@rennes", true));
    w.clock.advance(15 * MINUTE);
    let e = w.verifier.token(&s.token.token, None).unwrap_err();
    assert!(e.message.contains("expired"), "{e}");
}

#[tokio::test]
async fn wrong_name_and_wrong_password_are_answered_alike_and_slowed() {
    let w = World::new("rennes").await;
    let name = w.sign_in("nobody", ADMIN_PASSWORD).await.unwrap_err();
    let malformed = w.sign_in("No Body\n", ADMIN_PASSWORD).await.unwrap_err();
    let word = w.sign_in("root", "wrong password").await.unwrap_err();
    assert_eq!(name, word, "an answer tells which names exist");
    assert_eq!(malformed, word);
    for _ in 0..4 {
        w.sign_in("root", "wrong password").await.unwrap_err();
    }
    let e = w.sign_in("root", ADMIN_PASSWORD).await.unwrap_err();
    assert_eq!(e.kind, Kind::Limited, "the right password must wait as well: {e}");
    assert!(e.hint.unwrap().contains("30 seconds"));
    w.clock.advance(Duration::from_secs(30));
    w.sign_in("root", ADMIN_PASSWORD).await.unwrap();
}

#[tokio::test]
async fn guesses_from_elsewhere_do_not_lock_a_person_out() {
    let w = World::new("rennes").await;
    let token = w.sign_in("root", ADMIN_PASSWORD).await.unwrap().token.token;
    let home = w.by_token_at(&token, [192, 0, 2, 1]);
    w.call(&home, sign_in("root", ADMIN_PASSWORD)).await.unwrap();
    let thief = w.by_token_at(&token, [192, 0, 2, 66]);
    while w.call(&thief, sign_in("root", "wrong password")).await.unwrap_err().kind != Kind::Limited
    {
    }
    w.call(&home, sign_in("root", ADMIN_PASSWORD)).await.unwrap();
}

#[tokio::test]
async fn people_of_other_sites_are_sent_there_and_sizes_are_bounded() {
    let w = World::new("rennes").await;
    let e = w.sign_in("alice@pisa", ADMIN_PASSWORD).await.unwrap_err();
    assert!(e.message.contains("not of site rennes"), "{e}");
    assert_eq!(w.sign_in(&"x".repeat(300), "y").await.unwrap_err().kind, Kind::Invalid);
    assert_eq!(w.sign_in("root", &"y".repeat(2000)).await.unwrap_err().kind, Kind::Invalid);
    let to_stranger = xos_api::cda::SignIn {
        audience: Some("nowhere".parse().unwrap()),
        ..sign_in("root", ADMIN_PASSWORD)
    };
    assert_eq!(w.public(to_stranger).await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test]
async fn a_session_is_renewed_until_it_ends() {
    let w = World::new("rennes").await;
    let mut s = w.sign_in("root", ADMIN_PASSWORD).await.unwrap();
    let end = s.session_until;
    for _ in 0..12 * 6 - 1 {
        w.clock.advance(10 * MINUTE);
        s = w.call(&w.by_token(&s.token.token), RenewToken { audience: None }).await.unwrap();
        assert_eq!(s.session_until, end, "a renewal must not lengthen the session");
        assert!(s.token.expires <= end);
    }
    let last = w.by_token(&s.token.token);
    w.clock.advance(10 * MINUTE);
    let e = w.call(&last, RenewToken { audience: None }).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "{e}");
}

#[tokio::test]
async fn a_token_for_another_site_holds_there_alone_and_gives_no_power() {
    let (w, pisa) = (World::new("rennes").await, World::new("pisa").await);
    w.trusts(&pisa);
    pisa.trusts(&w);
    let root = w.root().await;
    let r = RenewToken { audience: Some("pisa".parse().unwrap()) };
    let token = w.call(&root, r).await.unwrap().token;
    assert!(w.verifier.token(&token.token, None).is_err());
    let there = pisa.by_token(&token.token);
    assert!(!there.site_admin(), "an administrator of rennes is none of pisa");
    let e = pisa.call(&there, RenewToken { audience: None }).await.unwrap_err();
    assert!(e.message.contains("not of site pisa"), "{e}");
}

#[tokio::test]
async fn a_member_token_gives_no_further_credential() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    w.vos.set(member("demo.rennes", "alice@rennes"));
    let ask = |groups, roles| IssueToken {
        vo: "demo.rennes".parse().unwrap(),
        audience: None,
        groups,
        roles,
    };
    let token = w.call(&alice, ask(None, Some(vec![]))).await.unwrap();
    let caller = w.by_token(&token.token);
    let m = caller.member().unwrap();
    assert!(m.roles.is_empty() && m.groups.len() == 2);
    assert!(!caller.site_admin());
    for e in [
        w.call(&caller, ask(None, None)).await.unwrap_err(),
        w.call(&caller, RenewToken { audience: None }).await.unwrap_err(),
    ] {
        assert!(e.message.contains("nothing further"), "a narrowed token was widened: {e}");
    }
    let e = w.call(&alice, ask(Some(vec!["chess".parse().unwrap()]), None)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied);
}

#[tokio::test]
async fn a_disabled_person_gets_nothing_more() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    let root = w.root().await;
    let set = |disabled| SetPerson {
        person: "alice@rennes".parse().unwrap(),
        disabled: Some(disabled),
        site_admin: None,
    };
    w.clock.advance(Duration::from_secs(2));
    assert!(w.call(&root, set(true)).await.unwrap().disabled);
    assert_eq!(w.call(&alice, RenewToken::default()).await.unwrap_err().kind, Kind::Denied);
    assert_eq!(w.sign_in("alice", ADMIN_PASSWORD).await.unwrap_err().kind, Kind::Denied);
    let wrong = w.sign_in("alice", "wrong password").await.unwrap_err();
    assert_eq!(wrong.kind, Kind::Unauthenticated, "only who knows the password learns of it");
    w.call(&root, set(false)).await.unwrap();
    let e = w.call(&alice, RenewToken::default()).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "the session from before is over: {e}");
    w.sign_in("alice", ADMIN_PASSWORD).await.unwrap();
}

#[tokio::test]
async fn a_new_password_ends_sessions_and_needs_the_present_one() {
    let w = World::new("rennes").await;
    let alice = w.person("alice").await;
    let set = |present: Option<&str>, new: &str| SetPassword {
        person: "alice@rennes".parse().unwrap(),
        present: present.map(|p| Password(p.into())),
        password: Password(new.into()),
    };
    w.clock.advance(Duration::from_secs(2));
    assert_eq!(w.call(&alice, set(None, "another one")).await.unwrap_err().kind, Kind::Invalid);
    let e = w.call(&alice, set(Some("wrong password"), "another one")).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated);
    assert_eq!(
        w.call(&alice, set(Some(ADMIN_PASSWORD), "short")).await.unwrap_err().kind,
        Kind::Invalid
    );
    w.call(&alice, set(Some(ADMIN_PASSWORD), "another one")).await.unwrap();
    let e = w.call(&alice, RenewToken::default()).await.unwrap_err();
    assert!(e.message.contains("ended"), "{e}");
    w.sign_in("alice", ADMIN_PASSWORD).await.unwrap_err();
    w.sign_in("alice", "another one").await.unwrap();
    let root = w.root().await;
    w.call(&root, set(None, "set by the admin")).await.unwrap();
    w.sign_in("alice", "set by the admin").await.unwrap();
    let bob = w.person("bob").await;
    assert_eq!(w.call(&bob, set(None, "bob was here")).await.unwrap_err().kind, Kind::Denied);
}

#[tokio::test]
async fn an_administrator_who_was_unmade_has_no_power_though_the_token_says_so() {
    let w = World::new("rennes").await;
    let root = w.root().await;
    let create = CreatePerson {
        name: "eve".into(),
        password: Password(ADMIN_PASSWORD.into()),
        site_admin: true,
    };
    w.call(&root, create).await.unwrap();
    let eve = w.by_token(&w.sign_in("eve", ADMIN_PASSWORD).await.unwrap().token.token);
    w.call(&eve, ListPeople::default()).await.unwrap();
    let unmake = |who: &str| SetPerson {
        person: who.parse().unwrap(),
        disabled: None,
        site_admin: Some(false),
    };
    let e = w.call(&root, unmake("root@rennes")).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "the last administrator could go: {e}");
    w.call(&root, unmake("eve@rennes")).await.unwrap();
    assert!(eve.site_admin(), "the token still says so");
    assert_eq!(w.call(&eve, ListPeople::default()).await.unwrap_err().kind, Kind::Denied);
    assert_eq!(w.call(&eve, unmake("root@rennes")).await.unwrap_err().kind, Kind::Denied);
}

#[tokio::test]
async fn people_register_themselves_only_where_that_is_open() {
    let closed = World::new("rennes").await;
    let r = |name: &str| Register { name: name.into(), password: Password("my password".into()) };
    assert_eq!(closed.public(r("alice")).await.unwrap_err().kind, Kind::Denied);
    let open = World::with("pisa", |c| c.registration = Registration::Open).await;
    assert!(open.public(SignInOptions {}).await.unwrap().open_registration);
    assert!(!open.public(r("alice")).await.unwrap().site_admin);
    open.sign_in("alice", "my password").await.unwrap();
    assert_eq!(open.public(r("alice")).await.unwrap_err().kind, Kind::Conflict);
    for bad in ["Alice", "", "a\nb", &"a".repeat(300), "a@pisa", "a/b"] {
        assert_eq!(open.public(r(bad)).await.unwrap_err().kind, Kind::Invalid, "{bad:?}");
    }
    for i in 0..10 {
        if let Err(e) = open.public(r(&format!("p{i}"))).await {
            assert_eq!(e.kind, Kind::Limited);
            return;
        }
    }
    panic!("one address registers without end");
}

#[tokio::test]
async fn people_are_listed_in_pages() {
    let w = World::new("rennes").await;
    w.person("alice").await;
    w.person("bob").await;
    let root = w.root().await;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = w.call(&root, ListPeople { after, limit: Some(2) }).await.unwrap();
        seen.extend(page.people.into_iter().map(|p| p.person.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["alice@rennes", "bob@rennes", "root@rennes"]);
}
