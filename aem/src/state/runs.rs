//! Sets of unit numbers as runs of neighbours.

use xos_api::aem::UnitRun;

/// Most runs in one request; a set with more is sent in parts.
pub const RUNS_MAX: usize = 1024;

/// Packs unit numbers in rising order into runs.
pub fn pack(units: impl IntoIterator<Item = u32>) -> Vec<UnitRun> {
    let mut runs: Vec<UnitRun> = Vec::new();
    for unit in units {
        match runs.last_mut() {
            Some(run) if run.first + run.count == unit => run.count += 1,
            _ => runs.push(UnitRun { first: unit, count: 1 }),
        }
    }
    runs
}

/// The numbers in `runs`. Only for runs that [`total`] has shown to be few.
pub fn unpack(runs: &[UnitRun]) -> impl Iterator<Item = u32> + '_ {
    runs.iter().flat_map(|r| r.first..r.first.saturating_add(r.count))
}

/// How many numbers `runs` hold; `None` when they are malformed: empty, overlapping, out of
/// order or beyond `end`.
pub fn total(runs: &[UnitRun], end: u32) -> Option<u32> {
    let mut at = 0u32;
    let mut sum = 0u32;
    for r in runs {
        let next = r.first.checked_add(r.count)?;
        if r.count == 0 || r.first < at || next > end {
            return None;
        }
        at = next;
        sum += r.count;
    }
    (!runs.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packing_keeps_every_number(set in proptest::collection::btree_set(0u32..300, 1..80)) {
            let runs = pack(set.iter().copied());
            prop_assert_eq!(unpack(&runs).collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(total(&runs, 300), Some(set.len() as u32));
        }
    }

    #[test]
    fn malformed_runs_are_seen() {
        let run = |first, count| UnitRun { first, count };
        assert_eq!(total(&[run(0, 2), run(1, 1)], 10), None, "an overlap passed");
        assert_eq!(total(&[run(0, 0)], 10), None);
        assert_eq!(total(&[run(u32::MAX, 2)], u32::MAX), None);
        assert_eq!(total(&[run(8, 3)], 10), None);
        assert_eq!(total(&[], 10), None);
    }
}
