//! What a node keeps of outputs, and takes for its spools.

use super::{Kept, Near, Node};
use crate::cluster::messages::{TreeId, Written};

impl Node {
    /// Keeps output with a checkpoint. Whether all of it is there.
    pub(super) fn keep(&mut self, tree: TreeId, kept: &Kept, near: &Near<'_>) -> bool {
        let Written { line, upto, at } = &kept.written;
        // What a copy here writes meanwhile is added when what is before it is here.
        let epoch = self.procs.get(&tree).map(|p| p.epoch);
        let tail = kept.tail.filter(|(of, _)| epoch == Some(*of));
        let fetched = tail.map_or(upto.out, |(_, written)| upto.out.max(written));
        let follows = self.procs.get(&tree).is_some_and(|p| p.follow);
        let part =
            (near.output)(tree, at.as_slice(), *line, if follows { upto.out } else { fetched });
        if !self.spools.keep(tree, (*line, upto.out), part) {
            return false;
        }
        if tail.is_some()
            && part.is_some()
            && let Some(p) = self.procs.get_mut(&tree)
        {
            p.follow = true;
        }
        true
    }

    /// A copy's spool is here from now on. Whether it begins with all that there is, or may.
    pub(super) fn adopt(
        &mut self,
        tree: TreeId,
        output: Option<&Written>,
        (acked, written): (u64, u64),
        near: &Near<'_>,
    ) -> bool {
        let Some(output) = output else {
            // One from before that lacks what the copy does not have begins anew.
            if self.spools.spool(tree).is_none_or(|part| part.ends < acked) {
                self.spools.unspool(tree);
                if acked > 0 {
                    self.adopted.insert(tree, false);
                }
            }
            self.spools.open(tree, acked);
            return true;
        };
        if self.spools.goes_on(tree, self.number, output) {
            self.spools.renew(tree, output.line.number + 1);
            return true;
        }
        // What is here from before does not count.
        self.spools.unspool(tree);
        let added = self.procs.get(&tree).filter(|p| p.follow).map(|_| written);
        let line = (output.line, output.upto.out.max(acked));
        if added.is_none() {
            let part = (near.output)(tree, output.at.as_slice(), line.0, line.1);
            if !self.spools.keep(tree, line, part) {
                return false;
            }
        }
        let whole = self.spools.adopt(tree, output, (acked, added));
        self.adopted.insert(tree, whole);
        true
    }
}
