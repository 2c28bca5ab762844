//! Clusters and their nodes.

use super::{Asker, cluster_id, site_of};
use crate::cli::ask;
use crate::cli::node::node_id;
use crate::cli::output::{Outcome, Style, Table, clean, cpus, size};
use crate::cli::session::Session;
use xos_api::cluster::{
    AddClusterNodes, ClusterMoves, ClusterNode, ClusterNodeState, ClusterView, CreateCluster,
    DrainClusterNode, DrainPlan, GetCluster, ListClusters, RemoveClusterNode,
};

/// Runs `xos cluster create`.
pub(super) async fn create(s: &Session, cluster: &str) -> Outcome {
    let cluster = cluster_id(s, cluster)?;
    let core = s.person(&site_of(s, &cluster)).await?;
    let made = core.call(CreateCluster { cluster: cluster.clone() }).await?;
    s.out.show(&made, || {
        format!("{cluster} is made. Take nodes up: xos cluster add {cluster} NODE")
    })?;
    Ok(0)
}

/// Runs `xos cluster status`.
pub(super) async fn status(s: &Session) -> Outcome {
    let mut core = Asker::at(s, &s.site()?).await?;
    let clusters = core.call(s, ListClusters {}).await?;
    s.out.show(&clusters, || {
        let head =
            ["CLUSTER", "NODES", "ONLINE", "CPUS", "LOAD", "PROGRAMS", "WAITING", "A MOVE STOPS"];
        let mut table = Table::new(&head);
        for c in &clusters {
            let online = c.nodes.iter().filter(|n| n.state == ClusterNodeState::Online).count();
            let looks = || c.nodes.iter().filter_map(|n| n.looks.as_ref());
            table.row([
                c.cluster.to_string(),
                c.nodes.len().to_string(),
                online.to_string(),
                looks().map(|l| u64::from(l.cpus)).sum::<u64>().to_string(),
                cpus(looks().map(|l| l.load_milli).sum()),
                c.trees.to_string(),
                c.waiting.to_string(),
                stops(&c.moves),
            ]);
        }
        table.text("The site has no cluster; its administrators make one: xos cluster create NAME")
    })?;
    Ok(0)
}

/// How long a program stands still that moves: at least, and for its memory.
fn stops(moves: &ClusterMoves) -> String {
    let tenths = |ms: u64| format!("{}.{} s", ms / 1000, ms % 1000 / 100);
    let fixed = tenths(moves.fixed_ms);
    let gib_ms = moves.bytes_per_s.map(|rate| (1000_u64 << 30) / rate.max(1));
    let sized = gib_ms.map(|ms| format!(" + {}/GiB", tenths(ms))).unwrap_or_default();
    match moves.arrived {
        0 => format!("{fixed}{sized}, as reckoned"),
        _ => format!("{fixed}{sized}"),
    }
}

/// Runs `xos cluster nodes`.
pub(super) async fn nodes(s: &Session, cluster: &str) -> Outcome {
    let cluster = cluster_id(s, cluster)?;
    let mut core = Asker::at(s, &site_of(s, &cluster)).await?;
    let view = core.call(s, GetCluster { cluster }).await?;
    s.out.show(&view, || table(&view))?;
    Ok(0)
}

/// The nodes of a cluster.
pub(super) fn table(view: &ClusterView) -> String {
    let mut table = Table::new(&["NODE", "STATE", "LOAD", "CPUS", "FREE", "PROGRAMS", "TROUBLE"]);
    for n in &view.nodes {
        let look = |f: fn(&xos_api::cluster::ClusterNodeLooks) -> String| {
            n.looks.as_ref().map(f).unwrap_or_default()
        };
        table.row([
            n.node.to_string(),
            state(n.state),
            look(|l| cpus(l.load_milli)),
            look(|l| l.cpus.to_string()),
            look(|l| size(l.memory_free_bytes)),
            n.trees.to_string(),
            trouble(n),
        ]);
    }
    let none = format!("{} has no node; add one: xos cluster add {0} NODE", view.cluster);
    table.text(&none)
}

fn state(state: ClusterNodeState) -> String {
    match state {
        ClusterNodeState::Possible => "possible".to_owned(),
        ClusterNodeState::Present => Style::Busy.mark("present"),
        ClusterNodeState::Online => Style::Good.mark("online"),
        ClusterNodeState::Draining => Style::Busy.mark("draining"),
        ClusterNodeState::Suspect => Style::Busy.mark("suspect"),
        ClusterNodeState::Failed => Style::Bad.mark("failed"),
    }
}

