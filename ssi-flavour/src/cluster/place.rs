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
mod tests {
    use super::*;
    use crate::cluster::cost::Arrived;

    fn vo() -> VoId {
        "demo.rennes".parse().unwrap()
    }

    fn node(number: u8, cpus: u32, load: u64) -> NodeView {
        NodeView {
            number: NodeNumber::try_from(number).unwrap(),
            cpus,
            load: Load { mean: load, upper: load },
            coming: 0,
            online: true,
            moves: true,
            takes: true,
            cpu_group: 1,
            serves: BTreeSet::from([vo()]),
            leaving: 0,
            last_move: None,
        }
    }

    fn hog(tree: u64, on: u8) -> TreeView {
        TreeView {
            tree: TreeId(tree),
            node: NodeNumber::try_from(on).unwrap(),
            vo: vo(),
            load: ONE,
            age: Duration::from_secs(60),
            bytes: 32 << 20,
            moves: true,
        }
    }

    fn new_tree() -> Need {
        Need { vo: vo(), cpu_group: None, near: None }
    }

    fn moves(nodes: &[NodeView], trees: &[TreeView]) -> Vec<(u64, u8)> {
        moves_at(nodes, trees, &Costs::default())
    }

    fn moves_at(nodes: &[NodeView], trees: &[TreeView], costs: &Costs) -> Vec<(u64, u8)> {
        let all = balance(&Policy::default(), nodes, trees, costs, Millis(100_000));
        all.into_iter().map(|m| (m.tree.0, m.to.into())).collect()
    }

    #[test]
    fn the_probe_forgets() {
        let mut load = Load::default();
        load.sample(8000);
        assert_eq!(load, Load { mean: 3000, upper: 8000 });
        load.sample(0);
        assert_eq!(load, Load { mean: 1875, upper: 7000 });
        load.sample(u64::MAX);
        load.sample(u64::MAX);
    }

    #[test]
    fn new_trees_go_where_most_is_free_of_one_processor() {
        let p = Policy::default();
        let on = |n: u8| Choice::On(NodeNumber::try_from(n).unwrap());
        let nodes = [node(1, 2, 1000), node(2, 8, 3000)];
        assert_eq!(place(&p, &nodes, &new_tree()), on(2));
        let equal = [node(1, 2, 0), node(2, 2, 0)];
        assert_eq!(place(&p, &equal, &new_tree()), on(1));
        let near = Need { near: NodeNumber::try_from(2u8).ok(), ..new_tree() };
        assert_eq!(place(&p, &equal, &near), on(2));
        // What was just sent counts.
        let mut sent = equal.clone();
        sent[0].coming = ONE;
        assert_eq!(place(&p, &sent, &new_tree()), on(2));
    }

    #[test]
    fn when_all_are_full_a_tree_waits() {
        let nodes = [node(1, 2, 4000), node(2, 1, 2000)];
        assert_eq!(place(&Policy::default(), &nodes, &new_tree()), Choice::Queue);
    }

    #[test]
    fn nodes_that_do_not_serve_the_vo_or_have_other_processors_are_left_out() {
        let p = Policy::default();
        let mut nodes = [node(1, 2, 0), node(2, 2, 5000)];
        nodes[0].cpu_group = 2;
        let restarted = Need { cpu_group: Some(1), ..new_tree() };
        assert_eq!(place(&p, &nodes, &restarted), Choice::Queue);
        nodes[1].serves.clear();
        let Choice::Nowhere { reason } = place(&p, &nodes, &restarted) else { panic!("placed") };
        assert!(reason.contains("processors"), "{reason}");
        nodes[0].serves.clear();
        let Choice::Nowhere { reason } = place(&p, &nodes, &new_tree()) else { panic!("placed") };
        assert!(reason.contains("demo.rennes"), "{reason}");
        assert_eq!(moves(&[node(1, 1, 3000), nodes[1].clone()], &[hog(1, 1)]), []);
    }

    /// If it failed, programs would come to a node whose clock is wrong, or could not leave it.
    #[test]
    fn a_node_that_takes_none_sends_its_own_away() {
        let mut nodes = [node(1, 1, 3000), node(2, 1, 0)];
        nodes[0].takes = false;
        assert_eq!(moves(&nodes, &[hog(1, 1)]), [(1, 2)]);
        nodes[1].takes = false;
        assert_eq!(moves(&nodes, &[hog(1, 1)]), []);
    }

