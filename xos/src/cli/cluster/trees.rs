//! Programs in a cluster.

use super::nodes::table;
use super::{Asker, cluster_id, site_of};
use crate::cli::node::node_id;
use crate::cli::output::{Outcome, Style, Table, clean, cpus, fields, size};
use crate::cli::session::Session;
use serde::Serialize;
use std::time::Duration;
use xos_api::cluster::{
    CancelTree, CheckpointTree, ClusterCut, ClusterProcess, ClusterTree, ClusterTreeState,
    ClusterView, GetCluster, GetTree, KillTree, ListProcesses, ListTrees, MigrateTree, RestartTree,
    TreeWhy, WhyTree,
};
use xos_base::{ClusterId, Error};

/// How often it is looked how a move or a checkpoint goes on.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// After how many looks that is given up: more than the steps of a move may take.
const LOOKS_MAX: u32 = 2000;
/// Most files that were cut back and are named, after a restart and when it is asked why.
const CUTS_SHOWN: usize = 10;
/// Most processes that `xos cluster top` shows.
const TOP_MAX: usize = 30;

/// What `xos cluster ps` tells.
#[derive(Serialize)]
struct Shown {
    trees: Vec<ClusterTree>,
    processes: Vec<ClusterProcess>,
}

/// Runs `xos cluster ps`.
pub(super) async fn ps(s: &Session, cluster: &str) -> Outcome {
    let cluster = cluster_id(s, cluster)?;
    let mut core = Asker::at(s, &site_of(s, &cluster)).await?;
    let trees = core.call(s, ListTrees { cluster: cluster.clone() }).await?;
    let processes = core.call(s, ListProcesses { cluster }).await?;
    let shown = Shown { trees, processes };
    s.out.show(&shown, || {
        let all = shown.processes.iter();
        let processes = process_table(all, "No processes were told of.");
        format!("{}\n\n{processes}", tree_table(&shown.trees))
    })?;
    Ok(0)
}

/// What `xos cluster top` tells.
#[derive(Serialize)]
struct Top {
    cluster: ClusterView,
    processes: Vec<ClusterProcess>,
}

/// Runs `xos cluster top`.
pub(super) async fn top(s: &Session, cluster: &str) -> Outcome {
    let id = cluster_id(s, cluster)?;
    let mut core = Asker::at(s, &site_of(s, &id)).await?;
    let cluster = core.call(s, GetCluster { cluster: id.clone() }).await?;
    let mut processes = core.call(s, ListProcesses { cluster: id }).await?;
    processes.sort_by_key(|p| (std::cmp::Reverse(p.cpu_milli), p.pid));
    let shown = Top { cluster, processes };
    s.out.show(&shown, || {
        let most = shown.processes.iter().take(TOP_MAX);
        let processes = process_table(most, "No processes were told of.");
        format!("{}\n\n{processes}", table(&shown.cluster))
    })?;
    Ok(0)
}

fn tree_table(trees: &[ClusterTree]) -> String {
    let mut table = Table::new(&["TREE", "PID", "PERSON", "NODE", "STATE", "PROGRAM", "MORE"]);
    for t in trees {
        let node = match (&t.node, &t.to) {
            (Some(node), Some(to)) => format!("{node} -> {to}"),
            (Some(node), None) => node.to_string(),
            _ => String::new(),
        };
        table.row([
            t.tree.to_string(),
            t.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            t.person.to_string(),
            node,
            state(t.state),
            clean(&t.argv.join(" ")).chars().take(40).collect(),
            more(t),
        ]);
    }
    table.text("No programs of yours are there.")
}

fn state(state: ClusterTreeState) -> String {
    match state {
        ClusterTreeState::Queued => Style::Busy.mark("queued"),
        ClusterTreeState::Starting => Style::Busy.mark("starting"),
        ClusterTreeState::Running => Style::Good.mark("running"),
        ClusterTreeState::Moving => Style::Busy.mark("moving"),
        ClusterTreeState::Checkpointed => Style::Busy.mark("checkpointed"),
        ClusterTreeState::Restarting => Style::Busy.mark("restarting"),
        ClusterTreeState::Lost => Style::Bad.mark("lost"),
        ClusterTreeState::Ended => "ended".to_owned(),
    }
}

/// Why it is so, what went wrong last, and what became of its files.
fn more(t: &ClusterTree) -> String {
    let parts = [clean(&t.reason), clean(&t.refused), clean(&t.trouble)];
    let parts = parts.into_iter().filter(|part| !part.is_empty()).chain(cuts(&t.cut, 1));
    parts.collect::<Vec<String>>().join("; ")
}

/// The files that were cut back last, at most so many, and that there are more.
fn cuts(files: &[ClusterCut], most: usize) -> Vec<String> {
    let one = |cut: &ClusterCut| {
        let (path, kept) = (clean(&cut.path), clean(&cut.kept));
        format!("{path} was cut back, {} of it are in {kept}", size(cut.bytes))
    };
    let mut all: Vec<String> = files.iter().rev().take(most).map(one).collect();
    if let Some(more @ 1..) = files.len().checked_sub(most) {
        all.push(format!("{more} more files were cut back (--json names them)"));
    }
    all
}

