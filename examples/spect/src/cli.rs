//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use spect::histogram::{PHOTONS_MAX, UNITS_MAX};
use spect::phantom::{SIZE_MAX, SIZE_MIN};
use spect::recon::{ITERATIONS, ITERATIONS_MAX};

const HELP: &str = "\
Exit codes:
  0  done
  1  the system refused: a file cannot be read or written
  2  wrong use: bad arguments, or a file that is damaged or does not belong to the run
  3  merge: the correlation is below --min-correlation

Examples:
  spect phantom body.spect --png body.png
  spect simulate --phantom body.spect --unit 0 --units 2 --out hist/
  spect simulate --phantom body.spect --unit 1 --units 2 --out hist/
  spect merge --phantom body.spect --out slice.png --min-correlation 0.9 hist/";

/// Simulate a SPECT camera photon by photon and reconstruct the slice it saw.
#[derive(Debug, Parser)]
#[command(name = "spect", version, after_help = HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a phantom: the slice of a body with hot and cold inserts
    Phantom(Phantom),
    /// Run one unit: emit photons, count those that the camera sees
    Simulate(Simulate),
    /// Sum the histograms of all units, reconstruct the slice, compare it with the phantom
    Merge(Merge),
    /// Permute a histogram's bins, to show that a wrong histogram is noticed
    Shuffle(Shuffle),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  spect phantom body.spect --size 64 --seed 7 --png body.png")]
pub(crate) struct Phantom {
    /// The phantom file to write
    pub(crate) out: PathBuf,
    /// Pixels along each side (16 to 128)
    #[arg(long, default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(SIZE_MIN as i64..=SIZE_MAX as i64))]
    pub(crate) size: u32,
    /// Varies places, sizes and activities of the inserts
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Also draw the activity as a picture
    #[arg(long, value_name = "FILE")]
    pub(crate) png: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Units of one run share --seed, --units and --photons; each has its own random numbers. The same
unit gives the same bytes whenever and wherever it runs, so it can safely be run again.

Examples:
  spect simulate --phantom body.spect --unit 3 --units 16 --out unit-3.hist
  xsub --array 0-15 -- spect simulate --phantom body.spect --out hist/
                     (the unit comes from XOS_UNIT_INDEX, their number from XOS_UNIT_COUNT)")]
pub(crate) struct Simulate {
    /// The phantom file
    #[arg(long, value_name = "FILE")]
    pub(crate) phantom: PathBuf,
    /// Number of this unit, from 0
    #[arg(long, env = "XOS_UNIT_INDEX", value_parser = clap::value_parser!(u32).range(..UNITS_MAX as i64))]
    pub(crate) unit: u32,
    /// How many units the run has (at most 65536)
    #[arg(long, env = "XOS_UNIT_COUNT",
          value_parser = clap::value_parser!(u32).range(1..=UNITS_MAX as i64))]
    pub(crate) units: u32,
    /// Photons that this unit emits (at most 4000000000)
    #[arg(long, default_value_t = 5_000_000,
          value_parser = clap::value_parser!(u64).range(1..=PHOTONS_MAX))]
    pub(crate) photons: u64,
    /// Seed of the run, the same for all units
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The histogram file to write, or a folder (ending with /) for unit-NNNNN.hist
    #[arg(long, value_name = "HIST")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The picture shows the true activity on the left and the reconstruction on the right.

Examples:
  spect merge --phantom body.spect --out slice.png hist/
  spect merge --phantom body.spect --out slice.png --expect 16 --min-correlation 0.9 \\
      --json result.json hist/*.hist")]
pub(crate) struct Merge {
    /// Histogram files, or folders of *.hist files
    #[arg(required = true, value_name = "HIST")]
    pub(crate) histograms: Vec<PathBuf>,
    /// The phantom that the units used
    #[arg(long, value_name = "FILE")]
    pub(crate) phantom: PathBuf,
    /// The picture to write
    #[arg(long, value_name = "PNG")]
    pub(crate) out: PathBuf,
    /// Refuse a run that does not have this many units
    #[arg(long, value_name = "UNITS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) expect: Option<u32>,
    /// Iterations of the reconstruction (1 to 1000)
    #[arg(long, default_value_t = ITERATIONS,
          value_parser = clap::value_parser!(u32).range(1..=ITERATIONS_MAX as i64))]
    pub(crate) iterations: u32,
    /// End with exit code 3 when the correlation with the true slice is below this (-1 to 1)
    #[arg(long, value_name = "R", value_parser = correlation, allow_negative_numbers = true)]
    pub(crate) min_correlation: Option<f64>,
    /// Also write the result as JSON; - writes it to standard output instead of the text
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  spect shuffle unit-3.hist wrong-3.hist --seed 5")]
pub(crate) struct Shuffle {
    /// The histogram to read
    pub(crate) histogram: PathBuf,
    /// The histogram to write
    pub(crate) out: PathBuf,
    /// Chooses the permutation
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

fn correlation(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (-1.0..=1.0).contains(&value) => Ok(value),
        _ => Err("give a number from -1 to 1, such as 0.9".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A contradiction in the definitions would otherwise show only when a person types it.
    #[test]
    fn definitions_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    /// NaN compares as neither below nor above: as a limit it would let everything pass.
    #[test]
    fn correlation_must_be_a_number_in_range() {
        assert_eq!(correlation("0.9"), Ok(0.9));
        for bad in ["NaN", "2", "-1.1", "inf", "", "0,9"] {
            assert!(correlation(bad).is_err(), "{bad}");
        }
    }
}
