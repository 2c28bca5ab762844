//! Random numbers: the counter-based generator Philox4x32-10.
//!
//! Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
//! The key is the seed and one word of the counter is the stream, so two streams of one seed can
//! never meet, however many numbers they draw.

use std::f64::consts::TAU;

const ROUNDS: usize = 10;
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Which independent sequence of a seed is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The photons of one unit of a run.
    Unit(u32),
    /// The layout of a phantom.
    Design,
    /// The permutation of a histogram's bins.
    Shuffle,
}

impl Stream {
    fn words(self) -> [u32; 2] {
        match self {
            Stream::Unit(unit) => [unit, 0],
            Stream::Design => [0, 1],
            Stream::Shuffle => [0, 2],
        }
    }
}

/// A deterministic source of random numbers.
#[derive(Debug, Clone)]
pub struct Rng {
    key: [u32; 2],
    stream: [u32; 2],
    block: u64,
    buffer: [u32; 4],
    used: usize,
}

impl Rng {
    /// The sequence `stream` of `seed`, from its beginning.
    pub fn new(seed: u64, stream: Stream) -> Self {
        Rng {
            key: [seed as u32, (seed >> 32) as u32],
            stream: stream.words(),
            block: 0,
            buffer: [0; 4],
            used: 4,
        }
    }

    /// The next 32 random bits.
    #[inline]
    pub fn bits(&mut self) -> u32 {
        if self.used == 4 {
            let counter =
                [self.block as u32, (self.block >> 32) as u32, self.stream[0], self.stream[1]];
            self.buffer = philox(counter, self.key);
            self.block = self.block.wrapping_add(1);
            self.used = 0;
        }
        let word = self.buffer[self.used];
        self.used += 1;
        word
    }

    /// A uniform number strictly between 0 and 1, so that its logarithm is finite.
    #[inline]
    pub fn open01(&mut self) -> f64 {
        (f64::from(self.bits()) + 0.5) / 4_294_967_296.0
    }

    /// A uniform number between `low` and `high`.
    #[inline]
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.open01()
    }

    /// An index below `bound` (0 when `bound` is 0); its bias is below `bound` / 2^32.
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.bits()) * u64::from(bound)) >> 32) as u32
    }

    /// Two independent numbers of the standard normal distribution (Box-Muller).
    #[inline]
    pub fn normal_pair(&mut self) -> (f64, f64) {
        let radius = (-2.0 * self.open01().ln()).sqrt();
        let (sin, cos) = (TAU * self.open01()).sin_cos();
        (radius * cos, radius * sin)
    }
}

#[inline]
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slip in the rounds would give numbers of unknown quality: these are the authors' vectors.
    #[test]
    fn matches_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    /// Units that shared numbers would make the merged noise smaller in look only.
    #[test]
    fn streams_of_one_seed_are_uncorrelated() {
        let draw = |stream| {
            let mut rng = Rng::new(7, stream);
            (0..20_000).map(|_| rng.open01() - 0.5).collect::<Vec<_>>()
        };
        let streams = [
            draw(Stream::Unit(0)),
            draw(Stream::Unit(1)),
            draw(Stream::Unit(2)),
            draw(Stream::Design),
            draw(Stream::Shuffle),
        ];
        for (i, a) in streams.iter().enumerate() {
            for b in &streams[..i] {
                let product: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>() * 12.0;
                // 20,000 products of variance one: five standard deviations are about 707.
                assert!(product.abs() < 707.0, "correlated: {product}");
            }
        }
    }

    /// A wrong mean or width would blur the camera by another amount than documented.
    #[test]
    fn normal_pair_has_unit_width() {
        let mut rng = Rng::new(3, Stream::Unit(9));
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..20_000 {
            let (a, b) = rng.normal_pair();
            sum += a + b;
            squares += a * a + b * b;
        }
        assert!((sum / 40_000.0).abs() < 0.025);
        assert!((squares / 40_000.0 - 1.0).abs() < 0.04);
    }
}
