//! A seeded simulation of a cluster: a controller that is killed at any moment and loses what was
//! not yet on its disk, nodes that crash, lose contact and come back, clocks that drift, a network
//! that loses, delays, doubles and reorders; in some of the stories one node is lost for good with
//! its disk. At no moment has a tree two live copies; its output is taken once and whole; when the
//! faults stop, each tree ends, or is lost for a reason. What waits until a node has room is started
//! once, whatever happens; a tree of whose checkpoint two nodes had a copy is not lost. A young tree
//! is known to nobody when the controller is killed: then it ends, its ghost hears of it after that,
//! and its number is not given again. What a tree wrote is whole in its last spool, whichever node
//! was lost, unless nobody that could be reached had it.
//!
//! `XOS_SEED=n` repeats one run, `XOS_SEEDS=n` makes more than the default.

mod node;
mod spools;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use world::World;

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

    pub(super) fn one_of<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        if list.is_empty() {
            return None;
        }
        list.get(self.below(list.len() as u64) as usize).copied()
    }
}

/// What is broken on purpose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// What leaves the controller waits for its disk.
    pub(super) barrier: bool,
    /// Nodes stop their copies when their lease ends.
    pub(super) lease: bool,
    /// Nodes and links fail, not only messages and the controller.
    pub(super) crashes: bool,
}

const ALL: Rules = Rules { barrier: true, lease: true, crashes: true };

fn fails(seed: u64, rules: Rules) -> bool {
    let mut world = World::new(Dice(seed), rules);
    catch_unwind(AssertUnwindSafe(|| world.play())).is_err()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|s| s.parse().ok())
}

fn play(rules: Rules, default: u64) {
    let seeds = match number("XOS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("XOS_SEEDS").unwrap_or(default) + 1,
    };
    for seed in seeds {
        let mut world = World::new(Dice(seed), rules);
        if let Err(cause) = catch_unwind(AssertUnwindSafe(|| world.play())) {
            println!("failed with XOS_SEED={seed} under {rules:?}");
            resume_unwind(cause);
        }
    }
}

#[test]
fn no_tree_lives_twice_and_none_is_forgotten() {
    play(ALL, 1500);
}

/// Here no tree may be lost: nothing but messages and the controller fails.
#[test]
fn no_tree_is_lost_while_the_nodes_stand() {
    play(Rules { crashes: false, ..ALL }, 500);
}

/// If it failed, the simulation would say nothing of what moves cost.
#[test]
fn moves_arrive_and_are_measured() {
    let arrived = |seed: u64| {
        let mut world = World::new(Dice(seed), Rules { crashes: false, ..ALL });
        world.play();
        world.arrived
    };
    assert!((1..=20).map(arrived).sum::<u64>() > 0);
}

/// If it failed, the simulation would say nothing of spools that are lost.
#[test]
fn spools_are_lost_and_gone_on_with() {
    let moved = |seed: u64| {
        let mut world = World::new(Dice(seed), ALL);
        world.play();
        world.taken_over()
    };
    assert!((1..=60).map(moved).sum::<usize>() > 0);
}

/// If it failed, the simulation would be blind for two live copies.
#[test]
fn nodes_that_outlive_their_lease_are_seen() {
    assert!((1..=200).any(|seed| fails(seed, Rules { lease: false, ..ALL })));
}

/// If it failed, the simulation would be blind for orders ahead of their records.
#[test]
fn orders_ahead_of_their_records_are_seen() {
    assert!((1..=400).any(|seed| fails(seed, Rules { barrier: false, ..ALL })));
}
