//! A node's agent that has nothing to do.

use super::cluster::Cluster;
use crate::Result;
use crate::bench::figure::{Figure, Reach};
use crate::bench::memory::{processor_seconds, resident};
use crate::bench::samples::Samples;
use crate::bench::suite::{Sheet, bytes_mb};
use std::time::{Duration, Instant};

/// The agent's program, as the kernel names its processes.
const AGENT: &str = "xos-agent";
/// For how long it is watched.
const WATCHED: Duration = Duration::from_secs(20);

pub(super) fn measure(cluster: &Cluster, sheet: &mut Sheet) -> Result<()> {
    let nodes = &cluster.world.site.nodes;
    let used = || nodes.iter().map(|n| processor_seconds(n, AGENT)).collect::<Result<Vec<f64>>>();
    let (begin, before) = (Instant::now(), used()?);
    std::thread::sleep(WATCHED);
    let (after, seconds) = (used()?, begin.elapsed().as_secs_f64());
    let share = before.iter().zip(&after).map(|(before, after)| (after - before) / seconds * 100.0);
    let share = Samples::new(share.collect());
    let figure = Figure::new("a node's agent without programs: of one processor", &share, "%");
    sheet.add(figure.reach(Reach::AtMost(1.0)), &share);
    let memory: Result<Vec<f64>> = nodes.iter().map(|n| resident(n, AGENT).map(bytes_mb)).collect();
    let memory = Samples::new(memory?);
    let figure = Figure::new("  its memory", &memory, "MB");
    sheet.add(figure.reach(Reach::AtMost(50.0)), &memory);
    Ok(())
}