    /// If it failed, a checkpoint would lie twice on one node, or where nothing can restart it
    /// though another node could.
    #[test]
    fn copies_go_to_the_birth_node_and_else_where_a_restart_can_be() {
        let number = |n: u8| NodeNumber::try_from(n).unwrap();
        let mut nodes = [node(1, 2, 500), node(2, 2, 0), node(3, 2, 100), node(4, 2, 0)];
        nodes[3].cpu_group = 2;
        let need = Need { cpu_group: Some(1), near: Some(number(1)), ..new_tree() };
        let to = |nodes: &[NodeView], has: &[u8]| {
            let has = has.iter().map(|n| number(*n)).collect();
            hold(nodes, &need, &has).map(u8::from)
        };
        assert_eq!(to(&nodes, &[2]), Some(1));
        assert_eq!(to(&nodes, &[1]), Some(2));
        assert_eq!(to(&nodes, &[1, 2]), Some(3));
        assert_eq!(to(&nodes, &[1, 2, 3]), None, "its processors differ");
        nodes[0].online = false;
        nodes[1].serves.clear();
        assert_eq!(to(&nodes, &[]), Some(3));
    }

    #[test]
    fn a_loaded_node_sends_one_away() {
        let nodes = [node(1, 1, 3000), node(2, 1, 0)];
        assert_eq!(moves(&nodes, &[hog(1, 1), hog(2, 1), hog(3, 1)]), [(1, 2)]);
    }

    #[test]
    fn below_the_threshold_or_without_advantage_nothing_moves() {
        assert_eq!(moves(&[node(1, 1, 1400), node(2, 1, 0)], &[hog(1, 1)]), []);
        // 1.0 + 1.3 is more than 2.0: it would come back.
        assert_eq!(moves(&[node(1, 1, 2000), node(2, 1, 1000)], &[hog(1, 1)]), []);
        assert_eq!(moves(&[node(1, 1, 2400), node(2, 1, 1000)], &[hog(1, 1)]), [(1, 2)]);
    }

    #[test]
    fn a_move_that_costs_more_than_it_gains_is_left() {
        let nodes = [node(1, 1, 2000), node(2, 1, 0)];
        // From a half to a whole processor: half of its age is gained.
        let mut t = hog(1, 1);
        // 2 s, as is reckoned.
        (t.age, t.bytes) = (Duration::from_secs(12), 634_000_000);
        assert_eq!(moves(&nodes, &[t.clone()]), []);
        t.age = Duration::from_secs(14);
        assert_eq!(moves(&nodes, &[t]), [(1, 2)]);
    }

    /// If it failed, what was measured would keep nothing from a move that is not worth it, or
    /// hold back one that is.
    #[test]
    fn what_was_measured_counts_in_place_of_what_was_reckoned() {
        let nodes = [node(1, 1, 2000), node(2, 1, 0)];
        let seen = |ms: u64| {
            let mut costs = Costs::default();
            let (from, to) = (nodes[0].number, nodes[1].number);
            let (still, took) = (Duration::from_millis(ms), Duration::from_millis(ms));
            costs.add(Arrived { from, to, bytes: 32 << 20, still, took });
            costs
        };
        // It gains half of its minute.
        assert_eq!(moves_at(&nodes, &[hog(1, 1)], &seen(9_900)), [(1, 2)]);
        assert_eq!(moves_at(&nodes, &[hog(1, 1)], &seen(10_100)), []);
        let mut large = hog(1, 1);
        large.bytes = 4 << 30;
        assert_eq!(moves(&nodes, &[large.clone()]), []);
        assert_eq!(moves_at(&nodes, &[large], &seen(1)), [(1, 2)]);
    }

    #[test]
    fn moves_are_spaced_and_few_at_a_time() {
        let trees = [hog(1, 1)];
        let mut nodes = [node(1, 1, 3000), node(2, 1, 0)];
        nodes[0].last_move = Some(Millis(98_001));
        assert_eq!(moves(&nodes, &trees), []);
        nodes[0].last_move = Some(Millis(98_000));
        assert_eq!(moves(&nodes, &trees), [(1, 2)]);
        nodes[0].leaving = 1;
        assert_eq!(moves(&nodes, &trees), [], "one for two processors");
        nodes[0].cpus = 4;
        nodes[0].load.mean = 12_000;
        assert_eq!(moves(&nodes, &trees), [(1, 2)]);
    }

    #[test]
    fn two_nodes_do_not_fill_a_third() {
        let nodes = [node(1, 1, 2000), node(2, 1, 2000), node(3, 1, 0)];
        assert_eq!(moves(&nodes, &[hog(1, 1), hog(2, 2)]), [(1, 3)]);
    }

    #[test]
    fn a_drained_node_says_what_stays() {
        let mut nodes = [node(1, 2, 2000), node(2, 2, 0), node(3, 2, 0)];
        nodes[0].online = false;
        let mut stays = hog(3, 1);
        stays.moves = false;
        let one = NodeNumber::try_from(1u8).unwrap();
        let plan = drain(&nodes, &[hog(1, 1), hog(2, 1), stays, hog(4, 2)], one);
        let to = |n: u8| Choice::On(NodeNumber::try_from(n).unwrap());
        assert_eq!(plan[..2], [(TreeId(1), to(2)), (TreeId(2), to(3))]);
        assert_eq!(plan.len(), 3);
        assert!(matches!(&plan[2], (TreeId(3), Choice::Nowhere { .. })));
    }
}
