//! What moves cost: how long a program stood still in those that arrived, by its size. Measured, as
//! machines and networks differ by tens; reckoned until something was measured.
//!
//! What guides choices only is not stored: a controller that begins anew measures anew.

use super::messages::TreeId;
use super::trees::{TreeRecord, Trees};
use crate::pids::NodeNumber;
use std::collections::BTreeMap;
use std::time::Duration;
use xos_base::Millis;

/// What a move is reckoned to cost, where none was measured: this, and for each KiB so many
/// nanoseconds, which is 3 s for 1 GB.
const FIXED_MS: i128 = 100;
const NS_PER_KIB: i128 = 3 * 1024;
/// Weight of one move; before each new one all that was weighs an eighth less.
const WEIGHT: i128 = 1024;
/// Moves between two nodes from which on these alone count for them.
const PAIR_MIN: u64 = 3;
/// What is larger counts as this: a tebibyte, and an hour.
const KIB_MAX: i128 = 1 << 30;
const MS_MAX: i128 = 1 << 22;

/// A move that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// From where.
    pub from: NodeNumber,
    /// Where to.
    pub to: NodeNumber,
    /// Of how many bytes.
    pub bytes: u64,
    /// How long the program stood still.
    pub still: Duration,
    /// From when it was decided until the program ran.
    pub took: Duration,
}

/// Which times belong to which sizes: a line through what was seen, which forgets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Line {
    moves: u64,
    /// Sums, weighted: one, KiB, ms, their products.
    w: i128,
    x: i128,
    y: i128,
    xx: i128,
    xy: i128,
}

impl Line {
    fn add(&mut self, kib: i128, ms: i128) {
        let (kib, ms) = (kib.clamp(0, KIB_MAX), ms.clamp(0, MS_MAX));
        for sum in [&mut self.w, &mut self.x, &mut self.y, &mut self.xx, &mut self.xy] {
            *sum = *sum * 7 / 8;
        }
        self.moves = self.moves.saturating_add(1);
        self.w += WEIGHT;
        self.x += WEIGHT * kib;
        self.y += WEIGHT * ms;
        self.xx += WEIGHT * kib * kib;
        self.xy += WEIGHT * kib * ms;
    }

    /// How steep it is: ms for so many KiB, two numbers. As reckoned where all that was seen is of
    /// one size.
    fn slope(&self) -> (i128, i128) {
        let spread = self.w * self.xx - self.x * self.x;
        let rise = self.w * self.xy - self.x * self.y;
        // From a quarter of the mean on there is something to see.
        if spread > 0 && spread.saturating_mul(16) >= self.x * self.x {
            return (rise.max(0), spread);
        }
        let (reckoned, per) = (NS_PER_KIB, 1_000_000);
        match self.y * per < reckoned * self.x {
            // Faster than that.
            true => (self.y, self.x.max(1)),
            false => (reckoned, per),
        }
    }

    /// What is expected for a size, ms.
    fn at(&self, kib: i128) -> i128 {
        let (ms, per) = self.slope();
        let off = kib.clamp(0, KIB_MAX) * self.w - self.x;
        let mean = self.y / self.w.max(1);
        (mean + ms * off / (per * self.w.max(1))).clamp(0, MS_MAX)
    }
}

/// A move under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    from: NodeNumber,
    to: NodeNumber,
    began: Millis,
    /// Bytes, for how long it had stood still, and when that was.
    dumped: Option<(u64, u64, Millis)>,
    committed: bool,
}

/// What is known of moves in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    ways: BTreeMap<TreeId, Way>,
    all: Line,
    pairs: BTreeMap<(NodeNumber, NodeNumber), Line>,
    last: Option<Arrived>,
}

impl Costs {
    /// Something changed, at `now`; `trees` is as it is since. A move that arrived by that.
    pub fn note(&mut self, r: &TreeRecord, trees: &Trees, now: Millis) -> Option<Arrived> {
        let tree = r.tree();
        match r {
            TreeRecord::Moving { to, at, .. } => {
                let from = trees.tree(tree)?.node;
                let way = Way { from, to: *to, began: *at, dumped: None, committed: false };
                self.ways.insert(tree, way);
                None
            }
            TreeRecord::Dumped { image, at, .. } => {
                let way = self.ways.get_mut(&tree)?;
                way.dumped = Some((image.bytes, image.still_ms.max(image.freeze_ms), *at));
                None
            }
            TreeRecord::Committed { .. } => {
                self.ways.get_mut(&tree)?.committed = true;
                None
            }
            TreeRecord::Runs { .. } => {
                let way = self.ways.remove(&tree)?;
                let (bytes, still_ms, at) = way.dumped.filter(|_| way.committed)?;
                let still = Duration::from_millis(still_ms).saturating_add(now.since(at));
                let (from, to, took) = (way.from, way.to, now.since(way.began));
                // A node that says it stood still for longer than all of it took is wrong.
                let arrived = Arrived { from, to, bytes, still: still.min(took), took };
                self.add(arrived);
                Some(arrived)
            }
            TreeRecord::Undone { .. }
            | TreeRecord::Waits { .. }
            | TreeRecord::Ended { .. }
            | TreeRecord::Lost { .. }
            | TreeRecord::Forgotten { .. } => {
                self.ways.remove(&tree);
                None
            }
            _ => None,
        }
    }

    pub(super) fn add(&mut self, a: Arrived) {
        let (kib, ms) = (i128::from(a.bytes / 1024), millis(a.still));
        self.all.add(kib, ms);
        self.pairs.entry((a.from, a.to)).or_default().add(kib, ms);
        self.last = Some(a);
    }

