//! Photon transport: emission, flight, Compton scatter, collimator, detector.
//!
//! Everything happens in the plane of the slice. The heads at all angles stand around the phantom
//! at once; a rotating camera records the same sinogram, only [`ANGLES`] times more slowly.

use std::f64::consts::{PI, TAU};

use crate::camera::{
    ANGLES, ENERGY_SIGMA_KEV, Grid, HEAD_SPACING, HOLE_LENGTH_MM, HOLE_RATIO, INTRINSIC_SIGMA_MM,
    PEAK_KEV, WINDOW_KEV,
};
use crate::phantom::Phantom;
use crate::rng::Rng;

/// Scatters after which a photon is given up; at this order next to none is left in the window.
pub const SCATTERS_MAX: u32 = 4;
/// Rest energy of the electron.
const ELECTRON_KEV: f64 = 511.0;
/// Below this energy a photon has no chance of more than 1 in 10,000 to be in the window.
const CUTOFF_KEV: f64 = 105.0;
/// Share of the interactions at 140 keV in water that are Compton scatters; the rest absorb.
const COMPTON_SHARE: f64 = 0.98;
/// Water's attenuation between 100 and 150 keV follows energy to this power (NIST tables).
const MU_ENERGY_POWER: f64 = -0.31;
/// Tentative steps of one flight; a photon leaves after some ten.
const STEPS_MAX: usize = 10_000;
/// Draws for one scattering angle; about every second is taken.
const ANGLE_DRAWS_MAX: usize = 1_000;
/// Photons between two reports of progress.
const REPORT_EVERY: u64 = 1 << 17;

/// Emits `photons` photons from the activity and returns the counts, angle by angle. `scatters_max`
/// is the highest order of scatter that is followed: 0 counts unscattered photons only. `progress`
/// is told the number of photons done, now and then.
pub fn simulate(
    phantom: &Phantom,
    photons: u64,
    scatters_max: u32,
    rng: &mut Rng,
    mut progress: impl FnMut(u64),
) -> Vec<u32> {
    let source = Source::new(phantom);
    let tissue = Tissue::new(phantom);
    let mut counts = vec![0_u32; ANGLES * phantom.grid().size];
    for photon in 0..photons {
        if photon % REPORT_EVERY == 0 {
            progress(photon);
        }
        if let Some(bin) = track(&source, &tissue, scatters_max, rng) {
            counts[bin] = counts[bin].saturating_add(1);
        }
    }
    progress(photons);
    counts
}

#[derive(Debug, Clone, Copy)]
struct Photon {
    x: f64,
    y: f64,
    /// Direction of flight, in radians from the x axis.
    heading: f64,
    energy_kev: f64,
    /// Attenuation at this energy, relative to that at the peak.
    mu_factor: f64,
}

/// Follows one photon to its end; the index of the bin that counted it, if any did.
fn track(source: &Source, tissue: &Tissue, scatters_max: u32, rng: &mut Rng) -> Option<usize> {
    let mut photon = source.emit(rng);
    for order in 0..=scatters_max {
        let Flight::Interacted = tissue.fly(&mut photon, rng) else {
            return detect(tissue.grid, &photon, rng);
        };
        if order == scatters_max || rng.open01() > COMPTON_SHARE {
            return None;
        }
        scatter(&mut photon, rng)?;
        if photon.energy_kev < CUTOFF_KEV {
            return None;
        }
    }
    None
}

/// Where photons come from: a pixel by its activity (Vose's alias method), then a point in it.
struct Source {
    grid: Grid,
    keep: Vec<f64>,
    alias: Vec<u32>,
}

impl Source {
    fn new(phantom: &Phantom) -> Self {
        let grid = phantom.grid();
        let total: f64 = phantom.activity().iter().map(|value| f64::from(*value)).sum();
        let scale = grid.pixels() as f64 / total;
        let mut keep: Vec<f64> =
            phantom.activity().iter().map(|value| f64::from(*value) * scale).collect();
        let mut alias = vec![0_u32; keep.len()];
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..keep.len()).partition(|pixel| keep[*pixel] < 1.0);
        while let (Some(&poor), Some(&rich)) = (small.last(), large.last()) {
            small.pop();
            alias[poor] = rich as u32;
            keep[rich] -= 1.0 - keep[poor];
            if keep[rich] < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        // What is left differs from 1 by rounding only.
        for pixel in small.into_iter().chain(large) {
            keep[pixel] = 1.0;
        }
        Source { grid, keep, alias }
    }

