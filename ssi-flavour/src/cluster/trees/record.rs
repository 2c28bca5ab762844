//! What changes in the table of trees.

use super::Owner;
use crate::cluster::messages::{End, Image, TreeId};
use crate::pids::NodeNumber;
use serde::{Deserialize, Serialize};
use xos_base::Millis;

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
