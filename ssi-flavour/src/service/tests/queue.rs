//! What waits, copies of checkpoints, and what the cluster does by itself.

use super::*;
use crate::cluster::messages::{Image, Line, Offsets, Written};
use xos_api::audit::{Event, Outcome};
use xos_api::cluster::{ClusterRun, ClusterTree, ClusterTreeState, RunInCluster};

/// With two processors: full, and with room for one more.
const FULL: u64 = 4000;
const ROOM: u64 = 3000;

fn waiting(member: u32, queue: bool) -> Waiting {
    let owner = Owner { vo: vo(), member: MemberNumber(member), uid: 100_000 + member };
    let run = RunInCluster {
        cluster: id(),
        vo: vo(),
        argv: vec!["/bin/hog".into()],
        env: BTreeMap::new(),
        cwd: "/".into(),
        node: None,
        restartable: false,
        checkpoint_s: None,
        queue,
        attached: false,
        shell: false,
        terminal: false,
        own_net: false,
        limits: TreeLimits::default(),
        umask: 0o022,
        mandate: None,
    };
    let wish = Wish { owner, restartable: false, interval: Interval::Best };
    Waiting { wish, person: "alice@rennes".parse().unwrap(), run }
}

impl World {
    async fn asks(&self, member: u32, queue: bool) -> Result<ClusterRun, Error> {
        let mut held = self.cluster().await;
        let c = &mut *held;
        self.service.placed(c, waiting(member, queue)).await
    }

    async fn trees(&self) -> Vec<ClusterTree> {
        self.cluster().await.tree_list(|_| true)
    }

    async fn states(&self) -> Vec<(u64, ClusterTreeState)> {
        self.trees().await.into_iter().map(|t| (t.tree, t.state)).collect()
    }

    async fn decide(&self, what: impl FnOnce(&mut Cluster) -> Vec<Effect>) {
        let mut held = self.cluster().await;
        let c = &mut *held;
        let effects = what(c);
        self.service.pass_on(c, effects).await;
    }

    fn noted(&self, what: &str) -> Vec<Event> {
        self.audit.events().into_iter().filter(|e| e.what == what).collect()
    }

    /// The orders that a node is told next, and who.
    async fn orders(&mut self) -> (NodeId, Vec<Order>) {
        let (to, tell) = self.told.recv().await.unwrap();
        let [ToNode::Told { orders, .. }] = tell.messages.as_slice() else { panic!("{tell:?}") };
        (to, orders.clone())
    }
}

/// If it failed, a program would be refused, overtaken or forgotten when all nodes are full.
#[tokio::test]
async fn what_finds_all_nodes_full_waits_for_its_turn() {
    use ClusterTreeState::{Queued, Starting};
    let mut world = cluster().await;
    for n in [1, 2] {
        world.beats(n, FULL, &[]).await.unwrap();
    }
    let refused = world.asks(1, false).await.unwrap_err();
    assert_eq!(refused.message, "all nodes of c1.rennes are full");
    for member in [1, 1, 2] {
        let run = world.asks(member, true).await.unwrap();
        assert_eq!((run.pid, run.node), (None, None));
    }
    world.turn().await;
    let trees = world.trees().await;
    assert_eq!(world.states().await, [(1, Queued), (2, Queued), (3, Queued)]);
    assert_eq!(trees[1].reason, "all nodes are full; 1 of the same member came before");
    // The core begins anew.
    let again = open(world.records.clone(), world.clock.clone()).await;
    {
        let (before, after) = (world.cluster().await, again.cluster().await);
        assert_eq!(before.controller.state(), after.controller.state());
        assert_eq!(before.waiting, after.waiting);
    }
    for started in [1, 3, 2] {
        world.beats(2, ROOM, &[]).await.unwrap();
        world.turn().await;
        let (to, orders) = world.orders().await;
        let start = Order::Start { tree: TreeId(started), epoch: 1 };
        assert!(to == node(2) && orders.contains(&start), "{to}: {orders:?}");
        let all = world.trees().await;
        let t = all.iter().find(|t| t.tree == started).unwrap();
        assert_eq!((t.state, &t.node), (Starting, &Some(node(2))));
        let two = NodeNumber::try_from(2u8).unwrap();
        assert!(t.pid.is_some_and(|pid| two.given_pids().contains(&pid)), "{t:?}");
    }
    let kept = world.records.kept.lock().unwrap()[&id()].clone();
    assert_eq!((kept.waiting.len(), kept.trees.len(), kept.programs.len()), (0, 3, 3));
    assert_eq!(world.noted("start_tree").len(), 3);
}

