//! Where the bytes of a file lie: object `n` holds bytes `n * stripe..(n + 1) * stripe` and is kept
//! by OSD `n mod width` (RAID 0).

use std::sync::Arc;

use crate::file::extents::Range;
use crate::limits::PIECE_BYTES_MAX;

/// The OSDs of a file and the size of its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// At least one.
    pub(crate) osds: Arc<[Arc<str>]>,
    /// At least one byte.
    pub(crate) stripe_bytes: u64,
}

/// A part of a file that lies in one object and travels in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Which of the layout's OSDs keeps it.
    pub(crate) osd: usize,
    pub(crate) object: u64,
    /// Where it begins in the object.
    pub(crate) in_object: u64,
    /// Where it begins in the file.
    pub(crate) at: u64,
    pub(crate) length: usize,
    /// The object holds nothing behind it.
    pub(crate) ends_object: bool,
}

impl Layout {
    /// Cuts a range of the file into pieces, in order.
    pub(crate) fn pieces(&self, range: Range) -> impl Iterator<Item = Piece> + use<> {
        let (stripe, width) = (self.stripe_bytes.max(1), self.osds.len().max(1) as u64);
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= range.end {
                return None;
            }
            let (object, in_object) = (at / stripe, at % stripe);
            let length = (stripe - in_object).min(range.end - at).min(PIECE_BYTES_MAX as u64);
            let ends_object = in_object + length == stripe;
            let osd = usize::try_from(object % width).unwrap_or(0);
            let length_bytes = usize::try_from(length).unwrap_or(PIECE_BYTES_MAX);
            let piece = Piece { osd, object, in_object, at, length: length_bytes, ends_object };
            at += length;
            Some(piece)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(width: usize, stripe_bytes: u64) -> Layout {
        let osds = (0..width).map(|n| Arc::from(format!("osd{n}"))).collect();
        Layout { osds, stripe_bytes }
    }

    #[test]
    fn pieces_cover_the_range_once_and_never_cross_an_object() {
        let layout = layout(3, 1000);
        let pieces: Vec<_> = layout.pieces(Range::new(1500, 2600)).collect();
        let seen: Vec<_> = pieces.iter().map(|p| (p.osd, p.object, p.in_object, p.length)).collect();
        assert_eq!(seen, [(1, 1, 500, 500), (2, 2, 0, 1000), (0, 3, 0, 1000), (1, 4, 0, 100)]);
        let ends: Vec<_> = pieces.iter().map(|p| p.ends_object).collect();
        assert_eq!(ends, [true, true, true, false]);
    }

    #[test]
    fn a_large_object_travels_in_bounded_pieces() {
        let pieces: Vec<_> = layout(1, 64 << 20).pieces(Range::new(0, 10 << 20)).collect();
        assert!(pieces.iter().all(|p| p.length <= PIECE_BYTES_MAX && p.object == 0));
        assert_eq!(pieces.iter().map(|p| p.length).sum::<usize>(), 10 << 20);
    }

    #[test]
    fn an_empty_range_has_no_pieces() {
        assert_eq!(layout(2, 1000).pieces(Range::new(5, 0)).count(), 0);
    }
}
