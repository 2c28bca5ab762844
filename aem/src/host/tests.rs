use super::*;
use crate::testing::{self, UNIT, opened, sent, took};
use xos_api::aem::{HostedEvent, HostedRun, UnitEnd, Usage};
use xos_api::node::units::{UnitChange, UnitEvent};
use xos_api::policy::{Action, Denial, Side};
use xos_base::Millis;

/// A job of pisa.
fn job() -> JobId {
    "7.pisa".parse().unwrap()
}

async fn put<const N: usize>(core: &Core, records: [HostRecord; N]) {
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
        HostedRun::Started { .. } | HostedRun::Left { .. } => None,
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

/// What happened to the first unit of an attempt in the job's first envelope.
fn happened(after: u64, attempt: u16, what: UnitChange) -> HostRecord {
    let events = vec![UnitEvent { unit: 0, attempt, at: Millis(2), what }];
    let at = Millis(3);
    HostRecord::Happened { job: job(), serial: 1, after, at, events, skipped: 0 }
}

/// The records by which the first unit fails in its first attempt, and is sent for the next one,
/// before the answer to the first order comes.
fn failed_and_sent_again() -> [HostRecord; 4] {
    let (how, usage) = (UnitEnd::Exit { code: 1 }, Usage::default());
    let (who, what, units) = (None, None, vec![UNIT]);
    [
        happened(0, 0, UnitChange::Started),
        happened(1, 0, UnitChange::Ended { how, usage, output: None }),
        HostRecord::Took {
            job: job(),
            at: Millis(4),
            who,
            task: 0,
            what,
            units,
            attempt: 1,
            carried: None,
        },
        sent(&job()),
    ]
}

/// If it failed, a unit that may run again, and fails before its node has answered the order, would
/// wait for ever: its next attempt would count as answered for, and never be sent.
#[test]
fn an_answer_counts_for_the_attempt_that_was_ordered() {
    let mut s = State::new("rennes".parse().unwrap());
    let begin = [took(&job()), opened(&job()), sent(&job())];
    for r in begin.into_iter().chain(failed_and_sent_again()) {
        s.apply(&r.into());
    }
    let order = |attempt| vec![UnitOrder { unit: 0, index: 0, attempt }];
    let next = |s: &State| next_batch(s, &job(), 1).map(|b| b.units);
    assert_eq!(next(&s), Some(order(1)));
    let held = |attempt| HostRecord::Held { job: job(), serial: 1, units: vec![UNIT], attempt };
    s.apply(&held(0).into());
    assert_eq!(next(&s), Some(order(1)), "the next attempt is not sent");
    assert!(s.hosted.placement(&job()).unwrap().envelopes[&1].held, "the node has the envelope");
    s.apply(&held(1).into());
    assert_eq!(next(&s), None, "what was answered for is sent again");
}

/// If it failed, an order that is refused late would end the attempt after the one it was for.
#[tokio::test]
async fn a_refusal_counts_for_the_attempt_that_was_ordered() {
    let (core, _world, _dir) = testing::core(|_| {}).await;
    put(&core, [took(&job()), opened(&job()), sent(&job())]).await;
    put(&core, failed_and_sent_again()).await;
    let envelope = EnvelopeId { job: job(), serial: 1 };
    let late = Error::denied("alice is no member any more");
    let refused = |attempt| {
        let (core, envelope, late) = (core.clone(), envelope.clone(), late.clone());
        async move {
            let units = (vec![UNIT], attempt);
            core.refused(envelope, &testing::n1(), units, &late).await.unwrap();
            told(&core).into_iter().map(|(_, how)| how).collect::<Vec<_>>()
        }
    };
    let exit = UnitEnd::Exit { code: 1 };
    assert_eq!(refused(0).await, std::slice::from_ref(&exit));
    let reason = late.to_string();
    assert_eq!(refused(1).await, [exit, UnitEnd::NotStarted { reason }]);
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
