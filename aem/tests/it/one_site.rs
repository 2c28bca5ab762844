use crate::world::{Site, last, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::time::Instant;
use xos_api::aem::*;
use xos_base::{Kind, Millis};

pub fn spec(program: &str, array: &str) -> JobSpec {
    JobSpec {
        vo: "demo.rennes".parse().unwrap(),
        name: "test".into(),
        tasks: vec![TaskSpec {
            name: "main".into(),
            argv: vec![program.into()],
            array: array.parse().unwrap(),
            ..TaskSpec::default()
        }],
        after_jobs: vec![],
        sites: vec![],
    }
}

pub fn submit(spec: JobSpec) -> SubmitJob {
    SubmitJob { spec, proof: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_job_ends_with_its_exit_status_and_output() {
    let site = Site::new("rennes", &["n1"]).await;
    let aem = site.start(|_| {}).await;
    let alice = site.caller(&site, "alice@rennes", &[]);
    let watch = SubmitAndWatch { spec: spec("/bin/true", "0"), proof: None };
    let e = last(site.listen(&alice, watch).await.unwrap()).await;
    let end = e.end.unwrap();
    assert_eq!((end.exit_status, e.state.word()), (0, "done"));
    let output = STANDARD.decode(end.output.unwrap().stdout).unwrap();
    assert_eq!(String::from_utf8(output).unwrap(), "main on n1.rennes\n");
    let watch = SubmitAndWatch { spec: spec("/bin/false", "0"), proof: None };
    let end = last(site.listen(&alice, watch).await.unwrap()).await.end.unwrap();
    assert_eq!(end.exit_status, 1);
    assert_eq!(end.unit.unwrap().to_string(), "2.rennes:0");
    aem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_runs_every_unit_once_and_what_waits_comes_after() {
    let site = Site::new("rennes", &["n1", "n2"]).await;
    let aem = site.start(|_| {}).await;
    let alice = site.caller(&site, "alice@rennes", &[]);
    let mut s = spec("/bin/true", "0-2999");
    let mut merge = s.tasks[0].clone();
    (merge.name, merge.array, merge.after) = ("merge".into(), Array::single(), vec!["main".into()]);
    s.tasks.push(merge);
    let job = site.ask(&alice, submit(s)).await.unwrap().job;
    let mut after = spec("/bin/true", "0");
    after.after_jobs = vec![job.clone()];
    let second = site.ask(&alice, submit(after)).await.unwrap().job;
    let e = site.end_of(&alice, &second).await;
    assert_eq!(e.state.word(), "done");
    let e = site.end_of(&alice, &job).await;
    assert_eq!((e.counts.done, e.counts.total()), (3001, 3001));
    let mut runs = 0;
    for n in ["n1", "n2"] {
        let node = site.node(n);
        let map = node.runs.lock().unwrap();
        assert!(map.values().all(|r| *r == 1));
        runs += map.len();
    }
    assert_eq!(runs, 3002);
    let page = ListUnits { job, filter: UnitFilter::All, from: Some(2990), limit: Some(5) };
    let page = site.ask(&alice, page).await.unwrap();
    assert_eq!((page.units[0].index, page.next), (2990, Some(2995)));
    aem.stop().await;
}

/// A job of four units that hold, two of them running; the core is killed then.
async fn interrupted(wiped: bool) -> (Site, xos_base::JobId) {
    let site = Site::new("rennes", &["n1"]).await;
    let aem = site.start(|_| {}).await;
    let alice = site.caller(&site, "alice@rennes", &[]);
    let job = site.ask(&alice, submit(spec("hold", "0-3"))).await.unwrap().job;
    until("two units run", async || {
        let j = site.ask(&alice, GetJob { job: job.clone() }).await.unwrap();
        (j.summary.counts.running == 2).then_some(())
    })
    .await;
    // The journal is copied from under the running service, as a kill would leave it.
    let again = site.again(wiped);
    aem.stop().await;
    (again, job)
}

#[tokio::test(flavor = "multi_thread")]
async fn units_outlive_a_kill_of_the_core() {
    let (site, job) = interrupted(false).await;
    let aem = site.start(|_| {}).await;
    let alice = site.caller(&site, "alice@rennes", &[]);
    let j = site.ask(&alice, GetJob { job: job.clone() }).await.unwrap();
    assert_eq!((j.summary.counts.running, j.summary.counts.queued), (2, 2));
    until("the core can reach its node again", async || {
        let cancel = CancelUnits { job: job.clone(), units: "0".parse().unwrap() };
        site.ask(&alice, cancel).await.unwrap();
        let j = site.ask(&alice, GetJob { job: job.clone() }).await.unwrap();
        // The test's nodes do not keep to their slots: units sent ahead run.
        (j.summary.counts.cancelled == 1 && j.summary.counts.running >= 2).then_some(())
    })
    .await;
    site.ask(&alice, CancelJob { job: job.clone() }).await.unwrap();
    let e = site.end_of(&alice, &job).await;
    assert_eq!((e.state.word(), e.counts.cancelled), ("cancelled", 4));
    assert!(site.node("n1").runs.lock().unwrap().values().all(|n| *n == 1));
    aem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_lost_is_lost_and_does_not_run_again() {
    let (site, job) = interrupted(true).await;
    let aem = site.start(|_| {}).await;
    let alice = site.caller(&site, "alice@rennes", &[]);
    until("the lost units are known, and the others run", async || {
        let j = site.ask(&alice, GetJob { job: job.clone() }).await.unwrap();
        (j.summary.counts.lost == 2 && j.summary.counts.running == 2).then_some(())
    })
    .await;
    site.ask(&alice, CancelJob { job: job.clone() }).await.unwrap();
    let e = site.end_of(&alice, &job).await;
    assert_eq!((e.counts.cancelled, e.counts.lost), (2, 2));
    assert_eq!(site.node("n1").runs.lock().unwrap().len(), 2);
    aem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_happen_only_with_leave() {
    let site = Site::new("rennes", &["n1"]).await;
    let aem = site.start(|_| {}).await;
    let alice = site.caller(&site, "alice@rennes", &[]);
    let mut s = spec("once-bad", "0-4");
    let job = site.ask(&alice, submit(s.clone())).await.unwrap().job;
    let e = site.end_of(&alice, &job).await;
    assert_eq!((e.counts.failed, e.end.unwrap().exit_status), (5, 7));
    s.tasks[0].retry = 1;
    let job = site.ask(&alice, submit(s)).await.unwrap().job;
    let e = site.end_of(&alice, &job).await;
    assert_eq!((e.counts.done, e.state.word()), (5, "done"));
    aem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_may_not_look_and_administrators_may() {
    let site = Site::new("rennes", &["n1"]).await;
    let aem = site.start(|_| {}).await;
    let alice = site.caller(&site, "alice@rennes", &[]);
    let bob = site.caller(&site, "bob@rennes", &[]);
    let admin = site.caller(&site, "carol@rennes", &["admin"]);
    let job = site.ask(&alice, submit(spec("hold", "0"))).await.unwrap().job;
    let get = || GetJob { job: job.clone() };
    assert!(site.ask(&alice, get()).await.is_ok());
    assert!(site.ask(&admin, get()).await.is_ok());
    assert_eq!(site.ask(&bob, get()).await.unwrap_err().kind, Kind::NotFound);
    let cancel = CancelJob { job: job.clone() };
    assert_eq!(site.ask(&bob, cancel.clone()).await.unwrap_err().kind, Kind::NotFound);
    let everyone = ListJobs { everyone: true, ..ListJobs::default() };
    assert_eq!(site.ask(&bob, everyone.clone()).await.unwrap_err().kind, Kind::Denied);
    assert_eq!(site.ask(&bob, ListJobs::default()).await.unwrap().jobs, []);
    assert_eq!(site.ask(&admin, everyone).await.unwrap().jobs.len(), 1);
    site.ask(&admin, cancel).await.unwrap();
    let e = site.end_of(&alice, &job).await;
    assert_eq!((e.state.word(), e.end.unwrap().exit_status), ("cancelled", 130));
    let why = site.ask(&alice, WhyJob { job }).await.unwrap();
    assert!(why.reasons.iter().any(|r| r.text.contains("carol@rennes")), "{why:?}");
    aem.stop().await;
}

/// If it failed, members would see what others run, or an administrator would not.
#[tokio::test(flavor = "multi_thread")]
async fn who_runs_what_is_for_administrators_and_ones_own_for_all() {
    let site = Site::new("rennes", &["n1"]).await;
    let aem = site.start(|_| {}).await;
    let alice = site.caller(&site, "alice@rennes", &[]);
    let bob = site.caller(&site, "bob@rennes", &[]);
    let admin = site.caller(&site, "carol@rennes", &["admin"]);
    let job = site.ask(&alice, submit(spec("hold", "0-3"))).await.unwrap().job;
    let demo = || ListRunning { vo: "demo.rennes".parse().unwrap(), after: None };
    let shown = until("units are at the node", async || {
        let page = site.ask(&admin, demo()).await.unwrap();
        page.running.iter().any(|r| r.node.is_some()).then_some(page)
    })
    .await;
    assert_eq!(shown.next, None);
    assert!(shown.running.iter().all(|r| r.job == job && r.person.as_str() == "alice@rennes"));
    let at_node = shown.running.iter().find(|r| r.node.is_some()).unwrap();
    assert_eq!(at_node.node.as_ref().unwrap().to_string(), "n1.rennes");
    assert!(at_node.cpu_milli > 0 && at_node.memory_bytes > 0);
    assert!(!site.ask(&alice, demo()).await.unwrap().running.is_empty());
    assert_eq!(site.ask(&bob, demo()).await.unwrap().running, []);
    let after = ListRunning { after: Some(job.clone()), ..demo() };
    assert_eq!(site.ask(&admin, after).await.unwrap().running, []);
    let other = ListRunning { vo: "other.rennes".parse().unwrap(), after: None };
    assert_eq!(site.ask(&admin, other).await.unwrap_err().kind, Kind::Denied);
    site.ask(&alice, CancelJob { job: job.clone() }).await.unwrap();
    site.end_of(&alice, &job).await;
    assert_eq!(site.ask(&admin, demo()).await.unwrap().running, []);
    aem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_jobs_are_refused_clearly() {
    let site = Site::new("rennes", &["n1"]).await;
    let aem = site.start(|_| {}).await;
    let alice = site.caller(&site, "alice@rennes", &[]);
    let mut s = spec("/bin/true", "0");
    s.name = "a\nb".into();
    assert_eq!(site.ask(&alice, submit(s)).await.unwrap_err().kind, Kind::Invalid);
    let mut s = spec("/bin/true", "0");
    s.vo = "other.rennes".parse().unwrap();
    assert_eq!(site.ask(&alice, submit(s)).await.unwrap_err().kind, Kind::Denied);
    let mut s = spec("/bin/true", "0");
    s.after_jobs = vec!["99.rennes".parse().unwrap()];
    assert_eq!(site.ask(&alice, submit(s)).await.unwrap_err().kind, Kind::Invalid);
    // Whoever the VO's home does not vouch for gets no unit started.
    let mallory = site.caller(&site, "mallory@rennes", &[]);
    let job = site.ask(&mallory, submit(spec("/bin/true", "0"))).await.unwrap().job;
    let e = site.end_of(&mallory, &job).await;
    assert_eq!((e.counts.refused, e.state.word()), (1, "failed"));
    assert!(site.node("n1").runs.lock().unwrap().is_empty());
    aem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_jobs_are_forgotten_with_their_envelopes() {
    let site = Site::new("rennes", &["n1"]).await;
    let aem = site.start(|c| c.keep_ended_jobs = 1).await;
    let alice = site.caller(&site, "alice@rennes", &[]);
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let job = site.ask(&alice, submit(spec("/bin/true", "0"))).await.unwrap().job;
        site.end_of(&alice, &job).await;
        jobs.push(job);
    }
    until("only the newest is kept", async || {
        let old = site.ask(&alice, GetJob { job: jobs[1].clone() }).await;
        (old.is_err() && site.node("n1").kept() == 1).then_some(())
    })
    .await;
    assert!(site.ask(&alice, GetJob { job: jobs[2].clone() }).await.is_ok());
    aem.stop().await;
}

/// Prints how fast the core alone is: submissions by 16 clients, and units of one array.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn speed() {
    let site = Site::new("rennes", &["n1"]).await;
    let aem = site.start(|_| {}).await;
    let alice = site.caller(&site, "alice@rennes", &[]);
    let began = Instant::now();
    let clients = (0..16).map(|_| async {
        for _ in 0..100 {
            site.ask(&alice, submit(spec("hold", "0"))).await.unwrap();
        }
    });
    futures_util::future::join_all(clients).await;
    println!("{:.0} submissions/s", 1600.0 / began.elapsed().as_secs_f64());
    let site = Site::new("rennes", &["n1"]).await;
    let other = site.start(|_| {}).await;
    let alice = site.caller(&site, "alice@rennes", &[]);
    let mut times = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        let watch = SubmitAndWatch { spec: spec("/bin/true", "0"), proof: None };
        last(site.listen(&alice, watch).await.unwrap()).await;
        times.push(began.elapsed());
    }
    times.sort();
    println!("one unit: median {:?}, worst {:?}", times[25], times[49]);
    let began = Instant::now();
    let job = site.ask(&alice, submit(spec("/bin/true", "0-9999"))).await.unwrap().job;
    let e = site.end_of(&alice, &job).await;
    assert_eq!(e.counts.done, 10_000);
    println!("{:.0} units/s", 10_000.0 / began.elapsed().as_secs_f64());
    assert!(matches!(e.state, JobState::Done { at } if at > Millis(0)));
    other.stop().await;
    aem.stop().await;
}
