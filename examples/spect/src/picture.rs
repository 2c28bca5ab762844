//! Pictures: slices as PNG, in colours whose brightness rises evenly with the value.

use crate::camera::Grid;

/// Panels are enlarged to about this many picture elements along a side.
const PANEL_SIDE: usize = 384;
/// Gap between two panels.
const GAP: usize = 12;
/// Colour of the gap.
const GAP_GREY: u8 = 128;

/// Draws slices of one grid side by side, each over its own range from 0 to its `top`, where
/// the colours end. `title` is kept in the file as text.
///
/// # Errors
/// [`png::EncodingError`], which needs a title outside Latin-1 or no slice at all.
pub fn draw(
    grid: Grid,
    panels: &[(&[f32], f32)],
    title: &str,
) -> Result<Vec<u8>, png::EncodingError> {
    let scale = (PANEL_SIDE / grid.size).max(1);
    let side = grid.size * scale;
    let width = panels.len() * side + panels.len().saturating_sub(1) * GAP;
    let mut pixels = vec![GAP_GREY; width * side * 3];
    for (index, (slice, top)) in panels.iter().enumerate() {
        let left = index * (side + GAP);
        for row in 0..side {
            for column in 0..side {
                let value =
                    slice[row / scale * grid.size + column / scale] / top.max(f32::MIN_POSITIVE);
                let at = (row * width + left + column) * 3;
                pixels[at..at + 3].copy_from_slice(&colour(value));
            }
        }
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, side as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.add_text_chunk("Title".to_owned(), title.to_owned())?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(file)
}

/// The largest value of a slice.
pub fn top(slice: &[f32]) -> f32 {
    slice.iter().copied().fold(0.0, f32::max)
}

/// Colour of a value from 0 (black) to 1 (white); values beyond are drawn as the ends.
///
/// Source: Green, "A colour scheme for the display of astronomical intensity images" (2011),
/// "cubehelix" with start 0.5, -1.5 rotations, hue 1.
fn colour(value: f32) -> [u8; 3] {
    let value = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
    let (sin, cos) = (std::f32::consts::TAU * (0.5 / 3.0 + 1.0 - 1.5 * value)).sin_cos();
    let depth = value * (1.0 - value) / 2.0;
    let channel = |a: f32, b: f32| {
        let level = value + depth * (a * cos + b * sin);
        (level.clamp(0.0, 1.0) * 255.0).round() as u8
    };
    [channel(-0.148_61, 1.782_77), channel(-0.292_27, -0.906_49), channel(1.972_94, 0.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Colours that fall back in brightness would show edges that are not there.
    #[test]
    fn brightness_rises_with_the_value() {
        assert_eq!(colour(0.0), [0, 0, 0]);
        assert_eq!(colour(1.0), [255, 255, 255]);
        assert_eq!(colour(f32::NAN), [0, 0, 0]);
        assert_eq!(colour(9.0), [255, 255, 255]);
        let light = |value: f32| {
            let [r, g, b] = colour(value).map(f32::from);
            0.30 * r + 0.59 * g + 0.11 * b
        };
        for step in 1..=50_u8 {
            let value = f32::from(step) / 50.0;
            assert!(light(value) > light(value - 0.02), "at {value}");
        }
    }

    /// The file must be a picture that others can open, of the promised size.
    #[test]
    fn draws_a_readable_png() {
        let grid = Grid { size: 16, pixel_mm: 1.0 };
        let slice: Vec<f32> = (0..256_u16).map(f32::from).collect();
        let file = draw(grid, &[(&slice, top(&slice)), (&slice, 0.0)], "two").unwrap();
        let reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        assert_eq!((reader.info().width, reader.info().height), (780, 384));
    }
}
