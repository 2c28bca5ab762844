//! Units of jobs as trees, as the job service orders them.

use super::*;
use crate::cluster::messages::{End, Image, Offsets};
use crate::wire::{ClusterMay, Comer, TreeUse};
use xos_api::aem::{Carried, OutputStream, Resources, Stage, TaskSpec, UnitEnd};
use xos_api::audit::{Event, Outcome};
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

    /// The first unit is to leave, or what is left of it to go.
    async fn leave(&self, over: bool) {
        self.service.leave(&c1(), &envelope(), (0, 0), Millis(1), over).await.unwrap();
    }

    /// The first unit ran on a node and left. Its tree, and the node.
    async fn has_left(&mut self) -> (TreeId, u8) {
        self.service.start_units(&c1(), checkpointed(0, None), &alice()).await.unwrap();
        let (to, tell) = self.told.recv().await.unwrap();
        let (tree, n) = (tell.programs[0].0, if to == node(1) { 1 } else { 2 });
        let runs = Fact::Runs { tree, epoch: 1, floor: 1 };
        self.says(n, runs).await;
        self.leave(false).await;
        self.says(n, Fact::Dumped { tree, epoch: 1, attempt: 2, image: image(1, n) }).await;
        self.says(n, Fact::Gone { tree, epoch: 1 }).await;
        assert_eq!(self.state(tree).await, TreeState::Away);
        (tree, n)
    }

    async fn says(&self, n: u8, fact: Fact) -> ClusterHeard {
        self.say(n, vec![ToController::Facts { term: 1, facts: vec![fact] }], None).await.unwrap()
    }

    async fn state(&self, tree: TreeId) -> TreeState {
        self.cluster().await.controller.state().trees.tree(tree).unwrap().state.clone()
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

/// What a unit goes on from that left a cluster of that name.
fn carried(cluster: &str, pid: i32) -> Option<Box<Carried>> {
    let cluster: ClusterId = cluster.parse().unwrap();
    Some(Box::new(Carried {
        nodes: vec![cluster.site().node("n1").unwrap()],
        cluster,
        tree: 7,
        version: 3,
        key: "0".repeat(64),
        bytes: 1,
        pid,
        cpu_group: 1,
        base: 200_000,
        stdout_bytes: 30,
        stderr_bytes: 0,
        to: None,
    }))
}

/// One unit that is checkpointed, as the first attempt or one that goes on.
fn checkpointed(unit: u32, carried: Option<Box<Carried>>) -> StartUnits {
    let task = TaskSpec { checkpointable: true, ..order(1).task };
    let attempt = u16::from(carried.is_some());
    let units = vec![UnitOrder { unit, index: unit, attempt }];
    StartUnits { task, units, carried, ..order(1) }
}

/// An image that a node made and has.
fn image(version: u64, n: u8) -> Image {
    Image {
        version,
        output: Offsets { out: 30, err: 2 },
        bytes: 5,
        freeze_ms: 1,
        still_ms: 1,
        nodes: BTreeSet::from([NodeNumber::try_from(n).unwrap()]),
        shared: false,
        written: BTreeSet::new(),
        brief: BTreeSet::new(),
    }
}

/// If it failed, a unit whose node died could not be sent to another site until its own cluster had
/// tried for minutes; or one that its files keep would be tried at site after site.
#[tokio::test]
async fn a_unit_that_waits_as_a_checkpoint_leaves_at_once() {
    let mut world = offered().await;
    world.service.start_units(&c1(), checkpointed(0, None), &alice()).await.unwrap();
    let (to, tell) = world.told.recv().await.unwrap();
    let (tree, n) = (tell.programs[0].0, if to == node(1) { 1 } else { 2 });
    let other = 3 - n;
    world.says(n, Fact::Runs { tree, epoch: 1, floor: 1 }).await;
    let units = BTreeSet::from([0]);
    world.service.checkpoints(&c1(), &envelope(), &units, true).await.unwrap();
    world.says(n, Fact::Saved { tree, epoch: 1, image: image(1, n) }).await;
    world.says(other, Fact::Holds { tree, version: 1, output: true }).await;
    let reason = "n9 was silent".to_owned();
    let waits = TreeState::Checkpointed { reason, since: Millis(0) };
    let barred = "/xtreemfs/demo.rennes/a is shorter than it was";
    let as_kept = |barred: Option<String>| {
        let mut all = world.records.kept.lock().unwrap();
        let kept = all.get_mut(&id()).unwrap().trees.get_mut(&tree).unwrap();
        (kept.state, kept.barred) = (waits.clone(), barred);
    };
    as_kept(Some(barred.to_owned()));
    let again = open(world.records.clone(), world.clock.clone()).await;
    let stays = again.service.leave(&c1(), &envelope(), (0, 0), Millis(1), false).await.unwrap_err();
    assert_eq!(stays.kind, Kind::Conflict);
    assert!(stays.message.contains(barred), "{}", stays.message);
    as_kept(None);
    let again = open(world.records.clone(), world.clock.clone()).await;
    for n in [1, 2] {
        again.beats(n, 0, &[]).await.unwrap();
    }
    again.leave(false).await;
    assert_eq!(again.state(tree).await, TreeState::Away);
}

/// If it failed, a site could fill the disks of another one with images of units that came, or stop
/// its core with the number of an image.
#[tokio::test]
async fn what_comes_of_one_site_is_bounded_together() {
    let config = Config { takes_from: vec!["pisa".parse().unwrap()], ..Config::default() };
    let world = offered_as(config.clone()).await;
    let mut last = checkpointed(0, carried("c2.pisa", 40_000));
    last.carried.as_mut().unwrap().version = u64::MAX;
    let refused = world.service.start_units(&c1(), last, &alice()).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Invalid);
    let mut large = checkpointed(0, carried("c2.pisa", 40_000));
    large.task.resources.memory_bytes = GIB / 4;
    large.carried.as_mut().unwrap().bytes = GIB + (64 << 20) + 1;
    let refused = world.service.start_units(&c1(), large, &alice()).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Unsatisfiable);
    let first = || checkpointed(0, carried("c2.pisa", 40_000));
    world.service.start_units(&c1(), first(), &alice()).await.unwrap();
    {
        let mut all = world.records.kept.lock().unwrap();
        let mut units = all.get_mut(&id()).unwrap().units.values_mut();
        units.next().unwrap().carried.as_mut().unwrap().bytes = 128 * GIB;
    }
    let again = open_as(config, world.records.clone(), world.clock.clone()).await;
    let taken = again.service.start_units(&c1(), first(), &alice()).await.unwrap();
    assert_eq!(taken.new, 0, "what is here is not refused when it is sent again");
    let second = checkpointed(1, carried("c2.pisa", 40_001));
    let refused = again.service.start_units(&c1(), second, &alice()).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Unsatisfiable);
    assert!(refused.message.contains("from pisa"), "{}", refused.message);
}

