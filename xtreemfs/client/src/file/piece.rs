//! A transfer cut into the requests it travels in.

use xtreemfs_proto::Layout;

use super::extents::Range;
use crate::limits::PIECE_BYTES_MAX;

/// A part of a file that travels in one request: bytes of one object, or of several that follow
/// each other on the only OSD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Which of the layout's OSDs keeps it.
    pub(crate) osd: usize,
    /// The first object.
    pub(crate) object: u64,
    /// Where it begins in that object.
    pub(crate) in_object: u32,
    /// Where it begins in the file.
    pub(crate) at: u64,
    /// Bytes.
    pub(crate) length: usize,
    /// It reaches the end of its last object.
    pub(crate) ends_object: bool,
}

/// Cuts a range of the file into pieces, in order.
pub(crate) fn pieces(layout: &Layout, range: Range) -> impl Iterator<Item = Piece> + use<> {
    let stripe = layout.stripe_size;
    let length = range.end.saturating_sub(range.start);
    let mut extents = layout.extents(range.start, length).peekable();
    std::iter::from_fn(move || {
        let first = extents.next()?;
        let (mut last, mut length) = (first, first.length as usize);
        while let Some(next) =
            extents.next_if(|e| e.osd == last.osd && length + e.length as usize <= PIECE_BYTES_MAX)
        {
            length += next.length as usize;
            last = next;
        }
        Some(Piece {
            osd: first.osd,
            object: first.object,
            in_object: first.offset,
            at: first.file_offset,
            length,
            ends_object: last.offset.saturating_add(last.length) == stripe,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(width: usize, stripe_size: u32) -> Layout {
        Layout { stripe_size, osds: (0..width).map(|n| format!("osd{n}")).collect() }
    }

    #[test]
    fn pieces_cover_the_range_once_and_never_cross_an_object() {
        let pieces: Vec<_> = pieces(&layout(3, 1000), Range::new(1500, 2600)).collect();
        let seen: Vec<_> =
            pieces.iter().map(|p| (p.osd, p.object, p.in_object, p.length)).collect();
        assert_eq!(seen, [(1, 1, 500, 500), (2, 2, 0, 1000), (0, 3, 0, 1000), (1, 4, 0, 100)]);
        let ends: Vec<_> = pieces.iter().map(|p| p.ends_object).collect();
        assert_eq!(ends, [true, true, true, false]);
    }

    #[test]
    fn on_a_single_osd_objects_travel_together_within_a_bound() {
        let pieces: Vec<_> = pieces(&layout(1, 1 << 20), Range::new(100, 10 << 20)).collect();
        assert!(pieces.iter().all(|p| p.length <= PIECE_BYTES_MAX));
        assert_eq!(pieces.iter().map(|p| p.length).sum::<usize>(), 10 << 20);
        assert!(pieces.windows(2).all(|w| w[0].at + w[0].length as u64 == w[1].at));
        assert!(pieces.len() < 5, "ten requests for ten objects would be too many");
        assert!(!pieces.last().is_some_and(|p| p.ends_object));
    }

    #[test]
    fn an_empty_range_has_no_pieces() {
        assert_eq!(pieces(&layout(2, 4096), Range::new(5, 0)).count(), 0);
    }
}
