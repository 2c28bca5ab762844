//! What changes in the table of trees.

use super::Wish;
use crate::cluster::messages::{CutFile, End, Image, TreeId};
use crate::pids::NodeNumber;
use serde::{Deserialize, Serialize};
use xos_base::Millis;

/// A change of the trees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeRecord {
    /// A new tree waits until a node has room.
    Queued {
        /// Its number, the next.
        tree: TreeId,
        /// What it is to be.
        wish: Wish,
    },
    /// A new tree, or one that waited, is to be started.
    Placed {
        /// Its number, the next one or that of what waited.
        tree: TreeId,
        /// The pid of its root.
        root: i32,
        /// What it is to be.
        wish: Wish,
        /// Where its ghost is.
        birth: NodeNumber,
        /// Where it is started.
        node: NodeNumber,
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
        /// Whether its files stay as they are.
        #[serde(default)]
        as_is: bool,
    },
    /// For a restart files were cut back.
    CutBack {
        /// The tree.
        tree: TreeId,
        /// Which.
        cut: Vec<CutFile>,
    },
    /// It was not restarted, and is not until somebody asks for it.
    Barred {
        /// The tree.
        tree: TreeId,
        /// Which files keep it, and why.
        reason: String,
        /// When.
        at: Millis,
    },
    /// It begins to leave for another cluster.
    Leaves {
        /// The tree.
        tree: TreeId,
        /// When.
        at: Millis,
    },
    /// It is stopped for that, its image complete: its copy goes and never runs again.
    Stopped {
        /// The tree.
        tree: TreeId,
        /// The image.
        image: Image,
    },
    /// It left: of it only its checkpoint is here.
    Left {
        /// The tree.
        tree: TreeId,
    },
    /// It did not get away before its node failed: it waits here for one that restarts it.
    Stayed {
        /// The tree.
        tree: TreeId,
        /// Why.
        reason: String,
        /// When.
        at: Millis,
    },
    /// A tree that left another cluster, or this one, is to go on here, from an image that each
    /// node reaches there.
    Came {
        /// Its number here, the next one.
        tree: TreeId,
        /// The pid of its root.
        root: i32,
        /// What it is to be.
        wish: Wish,
        /// Where its ghost is.
        birth: NodeNumber,
        /// What it is made of.
        image: Image,
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
    /// A node is to fetch a copy of the checkpoint.
    Holding {
        /// The tree.
        tree: TreeId,
        /// The node.
        node: NodeNumber,
        /// When.
        at: Millis,
    },
    /// A node has a copy of an image.
    Held {
        /// The tree.
        tree: TreeId,
        /// The image.
        version: u64,
        /// The node.
        node: NodeNumber,
        /// Whether it keeps what the tree had written until then as well.
        #[serde(default)]
        written: bool,
    },
    /// The node that was to fetch a copy has none.
    NotHeld {
        /// The tree.
        tree: TreeId,
        /// The node.
        node: NodeNumber,
        /// Why.
        reason: String,
    },
    /// The checkpoint before the last one is not needed any more.
    Settled {
        /// The tree.
        tree: TreeId,
    },
    /// The last checkpoint cannot be had, or not be restarted: the one before it counts again.
    FellBack {
        /// The tree.
        tree: TreeId,
        /// When.
        at: Millis,
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
        /// Why it was not started at all; empty: it was.
        #[serde(default)]
        why: String,
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
            TreeRecord::Queued { tree, .. }
            | TreeRecord::Placed { tree, .. }
            | TreeRecord::Runs { tree }
            | TreeRecord::Moving { tree, .. }
            | TreeRecord::Dumped { tree, .. }
            | TreeRecord::SourceLost { tree }
            | TreeRecord::Undoing { tree, .. }
            | TreeRecord::Undone { tree, .. }
            | TreeRecord::Committed { tree }
            | TreeRecord::Waits { tree, .. }
            | TreeRecord::Restarting { tree, .. }
            | TreeRecord::Leaves { tree, .. }
            | TreeRecord::Stopped { tree, .. }
            | TreeRecord::Left { tree }
            | TreeRecord::Stayed { tree, .. }
            | TreeRecord::Came { tree, .. }
            | TreeRecord::CutBack { tree, .. }
            | TreeRecord::Barred { tree, .. }
            | TreeRecord::Saving { tree, .. }
            | TreeRecord::Saved { tree, .. }
            | TreeRecord::NotSaved { tree, .. }
            | TreeRecord::Holding { tree, .. }
            | TreeRecord::Held { tree, .. }
            | TreeRecord::NotHeld { tree, .. }
            | TreeRecord::Settled { tree }
            | TreeRecord::FellBack { tree, .. }
            | TreeRecord::Orphaned { tree }
            | TreeRecord::Spooled { tree }
            | TreeRecord::Ended { tree, .. }
            | TreeRecord::Lost { tree, .. }
            | TreeRecord::Forgotten { tree } => *tree,
        }
    }
}
