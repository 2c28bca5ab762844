//! The service with nodes that are played, and records in memory.

mod may;
mod queue;
mod rights;
mod shells;
mod trial;
mod units;

use super::clusters::Held;
use super::*;
use crate::cluster::interval::Interval;
use crate::cluster::members::Moves;
use crate::cluster::messages::{Fact, Order, TreeId};
use crate::cluster::place::Load;
use crate::cluster::trees::{Owner, TreeState, Wish};
use crate::wire::{
    ClusterForget, ClusterOutput, ClusterSignal, ClusterWhy, Obstacles, ProcessLook, ProcessMore,
    Program,
};
use async_trait::async_trait;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{Notify, mpsc};
use xos_api::Done;
use xos_api::aem::{OutputPart, ProcessLimits};
use xos_api::cda::{IssueTicket, IssuedTicket};
use xos_api::cluster::TreeLimits;
use xos_api::policy::{Action, Denial, Place};
use xos_base::{MemberNumber, Millis};
use xos_net::audit::Remembered;

#[derive(Default)]
struct Memory {
    kept: std::sync::Mutex<BTreeMap<ClusterId, Kept>>,
    broken: AtomicBool,
    /// Whether a cluster's changes take until `go`.
    slow: std::sync::Mutex<Option<ClusterId>>,
    entered: Notify,
    go: Notify,
}

#[async_trait]
impl Records for Memory {
    async fn load(&self) -> Result<BTreeMap<ClusterId, Kept>, Error> {
        Ok(self.kept.lock().unwrap().clone())
    }

    async fn keep(&self, cluster: &ClusterId, changes: &[Change]) -> Result<(), Error> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(Error::unavailable("no space left"));
        }
        let slow = self.slow.lock().unwrap().as_ref() == Some(cluster);
        if slow {
            self.entered.notify_one();
            self.go.notified().await;
        }
        let mut all = self.kept.lock().unwrap();
        let kept = all.entry(cluster.clone()).or_default();
        changes.iter().for_each(|change| kept.apply(change.clone()));
        Ok(())
    }
}

struct Played {
    told: mpsc::UnboundedSender<(NodeId, ClusterTell)>,
    signals: mpsc::UnboundedSender<(NodeId, ClusterSignal)>,
}

#[async_trait]
impl NodesOut for Played {
    async fn tell(&self, node: &NodeId, r: ClusterTell) -> Result<Done, Error> {
        self.told.send((node.clone(), r)).unwrap();
        Ok(Done {})
    }

    async fn signal(&self, node: &NodeId, r: ClusterSignal) -> Result<Done, Error> {
        self.signals.send((node.clone(), r)).unwrap();
        Ok(Done {})
    }

    async fn why(&self, _: &NodeId, _: ClusterWhy) -> Result<Obstacles, Error> {
        Ok(Obstacles::default())
    }

    async fn output(&self, node: &NodeId, r: ClusterOutput) -> Result<OutputPart, Error> {
        Ok(OutputPart::new(format!("{node} {} {}", r.tree, r.from), true))
    }

    async fn forget(&self, _: &NodeId, _: ClusterForget) -> Result<Done, Error> {
        Ok(Done {})
    }
}

struct Demo;

#[async_trait]
impl Vos for Demo {
    async fn served(&self) -> Result<Vec<ServedVo>, Error> {
        Ok(vec![ServedVo {
            vo: vo(),
            base: 100_000,
            size: 65_536,
            accepted: None,
            offered: None,
            serving: true,
            trouble: None,
        }])
    }

    async fn ticket(&self, home: &SiteId, r: IssueTicket) -> Result<IssuedTicket, Error> {
        if r.mandate == "void" {
            return Err(Error::denied("it has ended"));
        }
        let ticket = format!("{home}: {} at {} for {}", r.mandate, r.node, r.node_key);
        Ok(IssuedTicket { ticket, expires: Millis(900_000) })
    }
}

