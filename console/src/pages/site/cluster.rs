//! One cluster, for the site's administrators: its nodes, who runs what in it.

use super::{Ask, SiteHead, confirm};
use crate::chart::{Chart, Part};
use crate::pages::clusters::{
    Asker, ProcessRow, ProgramRow, Summary, Whose, notes, process_rows, program_rows, said,
};
use crate::view::{Badge, Frame, bytes_text, cpus_text, page, span_text};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use std::collections::{BTreeMap, BTreeSet};
use xos_api::cluster::{
    AddClusterNodes, ClusterNode, ClusterNodeLooks, ClusterNodeState, ClusterProcess, ClusterTree,
    DrainClusterNode, DrainPlan, GetCluster, ListClusters, ListProcesses, ListTrees,
    RemoveClusterNode,
};
use xos_api::site::ConnectedNodes;
use xos_base::{ClusterId, Error, NodeId, PersonId};

/// Most programs that are shown.
const PROGRAMS_MAX: usize = 200;
/// Most processes that are shown.
const PROCESSES_MAX: usize = 50;
/// What a node said longer ago is told with its age.
const OLD_MS: u64 = 10_000;

#[derive(Template)]
#[template(path = "site_cluster.html")]
struct View {
    frame: Frame,
    site_head: SiteHead,
    cluster: String,
    summary: Summary,
    nodes: Vec<NodeRow>,
    load_chart: Chart,
    /// Connected nodes that are in no cluster.
    free: Vec<String>,
    programs: Vec<ProgramRow>,
    more_programs: bool,
    people_chart: Chart,
    processes: Vec<ProcessRow>,
    cpu_full: u32,
    more_processes: bool,
}

struct NodeRow {
    node: String,
    state: Badge,
    looks: Option<Looks>,
    trees: u64,
    /// Why it is so, and why nothing moves there.
    notes: Vec<String>,
    drains: bool,
    /// It is drained, which can be undone.
    drained: bool,
    leaves: bool,
}

/// What a node said of itself.
struct Looks {
    load: String,
    cpus: u32,
    memory: u64,
    memory_used: u64,
    memory_text: String,
    /// How long ago, when that is long.
    age: Option<String>,
}

impl From<&ClusterNodeLooks> for Looks {
    fn from(l: &ClusterNodeLooks) -> Looks {
        let used = l.memory_bytes.saturating_sub(l.memory_free_bytes);
        Looks {
            load: cpus_text(l.load_milli),
            cpus: l.cpus,
            // A bar needs some length.
            memory: l.memory_bytes.max(1),
            memory_used: used,
            memory_text: format!("{} of {}", bytes_text(used), bytes_text(l.memory_bytes)),
            age: (l.age_ms > OLD_MS).then(|| span_text(l.age_ms)),
        }
    }
}

impl From<&ClusterNode> for NodeRow {
    fn from(n: &ClusterNode) -> NodeRow {
        use ClusterNodeState::{Draining, Failed, Online, Possible, Present, Suspect};
        let moves_not = match n.moves_not.as_str() {
            "" => String::new(),
            why => format!("nothing moves: {why}"),
        };
        NodeRow {
            node: n.node.to_string(),
            state: n.state.into(),
            looks: n.looks.as_ref().map(Looks::from),
            trees: n.trees,
            notes: notes(&[n.reason.as_str(), moves_not.as_str(), n.processors.as_str()]),
            drains: matches!(n.state, Online | Suspect),
            drained: n.state == Draining,
            leaves: n.trees == 0 && matches!(n.state, Possible | Present | Draining | Failed),
        }
    }
}

/// The page.
pub(crate) async fn show(visit: Visit) -> Shown {
    let cluster: ClusterId = visit.place("cluster")?;
    let asker = Asker::at(&visit, &Whose::Site, &cluster).await?;
    let view = asker.call(&visit, GetCluster { cluster: cluster.clone() }).await?;
    let trees = asker.call(&visit, ListTrees { cluster: cluster.clone() }).await?;
    let processes = asker.call(&visit, ListProcesses { cluster: cluster.clone() }).await?;
    let people_chart = people_chart(&processes);
    let (programs, more_programs) = program_rows(&Whose::Site, &cluster, trees, PROGRAMS_MAX);
    let (processes, cpu_full, more_processes) = process_rows(processes, PROCESSES_MAX);
    page(&View {
        frame: Frame::of(&visit, &format!("Cluster {cluster}"), "site").await,
        site_head: SiteHead::new("clusters"),
        cluster: cluster.to_string(),
        summary: (&view).into(),
        nodes: view.nodes.iter().map(NodeRow::from).collect(),
        load_chart: load_chart(&view.nodes),
        free: free(&visit).await?,
        programs,
        more_programs,
        people_chart,
        processes,
        cpu_full,
        more_processes,
    })
}

