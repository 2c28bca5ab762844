//! Logins to machines that their person allows in the console of their own site.

use super::{Site, TURN, VO};
use crate::machines::node;
use crate::world::{World, member};
use std::time::Duration;
use xos_api::cda::{
    BeginNodeLogin, BegunNodeLogin, DecideDevice, DeviceWish, IssueVouchedMandate, NodeLogin,
    NodeLoginState, PollNodeLogin, RemoveNode, Secret, ShowDevice, Work,
};
use xos_base::when::Clock;
use xos_base::{Error, Kind};
use xos_net::ticket::verify_mandate;

fn sudo(node: &str, person: &str) -> BeginNodeLogin {
    let (user, service) = ("alice.demo.rennes".to_owned(), "sudo".to_owned());
    let (node, person) = (node.parse().unwrap(), person.parse().unwrap());
    BeginNodeLogin { login: NodeLogin { node, user, service, person, vo: None } }
}

/// Allowed, and nothing more.
const YES: NodeLoginState = NodeLoginState::Allowed { mandate: None };

fn poll(wanted: &BeginNodeLogin, begun: &BegunNodeLogin) -> PollNodeLogin {
    let (node, person) = (wanted.login.node.clone(), wanted.login.person.clone());
    PollNodeLogin { node, person, attempt: begun.attempt.clone() }
}

fn decision(begun: &BegunNodeLogin, allow: bool) -> DecideDevice {
    DecideDevice { user_code: begun.code.clone(), allow, vo: None }
}

/// If it failed, a person could not come in at a console, or would allow what they did not read.
#[tokio::test]
async fn a_person_allows_one_service_on_one_machine() {
    let site = Site::new().await;
    let w = &site.w;
    let n1 = node(w, "n1").await;
    let wanted = sudo("n1.rennes", "alice@rennes");
    let begun = w.call(&n1, wanted.clone()).await.unwrap();
    assert!(begun.address.ends_with("/device") && begun.picture.is_some());
    w.clock.advance(TURN);
    let asked = w.call(&n1, poll(&wanted, &begun)).await.unwrap();
    assert_eq!(asked, NodeLoginState::Waiting);
    let show = ShowDevice { user_code: begun.code.clone() };
    let shown = w.call(&site.alice, show).await.unwrap();
    assert_eq!(shown, DeviceWish::Login(wanted.login.clone()));
    w.call(&site.alice, decision(&begun, true)).await.unwrap();
    w.clock.advance(TURN);
    // Another machine, and another person's account, have nothing of it.
    let n2 = node(w, "n2").await;
    let e = w.call(&n2, poll(&wanted, &begun)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "{e}");
    let other = PollNodeLogin { node: "n2.rennes".parse().unwrap(), ..poll(&wanted, &begun) };
    assert_eq!(w.call(&n2, other).await.unwrap(), NodeLoginState::Over);
    let other = PollNodeLogin { person: "bob@rennes".parse().unwrap(), ..poll(&wanted, &begun) };
    assert_eq!(w.call(&n1, other).await.unwrap(), NodeLoginState::Over);
    assert_eq!(w.call(&n1, poll(&wanted, &begun)).await.unwrap(), YES);
    let again = w.call(&n1, poll(&wanted, &begun)).await.unwrap();
    assert_eq!(again, NodeLoginState::Over, "it was told twice");
}

/// If it failed, somebody who reads the code over a shoulder could let a stranger in, or a no would
/// count as a yes.
#[tokio::test]
async fn nobody_else_allows_it_and_a_no_is_a_no() {
    let site = Site::new().await;
    let w = &site.w;
    let n1 = node(w, "n1").await;
    let mallory = w.person("mallory").await;
    let wanted = sudo("n1.rennes", "alice@rennes");
    let begun = w.call(&n1, wanted.clone()).await.unwrap();
    let show = ShowDevice { user_code: begun.code.clone() };
    assert_eq!(w.call(&mallory, show).await.unwrap_err().kind, Kind::NotFound);
    let e = w.call(&mallory, decision(&begun, true)).await.unwrap_err();
    assert_eq!(e.kind, Kind::NotFound, "{e}");
    w.call(&site.alice, decision(&begun, false)).await.unwrap();
    w.clock.advance(TURN);
    assert_eq!(w.call(&n1, poll(&wanted, &begun)).await.unwrap(), NodeLoginState::Declined);
    let begun = w.call(&n1, wanted.clone()).await.unwrap();
    w.clock.advance(Duration::from_secs(600));
    assert!(w.call(&site.alice, decision(&begun, true)).await.is_err(), "it came too late");
    assert_eq!(w.call(&n1, poll(&wanted, &begun)).await.unwrap(), NodeLoginState::Over);
}

