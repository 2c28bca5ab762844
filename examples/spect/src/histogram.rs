//! The histogram: what one unit counted, bin by bin.

use crate::camera::{ANGLES, Grid};
use crate::codec::{Fault, Reader, Writer};
use crate::phantom::{Phantom, SIZE_MAX, SIZE_MIN};
use crate::rng::{Rng, Stream};
use crate::transport;

const MAGIC: &[u8; 8] = b"SPECTHST";
const VERSION: u32 = 1;

/// Most units of one run.
pub const UNITS_MAX: u32 = 65_536;
/// Most photons of one unit; no bin can then overflow its 32 bits.
pub const PHOTONS_MAX: u64 = 4_000_000_000;
/// Largest histogram file: header, the largest sinogram, check sum.
pub const FILE_BYTES_MAX: u64 = 128 + 4 * (ANGLES * SIZE_MAX) as u64;

/// Which unit of which run a histogram belongs to. A value of this type is always valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    seed: u64,
    unit: u32,
    units: u32,
    photons: u64,
}

impl Run {
    /// Unit `unit` (from 0) of `units`, with `photons` emitted photons.
    ///
    /// # Errors
    /// [`Fault::Field`] naming the number that is out of range.
    pub fn new(seed: u64, unit: u32, units: u32, photons: u64) -> Result<Self, Fault> {
        if !(1..=UNITS_MAX).contains(&units) {
            return Err(Fault::field("units", units, "1 to 65536"));
        }
        if unit >= units {
            return Err(Fault::field("unit", unit, "0 to one less than the number of units"));
        }
        if !(1..=PHOTONS_MAX).contains(&photons) {
            return Err(Fault::field("photons", photons, "1 to 4000000000"));
        }
        Ok(Run { seed, unit, units, photons })
    }

    /// The seed that all units of the run share.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Number of this unit, from 0.
    pub fn unit(&self) -> u32 {
        self.unit
    }

    /// How many units the run has.
    pub fn units(&self) -> u32 {
        self.units
    }

    /// Photons that this unit emitted.
    pub fn photons(&self) -> u64 {
        self.photons
    }
}

/// The sinogram that one unit counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    run: Run,
    phantom: u64,
    bins: usize,
    counts: Vec<u32>,
}

impl Histogram {
    /// Simulates the unit; the result depends on the phantom and `run` only. `progress` is told
    /// the number of photons done, now and then.
    pub fn simulate(phantom: &Phantom, run: Run, progress: impl FnMut(u64)) -> Self {
        let mut rng = Rng::new(run.seed, Stream::Unit(run.unit));
        let scatters = transport::SCATTERS_MAX;
        let counts = transport::simulate(phantom, run.photons, scatters, &mut rng, progress);
        Histogram { run, phantom: phantom.digest(), bins: phantom.grid().size, counts }
    }

    /// The run and unit.
    pub fn run(&self) -> Run {
        self.run
    }

    /// Digest of the phantom that was simulated.
    pub fn phantom(&self) -> u64 {
        self.phantom
    }

    /// Detector bins per angle.
    pub fn bins(&self) -> usize {
        self.bins
    }

    /// Counts, angle by angle.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// All counts together.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// Whether this histogram has the shape that `grid` asks for.
    pub fn fits(&self, grid: Grid) -> bool {
        self.bins == grid.size
    }

    /// The same counts in a random order: a histogram that looks right and tells nothing. For
    /// tests that show that the check at the end of a run can fail.
    pub fn shuffled(mut self, seed: u64) -> Self {
        let mut rng = Rng::new(seed, Stream::Shuffle);
        for last in (1..self.counts.len()).rev() {
            self.counts.swap(last, rng.below(last as u32 + 1) as usize);
        }
        self
    }

