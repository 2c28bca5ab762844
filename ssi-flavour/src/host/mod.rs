//! A node at work in a cluster: the agent decides, this does it, with a cell, CRIU and relays.
//!
//! Output of every tree goes through its relay to the spool of the node where it was born
//! ([`crate::ghost::spool`]); when that node is lost, to one at the node where it runs, which
//! begins with what was kept with its checkpoints.
//!
//! The cell is told of each lease. When one is over it stops all copies by itself, so that they
//! stand still when the host is dead, too; it ends them once the cluster has taken the node for
//! dead and there is no host.
//!
//! What is missing: a host that begins ends the cell that it finds, because the other ends of its
//! trees' pipes went with the host before; what has a checkpoint goes on from there. What was typed
//! on a terminal and not read yet does not move with the program. A process that its person had
//! stopped goes on after a move, and after a lease.

mod apart;
mod brought;
mod canary;
mod cell;
mod ends;
mod fetch;
mod files;
mod groups;
mod hands;
mod images;
mod keeping;
mod line;
mod memory;
mod output;
mod part;
mod progress;
mod restores;
mod sealed;
mod shell;
mod start;
mod store;
mod streams;
#[cfg(test)]
pub(crate) mod testing;
mod travel;
mod within;
mod work;

pub use brought::Brought;
pub use hands::Hands;
pub use shell::Shells;
pub use store::Store;

use crate::cell::proto::{Account, Exit, Program, Tree};
use crate::cgroup::{Cgroup, Limits};
use crate::cluster::agent::{Act, Agent};
use crate::cluster::members::Times;
use crate::cluster::messages::{
    CutFile, FORSAKEN, Fact, Image, Offsets, Outcome, Stretch, ToController, ToNode, TreeId,
};
use crate::driver::why::Rules;
use crate::driver::{Checkpointer, Dumped};
use crate::ghost::proto::{Steer, Steered};
use crate::ghost::relay;
use crate::ghost::spool::Spools;
use crate::overlay::{Link, Overlay};
use crate::pids::NodeNumber;
use crate::wire::TreeUse;
use async_trait::async_trait;
use cell::Calls;
use fetch::Fetch;
use files::NotMade;
use groups::Groups;
use images::Expected;
use progress::{Progress, Writing};
use serde::{Deserialize, Serialize};
use shell::{Begun, Keeper};
use start::Attempt;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use streams::Streaming;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::MissedTickBehavior;
use xos_base::when::Clock;
use xos_base::{Millis, NodeId};

/// In the host's folder: [`Kept`].
const KEPT_FILE: &str = "agent.json";
/// In the host's folder: the cell's.
const CELL_FOLDER: &str = "cell";
/// How long output that nobody takes holds up a dump.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// The controller.
#[async_trait]
pub trait Core: Send + Sync {
    /// Says something, and what copies of units used until then; hears what there is for this node.
    ///
    /// # Errors
    /// That nothing was heard; whether it was said is unknown.
    async fn say(&self, message: ToController, used: Vec<TreeUse>) -> io::Result<Heard>;
}

/// What the controller says.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// In this order.
    pub messages: Vec<ToNode>,
    /// What the trees are that they start or restore.
    pub jobs: Vec<(TreeId, Job)>,
    /// Trees whose persons may start nothing here, and why.
    pub refused: Vec<(TreeId, String)>,
}

/// What a tree is: as the node's accounts have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// As whom it runs.
    pub account: Account,
    /// What; on a terminal or not.
    pub program: Program,
    /// Whether a ghost may write its standard input; else that is empty. A terminal is always
    /// written to.
    pub attached: bool,
    /// The pid of its root; absent: whichever is free.
    pub pid: Option<i32>,
    /// Whether it has a network of its own, so that its connections move along
    /// ([`crate::overlay`]).
    #[serde(default)]
    pub own_net: bool,
    /// The node where it was born.
    pub birth: NodeNumber,
    /// Whether it is a cluster shell, which needs [`Setup::shells`].
    #[serde(default)]
    pub shell: bool,
    /// Whether its output is kept until somebody has it removed, and what it uses is told.
    #[serde(default)]
    pub wanted: bool,
    /// What its first copy here is made from, when it left another cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Box<Brought>>,
    /// What all of it may use at most.
    #[serde(default)]
    pub limits: Limits,
}