    #[inline]
    fn emit(&self, rng: &mut Rng) -> Photon {
        let drawn = rng.below(self.keep.len() as u32) as usize;
        let pixel =
            if rng.open01() < self.keep[drawn] { drawn } else { self.alias[drawn] as usize };
        let (x, y) = self.grid.centre(pixel);
        let half = self.grid.pixel_mm / 2.0;
        Photon {
            x: x + rng.between(-half, half),
            y: y + rng.between(-half, half),
            heading: rng.between(0.0, TAU),
            energy_kev: PEAK_KEV,
            mu_factor: 1.0,
        }
    }
}

enum Flight {
    Interacted,
    Left,
}

struct Tissue<'a> {
    grid: Grid,
    mu: &'a [f32],
    mu_max: f64,
}

impl<'a> Tissue<'a> {
    fn new(phantom: &'a Phantom) -> Self {
        let mu_max = f64::from(phantom.mu().iter().copied().fold(0.0, f32::max));
        Tissue { grid: phantom.grid(), mu: phantom.mu(), mu_max }
    }

    /// Moves the photon to its next interaction or lets it leave the field of view. Woodcock's
    /// method: steps as if all were the densest tissue, of which a share is void.
    #[inline]
    fn fly(&self, photon: &mut Photon, rng: &mut Rng) -> Flight {
        if self.mu_max <= 0.0 {
            return Flight::Left;
        }
        let (sin, cos) = photon.heading.sin_cos();
        let mean_free_path = 1.0 / (self.mu_max * photon.mu_factor);
        let radius2 = self.grid.radius_mm().powi(2);
        for _ in 0..STEPS_MAX {
            let step = -rng.open01().ln() * mean_free_path;
            photon.x += step * cos;
            photon.y += step * sin;
            if photon.x * photon.x + photon.y * photon.y > radius2 {
                break;
            }
            let here = self.grid.pixel_at(photon.x, photon.y).map_or(0.0, |pixel| self.mu[pixel]);
            if rng.open01() * self.mu_max < f64::from(here) {
                return Flight::Interacted;
            }
        }
        Flight::Left
    }
}

/// Turns the photon by an angle drawn from the Klein-Nishina formula, to either side within the
/// plane, and takes the recoil from its energy. `None` when no angle was found (never in practice).
fn scatter(photon: &mut Photon, rng: &mut Rng) -> Option<()> {
    let k = photon.energy_kev / ELECTRON_KEV;
    for _ in 0..ANGLE_DRAWS_MAX {
        let cos = rng.between(-1.0, 1.0);
        let ratio = 1.0 / (1.0 + k * (1.0 - cos));
        let share = ratio * ratio * (ratio + 1.0 / ratio - (1.0 - cos * cos)) / 2.0;
        if rng.open01() < share {
            let side = if rng.bits() & 1 == 0 { 1.0 } else { -1.0 };
            photon.heading += side * cos.acos();
            photon.energy_kev *= ratio;
            photon.mu_factor = (photon.energy_kev / PEAK_KEV).powf(MU_ENERGY_POWER);
            return Some(());
        }
    }
    None
}

/// Offers the photon to the nearest head: collimator, energy window, position.
#[inline]
fn detect(grid: Grid, photon: &Photon, rng: &mut Rng) -> Option<usize> {
    let nearest = (photon.heading / HEAD_SPACING).round();
    let tilt = (photon.heading - nearest * HEAD_SPACING).tan();
    // A hole seen at an angle is open by this share of its width.
    if rng.open01() >= 1.0 - tilt.abs() / HOLE_RATIO {
        return None;
    }
    let (energy_noise, place_noise) = rng.normal_pair();
    // Light yield is a matter of counting: its width grows with the root of the energy.
    let sigma = ENERGY_SIGMA_KEV * (photon.energy_kev / PEAK_KEV).sqrt();
    let measured = photon.energy_kev + sigma * energy_noise;
    if !(WINDOW_KEV.0..=WINDOW_KEV.1).contains(&measured) {
        return None;
    }
    let head = (nearest as i64).rem_euclid(ANGLES as i64) as usize;
    let (sin, cos) = (head as f64 * HEAD_SPACING).sin_cos();
    let depth = grid.face_mm() - (photon.x * cos + photon.y * sin) + HOLE_LENGTH_MM;
    let s = photon.y * cos - photon.x * sin + depth * tilt + INTRINSIC_SIGMA_MM * place_noise;
    grid.bin_at(s).map(|bin| head * grid.size + bin)
}