    /// The histogram as a file.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC, VERSION);
        writer.u64(self.phantom);
        writer.u64(self.run.seed);
        writer.u32(self.run.unit);
        writer.u32(self.run.units);
        writer.u64(self.run.photons);
        writer.u32(ANGLES as u32);
        writer.u32(self.bins as u32);
        for count in &self.counts {
            writer.u32(*count);
        }
        writer.finish()
    }

    /// Reads a histogram file.
    ///
    /// # Errors
    /// The first [`Fault`] found.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let mut reader = Reader::open(bytes, MAGIC, VERSION)?;
        let (phantom, seed) = (reader.u64(), reader.u64());
        let (unit, units, photons) = (reader.u32(), reader.u32(), reader.u64());
        let (angles, bins) = (reader.u32(), reader.u32());
        if angles != ANGLES as u32 {
            return Err(Fault::field("angles", angles, "60 in this version"));
        }
        if !(SIZE_MIN as u32..=SIZE_MAX as u32).contains(&bins) {
            return Err(Fault::field("bins", bins, "16 to 128"));
        }
        let bins = bins as usize;
        let counts: Vec<u32> =
            reader.body(ANGLES * bins)?.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let run = Run::new(seed, unit, units, photons)?;
        let histogram = Histogram { run, phantom, bins, counts };
        if histogram.total() > photons {
            return Err(Fault::field("counts", histogram.total(), "at most one per photon"));
        }
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seed: u64, unit: u32) -> Histogram {
        let phantom = Phantom::design(16, 1).unwrap();
        Histogram::simulate(&phantom, Run::new(seed, unit, 4, 4_000).unwrap(), |_| {})
    }

    /// A unit that is run again after a crash must give the same bytes.
    #[test]
    fn same_unit_same_bytes() {
        assert_eq!(sample(5, 1).encode(), sample(5, 1).encode());
        assert_ne!(sample(5, 1).counts(), sample(5, 2).counts());
        assert_ne!(sample(5, 1).counts(), sample(6, 1).counts());
    }

    /// What is read must be what was written.
    #[test]
    fn file_round_trip() {
        let histogram = sample(5, 3);
        let bytes = histogram.encode();
        assert!(bytes.len() as u64 <= FILE_BYTES_MAX);
        assert_eq!(Histogram::decode(&bytes).unwrap(), histogram);
    }

    /// Shuffling must keep the counts and lose their order, or it would test nothing.
    #[test]
    fn shuffle_permutes() {
        let (before, after) = (sample(1, 0), sample(1, 0).shuffled(9));
        assert_ne!(before.counts(), after.counts());
        let sorted = |histogram: &Histogram| {
            let mut counts = histogram.counts().to_vec();
            counts.sort_unstable();
            counts
        };
        assert_eq!(sorted(&before), sorted(&after));
    }

    /// Damage must be refused, never counted and never a panic.
    #[test]
    fn damaged_files_are_refused() {
        let bytes = sample(1, 0).encode();
        for length in 0..bytes.len() {
            assert!(Histogram::decode(&bytes[..length]).is_err(), "cut to {length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Histogram::decode(&bad).is_err(), "bit {bit}");
        }
    }

    /// A right check sum proves no right content: every header word is tried with bad values.
    #[test]
    fn well_summed_nonsense_never_panics() {
        let bytes = sample(1, 0).encode();
        let resum = |mut file: Vec<u8>| {
            let end = file.len() - 4;
            let crc = crc32fast::hash(&file[..end]);
            file[end..].copy_from_slice(&crc.to_le_bytes());
            Histogram::decode(&file)
        };
        for word in (28..52).step_by(4) {
            for value in [0, 1, 15, 17, 1_000, u32::MAX / 2, u32::MAX] {
                let mut bad = bytes.clone();
                bad[word..word + 4].copy_from_slice(&value.to_le_bytes());
                if let Ok(read) = resum(bad) {
                    assert!(read.run().unit() < read.run().units());
                    assert!(read.total() <= read.run().photons());
                }
            }
        }
        let mut overfull = bytes.clone();
        overfull[60..64].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(resum(overfull), Err(Fault::Field { field: "counts", .. })));
    }
}
