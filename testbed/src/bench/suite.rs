//! What all suites share.

use super::Progress;
use super::figure::Figure;
use super::samples::Samples;
use super::within::Timing;
use crate::{Error, Result};
use std::path::PathBuf;

/// Bytes in a megabyte.
const MB: f64 = 1e6;

/// Where a suite runs, and how often it measures.
#[derive(Clone, Debug)]
pub struct Run {
    /// The folder in which a folder for the run is made: its disk holds all state.
    pub dir: PathBuf,
    /// This program; the others of the workspace are beside it.
    pub program: PathBuf,
    /// Repetitions of what takes long.
    pub repetitions: usize,
    /// Whether peers that are installed run too.
    pub peers: bool,
}

/// The figures of a suite.
pub(super) struct Sheet<'a> {
    pub(super) say: Progress<'a>,
    pub(super) figures: Vec<Figure>,
    repetitions: usize,
}

impl<'a> Sheet<'a> {
    /// Without figures yet. What happens meanwhile goes to `say`, each measurement's extremes too.
    pub(super) fn new(run: &Run, say: Progress<'a>) -> Sheet<'a> {
        Sheet { say, figures: Vec::new(), repetitions: run.repetitions }
    }

    /// A figure more, of these samples.
    pub(super) fn add(&mut self, figure: Figure, samples: &Samples) {
        (self.say)(&format!("{}, {}: {samples}", figure.name, figure.unit));
        self.figures.push(figure);
    }

    /// What takes long, as often as the run says.
    pub(super) fn repeat(&self, once: impl FnMut() -> Result<f64>) -> Result<Samples> {
        let values = std::iter::repeat_with(once).take(self.repetitions);
        Ok(Samples::new(values.collect::<Result<_>>()?))
    }
}

/// Brings what ran before to the disk, and lets the kernel forget it: else who comes later pays for
/// it. (ext4 without a journal passes over inodes that were freed lately, while it remembers them;
/// control groups that are gone count on while pages of theirs stay.)
pub(super) fn even_start() -> Result<()> {
    rustix::fs::sync();
    let path = "/proc/sys/vm/drop_caches";
    std::fs::write(path, "1").map_err(|source| Error::System { what: path.to_owned(), source })
}

/// One value.
pub(super) fn one(value: f64) -> Samples {
    Samples::new(vec![value])
}

#[allow(clippy::cast_precision_loss)]
pub(super) fn bytes_mb(bytes: u64) -> f64 {
    bytes as f64 / MB
}

#[allow(clippy::cast_precision_loss)]
pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// How long each run took.
pub(super) fn millis(timing: &Timing) -> Samples {
    Samples::new(timing.each_ns.iter().map(|&ns| seconds(ns) * 1e3).collect())
}

/// How many runs ended in a second.
#[allow(clippy::cast_precision_loss)]
pub(super) fn per_second(timing: &Timing) -> f64 {
    timing.each_ns.len() as f64 / seconds(timing.total_ns)
}
