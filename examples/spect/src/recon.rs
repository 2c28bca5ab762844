//! Reconstruction: maximum likelihood by expectation maximisation (MLEM).
//!
//! Source: Shepp and Vardi, "Maximum likelihood reconstruction for emission tomography" (1982).
//! The system model holds attenuation and the blur of collimator and detector, which grows with
//! depth. Scattered photons are not modelled; the energy window keeps them few.

use crate::camera::{ANGLES, Grid, HEAD_SPACING, HOLE_LENGTH_MM, HOLE_RATIO, INTRINSIC_SIGMA_MM};

/// Most iterations that may be asked for.
pub const ITERATIONS_MAX: u32 = 1_000;
/// Iterations at which noise and blur are in balance for the default run.
pub const ITERATIONS: u32 = 40;
/// Standard deviations of blur that the model follows to either side.
const BLUR_REACH: f64 = 3.0;
/// Below this a bin is out of the model's sight and takes no part.
const PROJECTION_MIN: f32 = 1e-12;

/// How strongly each pixel is seen by each detector bin.
#[derive(Debug)]
pub struct System {
    grid: Grid,
    /// Pixels in the field of view.
    pixels: Vec<u32>,
    /// Per angle and pixel of `pixels`: the first bin, and where its weights begin.
    rows: Vec<(u32, u32)>,
    weights: Vec<f32>,
    sensitivity: Vec<f32>,
}

impl System {
    /// The model for a grid with the attenuation `mu` (per mm, one value per pixel).
    pub fn new(grid: Grid, mu: &[f32]) -> Self {
        let pixels: Vec<u32> = (0..grid.pixels())
            .filter(|pixel| grid.in_view(*pixel))
            .map(|pixel| pixel as u32)
            .collect();
        let mut rows = Vec::with_capacity(ANGLES * pixels.len() + 1);
        let mut weights = Vec::new();
        let mut sensitivity = vec![0.0; pixels.len()];
        for angle in 0..ANGLES {
            let (sin, cos) = (angle as f64 * HEAD_SPACING).sin_cos();
            for (slot, pixel) in pixels.iter().enumerate() {
                let (x, y) = grid.centre(*pixel as usize);
                let seen = transmission(grid, mu, (x, y), (cos, sin));
                let depth = grid.face_mm() - (x * cos + y * sin) + HOLE_LENGTH_MM;
                let begin = weights.len();
                let first = blur_weights(grid, y * cos - x * sin, depth, seen, &mut weights);
                rows.push((first as u32, begin as u32));
                sensitivity[slot] += weights[begin..].iter().sum::<f32>();
            }
        }
        rows.push((0, weights.len() as u32));
        System { grid, pixels, rows, weights, sensitivity }
    }

    /// Visits the rows of every angle as (bin index, pixel slot, weights).
    fn each_row(&self, mut visit: impl FnMut(usize, usize, &[f32])) {
        for angle in 0..ANGLES {
            for slot in 0..self.pixels.len() {
                let row = angle * self.pixels.len() + slot;
                let ((first, begin), (_, end)) = (self.rows[row], self.rows[row + 1]);
                let weights = &self.weights[begin as usize..end as usize];
                visit(angle * self.grid.size + first as usize, slot, weights);
            }
        }
    }

    /// The slice that best explains `counts` (angle by angle, as in a histogram) after
    /// `iterations` steps, in relative units, one value per pixel of the grid. Bins that are
    /// missing from `counts` are read as 0. `progress` is told each finished iteration.
    pub fn mlem(&self, counts: &[u64], iterations: u32, mut progress: impl FnMut(u32)) -> Vec<f32> {
        let bins = ANGLES * self.grid.size;
        let measured: Vec<f32> =
            (0..bins).map(|bin| counts.get(bin).map_or(0.0, |count| *count as f32)).collect();
        let mut image = vec![1.0_f32; self.pixels.len()];
        let mut projection = vec![0.0_f32; bins];
        let mut update = vec![0.0_f32; image.len()];
        for iteration in 1..=iterations.min(ITERATIONS_MAX) {
            projection.fill(0.0);
            self.each_row(|bin, slot, weights| {
                let value = image[slot];
                for (target, weight) in projection[bin..].iter_mut().zip(weights) {
                    *target += value * weight;
                }
            });
            for (bin, count) in projection.iter_mut().zip(&measured) {
                *bin = if *bin > PROJECTION_MIN { count / *bin } else { 0.0 };
            }
            update.fill(0.0);
            self.each_row(|bin, slot, weights| {
                update[slot] +=
                    projection[bin..].iter().zip(weights).map(|(r, w)| r * w).sum::<f32>();
            });
            for (slot, value) in image.iter_mut().enumerate() {
                let seen = self.sensitivity[slot];
                *value = if seen > 0.0 { *value * update[slot] / seen } else { 0.0 };
            }
            progress(iteration);
        }
        let mut slice = vec![0.0; self.grid.pixels()];
        for (slot, pixel) in self.pixels.iter().enumerate() {
            slice[*pixel as usize] = image[slot];
        }
        slice
    }
}

/// The share of photons that get from a point out of the body in a direction.
fn transmission(grid: Grid, mu: &[f32], from: (f64, f64), towards: (f64, f64)) -> f64 {
    let step = grid.pixel_mm / 2.0;
    let mut thickness = 0.0;
    // The longest way through the grid is its diagonal, less than three half-pixels per row.
    for k in 0..3 * grid.size {
        let way = (k as f64 + 0.5) * step;
        let Some(pixel) = grid.pixel_at(from.0 + way * towards.0, from.1 + way * towards.1) else {
            break;
        };
        thickness += f64::from(mu[pixel]) * step;
    }
    (-thickness).exp()
}

