use super::*;
use crate::state::host::Stage;
use crate::state::record::Decision;
use crate::testing;
use xos_api::aem::{TaskSpec, UnitEnd, UnitRun, Usage};
use xos_api::node::units::{UnitChange, UnitEvent};
use xos_base::SiteId;

const GIB: u64 = 1 << 30;

fn facts(nodes: &[(&str, u32)]) -> Facts {
    let mut f = Facts::default();
    for (name, cpu_milli) in nodes {
        let capacity =
            Capacity { cpu_milli: *cpu_milli, memory_bytes: 64 * GIB, arch: "x86_64".into() };
        let view = NodeView { capacity, key: String::new(), boot: Some("b".into()), cluster: None };
        f.nodes.insert(name.parse().unwrap(), view);
    }
    let vo: VoId = "demo.rennes".parse().unwrap();
    let share = ShareRoom { vo: vo.clone(), cpu_milli: 1_000_000, memory_bytes: 1000 * GIB };
    f.shares.insert(vo, share);
    f
}

fn took(table: &mut HostTable, job: &str, count: u32, cpu_milli: u32) {
    let mut spec =
        TaskSpec { name: "main".into(), ..testing::spec(&[("m", "0", &[])]).tasks[0].clone() };
    spec.resources.cpu_milli = cpu_milli;
    let offer = xos_api::aem::HostUnits {
        job: job.parse().unwrap(),
        vo: "demo.rennes".parse().unwrap(),
        mandate: "m".into(),
        task: 0,
        task_first: 0,
        spec,
        outline: crate::outline(&testing::spec(&[("m", "0", &[])])).unwrap(),
        units: vec![UnitRun { first: 0, count }],
        attempt: 0,
        until: Millis(9),
        want_output: false,
        moves: 0,
        carried: None,
    };
    let record = crate::accept::took(table, &offer, testing::alice(), Millis(0));
    table.apply(&record);
}

fn table() -> HostTable {
    HostTable::new("rennes".parse::<SiteId>().unwrap())
}

/// Each envelope opened (node, slots) and each batch sent (serial, units).
fn shown(records: &[HostRecord]) -> Vec<String> {
    records
        .iter()
        .map(|r| match r {
            HostRecord::Opened { serial, node, slots, .. } => {
                format!("open {serial} {node} {slots}")
            }
            HostRecord::Sent { serial, units, .. } => {
                format!("send {serial} {}", units.iter().map(|u| u.count).sum::<u32>())
            }
            other => format!("{other:?}"),
        })
        .collect()
}

fn run(t: &mut HostTable, f: &Facts, now: u64) -> Vec<String> {
    let records = plan(t, f, Millis(now));
    for r in &records {
        t.apply(r);
    }
    shown(&records)
}

#[test]
fn units_fill_nodes_and_no_more() {
    let f = facts(&[("n1.rennes", 2000), ("n2.rennes", 4000)]);
    let mut t = table();
    took(&mut t, "1.rennes", 10, 1000);
    assert_eq!(
        run(&mut t, &f, 1),
        ["open 1 n2.rennes 4", "send 1 4", "open 2 n1.rennes 2", "send 2 2"]
    );
    assert_eq!(run(&mut t, &f, 2), [""; 0], "a full node got more");
    let c = capacity(&t, &f, &"pisa".parse().unwrap(), &[]);
    assert_eq!((c.pools[0].cpu_free_milli, c.waiting), (0, 4));
}

/// If it failed, a unit that its node holds back would take the place of two for its owner, and
/// others of its job would wait although a node is free.
#[test]
fn an_owners_units_take_room_here_once_they_run() {
    let f = facts(&[("n1.rennes", 2000)]);
    let mut t = table();
    took(&mut t, "1.rennes", 2, 1000);
    run(&mut t, &f, 1);
    let free = |t: &HostTable, owner: &str| {
        capacity(t, &f, &owner.parse().unwrap(), &[]).pools[0].cpu_free_milli
    };
    assert_eq!((free(&t, "rennes"), free(&t, "pisa")), (2000, 0));
    let mut after = 0;
    let mut happened = |t: &mut HostTable, what| {
        let event = UnitEvent { unit: 0, attempt: 0, at: Millis(2), what };
        let job = "1.rennes".parse().unwrap();
        let events = vec![event];
        let at = Millis(3);
        t.apply(&HostRecord::Happened { job, serial: 1, after, at, events, skipped: 0 });
        after += 1;
    };
    happened(&mut t, UnitChange::Started);
    assert_eq!((free(&t, "rennes"), free(&t, "pisa")), (1000, 0));
    let (how, usage) = (UnitEnd::Exit { code: 0 }, Usage::default());
    happened(&mut t, UnitChange::Ended { how, usage, output: None });
    assert_eq!((free(&t, "rennes"), free(&t, "pisa")), (2000, 1000));
}

