//! What the records change.

use super::{CUT_MAX, CUT_NAMES_MAX, Holding, Step, Tree, TreeRecord, TreeState, Trees, Wish};
use crate::cluster::messages::{CutFile, Image, Line};
use crate::pids::NodeNumber;

impl Trees {
    /// Changes the trees.
    pub fn apply(&mut self, r: &TreeRecord) {
        let id = r.tree();
        match r {
            TreeRecord::Queued { wish, .. } => {
                self.last = self.last.max(id.0);
                self.queue.add(id, wish.clone());
            }
            TreeRecord::Placed { root, wish, birth, node, .. } => {
                self.last = self.last.max(id.0);
                self.queue.started(id);
                self.trees.insert(id, new(*root, wish, *birth, *node));
            }
            TreeRecord::Came { root, wish, birth, image, at, .. } => {
                self.last = self.last.max(id.0);
                let mut t = new(*root, wish, *birth, *birth);
                t.versions = image.version;
                t.checkpoint = Some(image.clone());
                let reason = "it comes from another cluster".to_owned();
                t.state = TreeState::Checkpointed { reason, since: *at };
                self.trees.insert(id, t);
            }
            TreeRecord::Forgotten { .. } => {
                self.queue.remove(id);
                self.trees.remove(&id);
            }
            // There is no ghost that waits for the end of what never began.
            TreeRecord::Ended { .. } | TreeRecord::Lost { .. } if self.queue.wish(id).is_some() => {
                self.queue.remove(id);
            }
            _ => {
                if let Some(t) = self.trees.get_mut(&id) {
                    change(t, r);
                }
            }
        }
        if self.trees.get(&id).is_some_and(Tree::needs_orders) {
            self.open.insert(id);
        } else {
            self.open.remove(&id);
        }
    }
}

fn new(root: i32, wish: &Wish, birth: NodeNumber, node: NodeNumber) -> Tree {
    let (checkpoint, previous, holding, holds) = Default::default();
    let (saving, spooled, tries, versions) = Default::default();
    let (barred, as_is, cut, home, homeless, line) = Default::default();
    Tree {
        root,
        owner: wish.owner.clone(),
        birth,
        node,
        epoch: 1,
        issued: 1,
        versions,
        restartable: wish.restartable,
        state: TreeState::Starting,
        confirmed: false,
        interval: wish.interval,
        checkpoint,
        previous,
        holding,
        holds,
        saving,
        spool: false,
        spooled,
        home,
        homeless,
        line,
        tries,
        barred,
        as_is,
        cut,
    }
}

fn change(t: &mut Tree, r: &TreeRecord) {
    match r {
        TreeRecord::Queued { .. }
        | TreeRecord::Placed { .. }
        | TreeRecord::Came { .. }
        | TreeRecord::Forgotten { .. } => {}
        TreeRecord::Runs { .. } => {
            t.state = TreeState::Running;
            t.confirmed = true;
            t.tries = 0;
            t.as_is = false;
        }
        TreeRecord::Moving { to, at, .. } => {
            t.issued += 1;
            t.versions += 1;
            t.saving = None;
            let (next, version, step) = (t.issued, t.versions, Step::Dumping);
            t.state = TreeState::Moving { to: *to, next, version, step, since: *at };
        }
        TreeRecord::Dumped { image, at, .. } => {
            if let TreeState::Moving { step, since, .. } = &mut t.state {
                *step = Step::Restoring { image: image.clone(), source_lost: false };
                *since = *at;
            }
        }
        TreeRecord::SourceLost { .. } => {
            if let TreeState::Moving { step: Step::Restoring { source_lost, .. }, .. } =
                &mut t.state
            {
                *source_lost = true;
            }
        }
        TreeRecord::Undoing { reason, at, .. } => {
            if let TreeState::Moving { step, since, .. } = &mut t.state {
                *step = Step::Undoing { reason: reason.clone() };
                *since = *at;
            }
        }
        TreeRecord::Undone { .. } => {
            t.state = TreeState::Running;
            t.confirmed = false;
        }
        TreeRecord::Committed { .. } => commit(t),
        TreeRecord::Waits { reason, at, .. } => {
            if matches!(t.state, TreeState::Restarting { .. }) {
                t.tries += 1;
            }
            rest(t);
            t.state = TreeState::Checkpointed { reason: reason.clone(), since: *at };
        }
        TreeRecord::FellBack { at, .. } => {
            if let Some(image) = t.previous.take() {
                t.checkpoint = Some(image);
            }
            t.tries = 0;
            if let TreeState::Restarting { reason, .. } = &t.state {
                t.state = TreeState::Checkpointed { reason: reason.clone(), since: *at };
            }
        }
        TreeRecord::Restarting { to, at, as_is, .. } => {
            t.issued += 1;
            t.barred = None;
            t.as_is = *as_is;
            let reason = match &t.state {
                TreeState::Checkpointed { reason, .. } => reason.clone(),
                _ => String::new(),
            };
            let next = t.issued;
            t.state = TreeState::Restarting { to: *to, next, reason, since: *at };
        }
        TreeRecord::Leaves { at, .. } => {
            t.issued += 1;
            t.versions += 1;
            t.saving = None;
            let (next, version, image) = (t.issued, t.versions, None);
            t.state = TreeState::Leaving { next, version, image, since: *at };
        }
        TreeRecord::Stopped { image, .. } => {
            if let TreeState::Leaving { image: made, .. } = &mut t.state {
                *made = Some(image.clone());
            }
        }
        TreeRecord::Left { .. } => {
            take_stopped(t);
            rest(t);
            // It goes on from the last one, or not at all.
            t.previous = None;
            t.state = TreeState::Away;
        }
        TreeRecord::Stayed { reason, at, .. } => {
            take_stopped(t);
            rest(t);
            t.state = TreeState::Checkpointed { reason: reason.clone(), since: *at };
        }
        TreeRecord::CutBack { cut, .. } => remember(t, cut),
        TreeRecord::Barred { reason, at, .. } => {
            if let TreeState::Restarting { reason, .. } = &t.state {
                t.state = TreeState::Checkpointed { reason: reason.clone(), since: *at };
            }
            t.barred = Some(reason.clone());
            t.as_is = false;
        }
        TreeRecord::Saving { at, .. } => {
            t.versions += 1;
            t.saving = Some((t.versions, *at));
        }
        TreeRecord::Saved { image, .. } => {
            t.saving = None;
            supersede(t, image.clone());
        }
        TreeRecord::NotSaved { .. } => t.saving = None,
        TreeRecord::Holding { node, at, .. } => {
            t.holds += 1;
            t.holding = Some(Holding { node: *node, attempt: t.holds, since: *at });
        }
        TreeRecord::Held { version, node, written, .. } => held(t, *version, *node, *written),
        TreeRecord::NotHeld { .. } => t.holding = None,
        TreeRecord::Settled { .. } => t.previous = None,
        TreeRecord::Orphaned { .. } => (t.spool, t.homeless) = (true, true),
        TreeRecord::Spooled { .. } => spooled(t),
        TreeRecord::Ended { end, .. } => {
            rest(t);
            t.state = TreeState::Ended(*end);
        }
        TreeRecord::Lost { reason, .. } => {
            rest(t);
            t.state = TreeState::Lost { reason: reason.clone() };
        }
    }
}

