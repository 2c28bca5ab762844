//! The table of trees: where each is, under which epoch, and how far a move is.
//!
//! A move: the source checks, freezes and dumps the tree and leaves it stopped ([`Step::Dumping`]);
//! the target fetches the image and makes a stopped copy under the next epoch
//! ([`Step::Restoring`]); when it says so, the *commit* is recorded: from then on the tree is the
//! target's copy, which is told to run, and the source's is stale and killed. Whatever goes wrong
//! before the commit: the target's copy is killed, and when that is certain ([`Step::Undoing`]) the
//! source is told to go on. The number that a failed attempt took is not given again, so that late
//! orders and answers of it fit nothing.

mod record;
mod steps;

pub use record::TreeRecord;
pub(super) use steps::after_crash;

use super::messages::{End, Image, TreeId};
use crate::pids::NodeNumber;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xos_base::{MemberNumber, Millis, VoId};

/// How long one step of a move, a restart or a checkpoint may take.
pub const STEP_MAX: Duration = Duration::from_secs(120);
/// How long a tree waits for a node that can restart it.
pub const WAIT_MAX: Duration = Duration::from_secs(600);
/// How often a restart is tried.
pub const TRIES_MAX: u32 = 8;

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
    /// The last complete checkpoint.
    pub checkpoint: Option<Image>,
    /// The image that is being made while it runs, and since when.
    pub saving: Option<(u64, Millis)>,
    /// Its ghost is lost: its output is spooled.
    pub spool: bool,
    /// The copy whose node knows that.
    pub spooled: Option<u64>,
    /// Restarts that failed since it ran last.
    pub tries: u32,
}

impl Tree {
    fn needs_orders(&self) -> bool {
        match self.state {
            TreeState::Running => {
                let told = !self.spool || self.spooled == Some(self.epoch);
                !self.confirmed || self.saving.is_some() || !told
            }
            TreeState::Starting | TreeState::Moving { .. } | TreeState::Restarting { .. } => true,
            TreeState::Checkpointed { .. } => false,
            TreeState::Lost { .. } | TreeState::Ended(_) => true,
        }
    }

    /// The node whose spool takes its output: where it was born, or, when that was lost, where it
    /// is.
    pub fn output_at(&self) -> NodeNumber {
        if self.spool { self.node } else { self.birth }
    }

    /// The nodes that have something to do with it.
    pub fn nodes(&self) -> BTreeSet<NodeNumber> {
        let mut nodes = BTreeSet::from([self.birth, self.node]);
        if let TreeState::Moving { to, .. } | TreeState::Restarting { to, .. } = self.state {
            nodes.insert(to);
        }
        nodes
    }

    /// Whether a copy of it is on a node, or may come to be there.
    pub fn uses(&self, node: NodeNumber) -> bool {
        match &self.state {
            TreeState::Starting | TreeState::Running => self.node == node,
            TreeState::Moving { to, .. } => self.node == node || *to == node,
            TreeState::Restarting { to, .. } => *to == node,
            TreeState::Checkpointed { .. } | TreeState::Lost { .. } | TreeState::Ended(_) => false,
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
            TreeState::Checkpointed { .. } | TreeState::Lost { .. } | TreeState::Ended(_) => false,
        }
    }

    /// Whether an image is needed, or may come to be. One that is not never will be again.
    fn wants_image(&self, image: u64) -> bool {
        let moving = matches!(self.state, TreeState::Moving { version, .. } if version == image);
        let kept = self.checkpoint.as_ref().is_some_and(|c| c.version == image);
        let saving = self.saving.is_some_and(|(version, _)| version == image);
        !self.state.is_final() && (moving || kept || saving)
    }
}

/// All trees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trees {
    trees: BTreeMap<TreeId, Tree>,
    /// Those of which some node has something to do.
    open: BTreeSet<TreeId>,
    /// The last number given.
    last: u64,
}