/// The other nodes. Called from threads that may wait.
pub trait Peers: Send + Sync {
    /// A way to who sends an image there ([`Hands::send_image`]).
    ///
    /// # Errors
    /// That it cannot be had.
    fn image(&self, from: NodeNumber, tree: TreeId, version: u64) -> io::Result<UnixStream>;

    /// A way to who sends the image of a tree that left another cluster, a node there
    /// ([`Hands::send_carried`]).
    ///
    /// # Errors
    /// That it cannot be had.
    fn carried(&self, from: &NodeId, what: &Brought) -> io::Result<UnixStream>;

    /// A connection to the spool of a tree ([`Spools::serve`]) at a node, this one too; a spool
    /// that is new begins at `from`.
    ///
    /// # Errors
    /// That nobody is there now.
    fn output(&self, at: NodeNumber, tree: Tree, from: [u64; 2]) -> io::Result<UnixStream>;

    /// A stream with a part of a tree's output, as [`Spools::send`] writes it there.
    ///
    /// # Errors
    /// That it cannot be had.
    fn written(&self, from: NodeNumber, tree: TreeId, ask: &Stretch) -> io::Result<UnixStream>;

    /// A stream for packets to another node ([`Hands::packets`]).
    ///
    /// # Errors
    /// That nobody is there now.
    fn packets(&self, to: NodeNumber) -> io::Result<UnixStream>;
}

/// What a host needs.
pub struct Setup {
    /// Its folder, for root alone: the cell's, the images', what the agent keeps.
    pub folder: PathBuf,
    /// The node's number in the cluster.
    pub node: NodeNumber,
    /// The cluster's times.
    pub times: Times,
    /// The program `xos-cell`.
    pub cell_program: PathBuf,
    /// What saves trees and starts them again.
    pub driver: Arc<dyn Checkpointer>,
    /// What the nodes agree on.
    pub rules: Rules,
    /// How long one run of the driver may take.
    pub limit: Duration,
    /// Whether images go straight to other nodes where these are reached.
    pub direct: bool,
    /// The controller.
    pub core: Arc<dyn Core>,
    /// The other nodes.
    pub peers: Arc<dyn Peers>,
    /// The spools of this node.
    pub spools: Arc<Spools>,
    /// The control group, without a process, below which each copy has one; none: they have none,
    /// and no limits.
    pub cgroup: Option<Cgroup>,
    /// What cluster shells need; none: there are none here.
    pub shells: Option<Arc<dyn Shells>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What is on the disk.
#[derive(Deserialize)]
struct Kept {
    node: NodeNumber,
    agent: Agent,
}

/// What happens.
enum Event {
    /// The controller said something.
    Heard(Heard),
    /// A tree's first process ended; `None`: the cell is gone.
    Ended(Option<(Tree, Exit)>),
    Steered {
        tree: Tree,
        steered: Steered,
    },
    /// A copy had closed some of its output, and the cell was there.
    Lives {
        tree: Tree,
    },
    /// All output of a copy that ended was taken.
    Taken {
        tree: Tree,
    },
    /// Somebody takes the image of a program that is to move, or nobody does.
    Awaited {
        tree: Tree,
        work: u64,
    },
    Dumped {
        tree: Tree,
        work: u64,
        done: Result<Dumped, String>,
    },
    /// The output of a copy that was dumped should be taken by now.
    Overdue {
        tree: Tree,
        work: u64,
    },
    Sealed {
        tree: Tree,
        work: u64,
        done: Result<u64, String>,
    },
    /// A program runs, or does not.
    Started {
        tree: Tree,
        done: Result<Box<Attempt>, String>,
    },
    /// Nothing of a copy is left.
    Killed {
        tree: Tree,
    },
    Restored {
        tree: Tree,
        version: u64,
        done: Result<Box<NewCopy>, NotMade>,
    },
    /// What a cluster shell needs is there, or will not be.
    Prepared {
        tree: Tree,
        done: Result<Begun, String>,
    },
    /// An image that is to be kept was fetched, and the output until then if that is to be kept; or
    /// was not.
    Held {
        tree: TreeId,
        attempt: u64,
        version: u64,
        done: Result<bool, String>,
    },
    /// What the spool of a copy here begins with is there, or will not be.
    Adopted {
        tree: Tree,
    },
    /// The image of a move was made a checkpoint, or was not.
    Kept {
        tree: TreeId,
        version: u64,
        done: Result<(), String>,
    },
}

/// What an image is made for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Move {
        attempt: u64,
    },
    /// It leaves the cluster: of all of it the image is what lives.
    Leave {
        attempt: u64,
    },
    Checkpoint,
}

