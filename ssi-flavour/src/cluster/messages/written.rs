//! What trees wrote, as it is spoken of.

use super::Offsets;
use crate::pids::NodeNumber;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

impl Offsets {
    /// The same for output and error output, in this order.
    pub fn both(self) -> [u64; 2] {
        [self.out, self.err]
    }

    /// Whether it reaches as far as another one in both streams.
    pub fn covers(self, other: Offsets) -> bool {
        self.out >= other.out && self.err >= other.err
    }
}

impl From<[u64; 2]> for Offsets {
    fn from([out, err]: [u64; 2]) -> Offsets {
        Offsets { out, err }
    }
}

/// Which of the spools that a tree had one after the other has its output now: what was kept of an
/// older one may be other bytes than what the tree wrote again after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "TreeLine")]
pub struct Line {
    /// Its number, from 0.
    pub number: u64,
    /// Up to here it is the same as the one before it.
    pub fork: Offsets,
}

impl Line {
    /// How much is good of what was kept up to `ends` of the line with a number.
    pub fn good(&self, number: u64, ends: Offsets) -> Offsets {
        if number == self.number {
            ends
        } else if number.checked_add(1) == Some(self.number) {
            let (out, err) = (ends.out.min(self.fork.out), ends.err.min(self.fork.err));
            Offsets { out, err }
        } else {
            Offsets::default()
        }
    }
}

/// A part of what a tree wrote, which one node wants of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stretch {
    /// From here.
    pub from: Offsets,
    /// To here, if there is so much.
    pub upto: Offsets,
    /// Of which spool.
    pub line: Line,
}

/// Output that a node is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "TreeWritten")]
pub struct Written {
    /// All up to here.
    pub upto: Offsets,
    /// Of which spool.
    pub line: Line,
    /// The nodes that have it, the spool's first.
    pub at: Vec<NodeNumber>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_of_another_spool_counts_as_far_as_both_are_the_same() {
        // wrong: a program's output would be put together of two of its lives, or be fetched again
        // as a whole each time a node died
        let at = |out| Offsets { out, err: 0 };
        let line = Line { number: 3, fork: at(50) };
        assert_eq!(line.good(3, at(90)), at(90));
        assert_eq!(line.good(2, at(90)), at(50));
        assert_eq!(line.good(2, at(20)), at(20));
        for other in [0, 1, 4, u64::MAX] {
            assert_eq!(line.good(other, at(90)), at(0), "{other}");
        }
    }
}
