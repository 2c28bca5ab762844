//! Taking nodes out as Kerrighed did: what can move goes to others first. Nothing is ended for
//! that, where the original killed what could not move.

use super::{cluster_id, site_of};
use crate::cli::ask;
use crate::cli::node::node_id;
use crate::cli::output::{Outcome, clean};
use crate::cli::session::Session;
use std::time::Duration;
use xos_api::cluster::{
    ClusterNodeState, ClusterTree, ClusterTreeState, DrainClusterNode, DrainPlan, GetCluster,
    ListTrees, RemoveClusterNode,
};
use xos_base::{ClusterId, Error, NodeId};
use xos_net::Client;

/// How often it is looked what is left.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After how many looks it is given up.
const LOOKS_MAX: u32 = 1200;
/// After how many looks in a row at which nothing goes what is left stays.
const RESTS_MAX: u32 = 4;
/// Most programs that stay and are named.
const NAMED_MAX: usize = 10;

/// Runs `krgadm nodes del`.
pub(super) async fn del(s: &Session, cluster: &str, nodes: &[String], yes: bool) -> Outcome {
    let cluster = cluster_id(s, cluster)?;
    let site = cluster.site();
    let nodes = nodes.iter().map(|n| node_id(n, &site)).collect::<Result<Vec<_>, _>>()?;
    for node in nodes.iter().filter(|_| !yes) {
        let question = format!("Move all programs away from {node}, and take it out of {cluster}?");
        ask::consent(&question, "add --yes", "nothing was changed")?;
    }
    let core = s.person(&site_of(s, &cluster)).await?;
    let view = core.call(GetCluster { cluster: cluster.clone() }).await?;
    // All of them first: else programs would move to one that leaves as well.
    for node in &nodes {
        let online = ClusterNodeState::Online;
        if view.nodes.iter().any(|n| n.node == *node && n.state == online) {
            core.call(drain(&cluster, node, false)).await?;
        }
    }
    for node in &nodes {
        emptied(&core, &cluster, node).await?;
        let r = RemoveClusterNode { cluster: cluster.clone(), node: node.clone() };
        let done = core.call(r).await?;
        s.out.show(&done, || format!("{node} is no longer in {cluster}."))?;
    }
    Ok(0)
}

fn drain(cluster: &ClusterId, node: &NodeId, plan: bool) -> DrainClusterNode {
    DrainClusterNode { cluster: cluster.clone(), node: node.clone(), plan, undo: false }
}

/// Waits until nothing is left on a node.
async fn emptied(core: &Client, cluster: &ClusterId, node: &NodeId) -> Result<(), Error> {
    let mut rests = 0;
    for _ in 0..LOOKS_MAX {
        let plan = core.call(drain(cluster, node, true)).await?;
        if plan.trees.is_empty() {
            return Ok(());
        }
        let trees = core.call(ListTrees { cluster: cluster.clone() }).await?;
        rests = if goes(&plan, &trees) { 0 } else { rests + 1 };
        if rests >= RESTS_MAX {
            return Err(stay(cluster, node, &plan));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(Error::unavailable(format!("{node} is not empty yet, and takes no new programs"))
        .hint(format!("xos cluster nodes {cluster} shows how it goes on; run this again then")))
}

/// Whether something of a plan goes, or may.
fn goes(plan: &DrainPlan, trees: &[ClusterTree]) -> bool {
    use ClusterTreeState::{Moving, Restarting, Starting};
    let on_the_way = |tree: u64| {
        let state = trees.iter().find(|t| t.tree == tree).map(|t| t.state);
        matches!(state, Some(Moving | Restarting | Starting))
    };
    plan.trees.iter().any(|t| t.to.is_some() || on_the_way(t.tree))
}

fn stay(cluster: &ClusterId, node: &NodeId, plan: &DrainPlan) -> Error {
    let one = |t: &xos_api::cluster::DrainedTree| {
        format!("tree {} (pid {}): {}", t.tree, t.pid, clean(&t.reason))
    };
    let mut named: Vec<String> = plan.trees.iter().take(NAMED_MAX).map(one).collect();
    if let Some(more @ 1..) = plan.trees.len().checked_sub(NAMED_MAX) {
        named.push(format!("and {more} more"));
    }
    let text = format!("{node} stays in {cluster}, as programs do: {}", named.join("; "));
    Error::conflict(text).hint(format!(
        "it takes no new ones: end these or wait for their end, and run this again; \
         xos cluster drain {cluster} {node} --undo has it take programs again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::cluster::DrainedTree;

    fn planned(to: Option<&str>) -> DrainPlan {
        let to = to.map(|node| node.parse().unwrap());
        let reason = if to.is_some() { String::new() } else { "it is traced".to_owned() };
        DrainPlan { trees: vec![DrainedTree { tree: 7, pid: 40_000, to, reason }] }
    }

    fn tree(state: ClusterTreeState) -> ClusterTree {
        let json = serde_json::json!({
            "tree": 7, "pid": 40_000, "person": "alice@rennes", "vo": "demo.rennes",
            "argv": ["/bin/hog"], "state": "running", "saving": false,
        });
        ClusterTree { state, ..serde_json::from_value(json).unwrap() }
    }

    /// If it failed, a node would be given up while its last program is on its way, or waited for
    /// that has one which never goes.
    #[test]
    fn what_is_on_its_way_is_waited_for() {
        use ClusterTreeState::{Checkpointed, Moving, Running, Starting};
        for state in [Running, Moving, Starting] {
            assert!(goes(&planned(Some("n2.rennes")), &[tree(state)]), "{state:?}");
        }
        assert!(goes(&planned(None), &[tree(Moving)]) && goes(&planned(None), &[tree(Starting)]));
        assert!(!goes(&planned(None), &[tree(Running)]));
        assert!(!goes(&planned(None), &[tree(Checkpointed)]) && !goes(&planned(None), &[]));
    }

    /// If it failed, an administrator would not know which program keeps the node, or what to do.
    #[test]
    fn what_stays_is_named() {
        let (cluster, node) = ("c1.rennes".parse().unwrap(), "n1.rennes".parse().unwrap());
        let said = stay(&cluster, &node, &planned(None));
        assert!(said.message.ends_with("tree 7 (pid 40000): it is traced"), "{}", said.message);
        assert!(said.hint.unwrap().contains("xos cluster drain c1.rennes n1.rennes --undo"));
        let mut many = planned(None);
        many.trees = vec![many.trees[0].clone(); NAMED_MAX + 2];
        assert!(stay(&cluster, &node, &many).message.ends_with("and 2 more"));
    }
}