/// An image that is being made.
struct Work {
    number: u64,
    purpose: For,
    version: u64,
    dumped: Option<Dumped>,
    /// When it was.
    stopped: Millis,
    /// Where the streams were.
    at: Option<relay::Offsets>,
    /// All that it wrote is taken, and the image is being completed.
    sealing: bool,
    /// Of a move: who sends it follows.
    writing: Option<Arc<Writing>>,
}

/// A copy that is being made.
struct Coming {
    epoch: u64,
    /// It is ended once it is there.
    dying: bool,
    /// How it ended before it was known to be there.
    exit: Option<Exit>,
    /// What it is made of, which may be on its way here; none: it is started.
    image: Option<(u64, Arc<Fetch>)>,
}

impl Coming {
    fn new(epoch: u64) -> Coming {
        Coming { epoch, dying: false, exit: None, image: None }
    }
}

/// What a copy that was restored has of this process.
struct NewCopy {
    streaming: Streaming,
    link: Option<Link>,
    /// Files that were cut back for it.
    cut: Vec<CutFile>,
}

struct Held {
    epoch: u64,
    /// Unless all stands still.
    runs: bool,
    exit: Option<Exit>,
    streaming: Streaming,
    /// To the cluster's network, if it has one of its own.
    link: Option<Link>,
    work: Option<Work>,
    /// Of a cluster shell.
    _keeper: Option<Keeper>,
}

/// A node at work.
pub struct Host {
    setup: Setup,
    agent: Agent,
    /// What the disk has of the agent, once that is known.
    on_disk: Option<Agent>,
    calls: Arc<Calls>,
    init_pid: i32,
    store: Store,
    overlay: Arc<Overlay>,
    groups: Groups,
    jobs: BTreeMap<TreeId, Job>,
    refused: BTreeMap<TreeId, String>,
    copies: BTreeMap<TreeId, Held>,
    starting: BTreeMap<TreeId, Coming>,
    restoring: BTreeMap<TreeId, Coming>,
    /// What is worked at: images by the numbers of their works.
    making: BTreeMap<u64, (TreeId, u64)>,
    /// Copies whose spools are to be here, and begin with what is being fetched.
    adopting: HashSet<Tree>,
    /// Spools of before, of trees that may have others now: each with the last copy that wrote
    /// there.
    left: BTreeMap<TreeId, u64>,
    /// Images that are being written to be sent.
    progress: Progress,
    /// Images that come before their copies are to be made.
    expected: BTreeMap<TreeId, Expected>,
    /// Checkpoints that are fetched to be kept: of each tree the last one.
    holding: BTreeMap<TreeId, (u64, Arc<Fetch>)>,
    /// Images of moves that no disk has yet, and since when; none: they are being written there.
    brief: BTreeMap<(TreeId, u64), Option<Millis>>,
    /// Cluster shells whose `/proc` is being made.
    preparing: BTreeMap<TreeId, u64>,
    frozen: bool,
    /// The lease that the cell was told of.
    leased: Millis,
    /// Copies that the cell did not start because the lease was over.
    put_off: BTreeMap<TreeId, u64>,
    /// What waits until the disk takes what the agent keeps, in this order.
    waiting: VecDeque<Act>,
    /// The disk does not.
    paused: bool,
    works: u64,
    events: UnboundedSender<Event>,
    happened: UnboundedReceiver<Event>,
}

