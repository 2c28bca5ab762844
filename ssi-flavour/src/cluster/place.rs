//! Where a tree is started, and when one moves: the original's default balancer (probe, threshold,
//! stab factor; `krg_legacy_scheduler`), charged with what a move costs.

use super::cost::Costs;
use super::messages::TreeId;
use crate::pids::NodeNumber;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Duration;
use xos_base::{Millis, VoId};

/// One process that always runs, in the unit of loads.
pub const ONE: u64 = 1000;
/// What a tree is expected to run on is what it ran, at most this.
const AHEAD_MAX: Duration = Duration::from_secs(600);
/// For so long at least a tree is where it is before its loads move it.
const HERE_MIN: Duration = Duration::from_secs(10);

/// The probe: how many processes want to run, as a mean that forgets. Sampled once a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Load {
    /// Thousandths of a process: five parts of what was, three of what is.
    pub mean: u64,
    /// As much as it was lately: up at once, down by an eighth.
    pub upper: u64,
}

impl Load {
    /// So many thousandths of a process wanted to run since the last sample.
    pub fn sample(&mut self, now: u64) {
        let mixed = |old: u64, parts: u64| {
            (old.saturating_mul(parts).saturating_add(now.saturating_mul(8 - parts))) / 8
        };
        self.mean = mixed(self.mean, 5);
        self.upper = now.max(mixed(self.upper, 7));
    }
}

/// What is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// A node below this many percent of a process per processor sends nothing away.
    pub threshold_percent: u64,
    /// So much of the process is added to the load of the node that would take it.
    pub stab_percent: u64,
    /// From one move away from a node to the next.
    pub pause: Duration,
    /// A move has to gain so many times what it costs.
    pub gain: u32,
    /// A node with this many percent of a process per processor takes no new trees by itself.
    pub full_percent: u64,
    /// How many nodes are to have each checkpoint that a tree may go on from.
    pub copies: usize,
    /// So many trees of one member run at a time; more of them wait.
    pub trees_per_member: usize,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            threshold_percent: 150,
            stab_percent: 130,
            pause: Duration::from_secs(2),
            gain: 3,
            full_percent: 200,
            copies: 2,
            trees_per_member: 1000,
        }
    }
}

/// A node, as it was heard last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Which.
    pub number: NodeNumber,
    /// Its processors.
    pub cpus: u32,
    /// What it said.
    pub load: Load,
    /// What was sent to it since, in the unit of loads.
    pub coming: u64,
    /// Whether it takes new trees.
    pub online: bool,
    /// Whether trees leave it.
    pub moves: bool,
    /// Whether they come to it.
    pub takes: bool,
    /// What its processors can.
    pub cpu_group: u64,
    /// The VOs that it serves.
    pub serves: BTreeSet<VoId>,
    /// Moves away from it that are under way.
    pub leaving: u32,
    /// When the last one began.
    pub last_move: Option<Millis>,
}

impl NodeView {
    fn cpus(&self) -> u64 {
        u64::from(self.cpus.max(1))
    }

    fn busy(&self) -> u64 {
        self.load.mean.saturating_add(self.coming)
    }

    /// Of one processor, with so much more on the node.
    fn share(&self, more: u64) -> u64 {
        self.busy().saturating_add(more) / self.cpus()
    }

    /// How much of a processor each process has, in thousandths, with so much more on the node.
    fn speed(&self, more: u64) -> u64 {
        let all = self.busy().saturating_add(more).max(1);
        (ONE.saturating_mul(self.cpus() * ONE) / all).min(ONE)
    }
}

/// A tree that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeView {
    /// Which.
    pub tree: TreeId,
    /// Where.
    pub node: NodeNumber,
    /// Its VO.
    pub vo: VoId,
    /// Its part of the node's load.
    pub load: u64,
    /// For how long it runs.
    pub age: Duration,
    /// For how long it is on this node.
    pub here: Duration,
    /// Its memory, which a move takes along.
    pub bytes: u64,
    /// Whether it may move at all.
    pub moves: bool,
}

/// What a tree needs of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Its VO is served.
    pub vo: VoId,
    /// It came from processors like these, by a checkpoint; none: it is new.
    pub cpu_group: Option<u64>,
    /// The node that is taken when others are no better.
    pub near: Option<NodeNumber>,
}

/// Where a tree goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// There.
    On(NodeNumber),
    /// All that would do are full: it waits before it begins.
    Queue,
    /// No node would do.
    Nowhere {
        /// Why, for the person.
        reason: String,
    },
}

/// A move that is worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The tree.
    pub tree: TreeId,
    /// From where.
    pub from: NodeNumber,
    /// Where to.
    pub to: NodeNumber,
}

/// Chooses the least loaded node for a tree that is new, or that is restarted.
pub fn place(policy: &Policy, nodes: &[NodeView], need: &Need) -> Choice {
    let fits: Vec<&NodeView> = nodes.iter().filter(|n| fits(n, need)).collect();
    if fits.is_empty() {
        return Choice::Nowhere { reason: misfit(nodes, need) };
    }
    let far = |n: &NodeView| need.near != Some(n.number);
    let best = fits
        .into_iter()
        .filter(|n| n.share(0) < policy.full_percent * ONE / 100)
        .min_by_key(|n| (n.share(ONE), far(n), n.number));
    best.map_or(Choice::Queue, |n| Choice::On(n.number))
}