/// If it failed, somebody who comes just when a node has room would overtake who waits.
#[tokio::test]
async fn who_waits_goes_first() {
    let world = cluster().await;
    for n in [1, 2] {
        world.beats(n, FULL, &[]).await.unwrap();
    }
    let first = world.asks(1, true).await.unwrap();
    world.beats(1, ROOM, &[]).await.unwrap();
    let second = world.asks(2, true).await.unwrap();
    assert_eq!((first.pid, second.pid), (None, None));
    let states = [(1, ClusterTreeState::Starting), (2, ClusterTreeState::Queued)];
    assert_eq!(world.states().await, states);
}

/// If it failed, a program that was refused would run all the same, and twice when who asked asks
/// again.
#[tokio::test]
async fn what_was_refused_since_it_is_not_kept_does_not_run_later() {
    let world = cluster().await;
    for load in [ROOM, FULL] {
        for n in [1, 2] {
            world.beats(n, load, &[]).await.unwrap();
        }
        world.records.broken.store(true, Ordering::Relaxed);
        world.asks(1, load == FULL).await.unwrap_err();
        world.records.broken.store(false, Ordering::Relaxed);
        assert!(world.trees().await.is_empty());
        let heard = world.beats(1, ROOM, &[]).await.unwrap();
        assert!(heard.programs.is_empty(), "{heard:?}");
        world.turn().await;
        assert!(world.trees().await.is_empty());
        let kept = world.records.kept.lock().unwrap()[&id()].clone();
        assert_eq!((kept.trees.len(), kept.waiting.len(), kept.programs.len()), (0, 0, 0));
    }
    // Asked again, it runs once.
    let run = world.asks(1, false).await.unwrap();
    assert_eq!(world.states().await, [(run.tree, ClusterTreeState::Starting)]);
}

/// If it failed, one member could fill the core's memory, or what waits could not be ended.
#[tokio::test]
async fn what_waits_is_bounded_and_can_be_ended() {
    let config = Config { queue_per_member: 1, ..Config::default() };
    let world = cluster_as(config).await;
    for n in [1, 2] {
        world.beats(n, FULL, &[]).await.unwrap();
    }
    world.asks(1, true).await.unwrap();
    let more = world.asks(1, true).await.unwrap_err();
    assert!(more.message.contains("1 of yours wait already"), "{more}");
    world.asks(2, true).await.unwrap();
    world.decide(|c| c.controller.end(TreeId(1)).unwrap()).await;
    world.decide(|c| c.controller.drop_waiting(&BTreeSet::new())).await;
    let states = [(1, ClusterTreeState::Ended), (2, ClusterTreeState::Lost)];
    assert_eq!(world.states().await, states);
    let trees = world.trees().await;
    assert_eq!((trees[0].status, trees[0].pid), (Some(137), None));
    assert!(trees[1].reason.contains("demo.rennes is not served"), "{}", trees[1].reason);
    assert!(world.records.kept.lock().unwrap()[&id()].waiting.is_empty());
    let lost = world.noted("lose_tree");
    assert_eq!((lost.len(), lost[0].on.as_str()), (1, "c1.rennes: tree 2"));
    assert_eq!(lost[0].person, Some("alice@rennes".parse().unwrap()));
}

/// If it failed, a core that died between two steps would start a program twice, or lose it.
#[test]
fn half_of_a_change_loses_nothing_that_waits() {
    let mut kept = Kept::default();
    kept.apply(Change::Queued(TreeId(1), Box::new(waiting(1, true))));
    kept.apply(Change::Queued(TreeId(2), Box::new(waiting(2, true))));
    let state = kept.state(Millis(0));
    assert_eq!((state.trees.queue().len(), state.trees.next()), (2, TreeId(3)));
    let mut c = Cluster::new(id(), kept.clone(), Config::default().times().unwrap(), Millis(0));
    c.controller.add(&node(1), BTreeSet::from([vo()])).unwrap();
    let one = NodeNumber::try_from(1u8).unwrap();
    let join = ToController::Join { after: 0 };
    c.controller.message(one, &join, Millis(0));
    c.controller.prove(one, Moves::Yes, 1).unwrap();
    let images = Vec::new();
    let beat = ToController::Beat { term: 1, sent: Millis(0), copies: Vec::new(), images };
    c.controller.message(one, &beat, Millis(0));
    let effects = c.controller.begin(TreeId(1), 65_000, one, one).unwrap();
    c.take(effects, Millis(0));
    for change in c.changes() {
        if matches!(change, Change::Begun(_)) {
            let state = kept.state(Millis(0));
            assert!(state.trees.tree(TreeId(1)).is_some(), "it is kept before that it began");
            assert_eq!(state.trees.queue().len(), 1, "it is one or the other");
        }
        kept.apply(change);
        let state = kept.state(Millis(0));
        let waits = state.trees.queue().wish(TreeId(1)).is_some();
        assert_ne!(waits, state.trees.tree(TreeId(1)).is_some());
    }
    assert_eq!(kept.waiting.len(), 1);
}