fn process_table<'a>(all: impl Iterator<Item = &'a ClusterProcess>, none: &str) -> String {
    let mut table =
        Table::new(&["PID", "PARENT", "TREE", "NODE", "PERSON", "S", "CPU", "MEMORY", "COMMAND"]);
    for p in all {
        table.row([
            p.pid.to_string(),
            p.parent.to_string(),
            p.tree.to_string(),
            p.node.to_string(),
            p.person.as_ref().map(ToString::to_string).unwrap_or_default(),
            clean(&p.state.to_string()),
            cpus(u64::from(p.cpu_milli)),
            size(p.memory_bytes),
            clean(&p.command),
        ]);
    }
    table.text(none)
}

/// A signal by name (`TERM`, `SIGTERM`) or number.
///
/// # Errors
/// What to write instead.
pub(super) fn signal(text: &str) -> Result<u8, String> {
    if let Ok(number) = text.parse::<u8>() {
        return Ok(number);
    }
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    let signal: nix::sys::signal::Signal =
        name.parse().map_err(|_| "write a signal as TERM, KILL or 15".to_owned())?;
    u8::try_from(signal as i32).map_err(|e| e.to_string())
}

/// Runs `xos cluster kill`.
pub(super) async fn kill(s: &Session, cluster: &str, pid: i32, signal: u8) -> Outcome {
    let cluster = cluster_id(s, cluster)?;
    let mut core = Asker::at(s, &site_of(s, &cluster)).await?;
    let done = core.call(s, KillTree { cluster, pid, signal }).await?;
    s.out.show(&done, || format!("Signal {signal} was sent to {pid}."))?;
    Ok(0)
}

/// Runs `xos cluster cancel`.
pub(super) async fn cancel(s: &Session, cluster: &str, tree: u64) -> Outcome {
    let cluster = cluster_id(s, cluster)?;
    let mut core = Asker::at(s, &site_of(s, &cluster)).await?;
    let done = core.call(s, CancelTree { cluster, tree }).await?;
    s.out.show(&done, || format!("Tree {tree} is ended."))?;
    Ok(0)
}

/// What `xos cluster why` tells.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    why: TreeWhy,
    /// Files that were cut back for its restarts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cut: Vec<ClusterCut>,
}

/// Runs `xos cluster why`. The exit status says whether something is in the way.
pub(super) async fn why(s: &Session, cluster: &str, pid: i32) -> Outcome {
    let cluster = cluster_id(s, cluster)?;
    let mut core = Asker::at(s, &site_of(s, &cluster)).await?;
    let why = core.call(s, WhyTree { cluster: cluster.clone(), pid }).await?;
    // One that ended meanwhile may be forgotten.
    let tree = core.call(s, GetTree { cluster, tree: why.tree }).await;
    let shown = Told { why, cut: tree.map(|t| t.cut).unwrap_or_default() };
    s.out.show(&shown, || told(&shown))?;
    Ok(u8::from(!shown.why.obstacles.is_empty()))
}

fn told(shown: &Told) -> String {
    let why = &shown.why;
    let mut text = Vec::new();
    for o in &why.obstacles {
        text.push(format!("process {}: {}", o.pid, clean(&o.what)));
        text.push(format!("  {}", clean(&o.next)));
    }
    if why.obstacles.is_empty() {
        text.push(format!("Nothing in tree {} keeps it from moving.", why.tree));
    }
    for n in &why.nodes {
        text.push(format!("not to {}: {}", n.node, clean(&n.reason)));
    }
    text.extend(cuts(&shown.cut, CUTS_SHOWN));
    text.join("\n")
}

/// Runs `xos cluster migrate`.
pub(super) async fn migrate(s: &Session, cluster: &str, pid: i32, node: &str) -> Outcome {
    let cluster = cluster_id(s, cluster)?;
    let node = node_id(node, &cluster.site())?;
    let mut core = Asker::at(s, &site_of(s, &cluster)).await?;
    let r = MigrateTree { cluster: cluster.clone(), pid, node: node.clone() };
    let begun = core.call(s, r).await?;
    let moving = |t: &ClusterTree| t.state == ClusterTreeState::Moving;
    let t = settled(s, &mut core, &cluster, begun, moving).await?;
    if t.node.as_ref() != Some(&node) {
        let why = if t.trouble.is_empty() { &t.reason } else { &t.trouble };
        return Err(Error::conflict(format!("{pid} was not moved: {}", clean(why)))
            .hint(format!("xos cluster why {cluster} {pid}"))
            .into());
    }
    s.out.show(&t, || format!("{pid} is on {node}."))?;
    Ok(0)
}