#[test]
fn what_ends_fast_is_sent_ahead_in_batches() {
    let mut f = facts(&[("n1.rennes", 2000)]);
    let mut t = table();
    took(&mut t, "1.rennes", 1000, 1000);
    assert_eq!(run(&mut t, &f, 1), ["open 1 n1.rennes 2", "send 1 2"]);
    f.pace.ended(("1.rennes".parse().unwrap(), 1), 300, Millis(10));
    assert_eq!(run(&mut t, &f, 11), ["send 1 300"]);
    let c = capacity(&t, &f, &"pisa".parse().unwrap(), &[]);
    assert_eq!(c.pools[0].cpu_free_milli, 0, "units ahead count only as far as they run");
}

#[test]
fn a_vo_stays_in_its_share() {
    let mut f = facts(&[("n1.rennes", 8000)]);
    f.shares.values_mut().for_each(|s| s.cpu_milli = 3000);
    let mut t = table();
    took(&mut t, "1.rennes", 10, 1000);
    assert_eq!(run(&mut t, &f, 1), ["open 1 n1.rennes 3", "send 1 3"]);
    f.shares.clear();
    took(&mut t, "2.rennes", 1, 1000);
    assert_eq!(run(&mut t, &f, 2), [""; 0], "a VO without a share ran");
}

#[test]
fn whoever_has_least_running_comes_first() {
    let f = facts(&[("n1.rennes", 2000)]);
    let mut t = table();
    took(&mut t, "1.rennes", 1, 1000);
    run(&mut t, &f, 1);
    took(&mut t, "1.rennes", 9, 1000);
    took(&mut t, "2.rennes", 1, 1000);
    assert_eq!(plan(&t, &f, Millis(2)).len(), 2);
    let first = &plan(&t, &f, Millis(2))[0];
    assert!(matches!(first, HostRecord::Opened { job, .. } if job.number == 2), "{first:?}");
}

#[test]
fn a_node_that_was_not_listed_yet_gets_nothing() {
    let mut f = facts(&[("n1.rennes", 2000)]);
    f.nodes.values_mut().for_each(|n| n.boot = None);
    let mut t = table();
    took(&mut t, "1.rennes", 1, 1000);
    assert_eq!(run(&mut t, &f, 1), [""; 0]);
}

/// If it failed, a unit that was cancelled while its node was away would be started when it came
/// back from there.
#[test]
fn a_cancelled_unit_is_ended_and_not_sent() {
    let f = facts(&[("n1.rennes", 2000)]);
    let mut t = table();
    took(&mut t, "1.pisa", 2, 1000);
    run(&mut t, &f, 1);
    let job: JobId = "1.pisa".parse().unwrap();
    let units = Some(vec![UnitRun { first: 0, count: 1 }]);
    t.apply(&HostRecord::Cancelled { job: job.clone(), at: Millis(2), units });
    t.apply(&HostRecord::Unsent { job: job.clone(), serial: 1 });
    let records = plan(&t, &f, Millis(3));
    for r in &records {
        t.apply(r);
    }
    let sent = records.iter().filter(|r| matches!(r, HostRecord::Sent { .. }));
    assert_eq!(shown(&sent.cloned().collect::<Vec<_>>()), ["send 1 1"]);
    let p = t.placement(&job).unwrap();
    assert!(p.waiting.is_empty() && matches!(p.units[&0].stage, Stage::Ended { .. }));
    assert_eq!(t.unheard(&"pisa".parse().unwrap()), 1, "the owner is not told");
}

