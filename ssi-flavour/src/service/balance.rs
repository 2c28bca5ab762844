//! What a cluster does by itself: restarts what waits, empties nodes that are drained, evens out
//! loads, checkpoints. What waits, and copies of checkpoints, are in files of their own.

use super::deeds::Own;
use super::one::Cluster;
use crate::cluster::interval::{MTBF_DEFAULT, between};
use crate::cluster::members::NodeState;
use crate::cluster::messages::TreeId;
use crate::cluster::place::{self, Choice, Need, NodeView, ONE, Policy, TreeView};
use crate::cluster::record::Effect;
use crate::cluster::trees::{Tree, TreeState};
use crate::pids::NodeNumber;
use std::collections::BTreeMap;
use std::time::Duration;
use xos_base::Millis;

/// How long a tree is left alone by itself after a move or a checkpoint of it came to nothing.
const TROUBLE_PAUSE: Duration = Duration::from_secs(300);
/// After a restart that failed, until the next; longer each time.
const RESTART_PAUSE: Duration = Duration::from_secs(2);

impl Cluster {
    /// What is decided now.
    pub fn turn(&mut self, policy: &Policy, balance: bool, now: Millis) -> Vec<Effect> {
        let mut out = self.give_away(now);
        out.extend(self.restarts(policy, now));
        out.extend(self.begin_waiting(policy));
        out.extend(self.drains(now));
        if balance {
            let (nodes, trees) = (self.node_views(), self.tree_views(now));
            for m in place::balance(policy, &nodes, &trees, &self.costs, now) {
                out.extend(self.move_by_itself(m.tree, m.from, m.to, "loaded", now));
            }
        }
        out.extend(self.checkpoints(now));
        out.extend(self.copies(policy.copies, now));
        out
    }

    /// The nodes, as they were heard last.
    pub fn node_views(&self) -> Vec<NodeView> {
        let members = self.controller.state().members.iter();
        let known = members.filter_map(|(number, m)| Some((number, m, self.looks.get(&number)?)));
        let view = |number: NodeNumber| self.coming.get(&number).copied().unwrap_or_default();
        known
            .map(|(number, m, (looks, _))| NodeView {
                number,
                cpus: looks.cpus,
                load: looks.load,
                coming: view(number),
                online: m.state == NodeState::Online,
                moves: m.can_move().is_ok(),
                takes: m.can_move().is_ok() && m.clock.is_empty(),
                cpu_group: m.cpu_group,
                serves: m.serves.clone(),
                leaving: self.leaving(number),
                last_move: self.moved.get(&number).copied(),
            })
            .collect()
    }

    /// The trees that run.
    pub fn tree_views(&self, now: Millis) -> Vec<TreeView> {
        let mut used: BTreeMap<TreeId, (u64, u64)> = BTreeMap::new();
        for p in self.looks.values().flat_map(|(looks, _)| &looks.processes) {
            let sum = used.entry(p.tree).or_default();
            sum.0 = sum.0.saturating_add(u64::from(p.cpu_milli));
            sum.1 = sum.1.saturating_add(p.memory_bytes);
        }
        let view = |(tree, t): (TreeId, &Tree)| {
            let moves = t.state == TreeState::Running && t.confirmed;
            let (cpu, bytes) = used.get(&tree).copied().unwrap_or_default();
            let came = self.arrived.get(&tree).or_else(|| self.since.get(&tree));
            TreeView {
                tree,
                node: t.node,
                vo: t.owner.vo.clone(),
                load: cpu.min(ONE * 1024),
                age: self.since.get(&tree).map(|at| now.since(*at)).unwrap_or_default(),
                here: came.map(|at| now.since(*at)).unwrap_or_default(),
                bytes,
                moves: moves && !self.troubled(tree, now) && !self.is_shell(tree),
            }
        };
        let trees = self.controller.state().trees.iter();
        trees.filter(|(_, t)| !t.state.is_final()).map(view).collect()
    }

    fn troubled(&self, tree: TreeId, now: Millis) -> bool {
        self.trouble.get(&tree).is_some_and(|(_, at)| now.since(*at) < TROUBLE_PAUSE)
    }

    /// Where a tree that waits as a checkpoint would go.
    pub fn place_again(&self, policy: &Policy, t: &Tree) -> Choice {
        let was = self.controller.state().members.node(t.node);
        let need = Need {
            vo: t.owner.vo.clone(),
            cpu_group: Some(was.map_or(0, |m| m.cpu_group)),
            near: None,
        };
        place::place(policy, &self.node_views(), &need)
    }