    /// How long a program of this size is expected to stand still, moved from one node to another.
    pub fn expected(&self, from: NodeNumber, to: NodeNumber, bytes: u64) -> Duration {
        let kib = i128::from(bytes / 1024);
        let pair = self.pairs.get(&(from, to)).filter(|line| line.moves >= PAIR_MIN);
        let line = pair.or(Some(&self.all).filter(|line| line.moves > 0));
        let ms = line.map_or(FIXED_MS + NS_PER_KIB * kib / 1_000_000, |line| line.at(kib));
        Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
    }

    /// How many moves arrived since this controller began.
    pub fn moves(&self) -> u64 {
        self.all.moves
    }

    /// The last one that did.
    pub fn last(&self) -> Option<Arrived> {
        self.last
    }

    /// What is expected of any two nodes, as reckoned until a move arrived: for how long the smallest
    /// program stands still, and bytes for each second beyond; none: size makes no difference.
    pub fn figures(&self) -> (Duration, Option<u64>) {
        let fixed = if self.all.moves > 0 { self.all.at(0) } else { FIXED_MS };
        let (ms, per) = if self.all.moves > 0 { self.all.slope() } else { (NS_PER_KIB, 1_000_000) };
        let rate = (ms > 0).then(|| per.saturating_mul(1000 * 1024) / ms);
        let fixed = Duration::from_millis(u64::try_from(fixed).unwrap_or(u64::MAX));
        (fixed, rate.map(|rate| u64::try_from(rate).unwrap_or(u64::MAX)))
    }

    /// Moves that are on their way.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> impl Iterator<Item = TreeId> {
        self.ways.keys().copied()
    }
}

fn millis(d: Duration) -> i128 {
    i128::try_from(d.as_millis()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn n(number: u8) -> NodeNumber {
        NodeNumber::try_from(number).unwrap()
    }

    fn moved(costs: &mut Costs, to: u8, mib: u64, ms: u64) {
        let (still, took) = (Duration::from_millis(ms), Duration::from_millis(ms + 50));
        costs.add(Arrived { from: n(1), to: n(to), bytes: mib << 20, still, took });
    }

    fn expected(costs: &Costs, to: u8, mib: u64) -> u64 {
        u64::try_from(costs.expected(n(1), n(to), mib << 20).as_millis()).unwrap()
    }

    /// If it failed, a cluster that is new would move everything, or nothing.
    #[test]
    fn without_a_measure_it_is_reckoned() {
        let costs = Costs::default();
        assert_eq!(expected(&costs, 2, 0), 100);
        assert_eq!(expected(&costs, 2, 1024), 100 + 3221);
        let (fixed, rate) = costs.figures();
        assert_eq!((fixed.as_millis(), rate), (100, Some(333_333_333)));
    }

    /// If it failed, what is measured would change nothing, or a figure be made of nothing.
    #[test]
    fn sizes_and_times_give_both_parts() {
        let mut costs = Costs::default();
        for _ in 0..4 {
            moved(&mut costs, 2, 100, 700);
            moved(&mut costs, 2, 1000, 5200);
        }
        assert!(expected(&costs, 2, 0).abs_diff(200) < 3, "{}", expected(&costs, 2, 0));
        assert!(expected(&costs, 2, 2000).abs_diff(10_200) < 20);
        let (fixed, rate) = costs.figures();
        assert!(fixed.as_millis().abs_diff(200) < 3);
        // 5 ms for each MiB.
        assert!(rate.unwrap().abs_diff(200 << 20) < 1 << 20, "{rate:?}");
    }

    /// If it failed, one small program that was slow would keep all large ones where they are.
    #[test]
    fn of_one_size_the_slope_is_the_reckoned_one() {
        let mut costs = Costs::default();
        moved(&mut costs, 2, 10, 700);
        assert_eq!(expected(&costs, 2, 10), 700);
        let more = expected(&costs, 2, 1034);
        assert!(more.abs_diff(700 + 3221) < 5, "{more}");
        // One that was faster than that: so is all.
        let mut costs = Costs::default();
        moved(&mut costs, 2, 1000, 500);
        assert!(expected(&costs, 2, 2000).abs_diff(1000) < 2);
    }

    /// If it failed, a network that became slow would be taken for a fast one for ever, or a node
    /// behind a slow one for its neighbours.
    #[test]
    fn it_forgets_and_knows_pairs() {
        let mut costs = Costs::default();
        for _ in 0..20 {
            moved(&mut costs, 2, 100, 400);
        }
        for _ in 0..20 {
            moved(&mut costs, 3, 100, 4000);
        }
        assert!(expected(&costs, 2, 100).abs_diff(400) < 2, "the pair's own");
        assert!(expected(&costs, 3, 100).abs_diff(4000) < 2);
        assert!(expected(&costs, 4, 100) > 3500, "as all went lately");
        assert_eq!(costs.moves(), 40);
    }

    proptest! {
        /// If it failed, what a node says of its images could bring the core down.
        #[test]
        fn no_figure_is_too_large(
            all in prop::collection::vec((any::<u64>(), any::<u64>()), 0..40),
            asked in any::<u64>(),
        ) {
            let mut costs = Costs::default();
            for (bytes, ms) in all {
                let still = Duration::from_millis(ms);
                costs.add(Arrived { from: n(1), to: n(2), bytes, still, took: still });
                costs.expected(n(1), n(2), asked);
                costs.figures();
            }
        }
    }
}