/// If it failed, a site that invents machines would keep people from signing in at all others:
/// their codes would go, or their budgets be used up.
#[tokio::test]
async fn a_site_that_invents_machines_keeps_nobody_out_elsewhere() {
    let site = Site::new().await;
    let (w, pisa) = (&site.w, World::new("pisa").await);
    w.trusts(&pisa);
    let n1 = node(w, "n1").await;
    let wanted = sudo("n1.rennes", "alice@rennes");
    let begun = w.call(&n1, wanted.clone()).await.unwrap();
    let hostile = w.core_of(&pisa);
    let mut asked = 0;
    while w.call(&hostile, sudo(&format!("n{asked}.pisa"), "alice@rennes")).await.is_ok() {
        asked += 1;
        assert!(asked < 200, "no limit holds");
    }
    w.call(&site.alice, decision(&begun, true)).await.unwrap();
    w.call(&n1, wanted).await.expect("the site uses up what others have");
}

/// If it failed, a person could sign in at machines of other sites by no way, or a site that is not
/// trusted could ask for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_another_site_asks_through_its_core() {
    let site = Site::new().await;
    let (w, pisa) = (&site.w, World::new("pisa").await);
    let n1 = node(&pisa, "n1").await;
    let wanted = sudo("n1.pisa", "alice@rennes");
    assert!(pisa.call(&n1, wanted.clone()).await.is_err(), "nobody trusts anybody yet");
    w.trusts(&pisa);
    pisa.trusts(w);
    let begun = pisa.call(&n1, wanted.clone()).await.unwrap();
    let show = ShowDevice { user_code: begun.code.clone() };
    let shown = w.call(&site.alice, show).await.unwrap();
    assert_eq!(shown, DeviceWish::Login(wanted.login.clone()));
    w.call(&site.alice, decision(&begun, true)).await.unwrap();
    w.clock.advance(TURN);
    assert_eq!(pisa.call(&n1, poll(&wanted, &begun)).await.unwrap(), YES);
}

/// If it failed, whoever is no machine could have people asked, or a site for machines of another.
#[tokio::test]
async fn machines_ask_for_themselves_only() {
    let site = Site::new().await;
    let (w, pisa) = (&site.w, World::new("pisa").await);
    w.trusts(&pisa);
    let n1 = node(w, "n1").await;
    let denied = |result: Result<BegunNodeLogin, Error>| {
        let e = result.unwrap_err();
        assert_eq!(e.kind, Kind::Denied, "{e}");
    };
    let wanted = sudo("n1.rennes", "alice@rennes");
    for caller in [&site.alice, &site.root, &w.core_of(&pisa)] {
        denied(w.call(caller, wanted.clone()).await);
    }
    denied(w.call(&n1, sudo("n2.rennes", "alice@rennes")).await);
    denied(w.call(&n1, sudo("n1.rennes", "nobody@rennes")).await);
    // A core passes on what its own node asks, and nothing else.
    denied(w.call(&w.core_of(&pisa), sudo("n1.pisa", "bob@lyon")).await);
    let mut odd = wanted.clone();
    odd.login.service = "sudo as root; say yes".into();
    assert_eq!(w.call(&n1, odd).await.unwrap_err().kind, Kind::Invalid);
    let nothing = PollNodeLogin {
        node: "n1.rennes".parse().unwrap(),
        person: "alice@rennes".parse().unwrap(),
        attempt: Secret("x".into()),
    };
    assert_eq!(w.call(&n1, nothing.clone()).await.unwrap(), NodeLoginState::Over);
    let e = w.call(&site.alice, nothing).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "{e}");
    // One machine's asking is bounded, and takes nothing from another's.
    let mut asked = 0;
    while w.call(&n1, wanted.clone()).await.is_ok() {
        asked += 1;
        assert!(asked < 100, "no limit holds");
    }
    let n2 = node(w, "n2").await;
    w.call(&n2, sudo("n2.rennes", "alice@rennes")).await.unwrap();
    let removed = RemoveNode { node: "n2.rennes".parse().unwrap() };
    w.call(&site.root, removed).await.unwrap();
    denied(w.call(&n2, sudo("n2.rennes", "alice@rennes")).await);
}