/// If it failed, a checkpoint would stay on the node that made it, and nobody would see that.
#[tokio::test]
async fn a_checkpoint_is_fetched_by_a_second_node() {
    let mut world = cluster().await;
    let tree = world.runs_as(true).await;
    world.beats(1, 1000, &[tree]).await.unwrap();
    world.beats(2, 0, &[]).await.unwrap();
    world.decide(|c| c.controller.save(tree, Millis(0)).unwrap()).await;
    assert_eq!(world.orders().await.0, node(1));
    let one = NodeNumber::try_from(1u8).unwrap();
    let image = Image {
        version: 1,
        output: Offsets::default(),
        bytes: 1 << 20,
        freeze_ms: 20,
        still_ms: 20,
        nodes: BTreeSet::from([one]),
        shared: false,
        written: BTreeSet::new(),
        brief: BTreeSet::new(),
    };
    let facts = vec![Fact::Saved { tree, epoch: 1, image }];
    world.say(1, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    let copies = |trees: Vec<ClusterTree>| trees[0].checkpoint.as_ref().unwrap().copies;
    assert_eq!(copies(world.trees().await), 1);
    world.turn().await;
    let (from, owner) = (BTreeSet::from([one]), 100_001);
    let (upto, line) = (Offsets::default(), Line::default());
    let output = Some(Written { upto, line, at: vec![one] });
    let hold = Order::Hold { tree, attempt: 1, version: 1, from, owner, output };
    assert_eq!(world.orders().await, (node(2), vec![hold]));
    // It fails, and is not asked at once again.
    let reason = "no space left".to_owned();
    let facts = vec![Fact::NotHeld { tree, attempt: 1, reason }];
    world.say(2, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    world.decide(|c| c.turn(&Policy::default(), true, Millis(1000))).await;
    let c = world.cluster().await;
    let holding = |c: &Cluster| c.controller.state().trees.tree(tree).unwrap().holding.is_some();
    assert!(!holding(&c));
    let told = c.tree_view(tree).unwrap().trouble;
    assert!(told.contains("no space left"), "{told}");
    drop(c);
    world.decide(|c| c.turn(&Policy::default(), true, Millis(61_000))).await;
    let image = vec![Fact::Holds { tree, version: 1, output: false }];
    world.say(2, vec![ToController::Facts { term: 1, facts: image }], None).await.unwrap();
    assert_eq!(copies(world.trees().await), 1, "what it wrote is not there");
    world.decide(|c| c.turn(&Policy::default(), true, Millis(122_000))).await;
    let facts = vec![Fact::Holds { tree, version: 1, output: true }];
    world.say(2, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    assert_eq!(copies(world.trees().await), 2);
}

/// If it failed, nobody could look up later why a program moved, or where it was lost.
#[tokio::test]
async fn what_nobody_asked_for_is_in_the_audit() {
    let mut world = cluster().await;
    assert_eq!(world.noted("join_cluster_node").len(), 2);
    let tree = world.runs().await;
    world.beats(1, 1000, &[tree]).await.unwrap();
    world.beats(2, 0, &[]).await.unwrap();
    let one = NodeNumber::try_from(1u8).unwrap();
    world.decide(|c| c.controller.drain(one, true).unwrap()).await;
    world.turn().await;
    let image = Image {
        version: 1,
        output: Offsets::default(),
        bytes: 1,
        freeze_ms: 1,
        still_ms: 1,
        nodes: BTreeSet::from([one]),
        shared: false,
        written: BTreeSet::new(),
        brief: BTreeSet::new(),
    };
    let facts = vec![Fact::Dumped { tree, epoch: 1, attempt: 2, image }];
    world.say(1, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    let facts = vec![Fact::Restored { tree, epoch: 2 }];
    world.say(2, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    let moved = world.noted("migrate_tree");
    assert_eq!(moved.len(), 1, "{moved:?}");
    assert_eq!(moved[0].on, "c1.rennes: tree 1 from n1.rennes to n2.rennes");
    assert_eq!(moved[0].why, "n1.rennes is drained");
    assert_eq!(moved[0].who, "core of rennes");
    // The node dies, and it with it.
    world.clock.0.store(9_000, Ordering::Relaxed);
    world.turn().await;
    let failed = world.noted("lose_cluster_node");
    assert!(failed.iter().any(|e| e.on == "c1.rennes: n2.rennes"), "{failed:?}");
    let lost = world.noted("lose_tree");
    assert_eq!((lost.len(), lost[0].outcome), (1, Outcome::Failed));
    assert!(lost[0].why.contains("not to be restarted"), "{}", lost[0].why);
}
