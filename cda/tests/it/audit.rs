//! What the site's audit is told, and what never.

use crate::machines::{invite, node};
use crate::provider::{Site, TURN, VO, granted, proof};
use crate::world::{ADMIN_PASSWORD, World, certificate_request, keyed, sign_in};
use std::fmt::Write;
use xos_api::audit::{Event, Outcome};
use xos_api::cda::{
    BeginDeviceGrant, BeginNodeLogin, CheckNodePassword, CreateSignInCode, DecideDevice,
    FinishRecovery, IssueLoginMandate, IssueToken, JoinMachine, NodeLogin, OfferTrust, Password,
    PollNodeLogin, RecoverPerson, SetPassword, SignInByCode,
};
use xos_net::Router;

/// If it failed, an operation that somebody adds would be in no audit, without anybody having
/// decided so. `XOS_BLESS=1` writes the list anew.
#[tokio::test]
async fn every_operation_is_noted_or_known_to_change_nothing() {
    let w = World::new("rennes").await;
    let mut router = Router::new();
    let mut all = w.cda.register(&mut router);
    let place = |method: xos_api::Method, path: &str| format!("{} {path}", method.as_str());
    let mut served: Vec<_> = router.served().map(|(method, path, _)| place(method, path)).collect();
    let mut named: Vec<_> = all.iter().map(|o| place(o.method, o.path)).collect();
    served.sort();
    named.sort();
    assert_eq!(named, served, "an operation is served that the list does not have");
    all.sort_by_key(|o| (o.what.unwrap_or("-"), place(o.method, o.path)));
    let mut table = String::new();
    for o in &all {
        writeln!(table, "{:<24} {}", o.what.unwrap_or("-"), place(o.method, o.path)).unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/audit.txt");
    if std::env::var_os("XOS_BLESS").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(table, golden, "what is noted has changed: read the table, then XOS_BLESS=1");
}

fn find<'a>(events: &'a [Event], what: &str, outcome: Outcome) -> &'a Event {
    let found = events.iter().rev().find(|e| e.what == what && e.outcome == outcome);
    found.unwrap_or_else(|| panic!("no {what} that is {outcome:?}"))
}

/// If it failed, the audit would not say who signed in, whose access an administrator changed, or
/// why somebody was refused.
#[tokio::test]
async fn an_event_says_who_and_whom_and_why() {
    let w = World::new("rennes").await;
    let root = w.root().await;
    w.person("alice").await;
    w.sign_in("alice", "a wrong password").await.unwrap_err();
    w.sign_in("My Password, in the wrong field", "x").await.unwrap_err();
    let person = w.site.person("alice").unwrap();
    w.call(&root, RecoverPerson { person: person.clone() }).await.unwrap();
    let events = w.audit.events();
    let signed_in = find(&events, "sign_in", Outcome::Done);
    assert_eq!(
        (signed_in.who.as_str(), &signed_in.person),
        ("alice@rennes", &Some(person.clone()))
    );
    let wrong: Vec<_> = events
        .iter()
        .filter(|e| e.what == "sign_in" && e.outcome == Outcome::Refused)
        .map(|e| (e.who.as_str(), e.person.clone(), e.why.as_str()))
        .collect();
    let why = "wrong name or password";
    assert_eq!(wrong, [("", Some(person.clone()), why), ("", None, why)]);
    let recovered = find(&events, "recover_person", Outcome::Done);
    assert_eq!((recovered.who.as_str(), &recovered.person), ("root@rennes", &Some(person)));
}

