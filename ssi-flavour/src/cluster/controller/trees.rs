//! What is asked about trees.

use super::{Controller, Refused};
use crate::cluster::members::{Member, NodeState};
use crate::cluster::messages::{End, Image, Order, TreeId};
use crate::cluster::record::{Effect, Record};
use crate::cluster::trees::{Owner, Tree, TreeRecord, TreeState, Wish};
use crate::pids::NodeNumber;
use std::collections::BTreeSet;
use xos_base::{Millis, VoId};

/// Most ghosts of a node that are ended at a time; the others are named again.
const GHOSTS_MAX: usize = 1024;

impl Controller {
    /// Has a tree wait until a node has room: [`Controller::begin`] starts it then.
    pub fn queue(&mut self, wish: &Wish) -> (TreeId, Vec<Effect>) {
        let tree = self.state.trees.next();
        let mut out = Vec::new();
        self.put(TreeRecord::Queued { tree, wish: wish.clone() }, &mut out);
        (tree, out)
    }

    /// What waits of VOs of which nothing will run here any more is lost.
    pub fn drop_waiting(&mut self, kept: &BTreeSet<VoId>) -> Vec<Effect> {
        let waiting = self.state.trees.queue().iter();
        let gone = waiting.filter(|(_, wish)| !kept.contains(&wish.owner.vo));
        let gone: Vec<(TreeId, VoId)> =
            gone.map(|(tree, wish)| (tree, wish.owner.vo.clone())).collect();
        let mut out = Vec::new();
        for (tree, vo) in gone {
            let reason = format!("it waited for a node with room, and {vo} is not served any more");
            self.put(TreeRecord::Lost { tree, reason }, &mut out);
        }
        out
    }

    /// Starts a tree on a node that was chosen for it.
    ///
    /// # Errors
    /// [`Refused`] when a node does not do.
    pub fn start(
        &mut self,
        root: i32,
        wish: &Wish,
        birth: NodeNumber,
        node: NodeNumber,
    ) -> Result<(TreeId, Vec<Effect>), Refused> {
        let tree = self.state.trees.next();
        let out = self.place(tree, root, wish.clone(), birth, node)?;
        Ok((tree, out))
    }

    /// Starts a tree that waited on a node that was chosen for it.
    ///
    /// # Errors
    /// [`Refused`] when it does not wait, or a node does not do: then it goes on waiting.
    pub fn begin(
        &mut self,
        tree: TreeId,
        root: i32,
        birth: NodeNumber,
        node: NodeNumber,
    ) -> Result<Vec<Effect>, Refused> {
        let Some(wish) = self.state.trees.queue().wish(tree).cloned() else {
            let t = self.tree(tree)?;
            return Err(Refused::State { tree, state: describe(&t.state) });
        };
        self.place(tree, root, wish, birth, node)
    }

    fn place(
        &mut self,
        tree: TreeId,
        root: i32,
        wish: Wish,
        birth: NodeNumber,
        node: NodeNumber,
    ) -> Result<Vec<Effect>, Refused> {
        let refused = |reason| Refused::Node { tree, reason };
        let on = self.member(tree, node)?;
        if !matches!(on.state, NodeState::Online) {
            return Err(refused(format!("{} is {}", on.id, on.state)));
        }
        serves(on, &wish.owner).map_err(refused)?;
        let home = self.member(tree, birth)?;
        if !home.state.has_term() {
            return Err(refused(format!("{} is {}", home.id, home.state)));
        }
        // One that does not know of its term yet may begin anew in the same, without the ghost.
        if self.heard.sent(birth).is_none() {
            return Err(refused(format!("{} has sent no heartbeat yet: try again", home.id)));
        }
        let mut out = Vec::new();
        let touched = self.put(TreeRecord::Placed { tree, root, wish, birth, node }, &mut out);
        self.push(&touched, &mut out);
        Ok(out)
    }

    /// A tree of which nobody was told yet is none after all.
    pub fn withdraw(&mut self, tree: TreeId) -> Vec<Effect> {
        let mut out = Vec::new();
        self.put(TreeRecord::Forgotten { tree }, &mut out);
        out
    }

