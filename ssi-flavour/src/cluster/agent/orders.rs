//! What the controller wants of a node.

use super::{Act, Agent, Copied, Save, What};
use crate::cluster::messages::{End, Fact, Image, Order, TreeId};
use xos_base::Millis;

impl Agent {
    pub(super) fn order(
        &mut self,
        order: &Order,
        now: Millis,
        out: &mut Vec<Act>,
        facts: &mut Vec<Fact>,
    ) {
        match order {
            Order::Start { tree, epoch } => self.start(*tree, *epoch, out, facts),
            Order::Run { tree, epoch, floor } => self.run(*tree, *epoch, *floor, out, facts),
            Order::Dump { tree, epoch, attempt, version, lasts } => {
                self.dump((*tree, *epoch), *attempt, (*version, *lasts), out, facts);
            }
            Order::Restore { tree, epoch, image, roll_back } => {
                self.restore((*tree, *epoch), (image, *roll_back), now, out, facts);
            }
            Order::Expect { tree, epoch, version, from } => {
                let newer = self.copies.get(tree).is_none_or(|c| c.epoch < *epoch);
                if newer && !self.is_fenced(*tree, *epoch) {
                    out.push(Act::Expect { tree: *tree, version: *version, from: *from });
                }
            }
            Order::Kill { tree, epoch } => {
                let (tree, epoch) = (*tree, *epoch);
                self.fence(tree, epoch, now);
                match self.copy(tree, epoch) {
                    None => facts.push(Fact::Gone { tree, epoch }),
                    Some(c) if c.what == What::Dying => {}
                    Some(c) => {
                        c.what = What::Dying;
                        out.push(Act::Kill { tree, epoch });
                    }
                }
            }
            Order::Save { tree, epoch, version } => {
                self.save(*tree, *epoch, *version, out, facts);
            }
            Order::Hold { tree, attempt, version, from, owner, output } => {
                let hold = (from, *owner, output.as_ref());
                self.hold((*tree, *attempt), *version, hold, out, facts);
            }
            Order::Spool { tree, epoch, output } => {
                let (tree, epoch) = (*tree, *epoch);
                if self.copy(tree, epoch).is_some() {
                    out.push(Act::Spool { tree, epoch, output: output.clone() });
                }
            }
            Order::Unspool { tree, epoch } => {
                out.push(Act::Unspool { tree: *tree, epoch: *epoch });
            }
            Order::Finish { tree, outcome } => {
                out.push(Act::Finish { tree: *tree, outcome: outcome.clone() });
                facts.push(Fact::Finished { tree: *tree });
            }
            Order::Forsake { tree } => out.push(Act::Forsake { tree: *tree }),
            Order::Discard { tree, version } => {
                let part = self.holds.get(tree).is_some_and(|h| h.version == *version);
                if part {
                    self.holds.remove(tree);
                }
                self.written.remove(&(*tree, *version));
                self.brief.remove(&(*tree, *version));
                if self.images.remove(&(*tree, *version)) || part {
                    out.push(Act::Discard { tree: *tree, version: *version });
                }
            }
        }
    }

    fn start(&mut self, tree: TreeId, epoch: u64, out: &mut Vec<Act>, facts: &mut Vec<Fact>) {
        if let Some(c) = self.copies.get(&tree) {
            if c.epoch == epoch && c.what == What::Running {
                facts.push(Fact::Runs { tree, epoch, floor: c.floor });
            }
        } else if !self.is_fenced(tree, epoch) {
            let (refused, save, cut, spooled) = Default::default();
            let what = What::Starting;
            let c = Copied { epoch, what, floor: epoch, refused, save, cut, spooled };
            self.copies.insert(tree, c);
            out.push(Act::Start { tree, epoch });
        }
    }

    fn run(
        &mut self,
        tree: TreeId,
        epoch: u64,
        floor: u64,
        out: &mut Vec<Act>,
        facts: &mut Vec<Fact>,
    ) {
        let Some(c) = self.copy(tree, epoch) else {
            facts.extend(self.vanished(tree, epoch));
            return;
        };
        match &c.what {
            // For a later attempt than the order knows of: it is late.
            What::Dumping { attempt } | What::Dumped { attempt, .. } if *attempt > floor => return,
            What::Dumping { .. } | What::Dumped { .. } | What::Restored => {
                c.what = What::Running;
                out.push(Act::Resume { tree, epoch });
            }
            What::Running => {}
            What::Ended { end, why, .. } => {
                facts.push(Fact::Ended { tree, epoch, end: *end, why: why.clone() });
                return;
            }
            What::Starting | What::Restoring { .. } | What::Dying => return,
        }
        c.floor = c.floor.max(floor);
        facts.push(Fact::Runs { tree, epoch, floor: c.floor });
    }