/// Connected nodes of the site that are in no cluster.
async fn free(visit: &Visit) -> Result<Vec<String>, Stop> {
    let clusters = visit.ask(ListClusters {}).await?;
    let seated: BTreeSet<&NodeId> =
        clusters.iter().flat_map(|c| &c.nodes).map(|n| &n.node).collect();
    let connected: BTreeSet<NodeId> = visit.ask(ConnectedNodes {}).await?.into_iter().collect();
    let free = connected.iter().filter(|node| !seated.contains(node));
    Ok(free.map(ToString::to_string).collect())
}

fn load_chart(nodes: &[ClusterNode]) -> Chart {
    let part = |n: &ClusterNode| {
        let l = n.looks.as_ref()?;
        Some(Part {
            label: n.node.to_string(),
            text: format!("{} of {}", cpus_text(l.load_milli), l.cpus),
            value: l.load_milli,
            of: Some(u64::from(l.cpus) * 1000),
        })
    };
    let title = "Load of each node, of its processors";
    Chart::new("nodes", title, nodes.iter().filter_map(part).collect())
}

fn people_chart(processes: &[ClusterProcess]) -> Chart {
    let mut people: BTreeMap<&PersonId, u64> = BTreeMap::new();
    for p in processes {
        if let Some(person) = &p.person {
            let used = people.entry(person).or_default();
            *used = used.saturating_add(p.cpu_milli.into());
        }
    }
    let part = |(person, used): (&PersonId, u64)| Part {
        label: person.to_string(),
        text: cpus_text(used),
        value: used,
        of: None,
    };
    let mut parts: Vec<Part> = people.into_iter().map(part).collect();
    parts.sort_by_key(|p| std::cmp::Reverse(p.value));
    Chart::new("people", "Processors in use by each person", parts)
}

fn page_of(cluster: &ClusterId) -> String {
    Whose::Site.list(cluster)
}

/// Takes the ticked nodes up.
pub(crate) async fn add(visit: Visit) -> Shown {
    let cluster: ClusterId = visit.place("cluster")?;
    let nodes: Vec<NodeId> = visit.form.ids("node")?;
    if nodes.is_empty() {
        return Err(Error::invalid("no node was chosen").hint("go back and tick some").into());
    }
    let notice = format!(
        "Nodes added to {cluster}: {}. Each joins by itself once its xosd.toml has a section \
         [node.cluster].",
        nodes.len()
    );
    visit.ask(AddClusterNodes { cluster: cluster.clone(), nodes }).await?;
    done(&visit, page_of(&cluster), notice)
}

fn names(visit: &Visit) -> Result<(ClusterId, NodeId), Stop> {
    Ok((visit.place("cluster")?, visit.place("node")?))
}

#[derive(Template)]
#[template(path = "site_cluster_drain.html")]
struct Drain {
    frame: Frame,
    site_head: SiteHead,
    cluster: String,
    node: String,
    back: String,
    planned: Vec<Planned>,
    /// Programs that stay.
    staying: usize,
}

/// What becomes of a program.
struct Planned {
    tree: u64,
    pid: i32,
    person: String,
    command: String,
    to: Option<String>,
    reason: String,
}

fn planned(cluster: &ClusterId, plan: DrainPlan, trees: &[ClusterTree]) -> Vec<Planned> {
    let rows = plan.trees.into_iter().map(|d| {
        let known = trees.iter().find(|t| t.tree == d.tree);
        let row = known.map(|t| ProgramRow::new(&Whose::Site, cluster, t));
        let (person, command) = row.map(|r| (r.person, r.command)).unwrap_or_default();
        Planned {
            tree: d.tree,
            pid: d.pid,
            person,
            command,
            to: d.to.map(|to| to.to_string()),
            reason: said(&d.reason),
        }
    });
    rows.collect()
}