    /// Ends a tree of which nothing runs: one that waits until a node has room, or as a checkpoint.
    ///
    /// # Errors
    /// [`Refused`] when there is none, or something of it may run.
    pub fn end(&mut self, tree: TreeId) -> Result<Vec<Effect>, Refused> {
        if self.state.trees.queue().wish(tree).is_none() {
            let t = self.tree(tree)?;
            if !matches!(t.state, TreeState::Checkpointed { .. } | TreeState::Away) {
                return Err(Refused::State { tree, state: describe(&t.state) });
            }
        }
        let mut out = Vec::new();
        let end = End::Signal { number: 9 };
        let why = String::new();
        let touched = self.put(TreeRecord::Ended { tree, end, why }, &mut out);
        self.push(&touched, &mut out);
        Ok(out)
    }

    /// Begins to move a tree.
    ///
    /// # Errors
    /// [`Refused`] with what is in the way.
    pub fn migrate(
        &mut self,
        tree: TreeId,
        to: NodeNumber,
        now: Millis,
    ) -> Result<Vec<Effect>, Refused> {
        self.can_migrate(tree, to)?;
        let mut out = Vec::new();
        let touched = self.put(TreeRecord::Moving { tree, to, at: now }, &mut out);
        self.push(&touched, &mut out);
        Ok(out)
    }

    /// Whether a tree can begin to move, by what the controller knows.
    ///
    /// # Errors
    /// [`Refused`] with what is in the way.
    pub fn can_migrate(&self, tree: TreeId, to: NodeNumber) -> Result<(), Refused> {
        let t = self.tree(tree)?;
        if t.state != TreeState::Running || !t.confirmed {
            return Err(Refused::State { tree, state: describe(&t.state) });
        }
        let refused = |reason| Refused::Node { tree, reason };
        let (from, target) = (self.member(tree, t.node)?, self.member(tree, to)?);
        if to == t.node {
            return Err(Refused::There { tree, node: target.id.to_string() });
        }
        if !matches!(from.state, NodeState::Online | NodeState::Draining) {
            return Err(refused(format!("{} is {}", from.id, from.state)));
        }
        from.can_move().and_then(|()| target.takes_moves()).map_err(refused)?;
        serves(target, &t.owner).map_err(refused)?;
        if from.cpu_group != target.cpu_group {
            let what = "what the processors can (`xos cluster nodes` says in what)";
            return Err(refused(format!("{} and {} differ in {what}", from.id, target.id)));
        }
        Ok(())
    }

    /// Begins to have a tree leave for another cluster.
    ///
    /// # Errors
    /// [`Refused`] when it does not run, its node cannot save it, or keeps as many images of what
    /// left as it may.
    pub fn leave(&mut self, tree: TreeId, now: Millis) -> Result<Vec<Effect>, Refused> {
        let t = self.tree(tree)?;
        if t.state != TreeState::Running || !t.confirmed {
            return Err(Refused::State { tree, state: describe(&t.state) });
        }
        let from = self.member(tree, t.node)?;
        let refused = |reason| Refused::Node { tree, reason };
        from.can_move().map_err(refused)?;
        self.has_room_for_image(t).map_err(refused)?;
        let mut out = Vec::new();
        let touched = self.put(TreeRecord::Leaves { tree, at: now }, &mut out);
        self.push(&touched, &mut out);
        Ok(out)
    }

    /// Lets a tree go that waits as a checkpoint which no node here restarts: it goes on elsewhere.
    ///
    /// # Errors
    /// [`Refused`] when it does not wait, or no node that is heard has its checkpoint.
    pub fn let_go(&mut self, tree: TreeId) -> Result<Vec<Effect>, Refused> {
        let t = self.tree(tree)?;
        let (TreeState::Checkpointed { .. }, Some(image)) = (&t.state, &t.checkpoint) else {
            return Err(Refused::State { tree, state: describe(&t.state) });
        };
        // What is at another cluster's nodes is not this one's to give, and what is in memory only
        // has no digests.
        let kept = Image { nodes: image.kept(), ..image.clone() };
        if image.shared || !self.reaches(&kept) {
            let reason = "no node that is heard has its checkpoint".to_owned();
            return Err(Refused::Node { tree, reason });
        }
        let mut out = Vec::new();
        let touched = self.put(TreeRecord::Left { tree }, &mut out);
        self.push(&touched, &mut out);
        Ok(out)
    }

