use super::*;
use crate::state::State;
use crate::testing::{n1, opened, sent, took};
use xos_api::aem::{UnitRun, Usage};
use xos_api::node::units::{EnvelopeStatus, UnitEvent};

fn job() -> JobId {
    "7.pisa".parse().unwrap()
}

/// Unit 0 is in envelope 1 on n1, unit 1 in envelope 2 on n2, units 2 and 3 wait.
fn state() -> State {
    let mut s = State::new("rennes".parse().unwrap());
    let HostRecord::Opened { boot, slots, cpu_milli, memory_bytes, .. } = opened(&job()) else {
        unreachable!()
    };
    let (job, node) = (job(), "n2.rennes".parse().unwrap());
    let units = vec![UnitRun { first: 1, count: 1 }];
    let second = HostRecord::Opened {
        job: job.clone(),
        serial: 2,
        node,
        boot,
        slots,
        cpu_milli,
        memory_bytes,
    };
    let to_second = HostRecord::Sent { job: job.clone(), serial: 2, units };
    for r in [took(&job), opened(&job), sent(&job), second, to_second] {
        s.apply(&r.into());
    }
    s
}

fn started(unit: u32, attempt: u16) -> UnitEvent {
    UnitEvent { unit, attempt, at: Millis(5), what: UnitChange::Started }
}

fn ended(unit: u32, attempt: u16) -> UnitEvent {
    let output = Some(InlineOutput { stdout: "AAAA".into(), stderr: String::new() });
    let how = UnitEnd::Exit { code: 0 };
    let what = UnitChange::Ended { how, usage: Usage::default(), output };
    UnitEvent { unit, attempt, at: Millis(6), what }
}

fn report(after: u64, events: Vec<UnitEvent>) -> UnitEvents {
    UnitEvents { envelope: EnvelopeId { job: job(), serial: 1 }, after, events }
}

/// If it failed, a rooted node could end units of other nodes, plant their output, or fill the
/// journal.
#[test]
fn a_node_speaks_only_for_units_of_its_own_envelope() {
    let mut s = state();
    let lies = vec![
        started(1, 0),
        ended(1, 0),
        ended(2, 0),
        ended(99, 0),
        ended(0, 1),
        started(0, 0),
        started(0, 0),
        ended(0, 0),
        ended(0, 0),
    ];
    let n = news(&s.hosted, &n1(), report(0, lies.clone()), Millis(9));
    assert_eq!(n.ack, EventsAck { stored: 9, unknown: false }, "the node counts all");
    assert_eq!(n.ended, [0]);
    assert!(n.outputs.is_empty(), "nobody waits for any output");
    let record = n.record.unwrap();
    let HostRecord::Happened { events, skipped, .. } = &record else { unreachable!() };
    assert_eq!((events.len(), *skipped), (2, 7));
    s.apply(&record.clone().into());
    s.apply(&record.into());
    let p = s.hosted.placement(&job()).unwrap();
    assert_eq!(p.envelopes[&1].stored, 9);
    let stage = |u: u32| p.units[&u].stage;
    assert_eq!(stage(0), Stage::Ended { serial: 1 });
    assert_eq!((stage(1), stage(2)), (Stage::Sent { serial: 2 }, Stage::Waiting));
    // The same again, and the envelope of another node.
    let again = news(&s.hosted, &n1(), report(0, lies.clone()), Millis(9));
    assert!(again.record.is_none() && again.ack.stored == 9);
    let other = news(&s.hosted, &"n2.rennes".parse().unwrap(), report(9, lies), Millis(9));
    assert!(other.record.is_none() && other.ack.unknown);
}

#[test]
fn a_gap_in_a_report_is_asked_for_again() {
    let s = state();
    let n = news(&s.hosted, &n1(), report(3, vec![started(0, 0)]), Millis(9));
    assert!(n.record.is_none() && n.ack == EventsAck { stored: 0, unknown: false });
}