/// Shows what would become of each program of the node, and asks whether it shall be.
pub(crate) async fn confirm_drain(visit: Visit) -> Shown {
    let (cluster, node) = names(&visit)?;
    let ask =
        DrainClusterNode { cluster: cluster.clone(), node: node.clone(), plan: true, undo: false };
    let plan = visit.ask(ask).await?;
    let trees = visit.ask(ListTrees { cluster: cluster.clone() }).await?;
    let planned = planned(&cluster, plan, &trees);
    page(&Drain {
        frame: Frame::of(&visit, &format!("Drain {node}"), "site").await,
        site_head: SiteHead::new("clusters"),
        cluster: cluster.to_string(),
        node: node.to_string(),
        back: page_of(&cluster),
        staying: planned.iter().filter(|p| p.to.is_none()).count(),
        planned,
    })
}

async fn set_drain(visit: &Visit, undo: bool, notice: &str) -> Shown {
    let (cluster, node) = names(visit)?;
    let notice = format!("{node} {notice}");
    let ask = DrainClusterNode { cluster: cluster.clone(), node, plan: false, undo };
    visit.ask(ask).await?;
    done(visit, page_of(&cluster), notice)
}

/// Drains the node.
pub(crate) async fn drain(visit: Visit) -> Shown {
    let notice = "takes no new programs. This page shows how those that it has leave.";
    set_drain(&visit, false, notice).await
}

/// Has the node take programs again.
pub(crate) async fn undrain(visit: Visit) -> Shown {
    set_drain(&visit, true, "takes programs again.").await
}

/// Asks whether the node shall really leave.
pub(crate) async fn confirm_remove(visit: Visit) -> Shown {
    let (cluster, node) = names(&visit)?;
    let ask = Ask {
        heading: format!("Take {node} out of {cluster}?"),
        text: "It takes no more programs of the cluster. It stays a node of the site, and can be \
               added again."
            .to_owned(),
        action: format!("/site/cluster/{cluster}/node/{node}/remove"),
        reason: None,
        button: "Take it out",
        back: page_of(&cluster),
    };
    confirm(&visit, "clusters", ask).await
}

/// Takes the node out.
pub(crate) async fn remove(visit: Visit) -> Shown {
    let (cluster, node) = names(&visit)?;
    visit.ask(RemoveClusterNode { cluster: cluster.clone(), node: node.clone() }).await?;
    done(&visit, page_of(&cluster), format!("{node} is no longer in {cluster}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(state: ClusterNodeState, trees: u64) -> ClusterNode {
        ClusterNode {
            node: "n1.rennes".parse().unwrap(),
            number: 1,
            state,
            reason: String::new(),
            moves: false,
            moves_not: "no CRIU".into(),
            processors: String::new(),
            trees,
            looks: Some(ClusterNodeLooks {
                load_milli: 1500,
                cpus: 2,
                memory_bytes: 1 << 30,
                memory_free_bytes: 2 << 30,
                cpu_group: 1,
                clock_ahead_ms: None,
                age_ms: 12_000,
            }),
        }
    }

    /// If it failed, an administrator would be led to what the core refuses, or not to what it
    /// does; or a bar of memory would leave its place.
    #[test]
    fn a_node_offers_what_its_state_allows() {
        use ClusterNodeState::{Draining, Failed, Online, Possible, Present, Suspect};
        let offers = |state, trees| {
            let row = NodeRow::from(&node(state, trees));
            (row.drains, row.drained, row.leaves)
        };
        assert_eq!(offers(Possible, 0), (false, false, true));
        assert_eq!(offers(Present, 0), (false, false, true));
        assert_eq!(offers(Online, 0), (true, false, false));
        assert_eq!(offers(Suspect, 0), (true, false, false));
        assert_eq!(offers(Draining, 1), (false, true, false));
        assert_eq!(offers(Draining, 0), (false, true, true));
        assert_eq!(offers(Failed, 0), (false, false, true));
        let row = NodeRow::from(&node(Online, 0));
        assert_eq!(row.notes, ["Nothing moves: no CRIU."]);
        let looks = row.looks.unwrap();
        assert_eq!((looks.memory_used, looks.age.as_deref()), (0, Some("12 s")));
    }
}
