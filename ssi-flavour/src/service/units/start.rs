//! Which node of the cluster starts a unit that waits, and how one is ended.

use super::program::program;
use super::table::Next;
use crate::cluster::controller::Refused;
use crate::cluster::interval::Interval;
use crate::cluster::members::{Member, NodeState};
use crate::cluster::messages::TreeId;
use crate::cluster::place::{self, Choice, Need, Policy};
use crate::cluster::record::Effect;
use crate::cluster::trees::{TreeState, Wish};
use crate::pids::NodeNumber;
use crate::service::one::Cluster;
use crate::wire::{ClusterSignal, TreeUse};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xos_api::aem::UnitCheckpoint;
use xos_api::node::Capacity;
use xos_api::node::units::EnvelopeId;
use xos_base::{Millis, NodeId};

/// Most units that are started at once; the others come with the next turn.
const STARTS_MAX: usize = 64;
/// Between SIGTERM and SIGKILL of a unit that ran for too long.
const WALL_GRACE: Duration = Duration::from_secs(5);
const SIGTERM: u8 = 15;
const SIGKILL: u8 = 9;

/// What nothing was promised of on a node.
pub(super) struct Free {
    cpu_milli: u64,
    memory_bytes: u64,
    arch: String,
}

impl Cluster {
    /// The nodes that take programs, and what each said that it offers.
    pub(super) fn offering<'a>(
        &'a self,
        heard: &'a BTreeMap<NodeId, Capacity>,
    ) -> impl Iterator<Item = (NodeNumber, &'a Capacity)> {
        let left = &self.settings.left;
        let members = self.controller.state().members.iter();
        let online =
            move |(n, m): &(NodeNumber, &Member)| m.state == NodeState::Online && !left.contains(n);
        members.filter(online).filter_map(move |(number, m)| Some((number, heard.get(&m.id)?)))
    }

    fn free(&self, heard: &BTreeMap<NodeId, Capacity>) -> BTreeMap<NodeNumber, Free> {
        let free = |c: &Capacity| Free {
            cpu_milli: c.cpu_milli.into(),
            memory_bytes: c.memory_bytes,
            arch: c.arch.clone(),
        };
        let mut all: BTreeMap<NodeNumber, Free> =
            self.offering(heard).map(|(number, c)| (number, free(c))).collect();
        for (tree, cpu_milli, memory_bytes) in self.units.taken() {
            let Some(t) = self.controller.state().trees.tree(tree) else { continue };
            for number in t.nodes().into_iter().filter(|number| t.uses(*number)) {
                if let Some(free) = all.get_mut(&number) {
                    free.cpu_milli = free.cpu_milli.saturating_sub(cpu_milli);
                    free.memory_bytes = free.memory_bytes.saturating_sub(memory_bytes);
                }
            }
        }
        all
    }

    /// Starts units that wait, where there is room.
    pub fn start_units(
        &mut self,
        policy: &Policy,
        heard: &BTreeMap<NodeId, Capacity>,
        now: Millis,
    ) -> Vec<Effect> {
        let mut out = Vec::new();
        let waiting = self.units.waiting();
        if waiting.is_empty() {
            return out;
        }
        let mut free = self.free(heard);
        let mut left = STARTS_MAX;
        for id in waiting {
            while left > 0
                && let Some(next) = self.units.next(&id)
            {
                left -= 1;
                let node = match &next.carried {
                    Some(carried) => match self.unit_comes(policy, &free, &next, carried, now) {
                        Ok((node, effects)) => {
                            out.extend(effects);
                            node
                        }
                        // Who has the job knows other clusters.
                        Err(why) => {
                            self.units.refuse(&next.unit, &why);
                            continue;
                        }
                    },
                    None => {
                        let Some(node) = self.room_for(policy, &free, &next, None) else { break };
                        match self.start_unit(&next, node) {
                            Ok(effects) => out.extend(effects),
                            Err(error) => {
                                tracing::debug!(%error, cluster = %self.id, "a unit waits");
                                break;
                            }
                        }
                        node
                    }
                };
                if let Some(free) = free.get_mut(&node) {
                    let r = &next.task.resources;
                    free.cpu_milli = free.cpu_milli.saturating_sub(r.cpu_milli.into());
                    free.memory_bytes = free.memory_bytes.saturating_sub(r.memory_bytes);
                }
            }
        }
        out
    }

    /// A node with room for a unit; with `cpu_group` one that takes moves and can the same.
    pub(super) fn room_for(
        &self,
        policy: &Policy,
        free: &BTreeMap<NodeNumber, Free>,
        next: &Next,
        cpu_group: Option<u64>,
    ) -> Option<NodeNumber> {
        let r = &next.task.resources;
        let fits = |f: &Free| {
            f.cpu_milli >= u64::from(r.cpu_milli)
                && f.memory_bytes >= r.memory_bytes
                && r.arch.as_ref().is_none_or(|arch| *arch == f.arch)
        };
        let mut views = self.node_views();
        let moves = next.task.checkpointable;
        views.retain(|v| free.get(&v.number).is_some_and(fits) && (v.moves || !moves));
        let need = Need { vo: next.envelope.owner.vo.clone(), cpu_group, near: None };
        match place::place(policy, &views, &need) {
            Choice::On(node) => Some(node),
            Choice::Queue | Choice::Nowhere { .. } => None,
        }
    }

    fn start_unit(&mut self, next: &Next, node: NodeNumber) -> Result<Vec<Effect>, Refused> {
        let refused = |c: &Cluster, reason: String| Refused::Node {
            tree: c.controller.state().trees.next(),
            reason,
        };
        let name = self.name(node).ok_or_else(|| refused(self, format!("no node {node}")))?;
        let pid = self.free_pid(node);
        let pid = pid.ok_or_else(|| refused(self, format!("all pids of {name} are taken")))?;
        let wish = Wish {
            owner: next.envelope.owner.clone(),
            restartable: next.task.checkpointable,
            interval: Interval::Best,
        };
        let (tree, effects) = self.controller.start(pid, &wish, node, node)?;
        let program = program(next, &self.id, &name, pid);
        self.programs.insert(tree, program);
        self.units.placed(&next.unit, tree, node);
        self.comes(node);
        Ok(effects)
    }

    /// Ends the units that are to end. What runs of them is sent a signal; what waits as a
    /// checkpoint ends at once.
    pub fn stop_units(&mut self, now: Millis) -> (Vec<(NodeId, ClusterSignal)>, Vec<Effect>) {
        self.units.watch_walls(now, WALL_GRACE);
        let (mut signals, mut effects) = (Vec::new(), Vec::new());
        for (tree, kill_at) in self.units.stopping() {
            let Some(t) = self.controller.state().trees.tree(tree) else { continue };
            let (epoch, node) = (t.epoch, t.node);
            match t.state {
                TreeState::Running => {
                    let kill = now >= kill_at;
                    // A copy that a move made was not asked yet.
                    if !kill && !self.units.asked.insert((tree, epoch)) {
                        continue;
                    }
                    let Some(name) = self.name(node) else { continue };
                    let signal = if kill { SIGKILL } else { SIGTERM };
                    let (cluster, pid) = (self.id.clone(), None);
                    signals.push((name, ClusterSignal { cluster, tree, epoch, pid, signal }));
                }
                TreeState::Checkpointed { .. } | TreeState::Away => {
                    match self.controller.end(tree) {
                        Ok(more) => effects.extend(more),
                        Err(error) => tracing::debug!(%error, %tree, "it is not ended yet"),
                    }
                }
                // It comes to run, to wait or to its end by itself.
                TreeState::Starting
                | TreeState::Moving { .. }
                | TreeState::Restarting { .. }
                | TreeState::Leaving { .. } => {}
                TreeState::Lost { .. } | TreeState::Ended(_) => {}
            }
        }
        (signals, effects)
    }

    /// The nodes that have trees of an envelope, or are to get one.
    pub(super) fn nodes_with(&self, id: &EnvelopeId) -> BTreeSet<NodeId> {
        let mut nodes = BTreeSet::new();
        for tree in self.units.trees_of(id) {
            let Some(t) = self.controller.state().trees.tree(tree) else { continue };
            let used = t.nodes().into_iter().filter(|number| t.uses(*number));
            nodes.extend(used.filter_map(|number| self.name(number)));
        }
        nodes
    }

    /// How a unit that runs stands.
    pub(super) fn checkpoint_of(&self, unit: u32, tree: TreeId, now: Millis) -> UnitCheckpoint {
        let t = self.controller.state().trees.tree(tree);
        let last = t.and_then(|t| t.checkpoint.as_ref());
        let trouble = self.trouble.get(&tree).map(|(why, _)| why.clone());
        let age = self.saved.get(&tree).filter(|_| trouble.is_none()).map(|at| now.since(*at));
        UnitCheckpoint {
            unit,
            version: last.map(|image| image.version),
            bytes: last.map_or(0, |image| image.bytes),
            freeze_ms: last.map_or(0, |image| image.freeze_ms),
            age_ms: last.and(age).and_then(|age| u64::try_from(age.as_millis()).ok()),
            saving: t.is_some_and(|t| t.saving.is_some()),
            trouble: trouble.or_else(|| self.trouble_of(tree)).unwrap_or_default(),
        }
    }

    /// Whether the controller still knows a tree of an envelope.
    pub(super) fn is_known(&self, id: &EnvelopeId) -> bool {
        let trees = &self.controller.state().trees;
        self.units.spools(id).values().flatten().any(|tree| trees.tree(*tree).is_some())
    }

    /// What a node says that the copy of a unit used there, as long as that copy is the tree.
    pub fn take_use(&mut self, number: NodeNumber, u: &TreeUse) {
        let tree = self.controller.state().trees.tree(u.tree);
        if !tree.is_some_and(|t| t.node == number && t.epoch == u.epoch && !t.state.is_final()) {
            return;
        }
        if let Some(unit) = self.programs.get(&u.tree).and_then(|program| program.unit.as_ref()) {
            self.units.used(unit, (u.tree, u.epoch), (u.cpu_ms, u.memory_bytes));
        }
    }
}