/// Why a node is as it is, and what it cannot do.
fn trouble(n: &ClusterNode) -> String {
    let moves = match n.moves_not.as_str() {
        "" => String::new(),
        why => format!("nothing moves: {}", clean(why)),
    };
    let parts = [clean(&n.reason), moves, clean(&n.processors)];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("; ")
}

/// Runs `xos cluster add`.
pub(super) async fn add(s: &Session, cluster: &str, nodes: &[String]) -> Outcome {
    let cluster = cluster_id(s, cluster)?;
    let site = cluster.site();
    let nodes = nodes.iter().map(|n| node_id(n, &site)).collect::<Result<Vec<_>, _>>()?;
    let core = s.person(&site_of(s, &cluster)).await?;
    let view = core.call(AddClusterNodes { cluster, nodes }).await?;
    s.out.show(&view, || table(&view))?;
    Ok(0)
}

/// Runs `xos cluster del`.
pub(super) async fn del(s: &Session, cluster: &str, node: &str, yes: bool) -> Outcome {
    let cluster = cluster_id(s, cluster)?;
    let node = node_id(node, &cluster.site())?;
    if !yes {
        let question = format!("Take {node} out of {cluster}?");
        ask::consent(&question, "add --yes", "nothing was changed")?;
    }
    let core = s.person(&site_of(s, &cluster)).await?;
    let r = RemoveClusterNode { cluster: cluster.clone(), node: node.clone() };
    let done = core.call(r).await?;
    s.out.show(&done, || format!("{node} is no longer in {cluster}."))?;
    Ok(0)
}

/// Runs `xos cluster drain`.
pub(super) async fn drain(
    s: &Session,
    cluster: &str,
    node: &str,
    (plan, undo): (bool, bool),
) -> Outcome {
    let cluster = cluster_id(s, cluster)?;
    let node = node_id(node, &cluster.site())?;
    let core = s.person(&site_of(s, &cluster)).await?;
    let r = DrainClusterNode { cluster: cluster.clone(), node: node.clone(), plan, undo };
    let planned = core.call(r).await?;
    s.out.show(&planned, || match (plan, undo) {
        (true, _) => drain_table(&planned),
        (_, true) => format!("{node} takes programs again."),
        _ => format!(
            "{}\n\n{node} takes no new programs. xos cluster nodes {cluster} shows how it goes on.",
            drain_table(&planned)
        ),
    })?;
    Ok(0)
}

fn drain_table(plan: &DrainPlan) -> String {
    let mut table = Table::new(&["TREE", "PID", "TO", "WHY IT STAYS"]);
    for t in &plan.trees {
        let to = t.to.as_ref().map(ToString::to_string).unwrap_or_default();
        table.row([t.tree.to_string(), t.pid.to_string(), to, clean(&t.reason)]);
    }
    table.text("No programs are there.")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, people would not see why a node takes no programs, or nothing moves there.
    #[test]
    fn a_nodes_trouble_is_told() {
        let node = ClusterNode {
            node: "n1.rennes".parse().unwrap(),
            number: 1,
            state: ClusterNodeState::Suspect,
            reason: "silent for 3s".into(),
            moves: false,
            moves_not: "no CRIU\u{1b}[2J".into(),
            processors: "other processors than n2.rennes: without avx".into(),
            trees: 2,
            looks: None,
        };
        let told = "silent for 3s; nothing moves: no CRIU?[2J; \
                    other processors than n2.rennes: without avx";
        assert_eq!(trouble(&node), told);
        let cluster = "c1.rennes".parse().unwrap();
        let moves = ClusterMoves::default();
        let view = ClusterView { cluster, nodes: Vec::new(), trees: 0, waiting: 0, moves };
        assert_eq!(table(&view), "c1.rennes has no node; add one: xos cluster add c1.rennes NODE");
    }

    /// If it failed, people would take what was reckoned for what was seen, or wait for longer.
    #[test]
    fn what_a_move_costs_is_told() {
        let mut moves = ClusterMoves { fixed_ms: 250, ..ClusterMoves::default() };
        moves.bytes_per_s = Some(512 << 20);
        assert_eq!(stops(&moves), "0.2 s + 2.0 s/GiB, as reckoned");
        (moves.arrived, moves.bytes_per_s) = (3, None);
        assert_eq!(stops(&moves), "0.2 s");
        moves.bytes_per_s = Some(0);
        assert!(stops(&moves).starts_with("0.2 s + 1073741824.0 s"));
    }
}
