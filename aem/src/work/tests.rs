//! Nothing leaves the core before what it follows from is on the disk.

use crate::core::{Core, lock};
use crate::ledger::Txn;
use crate::ops::{Grant, Right};
use crate::plan::owner::Reach;
use crate::state::record::Proof;
use crate::state::{HostRecord, JobRecord};
use crate::testing::{self, UNIT, n1, opened, sent, took};
use crate::work::Next;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, poll};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use xos_api::aem::*;
use xos_api::node::units::{EnvelopeId, EnvelopeStatus, UnitChange, UnitEvent, UnitEvents};
use xos_base::{JobId, Kind, Millis};

/// A job of pisa.
fn job() -> JobId {
    "7.pisa".parse().unwrap()
}

fn started(job: &JobId) -> UnitEvents {
    let event = UnitEvent { unit: 0, attempt: 0, at: Millis(5), what: UnitChange::Started };
    let envelope = EnvelopeId { job: job.clone(), serial: 1 };
    UnitEvents { envelope, after: 0, events: vec![event] }
}

fn happened(job: &JobId) -> HostRecord {
    let (after, events) = (0, started(job).events);
    let (serial, at, skipped) = (1, Millis(6), 0);
    HostRecord::Happened { job: job.clone(), serial, after, at, events, skipped }
}

fn submitted() -> JobRecord {
    JobRecord::Submitted {
        job: 1,
        at: Millis(5),
        spec: Box::new(testing::spec(&[("main", "0-3", &[])])),
        member: Box::new(testing::alice()),
        proof: Some(Proof::Token("t".into())),
        watched: false,
    }
}

fn mandated() -> JobRecord {
    JobRecord::Mandated { job: 1, mandate: "m".into() }
}

fn offered() -> JobRecord {
    let (site, units) = ("pisa".parse().unwrap(), vec![UNIT]);
    JobRecord::Offered { job: 1, task: 0, site, units, attempt: 0 }
}

fn cancelled() -> JobRecord {
    JobRecord::Cancelled { job: 1, at: Millis(9), units: None, by: "alice".into() }
}

