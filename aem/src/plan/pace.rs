//! How fast units of a task end somewhere, so that the next ones wait there already.
//!
//! A place gets as many units beyond its free room as ended there in the last half second: short
//! units travel in large batches, and long ones are not bound to a busy place while another one
//! is free.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;
use xos_base::Millis;

/// How far back ends count.
pub const WINDOW: Duration = Duration::from_millis(500);
/// Most units ahead at one place.
pub const AHEAD_MAX: u32 = 2048;
/// Most entries of one window; more ends in the same half second are added to the last.
const ENTRIES_MAX: usize = 64;

/// Ends by place.
#[derive(Clone, Debug)]
pub struct Pace<K> {
    windows: HashMap<K, VecDeque<(Millis, u32)>>,
}

impl<K> Default for Pace<K> {
    fn default() -> Self {
        Pace { windows: HashMap::new() }
    }
}

impl<K: Eq + Hash> Pace<K> {
    /// `n` units ended there.
    pub fn ended(&mut self, key: K, n: u32, now: Millis) {
        let w = self.windows.entry(key).or_default();
        while w.front().is_some_and(|(at, _)| now.since(*at) > WINDOW) {
            w.pop_front();
        }
        if w.len() >= ENTRIES_MAX
            && let Some(last) = w.back_mut()
        {
            last.1 = last.1.saturating_add(n);
            return;
        }
        w.push_back((now, n));
    }

    /// How many units may wait there beyond its room.
    pub fn ahead(&self, key: &K, now: Millis) -> u32 {
        let Some(w) = self.windows.get(key) else { return 0 };
        let recent = w.iter().filter(|(at, _)| now.since(*at) <= WINDOW);
        recent.fold(0u32, |sum, (_, n)| sum.saturating_add(*n)).min(AHEAD_MAX)
    }

    /// Forgets places where nothing ended lately.
    pub fn tidy(&mut self, now: Millis) {
        self.windows.retain(|_, w| w.back().is_some_and(|(at, _)| now.since(*at) <= WINDOW));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_recent_ends_count() {
        let mut p = Pace::default();
        for t in 0..100 {
            p.ended("n1", 3, Millis(t * 2));
        }
        assert_eq!(p.ahead(&"n1", Millis(200)), 300);
        assert_eq!(p.ahead(&"n1", Millis(10_000)), 0, "old ends still bind units to a place");
        assert_eq!(p.ahead(&"n2", Millis(200)), 0);
        p.tidy(Millis(10_000));
        assert!(p.windows.is_empty(), "memory grows with every job that ever ran");
    }
}