    /// The same, but one that came from another cluster begins where its output is to be, which that
    /// node then keeps for its job.
    fn place_waiting(&self, policy: &Policy, t: &Tree) -> Choice {
        let came = t.tries == 0 && t.checkpoint.as_ref().is_some_and(|image| image.shared);
        let birth = self.controller.state().members.node(t.birth);
        match came && birth.is_some_and(|m| m.takes_moves().is_ok()) {
            true => Choice::On(t.birth),
            false => self.place_again(policy, t),
        }
    }

    /// As much more as one process is on its way to a node.
    pub fn comes(&mut self, node: NodeNumber) {
        let coming = self.coming.entry(node).or_default();
        *coming = coming.saturating_add(ONE);
    }

    fn restarts(&mut self, policy: &Policy, now: Millis) -> Vec<Effect> {
        let trees = self.controller.state().trees.iter();
        let waiting: Vec<(TreeId, Tree)> = trees
            .filter(|(_, t)| matches!(t.state, TreeState::Checkpointed { .. }))
            // What a person has to decide is not tried again.
            .filter(|(_, t)| t.barred.is_none())
            .map(|(tree, t)| (tree, t.clone()))
            .collect();
        let mut out = Vec::new();
        for (tree, t) in waiting {
            // One that failed is not tried again at once: what was in the way may pass.
            let failed = self.trouble.get(&tree).filter(|_| t.tries > 0);
            if failed.is_some_and(|(_, at)| now.since(*at) < RESTART_PAUSE * t.tries) {
                continue;
            }
            let Choice::On(node) = self.place_waiting(policy, &t) else { continue };
            match self.controller.restart(tree, node, now) {
                Ok(effects) => {
                    self.comes(node);
                    let why = match &t.state {
                        TreeState::Checkpointed { reason, .. } => reason.clone(),
                        _ => String::new(),
                    };
                    self.own.insert(tree, Own { what: "restart_tree", from: t.node, why });
                    out.extend(effects);
                }
                Err(error) => {
                    self.trouble.insert(tree, (error.to_string(), now));
                }
            }
        }
        out
    }

    fn drains(&mut self, now: Millis) -> Vec<Effect> {
        let members = self.controller.state().members.iter();
        let draining: Vec<NodeNumber> =
            members.filter(|(_, m)| m.state == NodeState::Draining).map(|(n, _)| n).collect();
        let mut out = Vec::new();
        for node in draining {
            let views = self.node_views();
            let Some(view) = views.iter().find(|v| v.number == node) else { continue };
            let room = (view.cpus / 2).max(1).saturating_sub(view.leaving);
            let plan = place::drain(&views, &self.tree_views(now), node);
            let go = plan.into_iter().filter_map(|(tree, choice)| match choice {
                Choice::On(to) => Some((tree, to)),
                Choice::Queue | Choice::Nowhere { .. } => None,
            });
            for (tree, to) in go.take(room as usize) {
                out.extend(self.move_by_itself(tree, node, to, "drained", now));
            }
        }
        out
    }

    fn move_by_itself(
        &mut self,
        tree: TreeId,
        from: NodeNumber,
        to: NodeNumber,
        why: &str,
        now: Millis,
    ) -> Vec<Effect> {
        match self.controller.migrate(tree, to, now) {
            Ok(effects) => {
                self.comes(to);
                let why = format!("{} is {why}", self.controller.state().members.name(from));
                self.own.insert(tree, Own { what: "migrate_tree", from, why });
                self.moved.insert(from, now);
                effects
            }
            Err(error) => {
                self.trouble.insert(tree, (error.to_string(), now));
                Vec::new()
            }
        }
    }

    /// Of trees that are to go on when their node fails.
    fn checkpoints(&mut self, now: Millis) -> Vec<Effect> {
        let due = |(tree, t): &(TreeId, &Tree)| {
            let runs = t.state == TreeState::Running && t.confirmed && t.saving.is_none();
            let cost = t.checkpoint.as_ref().map(|c| Duration::from_millis(c.freeze_ms));
            let every = between(t.interval, cost, MTBF_DEFAULT);
            let last = self.saved.get(tree).or_else(|| self.since.get(tree));
            let rested = every.is_some_and(|every| last.is_none_or(|at| now.since(*at) >= every));
            // A newer one each time before the last was copied would leave all on one node.
            let copied = t.holding.is_none();
            t.restartable && runs && copied && rested && !self.troubled(*tree, now)
        };
        let trees = self.controller.state().trees.iter();
        let due: Vec<TreeId> = trees.filter(due).map(|(tree, _)| tree).collect();
        let mut out = Vec::new();
        for tree in due {
            match self.controller.save(tree, now) {
                Ok(effects) => out.extend(effects),
                Err(error) => {
                    self.trouble.insert(tree, (error.to_string(), now));
                }
            }
        }
        out
    }
}
