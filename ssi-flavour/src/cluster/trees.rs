//! The table of trees: where each is, under which epoch, and how far a move is.
//!
//! A move: the source checks, freezes and dumps the tree and leaves it stopped ([`Step::Dumping`]);
//! the target fetches the image and makes a stopped copy under the next epoch
//! ([`Step::Restoring`]); when it says so, the *commit* is recorded: from then on the tree is the
//! target's copy, which is told to run, and the source's is stale and killed. Whatever goes wrong
//! before the commit: the target's copy is killed, and when that is certain ([`Step::Undoing`]) the
//! source is told to go on. The number that a failed attempt took is not given again, so that late
//! orders and answers of it fit nothing.
//!
//! A tree leaves for another cluster ([`TreeState::Leaving`]): its node dumps it and leaves it
//! stopped; that is recorded, and from then on the copy is killed and never runs again; once it is
//! gone the tree is [`TreeState::Away`]. Of it only the image is left, from which it is started
//! elsewhere: as another tree ([`TreeRecord::Came`]), which nothing here decides about.

mod change;
mod record;
mod steps;

pub use record::TreeRecord;
pub(super) use steps::after_crash;

use super::interval::Interval;
use super::messages::{CutFile, End, Image, Line, TreeId, Written};
use super::queue::Queue;
use crate::pids::NodeNumber;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xos_base::{MemberNumber, Millis, VoId};

/// How long one step of a move, a restart or a checkpoint may take at least, and where a node gives
/// it up itself, beyond that: it has more to do than to save or restore, and says so when it ended.
pub const STEP_MAX: Duration = Duration::from_secs(120);
pub(super) const STEP_MORE: Duration = Duration::from_secs(60);
/// The longest that a node may give a step.
pub(super) const STEP_LIMIT_MAX: Duration = Duration::from_secs(6 * 3600);
/// How long a tree waits for a node that can restart it.
pub const WAIT_MAX: Duration = Duration::from_secs(600);
/// How long a tree waits for a person to say what becomes of files that keep it.
pub const BARRED_MAX: Duration = Duration::from_secs(72 * 3600);
/// The most files of a tree that were cut back and are remembered.
pub const CUT_MAX: usize = 64;
/// Longest name of such a file and of what was kept of it, together, in bytes.
const CUT_NAMES_MAX: usize = 8192;
/// Longest reason of a node that a tree is not restarted, in characters.
const BARRED_TEXT_MAX: usize = 4096;
/// How often a restart is tried.
pub const TRIES_MAX: u32 = 8;
/// How long a node may take to fetch a copy of a checkpoint. Nothing waits for it.
pub const HOLD_MAX: Duration = Duration::from_secs(600);

/// Whose a tree is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The VO.
    pub vo: VoId,
    /// The person's number in it.
    pub member: MemberNumber,
    /// The account.
    pub uid: u32,
}

/// What a tree is to be, wherever it is placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Whose it is.
    pub owner: Owner,
    /// Whether it may go on from a checkpoint when its node failed.
    pub restartable: bool,
    /// How often it is checkpointed by itself, when it is restartable.
    pub interval: Interval,
}

/// A node that fetches a copy of the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Which.
    pub node: NodeNumber,
    /// The number of the attempt, given once in the tree.
    pub attempt: u64,
    /// Since when.
    pub since: Millis,
}

/// How far a move is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The source checks, freezes and dumps.
    Dumping,
    /// The target fetches the image and makes its copy.
    Restoring {
        /// What of.
        image: Image,
        /// The source failed: there is no way back.
        source_lost: bool,
    },
    /// The target's copy is killed.
    Undoing {
        /// Why.
        reason: String,
    },
}

/// How a tree stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeState {
    /// Its node was told to start it.
    Starting,
    /// It runs on its node, or its node was told to let it.
    Running,
    /// It moves.
    Moving {
        /// Where to.
        to: NodeNumber,
        /// The epoch of the copy there.
        next: u64,
        /// The number of the image.
        version: u64,
        /// How far it is.
        step: Step,
        /// Since when it is there.
        since: Millis,
    },
    /// Its node failed; it waits, as a checkpoint, for another.
    Checkpointed {
        /// Why.
        reason: String,
        /// Since when.
        since: Millis,
    },
    /// It is being restarted from its checkpoint.
    Restarting {
        /// Where.
        to: NodeNumber,
        /// The epoch of the copy there.
        next: u64,
        /// Why it has to.
        reason: String,
        /// Since when.
        since: Millis,
    },
    /// It leaves for another cluster.
    Leaving {
        /// The number of the attempt: an epoch that no copy gets.
        next: u64,
        /// The number of the image.
        version: u64,
        /// The image, once it is complete: then the copy goes, and there is no way back to it.
        image: Option<Image>,
        /// Since when that is so.
        since: Millis,
    },
    /// Nothing of it is here but its checkpoint, from which it goes on elsewhere.
    Away,
    /// It cannot go on.
    Lost {
        /// Why, for the person.
        reason: String,
    },
    /// It ended.
    Ended(End),
}

