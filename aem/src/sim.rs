//! A seeded simulation of owners, hosts and nodes as pure machines, with lost, late and doubled
//! messages, answers that come after what followed from them, kills of cores that lose what was
//! queued and not yet on their disks, restarts of
//! nodes, units that leave a cluster for another: whatever happens, every acknowledged job comes to
//! its end, no attempt of a unit ever runs twice, and from where one left only one copy goes on.
//!
//! `XOS_SIM_SEED=n` repeats one run, `XOS_SIM_RUNS=n` makes more than the default.

mod node;
mod run;
mod site;

use std::collections::{BTreeMap, BTreeSet};

/// A small generator (splitmix64): the same seed, the same story.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How often each attempt of a unit was started, over all nodes: `(job, unit, attempt)`.
pub(super) type Runs = BTreeMap<(String, u32, u16), u32>;

/// Units that do not end by themselves.
pub(super) type Hold = BTreeSet<(xos_base::JobId, u32)>;

/// If it failed, the simulation would be blind for orders that leave a core before their records
/// are on its disk.
#[test]
fn effects_ahead_of_their_records_are_seen() {
    let fails = |seed| {
        let mut world = run::World::new(Dice(seed), false);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.play())).is_err()
    };
    assert!((1..=20).any(fails), "no story without the barrier went wrong");
}

#[test]
fn no_unit_runs_twice_and_no_job_is_lost() {
    let number = |name: &str| std::env::var(name).ok().and_then(|s| s.parse::<u64>().ok());
    let seeds = match number("XOS_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("XOS_SIM_RUNS").unwrap_or(60) + 1,
    };
    for seed in seeds {
        let mut world = run::World::new(Dice(seed), true);
        let story = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.play()));
        if let Err(cause) = story {
            println!("failed with XOS_SIM_SEED={seed}");
            std::panic::resume_unwind(cause);
        }
    }
}