impl Host {
    /// Begins with a new cell. A folder that another node number used before is begun anew.
    ///
    /// # Errors
    /// That the cell cannot be had, or what is on the disk not be read.
    pub async fn begin(setup: Setup) -> io::Result<Host> {
        let lease = setup.times.lease();
        let mut agent = match std::fs::read(setup.folder.join(KEPT_FILE)) {
            Ok(bytes) => {
                let kept: Kept = serde_json::from_slice(&bytes)?;
                if kept.node == setup.node { kept.agent } else { Agent::new(lease) }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Agent::new(lease),
            Err(e) => return Err(e),
        };
        agent.rebooted();
        agent.set_lease(lease);
        let (program, dir, node) =
            (setup.cell_program.clone(), setup.folder.join(CELL_FOLDER), setup.node);
        let calls = wait(move || Calls::begin(&program, &dir, node)).await??;
        let calls = Arc::new(calls);
        let groups = Groups::new(setup.cgroup.clone());
        let old = groups.clone();
        // Of copies that went with an older cell.
        wait(move || old.sweep()).await?;
        let status = calls.clone();
        let init_pid = wait(move || status.status()).await?.map_err(io::Error::other)?.init_pid;
        let (events, happened) = unbounded_channel();
        let ends = events.clone();
        calls.listen(move |ended| ends.send(Event::Ended(ended)).is_ok())?;
        let store = Store::new(setup.folder.join("images")).with_memory();
        let parts = store.clone();
        let kept = agent.kept();
        let spools = setup.spools.clone();
        let of = agent.clone();
        wait(move || -> io::Result<()> {
            parts.sweep(&kept)?;
            spools.sweep_seconds(|tree| of.keeps_some(TreeId(tree)))
        })
        .await??;
        let overlay = Arc::new(Overlay::new(setup.node, setup.peers.clone()));
        let (jobs, refused, copies, put_off) = Default::default();
        let (starting, restoring, making, preparing, waiting) = Default::default();
        let (adopting, left) = Default::default();
        let (progress, expected, holding, brief) = Default::default();
        let on_disk = None;
        let (frozen, paused, works) = (true, false, 0);
        let mut host = Host {
            setup,
            agent,
            on_disk,
            calls,
            init_pid,
            store,
            overlay,
            groups,
            jobs,
            refused,
            copies,
            starting,
            restoring,
            making,
            adopting,
            left,
            progress,
            expected,
            holding,
            brief,
            preparing,
            frozen,
            leased: Millis(0),
            put_off,
            waiting,
            paused,
            works,
            events,
            happened,
        };
        host.look_for_spools();
        Ok(host)
    }

    /// The pid of the cell's init, as this process sees it.
    pub fn init_pid(&self) -> i32 {
        self.init_pid
    }

    /// What else can be done with this node's trees.
    pub fn hands(&self) -> Hands {
        Hands {
            calls: self.calls.clone(),
            init_pid: self.init_pid,
            store: self.store.clone(),
            progress: self.progress.clone(),
            direct: self.setup.direct,
            spools: self.setup.spools.clone(),
            overlay: self.overlay.clone(),
            groups: self.groups.clone(),
            rules: self.setup.rules.clone(),
        }
    }

    /// Works until nobody tells it anything any more (`told` is closed).
    ///
    /// # Errors
    /// That the cell is gone, or the disk or the cell refuse: begin a new one.
    pub async fn run(mut self, mut told: UnboundedReceiver<Heard>) -> io::Result<()> {
        let mut beat = tokio::time::interval(self.setup.times.heartbeat());
        let mut tick = tokio::time::interval(self.setup.times.stop() / 4);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = self.setup.clock.up();
            let acts = tokio::select! {
                heard = told.recv() => match heard {
                    Some(heard) => self.heard(heard),
                    None => return Ok(()),
                },
                event = self.happened.recv() => match event {
                    Some(event) => self.event(event).await?,
                    None => return Ok(()),
                },
                _ = tick.tick() => {
                    self.tidy_images();
                    self.agent.tick(now)
                }
                _ = beat.tick() => self.beat(),
            };
            self.perform(acts).await?;
        }
    }

