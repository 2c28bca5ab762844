use super::*;
use crate::state::JobRecord;
use crate::state::unit::Phase;
use crate::testing::{self, UNIT};

fn pisa() -> SiteId {
    "pisa".parse().unwrap()
}

/// A job of one unit that was offered to pisa, and cancelled before the answer came.
fn cancelled_while_offered() -> Vec<JobRecord> {
    let (job, site, units, attempt) = (1, pisa(), vec![UNIT], 0);
    vec![
        JobRecord::Submitted {
            job,
            at: Millis(5),
            spec: Box::new(testing::spec(&[("main", "0", &[])])),
            member: Box::new(testing::alice()),
            proof: None,
            watched: false,
        },
        JobRecord::Mandated { job, mandate: "m".into() },
        JobRecord::Offered { job, task: 0, site, units, attempt },
        JobRecord::Cancelled { job, at: Millis(9), units: None, by: "alice".into() },
    ]
}

async fn core(
    more: Option<JobRecord>,
) -> (Arc<Core>, Arc<crate::testing::Asked>, tempfile::TempDir) {
    let (core, world, dir) = testing::core(|_| {}).await;
    let change = core.ledger.transact(|t| {
        cancelled_while_offered().into_iter().chain(more).for_each(|r| t.put(r));
        Ok(())
    });
    core.ledger.stored(change.unwrap().1).await.unwrap();
    (core, world, dir)
}

fn of_job<T>(core: &Core, f: impl FnOnce(&Job) -> T) -> T {
    core.ledger.read(|s| f(s.jobs.job(1).unwrap()))
}

/// If it failed, a site would begin to run what was cancelled before.
#[tokio::test]
async fn a_cancelled_unit_is_not_offered_any_more() {
    let (core, world, _dir) = core(None).await;
    assert_eq!(core.do_offer(1, &pisa()).await, Next::Rest);
    let offers = lock(&world.offers).clone();
    assert_eq!(offers.len(), 1);
    assert!(offers[0].until < core.now(), "the site could take it");
    assert_eq!(of_job(&core, |j| j.state.word()), "cancelled");
    assert_eq!(core.do_cancel(1, &pisa()).await, Next::Rest);
}

/// If it failed, a unit whose offer was under way when it was cancelled would run to its end: its
/// host did not know it when it was asked to end it, and nobody asks again.
#[tokio::test]
async fn a_cancellation_is_repeated_until_the_unit_has_ended() {
    let (site, units) = (pisa(), vec![UNIT]);
    let accepted = JobRecord::Accepted { job: 1, site, units, attempt: 0 };
    let (core, world, _dir) = core(Some(accepted)).await;
    for _ in 0..2 {
        assert_eq!(core.do_cancel(1, &pisa()).await, Next::Later);
        assert_eq!(world.take(), ["cancel_hosted"]);
    }
    let what = xos_api::aem::HostedRun::Ended {
        node: None,
        started: None,
        how: xos_api::aem::UnitEnd::Cancelled,
        usage: Default::default(),
        output: None,
    };
    let events = vec![xos_api::aem::HostedEvent { unit: 0, at: Millis(10), what }];
    let job = "1.rennes".parse().unwrap();
    let report = crate::follow::HostReport { seq: 1, job, attempt: 0, events };
    core.take_in(&pisa(), vec![report]).await.unwrap();
    assert_eq!(core.do_cancel(1, &pisa()).await, Next::Rest);
    assert!(lock(&core.unconfirmed).is_empty(), "it is remembered for ever");
    assert_eq!(of_job(&core, |j| j.state.word()), "cancelled");
}

/// If it failed, a job with units at a site that talks but never says that they ended could not be
/// brought to its end by anybody.
#[tokio::test]
async fn a_site_that_never_confirms_is_not_waited_for() {
    let (core, _, _dir) = core(None).await;
    let since = core.now();
    lock(&core.unconfirmed).insert((1, pisa()), Millis(since.0 - CONFIRM_MAX.as_millis() as u64));
    assert_eq!(core.do_cancel(1, &pisa()).await, Next::Later);
    let (state, lost) = of_job(&core, |j| (j.state.word(), j.tally.counts().lost));
    assert_eq!((state, lost), ("failed", 1));
    let reason = of_job(&core, |j| match &j.units[0].phase {
        Phase::Lost { reason, .. } => reason.to_string(),
        other => panic!("{other:?}"),
    });
    assert!(reason.contains("has not confirmed"), "{reason}");
    assert_eq!(core.do_cancel(1, &pisa()).await, Next::Rest);
}