/// If it failed, who signals a process of theirs would be told that it is not theirs, because a
/// program of somebody else came from another site with that pid.
#[tokio::test]
async fn of_two_processes_with_one_pid_each_person_means_their_own() {
    let config = Config { takes_from: vec!["pisa".parse().unwrap()], ..Config::default() };
    let mut world = offered_as(config).await;
    let comes = checkpointed(0, carried("c2.pisa", 40_000));
    world.service.start_units(&c1(), comes, &alice()).await.unwrap();
    world.turn().await;
    let came = world.told.recv().await.unwrap().1.programs[0].0;
    world.service.start_units(&c1(), checkpointed(1, None), &alice()).await.unwrap();
    let (to, tell) = world.told.recv().await.unwrap();
    let (own, n) = (tell.programs[0].0, if to == node(1) { 1 } else { 2 });
    world.says(n, Fact::Runs { tree: own, epoch: 1, floor: 1 }).await;
    world.beats(n, 0, &[own]).await.unwrap();
    let c = world.cluster().await;
    for tree in [came, own] {
        assert_eq!(c.tree_of(40_000, |other| other == tree), Some(tree));
    }
    assert_eq!(c.tree_of(40_000, |_| false), None);
}

/// If it failed, a unit of which its job was told that it stays would leave later, because that word
/// was lost on its way and asked for again; or never leave because it could not once.
#[tokio::test]
async fn a_wish_that_came_to_nothing_stops_no_unit_again() {
    let mut world = offered().await;
    world.service.start_units(&c1(), checkpointed(0, None), &alice()).await.unwrap();
    let (to, tell) = world.told.recv().await.unwrap();
    let (tree, n) = (tell.programs[0].0, if to == node(1) { 1 } else { 2 });
    world.says(n, Fact::Runs { tree, epoch: 1, floor: 1 }).await;
    let wish = async |at| {
        let (cluster, envelope) = (c1(), envelope());
        world.service.leave(&cluster, &envelope, (0, 0), Millis(at), false).await
    };
    wish(1).await.unwrap();
    wish(1).await.unwrap();
    let reason = "it holds a device".to_owned();
    world.says(n, Fact::Refused { tree, epoch: 1, attempt: 2, reason }).await;
    world.says(n, Fact::Runs { tree, epoch: 1, floor: 2 }).await;
    for _ in 0..3 {
        let stays = wish(1).await.unwrap_err();
        assert_eq!(stays.kind, Kind::Conflict);
        assert!(stays.message.contains("it holds a device"), "{}", stays.message);
        assert_eq!(world.state(tree).await, TreeState::Running);
    }
    wish(2).await.unwrap();
    assert!(matches!(world.state(tree).await, TreeState::Leaving { .. }));
}

