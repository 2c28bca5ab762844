//! A program whose node is killed: how long until it runs elsewhere, from its checkpoint.

use super::cluster::{CLUSTER, Cluster, HOG};
use super::{SOON, until};
use crate::Result;
use crate::bench::failed;
use crate::bench::figure::{Figure, Reach};
use crate::bench::suite::Sheet;
use std::time::Instant;
use xos_api::cluster::{ClusterTree, ClusterTreeState};

/// The node that is killed.
const NODE: &str = "n3";
/// How many nodes have the checkpoint before.
const COPIES: u32 = 2;

pub(super) fn measure(cluster: &Cluster, sheet: &mut Sheet) -> Result<()> {
    let seconds = sheet.repeat(|| once(cluster))?;
    let name = "a node killed with all that it runs: until its program runs elsewhere";
    sheet.add(Figure::new(name, &seconds, "s").reach(Reach::AtMost(10.0)), &seconds);
    Ok(())
}

/// From the kill until `xos cluster ps` shows the program as running elsewhere, in seconds. The
/// node is back afterwards.
fn once(cluster: &Cluster) -> Result<f64> {
    let site = &cluster.world.site;
    let label = format!("{}-{NODE}", site.name);
    let host = site.nodes.iter().find(|node| node.name().as_str() == label);
    let host = host.ok_or_else(|| failed("killing a node", format!("there is no {label}")))?;
    let hog = [HOG.as_slice(), &["--label", "restarted"]].concat();
    let number = cluster.begin(NODE, &["--restartable", "--checkpoint-every", "3600"], &hog)?;
    let running = |t: &ClusterTree| t.state == ClusterTreeState::Running;
    let pid = until("the program", SOON, || {
        let tree = cluster.tree(number)?;
        Ok(tree.pid.filter(|_| running(&tree)))
    })?;
    cluster.xos(&["cluster", "checkpoint", CLUSTER, &pid.to_string()])?;
    let from = until("copies of its checkpoint", SOON, || {
        let tree = cluster.tree(number)?;
        let safe = tree.checkpoint.is_some_and(|c| c.copies >= COPIES);
        Ok(tree.node.filter(|_| safe))
    })?;
    let begin = Instant::now();
    host.crash()?;
    let until_it_runs = until("the program elsewhere", SOON, || {
        let tree = cluster.tree(number)?;
        let elsewhere = tree.node.as_ref().is_some_and(|node| *node != from);
        Ok((running(&tree) && elsewhere).then(|| begin.elapsed().as_secs_f64()))
    })?;
    cluster.cancel(number)?;
    host.restart()?;
    site.start_node(host)?;
    cluster.wait()?;
    Ok(until_it_runs)
}
