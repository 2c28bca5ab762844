//! What of the clusters is kept, and where.

use super::units::{Envelope, Unit};
use crate::cluster::members::{Member, Members};
use crate::cluster::messages::TreeId;
use crate::cluster::queue::Queue;
use crate::cluster::record::State;
use crate::cluster::trees::{Tree, TreeRecord, TreeState, Trees, Wish};
use crate::pids::NodeNumber;
use crate::wire::{Program, TreeUnit};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use xos_api::aem::TaskSpec;
use xos_api::cluster::RunInCluster;
use xos_api::node::units::EnvelopeId;
use xos_base::{ClusterId, Error, Millis, PersonId};

/// A program that waits until a node has room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// What its tree is to be.
    pub wish: Wish,
    /// Whose it is.
    pub person: PersonId,
    /// What was asked for.
    pub run: RunInCluster,
}

/// What is kept of a cluster beside nodes and trees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Nodes that left: they keep their numbers, and do not join by themselves.
    pub left: BTreeSet<NodeNumber>,
}

/// Something that is otherwise now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The settings; the first change of a cluster.
    Settings(Settings),
    /// The last number that was given to a tree.
    Last(TreeId),
    /// A program waits.
    Queued(TreeId, Box<Waiting>),
    /// It does not any more: it is a tree.
    Begun(TreeId),
    /// What a tree is.
    Program(TreeId, Program),
    /// How a tree stands.
    Tree(TreeId, Tree),
    /// A tree, or what waited to be one, is no more, its program neither.
    Gone(TreeId),
    /// How a node stands.
    Node(NodeNumber, Member),
    /// An envelope of a job's units.
    Envelope(EnvelopeId, Envelope),
    /// A task of units in an envelope, by its name.
    Task(EnvelopeId, String, Box<TaskSpec>),
    /// How a unit stands.
    Unit(TreeUnit, Unit),
    /// A unit is no more.
    UnitGone(TreeUnit),
    /// A task is no more.
    TaskGone(EnvelopeId, String),
    /// An envelope is no more; its units and tasks went before.
    EnvelopeGone(EnvelopeId),
}

/// A cluster as it was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The settings.
    pub settings: Settings,
    /// The last number that was given to a tree.
    pub last: u64,
    /// What waits.
    pub waiting: BTreeMap<TreeId, Waiting>,
    /// What the trees are.
    pub programs: BTreeMap<TreeId, Program>,
    /// The trees.
    pub trees: BTreeMap<TreeId, Tree>,
    /// The nodes.
    pub nodes: BTreeMap<NodeNumber, Member>,
    /// The envelopes of units.
    pub envelopes: BTreeMap<EnvelopeId, Envelope>,
    /// The tasks of their units, by name.
    pub tasks: BTreeMap<(EnvelopeId, String), TaskSpec>,
    /// The units.
    pub units: BTreeMap<TreeUnit, Unit>,
}

impl Kept {
    /// Adds a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Settings(settings) => self.settings = settings,
            Change::Last(last) => self.last = last.0,
            Change::Queued(id, waiting) => {
                self.waiting.insert(id, *waiting);
            }
            Change::Begun(id) => {
                self.waiting.remove(&id);
            }
            Change::Program(id, program) => {
                self.programs.insert(id, program);
            }
            Change::Tree(id, tree) => {
                self.trees.insert(id, tree);
            }
            Change::Gone(id) => {
                self.waiting.remove(&id);
                self.programs.remove(&id);
                self.trees.remove(&id);
            }
            Change::Node(number, member) => {
                self.nodes.insert(number, member);
            }
            Change::Envelope(id, envelope) => {
                self.envelopes.insert(id, envelope);
            }
            Change::Task(id, name, task) => {
                self.tasks.insert((id, name), *task);
            }
            Change::Unit(id, unit) => {
                self.units.insert(id, unit);
            }
            Change::UnitGone(id) => {
                self.units.remove(&id);
            }
            Change::TaskGone(id, name) => {
                self.tasks.remove(&(id, name));
            }
            Change::EnvelopeGone(id) => {
                self.envelopes.remove(&id);
            }
        }
    }

    /// The controller's state at `now`. The machine may have been started anew meanwhile, and its
    /// clock with it: nothing began later than now.
    pub(super) fn state(&self, now: Millis) -> State {
        let mut trees = self.trees.clone();
        for t in trees.values_mut() {
            if let TreeState::Moving { since, .. }
            | TreeState::Checkpointed { since, .. }
            | TreeState::Restarting { since, .. }
            | TreeState::Leaving { since, .. } = &mut t.state
            {
                *since = (*since).min(now);
            }
            if let Some((_, since)) = &mut t.saving {
                *since = (*since).min(now);
            }
            if let Some(holding) = &mut t.holding {
                holding.since = holding.since.min(now);
            }
        }
        let queue = self.queue().map(|(tree, waiting)| (tree, waiting.wish.clone())).collect();
        let mut trees = Trees::of(trees, Queue::of(queue), TreeId(self.last));
        for tree in self.half_left() {
            trees.apply(&TreeRecord::Left { tree });
        }
        State { members: Members::of(self.nodes.clone()), trees }
    }

    /// Trees that are kept as if they were here, of units that are kept as gone: a core was killed
    /// between the two. Its word that they left may have been heard: they never run here again.
    fn half_left(&self) -> Vec<TreeId> {
        let lives = |tree: &TreeId| {
            let t = self.trees.get(tree);
            t.is_some_and(|t| !t.state.is_final() && t.state != TreeState::Away)
        };
        let left = self.units.values().filter(|unit| unit.left.is_some());
        left.filter_map(|unit| unit.tree).filter(lives).collect()
    }

    /// What waits. A crash may have left one that is a tree already: that it began was kept first.
    pub(super) fn queue(&self) -> impl Iterator<Item = (TreeId, &Waiting)> {
        let waiting = self.waiting.iter().map(|(tree, waiting)| (*tree, waiting));
        waiting.filter(|(tree, _)| !self.trees.contains_key(tree))
    }
}

/// Keeps the clusters of a site.
#[async_trait]
pub trait Records: Send + Sync {
    /// All that was kept.
    ///
    /// # Errors
    /// Those of the disk.
    async fn load(&self) -> Result<BTreeMap<ClusterId, Kept>, Error>;

    /// Keeps changes of a cluster. When this returns they are on the disk. A crash meanwhile may
    /// leave the first of them kept and the others not; done again, they change nothing.
    ///
    /// # Errors
    /// Those of the disk: then it is not known whether some were kept.
    async fn keep(&self, cluster: &ClusterId, changes: &[Change]) -> Result<(), Error>;
}