impl TreeState {
    /// Whether nothing of it runs or will.
    pub fn is_final(&self) -> bool {
        matches!(self, TreeState::Lost { .. } | TreeState::Ended(_))
    }
}

/// A tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// The pid of its root.
    pub root: i32,
    /// Whose it is.
    pub owner: Owner,
    /// Where it was born: its ghost is there.
    pub birth: NodeNumber,
    /// Where it is, or was last.
    pub node: NodeNumber,
    /// The copy that is the tree, or was last.
    pub epoch: u64,
    /// The last epoch given.
    pub issued: u64,
    /// The last number of an image given.
    pub versions: u64,
    /// Whether it may go on from a checkpoint when its node failed.
    pub restartable: bool,
    /// How it stands.
    pub state: TreeState,
    /// Whether its node said that the copy runs.
    pub confirmed: bool,
    /// How often it is checkpointed by itself.
    #[serde(default)]
    pub interval: Interval,
    /// The last complete checkpoint.
    pub checkpoint: Option<Image>,
    /// One before it, kept until as many nodes have the last one as are to.
    pub previous: Option<Image>,
    /// Who fetches a copy of the last one.
    pub holding: Option<Holding>,
    /// The number of the last attempt to do so.
    #[serde(default)]
    pub holds: u64,
    /// The image that is being made while it runs, and since when.
    pub saving: Option<(u64, Millis)>,
    /// Its ghost is lost: its output is spooled.
    pub spool: bool,
    /// The copy whose node knows that.
    pub spooled: Option<u64>,
    /// The node that took its spool over last; none: the one where it was born has it.
    #[serde(default)]
    pub home: Option<NodeNumber>,
    /// That node is lost as well.
    #[serde(default)]
    pub homeless: bool,
    /// Which of its spools that is.
    #[serde(default)]
    pub line: Line,
    /// Restarts that failed since it ran last.
    pub tries: u32,
    /// Why it is not restarted until somebody asks for it: files are not as they were.
    #[serde(default)]
    pub barred: Option<String>,
    /// Until it runs, it is restarted with its files as they are.
    #[serde(default)]
    pub as_is: bool,
    /// Files that were cut back for its restarts, the last ones.
    #[serde(default)]
    pub cut: Vec<CutFile>,
}

impl Tree {
    fn needs_orders(&self) -> bool {
        if self.holding.is_some() {
            return true;
        }
        match self.state {
            TreeState::Running => {
                let told = !self.spool || self.spooled == Some(self.epoch);
                !self.confirmed || self.saving.is_some() || !told
            }
            TreeState::Starting | TreeState::Moving { .. } | TreeState::Restarting { .. } => true,
            TreeState::Leaving { .. } => true,
            TreeState::Checkpointed { .. } | TreeState::Away => false,
            TreeState::Lost { .. } | TreeState::Ended(_) => true,
        }
    }

    /// The node whose spool takes its output: where it was born, or, when that was lost, where it
    /// is.
    pub fn output_at(&self) -> NodeNumber {
        if self.spool { self.node } else { self.birth }
    }

    /// The node that has its spool, unless that is lost.
    pub fn home(&self) -> Option<NodeNumber> {
        match self.spool {
            false => Some(self.birth),
            true => self.home.filter(|_| !self.homeless),
        }
    }

    /// The node that had its spool last, lost or not.
    pub fn last_home(&self) -> NodeNumber {
        self.home.unwrap_or(self.birth)
    }

    /// Whether a node has a checkpoint with all that a restart needs: what the tree had written by
    /// then, too, if it may be restarted.
    pub fn has(&self, image: &Image, node: NodeNumber) -> bool {
        let spools = !self.restartable || self.home() == Some(node);
        image.nodes.contains(&node) && (spools || image.written.contains(&node))
    }

    /// What of its output a node is to keep with a checkpoint; none: nothing, or all is there.
    fn keeps(&self, image: &Image, node: NodeNumber) -> Option<Written> {
        let elsewhere = self.restartable && self.home() != Some(node);
        elsewhere.then(|| Written {
            upto: image.output,
            line: self.line,
            at: self.home().into_iter().chain(others(&image.written, node)).collect(),
        })
    }

    /// What the spool at the node where it is is to begin with; none: what is there. The node
    /// itself is named first if what its own spool has counts: nobody had it since. A node that
    /// had the last one and was lost is named last: it may be back, and have what nobody keeps.
    pub(super) fn begins_with(&self) -> Option<Written> {
        if !self.restartable || self.home() == Some(self.node) {
            return None;
        }
        let last = self.last_home();
        let own = Some(last).filter(|last| *last == self.node);
        let images = [&self.checkpoint, &self.previous].into_iter().flatten();
        let kept = images.flat_map(|image| others(&image.written, self.node));
        let mut at: Vec<NodeNumber> = self.home().or(own).into_iter().collect();
        for node in kept.chain([last]) {
            if !at.contains(&node) {
                at.push(node);
            }
        }
        let upto = self.checkpoint.as_ref().map(|image| image.output).unwrap_or_default();
        Some(Written { upto, line: self.line, at })
    }