// The head nearest to any heading is less than this far away, so its tangent is finite.
const _: () = assert!(HEAD_SPACING / 2.0 < PI / 2.0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    const SIZE: usize = 32;
    const PIXEL_MM: f32 = 8.0;

    /// A phantom with activity in chosen pixels and a disc of water around the axis.
    fn disc(active: impl Fn(f64, f64) -> bool, radius_mm: f64, mu: f32) -> Phantom {
        let grid = Grid { size: SIZE, pixel_mm: f64::from(PIXEL_MM) };
        let fill = |value: f32, test: &dyn Fn(f64, f64) -> bool| -> Vec<f32> {
            (0..grid.pixels())
                .map(|pixel| {
                    let (x, y) = grid.centre(pixel);
                    if test(x, y) { value } else { 0.0 }
                })
                .collect()
        };
        let water = fill(mu, &|x: f64, y: f64| x.hypot(y) <= radius_mm);
        Phantom::new(SIZE, PIXEL_MM, fill(1.0, &active), water).unwrap()
    }

    fn run(phantom: &Phantom, photons: u64, scatters: u32, seed: u64) -> Vec<u32> {
        simulate(phantom, photons, scatters, &mut Rng::new(seed, Stream::Unit(0)), |_| {})
    }

    fn sum(counts: &[u32]) -> f64 {
        counts.iter().map(|count| f64::from(*count)).sum()
    }

    /// Wrong attenuation would hide the middle of the body, or show it too bright.
    #[test]
    fn attenuation_follows_beer_lambert() {
        let centre = |x: f64, y: f64| x.abs() < 5.0 && y.abs() < 5.0;
        let (photons, mu, radius) = (60_000, 0.015_f32, 80.0);
        let open = sum(&run(&disc(centre, radius, 0.0), photons, 0, 1));
        let dense = sum(&run(&disc(centre, radius, mu), photons, 0, 2));
        let expected = (-f64::from(mu) * radius).exp();
        let ratio = dense / open;
        // 35,000 and 10,000 counts: one standard deviation is about 1 %.
        assert!((ratio / expected - 1.0).abs() < 0.05, "{ratio} against {expected}");
    }

    /// The open camera's efficiency is known in closed form; a slip in the collimator shows here.
    #[test]
    fn collimator_accepts_its_share() {
        let centre = |x: f64, y: f64| x.abs() < 5.0 && y.abs() < 5.0;
        let counted = sum(&run(&disc(centre, 8.0, 0.0), 60_000, 0, 3)) / 60_000.0;
        // The triangle of width 2 x ratio, over the spacing; 98.1 % lie in the energy window.
        let expected = HOLE_RATIO / HEAD_SPACING * 0.981;
        assert!((counted / expected - 1.0).abs() < 0.03, "{counted} against {expected}");
    }

    /// A body that looks the same from everywhere must be counted the same from everywhere.
    #[test]
    fn round_body_gives_equal_profiles() {
        let phantom = disc(|x, y| x.hypot(y) < 60.0, 80.0, 0.015);
        let counts = run(&phantom, 120_000, SCATTERS_MAX, 4);
        let mean = sum(&counts) / ANGLES as f64;
        for (angle, profile) in counts.chunks(SIZE).enumerate() {
            let deviation = (sum(profile) - mean) / mean.sqrt();
            assert!(deviation.abs() < 5.0, "angle {angle}: {deviation} sigma");
            let (left, right) = (sum(&profile[..SIZE / 2]), sum(&profile[SIZE / 2..]));
            let skew = (left - right) / (left + right).sqrt();
            assert!(skew.abs() < 5.0, "angle {angle}: skew {skew} sigma");
        }
    }

    /// Opposite views of a source without tissue are mirror images, and follow a sine.
    #[test]
    fn point_source_follows_the_sine() {
        let phantom = disc(|x, y| (x - 60.0).abs() < 5.0 && (y - 28.0).abs() < 5.0, 8.0, 0.0);
        let counts = run(&phantom, 60_000, 0, 5);
        for (angle, profile) in counts.chunks(SIZE).enumerate() {
            let mean: f64 = profile
                .iter()
                .enumerate()
                .map(|(bin, count)| (bin as f64 + 0.5 - SIZE as f64 / 2.0) * f64::from(*count))
                .sum::<f64>()
                * f64::from(PIXEL_MM)
                / sum(profile);
            let (sin, cos) = (angle as f64 * HEAD_SPACING).sin_cos();
            let expected = 28.0 * cos - 60.0 * sin;
            assert!((mean - expected).abs() < 2.0, "angle {angle}: {mean} against {expected}");
        }
    }

    /// Scatter adds counts, but the energy window keeps it well below the unscattered ones.
    #[test]
    fn energy_window_limits_scatter() {
        let phantom = disc(|x, y| x.hypot(y) < 60.0, 100.0, 0.015);
        let primary = sum(&run(&phantom, 60_000, 0, 6));
        let all = sum(&run(&phantom, 60_000, SCATTERS_MAX, 6));
        let share = (all - primary) / all;
        assert!((0.1..0.45).contains(&share), "scatter share {share}");
    }
}