/// If it failed, a unit that ran before a power loss, and whose record the loss took, would be
/// sent again and run twice.
#[test]
fn what_a_restarted_node_did_not_confirm_is_lost_though_its_envelope_is_there() {
    let mut s = state();
    // Unit 2 is confirmed in the same envelope: of it the node has a record, and reports.
    let units = vec![UnitRun { first: 2, count: 1 }];
    s.apply(&HostRecord::Sent { job: job(), serial: 1, units: units.clone() }.into());
    s.apply(&HostRecord::Held { job: job(), serial: 1, units, attempt: 0 }.into());
    let status = EnvelopeStatus { envelope: EnvelopeId { job: job(), serial: 1 }, last: 0 };
    let has = |boot: &str| Envelopes { boot: boot.into(), envelopes: vec![status.clone()] };
    // In the same boot the node knows what it has seen.
    let same = greet(&s.hosted, &n1(), &has("1"), Millis(9));
    assert_eq!((same.send, same.records), (vec![(job(), 1)], vec![]));
    let after = greet(&s.hosted, &n1(), &has("2"), Millis(9));
    assert_eq!(after.send, []);
    for record in after.records {
        s.apply(&record.into());
    }
    let p = s.hosted.placement(&job()).unwrap();
    assert_eq!(p.units[&0].stage, Stage::Ended { serial: 1 });
    assert_eq!(p.units[&2].stage, Stage::Sent { serial: 1 });
    assert_eq!(p.envelopes[&1].open, BTreeSet::from([2]));
    // Told once, and nothing is sent afterwards either.
    let again = greet(&s.hosted, &n1(), &has("2"), Millis(10));
    assert_eq!((again.send, again.records), (vec![], vec![]));
}

/// If it failed, units that the large node could run would be refused for good while its connection
/// is broken for a moment.
#[tokio::test]
async fn a_node_that_went_away_is_expected_back() {
    let (core, world, _dir) = crate::testing::core(|_| {}).await;
    let pools = |core: &Core| {
        let s = core.ledger.read(State::clone);
        crate::plan::host::capacity(&s.hosted, &lock(&core.host), &core.site, &[]).pools
    };
    assert!(!core.gone(&n1()), "a node that is connected is away");
    lock(&world.connected).clear();
    assert!(core.gone(&n1()));
    let away = pools(&core);
    assert_eq!((away.len(), away[0].nodes, away[0].node_cpu_milli), (1, 0, 4000));
    lock(&world.connected).insert(n1());
    core.hello(greeting()).unwrap();
    let not_yet = pools(&core);
    assert_eq!((not_yet.len(), not_yet[0].nodes, not_yet[0].node_cpu_milli), (1, 0, 2000));
}

fn greeting() -> Hello {
    let capacity =
        xos_api::node::Capacity { cpu_milli: 2000, memory_bytes: 1 << 40, arch: "x86_64".into() };
    Hello { node: n1(), version: "0".into(), capacity, key: "0".repeat(64) }
}

/// If it failed, a node that says hello without a stream on which it can be asked, over HTTPS or as
/// its stream ends, would keep the units on it from ever being lost.
#[tokio::test]
async fn a_node_without_its_stream_is_given_up() {
    let (core, world, _dir) = crate::testing::core(|_| {}).await;
    let records = [took(&job()), opened(&job()), sent(&job())];
    core.commit(|t| {
        records.into_iter().for_each(|r| t.put(r));
        Ok(())
    })
    .await
    .unwrap();
    let knows = |core: &Core| lock(&core.host).nodes.contains_key(&n1());
    // Its stream ends after the hello, before what it has is asked for.
    lock(&core.host).nodes.remove(&n1());
    core.hello(greeting()).unwrap();
    lock(&world.connected).clear();
    assert_eq!(core.do_greet(&n1()).await, Next::Rest);
    assert!(!knows(&core), "it is asked for ever");
    assert_eq!(core.hello(greeting()).unwrap_err().kind, xos_base::Kind::Unavailable);
    assert!(!knows(&core), "nobody would notice when it goes");
    lock(&core.silent_nodes).insert(n1(), Millis(0));
    core.give_up_nodes().await;
    let stage = core.ledger.read(|s| s.hosted.placement(&job()).unwrap().units[&0].stage);
    assert_eq!(stage, Stage::Ended { serial: 1 });
}

/// If it failed, what other sites' jobs left on a node that was taken away would count against
/// those sites for ever.
#[tokio::test]
async fn a_node_that_stays_away_keeps_no_forgotten_job() {
    let (core, world, _dir) = crate::testing::core(|_| {}).await;
    core.commit(|t| {
        for r in [took(&job()), opened(&job()), sent(&job())] {
            t.put(r);
        }
        t.put(HostRecord::Cancelled { job: job(), at: Millis(9), units: None });
        t.put(HostRecord::Forgotten { job: job() });
        Ok(())
    })
    .await
    .unwrap();
    lock(&world.connected).clear();
    core.gone(&n1());
    let kept = |core: &Core| core.ledger.read(|s| s.hosted.held_for_others().jobs);
    core.give_up_nodes().await;
    assert_eq!(kept(&core), 1, "a moment is enough");
    lock(&core.silent_nodes).insert(n1(), Millis(0));
    core.give_up_nodes().await;
    // First its unit is lost, then the envelope is over.
    core.give_up_nodes().await;
    assert_eq!(kept(&core), 0);
}
