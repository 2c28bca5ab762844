use super::*;
use crate::testing::{self, UNIT, opened, sent, took};
use crate::work::Next;
use xos_api::aem::{HostedEvent, HostedRun, UnitEnd, Usage};
use xos_api::vom::ErasedVo;
use xos_base::SiteId;

fn pisa() -> SiteId {
    "pisa".parse().unwrap()
}

fn submitted(job: u64, vo: &str) -> JobRecord {
    let mut spec = testing::spec(&[("main", "0-3", &[])]);
    spec.vo = vo.parse().unwrap();
    let (spec, member, at) = (Box::new(spec), Box::new(testing::alice()), Millis(9));
    JobRecord::Submitted { job, at, spec, member, proof: None, watched: false }
}

/// Four units of a job of demo.rennes, of which the first is at a node.
fn hosted(job: &JobId) -> [HostRecord; 3] {
    [took(job), opened(job), sent(job)]
}

fn erase(world: &testing::Asked) {
    let (vo, at, volumes) = ("demo.rennes".parse().unwrap(), Millis(1), Vec::new());
    *lock(&world.erased) = vec![ErasedVo { vo, at, volumes }];
}

async fn put(core: &Arc<Core>, jobs: Vec<JobRecord>, hosts: Vec<HostRecord>) {
    core.commit(|txn| {
        jobs.into_iter().for_each(|r| txn.put(r));
        hosts.into_iter().for_each(|r| txn.put(r));
        Ok(())
    })
    .await
    .unwrap();
}

fn owned(core: &Core) -> Vec<u64> {
    core.ledger.read(|s| s.jobs.iter().map(|j| j.number).collect())
}

/// If it failed, what a VO's people ran and wrote would stay at a site for weeks after the VO is
/// no more, and what runs of it would go on.
#[tokio::test]
async fn what_is_hosted_of_an_erased_vo_ends_and_goes_from_its_node() {
    let (core, world, _dir) = testing::core(|_| {}).await;
    let job: JobId = "7.pisa".parse().unwrap();
    put(&core, vec![], hosted(&job).into()).await;
    core.forget_erased().await;
    assert!(core.ledger.read(|s| s.hosted.is_active(&job)), "nothing is erased");
    world.take();
    erase(&world);
    core.forget_erased().await;
    assert_eq!(core.do_tend(&job).await, Next::Rest);
    assert!(core.ledger.read(|s| s.hosted.placement(&job).is_none()));
    assert!(world.take().contains(&"end_envelope"), "the node keeps the output");
    let told: usize = core.ledger.read(|s| s.hosted.unheard(&pisa()));
    assert_eq!(told, 4, "its owner waits for the units");
    let demo: VoId = "demo.rennes".parse().unwrap();
    assert!(!lock(&core.host).shares.contains_key(&demo), "room is kept for it");
}

/// If it failed, jobs of a VO that is no more would be shown, or be started anew elsewhere.
#[tokio::test]
async fn owned_jobs_of_an_erased_vo_are_cancelled_and_forgotten() {
    let (core, world, _dir) = testing::core(|_| {}).await;
    let own: JobId = "1.rennes".parse().unwrap();
    let mandate = "m".to_owned();
    let (site, units) = ("rennes".parse().unwrap(), vec![UNIT]);
    let jobs = vec![
        submitted(1, "demo.rennes"),
        JobRecord::Mandated { job: 1, mandate },
        JobRecord::Offered { job: 1, task: 0, site, units, attempt: 0 },
        submitted(2, "other.rennes"),
    ];
    put(&core, jobs, hosted(&own).into()).await;
    erase(&world);
    core.forget_erased().await;
    assert_eq!(owned(&core), [2]);
}

/// If it failed, a core that stopped while another site had units of such a job would keep it for
/// good.
#[tokio::test]
async fn what_waits_for_another_site_is_gone_on_with_after_a_restart() {
    let (core, world, dir) = testing::core(|_| {}).await;
    let (site, units) = (pisa(), vec![UNIT]);
    let jobs = vec![
        submitted(1, "demo.rennes"),
        JobRecord::Mandated { job: 1, mandate: "m".into() },
        JobRecord::Offered { job: 1, task: 0, site, units: units.clone(), attempt: 0 },
        JobRecord::Accepted { job: 1, site: pisa(), units, attempt: 0 },
    ];
    put(&core, jobs, vec![]).await;
    erase(&world);
    core.forget_erased().await;
    assert_eq!(owned(&core), [1], "pisa has not said that it ended");
    core.stop.cancel();
    core.tasks.close();
    core.tasks.wait().await;
    drop(core);
    let (core, world) = testing::core_in(dir.path(), |_| {}).await;
    erase(&world);
    let (node, started, how, usage, output) =
        (None, None, UnitEnd::Cancelled, Usage::default(), None);
    let what = HostedRun::Ended { node, started, how, usage, output };
    let events = vec![HostedEvent { unit: 0, at: Millis(10), what }];
    let job = "1.rennes".parse().unwrap();
    let report = crate::follow::HostReport { seq: 1, job, attempt: 0, events };
    core.take_in(&pisa(), vec![report]).await.unwrap();
    core.forget_erased().await;
    assert!(owned(&core).is_empty());
}
