//! What the site's audit is told.

use crate::one_site::{spec, submit};
use crate::world::{Site, until};
use xos_api::aem::*;
use xos_api::audit::{Event, Outcome};

/// The operations that the audit knows, and those that only read, or carry what is told otherwise.
const NOTED: [&str; 5] = ["accept_units", "cancel_job", "cancel_units", "end_units", "start_units"];

fn of<'a>(events: &'a [Event], what: &str) -> Vec<&'a Event> {
    events.iter().filter(|e| e.what == what).collect()
}

/// If it failed, the audit would not say whose job ran where and how it ended, who cancelled it, or
/// whose try was refused; or a token by which a job was submitted would stand in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_told_from_its_submission_to_its_end() {
    let site = Site::new("rennes", &["n1"]).await;
    let aem = site.start(|_| {}).await;
    let alice = site.caller(&site, "alice@rennes", &[]);
    let bob = site.caller(&site, "bob@rennes", &[]);
    let job = site.ask(&alice, submit(spec("/bin/true", "0-299"))).await.unwrap().job;
    site.end_of(&alice, &job).await;
    let held = site.ask(&alice, submit(spec("hold", "0"))).await.unwrap().job;
    site.ask(&bob, CancelJob { job: held.clone() }).await.unwrap_err();
    until("it runs", async || {
        let shown = site.ask(&alice, GetJob { job: held.clone() }).await.unwrap();
        (shown.summary.counts.running == 1).then_some(())
    })
    .await;
    site.ask(&alice, CancelUnits { job: held.clone(), units: "0".parse().unwrap() }).await.unwrap();
    site.end_of(&alice, &held).await;
    let mut bad = spec("/bin/true", "0");
    bad.vo = "other.rennes".parse().unwrap();
    site.ask(&alice, submit(bad)).await.unwrap_err();
    let events = until("the ends are told", async || {
        let events = site.audit.events();
        let ends = of(&events, "end_units");
        ends.iter().any(|e| e.on == format!("{held}:0")).then_some(events)
    })
    .await;

    let submitted: Vec<_> = of(&events, "submit_job")
        .iter()
        .map(|e| (e.who.as_str(), e.on.clone(), e.outcome))
        .collect();
    let by = "alice@rennes";
    let jobs = [format!("job {job}"), format!("job {held}"), String::new()];
    let [first, second, none] = jobs;
    let wanted =
        [(by, first, Outcome::Done), (by, second, Outcome::Done), (by, none, Outcome::Refused)];
    assert_eq!(submitted, wanted);
    let starts = of(&events, "start_units");
    assert!(!starts.is_empty());
    for e in &starts {
        assert_eq!((e.person.as_ref().unwrap().as_str(), e.who.as_str()), (by, "node n1.rennes"));
        assert_eq!(e.node.as_ref().unwrap().as_str(), "n1.rennes");
    }
    let ends = of(&events, "end_units");
    assert!(ends.iter().any(|e| e.outcome == Outcome::Done && e.why == "exit status 0"));
    let cancelled: Vec<_> = of(&events, "cancel_job").iter().map(|e| e.who.clone()).collect();
    assert_eq!(cancelled, ["bob@rennes"]);
    assert_eq!(of(&events, "cancel_job")[0].outcome, Outcome::Refused);
    let [units] = of(&events, "cancel_units")[..] else { panic!("not one line") };
    assert_eq!((units.who.as_str(), units.on.as_str()), (by, format!("{held}:0").as_str()));
    for e in &events {
        let text = serde_json::to_string(e).unwrap();
        assert!(!text.contains(alice.token().unwrap()), "{text}");
        assert!(e.what == "submit_job" || NOTED.contains(&e.what.as_str()), "{text}");
    }
    aem.stop().await;
}
