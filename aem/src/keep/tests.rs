use crate::core::Core;
use crate::state::{HostRecord, JobRecord, Record};
use crate::testing::{self, opened, sent, took};
use std::sync::Arc;
use std::time::Duration;
use xos_api::aem::{HostUnits, UnitEnd, UnitRun, Usage};
use xos_api::node::units::{UnitChange, UnitEvent};
use xos_base::{JobId, Millis};

const KEEP: Duration = Duration::from_secs(1000);

fn id(job: &str) -> JobId {
    job.parse().unwrap()
}

/// Its units came long ago, and the last of them ends `ago` before now.
async fn ends(core: &Arc<Core>, job: &str, ago: Duration) {
    let how = UnitEnd::Exit { code: 0 };
    let what = UnitChange::Ended { how, usage: Usage::default(), output: None };
    happens(core, job, ago, what).await;
}

/// One of its units left its cluster then, and the others are over.
async fn leaves(core: &Arc<Core>, job: &str, ago: Duration) {
    let carried = testing::carried(&"rennes".parse().unwrap(), 0);
    let what = UnitChange::Left { usage: Usage::default(), carried, why: String::new() };
    happens(core, job, ago, what).await;
}

async fn happens(core: &Arc<Core>, job: &str, ago: Duration, what: UnitChange) {
    let (job, at) = (id(job), Millis(core.now().0 - ago.as_millis() as u64));
    let events = vec![UnitEvent { unit: 0, attempt: 0, at, what }];
    let never = Some(vec![UnitRun { first: 1, count: 3 }]);
    core.commit(|t| {
        for r in [took(&job), opened(&job), sent(&job)] {
            t.put(r);
        }
        t.put(HostRecord::Cancelled { job: job.clone(), at: Millis(2000), units: never });
        t.put(HostRecord::Happened { job, serial: 1, after: 0, at, events, skipped: 0 });
        Ok(())
    })
    .await
    .unwrap();
}

async fn core() -> (Arc<Core>, tempfile::TempDir) {
    let (core, _, dir) = testing::core(|c| c.keep_ended_s = KEEP.as_secs()).await;
    (core, dir)
}

fn kept(core: &Core, job: &str) -> bool {
    core.ledger.read(|s| s.hosted.placement(&id(job)).is_some_and(|p| !p.forgotten))
}

/// If it failed, the output of a job that ran for longer than jobs are kept would be deleted the
/// moment it ends.
#[tokio::test]
async fn a_job_is_kept_from_its_end_on() {
    let (core, _dir) = core().await;
    ends(&core, "1.pisa", KEEP).await;
    ends(&core, "2.pisa", KEEP * 2 + Duration::from_secs(60)).await;
    core.forget_hosted().await;
    assert!(kept(&core, "1.pisa"));
    assert!(!kept(&core, "2.pisa"), "what an owner never lets go is kept for ever");
}

/// If it failed, all that there is of a unit that its owner calls waiting would be destroyed, at
/// once where much is hosted; or what nobody needs any more would stay for ever.
#[tokio::test]
async fn an_image_is_kept_until_its_owner_needs_it_no_more() {
    let (core, _, _dir) = testing::core(|c| {
        c.keep_ended_s = KEEP.as_secs();
        c.units_max = 4;
    })
    .await;
    leaves(&core, "1.pisa", KEEP).await;
    ends(&core, "2.pisa", KEEP).await;
    leaves(&core, "3.pisa", KEEP * 2 * (super::NEEDED_TIMES + 1)).await;
    core.forget_hosted().await;
    assert!(kept(&core, "1.pisa"), "others took too much, and it went");
    assert!(!kept(&core, "2.pisa"));
    assert!(!kept(&core, "3.pisa"), "what an owner never lets go is kept for ever");
    let spent = HostRecord::Spent { job: id("1.pisa"), unit: 0, attempt: 0 };
    core.commit(|t| {
        t.put(spent);
        Ok(())
    })
    .await
    .unwrap();
    core.forget_hosted().await;
    assert!(!kept(&core, "1.pisa"));
}

/// If it failed, the output of this core's own job would be deleted while the job is shown.
#[tokio::test]
async fn an_own_job_is_kept_as_long_as_it_is_known() {
    let (core, _dir) = core().await;
    let (spec, member) = (Box::new(testing::spec(&[("main", "0-3", &[])])), testing::alice());
    let member = Box::new(member);
    let job =
        JobRecord::Submitted { job: 1, at: Millis(9), spec, member, proof: None, watched: false };
    core.commit(|t| {
        t.put(job);
        Ok(())
    })
    .await
    .unwrap();
    for job in ["1.rennes", "2.rennes"] {
        ends(&core, job, KEEP * 3).await;
    }
    core.forget_hosted().await;
    assert!(kept(&core, "1.rennes"));
    assert!(!kept(&core, "2.rennes"), "what no job is known of stays for ever");
}

/// If it failed, the job's next units would never be offered here again.
#[tokio::test]
async fn what_is_offered_of_a_forgotten_job_may_come_later() {
    let (core, _dir) = core().await;
    ends(&core, "1.pisa", KEEP * 3).await;
    let spec = testing::spec(&[("main", "0-3", &[])]);
    let offer = HostUnits {
        job: id("1.pisa"),
        vo: spec.vo.clone(),
        mandate: "m".into(),
        task: 0,
        task_first: 0,
        spec: spec.tasks[0].clone(),
        outline: crate::outline(&spec).unwrap(),
        units: vec![UnitRun { first: 1, count: 1 }],
        attempt: 0,
        until: Millis(u64::MAX),
        want_output: false,
        moves: 0,
        carried: None,
    };
    let mut s = core.ledger.read(crate::state::State::clone);
    s.apply(&Record::from(HostRecord::Forgotten { job: id("1.pisa") }));
    let refusal = core.judge_offer(&s.hosted, &offer, core.now()).unwrap_err();
    assert!(refusal.later, "{refusal:?}");
    assert_eq!(refusal.rule, "forgotten");
}
