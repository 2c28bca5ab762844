//! The phantom: where the activity is and how strongly the tissue attenuates.

use crate::camera::Grid;
use crate::codec::{self, Fault, Reader, Writer};
use crate::rng::{Rng, Stream};

const MAGIC: &[u8; 8] = b"SPECTPHN";
const VERSION: u32 = 1;

/// Fewest pixels along a side.
pub const SIZE_MIN: usize = 16;
/// Most pixels along a side; bounds the memory of the reconstruction.
pub const SIZE_MAX: usize = 128;
/// Largest phantom file: header, two arrays of the largest size, check sum.
pub const FILE_BYTES_MAX: u64 = 64 + 2 * 4 * (SIZE_MAX * SIZE_MAX) as u64;

/// Field of view of a designed phantom.
const VIEW_MM: f64 = 320.0;
/// Semi-axes of the body.
const BODY_MM: (f64, f64) = (132.0, 104.0);
/// Attenuation of water at 140 keV, per mm.
const MU_WATER: f64 = 0.0154;
/// Attenuation of the bone-like insert, per mm.
const MU_BONE: f64 = 0.025;
/// Points per pixel and direction over which a designed pixel is averaged.
const SUBSAMPLES: usize = 4;

/// Activity and attenuation of one slice. A value of this type is always valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Phantom {
    size: usize,
    pixel_mm: f32,
    activity: Vec<f32>,
    mu: Vec<f32>,
}

impl Phantom {
    /// A phantom from its arrays, row by row from the top. `activity` is relative; `mu` is the
    /// attenuation at 140.5 keV per mm.
    ///
    /// # Errors
    /// [`Fault::Field`] when a size, a pixel or a total is out of range, or something lies outside
    /// the circular field of view, where the camera would run into it.
    pub fn new(
        size: usize,
        pixel_mm: f32,
        activity: Vec<f32>,
        mu: Vec<f32>,
    ) -> Result<Self, Fault> {
        if !(SIZE_MIN..=SIZE_MAX).contains(&size) {
            return Err(Fault::field("width", size, "16 to 128"));
        }
        if !(0.1..=100.0).contains(&pixel_mm) {
            return Err(Fault::field("pixel_mm", pixel_mm, "0.1 to 100"));
        }
        let phantom = Phantom { size, pixel_mm, activity, mu };
        phantom.check_values()?;
        Ok(phantom)
    }

    fn check_values(&self) -> Result<(), Fault> {
        let grid = self.grid();
        for (field, values, max, allowed) in [
            ("activity", &self.activity, 1e6, "0 to 1000000 in each pixel"),
            ("attenuation", &self.mu, 1.0, "0 to 1 per mm in each pixel"),
        ] {
            if values.len() != grid.pixels() {
                return Err(Fault::field(field, values.len(), "one value per pixel"));
            }
            if let Some(bad) = values.iter().find(|v| !(0.0..=max).contains(*v)) {
                return Err(Fault::field(field, bad, allowed));
            }
            if let Some((_, bad)) =
                values.iter().enumerate().find(|(pixel, v)| **v > 0.0 && !grid.in_view(*pixel))
            {
                return Err(Fault::field(field, bad, "0 outside the circular field of view"));
            }
        }
        let total: f64 = self.activity.iter().map(|v| f64::from(*v)).sum();
        if total < 1e-6 {
            return Err(Fault::field("activity", total, "a total of 0.000001 or more"));
        }
        Ok(())
    }