/// If it failed, a node would refuse further units of a long job, with many attempts, for ever.
#[test]
fn an_envelope_that_had_many_units_gets_no_more() {
    let f = facts(&[("n1.rennes", 2000)]);
    let mut t = table();
    took(&mut t, "1.pisa", ENVELOPE_UNITS_MAX, 1000);
    assert_eq!(run(&mut t, &f, 1), ["open 1 n1.rennes 2", "send 1 2"]);
    let job: JobId = "1.pisa".parse().unwrap();
    let units = vec![UnitRun { first: 2, count: ENVELOPE_UNITS_MAX - 3 }];
    t.apply(&HostRecord::Sent { job: job.clone(), serial: 1, units });
    let units = vec![UnitRun { first: 0, count: ENVELOPE_UNITS_MAX - 1 }];
    let what = Decision::Lost { reason: String::new() };
    t.apply(&HostRecord::Decided { job: job.clone(), at: Millis(2), units, what });
    assert_eq!(run(&mut t, &f, 3), ["send 1 1"]);
    let (at, units) = (Millis(4), vec![UnitRun { first: 0, count: 1 }]);
    let (who, task, what, attempt, carried) = (None, 0, None, 1, None);
    t.apply(&HostRecord::Took { job, at, who, task, what, units, attempt, carried });
    assert_eq!(run(&mut t, &f, 5), ["open 2 n1.rennes 1", "send 2 1"]);
}

/// A cluster of n1 and n2 with two processors each, beside the node n3 with one.
fn clustered() -> Facts {
    let mut f = facts(&[("c1.rennes", 4000), ("n1.rennes", 2000), ("n2.rennes", 2000)]);
    f.nodes.extend(facts(&[("n3.rennes", 1000)]).nodes);
    if let Some(c) = f.nodes.get_mut(&"c1.rennes".parse::<NodeId>().unwrap()) {
        c.cluster = Some((2000, 64 * GIB));
    }
    f.seated = ["n1.rennes", "n2.rennes"].iter().map(|n| n.parse().unwrap()).collect();
    f
}

/// If it failed, the processors of a cluster's nodes would be given twice, or a unit would wait in
/// a cluster for a node that there is not.
#[test]
fn a_cluster_is_one_node_and_its_nodes_are_none() {
    let (mut t, f) = (table(), clustered());
    let c = capacity(&t, &f, &"pisa".parse().unwrap(), &[]);
    let pool = &c.pools[0];
    assert_eq!((pool.nodes, pool.cpu_milli, pool.node_cpu_milli), (2, 5000, 2000));
    took(&mut t, "1.pisa", 1, 3000);
    assert!(plan(&t, &f, Millis(1)).is_empty(), "a unit never spans nodes");
    took(&mut t, "2.pisa", 2, 2000);
    assert_eq!(shown(&plan(&t, &f, Millis(1))), ["open 1 c1.rennes 2", "send 1 2"]);
}

/// If it failed, units would fail in a cluster for what could be known before, or wait there for
/// ever.
#[test]
fn what_a_cluster_cannot_do_goes_elsewhere_or_is_refused() {
    let mut f = clustered();
    let mut task = testing::spec(&[("m", "0", &[])]).tasks[0].clone();
    task.limits.processes = Some(10_000);
    assert_eq!(f.judge_kind(&task), Ok(()));
    task.resources.cpu_milli = 2000;
    let refusal = f.judge_kind(&task).unwrap_err();
    let text = "of this site's nodes only cluster c1.rennes has room for it, and a unit in a \
                cluster can have 1 to 8192 processes";
    assert_eq!((refusal.rule.as_str(), refusal.text.as_str()), ("cluster", text));
    assert!(!refusal.later);
    let capacity = Capacity { cpu_milli: 4000, memory_bytes: GIB, arch: "x86_64".into() };
    f.away.insert("n9.rennes".parse().unwrap(), Away { capacity, since: Millis(0) });
    assert!(f.judge_kind(&task).unwrap_err().later);
    task.limits.processes = None;
    assert_eq!(f.judge_kind(&task), Ok(()));
}

/// If it failed, a unit that is to be checkpointed would run where nothing checkpoints it.
#[test]
fn what_is_to_be_checkpointed_goes_to_clusters_only() {
    let (mut t, f) = (table(), clustered());
    let mut spec = testing::spec(&[("m", "0-5", &[])]);
    spec.tasks[0].checkpointable = true;
    let outline = crate::outline(&spec).unwrap();
    let offer = xos_api::aem::HostUnits {
        job: "1.pisa".parse().unwrap(),
        vo: "demo.rennes".parse().unwrap(),
        mandate: "m".into(),
        task: 0,
        task_first: 0,
        spec: spec.tasks.remove(0),
        outline,
        units: vec![UnitRun { first: 0, count: 6 }],
        attempt: 0,
        until: Millis(9),
        want_output: false,
        moves: 0,
        carried: None,
    };
    assert_eq!(f.judge_kind(&offer.spec), Ok(()));
    let record = crate::accept::took(&t, &offer, testing::alice(), Millis(0));
    t.apply(&record);
    assert_eq!(shown(&plan(&t, &f, Millis(1))), ["open 1 c1.rennes 4", "send 1 4"]);
    let plain = facts(&[("n1.rennes", 8000)]);
    let refusal = plain.judge_kind(&offer.spec).unwrap_err();
    let text = "only a cluster checkpoints it, and no cluster here has room for it";
    assert_eq!((refusal.text.as_str(), refusal.later), (text, false));
    assert!(plan(&t, &plain, Millis(1)).is_empty());
}

