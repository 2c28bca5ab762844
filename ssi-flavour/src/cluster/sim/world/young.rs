//! What is written down of trees, and of young ones only aside.

use super::*;

impl World {
    /// Writes down what a decision changed; of young trees aside.
    pub(super) fn write(&mut self, e: &Effect) {
        let Effect::Keep(record) = e else { return };
        let mut rest = Vec::new();
        for r in record.parts() {
            match r {
                Record::Tree(of) if self.young.contains_key(&of.tree()) => {
                    self.write_young(of, &mut rest);
                }
                other => rest.push(other.clone()),
            }
        }
        self.log.extend(Record::of(rest));
    }

    /// `rest`: what is written in one piece with this.
    fn write_young(&mut self, r: &TreeRecord, rest: &mut Vec<Record>) {
        let tree = r.tree();
        match r {
            TreeRecord::Placed { .. }
            | TreeRecord::Runs { .. }
            | TreeRecord::Ended { .. }
            | TreeRecord::Lost { .. } => self.aside.push(Record::Tree(r.clone())),
            TreeRecord::Forgotten { .. } => {
                self.young.remove(&tree);
                let of = self.take_aside(tree);
                self.over.extend(of);
            }
            _ => {
                self.young.remove(&tree);
                rest.extend(self.take_aside(tree));
                rest.push(Record::Tree(r.clone()));
            }
        }
    }

    fn take_aside(&mut self, tree: TreeId) -> Vec<Record> {
        let of = |r: &Record| matches!(r, Record::Tree(r) if r.tree() == tree);
        let all = std::mem::take(&mut self.aside);
        let (of, others) = all.into_iter().partition(of);
        self.aside = others;
        of
    }

    /// A tree is young no more: all that became of it is one change.
    pub(super) fn ripen(&mut self, tree: TreeId) {
        self.young.remove(&tree);
        let of = self.take_aside(tree);
        self.log.extend(Record::of(of));
    }
}