    fn beat(&self) -> Vec<Act> {
        let mut acts = self.agent.beat(self.setup.clock.up());
        let ghosts = self.setup.spools.ghosts().into_iter().map(TreeId).collect();
        acts.extend(self.agent.stands(ghosts));
        acts.extend(self.agent.left(self.left_spools()));
        acts
    }

    fn heard(&mut self, heard: Heard) -> Vec<Act> {
        for (tree, job) in heard.jobs {
            self.refused.remove(&tree);
            self.jobs.insert(tree, job);
        }
        for (tree, why) in heard.refused {
            self.jobs.remove(&tree);
            self.refused.insert(tree, why);
        }
        let now = self.setup.clock.up();
        let mut messages = heard.messages;
        if self.paused {
            messages.iter_mut().for_each(keeping::without_new);
        }
        messages.iter().flat_map(|m| self.agent.message(m, now)).collect()
    }

    /// Has the cell know until when its trees may run, before anything is done that needs it.
    async fn tell_lease(&mut self, acts: &mut Vec<Act>) -> io::Result<()> {
        let until = self.agent.lease_until();
        if until == self.leased {
            return Ok(());
        }
        // What is being restored stands still until it is a copy.
        let restored = self.restoring.iter().map(|(id, coming)| (*id, coming.epoch));
        let copies = self.all().into_iter().chain(restored);
        let copies: HashSet<Tree> = copies.map(|(id, epoch)| Tree { id: id.0, epoch }).collect();
        // With its last term all copies ended here; what is left of them ends as well.
        let rest = if self.leased == Millis(0) { libc::SIGKILL } else { libc::SIGCONT };
        let (calls, end_after) = (self.calls.clone(), Some(self.setup.times.dead()));
        let told = wait(move || calls.lease(until, end_after, &copies, rest)).await?;
        let held = told.map_err(io::Error::other)?;
        self.leased = until;
        // It stopped them in time where the agent had not looked yet, or did not start them.
        let waits = held || !self.put_off.is_empty();
        if waits && until > self.setup.clock.up() && !acts.contains(&Act::Thaw) {
            acts.push(Act::Thaw);
        }
        Ok(())
    }

    async fn act(&mut self, act: Act) -> io::Result<Vec<Act>> {
        match act {
            Act::Start { tree, epoch } => return Ok(self.start(tree, epoch)),
            Act::Resume { tree, epoch } => {
                let Some(c) = self.copy(tree, epoch) else { return Ok(Vec::new()) };
                let given_up = c.work.take_if(|w| w.purpose != For::Checkpoint);
                c.runs = true;
                c.streaming.go();
                if let Some(work) = given_up {
                    self.give_up(&work);
                }
                self.go(tree).await?;
            }
            Act::Dump { tree, epoch, attempt, version, lasts } => {
                let purpose = if lasts { For::Leave { attempt } } else { For::Move { attempt } };
                self.dump(tree, epoch, purpose, version);
            }
            Act::Save { tree, epoch, version } => {
                self.dump(tree, epoch, For::Checkpoint, version);
            }
            Act::Expect { tree, version, from } => self.expect(tree, version, from),
            Act::Restore { tree, epoch, image, roll_back } => {
                return self.restore((tree, epoch), image, roll_back);
            }
            Act::Hold { tree, attempt, version, from, owner, output } => {
                self.hold((tree, attempt), version, from, (owner, output));
            }
            Act::Kill { tree, epoch } => self.kill(tree, epoch),
            Act::Spool { tree, epoch, output } => {
                return Ok(self.spool_here(tree, epoch, output));
            }
            Act::Unspool { tree, epoch } => self.unspool(tree, epoch),
            Act::Finish { tree, outcome } => {
                if let Err(error) = self.setup.spools.finish(tree.0, &outcome) {
                    self.pause(&error);
                    self.waiting.push_back(Act::Finish { tree, outcome });
                    return Ok(Vec::new());
                }
                self.jobs.remove(&tree);
                self.refused.remove(&tree);
                self.left.remove(&tree);
            }
            Act::Forsake { tree } => {
                let outcome = Outcome::Lost { reason: FORSAKEN.to_owned() };
                if let Err(error) = self.setup.spools.forsake(tree.0, &outcome) {
                    // It is said again with the next heartbeat.
                    tracing::warn!(%tree, %error, "a ghost does not hear that its tree is lost");
                }
            }
            // Spools are no ghosts: what they have stays, and copies elsewhere may send more.
            Act::Abandon => self.look_for_spools(),
            Act::Discard { tree, version } => {
                self.discard(tree, version);
                self.let_go(tree);
            }
            Act::Freeze => {
                self.frozen = true;
                for (id, epoch) in self.all() {
                    ends::halt(self.calls.clone(), Tree { id: id.0, epoch }).await?;
                }
            }
            Act::Thaw => {
                self.frozen = false;
                for (id, _) in self.all() {
                    self.go(id).await?;
                }
                let mut more = Vec::new();
                for (tree, epoch) in std::mem::take(&mut self.put_off) {
                    more.extend(self.start(tree, epoch));
                }
                return Ok(more);
            }
            Act::Say(message) => {
                let (core, events) = (self.setup.core.clone(), self.events.clone());
                let (groups, counted) = (self.groups.clone(), self.counted(&message));
                tokio::spawn(async move {
                    let used = match counted.is_empty() {
                        true => Vec::new(),
                        false => wait(move || groups.used(&counted)).await.unwrap_or_default(),
                    };
                    match core.say(message, used).await {
                        // A host that is gone hears nothing.
                        Ok(heard) => drop(events.send(Event::Heard(heard))),
                        Err(error) => tracing::debug!(%error, "the controller was not reached"),
                    }
                });
            }
        }
        Ok(Vec::new())
    }

