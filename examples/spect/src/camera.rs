//! The grid of the slice and the gamma camera: one description for simulation and reconstruction.

/// Projection angles over 360 degrees.
pub const ANGLES: usize = 60;
/// Width of a collimator hole divided by its length: the tangent of the widest accepted angle.
pub const HOLE_RATIO: f64 = 0.05;
/// Length of the collimator's holes.
pub const HOLE_LENGTH_MM: f64 = 25.0;
/// Gap between the field of view and the collimator's face.
pub const CLEARANCE_MM: f64 = 10.0;
/// Standard deviation of the detector's own blur (3.5 mm full width at half maximum).
pub const INTRINSIC_SIGMA_MM: f64 = 1.486;
/// Energy of the photons of technetium-99m.
pub const PEAK_KEV: f64 = 140.5;
/// The energy window: 20 % around the peak.
pub const WINDOW_KEV: (f64, f64) = (126.45, 154.55);
/// Standard deviation of the measured energy at the peak (10 % full width at half maximum).
pub const ENERGY_SIGMA_KEV: f64 = 5.966;

// A photon is offered to the nearest head only, which is exact while the heads' acceptances
// do not overlap (the tangent exceeds its argument, so comparing with the angle is enough).
const _: () = assert!(HOLE_RATIO < std::f64::consts::PI / ANGLES as f64);

/// Angle between two neighbouring head positions, in radians.
pub const HEAD_SPACING: f64 = std::f64::consts::TAU / ANGLES as f64;

/// A square grid of pixels around the axis of rotation; x to the right, y upwards, row 0 on top.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// Pixels along each side.
    pub size: usize,
    /// Side of a pixel.
    pub pixel_mm: f64,
}

impl Grid {
    /// Number of pixels.
    pub fn pixels(self) -> usize {
        self.size * self.size
    }

    /// Radius of the circular field of view: half the side of the grid.
    pub fn radius_mm(self) -> f64 {
        self.size as f64 * self.pixel_mm / 2.0
    }

    /// Distance from the axis of rotation to the collimator's face.
    pub fn face_mm(self) -> f64 {
        self.radius_mm() + CLEARANCE_MM
    }

    /// Centre of a pixel, in mm from the axis.
    pub fn centre(self, pixel: usize) -> (f64, f64) {
        let half = self.size as f64 / 2.0 - 0.5;
        let (row, column) = (pixel / self.size, pixel % self.size);
        ((column as f64 - half) * self.pixel_mm, (half - row as f64) * self.pixel_mm)
    }

    /// The pixel that holds a point, if any.
    #[inline]
    pub fn pixel_at(self, x: f64, y: f64) -> Option<usize> {
        let half = self.size as f64 / 2.0;
        let column = (x / self.pixel_mm + half).floor();
        let row = (half - y / self.pixel_mm).floor();
        let inside = |v: f64| v >= 0.0 && v < self.size as f64;
        (inside(column) && inside(row)).then(|| row as usize * self.size + column as usize)
    }

    /// The detector bin at a distance `s` (mm) from the axis' projection, if any. Bins are as
    /// wide and as many as the pixels of a row.
    #[inline]
    pub fn bin_at(self, s: f64) -> Option<usize> {
        let bin = (s / self.pixel_mm + self.size as f64 / 2.0).floor();
        (bin >= 0.0 && bin < self.size as f64).then_some(bin as usize)
    }

    /// Whether a whole pixel lies in the circular field of view.
    pub fn in_view(self, pixel: usize) -> bool {
        let (x, y) = self.centre(pixel);
        x.hypot(y) <= self.radius_mm() - self.pixel_mm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grid whose two directions disagree would mirror or shift the reconstruction.
    #[test]
    fn centres_lie_in_their_pixels() {
        let grid = Grid { size: 16, pixel_mm: 2.5 };
        for pixel in 0..grid.pixels() {
            let (x, y) = grid.centre(pixel);
            assert_eq!(grid.pixel_at(x, y), Some(pixel));
        }
        assert_eq!(grid.pixel_at(-20.1, 0.0), None);
        assert_eq!(grid.pixel_at(0.0, f64::NAN), None);
        assert_eq!(grid.bin_at(20.0), None);
        assert_eq!(grid.bin_at(-20.0), Some(0));
    }
}
