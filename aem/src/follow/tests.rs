use super::*;
use crate::testing::{self, UNIT};
use xos_api::aem::{JobState, UnitEnd, UnitRun, Usage};
use xos_base::UnitId;

fn submitted(array: &str) -> JobRecord {
    JobRecord::Submitted {
        job: 1,
        at: Millis(5),
        spec: Box::new(testing::spec(&[("main", array, &[])])),
        member: Box::new(testing::alice()),
        proof: None,
        watched: true,
    }
}

/// A core whose job 1 has its one unit at pisa.
async fn owner() -> (Arc<Core>, tempfile::TempDir) {
    owner_of("0", UNIT).await
}

/// The same with more units.
pub(crate) async fn owner_of(array: &str, run: UnitRun) -> (Arc<Core>, tempfile::TempDir) {
    let (core, _, dir) = testing::core(|_| {}).await;
    core.commit(|t| {
        t.put(submitted(array));
        t.put(JobRecord::Mandated { job: 1, mandate: "m".into() });
        let (site, units): (SiteId, _) = ("pisa".parse().unwrap(), vec![run]);
        t.put(JobRecord::Offered {
            job: 1,
            task: 0,
            site: site.clone(),
            units: units.clone(),
            attempt: 0,
        });
        t.put(JobRecord::Accepted { job: 1, site, units, attempt: 0 });
        Ok(())
    })
    .await
    .unwrap();
    (core, dir)
}

fn ended(unit: u32, node: &str) -> HostedEvent {
    let what = HostedRun::Ended {
        node: Some(node.parse().unwrap()),
        started: None,
        how: UnitEnd::Exit { code: 0 },
        usage: Usage::default(),
        output: Some(InlineOutput { stdout: "AAAA".into(), stderr: String::new() }),
    };
    HostedEvent { unit, at: Millis(7), what }
}

fn report(seq: u64, job: &str, attempt: u16, events: Vec<HostedEvent>) -> Vec<HostReport> {
    vec![HostReport { seq, job: job.parse().unwrap(), attempt, events }]
}

/// If it failed, any host site could end units of others, and plant the output that their person
/// is shown.
#[tokio::test]
async fn a_host_speaks_only_for_units_that_it_holds() {
    let (core, _dir) = owner().await;
    let (pisa, lyon): (SiteId, SiteId) = ("pisa".parse().unwrap(), "lyon".parse().unwrap());
    let unit: UnitId = "1.rennes:0".parse().unwrap();
    core.take_in(&lyon, report(1, "1.rennes", 0, vec![ended(0, "n1.lyon")])).await.unwrap();
    core.take_in(&pisa, report(1, "1.rennes", 1, vec![ended(0, "n1.pisa")])).await.unwrap();
    core.take_in(&pisa, report(2, "1.rennes", 0, vec![ended(7, "n1.pisa")])).await.unwrap();
    core.take_in(&pisa, report(3, "9.rennes", 0, vec![ended(0, "n1.pisa")])).await.unwrap();
    assert!(core.take_in(&pisa, report(4, "1.pisa", 0, vec![])).await.is_err(), "a job of pisa");
    assert!(core.take_in(&pisa, report(6, "1.rennes", 0, vec![])).await.is_err(), "a gap");
    let state = |c: &Core| c.ledger.read(|s| s.jobs.job(1).unwrap().state.clone());
    assert_eq!(state(&core), JobState::Queued);
    assert!(
        lock(&core.outputs).of(unit.clone(), 0).is_none(),
        "output of a unit that is elsewhere"
    );
    let true_end = report(4, "1.rennes", 0, vec![ended(0, "n1.pisa"), ended(0, "n1.pisa")]);
    assert_eq!(core.take_in(&pisa, true_end).await.unwrap(), 4);
    assert!(matches!(state(&core), JobState::Done { .. }));
    assert!(lock(&core.outputs).of(unit, 0).is_some());
}

/// If it failed, a hostile host could fill this core's memory and disk.
#[tokio::test]
async fn what_a_host_invents_costs_nothing() {
    let (core, dir) = owner().await;
    let pisa: SiteId = "pisa".parse().unwrap();
    let size = || -> u64 {
        let files = std::fs::read_dir(dir.path()).unwrap();
        files.map(|f| f.unwrap().metadata().unwrap().len()).sum()
    };
    let before = size();
    let events = |n: u64| (1..1000).map(move |u| ended(u, &format!("n{n}.pisa"))).collect();
    let lies = (1..=64).map(|n| HostReport {
        seq: n,
        job: if n % 2 == 0 { "1.rennes" } else { "5.rennes" }.parse().unwrap(),
        attempt: 0,
        events: events(n),
    });
    core.take_in(&pisa, lies.collect()).await.unwrap();
    assert_eq!(core.ledger.read(|s| s.jobs.seen(&pisa)), 64, "they would come for ever");
    assert!(size() - before < 4096, "the journal grew by {} bytes", size() - before);
    assert!(core.ledger.read(|s| s.jobs.node_name(0).is_none()), "names were kept");
}

/// If it failed, a host's one report would be more than a record may be: refused by the journal,
/// the state loaded anew, and the same report again, for ever.
#[tokio::test]
async fn a_report_larger_than_any_record_is_taken_in() {
    const UNITS: u32 = 5000;
    let (core, _dir) = owner_of("0-4999", UnitRun { first: 0, count: UNITS }).await;
    let pisa: SiteId = "pisa".parse().unwrap();
    let bad = |unit| {
        let mut e = ended(unit, "n1.pisa");
        if let HostedRun::Ended { how, output, .. } = &mut e.what {
            // As long as a reason may be, of what takes most when it is written down.
            *how = UnitEnd::NotStarted { reason: "\"".repeat(512) };
            *output = None;
        }
        e
    };
    let events: Vec<HostedEvent> = (0..UNITS).map(bad).collect();
    let size = serde_json::to_vec(&events).unwrap().len();
    assert!(size > xos_store::journal::RECORD_BYTES_MAX, "{size}: nothing is shown");
    let seen = core.take_in(&pisa, report(1, "1.rennes", 0, events)).await.unwrap();
    assert_eq!(seen, 1);
    assert!(!core.ledger.is_broken());
    let look = |c: &Core| {
        c.ledger.read(|s| (s.jobs.seen(&pisa), s.jobs.job(1).unwrap().tally.counts().failed))
    };
    assert_eq!(look(&core), (1, UNITS));
}

/// If it failed, a host could have this core hold a report without end.
#[tokio::test]
async fn a_report_of_more_than_a_job_can_have_is_refused() {
    let (core, _dir) = owner().await;
    let pisa: SiteId = "pisa".parse().unwrap();
    let events = (0..=REPORT_EVENTS_MAX as u32).map(|u| ended(u, "n1.pisa")).collect();
    let refused = core.take_in(&pisa, report(1, "1.rennes", 0, events)).await.unwrap_err();
    assert_eq!(refused.kind, Kind::TooLarge);
    assert_eq!(core.ledger.read(|s| s.jobs.seen(&pisa)), 0);
}