    /// The copies of units whose use is told with a message.
    fn counted(&self, message: &ToController) -> Vec<Tree> {
        let of = |(tree, epoch): (TreeId, u64)| Tree { id: tree.0, epoch };
        let mut all: Vec<Tree> = match message {
            ToController::Beat { copies, .. } => copies.iter().copied().map(of).collect(),
            ToController::Facts { facts, .. } => {
                let ends = facts.iter().filter_map(|fact| match fact {
                    Fact::Dumped { tree, epoch, .. } | Fact::Ended { tree, epoch, .. } => {
                        Some((*tree, *epoch))
                    }
                    _ => None,
                });
                ends.map(of).collect()
            }
            ToController::Join { .. }
            | ToController::Ghosts { .. }
            | ToController::Spools { .. } => Vec::new(),
        };
        all.retain(|tree| self.jobs.get(&TreeId(tree.id)).is_some_and(|job| job.wanted));
        all
    }

    fn all(&self) -> Vec<(TreeId, u64)> {
        self.copies.iter().map(|(tree, c)| (*tree, c.epoch)).collect()
    }

    fn copy(&mut self, tree: TreeId, epoch: u64) -> Option<&mut Held> {
        self.copies.get_mut(&tree).filter(|c| c.epoch == epoch)
    }

    fn coming(&mut self, tree: TreeId, epoch: u64) -> Option<&mut Coming> {
        let (starting, restoring) = (self.starting.get_mut(&tree), self.restoring.get_mut(&tree));
        starting.into_iter().chain(restoring).find(|c| c.epoch == epoch)
    }

    /// Lets a copy go on, if it is to and nothing holds it.
    async fn go(&mut self, id: TreeId) -> io::Result<()> {
        // What is being dumped stands still until all that it wrote is read.
        let held = |c: &Held| c.work.as_ref().is_some_and(|w| w.at.is_none());
        let Some(c) = self.copies.get(&id).filter(|c| c.runs && !self.frozen && !held(c)) else {
            return Ok(());
        };
        if let Some(link) = &c.link {
            link.open(true);
        }
        let (calls, tree) = (self.calls.clone(), Tree { id: id.0, epoch: c.epoch });
        wait(move || calls.go(tree)).await?.map_err(io::Error::other)
    }