/// If it failed, the volume would not be theirs who sign in at a console; or a machine, or another
/// site than the person's, would get more than the person read.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_login_a_person_lets_the_machine_act_for_them() {
    let site = Site::new().await;
    let (w, pisa) = (&site.w, World::new("pisa").await);
    w.trusts(&pisa);
    let n1 = node(w, "n1").await;
    let mut wanted = sudo("n1.rennes", "alice@rennes");
    wanted.login.vo = Some(VO.parse().unwrap());
    let begun = w.call(&n1, wanted.clone()).await.unwrap();
    w.call(&site.alice, decision(&begun, true)).await.unwrap();
    w.clock.advance(TURN);
    assert_eq!(w.call(&n1, poll(&wanted, &begun)).await.unwrap(), YES, "the site serves nobody");
    w.vos.serve("rennes");
    let begun = w.call(&n1, wanted.clone()).await.unwrap();
    w.call(&site.alice, decision(&begun, true)).await.unwrap();
    w.clock.advance(TURN);
    let told = w.call(&n1, poll(&wanted, &begun)).await.unwrap();
    let NodeLoginState::Allowed { mandate: Some(jws) } = told else { panic!("{told:?}") };
    let mandate = verify_mandate(&w.trust, &jws, w.clock.now()).unwrap();
    assert_eq!(mandate.work, Work::Login { node: "n1.rennes".parse().unwrap() });
    assert_eq!(mandate.membership, member(VO, "alice@rennes"));
    assert!(mandate.until.since(w.clock.now()) <= Duration::from_secs(12 * 3600));
    // A site speaks for its own people only.
    w.vos.set(member(VO, "petra@pisa"));
    let ask = |person: &str| IssueVouchedMandate {
        vo: VO.parse().unwrap(),
        node: "n1.rennes".parse().unwrap(),
        person: person.parse().unwrap(),
        signed_in: w.clock.now(),
    };
    w.call(&w.core_of(&pisa), ask("petra@pisa")).await.unwrap();
    // Nor does it let them act for longer than a certificate would.
    w.vos.renew_for(3600);
    let jws = w.call(&w.core_of(&pisa), ask("petra@pisa")).await.unwrap();
    let mandate = verify_mandate(&w.trust, &jws, w.clock.now()).unwrap();
    assert_eq!(mandate.until, w.clock.now().plus(Duration::from_secs(3600)));
    for (caller, person) in [(&w.core_of(&pisa), "alice@rennes"), (&n1, "alice@rennes")] {
        let e = w.call(caller, ask(person)).await.unwrap_err();
        assert_eq!(e.kind, Kind::Denied, "{e}");
    }
}

/// If it failed, who stays signed in to the console would go round the time after which a VO wants
/// a newer sign-in, by allowing one login after another.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_vouched_ends_with_the_sign_in() {
    let site = Site::new().await;
    let (w, pisa) = (&site.w, World::new("pisa").await);
    w.trusts(&pisa);
    w.vos.serve("rennes");
    w.vos.set(member(VO, "petra@pisa"));
    w.vos.renew_for(3600);
    let n1 = node(w, "n1").await;
    let (core, signed_in) = (w.core_of(&pisa), w.clock.now());
    let vouch = |signed_in| IssueVouchedMandate {
        vo: VO.parse().unwrap(),
        node: "n1.rennes".parse().unwrap(),
        person: "petra@pisa".parse().unwrap(),
        signed_in,
    };
    let end = signed_in.plus(Duration::from_secs(3600));
    for _ in 0..2 {
        let jws = w.call(&core, vouch(signed_in)).await.unwrap();
        assert_eq!(verify_mandate(&w.trust, &jws, w.clock.now()).unwrap().until, end);
        w.clock.advance(Duration::from_secs(1800));
    }
    let e = w.call(&core, vouch(signed_in)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "it is over: {e}");
    let ahead = w.clock.now().plus(Duration::from_secs(3600));
    let e = w.call(&core, vouch(ahead)).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated, "a sign-in that is still to come: {e}");
    // So it is where the person decides, whose sign-in their session says.
    let mut wanted = sudo("n1.rennes", "alice@rennes");
    wanted.login.vo = Some(VO.parse().unwrap());
    let begun = w.call(&n1, wanted.clone()).await.unwrap();
    w.call(&site.alice, decision(&begun, true)).await.unwrap();
    w.clock.advance(TURN);
    assert_eq!(w.call(&n1, poll(&wanted, &begun)).await.unwrap(), YES, "she signed in long ago");
}