    /// The nodes that have something to do with it.
    pub fn nodes(&self) -> BTreeSet<NodeNumber> {
        let mut nodes = BTreeSet::from([self.birth, self.node]);
        nodes.extend(self.home());
        if let TreeState::Moving { to, .. } | TreeState::Restarting { to, .. } = self.state {
            nodes.insert(to);
        }
        nodes.extend(self.holding.as_ref().map(|h| h.node));
        nodes
    }

    /// Whether an image is one that is kept for a restart, and a node is not known to have it; or
    /// not known to have the output, if it says that it has that `written`.
    fn wants_copy_of(&self, image: u64, at: NodeNumber, written: bool) -> bool {
        let lacks = |c: &Image| {
            let image = c.brief.contains(&at) || !c.nodes.contains(&at);
            image || (written && !c.written.contains(&at))
        };
        let mut kept = self.checkpoint.iter().chain(&self.previous);
        !self.state.is_final() && kept.any(|c| c.version == image && lacks(c))
    }

    /// Whether a copy of it is on a node, or may come to be there.
    pub fn uses(&self, node: NodeNumber) -> bool {
        match &self.state {
            TreeState::Starting | TreeState::Running | TreeState::Leaving { .. } => {
                self.node == node
            }
            TreeState::Moving { to, .. } => self.node == node || *to == node,
            TreeState::Restarting { to, .. } => *to == node,
            TreeState::Checkpointed { .. }
            | TreeState::Away
            | TreeState::Lost { .. }
            | TreeState::Ended(_) => false,
        }
    }

    /// The node that is to make a copy from an image, and which one that is.
    pub fn comes_to(&self) -> Option<(NodeNumber, u64)> {
        match &self.state {
            TreeState::Moving { to, version, .. } => Some((*to, *version)),
            TreeState::Restarting { to, .. } => Some((*to, self.checkpoint.as_ref()?.version)),
            _ => None,
        }
    }

    /// Whether a copy is the tree, or may become it. One that is not never will be again.
    fn wants_copy(&self, at: NodeNumber, copy: u64) -> bool {
        let now = self.node == at && self.epoch == copy;
        match &self.state {
            TreeState::Starting | TreeState::Running => now,
            TreeState::Moving { step: Step::Undoing { .. }, .. } => now,
            TreeState::Moving { to, next, .. } => now || (*to == at && *next == copy),
            TreeState::Restarting { to, next, .. } => *to == at && *next == copy,
            TreeState::Leaving { image, .. } => now && image.is_none(),
            TreeState::Checkpointed { .. }
            | TreeState::Away
            | TreeState::Lost { .. }
            | TreeState::Ended(_) => false,
        }
    }

    /// Whether an image is needed, or may come to be. One that is not never will be again.
    fn wants_image(&self, image: u64) -> bool {
        let moving = match self.state {
            TreeState::Moving { version, .. } | TreeState::Leaving { version, .. } => {
                version == image
            }
            _ => false,
        };
        let kept = self.checkpoint.iter().chain(&self.previous).any(|c| c.version == image);
        let saving = self.saving.is_some_and(|(version, _)| version == image);
        !self.state.is_final() && (moving || kept || saving)
    }
}

fn others(nodes: &BTreeSet<NodeNumber>, node: NodeNumber) -> impl Iterator<Item = NodeNumber> {
    nodes.iter().copied().filter(move |other| *other != node)
}

/// All trees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trees {
    trees: BTreeMap<TreeId, Tree>,
    /// Those of which some node has something to do.
    open: BTreeSet<TreeId>,
    /// What waits until it is one.
    queue: Queue,
    /// The last number given.
    last: u64,
}

impl Trees {
    /// The trees as they were kept, what waits, and the last number given.
    pub fn of(trees: BTreeMap<TreeId, Tree>, queue: Queue, last: TreeId) -> Trees {
        let open = trees.iter().filter(|(_, t)| t.needs_orders()).map(|(id, _)| *id).collect();
        let waiting = queue.iter().map(|(id, _)| id).max();
        let known = trees.keys().next_back().copied().max(waiting);
        let last = known.map_or(0, |id| id.0).max(last.0);
        Trees { trees, open, queue, last }
    }

    /// What waits until a node has room.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// A tree.
    pub fn tree(&self, id: TreeId) -> Option<&Tree> {
        self.trees.get(&id)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (TreeId, &Tree)> {
        self.trees.iter().map(|(id, t)| (*id, t))
    }

    /// The number of the next tree.
    pub fn next(&self) -> TreeId {
        TreeId(self.last + 1)
    }

    /// How many trees have, or may come to have, a copy on a node.
    pub fn count_on(&self, node: NodeNumber) -> usize {
        self.trees.values().filter(|t| t.uses(node)).count()
    }
}
