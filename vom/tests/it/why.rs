//! Why somebody can sign in to a node: each reason at its place, and no more than one may know.

use crate::world::Site;
use crate::{found, id, join};
use xos_api::policy::{GetSiteRules, GetVoRules, Rule, SetSiteRules, SetVoRules};
use xos_api::vom::*;
use xos_base::Kind;
use xos_net::Caller;
use xos_vom::Vom;

const DEMO: &str = "demo.rennes";

/// A VO that its home serves, with bob as a member.
async fn served() -> (Site, Vom) {
    let rennes = Site::new("rennes").await;
    let vom = rennes.start().await;
    found(&rennes).await;
    join(&rennes, &rennes.own("bob"), DEMO).await;
    let offer = OfferShare {
        vo: id(DEMO),
        cpu_milli: 4000,
        memory_bytes: 1 << 30,
        storage_bytes: 0,
        until: None,
        base: None,
    };
    rennes.ask(&rennes.admin(), offer).await.unwrap();
    let accept = AcceptShare { vo: id(DEMO), site: id("rennes"), version: 1 };
    rennes.ask(&rennes.own("alice"), accept).await.unwrap();
    (rennes, vom)
}

async fn why(site: &Site, caller: &Caller, person: Option<&str>) -> Vec<WhyStep> {
    let r = WhyLogin { vo: id(DEMO), person: person.map(id), node: id("n1.rennes") };
    site.ask(caller, r).await.unwrap().steps
}

/// The first step that failed.
fn first(steps: &[WhyStep]) -> Option<(WhyPlace, &str, &str)> {
    let failed = steps.iter().find(|s| s.outcome == WhyOutcome::Failed)?;
    Some((failed.at, &failed.what, &failed.text))
}

fn no_bob() -> Rule {
    let rule = serde_json::json!({
        "name": "no-bob", "who": "person:bob@rennes", "what": "login", "effect": "deny",
    });
    serde_json::from_value(rule).unwrap()
}

/// If it failed, people would be told another reason than the one that keeps them out, or none.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_step_that_failed_is_the_reason() {
    let (rennes, _vom) = served().await;
    let (alice, bob, admin) = (rennes.own("alice"), rennes.own("bob"), rennes.admin());
    let steps = why(&rennes, &bob, None).await;
    assert_eq!(first(&steps), None, "{steps:?}");
    let told = steps.iter().filter(|s| s.at == WhyPlace::Node);
    assert_eq!(told.clone().count(), 16, "a node says as much as it likes");
    assert!(told.clone().all(|s| s.text.len() == 1000 && s.text.starts_with("member 2 of demo")));

    let rules = rennes.ask(&alice, GetVoRules { vo: id(DEMO) }).await.unwrap();
    let more = [rules.rules.clone(), vec![no_bob()]].concat();
    let set = SetVoRules { vo: id(DEMO), version: rules.version, rules: more };
    let set = rennes.ask(&alice, set).await.unwrap();
    let steps = why(&rennes, &bob, None).await;
    let (at, what, text) = first(&steps).unwrap();
    assert_eq!((at, what), (WhyPlace::Site, "rules"));
    assert!(text.contains("rule no-bob of demo.rennes"), "{text}");
    let undo = SetVoRules { vo: id(DEMO), version: set.version, rules: rules.rules };
    rennes.ask(&alice, undo).await.unwrap();

    let rules = rennes.ask(&admin, GetSiteRules {}).await.unwrap();
    let more = [rules.rules.clone(), vec![no_bob()]].concat();
    let set = SetSiteRules { version: rules.version, rules: more };
    let set = rennes.ask(&admin, set).await.unwrap();
    let steps = why(&rennes, &bob, None).await;
    let (at, what, text) = first(&steps).unwrap();
    assert_eq!((at, what), (WhyPlace::Site, "rules"));
    assert!(text.contains("rule no-bob of site rennes"), "{text}");
    let undo = SetSiteRules { version: set.version, rules: rules.rules };
    rennes.ask(&admin, undo).await.unwrap();

    let withdraw = WithdrawShare { vo: id(DEMO), reason: "it is over".into() };
    rennes.ask(&admin, withdraw).await.unwrap();
    let steps = why(&rennes, &bob, None).await;
    let (at, what, text) = first(&steps).unwrap();
    assert_eq!((at, what), (WhyPlace::Site, "share"));
    assert!(text.contains("it is over"), "{text}");
}

/// If it failed, a stranger could find out who is in a VO and how a site stands, or an
/// administrator could not help a member.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_more_than_they_may_know() {
    let (rennes, _vom) = served().await;
    let (alice, bob, eve) = (rennes.own("alice"), rennes.own("bob"), rennes.own("eve"));
    let steps = why(&rennes, &eve, None).await;
    assert_eq!(steps.len(), 1, "{steps:?}");
    assert_eq!(first(&steps).unwrap().1, "membership");
    for caller in [&bob, &eve] {
        let about = Some(id("alice@rennes"));
        let r = WhyLogin { vo: id(DEMO), person: about, node: id("n1.rennes") };
        assert_eq!(rennes.ask(caller, r).await.unwrap_err().kind, Kind::Denied);
    }
    let suspend =
        SuspendMember { vo: id(DEMO), person: id("bob@rennes"), reason: "laptop stolen".into() };
    rennes.ask(&alice, suspend).await.unwrap();
    let own = why(&rennes, &bob, None).await;
    assert!(own.iter().all(|s| s.at == WhyPlace::Home), "a suspended member: {own:?}");
    assert!(first(&own).unwrap().2.contains("laptop stolen"), "{own:?}");
    for caller in [&alice, &rennes.admin()] {
        let all = why(&rennes, caller, Some("bob@rennes")).await;
        let (at, what, text) = first(&all).unwrap();
        assert_eq!((at, what), (WhyPlace::Home, "membership"));
        assert!(text.starts_with("bob@rennes is told: ") && text.contains("laptop stolen"));
        assert!(all.iter().any(|s| s.at == WhyPlace::Node), "{all:?}");
    }
}
