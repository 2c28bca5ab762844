use crate::one_site::{spec, submit};
use crate::world::{Site, until};
use std::time::Duration;
use xos_api::aem::*;
use xos_base::{Kind, Millis};

async fn pair() -> (Site, Site) {
    let (rennes, pisa) = (Site::new("rennes", &["n1"]).await, Site::new("pisa", &["n1"]).await);
    rennes.trusts(&pisa);
    pisa.trusts(&rennes);
    for s in [&rennes, &pisa] {
        s.serving(&[&rennes, &pisa]);
    }
    (rennes, pisa)
}

#[tokio::test(flavor = "multi_thread")]
async fn units_run_at_both_sites_and_report_to_the_owner() {
    let (rennes, pisa) = pair().await;
    let (a, b) = (rennes.start(|_| {}).await, pisa.start(|_| {}).await);
    let alice = rennes.caller(&rennes, "alice@rennes", &[]);
    until("rennes hears of pisa", async || {
        let mut s = spec("/bin/true", "0");
        s.sites = vec![pisa.id.clone()];
        let job = rennes.ask(&alice, submit(s)).await.unwrap().job;
        let e = rennes.end_of(&alice, &job).await;
        assert_eq!(e.state.word(), "done");
        Some(())
    })
    .await;
    let job = rennes.ask(&alice, submit(spec("hold", "0-3"))).await.unwrap().job;
    until("all four run", async || {
        let j = rennes.ask(&alice, GetJob { job: job.clone() }).await.unwrap();
        (j.summary.counts.running == 4).then_some(())
    })
    .await;
    let list = ListUnits { job: job.clone(), filter: UnitFilter::Running, from: None, limit: None };
    let units = rennes.ask(&alice, list).await.unwrap().units;
    let at = |name: &str| {
        let here = |u: &&UnitView| matches!(&u.state, UnitState::Running { site, .. } if site.as_str() == name);
        units.iter().filter(here).count()
    };
    assert_eq!((at("rennes"), at("pisa")), (2, 2));
    rennes.ask(&alice, CancelJob { job: job.clone() }).await.unwrap();
    let e = rennes.end_of(&alice, &job).await;
    assert_eq!(e.counts.cancelled, 4);
    let far = pisa.node("n1").runs.lock().unwrap().len();
    assert_eq!(far, 3, "one unit of the first job, two of the second");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sites_own_rules_win_and_the_reason_is_kept() {
    use xos_api::policy::{Action, Denial, Side};
    let (rennes, pisa) = pair().await;
    let text = "rule no-alice of site pisa does not let alice@rennes run jobs in demo.rennes";
    let rule = Some("no-alice".parse().unwrap());
    let denial = Denial { side: Side::Site, rule, text: text.into() };
    let of_alice = ("alice@rennes".parse().unwrap(), Action::Run, denial);
    pisa.denials.0.lock().unwrap().push(of_alice);
    let (a, b) = (rennes.start(|_| {}).await, pisa.start(|_| {}).await);
    let alice = rennes.caller(&rennes, "alice@rennes", &[]);
    let mut s = spec("/bin/true", "0");
    s.sites = vec![pisa.id.clone()];
    let job = rennes.ask(&alice, submit(s)).await.unwrap().job;
    let e = rennes.end_of(&alice, &job).await;
    assert_eq!((e.state.word(), e.counts.refused), ("failed", 1));
    let end = e.end.unwrap();
    assert_eq!(end.exit_status, 69, "as if the program could not be started");
    let rules: Vec<&str> = end.reasons.iter().map(|r| r.rule.as_str()).collect();
    assert_eq!(rules, ["site-policy"], "the end does not say why");
    let why = rennes.ask(&alice, WhyJob { job }).await.unwrap().reasons;
    let reason = why.iter().find(|r| r.rule == "site-policy").expect("the site's reason");
    assert_eq!(reason.site.as_ref().unwrap().as_str(), "pisa");
    assert_eq!(reason.text, text);
    // With a choice, the other site runs it.
    let job = rennes.ask(&alice, submit(spec("/bin/true", "0-3"))).await.unwrap().job;
    assert_eq!(rennes.end_of(&alice, &job).await.counts.done, 4);
    assert!(pisa.node("n1").runs.lock().unwrap().is_empty());
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_speaks_for_a_job() {
    let (rennes, pisa) = pair().await;
    let (a, b) = (rennes.start(|_| {}).await, pisa.start(|_| {}).await);
    let alice = pisa.caller(&rennes, "alice@rennes", &[]);
    let offer = HostUnits {
        job: "1.rennes".parse().unwrap(),
        vo: "demo.rennes".parse().unwrap(),
        mandate: "x.y.z".into(),
        task: 0,
        task_first: 0,
        spec: spec("/bin/true", "0").tasks.remove(0),
        outline: xos_aem::outline(&spec("/bin/true", "0")).unwrap(),
        units: vec![UnitRun { first: 0, count: 1 }],
        attempt: 0,
        until: Millis(u64::MAX),
        want_output: false,
        moves: 0,
        carried: None,
    };
    // A member is no core; a site's core speaks for its own jobs only.
    assert_eq!(pisa.ask(&alice, offer.clone()).await.unwrap_err().kind, Kind::Denied);
    let mut foreign = offer.clone();
    foreign.job = "1.pisa".parse().unwrap();
    let cancel = CancelHosted { job: "1.pisa".parse().unwrap(), units: vec![] };
    let core = pisa.core_of(&rennes);
    assert_eq!(pisa.ask(&core, foreign).await.unwrap_err().kind, Kind::Denied);
    assert_eq!(pisa.ask(&core, cancel).await.unwrap_err().kind, Kind::Denied);
    // And without a mandate of the VO's home nothing runs for anybody.
    let reply = pisa.ask(&core, offer).await.unwrap();
    assert_eq!(reply.refusal.unwrap().rule, "mandate");
    assert!(reply.accepted.is_empty());
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_goes_away_keeps_what_it_accepted() {
    let (rennes, pisa) = pair().await;
    let a = rennes.start(|_| {}).await;
    let alice = rennes.caller(&rennes, "alice@rennes", &[]);
    let mut s = spec("/bin/true", "0");
    s.sites = vec![pisa.id.clone()];
    // Pisa is not there yet: the job waits, with the reason.
    let job = rennes.ask(&alice, submit(s)).await.unwrap().job;
    until("the reason is kept", async || {
        let why = rennes.ask(&alice, WhyJob { job: job.clone() }).await.unwrap();
        why.reasons.iter().any(|r| r.rule == "unreachable").then_some(())
    })
    .await;
    let b = pisa.start(|_| {}).await;
    let e = tokio::time::timeout(Duration::from_secs(50), rennes.end_of(&alice, &job)).await;
    assert_eq!(e.unwrap().state.word(), "done");
    a.stop().await;
    b.stop().await;
}

/// If it failed, who mistypes a site would wait for nothing, or who asks for a site that has just
/// begun to serve would be refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_for_sites_that_do_not_serve_is_refused_at_once() {
    let (rennes, pisa) = pair().await;
    rennes.serving(&[&rennes]);
    let a = rennes.start(|_| {}).await;
    let alice = rennes.caller(&rennes, "alice@rennes", &[]);
    let mut s = spec("/bin/true", "0");
    s.sites = vec![pisa.id.clone(), "mars".parse().unwrap()];
    let e = rennes.ask(&alice, submit(s.clone())).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unsatisfiable, "{e}");
    let told = "none of the sites asked for (pisa, mars) serves demo.rennes; \
                sites that serve it: rennes";
    assert_eq!(e.message, told);
    rennes.serving(&[&rennes, &pisa]);
    rennes.ask(&alice, submit(s)).await.unwrap();
    a.stop().await;
}