/// Appends the weights of the bins that see a pixel projected to `s`, and returns the first bin.
fn blur_weights(grid: Grid, s: f64, depth: f64, seen: f64, weights: &mut Vec<f32>) -> usize {
    // Variances add: the collimator's triangle, the detector, the pixel's own width.
    let collimator = (HOLE_RATIO * depth).powi(2) / 6.0;
    let sigma = (collimator + INTRINSIC_SIGMA_MM.powi(2) + grid.pixel_mm.powi(2) / 12.0).sqrt();
    let half = grid.size as f64 / 2.0;
    let bin_of = |place: f64| (place / grid.pixel_mm + half).floor().clamp(0.0, half * 2.0 - 1.0);
    let first = bin_of(s - BLUR_REACH * sigma) as usize;
    let last = bin_of(s + BLUR_REACH * sigma) as usize;
    let below = |edge: usize| normal_cdf(((edge as f64 - half) * grid.pixel_mm - s) / sigma);
    let mut low = below(first);
    for bin in first..=last {
        let high = below(bin + 1);
        weights.push((seen * (high - low)) as f32);
        low = high;
    }
    first
}

/// The normal distribution's integral up to `z`; error below 1e-7 (Abramowitz and Stegun 26.2.17).
fn normal_cdf(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let series = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let tail = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * series;
    if z < 0.0 { tail } else { 1.0 - tail }
}

/// Pearson's correlation of two slices over the pixels that `choose` picks; 0 when one is flat.
pub fn pearson(a: &[f32], b: &[f32], choose: impl Fn(usize) -> bool) -> f64 {
    let pairs: Vec<(f64, f64)> = a
        .iter()
        .zip(b)
        .enumerate()
        .filter(|(pixel, _)| choose(*pixel))
        .map(|(_, (a, b))| (f64::from(*a), f64::from(*b)))
        .collect();
    let n = pairs.len().max(1) as f64;
    let mean_a = pairs.iter().map(|pair| pair.0).sum::<f64>() / n;
    let mean_b = pairs.iter().map(|pair| pair.1).sum::<f64>() / n;
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in pairs {
        ab += (a - mean_a) * (b - mean_b);
        aa += (a - mean_a).powi(2);
        bb += (b - mean_b).powi(2);
    }
    let spread = (aa * bb).sqrt();
    if spread > 0.0 { ab / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::{Histogram, Run};
    use crate::phantom::Phantom;

    /// A wrong integral would shift every weight of the model.
    #[test]
    fn normal_cdf_has_known_values() {
        for (z, expected) in [(0.0, 0.5), (1.0, 0.841_344_7), (-1.96, 0.024_997_9), (6.0, 1.0)] {
            assert!((normal_cdf(z) - expected).abs() < 1e-6, "{z}");
        }
    }

    /// The number that decides a run's success must be the textbook's.
    #[test]
    fn pearson_is_the_textbooks() {
        let a = [1.0, 2.0, 3.0, 5.0];
        assert!((pearson(&a, &[2.0, 4.0, 6.0, 10.0], |_| true) - 1.0).abs() < 1e-12);
        assert!((pearson(&a, &[-1.0, -2.0, -3.0, -5.0], |_| true) + 1.0).abs() < 1e-12);
        assert_eq!(pearson(&a, &[7.0; 4], |_| true), 0.0);
        assert_eq!(pearson(&[], &[], |_| true), 0.0);
        assert!((pearson(&a, &[1.0, 3.0, 2.0, 9.0], |p| p < 3) - 0.5).abs() < 1e-12);
    }

    /// Attenuation in the model must be that of the simulation, or the middle comes out wrong.
    #[test]
    fn transmission_through_a_slab() {
        let grid = Grid { size: 32, pixel_mm: 4.0 };
        let mu = vec![0.01; grid.pixels()];
        let seen = transmission(grid, &mu, (0.0, 0.0), (1.0, 0.0));
        assert!((seen - (-0.64_f64).exp()).abs() < 0.01, "{seen}");
    }

    /// The whole chain finds the phantom again, and only from the true sinogram.
    #[test]
    fn finds_the_phantom_and_not_from_noise() {
        let phantom = Phantom::design(32, 1).unwrap();
        let run = Run::new(1, 0, 1, 400_000).unwrap();
        let histogram = Histogram::simulate(&phantom, run, |_| {});
        let system = System::new(phantom.grid(), phantom.mu());
        let quality = |histogram: &Histogram| {
            let counts: Vec<u64> = histogram.counts().iter().map(|c| u64::from(*c)).collect();
            pearson(&system.mlem(&counts, 20, |_| {}), phantom.activity(), |_| true)
        };
        let good = quality(&histogram);
        assert!(good >= 0.93, "{good}");
        let bad = quality(&histogram.shuffled(1));
        assert!(bad < 0.7, "{bad}");
    }

    /// An empty or short sinogram must give an empty slice, not a crash or NaN.
    #[test]
    fn empty_sinogram_gives_zeros() {
        let grid = Grid { size: 16, pixel_mm: 10.0 };
        let slice = System::new(grid, &vec![0.0; 256]).mlem(&[], 3, |_| {});
        assert!(slice.iter().all(|value| *value == 0.0));
    }
}