    /// Gives up a tree that waits as a checkpoint.
    ///
    /// # Errors
    /// [`Refused`] when it does not wait.
    pub fn give_up(&mut self, tree: TreeId, reason: String) -> Result<Vec<Effect>, Refused> {
        let t = self.tree(tree)?;
        if !matches!(t.state, TreeState::Checkpointed { .. }) {
            return Err(Refused::State { tree, state: describe(&t.state) });
        }
        let mut out = Vec::new();
        let touched = self.put(TreeRecord::Lost { tree, reason }, &mut out);
        self.push(&touched, &mut out);
        Ok(out)
    }

    /// Takes a tree that left a cluster: it waits here as a checkpoint, as one of `birth`.
    ///
    /// # Errors
    /// [`Refused`] when that node does not do.
    pub fn come(
        &mut self,
        root: i32,
        wish: &Wish,
        birth: NodeNumber,
        image: Image,
        now: Millis,
    ) -> Result<(TreeId, Vec<Effect>), Refused> {
        let tree = self.state.trees.next();
        let refused = |reason| Refused::Node { tree, reason };
        let home = self.member(tree, birth)?;
        home.takes_moves().map_err(refused)?;
        serves(home, &wish.owner).map_err(refused)?;
        // One that does not know of its term yet may begin anew in the same, without the ghost.
        if self.heard.sent(birth).is_none() {
            return Err(refused(format!("{} has sent no heartbeat yet: try again", home.id)));
        }
        let mut out = Vec::new();
        let came = TreeRecord::Came { tree, root, wish: wish.clone(), birth, image, at: now };
        let touched = self.put(came, &mut out);
        self.push(&touched, &mut out);
        Ok((tree, out))
    }

    /// Begins a checkpoint of a tree that runs.
    ///
    /// # Errors
    /// [`Refused`] when it does not run, or is being checkpointed.
    pub fn save(&mut self, tree: TreeId, now: Millis) -> Result<Vec<Effect>, Refused> {
        let t = self.tree(tree)?;
        if t.state != TreeState::Running || !t.confirmed {
            return Err(Refused::State { tree, state: describe(&t.state) });
        }
        if t.saving.is_some() {
            return Err(Refused::State { tree, state: "is being checkpointed" });
        }
        let from = self.member(tree, t.node)?;
        from.can_move().map_err(|reason| Refused::Node { tree, reason })?;
        let mut out = Vec::new();
        let touched = self.put(TreeRecord::Saving { tree, at: now }, &mut out);
        self.push(&touched, &mut out);
        Ok(out)
    }

    /// Begins to restart a tree that waits as a checkpoint: from the last one, or from the one
    /// before when no node that is heard has the last.
    ///
    /// # Errors
    /// [`Refused`] with what is in the way.
    pub fn restart(
        &mut self,
        tree: TreeId,
        to: NodeNumber,
        now: Millis,
    ) -> Result<Vec<Effect>, Refused> {
        self.begin_restart(tree, to, false, now)
    }

    /// The same, with its files as they are: somebody who may handle it said that this is right.
    ///
    /// # Errors
    /// As [`Controller::restart`].
    pub fn restart_as_is(
        &mut self,
        tree: TreeId,
        to: NodeNumber,
        now: Millis,
    ) -> Result<Vec<Effect>, Refused> {
        self.begin_restart(tree, to, true, now)
    }