/// One that joined and was never heard.
#[async_trait]
impl Machines for Demo {
    async fn has(&self, node: &NodeId) -> Result<bool, Error> {
        Ok(node.as_str() == "quiet.rennes")
    }
}

impl Rules for Demo {
    fn judge(&self, _: &Membership, _: Action, _: &Place) -> Result<(), Denial> {
        Ok(())
    }
}

/// Who is a member: all, or from some moment on nobody.
#[derive(Default)]
struct Members(AtomicBool);

impl Standing for Members {
    fn effective(&self, m: &Membership, _: Millis) -> Result<Membership, Error> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::denied(format!("{} is not a member of {}", m.person, m.vo)));
        }
        Ok(m.clone())
    }
}

#[derive(Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::Relaxed))
    }

    fn up(&self) -> Millis {
        self.now()
    }
}

struct World {
    service: Arc<ClusterService>,
    records: Arc<Memory>,
    clock: Arc<Hand>,
    gone: Arc<Members>,
    audit: Arc<Remembered>,
    told: mpsc::UnboundedReceiver<(NodeId, ClusterTell)>,
    signals: mpsc::UnboundedReceiver<(NodeId, ClusterSignal)>,
}

fn vo() -> VoId {
    "demo.rennes".parse().unwrap()
}

fn id() -> ClusterId {
    "c1.rennes".parse().unwrap()
}

fn node(n: u8) -> NodeId {
    format!("n{n}.rennes").parse().unwrap()
}

async fn open(records: Arc<Memory>, clock: Arc<Hand>) -> World {
    open_as(Config::default(), records, clock).await
}

async fn open_as(config: Config, records: Arc<Memory>, clock: Arc<Hand>) -> World {
    let audit = Arc::<Remembered>::default();
    let gone = Arc::<Members>::default();
    let (tells, told) = mpsc::unbounded_channel();
    let (sends, signals) = mpsc::unbounded_channel();
    let nodes = Arc::new(Played { told: tells, signals: sends });
    let deps = Deps {
        site: "rennes".parse().unwrap(),
        clock: clock.clone(),
        records: records.clone(),
        nodes,
        machines: Arc::new(Demo),
        vos: Arc::new(Demo),
        rules: Arc::new(Demo),
        standing: gone.clone(),
        audit: audit.clone(),
    };
    let service = ClusterService::start(config, deps).await.unwrap();
    World { service, records, clock, gone, audit, told, signals }
}

/// A cluster with two nodes that are online.
async fn cluster() -> World {
    cluster_as(Config::default()).await
}

async fn cluster_as(config: Config) -> World {
    let world = open_as(config, Arc::default(), Arc::default()).await;
    {
        let times = world.service.times;
        let mut c = Cluster::new(id(), Kept::default(), times, Millis(0));
        c.settings_changed();
        let mut effects = Vec::new();
        for n in [1, 2] {
            effects.extend(c.controller.add(&node(n), BTreeSet::from([vo()])).unwrap());
        }
        world.service.commit(&mut c, effects).await.unwrap();
        world.service.clusters.insert(c);
    }
    for n in [1, 2] {
        let heard = world.say(n, vec![ToController::Join { after: 0 }], None).await.unwrap();
        assert_eq!(heard.messages, [ToNode::Admitted { after: 0, term: 1 }]);
        let seat = heard.seat.unwrap();
        assert_eq!((u8::from(seat.number), seat.nodes.len()), (n, 2));
        world.beats(n, 0, &[]).await.unwrap();
    }
    world
}

impl World {
    async fn cluster(&self) -> Held {
        self.service.clusters.of(&id()).await.unwrap()
    }

    /// Time went by for all clusters.
    async fn turn(&self) {
        for (_, cluster) in self.service.clusters.list() {
            self.service.turn(&cluster).await;
        }
    }

    async fn say(
        &self,
        n: u8,
        messages: Vec<ToController>,
        looks: Option<NodeLooks>,
    ) -> Result<ClusterHeard, Error> {
        let say = ClusterSay { messages, looks, used: Vec::new(), clock: None };
        self.service.say(&node(n), say).await
    }