impl Trees {
    /// The trees as they were kept, and the last number given.
    pub fn of(trees: BTreeMap<TreeId, Tree>, last: TreeId) -> Trees {
        let open = trees.iter().filter(|(_, t)| t.needs_orders()).map(|(id, _)| *id).collect();
        let last = trees.keys().next_back().map_or(0, |id| id.0).max(last.0);
        Trees { trees, open, last }
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

    /// Changes the trees.
    pub fn apply(&mut self, r: &TreeRecord) {
        let id = r.tree();
        if let TreeRecord::Placed { root, owner, birth, node, restartable, .. } = r {
            let (checkpoint, saving, spooled, tries, versions) = Default::default();
            let t = Tree {
                root: *root,
                owner: owner.clone(),
                birth: *birth,
                node: *node,
                epoch: 1,
                issued: 1,
                versions,
                restartable: *restartable,
                state: TreeState::Starting,
                confirmed: false,
                checkpoint,
                saving,
                spool: false,
                spooled,
                tries,
            };
            self.last = self.last.max(id.0);
            self.trees.insert(id, t);
        } else if matches!(r, TreeRecord::Forgotten { .. }) {
            self.trees.remove(&id);
        } else if let Some(t) = self.trees.get_mut(&id) {
            change(t, r);
        }
        if self.trees.get(&id).is_some_and(Tree::needs_orders) {
            self.open.insert(id);
        } else {
            self.open.remove(&id);
        }
    }
}

fn change(t: &mut Tree, r: &TreeRecord) {
    match r {
        TreeRecord::Placed { .. } | TreeRecord::Forgotten { .. } => {}
        TreeRecord::Runs { .. } => {
            t.state = TreeState::Running;
            t.confirmed = true;
            t.tries = 0;
        }
        TreeRecord::Moving { to, at, .. } => {
            t.issued += 1;
            t.versions += 1;
            t.saving = None;
            let (next, version, step) = (t.issued, t.versions, Step::Dumping);
            t.state = TreeState::Moving { to: *to, next, version, step, since: *at };
        }
        TreeRecord::Dumped { image, at, .. } => {
            if let TreeState::Moving { step, since, .. } = &mut t.state {
                *step = Step::Restoring { image: image.clone(), source_lost: false };
                *since = *at;
            }
        }
        TreeRecord::SourceLost { .. } => {
            if let TreeState::Moving { step: Step::Restoring { source_lost, .. }, .. } =
                &mut t.state
            {
                *source_lost = true;
            }
        }
        TreeRecord::Undoing { reason, at, .. } => {
            if let TreeState::Moving { step, since, .. } = &mut t.state {
                *step = Step::Undoing { reason: reason.clone() };
                *since = *at;
            }
        }
        TreeRecord::Undone { .. } => {
            t.state = TreeState::Running;
            t.confirmed = false;
        }
        TreeRecord::Committed { .. } => commit(t),
        TreeRecord::Waits { reason, at, .. } => {
            if matches!(t.state, TreeState::Restarting { .. }) {
                t.tries += 1;
            }
            t.saving = None;
            t.state = TreeState::Checkpointed { reason: reason.clone(), since: *at };
        }
        TreeRecord::Restarting { to, at, .. } => {
            t.issued += 1;
            let reason = match &t.state {
                TreeState::Checkpointed { reason, .. } => reason.clone(),
                _ => String::new(),
            };
            let next = t.issued;
            t.state = TreeState::Restarting { to: *to, next, reason, since: *at };
        }
        TreeRecord::Saving { at, .. } => {
            t.versions += 1;
            t.saving = Some((t.versions, *at));
        }
        TreeRecord::Saved { image, .. } => {
            t.saving = None;
            t.checkpoint = Some(image.clone());
        }
        TreeRecord::NotSaved { .. } => t.saving = None,
        TreeRecord::Orphaned { .. } => t.spool = true,
        TreeRecord::Spooled { .. } => t.spooled = Some(t.epoch),
        TreeRecord::Ended { end, .. } => {
            t.saving = None;
            t.state = TreeState::Ended(*end);
        }
        TreeRecord::Lost { reason, .. } => {
            t.saving = None;
            t.state = TreeState::Lost { reason: reason.clone() };
        }
    }
}

/// The copy that was made is the tree. The image of a move is as good as a checkpoint.
fn commit(t: &mut Tree) {
    let (to, next) = match &t.state {
        TreeState::Moving { to, next, step: Step::Restoring { image, .. }, .. } => {
            if t.restartable {
                t.checkpoint = Some(image.clone());
            }
            (*to, *next)
        }
        TreeState::Restarting { to, next, .. } => (*to, *next),
        _ => return,
    };
    // It was fetched there.
    if t.restartable
        && let Some(image) = &mut t.checkpoint
    {
        image.nodes.insert(to);
    }
    (t.node, t.epoch) = (to, next);
    t.state = TreeState::Running;
    t.confirmed = false;
}
