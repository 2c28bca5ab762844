//! What nodes are to do, and what follows from what they say and from the time that passes.

use super::{
    BARRED_MAX, BARRED_TEXT_MAX, HOLD_MAX, Step, TRIES_MAX, Tree, TreeRecord, TreeState, Trees,
    WAIT_MAX,
};
use crate::cluster::messages::{Fact, Order, Outcome, TreeId, WHY_CHARS_MAX};
use crate::pids::NodeNumber;
use std::time::Duration;
use xos_base::Millis;

impl Trees {
    /// What a node is to do.
    pub fn orders(&self, node: NodeNumber) -> Vec<Order> {
        let mut out = Vec::new();
        for id in &self.open {
            if let Some(t) = self.trees.get(id) {
                orders_of(*id, t, node, &mut out);
            }
        }
        out
    }

    /// What a node is to do with copies and images of which nothing is wanted any more.
    pub fn stale(
        &self,
        node: NodeNumber,
        copies: &[(TreeId, u64)],
        images: &[(TreeId, u64)],
    ) -> Vec<Order> {
        let copies = copies.iter().filter(|(id, copy)| !self.wants_copy(*id, node, *copy));
        let images = images.iter().filter(|(id, image)| !self.wants_image(*id, *image));
        let kill = copies.map(|(tree, epoch)| Order::Kill { tree: *tree, epoch: *epoch });
        let discard =
            images.map(|(tree, version)| Order::Discard { tree: *tree, version: *version });
        kill.chain(discard).collect()
    }

    fn wants_copy(&self, id: TreeId, at: NodeNumber, copy: u64) -> bool {
        self.trees.get(&id).is_some_and(|t| t.wants_copy(at, copy))
    }

    fn wants_image(&self, id: TreeId, image: u64) -> bool {
        self.trees.get(&id).is_some_and(|t| t.wants_image(image))
    }

