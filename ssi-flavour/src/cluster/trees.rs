//! The table of trees: where each is, under which epoch, and how far a move is.
//!
//! A move: the source checks, freezes and dumps the tree and leaves it stopped ([`Step::Dumping`]);
//! the target fetches the image and makes a stopped copy under the next epoch
//! ([`Step::Restoring`]); when it says so, the *commit* is recorded: from then on the tree is the
//! target's copy, which is told to run, and the source's is stale and killed. Whatever goes wrong
//! before the commit: the target's copy is killed, and when that is certain ([`Step::Undoing`]) the
//! source is told to go on. The number that a failed attempt took is not given again, so that late
//! orders and answers of it fit nothing.

use super::messages::{End, Fact, Image, Order, Outcome, TreeId};
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

/// A change of the trees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeRecord {
    /// A new tree is to be started.
    Placed {
        /// Its number, the next.
        tree: TreeId,
        /// The pid of its root.
        root: i32,
        /// Whose it is.
        owner: Owner,
        /// Where its ghost is.
        birth: NodeNumber,
        /// Where it is started.
        node: NodeNumber,
        /// Whether it may go on from a checkpoint.
        restartable: bool,
    },
    /// Its node says that it runs.
    Runs {
        /// The tree.
        tree: TreeId,
    },
    /// A move began.
    Moving {
        /// The tree.
        tree: TreeId,
        /// Where to.
        to: NodeNumber,
        /// When.
        at: Millis,
    },
    /// The source is stopped, its image complete.
    Dumped {
        /// The tree.
        tree: TreeId,
        /// The image.
        image: Image,
        /// When.
        at: Millis,
    },
    /// The source failed after that.
    SourceLost {
        /// The tree.
        tree: TreeId,
    },
    /// The move is given up; the target's copy has to go first.
    Undoing {
        /// The tree.
        tree: TreeId,
        /// Why.
        reason: String,
        /// When.
        at: Millis,
    },
    /// The move failed and left nothing: the source goes on.
    Undone {
        /// The tree.
        tree: TreeId,
        /// Why.
        reason: String,
    },
    /// The copy of a move or a restart is the tree now.
    Committed {
        /// The tree.
        tree: TreeId,
    },
    /// It waits for a node that restarts it.
    Waits {
        /// The tree.
        tree: TreeId,
        /// Why.
        reason: String,
        /// Since when.
        at: Millis,
    },
    /// A restart began.
    Restarting {
        /// The tree.
        tree: TreeId,
        /// Where.
        to: NodeNumber,
        /// When.
        at: Millis,
    },
    /// A checkpoint began.
    Saving {
        /// The tree.
        tree: TreeId,
        /// When.
        at: Millis,
    },
    /// A checkpoint is complete.
    Saved {
        /// The tree.
        tree: TreeId,
        /// The image.
        image: Image,
    },
    /// A checkpoint failed; the tree runs.
    NotSaved {
        /// The tree.
        tree: TreeId,
        /// Why.
        reason: String,
    },
    /// Its ghost is lost.
    Orphaned {
        /// The tree.
        tree: TreeId,
    },
    /// Its node knows that.
    Spooled {
        /// The tree.
        tree: TreeId,
    },
    /// It ended.
    Ended {
        /// The tree.
        tree: TreeId,
        /// How.
        end: End,
    },
    /// It cannot go on.
    Lost {
        /// The tree.
        tree: TreeId,
        /// Why.
        reason: String,
    },
    /// Who waited for its end knows it.
    Forgotten {
        /// The tree.
        tree: TreeId,
    },
}