/// Runs `xos cluster checkpoint`.
pub(super) async fn checkpoint(s: &Session, cluster: &str, pid: i32) -> Outcome {
    let cluster = cluster_id(s, cluster)?;
    let mut core = Asker::at(s, &site_of(s, &cluster)).await?;
    let begun = core.call(s, CheckpointTree { cluster: cluster.clone(), pid }).await?;
    let before = begun.checkpoint.as_ref().map(|c| c.version);
    let t = settled(s, &mut core, &cluster, begun, |t| t.saving).await?;
    let Some(made) = t.checkpoint.as_ref().filter(|c| Some(c.version) != before) else {
        return Err(Error::conflict(format!(
            "no checkpoint of {pid} was made: {}",
            clean(if t.trouble.is_empty() { &t.reason } else { &t.trouble })
        ))
        .hint(format!("xos cluster why {cluster} {pid}"))
        .into());
    };
    s.out.show(&t, || {
        fields(&[
            ("checkpoint", made.version.to_string()),
            ("size", size(made.bytes)),
            ("stood still", format!("{} ms", made.freeze_ms)),
            ("nodes that have it", made.copies.to_string()),
        ])
    })?;
    Ok(0)
}

/// Runs `xos cluster restart`.
pub(super) async fn restart(
    s: &Session,
    cluster: &str,
    tree: u64,
    node: Option<&str>,
    as_is: bool,
) -> Outcome {
    let cluster = cluster_id(s, cluster)?;
    let node = node.map(|n| node_id(n, &cluster.site())).transpose()?;
    let mut core = Asker::at(s, &site_of(s, &cluster)).await?;
    let r = RestartTree { cluster: cluster.clone(), tree, node, as_is };
    let begun = core.call(s, r).await?;
    let restarting = |t: &ClusterTree| t.state == ClusterTreeState::Restarting;
    let t = settled(s, &mut core, &cluster, begun, restarting).await?;
    if t.state != ClusterTreeState::Running {
        let why = if t.trouble.is_empty() { &t.reason } else { &t.trouble };
        return Err(Error::conflict(format!("tree {tree} does not run: {}", clean(why)))
            .hint(format!(
                "when it waits for its files, put them back, or go on with them as they are: \
                 xos cluster restart {cluster} {tree} --as-is"
            ))
            .into());
    }
    let pid = t.pid.map(|pid| format!(" as pid {pid}")).unwrap_or_default();
    s.out.show(&t, || {
        let cut = cuts(&t.cut, CUTS_SHOWN).into_iter().map(|cut| format!("\n{cut}"));
        format!("Tree {tree} runs{pid}.{}", cut.collect::<String>())
    })?;
    Ok(0)
}

/// A tree once it is no more as `busy` says.
async fn settled(
    s: &Session,
    core: &mut Asker,
    cluster: &ClusterId,
    mut t: ClusterTree,
    busy: impl Fn(&ClusterTree) -> bool,
) -> Result<ClusterTree, Error> {
    for _ in 0..LOOKS_MAX {
        if !busy(&t) {
            return Ok(t);
        }
        tokio::time::sleep(LOOK_EVERY).await;
        let trees = core.call(s, ListTrees { cluster: cluster.clone() }).await?;
        let tree = t.tree;
        t = trees.into_iter().find(|t| t.tree == tree).ok_or_else(|| {
            Error::not_found(format!("tree {tree} of {cluster} is no longer known"))
        })?;
    }
    Err(Error::unavailable(format!("tree {} of {cluster} takes long", t.tree))
        .hint(format!("xos cluster ps {cluster} shows how it goes on")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, people would send another signal than they meant.
    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(signal("TERM"), Ok(15));
        assert_eq!(signal("sigkill"), Ok(9));
        assert_eq!(signal("10"), Ok(10));
        for bad in ["", "TERMINATE", "256", "-1"] {
            assert!(signal(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn nothing_in_the_way_is_said_too() {
        let why = TreeWhy { tree: 7, obstacles: Vec::new(), nodes: Vec::new() };
        let shown = Told { why, cut: Vec::new() };
        assert_eq!(told(&shown), "Nothing in tree 7 keeps it from moving.");
    }

    /// If it failed, nobody would be told where lines are that a restart cut off.
    #[test]
    fn files_that_were_cut_back_are_named() {
        let cut = |n: u32| ClusterCut {
            path: format!("/xtreemfs/demo.rennes/log{n}"),
            kept: format!("/xtreemfs/demo.rennes/log{n}.xos-cut-7-2"),
            bytes: 10,
        };
        let why = TreeWhy { tree: 7, obstacles: Vec::new(), nodes: Vec::new() };
        let shown = Told { why, cut: (0..12).map(cut).collect() };
        let text = told(&shown);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + CUTS_SHOWN + 1, "{text}");
        assert!(lines[1].contains("log11 was cut back") && lines[1].contains("log11.xos-cut-7-2"));
        assert!(lines[11].starts_with("2 more files"), "{text}");
        let json = serde_json::to_value(&shown).unwrap();
        assert_eq!(json["tree"], 7);
        assert_eq!(json["cut"].as_array().unwrap().len(), 12);
    }
}
