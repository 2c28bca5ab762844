//! Which byte ranges of a file are on their way to the OSDs.
//!
//! Writes travel in parallel, so two that overlap must not: the OSD could apply them in either
//! order. This table is the pure part; who waits for what is decided by its callers.

/// A byte range of a file, `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Range {
    pub(crate) fn new(start: u64, length: u64) -> Range {
        Range { start, end: start.saturating_add(length) }
    }

    /// The range that holds every byte.
    pub(crate) fn all() -> Range {
        Range { start: 0, end: u64::MAX }
    }

    pub(crate) fn overlaps(&self, other: &Range) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// The writes under way, each with a ticket number that grows.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    next: u64,
    under_way: Vec<(u64, Range)>,
}

impl Extents {
    /// Notes a write as under way and returns its number.
    pub(crate) fn begin(&mut self, range: Range) -> u64 {
        self.next += 1;
        self.under_way.push((self.next, range));
        self.next
    }

    /// Notes a write as done.
    pub(crate) fn end(&mut self, number: u64) {
        self.under_way.retain(|(n, _)| *n != number);
    }

    /// The number of the latest write so far.
    pub(crate) fn latest(&self) -> u64 {
        self.next
    }

    /// Whether a write numbered up to `up_to` that overlaps `range` is still under way.
    pub(crate) fn busy(&self, range: &Range, up_to: u64) -> bool {
        self.under_way.iter().any(|(n, r)| *n <= up_to && r.overlaps(range))
    }

    /// Where what is under way ends; 0 when nothing is.
    pub(crate) fn end_of_all(&self) -> u64 {
        self.under_way.iter().map(|(_, range)| range.end).max().unwrap_or(0)
    }

    /// Whether nothing is under way.
    pub(crate) fn idle(&self) -> bool {
        self.under_way.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_overlapping_writes_wait_for_each_other() {
        let mut extents = Extents::default();
        let a = extents.begin(Range::new(0, 100));
        assert!(extents.busy(&Range::new(99, 1), u64::MAX));
        assert!(!extents.busy(&Range::new(100, 50), u64::MAX), "neighbours may travel together");
        extents.end(a);
        assert!(extents.idle());
    }

    #[test]
    fn a_sync_waits_only_for_writes_that_began_before_it() {
        let mut extents = Extents::default();
        let a = extents.begin(Range::new(0, 10));
        let seen = extents.latest();
        extents.begin(Range::new(0, 10));
        assert!(extents.busy(&Range::all(), seen));
        extents.end(a);
        assert!(!extents.busy(&Range::all(), seen), "later writers must not hold a sync up");
    }

    #[test]
    fn a_range_at_the_end_of_the_number_line_does_not_wrap() {
        assert_eq!(Range::new(u64::MAX - 1, 10).end, u64::MAX);
    }
}
