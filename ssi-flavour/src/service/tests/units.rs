//! Units of jobs as trees, as the job service orders them.

mod leave;

use super::*;
use crate::cluster::messages::End;
use crate::wire::TreeUse;
use xos_api::aem::{OutputStream, Resources, Stage, TaskSpec, UnitEnd};
use xos_api::node::units::{
    EndEnvelope, EnvelopeId, KillUnits, Room, StartUnits, UnitChange, UnitOrder, UnitOutput,
};
use xos_base::{Epoch, Kind};
use xos_net::Clusters;

const GIB: u64 = 1 << 30;

fn c1() -> NodeId {
    "c1.rennes".parse().unwrap()
}

fn envelope() -> EnvelopeId {
    EnvelopeId { job: "12.pisa".parse().unwrap(), serial: 1 }
}

fn alice() -> Membership {
    Membership {
        vo: vo(),
        person: "alice@rennes".parse().unwrap(),
        number: MemberNumber(1),
        epoch: Epoch(1),
        groups: vec![],
        roles: vec![],
        expires: None,
    }
}

/// Units of one processor each, two at a time.
fn order(units: u32) -> StartUnits {
    let task = TaskSpec { name: "main".into(), argv: vec!["sim".into()], ..TaskSpec::default() };
    StartUnits {
        envelope: envelope(),
        vo: vo(),
        site: "rennes".parse().unwrap(),
        ticket: String::new(),
        room: Room { slots: 2, cpu_milli: 2000, memory_bytes: GIB },
        task,
        units: (0..units).map(|unit| UnitOrder { unit, index: unit, attempt: 0 }).collect(),
        want_output: false,
        carried: None,
    }
}

/// A cluster of a node with two processors and one with one.
async fn offered() -> World {
    offered_as(Config::default()).await
}

async fn offered_as(config: Config) -> World {
    let world = cluster_as(config).await;
    for (n, cpu_milli) in [(1, 2000), (2, 1000)] {
        let capacity = Capacity { cpu_milli, memory_bytes: GIB, arch: "x86_64".into() };
        world.service.hears(&node(n), &capacity);
    }
    world.turn().await;
    world
}