    /// A heartbeat of a node with so many processes that want to run, and these of trees.
    async fn beats(&self, n: u8, load: u64, trees: &[TreeId]) -> Result<ClusterHeard, Error> {
        let process = |tree: &TreeId| ProcessLook {
            pid: 40_000,
            parent: 1,
            tree: *tree,
            uid: 100_001,
            command: "hog".into(),
            state: 'R',
            cpu_milli: 1000,
            memory_bytes: 1 << 20,
            more: ProcessMore::default(),
        };
        let looks = NodeLooks {
            load: Load { mean: load, upper: load },
            cpus: 2,
            memory_bytes: 1 << 30,
            memory_free_bytes: 1 << 29,
            moves: Some(Moves::Yes),
            cpu_group: 1,
            cpu_words: String::new(),
            limit_s: 0,
            cpu_times: Vec::new(),
            processes: trees.iter().map(process).collect(),
        };
        let beat = ToController::Beat {
            term: 1,
            sent: self.clock.now(),
            copies: trees.iter().map(|tree| (*tree, 1)).collect(),
            images: Vec::new(),
        };
        self.say(n, vec![beat], Some(looks)).await
    }

    /// Places a program on the first node, and has it run.
    async fn runs(&mut self) -> TreeId {
        self.runs_as(false).await
    }

    async fn runs_as(&mut self, restartable: bool) -> TreeId {
        let owner = Owner { vo: vo(), member: MemberNumber(1), uid: 100_001 };
        let wish = Wish { owner, restartable, interval: Interval::Best };
        let one = NodeNumber::try_from(1u8).unwrap();
        let tree = {
            let mut held = self.cluster().await;
            let c = &mut *held;
            let pid = c.free_pid(one).unwrap();
            let (tree, effects) = c.controller.start(pid, &wish, one, one).unwrap();
            c.programs.insert(tree, program(pid));
            self.service.pass_on(c, effects).await;
            tree
        };
        let (to, tell) = self.told.recv().await.unwrap();
        assert_eq!((to, tell.programs.len()), (node(1), 1));
        let [ToNode::Told { orders, .. }] = tell.messages.as_slice() else { panic!("{tell:?}") };
        assert_eq!(orders.as_slice(), [Order::Start { tree, epoch: 1 }]);
        let facts = vec![Fact::Runs { tree, epoch: 1, floor: 1 }];
        self.say(1, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
        tree
    }
}

pub(super) fn program(pid: i32) -> Program {
    Program {
        argv: vec!["/bin/hog".into()],
        env: BTreeMap::new(),
        cwd: "/".into(),
        umask: 0o022,
        vo: vo(),
        person: "alice@rennes".parse().unwrap(),
        member: MemberNumber(1),
        uid: 100_001,
        terminal: false,
        attached: false,
        shell: false,
        own_net: false,
        limits: TreeLimits::default(),
        each: ProcessLimits::default(),
        staged: None,
        pid: Some(pid),
        birth: node(1),
        unit: None,
        mandate: None,
        carried: None,
    }
}

/// If it failed, a core that is started again would not know what runs where, and start it twice.
#[tokio::test]
async fn a_core_that_begins_anew_knows_what_runs() {
    let mut world = cluster().await;
    let tree = world.runs().await;
    let again = open(world.records.clone(), world.clock.clone()).await;
    let (before, after) = (world.cluster().await, again.cluster().await);
    assert_eq!(before.controller.state(), after.controller.state());
    let t = after.controller.state().trees.tree(tree).unwrap();
    assert_eq!((&t.state, t.confirmed), (&TreeState::Running, true));
    assert_eq!(after.programs, before.programs);
    // Who follows it asks there.
    assert_eq!(after.tree_view(tree).unwrap().output_at, Some(node(1)));
    assert_eq!(after.owner(tree).unwrap().member, MemberNumber(1));
    // A pid of the node's that the kernel does not give.
    assert!(NodeNumber::try_from(1u8).unwrap().given_pids().contains(&t.root));
}

/// If it failed, a node could do what the core forgets with the next power cut.
#[tokio::test]
async fn nobody_is_told_what_is_not_kept() {
    let mut world = cluster().await;
    let tree = world.runs().await;
    world.records.broken.store(true, Ordering::Relaxed);
    let end = crate::cluster::messages::End::Exit { code: 3 };
    let facts = vec![Fact::Ended { tree, epoch: 1, end, why: String::new() }];
    let said = vec![ToController::Facts { term: 1, facts }];
    world.say(1, said, None).await.unwrap_err();
    world.beats(1, 0, &[]).await.unwrap_err();
    world.records.broken.store(false, Ordering::Relaxed);
    let heard = world.beats(1, 0, &[]).await.unwrap();
    let kept = world.records.kept.lock().unwrap()[&id()].trees[&tree].state.clone();
    assert_eq!(kept, TreeState::Ended(end));
    let [ToNode::Told { orders, .. }] = heard.messages.as_slice() else { panic!("{heard:?}") };
    assert!(matches!(orders.as_slice(), [Order::Finish { .. }]), "{orders:?}");
    // Its ghost has ended: only the list of those that are over has it.
    let facts = vec![Fact::Finished { tree }];
    world.say(1, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    let listed = world.cluster().await.tree_list(|_| true);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].status, Some(3));
    assert!(world.records.kept.lock().unwrap()[&id()].programs.is_empty());
}