    async fn event(&mut self, event: Event) -> io::Result<Vec<Act>> {
        match event {
            Event::Heard(heard) => Ok(self.heard(heard)),
            Event::Ended(None) => Err(io::Error::other("the cell is gone")),
            Event::Ended(Some((tree, exit))) => Ok(self.exited(tree, exit)),
            Event::Taken { tree } => Ok(self.ended(tree)),
            Event::Steered { tree, steered } => self.steered(tree, steered).await,
            Event::Lives { tree } => {
                // Of one that is being killed there is none.
                if let Some(c) = self.copy(TreeId(tree.id), tree.epoch) {
                    c.streaming.tell(Steer::Lives);
                }
                Ok(Vec::new())
            }
            Event::Awaited { tree, work } => {
                self.awaited(tree, work);
                Ok(Vec::new())
            }
            Event::Dumped { tree, work, done } => self.dumped(tree, work, done).await,
            Event::Overdue { tree, work } => {
                let waits = |w: &Work| w.number == work && w.dumped.is_some() && !w.sealing;
                let id = TreeId(tree.id);
                match self.copy(id, tree.epoch).and_then(|c| c.work.take_if(|w| waits(w))) {
                    None => Ok(Vec::new()),
                    Some(w) => {
                        self.work_over(work);
                        self.go(id).await?;
                        let why = format!("nobody takes its output since {DRAIN_MAX:?}");
                        Ok(self.made(tree, &w, Err(why)))
                    }
                }
            }
            Event::Sealed { tree, work, done } => Ok(self.sealed(tree, work, done)),
            Event::Started { tree, done } => self.started(tree, done).await,
            Event::Killed { tree } => {
                let killed = self.agent.killed(TreeId(tree.id), tree.epoch);
                Ok(killed.into_iter().collect())
            }
            Event::Restored { tree, version, done } => Ok(self.restored(tree, version, done)),
            Event::Prepared { tree, done } => self.prepared(tree, done).await,
            Event::Held { tree, attempt, version, done } => {
                Ok(self.agent.held(tree, attempt, version, done).into_iter().collect())
            }
            Event::Adopted { tree } => Ok(self.turned(tree)),
            Event::Kept { tree, version, done } => Ok(self.kept(tree, version, done)),
        }
    }

    fn ended(&mut self, tree: Tree) -> Vec<Act> {
        let id = TreeId(tree.id);
        let Some(exit) = self.copy(id, tree.epoch).and_then(|c| c.exit) else { return Vec::new() };
        let end = self.groups.end_of(tree, exit);
        self.agent.ended(id, tree.epoch, end).into_iter().collect()
    }

    /// An image is complete, or there will be none.
    fn made(&mut self, tree: Tree, work: &Work, done: Result<Image, String>) -> Vec<Act> {
        let (id, epoch) = (TreeId(tree.id), tree.epoch);
        match work.purpose {
            For::Move { attempt } | For::Leave { attempt } => {
                self.agent.dumped(id, epoch, attempt, done)
            }
            For::Checkpoint => {
                self.agent.saved(id, epoch, work.version, done).into_iter().collect()
            }
        }
    }

    /// What is written down of an image.
    fn image(&self, work: &Work, bytes: u64) -> Option<Image> {
        let (dumped, at) = (work.dumped.as_ref()?, work.at?);
        let freeze_ms = dumped.frozen_us / 1000;
        let sealed = self.setup.clock.up().since(work.stopped).as_millis();
        let sealed = u64::try_from(sealed).unwrap_or(u64::MAX);
        Some(Image {
            version: work.version,
            output: Offsets { out: at.output, err: at.error },
            bytes,
            freeze_ms,
            still_ms: match work.purpose {
                For::Move { .. } | For::Leave { .. } => freeze_ms.saturating_add(sealed),
                For::Checkpoint => freeze_ms,
            },
            nodes: BTreeSet::from([self.setup.node]),
            shared: false,
            written: BTreeSet::new(),
            brief: match work.purpose {
                For::Move { .. } => BTreeSet::from([self.setup.node]),
                For::Leave { .. } | For::Checkpoint => BTreeSet::new(),
            },
        })
    }
}

/// Ends the cell of a host that is no more, if one is left below its folder. Waits.
///
/// # Errors
/// That it does not end.
pub(crate) fn end_cell(folder: &std::path::Path) -> io::Result<()> {
    cell::end_old(&folder.join(CELL_FOLDER))
}

/// Does what waits, elsewhere.
async fn wait<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
