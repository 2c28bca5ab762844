//! Units that leave for another cluster, and units that come from one.

use super::*;
use crate::cluster::messages::{Image, Offsets};
use crate::wire::{ClusterMay, Comer};
use xos_api::aem::Carried;
use xos_api::audit::{Event, Outcome};

impl World {
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
    let stays =
        again.service.leave(&c1(), &envelope(), (0, 0), Millis(1), false).await.unwrap_err();
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