/// Changes the state, and leaves the waiting for the disk to a task.
fn queue(core: &Arc<Core>, f: impl FnOnce(&mut Txn<'_>)) -> JoinHandle<()> {
    let change = core.ledger.transact(|t| {
        f(t);
        Ok(())
    });
    let ((), queued, _) = change.unwrap();
    let core = core.clone();
    tokio::spawn(async move { core.ledger.stored(queued).await.unwrap() })
}

type Put = fn(&mut Txn<'_>);
type Leave = fn(Arc<Core>) -> BoxFuture<'static, ()>;

fn rest(next: impl Future<Output = Next> + Send + 'static) -> BoxFuture<'static, ()> {
    next.map(drop).boxed()
}

/// What stands on the disk, what is queued, what then tries to leave, and what the world is asked.
fn ways_out() -> Vec<(&'static str, Put, Put, Leave, &'static [&'static str])> {
    let hosted: Put = |t| [took(&job()), opened(&job())].into_iter().for_each(|r| t.put(r));
    let running: Put =
        |t| [took(&job()), opened(&job()), sent(&job())].into_iter().for_each(|r| t.put(r));
    let owned: Put = |t| [submitted(), mandated()].into_iter().for_each(|r| t.put(r));
    let out: Put = |t| [submitted(), mandated(), offered()].into_iter().for_each(|r| t.put(r));
    vec![
        (
            "an order to a node",
            hosted,
            |t| t.put(sent(&job())),
            |c| rest(async move { c.do_send(&job(), 1).await }),
            &["start_units"],
        ),
        (
            "the end of units",
            running,
            |t| {
                t.put(HostRecord::Cancelled { job: job(), at: Millis(9), units: None });
            },
            |c| rest(async move { c.do_tend(&job()).await }),
            &["kill_units"],
        ),
        (
            "an offer",
            owned,
            |t| t.put(offered()),
            |c| rest(async move { c.do_offer(1, &"pisa".parse().unwrap()).await }),
            &["host_units"],
        ),
        (
            "a cancellation elsewhere",
            out,
            |t| t.put(cancelled()),
            |c| rest(async move { c.do_cancel(1, &"pisa".parse().unwrap()).await }),
            &["cancel_hosted"],
        ),
        (
            "a wish for a mandate",
            |_| {},
            |t| t.put(submitted()),
            |c| rest(async move { c.do_mandate(1).await }),
            &["mandate"],
        ),
        (
            "the end of a forgotten envelope",
            hosted,
            |t| {
                t.put(HostRecord::Forgotten { job: job() });
                t.put(HostRecord::Closed { job: job(), serial: 1 });
            },
            |c| rest(async move { c.do_greet(&n1()).await }),
            &["end_envelope"],
        ),
        (
            "an acceptance",
            |_| {},
            |t| {
                let units = vec![UnitRun { first: 0, count: 4 }];
                let sent = HostRecord::Sent { job: job(), serial: 1, units };
                [took(&job()), opened(&job()), sent].into_iter().for_each(|r| t.put(r));
            },
            |c| {
                async move {
                    let mut spec = testing::spec(&[("main", "0-3", &[])]);
                    let offer = HostUnits {
                        job: job(),
                        vo: "demo.rennes".parse().unwrap(),
                        mandate: "m".into(),
                        task: 0,
                        task_first: 0,
                        outline: crate::outline(&spec).unwrap(),
                        spec: spec.tasks.remove(0),
                        units: vec![UNIT],
                        attempt: 0,
                        until: Millis(u64::MAX),
                        want_output: false,
                        moves: 0,
                        carried: None,
                    };
                    assert_eq!(c.offered(offer).await.unwrap().accepted, [UNIT]);
                }
                .boxed()
            },
            &[],
        ),
        (
            "an acknowledgement to a node",
            running,
            |t| t.put(happened(&job())),
            |c| {
                async move {
                    let ack = c.unit_events(&n1(), started(&job())).await.unwrap();
                    assert_eq!(ack.stored, 1);
                }
                .boxed()
            },
            &[],
        ),
        (
            "a report to an owner",
            running,
            |t| t.put(happened(&job())),
            |c| {
                async move {
                    let mut items = c.reports_to("pisa".parse().unwrap(), 0);
                    while !matches!(items.next().await, Some(Ok(HostItem::Units { .. }))) {}
                }
                .boxed()
            },
            &[],
        ),
        (
            "what a watcher is told",
            owned,
            |t| t.put(cancelled()),
            |c| {
                async move {
                    let job = "1.rennes".parse().unwrap();
                    let mut events = c.watch(Grant { job, by: String::new() }, alice(), None);
                    assert!(events.next().await.unwrap().unwrap().end.is_some());
                }
                .boxed()
            },
            &[],
        ),
    ]
}

/// If it failed, a core killed between the two would come back without the record: a unit runs
/// twice, a report is left out, an accepted unit is lost.
#[tokio::test]
async fn nothing_leaves_the_core_before_it_is_stored() {
    let mut early = Vec::new();
    for (what, before, change, leave, calls) in ways_out() {
        let (core, world, _dir) = testing::core(|_| {}).await;
        lock(&world.has)
            .envelopes
            .push(EnvelopeStatus { envelope: EnvelopeId { job: job(), serial: 1 }, last: 0 });
        queue(&core, before).await.unwrap();
        let disk = core.ledger.disk.write().await;
        let stored = queue(&core, change);
        let mut way = leave(core.clone());
        if poll!(&mut way).is_ready() || !world.take().is_empty() {
            early.push(what);
            continue;
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(poll!(&mut way).is_pending() && world.take().is_empty(), "{what}");
        drop(disk);
        stored.await.unwrap();
        way.await;
        let asked = world.take();
        assert!(calls.iter().all(|c| asked.contains(c)), "{what}: {asked:?}");
    }
    assert_eq!(early, [""; 0], "these did not wait for the disk");
}

/// If it failed, a broken disk would let out what it never held.
#[tokio::test]
async fn what_is_never_stored_never_leaves() {
    let (core, world, _dir) = testing::core(|_| {}).await;
    queue(&core, |t| [took(&job()), opened(&job())].into_iter().for_each(|r| t.put(r)))
        .await
        .unwrap();
    let disk = core.ledger.disk.write().await;
    // More at once than the journal queues: it refuses it.
    let change = core.ledger.transact(|t| {
        t.put(sent(&job()));
        for _ in 0..17 {
            t.put(JobRecord::Mandated { job: 9, mandate: "x".repeat(4_100_000) });
        }
        Ok(())
    });
    let ((), first, _) = change.unwrap();
    let ((), second, _) = core
        .ledger
        .transact(|t| {
            t.put(submitted());
            Ok(())
        })
        .unwrap();
    let send = tokio::spawn({
        let core = core.clone();
        async move { core.do_send(&job(), 1).await }
    });
    drop(disk);
    core.ledger.stored(second).await.expect_err("it was decided from what is lost");
    core.ledger.stored(first).await.expect_err("the journal took more than it queues");
    assert_eq!(send.await.unwrap(), Next::Later);
    core.ledger.reload().unwrap();
    assert_eq!(core.do_send(&job(), 1).await, Next::Rest);
    assert_eq!(world.take(), [""; 0], "an order left that the journal does not hold");
}

/// If it failed, units would be sent to an envelope that was given up while their ticket was
/// fetched, and run in another one too.
#[tokio::test]
async fn an_order_that_was_given_up_meanwhile_is_not_sent() {
    let (core, world, _dir) = testing::core(|_| {}).await;
    queue(&core, |t| {
        [took(&job()), opened(&job()), sent(&job())].into_iter().for_each(|r| t.put(r))
    })
    .await
    .unwrap();
    let home = world.home.write().await;
    let mut send = {
        let core = core.clone();
        async move { core.do_send(&job(), 1).await }.boxed()
    };
    assert!(poll!(&mut send).is_pending());
    // The node comes back and has nothing.
    core.regreet(&n1());
    assert_eq!(core.do_greet(&n1()).await, Next::Rest);
    let withdrawn = core.ledger.read(|s| s.hosted.placement(&job()).unwrap().waiting.contains(&0));
    assert!(withdrawn);
    drop(home);
    assert_eq!(send.await, Next::Rest);
    assert!(lock(&world.started).is_empty(), "the unit was sent although it waits again");
}

/// If it failed, a member who was suspended or removed would go on to see what their jobs do and
/// write for as long as they keep the connection.
#[tokio::test]
async fn whoever_loses_their_right_sees_nothing_further() {
    let (core, world, _dir) = testing::core(|_| {}).await;
    queue(&core, |t| t.put(submitted())).await.unwrap();
    let grant = Grant { job: "1.rennes".parse().unwrap(), by: String::new() };
    let mut events = core.clone().watch(grant, alice(), None);
    assert!(events.next().await.unwrap().is_ok());
    *lock(&world.suspended) = true;
    core.commit(|t| {
        t.put(cancelled());
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(events.next().await.unwrap().unwrap_err().kind, Kind::Denied);
    assert!(events.next().await.is_none());
}

fn alice() -> Right {
    Right::Member(testing::alice())
}

/// If it failed, somebody who administers the site no more would go on to see every job that they
/// watched then.
#[tokio::test]
async fn an_administrators_stream_ends_with_the_token() {
    let (core, _, _dir) = testing::core(|_| {}).await;
    queue(&core, |t| t.put(submitted())).await.unwrap();
    let watch = |until| {
        let grant = Grant { job: "1.rennes".parse().unwrap(), by: String::new() };
        core.clone().watch(grant, Right::Admin { until }, None)
    };
    let mut events = watch(core.now().plus(Duration::from_secs(1)));
    assert!(events.next().await.unwrap().is_ok());
    let end = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
    assert_eq!(end.expect("it goes on").unwrap().unwrap_err().kind, Kind::Unavailable);
    assert!(events.next().await.is_none());
    assert!(watch(core.now()).next().await.unwrap().is_err(), "it begins after the end");
}

/// If it failed, a job of a VO beyond the first few that have jobs would never be placed.
#[tokio::test]
async fn every_vo_with_jobs_is_served() {
    let (core, _, _dir) = testing::core(|_| {}).await;
    core.commit(|t| {
        for job in 1..=100 {
            let mut spec = testing::spec(&[("main", "0", &[])]);
            let mut member = testing::alice();
            if job < 100 {
                spec.vo = format!("v{job}.rennes").parse().unwrap();
                member.vo = spec.vo.clone();
            }
            let (spec, member) = (Box::new(spec), Box::new(member));
            let (at, proof, watched) = (Millis(5), None, false);
            t.put(JobRecord::Submitted { job, at, spec, member, proof, watched });
            t.put(JobRecord::Mandated { job, mandate: "m".into() });
        }
        core.place(t, Reach::Whole);
        Ok(())
    })
    .await
    .unwrap();
    // Both sites that serve it are asked; this one has no mandate of the test's.
    let asked = core.ledger.read(|s| s.jobs.job(100).unwrap().reasons.len());
    assert!(asked > 0, "nobody was asked");
}