    /// A copy that is the tree, and of which nothing is here, was killed by somebody else.
    fn vanished(&self, tree: TreeId, epoch: u64) -> Option<Fact> {
        let none = !self.copies.contains_key(&tree);
        let (end, why) = (End::Signal { number: 9 }, String::new());
        none.then_some(Fact::Ended { tree, epoch, end, why })
    }

    fn dump(
        &mut self,
        (tree, epoch): (TreeId, u64),
        attempt: u64,
        (version, lasts): (u64, bool),
        out: &mut Vec<Act>,
        facts: &mut Vec<Fact>,
    ) {
        let Some(c) = self.copy(tree, epoch) else {
            facts.extend(self.vanished(tree, epoch));
            return;
        };
        if attempt <= c.floor {
            let reason = c.refused.clone();
            facts.push(Fact::Refused { tree, epoch, attempt, reason });
            return;
        }
        match &c.what {
            What::Running => {
                c.what = What::Dumping { attempt };
                out.push(Act::Dump { tree, epoch, attempt, version, lasts });
            }
            What::Dumped { attempt: done, image } if *done == attempt => {
                facts.push(Fact::Dumped { tree, epoch, attempt, image: image.clone() });
            }
            What::Ended { end, why, .. } => {
                facts.push(Fact::Ended { tree, epoch, end: *end, why: why.clone() });
            }
            _ => {}
        }
    }

    fn restore(
        &mut self,
        (tree, epoch): (TreeId, u64),
        (image, roll_back): (&Image, bool),
        now: Millis,
        out: &mut Vec<Act>,
        facts: &mut Vec<Fact>,
    ) {
        let over = |reason: &str| {
            let reason = reason.to_owned();
            Fact::NotRestored { tree, epoch, reason }
        };
        if self.is_fenced(tree, epoch) {
            facts.push(over("this copy was ended before"));
            return;
        }
        match self.copies.get(&tree) {
            Some(c) if c.epoch > epoch => {
                facts.push(over("a newer copy is here"));
                self.fence(tree, epoch, now);
                return;
            }
            Some(c) if c.epoch == epoch => {
                match c.what {
                    What::Ended { ran: false, .. } => {
                        facts.push(over("the copy ended before it was let run"));
                        self.copies.remove(&tree);
                        self.fence(tree, epoch, now);
                    }
                    What::Starting | What::Restoring { .. } | What::Dying => {}
                    _ => {
                        facts.extend(c.cut_back(tree));
                        facts.push(Fact::Restored { tree, epoch });
                    }
                }
                return;
            }
            // One that is not the tree any more.
            Some(c) => out.push(Act::Kill { tree, epoch: c.epoch }),
            None => {}
        }
        let (refused, save, cut, spooled) = Default::default();
        if !image.brief.is_empty() && !self.images.contains(&(tree, image.version)) {
            self.brief.insert((tree, image.version));
        }
        let what = What::Restoring { version: image.version };
        let c = Copied { epoch, what, floor: epoch, refused, save, cut, spooled };
        self.copies.insert(tree, c);
        out.push(Act::Restore { tree, epoch, image: image.clone(), roll_back });
    }

    fn save(
        &mut self,
        tree: TreeId,
        epoch: u64,
        version: u64,
        out: &mut Vec<Act>,
        facts: &mut Vec<Fact>,
    ) {
        let Some(c) = self.copy(tree, epoch).filter(|c| c.what == What::Running) else { return };
        match &c.save {
            Some(save) if save.version() > version => {}
            Some(Save::Making { version: made }) if *made == version => {}
            Some(Save::Done { image }) if image.version == version => {
                facts.push(Fact::Saved { tree, epoch, image: image.clone() });
            }
            Some(Save::Failed { version: failed, reason }) if *failed == version => {
                let reason = reason.clone();
                facts.push(Fact::NotSaved { tree, epoch, version, reason });
            }
            _ => {
                c.save = Some(Save::Making { version });
                out.push(Act::Save { tree, epoch, version });
            }
        }
    }
}
