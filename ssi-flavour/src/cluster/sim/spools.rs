//! What nodes have of the output of trees: in spools, and kept with checkpoints. Bytes are counted.

use crate::cluster::messages::{Line, Offsets, TreeId, Written};
use crate::pids::NodeNumber;
use std::collections::BTreeMap;

/// A part of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) begins: u64,
    pub(super) ends: u64,
}

/// What is kept with a checkpoint.
#[derive(Clone, Copy, Debug)]
struct Kept {
    line: u64,
    part: Part,
}

/// A node's, on its disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Spools {
    /// Each of a line.
    spools: BTreeMap<TreeId, (Part, u64)>,
    kept: BTreeMap<TreeId, Kept>,
}

impl Spools {
    pub(super) fn spool(&self, tree: TreeId) -> Option<Part> {
        self.spools.get(&tree).map(|(part, _)| *part)
    }

    pub(super) fn trees(&self) -> Vec<TreeId> {
        self.spools.keys().copied().collect()
    }

    pub(super) fn line(&self, tree: TreeId) -> u64 {
        self.spools.get(&tree).map_or(0, |(_, line)| *line)
    }

    /// It is one of a line now.
    pub(super) fn renew(&mut self, tree: TreeId, line: u64) {
        if let Some((_, of)) = self.spools.get_mut(&tree) {
            *of = line;
        }
    }

    /// The spool of a tree; a new one begins at an offset.
    pub(super) fn open(&mut self, tree: TreeId, begins: u64) -> &mut Part {
        &mut self.spools.entry(tree).or_insert((Part { begins, ends: begins }, 0)).0
    }

    pub(super) fn unspool(&mut self, tree: TreeId) {
        self.spools.remove(&tree);
    }

    /// What is kept of a tree, as far as it is good for a line.
    fn good(&self, tree: TreeId, line: Line) -> Part {
        let Some(kept) = self.kept.get(&tree) else { return Part { begins: 0, ends: 0 } };
        let ends = line.good(kept.line, at(kept.part.ends)).out;
        Part { ends, ..kept.part }
    }

    /// What another node gets that asks for output.
    pub(super) fn gives(&self, tree: TreeId, line: Line, upto: u64) -> Option<Part> {
        let good = self.good(tree, line);
        match good.ends >= upto {
            true => Some(good),
            false => self.spool(tree).filter(|part| part.ends >= upto),
        }
    }

    /// Keeps output up to `upto`, with what others have; `upto` of them is fetched. Whether all of
    /// it is there.
    pub(super) fn keep(
        &mut self,
        tree: TreeId,
        (line, upto): (Line, u64),
        fetched: Option<Part>,
    ) -> bool {
        // That it is elsewhere was said before it came here.
        if self.spools.get(&tree).is_some_and(|(_, of)| *of >= line.number) {
            return false;
        }
        let own = self.good(tree, line);
        let part = match fetched {
            _ if own.ends >= upto && own.ends > 0 => own,
            // It begins where the other one does, unless some of it was here.
            Some(part) if own.ends > 0 && part.begins <= own.ends => Part { ends: upto, ..own },
            Some(part) => Part { begins: part.begins, ends: upto },
            None if upto == 0 => own,
            None => return false,
        };
        self.unspool(tree);
        self.kept.insert(tree, Kept { line: line.number, part });
        true
    }

    pub(super) fn let_go(&mut self, tree: TreeId) {
        self.kept.remove(&tree);
    }

    /// What is kept becomes the spool of a copy that has all from an offset on, and that added to
    /// what is kept until an `end`, if it did. Whether nothing is missing.
    pub(super) fn adopt(
        &mut self,
        tree: TreeId,
        written: &Written,
        (has, added): (u64, Option<u64>),
    ) -> bool {
        let mut part = self.good(tree, written.line);
        part.ends = added.unwrap_or(part.ends);
        let fits = part.ends >= has;
        self.kept.remove(&tree);
        let part = if fits { part } else { Part { begins: has, ends: has } };
        self.spools.insert(tree, (part, written.line.number + 1));
        fits && part.begins == 0
    }

    /// Whether the spool that is here is gone on with.
    pub(super) fn goes_on(&self, tree: TreeId, here: NodeNumber, written: &Written) -> bool {
        let reaches = |part: Part| part.ends >= written.upto.out;
        written.at.first() == Some(&here) && self.spool(tree).is_some_and(reaches)
    }
}

fn at(out: u64) -> Offsets {
    Offsets { out, err: 0 }
}