    /// Our own design in the manner of the Jaszczak phantom: an elliptical body of water with
    /// evenly spread activity, a bone-like insert, and six round inserts in a ring, hot and cold by
    /// turns, whose places, radii and activities vary with `seed`.
    ///
    /// # Errors
    /// [`Fault::Field`] when `size` is out of range.
    pub fn design(size: usize, seed: u64) -> Result<Self, Fault> {
        if !(SIZE_MIN..=SIZE_MAX).contains(&size) {
            return Err(Fault::field("width", size, "16 to 128"));
        }
        let pixel_mm = VIEW_MM / size as f64;
        let grid = Grid { size, pixel_mm };
        let layout = Layout::draw(&mut Rng::new(seed, Stream::Design));
        let mut activity = vec![0.0; grid.pixels()];
        let mut mu = vec![0.0; grid.pixels()];
        let points = (SUBSAMPLES * SUBSAMPLES) as f64;
        for pixel in (0..grid.pixels()).filter(|pixel| grid.in_view(*pixel)) {
            let (x, y) = grid.centre(pixel);
            let offset = |k: usize| ((k as f64 + 0.5) / SUBSAMPLES as f64 - 0.5) * pixel_mm;
            let (mut a, mut m) = (0.0, 0.0);
            for k in 0..SUBSAMPLES * SUBSAMPLES {
                let here = layout.at(x + offset(k % SUBSAMPLES), y + offset(k / SUBSAMPLES));
                a += here.0;
                m += here.1;
            }
            activity[pixel] = (a / points) as f32;
            mu[pixel] = (m / points) as f32;
        }
        Phantom::new(size, pixel_mm as f32, activity, mu)
    }

    /// The grid of the slice.
    pub fn grid(&self) -> Grid {
        Grid { size: self.size, pixel_mm: f64::from(self.pixel_mm) }
    }

    /// Relative activity of each pixel.
    pub fn activity(&self) -> &[f32] {
        &self.activity
    }

    /// Attenuation at 140.5 keV of each pixel, per mm.
    pub fn mu(&self) -> &[f32] {
        &self.mu
    }

    /// The phantom as a file.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC, VERSION);
        writer.u32(self.size as u32);
        writer.u32(self.size as u32);
        writer.u32(1);
        writer.f32(self.pixel_mm);
        for value in self.activity.iter().chain(&self.mu) {
            writer.f32(*value);
        }
        writer.finish()
    }

    /// Reads a phantom file.
    ///
    /// # Errors
    /// The first [`Fault`] found.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let mut reader = Reader::open(bytes, MAGIC, VERSION)?;
        let (width, height, slices) = (reader.u32(), reader.u32(), reader.u32());
        let pixel_mm = reader.f32();
        if !(SIZE_MIN as u32..=SIZE_MAX as u32).contains(&width) {
            return Err(Fault::field("width", width, "16 to 128"));
        }
        if height != width {
            return Err(Fault::field("height", height, "the same as the width"));
        }
        if slices != 1 {
            return Err(Fault::field("slices", slices, "1 in this version"));
        }
        let pixels = (width as usize) * (height as usize);
        let values = reader.body(2 * pixels)?;
        let floats = |part: &[[u8; 4]]| part.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let (activity, mu) = values.split_at(pixels);
        Phantom::new(width as usize, pixel_mm, floats(activity), floats(mu))
    }

    /// Tells this phantom from others: the digest of its file.
    pub fn digest(&self) -> u64 {
        codec::digest(&self.encode())
    }
}

struct Insert {
    x: f64,
    y: f64,
    radius: f64,
    activity: f64,
    mu: f64,
}

struct Layout {
    inserts: Vec<Insert>,
}

impl Layout {
    fn draw(rng: &mut Rng) -> Self {
        let start = rng.between(0.0, std::f64::consts::TAU);
        let mut inserts = vec![Insert {
            x: rng.between(-8.0, 8.0),
            y: rng.between(-8.0, 8.0),
            radius: 15.0,
            activity: 0.3,
            mu: MU_BONE,
        }];
        for k in 0..6_u32 {
            let turn = start + f64::from(k) * std::f64::consts::FRAC_PI_3;
            let angle = turn + rng.between(-0.08, 0.08);
            let reach = rng.between(0.60, 0.64);
            let hot = k % 2 == 0;
            inserts.push(Insert {
                x: reach * BODY_MM.0 * angle.cos(),
                y: reach * BODY_MM.1 * angle.sin(),
                radius: if hot { rng.between(15.0, 25.0) } else { rng.between(20.0, 27.0) },
                activity: if hot { rng.between(2.5, 4.0) } else { 0.0 },
                mu: MU_WATER,
            });
        }
        Layout { inserts }
    }

