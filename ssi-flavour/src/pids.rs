//! Whose a pid is: each node of a cluster has a range of its own.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

/// Pids that each node has: of the 22 bits of a pid on 64-bit Linux (`PID_MAX_LIMIT`) the lower 15.
pub const PIDS_PER_NODE: i32 = 1 << 15;
/// How many of these, the last ones, the kernel does not come to: before that the cell goes back to
/// the range's start. The controller gives them to roots of trees.
pub const GIVEN_PIDS: i32 = PIDS_PER_NODE / 16;
/// The highest number of a node.
pub const NODE_NUMBER_MAX: u8 = 127;

/// The number of a node in its cluster, 1 to [`NODE_NUMBER_MAX`]; the pids below the first range
/// belong to what is no cluster's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct NodeNumber(u8);

/// A number that no node can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no number of a node: they go from 1 to {NODE_NUMBER_MAX}")]
pub struct NoNodeNumber(u8);

impl TryFrom<u8> for NodeNumber {
    type Error = NoNodeNumber;

    fn try_from(number: u8) -> Result<NodeNumber, NoNodeNumber> {
        let good = (1..=NODE_NUMBER_MAX).contains(&number);
        if good { Ok(NodeNumber(number)) } else { Err(NoNodeNumber(number)) }
    }
}

impl From<NodeNumber> for u8 {
    fn from(number: NodeNumber) -> u8 {
        number.0
    }
}

impl fmt::Display for NodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl JsonSchema for NodeNumber {
    fn schema_name() -> Cow<'static, str> {
        "NodeNumber".into()
    }

    fn schema_id() -> Cow<'static, str> {
        concat!(module_path!(), "::NodeNumber").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = Schema::default();
        let mut says = |key: &str, value: Value| schema.insert(key.to_owned(), value);
        says("description", "The number of a node in its cluster.".into());
        says("type", "integer".into());
        says("minimum", 1.into());
        says("maximum", NODE_NUMBER_MAX.into());
        schema
    }
}

impl NodeNumber {
    /// The pids that are born on this node.
    pub fn pids(self) -> RangeInclusive<i32> {
        let first = i32::from(self.0) * PIDS_PER_NODE;
        first..=first + PIDS_PER_NODE - 1
    }

    /// Those of them that the controller gives to roots of trees.
    pub fn given_pids(self) -> RangeInclusive<i32> {
        let pids = self.pids();
        *pids.end() - GIVEN_PIDS + 1..=*pids.end()
    }

    /// The node on which a process with this pid was born.
    pub fn of(pid: i32) -> Option<NodeNumber> {
        u8::try_from(pid / PIDS_PER_NODE).ok()?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pid_is_one_nodes() {
        // wrong: two nodes would give one pid to two processes
        for number in 1..=NODE_NUMBER_MAX {
            let node = NodeNumber::try_from(number).unwrap();
            assert_eq!(NodeNumber::of(*node.pids().start()), Some(node));
            assert_eq!(NodeNumber::of(*node.pids().end()), Some(node));
            assert_eq!(NodeNumber::of(*node.given_pids().start()), Some(node));
            assert_eq!(node.given_pids().count(), 2048);
        }
        assert!(*NodeNumber(NODE_NUMBER_MAX).pids().end() < 1 << 22, "PID_MAX_LIMIT");
        for pid in [i32::MIN, -1, 0, 1, PIDS_PER_NODE - 1, 1 << 22, i32::MAX] {
            assert_eq!(NodeNumber::of(pid), None, "{pid}");
        }
        assert!(NodeNumber::try_from(0u8).is_err() && NodeNumber::try_from(128u8).is_err());
    }
}
