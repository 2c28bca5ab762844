//! Puts the histograms of a run together and refuses what does not belong to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::camera::{ANGLES, Grid};
use crate::histogram::{Histogram, Run, UNITS_MAX};
use crate::phantom::Phantom;

/// Most missing units that an error lists by number.
const MISSING_LISTED: usize = 12;

/// Why histograms cannot be summed. The person must supply other files or run a unit again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// Simulated from another phantom.
    #[error(
        "{}: this histogram was simulated from another phantom; give the phantom that the units \
         used, or simulate again", path.display()
    )]
    OtherPhantom {
        /// The histogram's file.
        path: PathBuf,
    },
    /// Another seed, number of units or of photons than the first file.
    #[error(
        "{}: this histogram belongs to another run: its {what} is {found}, that of {} is {expected}",
        path.display(), first.display()
    )]
    OtherRun {
        /// The histogram's file.
        path: PathBuf,
        /// The first histogram's file.
        first: PathBuf,
        /// Which number differs.
        what: &'static str,
        /// The number in this file.
        found: u64,
        /// The number in the first file.
        expected: u64,
    },
    /// One unit came twice.
    #[error(
        "{}: unit {unit} is already there from {}; leave one of the two out",
        path.display(), first.display()
    )]
    Twice {
        /// The later file.
        path: PathBuf,
        /// The earlier file.
        first: PathBuf,
        /// The unit.
        unit: u32,
    },
    /// The run has another number of units than the person expects.
    #[error(
        "{}: this histogram is of a run of {found} units, but --expect says {expected}",
        path.display()
    )]
    OtherCount {
        /// The first histogram's file.
        path: PathBuf,
        /// Units of the run.
        found: u32,
        /// Units asked for.
        expected: u32,
    },
    /// Units without a file.
    #[error("{count} of {units} histograms are missing: unit {listed}; run these units again")]
    Missing {
        /// How many.
        count: usize,
        /// Units of the run.
        units: u32,
        /// The first of them by number.
        listed: String,
    },
    /// No histogram at all.
    #[error("there is no histogram to merge; give the files (*.hist) or the folder they lie in")]
    Nothing,
}

/// The sum of all units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sinogram {
    /// Counts, angle by angle.
    pub counts: Vec<u64>,
    /// The seed of the run.
    pub seed: u64,
    /// Units of the run.
    pub units: u32,
    /// Photons that all units emitted together.
    pub photons: u64,
}

/// Takes histograms one after the other.
#[derive(Debug)]
pub struct Merger {
    grid: Grid,
    phantom: u64,
    first: Option<(PathBuf, Run)>,
    seen: BTreeMap<u32, PathBuf>,
    counts: Vec<u64>,
}

impl Merger {
    /// For histograms of this phantom.
    pub fn new(phantom: &Phantom) -> Self {
        Merger {
            grid: phantom.grid(),
            phantom: phantom.digest(),
            first: None,
            seen: BTreeMap::new(),
            counts: vec![0; ANGLES * phantom.grid().size],
        }
    }

    /// Adds one histogram; `path` is for error messages.
    ///
    /// # Errors
    /// [`MergeError`] when it is of another phantom or run, or its unit is already there.
    pub fn add(&mut self, path: &Path, histogram: &Histogram) -> Result<(), MergeError> {
        if histogram.phantom() != self.phantom || !histogram.fits(self.grid) {
            return Err(MergeError::OtherPhantom { path: path.to_owned() });
        }
        let run = histogram.run();
        let (first, expected) = self.first.get_or_insert_with(|| (path.to_owned(), run));
        for (what, found, expected) in [
            ("seed", run.seed(), expected.seed()),
            ("number of units", u64::from(run.units()), u64::from(expected.units())),
            ("number of photons", run.photons(), expected.photons()),
        ] {
            if found != expected {
                let (path, first) = (path.to_owned(), first.clone());
                return Err(MergeError::OtherRun { path, first, what, found, expected });
            }
        }
        if let Some(first) = self.seen.insert(run.unit(), path.to_owned()) {
            return Err(MergeError::Twice { path: path.to_owned(), first, unit: run.unit() });
        }
        for (sum, count) in self.counts.iter_mut().zip(histogram.counts()) {
            *sum += u64::from(*count);
        }
        Ok(())
    }

