//! Layouts: which part of a file lies where (RAID0).

use prost::Message;

/// Smallest stripe size, in bytes.
pub const STRIPE_BYTES_MIN: u32 = 4 << 10;
/// Largest stripe size, in bytes: one object fits into one record.
pub const STRIPE_BYTES_MAX: u32 = 8 << 20;
/// Most OSDs that one file is striped over.
pub const WIDTH_MAX: usize = 32;
/// Longest OSD id, in bytes.
pub const OSD_ID_BYTES_MAX: usize = 255;
/// Largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 50;

/// RAID0: object `n` holds the bytes from `n * stripe_size` on and lies on OSD `n % width`.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Layout {
    /// Bytes of one object.
    #[prost(uint32, tag = "1")]
    pub stripe_size: u32,
    /// OSD ids; their number is the width.
    #[prost(string, repeated, tag = "2")]
    pub osds: Vec<String>,
}

/// A run of bytes of a file that lies within one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Place in [`Layout::osds`].
    pub osd: usize,
    /// Object number within the file.
    pub object: u64,
    /// First byte within the object.
    pub offset: u32,
    /// Number of bytes, at least 1.
    pub length: u32,
    /// First byte within the file.
    pub file_offset: u64,
}

impl Layout {
    /// Whether stripe size, width and ids are within their limits, and no OSD comes twice.
    pub fn is_valid(&self) -> bool {
        (STRIPE_BYTES_MIN..=STRIPE_BYTES_MAX).contains(&self.stripe_size)
            && (1..=WIDTH_MAX).contains(&self.osds.len())
            && self.osds.iter().all(|id| !id.is_empty() && id.len() <= OSD_ID_BYTES_MAX)
            // An OSD that came twice would keep two objects in one place.
            && (1..self.osds.len()).all(|n| !self.osds[..n].contains(&self.osds[n]))
    }

    /// Number of OSDs; 1 for a layout that is not valid.
    pub fn width(&self) -> u64 {
        self.osds.len().max(1) as u64
    }

    /// The extents of `length` bytes from `offset`, in order of the file. Two extents on one OSD
    /// that follow each other in this list after skipping the others also follow each other on
    /// that OSD, so that one [`crate::osd::Read`] or [`crate::osd::Write`] can take both.
    pub fn extents(&self, offset: u64, length: u64) -> impl Iterator<Item = Extent> + use<> {
        let (stripe, width) = (u64::from(self.stripe_size.max(1)), self.width());
        let end = offset.saturating_add(length);
        let mut at = offset;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (object, within) = (at / stripe, at % stripe);
            let length = (stripe - within).min(end - at);
            let extent = Extent {
                osd: (object % width) as usize,
                object,
                offset: within as u32,
                length: length as u32,
                file_offset: at,
            };
            at += length;
            Some(extent)
        })
    }

    /// Where a byte of an object lies in the backing file of its OSD; `None` on overflow.
    pub fn local_offset(&self, object: u64, offset: u64) -> Option<u64> {
        (object / self.width()).checked_mul(u64::from(self.stripe_size))?.checked_add(offset)
    }

    /// Length of the backing file on OSD number `osd` of a file of `size` bytes without holes.
    pub fn local_length(&self, osd: usize, size: u64) -> u64 {
        let (stripe, width) = (u64::from(self.stripe_size.max(1)), self.width());
        let (full, rest) = (size / stripe, size % stripe);
        let osd = osd as u64;
        let objects = full / width + u64::from(full % width > osd);
        objects * stripe + if full % width == osd { rest } else { 0 }
    }

    /// Size of a file of which OSD number `osd` holds a backing file of `length` bytes, as far as
    /// this OSD can tell.
    pub fn file_size(&self, osd: usize, length: u64) -> u64 {
        let Some(last) = length.checked_sub(1) else { return 0 };
        let stripe = u64::from(self.stripe_size.max(1));
        let object = (last / stripe) * self.width() + osd as u64;
        object.saturating_mul(stripe).saturating_add(last % stripe + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(stripe_size: u32, width: usize) -> Layout {
        Layout { stripe_size, osds: (0..width).map(|n| n.to_string()).collect() }
    }

    #[test]
    fn validity() {
        assert!(layout(4096, 1).is_valid());
        assert!(!layout(4095, 1).is_valid());
        assert!(!layout(4096, 0).is_valid());
        assert!(!layout(4096, 33).is_valid());
        let twice = Layout { stripe_size: 4096, osds: vec!["a".into(), "a".into()] };
        assert!(!twice.is_valid(), "two objects would lie in one place");
    }

    proptest! {
        /// If extents left out a byte or two of them met in one place, files would be corrupted.
        #[test]
        fn extents_cover_a_range_once(
            stripe in 1u32..50, width in 1usize..5, offset in 0u64..500, length in 0u64..500,
        ) {
            let layout = layout(stripe, width);
            let mut at = offset;
            let mut ends = vec![None; width];
            for extent in layout.extents(offset, length) {
                prop_assert_eq!(extent.file_offset, at);
                prop_assert_eq!(extent.object * u64::from(stripe) + u64::from(extent.offset), at);
                prop_assert!(extent.length > 0 && extent.offset + extent.length <= stripe);
                let local = layout.local_offset(extent.object, extent.offset.into()).unwrap();
                if let Some(end) = ends[extent.osd] {
                    prop_assert_eq!(local, end, "extents of one OSD follow each other there");
                }
                ends[extent.osd] = Some(local + u64::from(extent.length));
                at += u64::from(extent.length);
            }
            prop_assert_eq!(at, offset + length);
        }

        /// A wrong length would cut off data at a truncation, or give a wrong size.
        #[test]
        fn lengths_on_the_osds_belong_to_the_size(
            stripe in 1u32..50, width in 1usize..5, size in 0u64..2000,
        ) {
            let layout = layout(stripe, width);
            let lengths: Vec<u64> = (0..width).map(|osd| layout.local_length(osd, size)).collect();
            prop_assert_eq!(lengths.iter().sum::<u64>(), size);
            let known = (0..width).map(|osd| layout.file_size(osd, lengths[osd])).max();
            prop_assert_eq!(known, Some(size));
        }
    }
}
