//! What the controller keeps, and what follows from a decision.

use super::members::{MemberRecord, Members};
use super::messages::ToNode;
use super::trees::{TreeRecord, Trees};
use crate::pids::NodeNumber;
use serde::{Deserialize, Serialize};

/// One change of the controller's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// Of a node.
    Member(MemberRecord),
    /// Of a tree.
    Tree(TreeRecord),
}

impl From<MemberRecord> for Record {
    fn from(r: MemberRecord) -> Record {
        Record::Member(r)
    }
}

impl From<TreeRecord> for Record {
    fn from(r: TreeRecord) -> Record {
        Record::Tree(r)
    }
}

/// What the caller does, in this order: whatever is told waits until the records before it are on
/// the disk. A record lost together with all that was to be told after it does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// To be stored; it is applied already. The ends and losses of trees are here to be passed on.
    Keep(Record),
    /// To be sent; it may be lost, doubled and late.
    Tell {
        /// To whom.
        node: NodeNumber,
        /// What.
        message: ToNode,
    },
}

/// The controller's state: what the records say, nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The nodes.
    pub members: Members,
    /// The trees.
    pub trees: Trees,
}

impl State {
    /// Changes the state.
    pub fn apply(&mut self, r: &Record) {
        match r {
            Record::Member(r) => self.members.apply(r),
            Record::Tree(r) => self.trees.apply(r),
        }
    }
}
