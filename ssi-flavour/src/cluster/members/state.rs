//! How a node stands, and what it may become.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How a node stands, as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeState {
    /// It may join.
    Possible,
    /// It joined; it has not been tried.
    Present,
    /// It takes trees.
    Online,
    /// It takes no new ones; those that it has are to leave.
    Draining,
    /// It was not heard for a while.
    Suspect,
    /// Its term was ended.
    Failed,
}

impl NodeState {
    /// All of them.
    pub const ALL: [NodeState; 6] = [
        NodeState::Possible,
        NodeState::Present,
        NodeState::Online,
        NodeState::Draining,
        NodeState::Suspect,
        NodeState::Failed,
    ];

    /// Whether a node may come from this state to that one.
    pub fn leads_to(self, to: NodeState) -> bool {
        use NodeState::{Draining, Failed, Online, Possible, Present, Suspect};
        match self {
            Possible => to == Present,
            Present => matches!(to, Online | Suspect | Failed | Possible),
            Online => matches!(to, Draining | Suspect | Failed),
            Draining => matches!(to, Online | Suspect | Failed | Possible),
            // Heard again, it is what it was.
            Suspect => matches!(to, Present | Online | Draining | Failed),
            Failed => matches!(to, Present | Possible),
        }
    }

    /// Whether a node in this state has a term under which it may run trees.
    pub fn has_term(self) -> bool {
        !matches!(self, NodeState::Possible | NodeState::Failed)
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeState::Possible => "possible",
            NodeState::Present => "present",
            NodeState::Online => "online",
            NodeState::Draining => "draining",
            NodeState::Suspect => "suspect",
            NodeState::Failed => "failed",
        })
    }
}
