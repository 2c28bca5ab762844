use super::*;
use crate::testing::{self, opened, sent, took};
use xos_api::aem::{HostedEvent, HostedRun, UnitEnd};
use xos_api::policy::{Denial, Side};

/// A job of pisa.
fn job() -> JobId {
    "7.pisa".parse().unwrap()
}

async fn put(core: &Core, records: [HostRecord; 3]) {
    let change = core.ledger.transact(|t| {
        records.into_iter().for_each(|r| t.put(r));
        Ok(())
    });
    core.ledger.stored(change.unwrap().1).await.unwrap();
}

/// The units of 7.pisa that the owner is told of, and how they ended.
fn told(core: &Core) -> Vec<(u32, UnitEnd)> {
    told_of(core, &job())
}

fn told_of(core: &Core, job: &JobId) -> Vec<(u32, UnitEnd)> {
    let end = |e: &HostedEvent| match &e.what {
        HostedRun::Ended { how, .. } => Some((e.unit, how.clone())),
        HostedRun::Started { .. } => None,
    };
    let owner = "pisa".parse().unwrap();
    core.ledger.read(|s| {
        let of = s.hosted.reports(&owner, 0).filter(|r| r.job == *job);
        of.flat_map(|r| r.events.iter().filter_map(end)).collect()
    })
}

/// If it failed, a unit would be told to be not started while it runs, and nobody would end it; or
/// what was never sent would count as lost.
#[tokio::test]
async fn a_refused_order_is_lost_only_if_an_earlier_one_got_no_answer() {
    for answered in [true, false] {
        let (core, world, _dir) = testing::core(|_| {}).await;
        put(&core, [took(&job()), opened(&job()), sent(&job())]).await;
        if !answered {
            lock(&world.refusals).push_back(Error::unavailable("no answer"));
            assert_eq!(core.do_send(&job(), 1).await, Next::Later);
        }
        lock(&world.refusals).push_back(Error::denied("alice is no member any more"));
        assert_eq!(core.do_send(&job(), 1).await, Next::Rest);
        let killed = world.take().contains(&"kill_units");
        let told = told(&core);
        assert_eq!(told.len(), 1, "{told:?}");
        match &told[0].1 {
            UnitEnd::NotStarted { reason } if answered => assert!(reason.contains("no member")),
            UnitEnd::Lost { reason } if !answered => assert!(reason.contains("no member")),
            other => panic!("answered: {answered}, told: {other:?}"),
        }
        assert_eq!(killed, !answered);
    }
}

/// If it failed, a home that does not answer would keep everybody's tickets from being renewed, and
/// all that the service does now and then.
#[tokio::test]
async fn a_silent_home_delays_only_its_own_tickets() {
    let (core, world, _dir) = testing::core(|_| {}).await;
    let other: JobId = "8.pisa".parse().unwrap();
    let mut first = took(&other);
    if let HostRecord::Took { who: Some(who), .. } = &mut first {
        who.vo = "other.pisa".parse().unwrap();
    }
    put(&core, [first, opened(&other), sent(&other)]).await;
    put(&core, [took(&job()), opened(&job()), sent(&job())]).await;
    let _home = world.home.write().await;
    core.renew_tickets();
    let mut renewed = Vec::new();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
        renewed.extend(world.take());
    }
    assert_eq!(renewed, ["set_ticket"], "the other home's tickets are not renewed");
    core.stop.cancel();
}

/// If it failed, whom a site or VO denies to run would run on what was accepted before, for as long
/// as their mandate lives.
#[tokio::test]
async fn a_denial_set_later_ends_what_waits_at_once_and_what_runs_when_its_ticket_is_due() {
    let (core, world, _dir) = testing::core(|_| {}).await;
    put(&core, [took(&job()), opened(&job()), sent(&job())]).await;
    assert_eq!(core.do_send(&job(), 1).await, Next::Rest);
    let started = lock(&world.started).len();
    assert!(started > 0);
    let denial = Denial { side: Side::Site, rule: None, text: "rule x says no".into() };
    *lock(&world.denial) = Some((Action::Run, denial));
    let home = "rennes".parse().unwrap();
    world.take();
    core.do_renew(&home).await;
    assert!(told(&core).is_empty(), "its ticket is good yet");
    let other: JobId = "8.pisa".parse().unwrap();
    put(&core, [took(&other), opened(&other), sent(&other)]).await;
    assert_eq!(core.do_send(&other, 1).await, Next::Rest);
    assert_eq!(lock(&world.started).len(), started, "it was started");
    let ends = told_of(&core, &other);
    let says = |reason: &str| reason.contains("rule x");
    let refused = |e: &UnitEnd| matches!(e, UnitEnd::NotStarted { reason } if says(reason));
    assert!(!ends.is_empty() && ends.iter().all(|(_, e)| refused(e)), "{ends:?}");
    lock(&core.tickets).clear();
    core.do_renew(&home).await;
    assert!(world.take().contains(&"kill_units"));
    let ends = told_of(&core, &job());
    let ended = |e: &UnitEnd| matches!(e, UnitEnd::Lost { reason } if says(reason));
    assert!(!ends.is_empty() && ends.iter().all(|(_, e)| ended(e)), "{ends:?}");
    core.stop.cancel();
}