    /// What follows from what a node said. Its term is known to be in force.
    pub fn heard(&self, from: NodeNumber, fact: &Fact, now: Millis) -> Option<TreeRecord> {
        let (tree, epoch) = match fact {
            Fact::Runs { tree, epoch, .. }
            | Fact::Dumped { tree, epoch, .. }
            | Fact::Refused { tree, epoch, .. }
            | Fact::Restored { tree, epoch }
            | Fact::NotRestored { tree, epoch, .. }
            | Fact::CutBack { tree, epoch, .. }
            | Fact::Barred { tree, epoch, .. }
            | Fact::Gone { tree, epoch }
            | Fact::Saved { tree, epoch, .. }
            | Fact::NotSaved { tree, epoch, .. }
            | Fact::Spooled { tree, epoch }
            | Fact::Ended { tree, epoch, .. } => (*tree, *epoch),
            Fact::Finished { tree } => {
                let t = self.trees.get(tree)?;
                let told = t.state.is_final() && t.home() == Some(from);
                return told.then_some(TreeRecord::Forgotten { tree: *tree });
            }
            Fact::Holds { tree, version, output } => {
                let new = self.trees.get(tree)?.wants_copy_of(*version, from, *output);
                let (tree, version, node, written) = (*tree, *version, from, *output);
                return new.then_some(TreeRecord::Held { tree, version, node, written });
            }
            Fact::NotHeld { tree, attempt, reason } => {
                let holding = self.trees.get(tree)?.holding.as_ref();
                let asked = holding.is_some_and(|h| h.node == from && h.attempt == *attempt);
                let (tree, node, reason) = (*tree, from, reason.clone());
                return asked.then_some(TreeRecord::NotHeld { tree, node, reason });
            }
        };
        let t = self.trees.get(&tree)?;
        if t.node == from && t.epoch == epoch {
            return heard_of_tree(tree, t, fact, now);
        }
        match &t.state {
            TreeState::Moving { to, next, step, .. } if *to == from && *next == epoch => {
                heard_of_target(tree, t, step, fact, now)
            }
            TreeState::Restarting { to, next, reason, .. } if *to == from && *next == epoch => {
                match fact {
                    Fact::Restored { .. } => Some(TreeRecord::Committed { tree }),
                    Fact::NotRestored { reason: why, .. } => Some(again(tree, t, reason, why, now)),
                    Fact::CutBack { cut, .. } => {
                        Some(TreeRecord::CutBack { tree, cut: cut.clone() })
                    }
                    Fact::Barred { reason, .. } => {
                        let reason = reason.chars().take(BARRED_TEXT_MAX).collect();
                        Some(TreeRecord::Barred { tree, reason, at: now })
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// What took too long; `most`: what a step may take at a node. What began before `began`, when
    /// this controller did, is given the whole time again.
    pub fn overdue(
        &self,
        began: Millis,
        now: Millis,
        most: impl Fn(NodeNumber) -> Duration,
    ) -> Vec<TreeRecord> {
        let late = |since: Millis, most: Duration| now.since(since.max(began)) >= most;
        let at = |step: &Step, t: &Tree, to: NodeNumber| match step {
            Step::Dumping => most(t.node),
            Step::Restoring { .. } | Step::Undoing { .. } => most(to),
        };
        let mut out = Vec::new();
        for (id, t) in &self.trees {
            let tree = *id;
            if let Some(h) = t.holding.as_ref().filter(|h| late(h.since, HOLD_MAX)) {
                let reason = format!("its checkpoint was not fetched within {HOLD_MAX:?}");
                out.push(TreeRecord::NotHeld { tree, node: h.node, reason });
            }
            match &t.state {
                TreeState::Moving { step, since, to, .. } if late(*since, at(step, t, *to)) => {
                    match step {
                        Step::Dumping => {
                            let reason = format!("the dump took longer than {:?}", most(t.node));
                            out.push(TreeRecord::Undone { tree, reason });
                        }
                        Step::Restoring { source_lost, .. } => {
                            let reason = format!("the restore took longer than {:?}", most(*to));
                            out.push(if *source_lost {
                                after_crash(tree, t, &reason, now)
                            } else {
                                TreeRecord::Undoing { tree, reason, at: now }
                            });
                        }
                        // There is no other way than to wait: for the answer, or the target's end.
                        Step::Undoing { .. } => {}
                    }
                }
                TreeState::Restarting { reason, since, to, .. } if late(*since, most(*to)) => {
                    let why = format!("it took longer than {:?}", most(*to));
                    out.push(again(tree, t, reason, &why, now));
                }
                TreeState::Checkpointed { since, .. }
                    if t.barred.is_some() && late(*since, BARRED_MAX) =>
                {
                    let why = t.barred.as_deref().unwrap_or_default();
                    let reason = format!("{why}; in {BARRED_MAX:?} nobody had it restarted");
                    out.push(TreeRecord::Lost { tree, reason });
                }
                TreeState::Checkpointed { reason, since }
                    if t.barred.is_none() && late(*since, WAIT_MAX) =>
                {
                    let reason =
                        format!("{reason}; in {WAIT_MAX:?} no node could restart its checkpoint");
                    out.push(TreeRecord::Lost { tree, reason });
                }
                TreeState::Leaving { image: None, since, .. } if late(*since, most(t.node)) => {
                    let reason = format!("the dump took longer than {:?}", most(t.node));
                    out.push(TreeRecord::Undone { tree, reason });
                }
                TreeState::Running
                    if t.saving.is_some_and(|(_, since)| late(since, most(t.node))) =>
                {
                    let reason = format!("the checkpoint took longer than {:?}", most(t.node));
                    out.push(TreeRecord::NotSaved { tree, reason });
                }
                _ => {}
            }
        }
        out
    }
}

fn orders_of(tree: TreeId, t: &Tree, node: NodeNumber, out: &mut Vec<Order>) {
    let (here, epoch) = (t.node == node, t.epoch);
    // A dump waits until all output was taken, so it needs to know as well. Before the copy is let
    // run: what it writes is not to go to an old spool of the tree first.
    let has_copy = matches!(
        t.state,
        TreeState::Running
            | TreeState::Moving { step: Step::Dumping, .. }
            | TreeState::Leaving { image: None, .. }
    );
    if has_copy && here && t.spool && t.spooled != Some(epoch) {
        out.push(Order::Spool { tree, epoch, output: t.begins_with() });
    }
    match &t.state {
        TreeState::Starting if here => out.push(Order::Start { tree, epoch }),
        TreeState::Running if here && !t.confirmed => {
            out.push(Order::Run { tree, epoch, floor: t.issued });
        }
        TreeState::Running if here => {
            if let Some((version, _)) = t.saving {
                out.push(Order::Save { tree, epoch, version });
            }
        }
        TreeState::Moving { to, next, version, step, .. } => match step {
            Step::Dumping if here => {
                let (attempt, version, lasts) = (*next, *version, false);
                out.push(Order::Dump { tree, epoch, attempt, version, lasts });
            }
            Step::Dumping if *to == node => {
                let (epoch, version, from) = (*next, *version, t.node);
                out.push(Order::Expect { tree, epoch, version, from });
            }
            Step::Restoring { image, .. } if *to == node => {
                let (image, roll_back) = (image.clone(), false);
                out.push(Order::Restore { tree, epoch: *next, image, roll_back });
            }
            Step::Undoing { .. } if *to == node => out.push(Order::Kill { tree, epoch: *next }),
            _ => {}
        },
        TreeState::Leaving { next, version, image: None, .. } if here => {
            let (attempt, version, lasts) = (*next, *version, true);
            out.push(Order::Dump { tree, epoch, attempt, version, lasts });
        }
        TreeState::Leaving { image: Some(_), .. } if here => {
            out.push(Order::Kill { tree, epoch });
        }
        TreeState::Restarting { to, next, .. } if *to == node => {
            if let Some(image) = &t.checkpoint {
                let (image, roll_back) = (image.clone(), !t.as_is);
                out.push(Order::Restore { tree, epoch: *next, image, roll_back });
            }
        }
        TreeState::Lost { reason } if t.home() == Some(node) => {
            let outcome = Outcome::Lost { reason: reason.clone() };
            out.push(Order::Finish { tree, outcome });
        }
        TreeState::Ended(end) if t.home() == Some(node) => {
            out.push(Order::Finish { tree, outcome: Outcome::Ended(*end) });
        }
        _ => {}
    }
    if let (Some(h), Some(image)) = (&t.holding, &t.checkpoint)
        && h.node == node
    {
        let (attempt, version, from) = (h.attempt, image.version, image.kept());
        let (owner, output) = (t.owner.uid, t.keeps(image, node));
        out.push(Order::Hold { tree, attempt, version, from, owner, output });
    }
}

/// Of the copy that is the tree.
fn heard_of_tree(tree: TreeId, t: &Tree, fact: &Fact, now: Millis) -> Option<TreeRecord> {
    let dumping = match &t.state {
        TreeState::Moving { next, version, step: Step::Dumping, .. }
        | TreeState::Leaving { next, version, image: None, .. } => Some((*next, *version)),
        _ => None,
    };
    let leaves = matches!(t.state, TreeState::Leaving { .. });
    match fact {
        Fact::Runs { floor, .. } => {
            let asked = matches!(t.state, TreeState::Starting | TreeState::Running);
            let news = asked && !t.confirmed && *floor == t.issued;
            news.then_some(TreeRecord::Runs { tree })
        }
        Fact::Dumped { attempt, image, .. } => {
            let image = (dumping == Some((*attempt, image.version))).then(|| image.clone())?;
            Some(match leaves {
                // Its copy is the only one until the image lasts.
                true if image.kept().is_empty() => {
                    let reason = "its node saved it into memory only".to_owned();
                    TreeRecord::Undone { tree, reason }
                }
                true => TreeRecord::Stopped { tree, image },
                false => TreeRecord::Dumped { tree, image, at: now },
            })
        }
        Fact::Refused { attempt, reason, .. } => dumping
            .is_some_and(|(next, _)| next == *attempt)
            .then(|| TreeRecord::Undone { tree, reason: reason.clone() }),
        Fact::Saved { image, .. } => {
            let asked = t.saving.is_some_and(|(version, _)| version == image.version);
            (asked && t.state == TreeState::Running)
                .then(|| TreeRecord::Saved { tree, image: image.clone() })
        }
        Fact::NotSaved { version, reason, .. } => t
            .saving
            .is_some_and(|(saving, _)| saving == *version)
            .then(|| TreeRecord::NotSaved { tree, reason: reason.clone() }),
        Fact::Spooled { .. } => (t.spool && t.spooled != Some(t.epoch) && !t.state.is_final())
            .then_some(TreeRecord::Spooled { tree }),
        Fact::Ended { end, why, .. } => {
            let ran = matches!(t.state, TreeState::Starting | TreeState::Running);
            let why = why.chars().take(WHY_CHARS_MAX).collect();
            (ran || dumping.is_some()).then_some(TreeRecord::Ended { tree, end: *end, why })
        }
        Fact::Gone { .. } => {
            let stopped = matches!(t.state, TreeState::Leaving { image: Some(_), .. });
            stopped.then_some(TreeRecord::Left { tree })
        }
        Fact::Restored { .. }
        | Fact::NotRestored { .. }
        | Fact::CutBack { .. }
        | Fact::Barred { .. }
        | Fact::Holds { .. }
        | Fact::NotHeld { .. }
        | Fact::Finished { .. } => None,
    }
}

/// Of the copy that a move makes.
fn heard_of_target(
    tree: TreeId,
    t: &Tree,
    step: &Step,
    fact: &Fact,
    now: Millis,
) -> Option<TreeRecord> {
    match (step, fact) {
        (Step::Restoring { .. }, Fact::Restored { .. }) => Some(TreeRecord::Committed { tree }),
        (
            Step::Restoring { source_lost, .. },
            Fact::NotRestored { reason, .. } | Fact::Barred { reason, .. },
        ) => Some(if *source_lost {
            after_crash(tree, t, reason, now)
        } else {
            TreeRecord::Undone { tree, reason: reason.clone() }
        }),
        (
            Step::Undoing { reason },
            Fact::Gone { .. } | Fact::NotRestored { .. } | Fact::Barred { .. },
        ) => Some(TreeRecord::Undone { tree, reason: reason.clone() }),
        _ => None,
    }
}

/// What becomes of a tree of which no copy is left.
pub(in crate::cluster) fn after_crash(
    tree: TreeId,
    t: &Tree,
    reason: &str,
    at: Millis,
) -> TreeRecord {
    let reason = reason.to_owned();
    match (t.restartable, &t.checkpoint) {
        (true, Some(_)) => TreeRecord::Waits { tree, reason, at },
        (true, None) => {
            let reason = format!("{reason}; it had no checkpoint yet");
            TreeRecord::Lost { tree, reason }
        }
        (false, _) => {
            let reason = format!("{reason}; it was not to be restarted from a checkpoint");
            TreeRecord::Lost { tree, reason }
        }
    }
}

/// A restart failed. When all did, there may be an older checkpoint.
fn again(tree: TreeId, t: &Tree, reason: &str, why: &str, at: Millis) -> TreeRecord {
    if t.tries + 1 < TRIES_MAX {
        return TreeRecord::Waits { tree, reason: reason.to_owned(), at };
    }
    if t.previous.is_some() {
        return TreeRecord::FellBack { tree, at };
    }
    let reason = format!("{reason}; {TRIES_MAX} restarts failed, the last one: {why}");
    TreeRecord::Lost { tree, reason }
}
