//! The suite `ssi`: nodes that work as one machine.
//!
//! A part that cannot run on this machine says why and is left out; the others go on.

mod build;
mod cluster;
mod even;
mod freeze;
mod idle;
mod inside;
mod moves;
mod recover;
mod start;

pub use inside::{Starts, hog, sources, starts, still};

use super::figure::Figure;
use super::machine::{load, processors};
use super::suite::{Run, Sheet, even_start};
use super::{Progress, scratch};
use crate::{Error, Result};
use cluster::{Cluster, Size};
use std::time::{Duration, Instant};

/// How often it is looked whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long what a cluster does by itself may take.
const SOON: Duration = Duration::from_secs(60);
/// Nodes of the cluster in which most parts run.
const NODES: usize = 3;

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SsiPart {
    /// A node's agent that has nothing to do.
    Idle,
    /// A program started on another node.
    Start,
    /// How long programs stand still for checkpoints and moves.
    Freeze,
    /// Many moves of programs that work.
    Moves,
    /// A program restarted after its node failed.
    Recover,
    /// Programs evened out over nodes by themselves.
    Even,
    /// A build with make on several nodes.
    Build,
}

/// What is measured, and how often.
#[derive(Clone, Debug)]
pub struct SsiOptions {
    /// Where, and how often.
    pub run: Run,
    /// The parts to be measured; none: all.
    pub parts: Vec<SsiPart>,
}

/// Runs the suite. What happens meanwhile goes to `say`, each measurement's extremes too.
///
/// # Errors
/// When a grid with a cluster cannot be started.
pub fn run(options: &SsiOptions, say: Progress) -> Result<Vec<Figure>> {
    let run = &options.run;
    let wants = |part: SsiPart| options.parts.is_empty() || options.parts.contains(&part);
    let mut sheet = Sheet::new(run, say);
    let few = [SsiPart::Idle, SsiPart::Start, SsiPart::Freeze, SsiPart::Moves, SsiPart::Recover];
    let few: Vec<SsiPart> = few.into_iter().filter(|part| wants(*part)).collect();
    if !few.is_empty() {
        let size = Size { nodes: NODES, limit_milli: None, balance: false };
        in_cluster(run, &size, &few, &mut sheet)?;
    }
    if wants(SsiPart::Even) {
        let size = Size { nodes: even::NODES, limit_milli: None, balance: true };
        in_cluster(run, &size, &[SsiPart::Even], &mut sheet)?;
    }
    if wants(SsiPart::Build) {
        // All nodes together have the machine, so that four of them could be four times one.
        let share = u32::try_from(processors() * 1000 / build::NODES).unwrap_or(u32::MAX);
        let size = Size { nodes: build::NODES, limit_milli: Some(share), balance: false };
        in_cluster(run, &size, &[SsiPart::Build], &mut sheet)?;
    }
    (sheet.say)(&format!("load at the end {}", load()?));
    Ok(sheet.figures)
}

/// Measures these parts in a cluster of their own, which has ended afterwards.
fn in_cluster(run: &Run, size: &Size, parts: &[SsiPart], sheet: &mut Sheet) -> Result<()> {
    even_start()?;
    let scratch = scratch(&run.dir)?;
    let cluster = Cluster::start(&scratch.path().join("grid"), run, size, sheet.say)?;
    for part in parts {
        let measured = match part {
            SsiPart::Idle => idle::measure(&cluster, sheet),
            SsiPart::Start => start::measure(run, &cluster, sheet),
            SsiPart::Freeze => freeze::measure(run, &cluster, sheet),
            SsiPart::Moves => moves::measure(&cluster, sheet),
            SsiPart::Recover => recover::measure(&cluster, sheet),
            SsiPart::Even => even::measure(&cluster, sheet),
            SsiPart::Build => build::measure(&cluster, sheet),
        };
        if let Err(error) = measured {
            (sheet.say)(&format!("LEFT OUT, the rest of the part {part:?}: {error}"));
        }
        if let Err(error) = cluster.clear() {
            (sheet.say)(&format!("programs of the part {part:?} are still there: {error}"));
        }
    }
    Ok(())
}

/// Waits until `test` answers something, looking again and again.
///
/// # Errors
/// [`Error::Deadline`] naming `what`, or what `test` says.
fn until<T>(what: &str, limit: Duration, mut test: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = test()? {
            return Ok(found);
        }
        if begin.elapsed() > limit {
            return Err(Error::Deadline { what: what.to_owned(), limit });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