/// Where one more copy of a checkpoint goes: to the near node, else to the least loaded one that
/// could restart it. `has`: those that have it, or are not to.
pub fn hold(nodes: &[NodeView], need: &Need, has: &BTreeSet<NodeNumber>) -> Option<NodeNumber> {
    let takes = |n: &&NodeView| n.online && n.serves.contains(&need.vo);
    let others: Vec<&NodeView> =
        nodes.iter().filter(takes).filter(|n| !has.contains(&n.number)).collect();
    let near = others.iter().find(|n| need.near == Some(n.number));
    let least = || others.iter().filter(|n| fits(n, need)).min_by_key(|n| (n.share(0), n.number));
    near.or_else(least).map(|n| n.number)
}

fn fits(n: &NodeView, need: &Need) -> bool {
    let comes = need.cpu_group.is_none_or(|group| n.takes && n.cpu_group == group);
    n.online && n.serves.contains(&need.vo) && comes
}

fn misfit(nodes: &[NodeView], need: &Need) -> String {
    let online = || nodes.iter().filter(|n| n.online);
    if online().next().is_none() {
        "no node of the cluster is online".to_owned()
    } else if !online().any(|n| n.serves.contains(&need.vo)) {
        format!("no node that is online serves the VO {}", need.vo)
    } else {
        let vo = &need.vo;
        format!("no node that serves {vo} has the same processors and lets trees come")
    }
}

/// The moves that even out the load, at most one from each node.
pub fn balance(
    policy: &Policy,
    nodes: &[NodeView],
    trees: &[TreeView],
    costs: &Costs,
    now: Millis,
) -> Vec<Move> {
    let mut views = nodes.to_vec();
    // The most loaded first: it has the choice.
    let mut order: Vec<usize> = (0..views.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(views[*i].share(0)));
    let mut out = Vec::new();
    for i in order {
        let from = &views[i];
        let rested = from.last_move.is_none_or(|at| now.since(at) >= policy.pause);
        let leaves = from.moves && rested && from.leaving < (from.cpus / 2).max(1);
        if !leaves || from.share(0) < policy.threshold_percent * ONE / 100 {
            continue;
        }
        let here = trees.iter().filter(|t| t.node == from.number && t.moves);
        // What was just made there says little of how it will be, and who moved it there meant it.
        let here = here.filter(|t| t.here >= HERE_MIN);
        let best = here.filter_map(|t| best_of(policy, &views, costs, from, t)).max_by(by_gain);
        let Some((_, t, to)) = best else { continue };
        out.push(Move { tree: t.tree, from: from.number, to });
        // So that the next node does not send its own to the same place.
        let load = t.load;
        if let Some(n) = views.iter_mut().find(|n| n.number == to) {
            n.coming = n.coming.saturating_add(load);
        }
    }
    out
}

fn by_gain(a: &(i128, &TreeView, NodeNumber), b: &(i128, &TreeView, NodeNumber)) -> Ordering {
    (a.0, b.1.tree).cmp(&(b.0, a.1.tree))
}

/// The best node for a tree that could leave, and what is gained beyond the cost, when it is enough.
fn best_of<'a>(
    policy: &Policy,
    nodes: &[NodeView],
    costs: &Costs,
    from: &NodeView,
    t: &'a TreeView,
) -> Option<(i128, &'a TreeView, NodeNumber)> {
    let need = Need { vo: t.vo.clone(), cpu_group: Some(from.cpu_group), near: None };
    let to = nodes
        .iter()
        .filter(|n| n.number != from.number && fits(n, &need))
        .min_by_key(|n| (n.share(t.load), n.number))?;
    // Otherwise two nodes would send it to and fro.
    let stab = t.load.saturating_mul(policy.stab_percent) / 100;
    if to.share(stab) >= from.share(0) {
        return None;
    }
    // Who ran for long will run for long.
    let ahead = i128::from(t.age.min(AHEAD_MAX).as_millis() as u64);
    let faster = i128::from(to.speed(t.load)) - i128::from(from.speed(0));
    let gain = ahead * faster / i128::from(ONE);
    let cost = costs.expected(from.number, to.number, t.bytes).min(AHEAD_MAX);
    let cost = i128::from(cost.as_millis() as u64);
    (gain > cost * i128::from(policy.gain)).then_some((gain - cost, t, to.number))
}

/// Where each tree of a node that is drained goes, or why it cannot; loads do not keep it there.
pub fn drain(nodes: &[NodeView], trees: &[TreeView], node: NodeNumber) -> Vec<(TreeId, Choice)> {
    let mut views = nodes.to_vec();
    let all = Policy { full_percent: u64::MAX / ONE, ..Policy::default() };
    let Some(from) = nodes.iter().find(|n| n.number == node) else { return Vec::new() };
    views.retain(|n| n.number != node);
    let mut out = Vec::new();
    for t in trees.iter().filter(|t| t.node == node) {
        let need = Need { vo: t.vo.clone(), cpu_group: Some(from.cpu_group), near: None };
        let choice = if !t.moves {
            Choice::Nowhere { reason: "it cannot move; `xos cluster why` says why".to_owned() }
        } else if !from.moves {
            Choice::Nowhere { reason: format!("nothing moves away from node {node}") }
        } else {
            place(&all, &views, &need)
        };
        if let Choice::On(to) = &choice
            && let Some(n) = views.iter_mut().find(|n| n.number == *to)
        {
            n.coming = n.coming.saturating_add(t.load);
        }
        out.push((t.tree, choice));
    }
    out
}

#[cfg(test)]
mod tests;