/// If it failed, a node would be emptied by ending what runs there, or never.
#[tokio::test]
async fn a_drained_node_sends_its_programs_away() {
    let mut world = cluster().await;
    let tree = world.runs().await;
    world.beats(1, 1000, &[tree]).await.unwrap();
    world.beats(2, 0, &[]).await.unwrap();
    {
        let mut held = world.cluster().await;
        let c = &mut *held;
        assert_eq!(c.tree_of(40_000, |_| true), Some(tree));
        let effects = c.controller.drain(NodeNumber::try_from(1u8).unwrap(), true).unwrap();
        world.service.pass_on(c, effects).await;
    }
    world.turn().await;
    let (to, tell) = world.told.recv().await.unwrap();
    let [ToNode::Told { orders, .. }] = tell.messages.as_slice() else { panic!("{tell:?}") };
    let dump = Order::Dump { tree, epoch: 1, attempt: 2, version: 1, lasts: false };
    assert_eq!((to, orders.as_slice()), (node(1), [dump].as_slice()));
    // It says that it cannot: the tree is left alone for a while, and people see why.
    let reason = "it holds a device".to_owned();
    let facts = vec![Fact::Refused { tree, epoch: 1, attempt: 2, reason: reason.clone() }];
    world.say(1, vec![ToController::Facts { term: 1, facts }], None).await.unwrap();
    let mut held = world.cluster().await;
    let c = &mut *held;
    assert_eq!(c.tree_view(tree).unwrap().trouble, reason);
    let facts = vec![Fact::Runs { tree, epoch: 1, floor: 2 }];
    let runs = ToController::Facts { term: 1, facts };
    let one = NodeNumber::try_from(1u8).unwrap();
    let effects = c.controller.message(one, &runs, Millis(0));
    world.service.commit(c, effects).await.unwrap();
    assert!(c.turn(&Policy::default(), true, Millis(1000)).is_empty());
    assert!(!c.turn(&Policy::default(), true, Millis(301_000)).is_empty());
}

