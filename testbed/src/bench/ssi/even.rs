//! Programs that are all on some nodes at first, and how even they are after a minute.

use super::cluster::{Cluster, HOG};
use crate::Result;
use crate::bench::figure::{Figure, Reach};
use crate::bench::suite::{Sheet, one};
use crate::bench::{failed, machine};
use std::collections::BTreeMap;
use std::time::Duration;
use xos_api::cluster::{ClusterTree, ClusterTreeState};

/// Nodes, and of these, how many have all programs at first.
pub(super) const NODES: usize = 8;
const LADEN: usize = 4;
/// Programs that want a processor each.
const HOGS: usize = 64;
/// How long the cluster has from the start of the last one on.
const WAIT: Duration = Duration::from_secs(60);
/// Most that a node may differ from an even share, in percent.
const MOST_PERCENT: f64 = 15.0;

pub(super) fn measure(cluster: &Cluster, sheet: &mut Sheet) -> Result<()> {
    let hog = [HOG.as_slice(), &["--label", "even"]].concat();
    for n in 0..HOGS {
        cluster.begin(&format!("n{}", n % LADEN + 1), &[], &hog)?;
    }
    (sheet.say)(&format!("{HOGS} hogs are on {LADEN} of {NODES} nodes; load {}", machine::load()?));
    std::thread::sleep(WAIT);
    let trees = cluster.trees()?;
    let counts = counts(&trees);
    (sheet.say)(&format!("after {} s: {counts:?}", WAIT.as_secs()));
    let all: usize = counts.values().sum();
    if all != HOGS {
        return Err(failed("evening out", format!("{all} of {HOGS} programs run")));
    }
    let off = one(deviation(&counts.into_values().collect::<Vec<_>>(), NODES));
    let name = format!(
        "{HOGS} hogs begun on {LADEN} of {NODES} nodes: off an even share after {} s",
        WAIT.as_secs()
    );
    sheet.add(Figure::new(name, &off, "%").reach(Reach::AtMost(MOST_PERCENT)), &off);
    Ok(())
}

/// How many programs each node has that has any.
fn counts(trees: &[ClusterTree]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for tree in trees {
        let runs = matches!(tree.state, ClusterTreeState::Running | ClusterTreeState::Moving);
        if let (true, Some(node)) = (runs, &tree.node) {
            *counts.entry(node.to_string()).or_default() += 1;
        }
    }
    counts
}

/// The most by which one of so many nodes differs from an even share, in percent of that. Nodes
/// that are not among the counts have none.
fn deviation(counts: &[usize], nodes: usize) -> f64 {
    let number = |n: usize| u32::try_from(n).map_or(f64::INFINITY, f64::from);
    let share = number(counts.iter().sum()) / number(nodes);
    let empty = nodes > counts.len();
    let all = counts.iter().copied().chain(empty.then_some(0));
    all.map(|n| (number(n) - share).abs() / share * 100.0).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a node that got nothing, or too much, would not be seen.
    #[test]
    fn the_node_that_is_furthest_off_counts() {
        assert_eq!(deviation(&[8; 8], 8), 0.0);
        assert_eq!(deviation(&[7, 9, 8, 8, 8, 8, 8, 8], 8), 12.5);
        assert_eq!(deviation(&[10, 6, 8, 8, 8, 8, 8, 8], 8), 25.0);
        assert_eq!(deviation(&[32, 32], 8), 300.0);
        assert_eq!(deviation(&[9, 9, 9, 9, 9, 9, 10], 8), 100.0);
    }
}