/// The units of an offer that goes on from an image of pisa, in the cluster that is named.
fn came(table: &mut HostTable, to: Option<&str>) -> JobId {
    let job: JobId = "9.pisa".parse().unwrap();
    let mut spec = testing::spec(&[("m", "0", &[])]);
    spec.tasks[0].checkpointable = true;
    let mut record = testing::took(&job);
    if let HostRecord::Took { at, what, units, carried, .. } = &mut record {
        *at = Millis(1000);
        *units = vec![testing::UNIT];
        if let Some(what) = what {
            what.spec = std::sync::Arc::new(spec.tasks.remove(0));
        }
        let of = testing::carried(&"pisa".parse().unwrap(), 0);
        let to = to.map(|c| c.parse().unwrap());
        *carried = Some(Box::new(xos_api::aem::Carried { to, ..*of }));
    }
    table.apply(&record);
    job
}

/// If it failed, a unit that was stopped for this site would wait here without end, though it could
/// go on where it was; or be told to be not started after its node got it.
#[test]
fn what_goes_on_from_an_image_waits_here_for_a_while_only() {
    let (mut t, mut f) = (table(), clustered());
    took(&mut t, "1.pisa", 2, 2000);
    assert_eq!(run(&mut t, &f, 1), ["open 1 c1.rennes 2", "send 1 2"]);
    let job = came(&mut t, None);
    assert_eq!(run(&mut t, &f, 1001), [""; 0], "the cluster is full");
    let until = 1000 + u64::try_from(CAME_MAX.as_millis()).unwrap();
    assert_eq!(run(&mut t, &f, until - 1), [""; 0]);
    let back = plan(&t, &f, Millis(until));
    let not = |what: &Decision| matches!(what, Decision::NotStarted { .. });
    assert!(matches!(&back[..], [HostRecord::Decided { what, .. }] if not(what)), "{back:?}");
    t.apply(&back[0]);
    let p = t.placement(&job).unwrap();
    assert!(p.waiting.is_empty() && p.carried.is_empty() && p.came.is_empty());
    // One that was sent is its node's.
    f = clustered();
    let mut t = table();
    came(&mut t, None);
    assert_eq!(run(&mut t, &f, 1001), ["open 1 c1.rennes 1", "send 1 1"]);
    assert_eq!(run(&mut t, &f, until), [""; 0]);
}

/// If it failed, a unit would be stopped for a cluster that is full, because a node beside it, or
/// another cluster, has room.
#[test]
fn room_for_what_goes_on_is_room_in_the_cluster() {
    let (mut t, f) = (table(), clustered());
    let mut spec = testing::spec(&[("m", "0", &[])]);
    spec.tasks[0].checkpointable = true;
    let (vo, task) = (spec.vo.clone(), spec.tasks.remove(0));
    let room = |t: &HostTable, f: &Facts, only: Option<&str>| {
        let only: Option<ClusterId> = only.map(|c| c.parse().unwrap());
        has_room(t, f, &vo, &task, only.as_ref()).map_err(|r| (r.rule, r.later))
    };
    let busy = || Err(("busy".to_owned(), true));
    assert_eq!(room(&t, &f, None), Ok(()));
    assert_eq!(room(&t, &f, Some("c1.rennes")), Ok(()));
    assert_eq!(room(&t, &f, Some("c2.rennes")), busy());
    let told = |t: &HostTable| capacity(t, &f, &"pisa".parse().unwrap(), &[]).clusters;
    assert_eq!((told(&t).len(), told(&t)[0].cpu_free_milli), (1, 4000));
    took(&mut t, "1.pisa", 2, 2000);
    run(&mut t, &f, 1);
    // It has not begun yet, but has its place.
    assert_eq!(told(&t)[0].cpu_free_milli, 0);
    assert_eq!(room(&t, &f, None), busy());
    let mut poor = clustered();
    poor.shares.clear();
    assert_eq!(room(&table(), &poor, None), busy());
}
