//! Where checkpoints lie: each one that a tree may go on from is to be on several nodes, so that it
//! outlives any of them.

use super::trees::{describe, serves};
use super::{Controller, Refused};
use crate::cluster::members::NodeState;
use crate::cluster::messages::{Image, Order, TreeId};
use crate::cluster::record::Effect;
use crate::cluster::trees::{Tree, TreeRecord, TreeState};
use crate::pids::NodeNumber;
use std::collections::BTreeSet;
use xos_base::Millis;

/// Most spools of a node that are removed at a time; the others are named again.
const SPOOLS_MAX: usize = 1024;

impl Controller {
    /// How many nodes that work in the cluster have all that a restart from an image needs.
    pub fn copies(&self, t: &Tree, image: &Image) -> usize {
        image.nodes.iter().filter(|n| self.works(**n) && t.has(image, **n)).count()
    }

    pub(super) fn works(&self, node: NodeNumber) -> bool {
        self.state.members.node(node).is_some_and(|m| m.state.has_term())
    }

    /// The trees that run whose last checkpoint is on fewer nodes than so many, and that no node
    /// fetches.
    pub fn thin(&self, copies: usize) -> Vec<TreeId> {
        let thin = |t: &Tree| {
            let few = |image: &Image| {
                // What is in memory only is written down first, and what was written kept then.
                let there = image.nodes.iter().filter(|n| self.works(**n)).count();
                let whole = !image.brief.is_empty() || self.copies(t, image) >= copies;
                !image.shared && (there < copies || !whole)
            };
            let runs = matches!(t.state, TreeState::Running);
            t.restartable && runs && t.holding.is_none() && t.checkpoint.as_ref().is_some_and(few)
        };
        let trees = self.state.trees.iter();
        trees.filter(|(_, t)| thin(t)).map(|(tree, _)| tree).collect()
    }

    /// Has a node fetch a copy of a tree's last checkpoint, and what the tree had written by then:
    /// what of it the node has not yet.
    ///
    /// # Errors
    /// [`Refused`] with what is in the way.
    pub fn hold(
        &mut self,
        tree: TreeId,
        node: NodeNumber,
        now: Millis,
    ) -> Result<Vec<Effect>, Refused> {
        let t = self.tree(tree)?;
        let image = match (&t.state, &t.checkpoint) {
            (TreeState::Running, Some(image)) if t.restartable && t.holding.is_none() => image,
            (state, _) => return Err(Refused::State { tree, state: describe(state) }),
        };
        let refused = |reason| Refused::Node { tree, reason };
        let on = self.member(tree, node)?;
        if t.has(image, node) {
            return Err(Refused::There { tree, node: on.id.to_string() });
        }
        if image.brief.contains(&node) {
            return Err(refused(format!("{} is writing it to its disk", on.id)));
        }
        if on.state != NodeState::Online {
            return Err(refused(format!("{} is {}", on.id, on.state)));
        }
        serves(on, &t.owner).map_err(refused)?;
        if !self.reaches(image) {
            return Err(refused("no node that is heard has its checkpoint".to_owned()));
        }
        let mut out = Vec::new();
        let touched = self.put(TreeRecord::Holding { tree, node, at: now }, &mut out);
        self.push(&touched, &mut out);
        Ok(out)
    }

    /// Lets go of checkpoints before the last one where that is on so many nodes, or on all that
    /// have the one before and did not leave.
    pub fn settle(&mut self, copies: usize) -> Vec<Effect> {
        let trees = self.state.trees.iter();
        let settled = trees.filter(|(_, t)| self.is_settled(t, copies)).map(|(tree, _)| tree);
        let settled: Vec<TreeId> = settled.collect();
        let mut out = Vec::new();
        for tree in settled {
            self.put(TreeRecord::Settled { tree }, &mut out);
        }
        out
    }

    fn is_settled(&self, t: &Tree, copies: usize) -> bool {
        // One that waits for a restart may need it yet.
        if !matches!(t.state, TreeState::Running | TreeState::Moving { .. }) {
            return false;
        }
        let (Some(last), Some(before)) = (&t.checkpoint, &t.previous) else { return false };
        let kept = last.kept();
        let stays = |n: &&NodeNumber| {
            let m = self.state.members.node(**n);
            m.is_some_and(|m| m.state != NodeState::Possible)
        };
        let old: BTreeSet<NodeNumber> = before.nodes.iter().filter(stays).copied().collect();
        let whole = |n: &NodeNumber| kept.contains(n) && t.has(last, *n);
        let covered = !before.shared && old.iter().all(whole);
        let whole = kept.iter().filter(|n| self.works(**n) && t.has(last, **n)).count();
        last.shared || covered || whole >= copies
    }

    /// Has a node that was away remove spools that are not those of their trees any more. Those of
    /// trees that are over stay for as long as there is room: what was lost may be asked for.
    pub(super) fn unspool(&self, from: NodeNumber, trees: &[(TreeId, u64)], out: &mut Vec<Effect>) {
        let stale = |tree: &TreeId| {
            // That of a tree whose last one is lost may be gone on with.
            let t = self.state.trees.tree(*tree);
            t.is_some_and(|t| t.last_home() != from)
        };
        let stale = trees.iter().filter(|(tree, _)| stale(tree)).take(SPOOLS_MAX);
        let unspool = stale.map(|(tree, epoch)| Order::Unspool { tree: *tree, epoch: *epoch });
        let orders: Vec<Order> = unspool.collect();
        if !orders.is_empty() {
            self.tell(from, orders, out);
        }
    }

    /// Whether a node that is heard has an image.
    pub(super) fn reaches(&self, image: &Image) -> bool {
        let here = |n: &NodeNumber| {
            let m = self.state.members.node(*n);
            m.is_some_and(|m| m.state.has_term() && m.state != NodeState::Suspect)
        };
        image.shared || image.nodes.iter().any(here)
    }
}