    fn begin_restart(
        &mut self,
        tree: TreeId,
        to: NodeNumber,
        as_is: bool,
        now: Millis,
    ) -> Result<Vec<Effect>, Refused> {
        let t = self.tree(tree)?;
        let image = match (&t.state, &t.checkpoint) {
            (TreeState::Checkpointed { .. }, Some(image)) => image,
            (state, _) => return Err(Refused::State { tree, state: describe(state) }),
        };
        let refused = |reason| Refused::Node { tree, reason };
        let (was, target) = (self.member(tree, t.node)?, self.member(tree, to)?);
        target.takes_moves().map_err(refused)?;
        serves(target, &t.owner).map_err(refused)?;
        if was.cpu_group != target.cpu_group {
            let what = "what the processors can (`xos cluster nodes` says in what)";
            return Err(refused(format!("{} and {} differ in {what}", was.id, target.id)));
        }
        let last = self.reaches(image);
        // What was said once holds until it runs.
        let as_is = as_is || t.as_is;
        if !last && !t.previous.as_ref().is_some_and(|image| self.reaches(image)) {
            let names: Vec<String> =
                image.nodes.iter().map(|n| self.state.members.name(*n)).collect();
            let reason = format!("its checkpoint is on {} only, not here now", names.join(", "));
            return Err(refused(reason));
        }
        let (mut list, mut touched) = (Vec::new(), BTreeSet::new());
        if !last {
            touched.extend(self.change(TreeRecord::FellBack { tree, at: now }, &mut list));
        }
        touched.extend(self.change(TreeRecord::Restarting { tree, to, at: now, as_is }, &mut list));
        let mut out: Vec<Effect> = Record::of(list).map(Effect::Keep).into_iter().collect();
        self.push(&touched, &mut out);
        Ok(out)
    }

    /// Has the ghosts end of trees that were not kept when the controller before this one ended.
    ///
    /// Then nothing of them runs: an order of that one is followed for no longer than a lease, a
    /// heartbeat that did not name the copy yet gives another, and the answer to each later one
    /// ends it.
    pub(super) fn forsake(
        &self,
        from: NodeNumber,
        trees: &[TreeId],
        now: Millis,
        out: &mut Vec<Effect>,
    ) {
        let most = self.times.dead();
        let members = self.state.members.iter().map(|(_, m)| m.dead(most));
        if now.since(self.began) < members.max().unwrap_or(most) * 2 {
            return;
        }
        let unknown = trees.iter().filter(|tree| self.state.trees.tree(**tree).is_none());
        let forsake = unknown.take(GHOSTS_MAX).map(|tree| Order::Forsake { tree: *tree });
        let orders: Vec<Order> = forsake.collect();
        if !orders.is_empty() {
            self.tell(from, orders, out);
        }
    }

    /// Whether a node that is online has sent no heartbeat since this controller began: nothing is
    /// started for somebody there yet.
    pub fn is_early(&self) -> bool {
        let mut all = self.state.members.iter();
        all.any(|(number, m)| m.state == NodeState::Online && self.heard.sent(number).is_none())
    }

    /// A tree that has a node.
    pub(super) fn tree(&self, tree: TreeId) -> Result<&Tree, Refused> {
        self.state.trees.tree(tree).ok_or_else(|| match self.state.trees.queue().wish(tree) {
            Some(_) => Refused::State { tree, state: "waits until a node has room" },
            None => Refused::Unknown(tree),
        })
    }
}

pub(super) fn serves(node: &Member, owner: &Owner) -> Result<(), String> {
    if node.serves.contains(&owner.vo) {
        return Ok(());
    }
    Err(format!("{} does not serve the VO {}", node.id, owner.vo))
}

pub(super) fn describe(state: &TreeState) -> &'static str {
    match state {
        TreeState::Starting => "is being started",
        TreeState::Running => "runs, as far as its node said",
        TreeState::Moving { .. } => "moves",
        TreeState::Checkpointed { .. } => "waits as a checkpoint",
        TreeState::Restarting { .. } => "is being restarted",
        TreeState::Leaving { .. } => "leaves for another cluster",
        TreeState::Away => "left for another cluster",
        TreeState::Lost { .. } => "is lost",
        TreeState::Ended(_) => "ended",
    }
}