/// If it failed, a core that is killed while it writes down that a unit left would begin it here again
/// while it runs at another site.
#[tokio::test]
async fn what_is_half_written_as_gone_is_gone() {
    let mut world = offered().await;
    let (tree, n) = world.has_left().await;
    let reason = "its node was silent".to_owned();
    let waits = TreeState::Checkpointed { reason, since: Millis(0) };
    let (made, since) = (Some(image(1, n)), Millis(0));
    let leaves = TreeState::Leaving { next: 2, version: 1, image: made, since };
    for state in [waits, leaves] {
        {
            let mut all = world.records.kept.lock().unwrap();
            all.get_mut(&id()).unwrap().trees.get_mut(&tree).unwrap().state = state;
        }
        let again = open(world.records.clone(), world.clock.clone()).await;
        assert_eq!(again.state(tree).await, TreeState::Away);
    }
}

/// If it failed, nobody could see afterwards who took a program's memory from this site, or tried
/// keys.
#[tokio::test]
async fn who_fetches_what_left_is_in_the_audit() {
    let mut world = offered().await;
    let (tree, n) = world.has_left().await;
    let reports = world.service.reports().await;
    let left = reports[0].1.events.iter().find_map(|e| match &e.what {
        UnitChange::Left { carried, .. } => Some(carried.key.clone()),
        _ => None,
    });
    let key = left.unwrap();
    let asks = |key: &str| ClusterMay {
        cluster: id(),
        tree,
        comer: Comer::Carried {
            node: "n7.pisa".parse().unwrap(),
            version: 1,
            key: key.to_owned(),
            vo: vo(),
            member: MemberNumber(1),
        },
    };
    let wrong = world.service.judged(&node(n), &asks(&"0".repeat(64))).await.unwrap_err();
    assert_eq!(wrong.kind, Kind::Denied);
    world.service.judged(&node(n), &asks(&key)).await.unwrap();
    let events = world.audit.events();
    let fetched: Vec<&Event> = events.iter().filter(|e| e.what == "fetch_image").collect();
    let [refused, done] = fetched.as_slice() else { panic!("{events:?}") };
    assert_eq!((refused.outcome, done.outcome), (Outcome::Refused, Outcome::Done));
    for event in [refused, done] {
        assert_eq!((event.who.as_str(), &event.node), ("node n7.pisa", &Some(node(n))));
        assert_eq!(event.person, Some("alice@rennes".parse().unwrap()));
        assert!(!format!("{event:?}").contains(&key), "a key in the audit");
    }
}

/// If it failed, what a removed person had in memory would lie on a node's disk for ever; or a unit
/// be lost because of a VO that is suspended for an hour.
#[tokio::test]
async fn what_left_of_who_is_no_member_goes_after_a_day() {
    let mut world = offered().await;
    let (tree, _) = world.has_left().await;
    let day = 24 * 3600 * 1000;
    for (now, gone, stays) in [(0, true, true), (10, false, true), (day, true, true)] {
        world.clock.0.store(now, Ordering::Relaxed);
        world.gone.0.store(gone, Ordering::Relaxed);
        world.service.look_at_vos().await.unwrap();
        assert_eq!(world.state(tree).await == TreeState::Away, stays, "at {now}");
    }
    world.clock.0.store(2 * day, Ordering::Relaxed);
    world.service.look_at_vos().await.unwrap();
    assert!(world.state(tree).await.is_final());
}