impl TreeRecord {
    /// Which tree.
    pub fn tree(&self) -> TreeId {
        match self {
            TreeRecord::Placed { tree, .. }
            | TreeRecord::Runs { tree }
            | TreeRecord::Moving { tree, .. }
            | TreeRecord::Dumped { tree, .. }
            | TreeRecord::SourceLost { tree }
            | TreeRecord::Undoing { tree, .. }
            | TreeRecord::Undone { tree, .. }
            | TreeRecord::Committed { tree }
            | TreeRecord::Waits { tree, .. }
            | TreeRecord::Restarting { tree, .. }
            | TreeRecord::Saving { tree, .. }
            | TreeRecord::Saved { tree, .. }
            | TreeRecord::NotSaved { tree, .. }
            | TreeRecord::Orphaned { tree }
            | TreeRecord::Spooled { tree }
            | TreeRecord::Ended { tree, .. }
            | TreeRecord::Lost { tree, .. }
            | TreeRecord::Forgotten { tree } => *tree,
        }
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

    /// What a node is to do.
    pub fn orders(&self, node: NodeNumber) -> Vec<Order> {
        let mut out = Vec::new();
        for id in &self.open {
            if let Some(t) = self.trees.get(id) {
                orders_of(*id, t, node, &mut out);
            }
        }
        out
    }

    /// What a node is to do with copies and images of which nothing is wanted any more.
    pub fn stale(
        &self,
        node: NodeNumber,
        copies: &[(TreeId, u64)],
        images: &[(TreeId, u64)],
    ) -> Vec<Order> {
        let copies = copies.iter().filter(|(id, copy)| !self.wants_copy(*id, node, *copy));
        let images = images.iter().filter(|(id, image)| !self.wants_image(*id, *image));
        let kill = copies.map(|(tree, epoch)| Order::Kill { tree: *tree, epoch: *epoch });
        let discard =
            images.map(|(tree, version)| Order::Discard { tree: *tree, version: *version });
        kill.chain(discard).collect()
    }

    fn wants_copy(&self, id: TreeId, at: NodeNumber, copy: u64) -> bool {
        self.trees.get(&id).is_some_and(|t| t.wants_copy(at, copy))
    }

    fn wants_image(&self, id: TreeId, image: u64) -> bool {
        self.trees.get(&id).is_some_and(|t| t.wants_image(image))
    }

    /// What follows from what a node said. Its term is known to be in force.
    pub fn heard(&self, from: NodeNumber, fact: &Fact, now: Millis) -> Option<TreeRecord> {
        let (tree, epoch) = match fact {
            Fact::Runs { tree, epoch, .. }
            | Fact::Dumped { tree, epoch, .. }
            | Fact::Refused { tree, epoch, .. }
            | Fact::Restored { tree, epoch }
            | Fact::NotRestored { tree, epoch, .. }
            | Fact::Gone { tree, epoch }
            | Fact::Saved { tree, epoch, .. }
            | Fact::NotSaved { tree, epoch, .. }
            | Fact::Spooled { tree, epoch }
            | Fact::Ended { tree, epoch, .. } => (*tree, *epoch),
            Fact::Finished { tree } => {
                let t = self.trees.get(tree)?;
                let told = t.state.is_final() && t.birth == from;
                return told.then_some(TreeRecord::Forgotten { tree: *tree });
            }
        };
        let t = self.trees.get(&tree)?;
        if t.node == from && t.epoch == epoch {
            return heard_of_tree(tree, t, fact, now);
        }
        match &t.state {
            TreeState::Moving { to, next, step, .. } if *to == from && *next == epoch => {
                heard_of_target(tree, t, step, fact, now)
            }
            TreeState::Restarting { to, next, reason, .. } if *to == from && *next == epoch => {
                match fact {
                    Fact::Restored { .. } => Some(TreeRecord::Committed { tree }),
                    Fact::NotRestored { reason: why, .. } => Some(again(tree, t, reason, why, now)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// What took too long. What began before `began`, when this controller did, is given the whole
    /// time again.
    pub fn overdue(&self, began: Millis, now: Millis) -> Vec<TreeRecord> {
        let late = |since: Millis, most: Duration| now.since(since.max(began)) >= most;
        let mut out = Vec::new();
        for (id, t) in &self.trees {
            let tree = *id;
            match &t.state {
                TreeState::Moving { step, since, .. } if late(*since, STEP_MAX) => match step {
                    Step::Dumping => {
                        let reason = format!("the dump took longer than {STEP_MAX:?}");
                        out.push(TreeRecord::Undone { tree, reason });
                    }
                    Step::Restoring { source_lost, .. } => {
                        let reason = format!("the restore took longer than {STEP_MAX:?}");
                        out.push(if *source_lost {
                            after_crash(tree, t, &reason, now)
                        } else {
                            TreeRecord::Undoing { tree, reason, at: now }
                        });
                    }
                    // There is no other way than to wait: for the answer, or the target's end.
                    Step::Undoing { .. } => {}
                },
                TreeState::Restarting { reason, since, .. } if late(*since, STEP_MAX) => {
                    let why = format!("it took longer than {STEP_MAX:?}");
                    out.push(again(tree, t, reason, &why, now));
                }
                TreeState::Checkpointed { reason, since } if late(*since, WAIT_MAX) => {
                    let reason =
                        format!("{reason}; in {WAIT_MAX:?} no node could restart its checkpoint");
                    out.push(TreeRecord::Lost { tree, reason });
                }
                TreeState::Running if t.saving.is_some_and(|(_, since)| late(since, STEP_MAX)) => {
                    let reason = format!("the checkpoint took longer than {STEP_MAX:?}");
                    out.push(TreeRecord::NotSaved { tree, reason });
                }
                _ => {}
            }
        }
        out
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

fn orders_of(tree: TreeId, t: &Tree, node: NodeNumber, out: &mut Vec<Order>) {
    let (here, epoch) = (t.node == node, t.epoch);
    match &t.state {
        TreeState::Starting if here => out.push(Order::Start { tree, epoch }),
        TreeState::Running if here && !t.confirmed => {
            out.push(Order::Run { tree, epoch, floor: t.issued });
        }
        TreeState::Running if here => {
            if let Some((version, _)) = t.saving {
                out.push(Order::Save { tree, epoch, version });
            }
        }
        TreeState::Moving { to, next, version, step, .. } => match step {
            Step::Dumping if here => {
                out.push(Order::Dump { tree, epoch, attempt: *next, version: *version });
            }
            Step::Restoring { image, .. } if *to == node => {
                out.push(Order::Restore { tree, epoch: *next, image: image.clone() });
            }
            Step::Undoing { .. } if *to == node => out.push(Order::Kill { tree, epoch: *next }),
            _ => {}
        },
        TreeState::Restarting { to, next, .. } if *to == node => {
            if let Some(image) = &t.checkpoint {
                out.push(Order::Restore { tree, epoch: *next, image: image.clone() });
            }
        }
        TreeState::Lost { reason } if t.birth == node => {
            let outcome = Outcome::Lost { reason: reason.clone() };
            out.push(Order::Finish { tree, outcome });
        }
        TreeState::Ended(end) if t.birth == node => {
            out.push(Order::Finish { tree, outcome: Outcome::Ended(*end) });
        }
        _ => {}
    }
    // A dump waits until all output was taken, so it needs to know as well.
    let has_copy =
        matches!(t.state, TreeState::Running | TreeState::Moving { step: Step::Dumping, .. });
    if has_copy && here && t.spool && t.spooled != Some(epoch) {
        out.push(Order::Spool { tree, epoch });
    }
}

/// Of the copy that is the tree.
fn heard_of_tree(tree: TreeId, t: &Tree, fact: &Fact, now: Millis) -> Option<TreeRecord> {
    let dumping = match &t.state {
        TreeState::Moving { next, version, step: Step::Dumping, .. } => Some((*next, *version)),
        _ => None,
    };
    match fact {
        Fact::Runs { floor, .. } => {
            let asked = matches!(t.state, TreeState::Starting | TreeState::Running);
            let news = asked && !t.confirmed && *floor == t.issued;
            news.then_some(TreeRecord::Runs { tree })
        }
        Fact::Dumped { attempt, image, .. } => (dumping == Some((*attempt, image.version)))
            .then(|| TreeRecord::Dumped { tree, image: image.clone(), at: now }),
        Fact::Refused { attempt, reason, .. } => dumping
            .is_some_and(|(next, _)| next == *attempt)
            .then(|| TreeRecord::Undone { tree, reason: reason.clone() }),
        Fact::Saved { image, .. } => {
            let asked = t.saving.is_some_and(|(version, _)| version == image.version);
            (asked && t.state == TreeState::Running)
                .then(|| TreeRecord::Saved { tree, image: image.clone() })
        }
        Fact::NotSaved { version, reason, .. } => t
            .saving
            .is_some_and(|(saving, _)| saving == *version)
            .then(|| TreeRecord::NotSaved { tree, reason: reason.clone() }),
        Fact::Spooled { .. } => (t.spool && t.spooled != Some(t.epoch) && !t.state.is_final())
            .then_some(TreeRecord::Spooled { tree }),
        Fact::Ended { end, .. } => {
            let ran = matches!(t.state, TreeState::Starting | TreeState::Running);
            (ran || dumping.is_some()).then_some(TreeRecord::Ended { tree, end: *end })
        }
        Fact::Restored { .. }
        | Fact::NotRestored { .. }
        | Fact::Gone { .. }
        | Fact::Finished { .. } => None,
    }
}

/// Of the copy that a move makes.
fn heard_of_target(
    tree: TreeId,
    t: &Tree,
    step: &Step,
    fact: &Fact,
    now: Millis,
) -> Option<TreeRecord> {
    match (step, fact) {
        (Step::Restoring { .. }, Fact::Restored { .. }) => Some(TreeRecord::Committed { tree }),
        (Step::Restoring { source_lost, .. }, Fact::NotRestored { reason, .. }) => {
            Some(if *source_lost {
                after_crash(tree, t, reason, now)
            } else {
                TreeRecord::Undone { tree, reason: reason.clone() }
            })
        }
        (Step::Undoing { reason }, Fact::Gone { .. } | Fact::NotRestored { .. }) => {
            Some(TreeRecord::Undone { tree, reason: reason.clone() })
        }
        _ => None,
    }
}

/// What becomes of a tree of which no copy is left.
pub(super) fn after_crash(tree: TreeId, t: &Tree, reason: &str, at: Millis) -> TreeRecord {
    let reason = reason.to_owned();
    match (t.restartable, &t.checkpoint) {
        (true, Some(_)) => TreeRecord::Waits { tree, reason, at },
        (true, None) => {
            let reason = format!("{reason}; it had no checkpoint yet");
            TreeRecord::Lost { tree, reason }
        }
        (false, _) => {
            let reason = format!("{reason}; it was not to be restarted from a checkpoint");
            TreeRecord::Lost { tree, reason }
        }
    }
}

/// A restart failed.
fn again(tree: TreeId, t: &Tree, reason: &str, why: &str, at: Millis) -> TreeRecord {
    if t.tries + 1 < TRIES_MAX {
        return TreeRecord::Waits { tree, reason: reason.to_owned(), at };
    }
    let reason = format!("{reason}; {TRIES_MAX} restarts failed, the last one: {why}");
    TreeRecord::Lost { tree, reason }
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
    let made = match &t.state {
        TreeState::Moving { to, next, step: Step::Restoring { image, .. }, .. } => {
            if t.restartable {
                t.checkpoint = Some(image.clone());
            }
            Some((*to, *next))
        }
        TreeState::Restarting { to, next, .. } => Some((*to, *next)),
        _ => None,
    };
    if let Some((to, next)) = made {
        if let Some(image) = &mut t.checkpoint {
            image.nodes.insert(to);
        }
        (t.node, t.epoch) = (to, next);
        t.state = TreeState::Running;
        t.confirmed = false;
    }
}