    /// Activity and attenuation at a point.
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        if (x / BODY_MM.0).powi(2) + (y / BODY_MM.1).powi(2) > 1.0 {
            return (0.0, 0.0);
        }
        self.inserts
            .iter()
            .rev()
            .find(|insert| (x - insert.x).hypot(y - insert.y) <= insert.radius)
            .map_or((1.0, MU_WATER), |insert| (insert.activity, insert.mu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that reads back differently would compare the result with another truth.
    #[test]
    fn file_round_trip() {
        for size in [16, 33, 64, 128] {
            let phantom = Phantom::design(size, 4).unwrap();
            let bytes = phantom.encode();
            assert!(bytes.len() as u64 <= FILE_BYTES_MAX);
            assert_eq!(Phantom::decode(&bytes).unwrap(), phantom);
        }
        assert!(Phantom::design(15, 1).is_err());
        assert!(Phantom::design(129, 1).is_err());
    }

    /// Seeds that gave one layout would make "robust over seeds" an empty claim.
    #[test]
    fn seeds_vary_the_layout() {
        let design = |seed| Phantom::design(32, seed).unwrap();
        assert_eq!(design(1), design(1));
        assert_ne!(design(1).digest(), design(2).digest());
        for seed in 0..50 {
            let phantom = design(seed);
            let hottest = phantom.activity().iter().copied().fold(0.0, f32::max);
            assert!(hottest > 2.0, "seed {seed}: no hot insert");
        }
    }

    /// Damage must be refused, never read as another phantom and never a panic.
    #[test]
    fn damaged_files_are_refused() {
        let bytes = Phantom::design(16, 1).unwrap().encode();
        for length in 0..bytes.len() {
            assert!(Phantom::decode(&bytes[..length]).is_err(), "cut to {length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Phantom::decode(&bad).is_err(), "bit {bit}");
        }
    }

    /// A right check sum proves no right content: hostile headers and values must be refused too.
    #[test]
    fn well_summed_nonsense_is_refused() {
        let file = |dims: [u32; 3], pixel_mm: f32, values: &[f32]| {
            let mut writer = Writer::new(MAGIC, VERSION);
            dims.into_iter().for_each(|dim| writer.u32(dim));
            writer.f32(pixel_mm);
            values.iter().for_each(|value| writer.f32(*value));
            Phantom::decode(&writer.finish())
        };
        let mut good = vec![0.0_f32; 512];
        good[8 * 16 + 8] = 1.0;
        assert!(file([16, 16, 1], 5.0, &good).is_ok());
        for dims in [[0; 3], [u32::MAX; 3], [16, 17, 1], [16, 16, 2], [17, 17, 1], [8, 8, 1]] {
            assert!(file(dims, 5.0, &good).is_err(), "{dims:?}");
        }
        for pixel_mm in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e9] {
            assert!(file([16, 16, 1], pixel_mm, &good).is_err(), "{pixel_mm}");
        }
        for value in [f32::NAN, f32::INFINITY, -1.0, 1e30] {
            for place in [8 * 16 + 9, 256 + 8 * 16 + 9] {
                let mut bad = good.clone();
                bad[place] = value;
                assert!(file([16, 16, 1], 5.0, &bad).is_err(), "{value} at {place}");
            }
        }
        let mut corner = good.clone();
        corner[0] = 1.0;
        assert!(file([16, 16, 1], 5.0, &corner).is_err());
        assert!(file([16, 16, 1], 5.0, &vec![0.0; 512]).is_err());
    }
}