    /// The sum, when every unit of the run is there.
    ///
    /// # Errors
    /// [`MergeError`] when there is none, a unit is missing, or the run has another number of
    /// units than `expect`.
    pub fn finish(self, expect: Option<u32>) -> Result<Sinogram, MergeError> {
        let (path, run) = self.first.ok_or(MergeError::Nothing)?;
        let units = run.units().min(UNITS_MAX);
        if let Some(expected) = expect.filter(|expected| *expected != units) {
            return Err(MergeError::OtherCount { path, found: units, expected });
        }
        let missing: Vec<String> = (0..units)
            .filter(|unit| !self.seen.contains_key(unit))
            .map(|unit| unit.to_string())
            .collect();
        if !missing.is_empty() {
            let more = if missing.len() > MISSING_LISTED { ", ..." } else { "" };
            let shown = missing[..missing.len().min(MISSING_LISTED)].join(", ");
            let listed = format!("{shown}{more}");
            return Err(MergeError::Missing { count: missing.len(), units, listed });
        }
        let photons = run.photons() * u64::from(units);
        Ok(Sinogram { counts: self.counts, seed: run.seed(), units, photons })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(phantom: &Phantom, seed: u64, unit: u32, units: u32, photons: u64) -> Histogram {
        Histogram::simulate(phantom, Run::new(seed, unit, units, photons).unwrap(), |_| {})
    }

    /// A file of another run, a second copy or a gap would give a wrong picture without a word.
    #[test]
    fn refuses_what_does_not_belong() {
        let (phantom, other) = (Phantom::design(16, 1).unwrap(), Phantom::design(16, 2).unwrap());
        let mut merger = Merger::new(&phantom);
        let mut add = |name: &str, histogram: Histogram| merger.add(Path::new(name), &histogram);
        let stranger = add("a", unit(&other, 1, 0, 3, 100)).unwrap_err();
        assert_eq!(stranger, MergeError::OtherPhantom { path: "a".into() });
        add("b", unit(&phantom, 1, 0, 3, 100)).unwrap();
        for (histogram, word) in [
            (unit(&phantom, 2, 1, 3, 100), "seed"),
            (unit(&phantom, 1, 1, 4, 100), "number of units"),
            (unit(&phantom, 1, 1, 3, 101), "number of photons"),
        ] {
            match add("c", histogram).unwrap_err() {
                MergeError::OtherRun { what, path, first, .. } => {
                    assert_eq!((what, path, first), (word, "c".into(), "b".into()));
                }
                other => panic!("{other}"),
            }
        }
        let twice = add("d", unit(&phantom, 1, 0, 3, 100)).unwrap_err();
        assert_eq!(
            twice.to_string(),
            "d: unit 0 is already there from b; leave one of the two out"
        );
        let missing = merger.finish(None).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "2 of 3 histograms are missing: unit 1, 2; run these units again"
        );
        assert_eq!(Merger::new(&phantom).finish(None), Err(MergeError::Nothing));
    }

    /// The sum must hold every count once, whatever the order.
    #[test]
    fn sums_in_any_order() {
        let phantom = Phantom::design(16, 1).unwrap();
        let sum = |order: [u32; 3], expect| {
            let mut merger = Merger::new(&phantom);
            for k in order {
                merger.add(Path::new("x"), &unit(&phantom, 1, k, 3, 2_000)).unwrap();
            }
            merger.finish(expect)
        };
        let forward = sum([0, 1, 2], Some(3)).unwrap();
        assert_eq!(forward, sum([2, 0, 1], None).unwrap());
        let total: u64 = (0..3).map(|k| unit(&phantom, 1, k, 3, 2_000).total()).sum();
        assert_eq!(forward.counts.iter().sum::<u64>(), total);
        assert_eq!(forward.photons, 6_000);
        assert!(matches!(
            sum([0, 1, 2], Some(4)),
            Err(MergeError::OtherCount { found: 3, expected: 4, .. })
        ));
    }
}