/// If it failed, a unit that left would run on here, never be told of, or its memory be given to
/// whoever asks.
#[tokio::test]
async fn a_unit_leaves_for_good_and_its_image_is_for_who_has_the_key() {
    let mut world = offered().await;
    world.service.start_units(&c1(), checkpointed(0, None), &alice()).await.unwrap();
    let (to, tell) = world.told.recv().await.unwrap();
    let (tree, n) = (tell.programs[0].0, if to == node(1) { 1 } else { 2 });
    let facts = |fact| vec![ToController::Facts { term: 1, facts: vec![fact] }];
    world.say(n, facts(Fact::Runs { tree, epoch: 1, floor: 1 }), None).await.unwrap();
    world.service.acknowledged(&c1(), &envelope(), 1).await;
    world.leave(false).await;
    world.leave(false).await;
    assert!(world.service.reports().await.is_empty());
    let dumped = Fact::Dumped { tree, epoch: 1, attempt: 2, image: image(1, n) };
    world.say(n, facts(dumped), None).await.unwrap();
    assert!(world.service.reports().await.is_empty(), "its copy is there yet");
    world.say(n, facts(Fact::Gone { tree, epoch: 1 }), None).await.unwrap();
    let reports = world.service.reports().await;
    let UnitChange::Left { carried, .. } = &reports[0].1.events[0].what else {
        panic!("{reports:?}")
    };
    assert!(carried.is_of(&"rennes".parse().unwrap()), "{carried:?}");
    assert_eq!((carried.stdout_bytes, carried.stderr_bytes, carried.base), (30, 2, 100_000));
    assert_eq!(carried.nodes, [to]);
    // A core that begins anew says the same, under the same key.
    let again = open(world.records.clone(), world.clock.clone()).await;
    for service in [&world.service, &again.service] {
        let c = service.clusters.of(&id()).await.unwrap();
        assert!(c.is_key_of(tree, 1, &carried.key) && !c.is_key_of(tree, 2, &carried.key));
        assert!(!c.is_key_of(tree, 1, &"0".repeat(64)) && !c.is_key_of(tree, 1, ""));
        assert_eq!(c.controller.state().trees.tree(tree).unwrap().state, TreeState::Away);
    }
    world.leave(true).await;
    let c = world.cluster().await;
    assert!(c.controller.state().trees.tree(tree).unwrap().state.is_final());
}

/// If it failed, sites would send running programs to one that does not take them, or a unit be
/// begun anew instead of going on, or two processes have one pid.
#[tokio::test]
async fn a_unit_that_comes_goes_on_from_its_image() {
    let config = Config { takes_from: vec!["pisa".parse().unwrap()], ..Config::default() };
    let mut world = offered_as(config).await;
    let stranger = checkpointed(0, carried("c1.delft", 40_000));
    let refused = world.service.start_units(&c1(), stranger, &alice()).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Unsatisfiable);
    let mut large = checkpointed(0, carried("c2.pisa", 40_000));
    large.carried.as_mut().unwrap().bytes = u64::MAX;
    let refused = world.service.start_units(&c1(), large, &alice()).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Unsatisfiable);
    let comes = || checkpointed(0, carried("c2.pisa", 40_000));
    for _ in 0..2 {
        world.service.start_units(&c1(), comes(), &alice()).await.unwrap();
    }
    world.turn().await;
    let (to, tell) = world.told.recv().await.unwrap();
    let [(tree, program)] = tell.programs.as_slice() else { panic!("{tell:?}") };
    assert_eq!((program.pid, program.carried.clone()), (Some(40_000), comes().carried));
    let [ToNode::Told { orders, .. }] = tell.messages.as_slice() else { panic!("{tell:?}") };
    let [Order::Restore { image, epoch: 2, .. }] = orders.as_slice() else { panic!("{orders:?}") };
    assert_eq!((image.version, image.output.out, image.shared), (3, 30, true));
    assert!(world.news().await.is_empty());
    let n = if to == node(1) { 1 } else { 2 };
    let facts = vec![Fact::Restored { tree: *tree, epoch: 2 }];
    world.say(n, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    assert_eq!(world.news().await, [(0, None)], "from here on it may have run");
    let taken = checkpointed(1, carried("c2.pisa", 40_000));
    world.service.start_units(&c1(), taken, &alice()).await.unwrap();
    let news = world.news().await;
    let (1, Some(UnitEnd::NotStarted { reason })) = &news[1] else { panic!("{news:?}") };
    assert!(reason.contains("pid 40000"), "{reason}");
}