/// If it failed, who is not in a cluster could have its programs and their secrets.
#[tokio::test]
async fn who_left_or_never_was_in_is_told_nothing() {
    let world = cluster().await;
    let join = || vec![ToController::Join { after: 0 }];
    assert_eq!(world.say(3, join(), None).await.unwrap(), ClusterHeard::default());
    {
        let mut held = world.cluster().await;
        let c = &mut *held;
        c.settings.left.insert(NodeNumber::try_from(2u8).unwrap());
        c.settings_changed();
        world.service.commit(c, Vec::new()).await.unwrap();
    }
    assert_eq!(world.beats(2, 0, &[]).await.unwrap(), ClusterHeard::default());
    let again = open(world.records.clone(), world.clock.clone()).await;
    assert_eq!(again.beats(2, 0, &[]).await.unwrap(), ClusterHeard::default());
    let seats = [1, 2].map(|n| again.service.clusters.seat_of(&node(n)));
    assert_eq!(seats, [Some(id()), None], "another cluster may have it now");
}

/// If it failed, a disk that is slow to keep one cluster would have all of a site stand still, and
/// their nodes stop what they run since they hear nothing.
#[tokio::test]
async fn a_cluster_that_is_slow_to_be_kept_holds_up_no_other() {
    let world = cluster().await;
    let other: ClusterId = "c2.rennes".parse().unwrap();
    let mut c = Cluster::new(other.clone(), Kept::default(), world.service.times, Millis(0));
    let effects = c.controller.add(&node(3), BTreeSet::from([vo()])).unwrap();
    world.service.commit(&mut c, effects).await.unwrap();
    world.service.clusters.insert(c);
    *world.records.slow.lock().unwrap() = Some(other.clone());
    let service = world.service.clone();
    let messages = vec![ToController::Join { after: 0 }];
    let joins = ClusterSay { messages, looks: None, used: Vec::new(), clock: None };
    let slow = tokio::spawn(async move { service.say(&node(3), joins).await });
    world.records.entered.notified().await;
    let others = async {
        let heard = world.beats(1, 0, &[]).await.unwrap();
        assert_eq!(heard.seat.unwrap().cluster, id());
        let (_, first) = world.service.clusters.list().remove(0);
        world.service.turn(&first).await;
    };
    tokio::time::timeout(Duration::from_secs(60), others).await.expect("they are held up");
    assert!(!slow.is_finished());
    *world.records.slow.lock().unwrap() = None;
    world.records.go.notify_one();
    assert_eq!(slow.await.unwrap().unwrap().seat.unwrap().cluster, other);
}

/// If it failed, two programs would have one pid, or a node that had many would get no more.
#[tokio::test]
async fn pids_go_around_and_none_is_given_twice() {
    let mut world = cluster().await;
    let tree = world.runs().await;
    let mut held = world.cluster().await;
    let c = &mut *held;
    let one = NodeNumber::try_from(1u8).unwrap();
    let root = c.controller.state().trees.tree(tree).unwrap().root;
    let given: Vec<i32> = (0..one.given_pids().count()).filter_map(|_| c.free_pid(one)).collect();
    assert!(!given.contains(&root), "it is taken");
    let distinct: BTreeSet<i32> = given.iter().copied().collect();
    assert_eq!(distinct.len(), one.given_pids().count() - 1, "all others, in turn");
}

/// If it failed, a checkpoint that was waiting when the core's machine was started anew would wait
/// for as long as that machine had run before.
#[tokio::test]
async fn what_began_before_a_new_start_is_not_in_the_future() {
    let mut world = cluster().await;
    let tree = world.runs().await;
    {
        let mut all = world.records.kept.lock().unwrap();
        let t = all.get_mut(&id()).unwrap().trees.get_mut(&tree).unwrap();
        let (reason, since) = ("n1.rennes was silent".to_owned(), Millis(1_000_000_000));
        t.state = TreeState::Checkpointed { reason, since };
    }
    world.clock.0.store(5000, Ordering::Relaxed);
    let again = open(world.records.clone(), world.clock.clone()).await;
    let c = again.cluster().await;
    let t = c.controller.state().trees.tree(tree).unwrap();
    let TreeState::Checkpointed { since, .. } = &t.state else { panic!("{t:?}") };
    assert_eq!(*since, Millis(5000));
}