impl World {
    /// Two units run, one on each node, and a third waits. Their trees.
    async fn two_run(&mut self) -> [TreeId; 2] {
        let taken = self.service.start_units(&c1(), order(3), &alice()).await.unwrap();
        assert_eq!(taken.new, 3);
        let mut started = BTreeMap::new();
        for _ in 0..2 {
            let (to, tell) = self.told.recv().await.unwrap();
            let [(tree, program)] = tell.programs.as_slice() else { panic!("{tell:?}") };
            assert_eq!(program.env["XOS_NODE"], "c1.rennes");
            let unit = program.unit.as_ref().unwrap().unit;
            assert_eq!(program.env["XOS_UNIT_INDEX"], unit.to_string());
            started.insert(to, *tree);
        }
        let trees = [started[&node(1)], started[&node(2)]];
        for (n, tree) in [(1, trees[0]), (2, trees[1])] {
            let facts = vec![Fact::Runs { tree, epoch: 1, floor: 1 }];
            self.say(n, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
        }
        trees
    }

    async fn ends(&self, n: u8, tree: TreeId, end: End) -> ClusterHeard {
        let facts = vec![Fact::Ended { tree, epoch: 1, end, why: String::new() }];
        self.say(n, vec![ToController::Facts { term: 1, facts }], None).await.unwrap()
    }

    /// What is not acknowledged: units, and how they ended.
    async fn news(&self) -> Vec<(u32, Option<UnitEnd>)> {
        let reports = self.service.reports().await;
        let events = reports.into_iter().flat_map(|(_, r)| r.events);
        let told = events.map(|e| match e.what {
            UnitChange::Started => (e.unit, None),
            UnitChange::Ended { how, .. } => (e.unit, Some(how)),
            left @ UnitChange::Left { .. } => panic!("{left:?}"),
        });
        told.collect()
    }
}

/// If it failed, jobs would be sent more than a cluster has, or units that fit on no node of it.
#[tokio::test]
async fn a_cluster_offers_what_its_nodes_do() {
    let world = offered().await;
    let offers = world.service.news().borrow().offers.clone();
    let offer = &offers[&c1()];
    let sum = Capacity { cpu_milli: 3000, memory_bytes: 2 * GIB, arch: "x86_64".into() };
    assert_eq!((&offer.capacity, offer.largest), (&sum, (2000, GIB)));
    assert_eq!(offer.nodes, BTreeSet::from([node(1), node(2)]));
    assert_eq!(offer.key.len(), 64);
    let arm = Capacity { cpu_milli: 1000, memory_bytes: GIB, arch: "arm".into() };
    world.service.hears(&node(2), &arm);
    world.turn().await;
    assert_eq!(world.service.news().borrow().offers[&c1()].capacity.arch, "other");
    let is_node = async |name: &str| world.service.is_node(name).await.unwrap();
    assert!(is_node("n1.rennes").await && !is_node("n9.rennes").await);
}

/// If it failed, units in a cluster would run twice, more at a time than their job has room for, or
/// never be known to have ended.
#[tokio::test]
async fn units_run_as_trees_and_are_reported() {
    let mut world = offered().await;
    let trees = world.two_run().await;
    assert_eq!(world.news().await, [(0, None), (1, None)]);
    let again = world.service.start_units(&c1(), order(3), &alice()).await.unwrap();
    assert_eq!(again.new, 0, "sent again, nothing is started");
    let nodes = world.service.nodes_of(&c1(), &envelope()).await;
    assert_eq!(nodes, BTreeSet::from([node(1), node(2)]));
    // The end of one makes room for the third.
    let heard = world.ends(1, trees[0], End::Exit { code: 3 }).await;
    let [(third, program)] = heard.programs.as_slice() else { panic!("{heard:?}") };
    assert_eq!((program.unit.as_ref().unwrap().unit, program.uid), (2, 100_001));
    world.service.acknowledged(&c1(), &envelope(), 2).await;
    assert_eq!(world.news().await, [(0, Some(UnitEnd::Exit { code: 3 }))]);
    // A core that begins anew knows all of it, and reports from the beginning.
    let again = open(world.records.clone(), world.clock.clone()).await;
    let has = again.service.list_envelopes(&c1()).await.unwrap();
    assert_eq!((has.envelopes[0].envelope.clone(), has.envelopes[0].last), (envelope(), 3));
    let told = [(0, None), (1, None), (0, Some(UnitEnd::Exit { code: 3 }))];
    assert_eq!(again.news().await, told);
    let c = again.cluster().await;
    assert_eq!(c.programs.keys().max(), Some(third));
    assert!(c.units.waiting().is_empty(), "nothing is started a second time");
}

/// If it failed, the users of a job would see a status of 126, and the reason be in a node's log;
/// or a unit that never began would count as one that ran.
#[tokio::test]
async fn why_a_node_did_not_start_a_unit_is_reported() {
    let mut world = offered().await;
    world.service.start_units(&c1(), order(1), &alice()).await.unwrap();
    let (to, tell) = world.told.recv().await.unwrap();
    let [(tree, _)] = tell.programs.as_slice() else { panic!("{tell:?}") };
    let (n, end) = (if to == node(1) { 1 } else { 2 }, End::Exit { code: 126 });
    let why = format!("its account is another's: {}", "ä".repeat(450));
    let facts = vec![Fact::Ended { tree: *tree, epoch: 1, end, why: why.clone() }];
    world.say(n, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    let news = world.news().await;
    let [(0, Some(UnitEnd::NotStarted { reason }))] = news.as_slice() else { panic!("{news:?}") };
    assert!(reason.len() > 100 && why.starts_with(reason.as_str()), "{reason}");
    let again = open(world.records.clone(), world.clock.clone()).await;
    assert_eq!(again.news().await, news, "it is kept");
}

/// If it failed, units would run on although their person cancelled them, and their envelope stay
/// for ever.
#[tokio::test]
async fn units_are_killed_and_envelopes_end() {
    let mut world = offered().await;
    let trees = world.two_run().await;
    let kill = KillUnits { envelope: envelope(), units: Some(vec![1, 2]), grace_ms: 1000 };
    world.service.kill_units(&c1(), kill.clone()).await.unwrap();
    let (to, signal) = world.signals.recv().await.unwrap();
    assert_eq!((to, signal.tree, signal.signal), (node(2), trees[1], 15));
    world.service.kill_units(&c1(), kill).await.unwrap();
    world.clock.0.store(2000, Ordering::Relaxed);
    world.turn().await;
    let (to, signal) = world.signals.recv().await.unwrap();
    assert_eq!((to, signal.tree, signal.signal), (node(2), trees[1], 9), "asked once, then killed");
    world.ends(2, trees[1], End::Signal { number: 9 }).await;
    let cancelled = || Some(UnitEnd::Cancelled);
    let told = [(0, None), (1, None), (2, cancelled()), (1, cancelled())];
    assert_eq!(world.news().await, told, "one that waited ends without having begun");
    let end = || EndEnvelope { envelope: envelope() };
    let running = world.service.end_envelope(&c1(), end()).await.unwrap_err();
    assert_eq!(running.kind, Kind::Unavailable);
    let more = world.service.start_units(&c1(), order(9), &alice()).await.unwrap_err();
    assert_eq!(more.kind, Kind::Unavailable);
    world.ends(1, trees[0], End::Exit { code: 0 }).await;
    let ghosts = world.service.end_envelope(&c1(), end()).await.unwrap_err();
    assert_eq!(ghosts.kind, Kind::Unavailable);
    for (n, tree) in [(1, trees[0]), (2, trees[1])] {
        let facts = vec![Fact::Finished { tree }];
        world.say(n, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    }
    world.service.end_envelope(&c1(), end()).await.unwrap();
    assert!(world.service.list_envelopes(&c1()).await.unwrap().envelopes.is_empty());
    {
        let kept = world.records.kept.lock().unwrap();
        let kept = &kept[&id()];
        assert!(kept.envelopes.is_empty() && kept.tasks.is_empty() && kept.units.is_empty());
    }
    world.service.end_envelope(&c1(), end()).await.unwrap();
}

/// If it failed, output would be read at a node that does not have it, or a unit that fails at once
/// would be tried where it cannot run.
#[tokio::test]
async fn output_is_where_a_tree_was_born_and_the_impossible_is_refused() {
    let mut world = offered().await;
    let trees = world.two_run().await;
    let read = |unit| UnitOutput {
        envelope: envelope(),
        unit,
        attempt: 0,
        stream: OutputStream::Stdout,
        offset: 7,
        limit: 100,
    };
    let part = world.service.unit_output(&c1(), read(1)).await.unwrap();
    assert_eq!((part.data, part.eof), (format!("n2.rennes {} 7", trees[1]), false));
    world.ends(2, trees[1], End::Exit { code: 0 }).await;
    assert!(world.service.unit_output(&c1(), read(1)).await.unwrap().eof);
    assert_eq!(world.service.unit_output(&c1(), read(9)).await.unwrap_err().kind, Kind::NotFound);
    let mut hungry = order(1);
    hungry.task.limits.processes = Some(1 << 20);
    let refused = world.service.start_units(&c1(), hungry, &alice()).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Unsatisfiable);
    let beyond = Membership { number: MemberNumber(65_536), ..alice() };
    let refused = world.service.start_units(&c1(), order(1), &beyond).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Denied);
}

/// If it failed, a unit would take more of a node than its job has room for, run without its files,
/// or have what it used forgotten when it moves.
#[tokio::test]
async fn a_unit_has_its_limits_and_files_and_what_it_used_is_told() {
    let mut world = offered().await;
    let mut one = order(1);
    one.task.resources = Resources { memory_bytes: GIB / 2, ..Resources::default() };
    one.task.limits = ProcessLimits { processes: Some(9), open_files: Some(64), ..one.task.limits };
    one.task.stage_in = vec![Stage { name: "a".into(), volume: "in/a".into(), ..Stage::default() }];
    world.service.start_units(&c1(), one, &alice()).await.unwrap();
    let (to, tell) = world.told.recv().await.unwrap();
    let [(tree, program)] = tell.programs.as_slice() else { panic!("{tell:?}") };
    let limits =
        TreeLimits { cpu_milli: Some(1000), memory_bytes: Some(GIB / 2), processes: Some(10) };
    assert_eq!(program.limits, limits, "who copies its files is one process more");
    assert_eq!(program.each.open_files, Some(64));
    assert_eq!(program.staged.as_ref().unwrap().stage_in[0].volume, "in/a");
    assert_eq!(program.cwd, "jobs/12.pisa/0");
    let (tree, n) = (*tree, if to == node(1) { 1 } else { 2 });
    let says = async |epoch, cpu_ms, memory_bytes, facts| {
        let used = vec![TreeUse { tree, epoch, cpu_ms, memory_bytes }];
        let messages = vec![ToController::Facts { term: 1, facts }];
        let say = ClusterSay { messages, looks: None, used, clock: None };
        world.service.say(&node(n), say).await.unwrap()
    };
    says(1, 700, 5000, vec![Fact::Runs { tree, epoch: 1, floor: 1 }]).await;
    // No copy of it, and what is older.
    says(9, 1 << 40, 1 << 40, vec![]).await;
    says(1, 600, 4000, vec![]).await;
    let (end, why) = (End::OutOfMemory, String::new());
    says(1, 900, 4000, vec![Fact::Ended { tree, epoch: 1, end, why }]).await;
    let reports = world.service.reports().await;
    let UnitChange::Ended { how, usage, .. } = &reports[0].1.events[1].what else {
        panic!("{reports:?}")
    };
    assert_eq!((how, usage.cpu_ms, usage.memory_bytes), (&UnitEnd::OutOfMemory, 900, 5000));
}

/// If it failed, a unit could use its processors for ever.
#[tokio::test]
async fn a_unit_that_runs_too_long_is_ended() {
    let mut world = offered().await;
    let mut long = order(1);
    long.task.resources.wall_time_s = Some(10);
    world.service.start_units(&c1(), long, &alice()).await.unwrap();
    let (_, tell) = world.told.recv().await.unwrap();
    let tree = tell.programs[0].0;
    let facts = vec![Fact::Runs { tree, epoch: 1, floor: 1 }];
    world.say(1, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    for (now, signal) in [(10_000, 15), (16_000, 9)] {
        world.clock.0.store(now, Ordering::Relaxed);
        world.beats(1, 0, &[tree]).await.unwrap();
        world.turn().await;
        assert_eq!(world.signals.recv().await.unwrap().1.signal, signal);
    }
    world.ends(1, tree, End::Signal { number: 9 }).await;
    assert_eq!(world.news().await, [(0, None), (0, Some(UnitEnd::WallTime))]);
}

/// If it failed, nobody could tell how much of a unit's work a failed node would cost.
#[tokio::test]
async fn a_unit_is_checkpointed_when_asked() {
    let mut world = offered().await;
    let mut one = order(1);
    one.task.checkpointable = true;
    world.service.start_units(&c1(), one, &alice()).await.unwrap();
    let (_, tell) = world.told.recv().await.unwrap();
    let tree = tell.programs[0].0;
    let facts = vec![Fact::Runs { tree, epoch: 1, floor: 1 }];
    world.say(1, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    let units = BTreeSet::from([0, 7]);
    let told = world.service.checkpoints(&c1(), &envelope(), &units, true).await.unwrap();
    assert_eq!(told.len(), 1, "of units that do not run nothing is told");
    assert_eq!((told[0].unit, told[0].version, told[0].saving), (0, None, true));
    let image = crate::cluster::messages::Image {
        version: 1,
        output: crate::cluster::messages::Offsets::default(),
        bytes: 4096,
        freeze_ms: 12,
        still_ms: 12,
        nodes: BTreeSet::from([NodeNumber::try_from(1u8).unwrap()]),
        shared: false,
        written: BTreeSet::new(),
        brief: BTreeSet::new(),
    };
    let facts = vec![Fact::Saved { tree, epoch: 1, image }];
    world.say(1, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    world.clock.0.store(700, Ordering::Relaxed);
    let told = world.service.checkpoints(&c1(), &envelope(), &units, false).await.unwrap();
    let last = (told[0].version, told[0].bytes, told[0].freeze_ms, told[0].age_ms);
    assert_eq!((last, told[0].saving), ((Some(1), 4096, 12, Some(700)), false));
}