/// Files were cut back for it. What nodes say of that is told again when nobody answered.
fn remember(t: &mut Tree, cut: &[CutFile]) {
    for one in cut {
        let fits = one.path.len() + one.kept.len() <= CUT_NAMES_MAX;
        if fits && !t.cut.contains(one) {
            t.cut.push(one.clone());
        }
    }
    let many = t.cut.len().saturating_sub(CUT_MAX);
    t.cut.drain(..many);
}

/// Nothing of it runs: no image is made or copied.
fn rest(t: &mut Tree) {
    t.saving = None;
    t.holding = None;
}

/// The image of a tree that stopped to leave is its checkpoint: nothing ran after it.
fn take_stopped(t: &mut Tree) {
    if let TreeState::Leaving { image: Some(image), .. } = &t.state {
        let image = image.clone();
        supersede(t, image);
    }
}

/// A newer checkpoint is complete, on one node so far. The one before stays until others have it;
/// of two that came before, the one that more nodes have for good is of more use.
fn supersede(t: &mut Tree, image: Image) {
    let reach = |image: &Image| if image.shared { usize::MAX } else { image.kept().len() };
    let old = t.checkpoint.replace(image);
    t.holding = None;
    let before = t.previous.take();
    if !t.restartable {
        return;
    }
    t.previous = match (old, before) {
        (Some(old), Some(before)) if reach(&old) < reach(&before) => Some(before),
        (old, before) => old.or(before),
    };
}

/// A node has an image, and what was `written` until then if it says so.
fn held(t: &mut Tree, version: u64, node: NodeNumber, written: bool) {
    for image in [&mut t.checkpoint, &mut t.previous].into_iter().flatten() {
        if image.version == version {
            image.nodes.insert(node);
            if written {
                image.written.insert(node);
            }
            image.brief.remove(&node);
        }
    }
    let newest = t.checkpoint.as_ref().is_some_and(|c| c.version == version);
    if newest && t.holding.as_ref().is_some_and(|h| h.node == node) {
        t.holding = None;
    }
}

/// The node where it is has its spool. What others keep of the one before is the same up to the
/// checkpoint with which they keep it.
fn spooled(t: &mut Tree) {
    t.spooled = Some(t.epoch);
    if t.home() != Some(t.node) {
        (t.home, t.homeless) = (Some(t.node), false);
        for image in [&mut t.checkpoint, &mut t.previous].into_iter().flatten() {
            // It is the beginning of the spool now.
            image.written.remove(&t.node);
        }
        let fork = t.checkpoint.as_ref().map(|image| image.output).unwrap_or_default();
        t.line = Line { number: t.line.number + 1, fork };
    }
}

/// The copy that was made is the tree. The image of a move is as good as a checkpoint.
fn commit(t: &mut Tree) {
    let (to, next, image) = match &t.state {
        TreeState::Moving { to, next, step: Step::Restoring { image, .. }, .. } => {
            (*to, *next, Some(image.clone()))
        }
        TreeState::Restarting { to, next, .. } => (*to, *next, None),
        _ => return,
    };
    if t.restartable {
        if let Some(image) = image {
            supersede(t, image);
        }
        // It was fetched there. One that came from another cluster is not there for ever.
        if let Some(image) = &mut t.checkpoint {
            image.came_to(to);
            image.shared = false;
        }
    }
    (t.node, t.epoch) = (to, next);
    t.state = TreeState::Running;
    t.confirmed = false;
}
