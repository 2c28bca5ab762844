//! Emptying a node.

use super::super::ClusterService;
use super::super::one::Cluster;
use super::super::policy::Action;
use super::{SHELL_STAYS, member_error, no_node};
use crate::cluster::messages::TreeId;
use crate::cluster::place::{self, Choice};
use crate::cluster::trees::Tree;
use crate::pids::NodeNumber;
use crate::wire::ClusterWhy;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use xos_api::cluster::{DrainClusterNode, DrainPlan, DrainedTree};
use xos_base::{Error, Millis, NodeId};
use xos_net::Caller;

/// Trees of which a node is asked at once what keeps them.
const ASKED_AT_ONCE: usize = 16;
/// How long all answers may take.
const ASKED_MAX: Duration = Duration::from_secs(10);

impl ClusterService {
    pub(super) async fn drain_node(
        &self,
        caller: Caller,
        r: DrainClusterNode,
    ) -> Result<DrainPlan, Error> {
        let drained = self.drained(&caller, &r).await;
        if r.plan {
            return drained;
        }
        let what = if r.undo { "undrain_cluster_node" } else { "drain_cluster_node" };
        self.noted(&caller, what, &r.cluster, r.node.as_str(), drained).await
    }

    async fn drained(&self, caller: &Caller, r: &DrainClusterNode) -> Result<DrainPlan, Error> {
        self.authorise(caller, Action::Change).await?;
        if r.plan && r.undo {
            return Err(Error::invalid("plan and undo do not go together"));
        }
        let (mut plan, asks) = {
            let now = self.clock.up();
            let mut held = self.clusters.of(&r.cluster).await?;
            let c = &mut *held;
            let number = c.number(&r.node).ok_or_else(|| no_node(&r.cluster, &r.node))?;
            if r.undo {
                let effects = c.controller.drain(number, false).map_err(member_error)?;
                let told = self.commit(c, effects).await?;
                self.send(c, told);
                return Ok(DrainPlan::default());
            }
            let plan = plan(c, number, now);
            if !r.plan {
                let effects = c.controller.drain(number, true).map_err(member_error)?;
                let told = self.commit(c, effects).await?;
                self.send(c, told);
            }
            let asks = asks(c, &plan);
            (plan, asks)
        };
        let mut kept = self.kept(&r.node, asks).await;
        for t in &mut plan.trees {
            if let Some(why) = kept.remove(&t.tree) {
                (t.to, t.reason) = (None, why);
            }
        }
        Ok(plan)
    }

    /// What keeps trees that would go, by their numbers: only their node sees that. What it does
    /// not say in time is found when they are moved.
    async fn kept(&self, node: &NodeId, asks: Vec<ClusterWhy>) -> BTreeMap<u64, String> {
        let (mut kept, mut asks) = (BTreeMap::new(), asks.into_iter());
        let mut asked = JoinSet::new();
        let ask = |asked: &mut JoinSet<_>, one: ClusterWhy| {
            let (nodes, node) = (Arc::clone(&self.nodes), node.clone());
            asked.spawn(async move {
                let tree = one.tree;
                (tree, nodes.why(&node, one).await)
            });
        };
        let answers = async {
            for one in asks.by_ref().take(ASKED_AT_ONCE) {
                ask(&mut asked, one);
            }
            while let Some(answer) = asked.join_next().await {
                if let Some(one) = asks.next() {
                    ask(&mut asked, one);
                }
                // Also one that ended meanwhile.
                let Ok((tree, Ok(seen))) = answer else { continue };
                if let Some(first) = seen.obstacles.into_iter().next() {
                    let why = format!("process {}: {}; {}", first.pid, first.what, first.next);
                    kept.insert(tree.0, why);
                }
            }
        };
        let _late = tokio::time::timeout(ASKED_MAX, answers).await;
        kept
    }
}

/// What becomes of the trees of a node, as far as the core knows.
fn plan(c: &Cluster, node: NodeNumber, now: Millis) -> DrainPlan {
    let planned: BTreeMap<TreeId, Choice> =
        place::drain(&c.node_views(), &c.tree_views(now), node).into_iter().collect();
    let trees = c.controller.state().trees.iter().filter(|(_, t)| t.uses(node));
    let line = |(tree, t): (TreeId, &Tree)| {
        let (to, reason) = match planned.get(&tree) {
            Some(Choice::On(to)) => (c.name(*to), String::new()),
            Some(_) if c.is_shell(tree) => (None, SHELL_STAYS.to_owned()),
            Some(Choice::Nowhere { reason }) => (None, reason.clone()),
            Some(Choice::Queue) => (None, "all other nodes are full".to_owned()),
            None => (None, "it is on its way to this node".to_owned()),
        };
        DrainedTree { tree: tree.0, pid: t.root, to, reason }
    };
    let left = c.controller.only_at(node).into_iter().filter_map(|tree| {
        let pid = c.controller.state().trees.tree(tree)?.root;
        let reason = "it left, and its image is here alone until it goes on elsewhere".to_owned();
        Some(DrainedTree { tree: tree.0, pid, to: None, reason })
    });
    DrainPlan { trees: trees.map(line).chain(left).collect() }
}

/// What to ask of those that would go.
fn asks(c: &Cluster, plan: &DrainPlan) -> Vec<ClusterWhy> {
    let go = plan.trees.iter().filter(|t| t.to.is_some()).map(|t| TreeId(t.tree));
    let ask = |tree: TreeId| {
        let epoch = c.controller.state().trees.tree(tree)?.epoch;
        Some(ClusterWhy { cluster: c.id.clone(), tree, epoch })
    };
    go.filter_map(ask).collect()
}
