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
    /// Several that are one change, none of them such a list: with a part of it on the disk, the
    /// rest would never happen.
    All(Vec<Record>),
}

impl Record {
    /// One record of what changes together.
    pub(super) fn of(mut list: Vec<Record>) -> Option<Record> {
        if list.len() > 1 { Some(Record::All(list)) } else { list.pop() }
    }

    /// The changes that it holds, in their order.
    pub fn parts(&self) -> &[Record] {
        match self {
            Record::All(list) => list,
            one => std::slice::from_ref(one),
        }
    }
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
    /// To be stored whole; it is applied already. The ends and losses of trees are here to be
    /// passed on.
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
            Record::All(list) => list.iter().for_each(|r| self.apply(r)),
        }
    }
}