/// If it failed, whoever may read the audit could sign in as others, or act for them.
#[tokio::test]
async fn no_secret_ever_stands_in_an_event() {
    let site = Site::new().await;
    let w = &site.w;
    let mut secrets: Vec<String> = vec![ADMIN_PASSWORD.into(), "mistyped-Secret".into()];
    let mut keep = |secret: &str| secrets.push(secret.to_owned());

    // A client of the site.
    keep(&site.client.secret.as_ref().unwrap().0);
    let code = site.code().await;
    keep(&code);
    let tokens = granted(w.public(site.exchange(&code)).await.unwrap());
    keep(&tokens.access_token.0);
    keep(&tokens.refresh_token.unwrap().0);

    // Passwords: right, wrong, as the name, new.
    keep(&w.sign_in("alice", ADMIN_PASSWORD).await.unwrap().token.token);
    w.sign_in("alice", "mistyped-Secret").await.unwrap_err();
    w.sign_in("mistyped-Secret", "x").await.unwrap_err();
    w.sign_in("mistyped-Secret@pisa", "x").await.unwrap_err();
    let alice = w.site.person("alice").unwrap();
    let [present, new] = [ADMIN_PASSWORD, "another-new-password"].map(|p| Password(p.into()));
    keep(&new.0);
    let set = SetPassword { person: alice.clone(), present: Some(present), password: new.clone() };
    w.call(&site.alice, set).await.unwrap();
    w.clock.advance(TURN);
    let signed_in = w.public(sign_in("alice", &new.0)).await.unwrap();
    let alice_again = w.by_token(&signed_in.token.token);

    // Credentials and a mandate.
    let token = IssueToken { vo: VO.parse().unwrap(), audience: None, groups: None, roles: None };
    keep(&w.call(&alice_again, token).await.unwrap().token);
    let certificate = certificate_request(VO, &keyed().csr_pem);
    keep(&w.call(&alice_again, certificate).await.unwrap().chain_pem);
    let code = w.call(&alice_again, CreateSignInCode {}).await.unwrap().code;
    keep(&code.0);
    let by_code = SignInByCode { code, audience: None, memberships: false };
    keep(&w.public(by_code.clone()).await.unwrap().token.token);
    w.public(by_code).await.unwrap_err();

    // A machine, another site, a login at the machine.
    let joining = invite(w, "n2").await;
    keep(&joining.secret);
    let csr_pem = keyed().csr_pem;
    let join = JoinMachine { token: joining, csr_pem };
    w.public(join.clone()).await.unwrap();
    w.public(JoinMachine { csr_pem: keyed().csr_pem, ..join }).await.unwrap_err();
    let offer = OfferTrust { site: "pisa".parse().unwrap(), fingerprint: None };
    keep(&w.call(&site.root, offer).await.unwrap().offer);
    let n1 = node(w, "n1").await;
    let login = NodeLogin {
        node: "n1.rennes".parse().unwrap(),
        user: "alice.demo.rennes".into(),
        service: "sudo".into(),
        person: alice.clone(),
        vo: None,
    };
    let check = CheckNodePassword { login: login.clone(), password: new };
    w.call(&n1, check).await.unwrap();
    let begun = w.call(&n1, BeginNodeLogin { login: login.clone() }).await.unwrap();
    keep(&begun.attempt.0);
    keep(&begun.code);
    let decide = DecideDevice { user_code: begun.code, allow: true, vo: None };
    w.call(&alice_again, decide).await.unwrap();
    w.clock.advance(TURN);
    let poll = PollNodeLogin { node: login.node, person: login.person, attempt: begun.attempt };
    w.call(&n1, poll).await.unwrap();

    // Another device.
    let begin = BeginDeviceGrant { client: proof(&site.client), scope: "openid".into() };
    let codes = granted(w.public(begin).await.unwrap());
    keep(&codes.device_code.0);
    keep(&codes.user_code);
    let decide = DecideDevice { user_code: codes.user_code, allow: false, vo: None };
    w.call(&alice_again, decide).await.unwrap();

    // Recovery.
    let made = w.call(&site.root, RecoverPerson { person: alice }).await.unwrap();
    keep(&made.code.0);
    let password = Password("the-third-password".into());
    keep(&password.0);
    let finish = FinishRecovery { user: "alice".into(), code: made.code, password };
    w.public(finish.clone()).await.unwrap();
    w.public(finish).await.unwrap_err();
    let mandate = IssueLoginMandate { vo: VO.parse().unwrap(), node: "n1.rennes".parse().unwrap() };
    w.call(&site.alice, mandate).await.unwrap_err();

    let events = w.audit.events();
    for what in ["sign_in", "get_tokens", "join_machine", "decide_device", "check_node_password"] {
        find(&events, what, Outcome::Done);
    }
    for event in &events {
        let text = serde_json::to_string(event).unwrap();
        let found = secrets.iter().find(|s| text.contains(s.as_str()));
        assert_eq!(found, None, "{text}");
    }
}
