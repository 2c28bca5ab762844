//! A bounded cache that forgets what was not used lately.

use std::collections::HashMap;
use std::hash::Hash;

/// Two generations: what is used moves to the young one; when that is full, the old one is
/// dropped and the young one grows old. Holds at most the given number of entries.
#[derive(Debug)]
pub struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// A cache for at most `entries` entries (at least 2).
    pub fn new(entries: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: (entries / 2).max(1) }
    }

    /// Finds an entry and keeps it.
    pub fn find(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    /// Adds or replaces an entry.
    pub fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let young = self.young.remove(key);
        let old = self.old.remove(key);
        young.or(old)
    }

    /// Removes the entries whose keys are not to be kept.
    pub fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.young.retain(|key, _| keep(key));
        self.old.retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The caches hold open files and verified tokens: without the bound a hostile client fills
    /// memory, without the "used lately" part a busy file is opened again and again.
    #[test]
    fn holds_no_more_than_told_and_keeps_what_is_used() {
        let mut cache = Cache::new(8);
        cache.insert(0, "kept");
        for n in 1..1000 {
            cache.insert(n, "other");
            assert_eq!(cache.find(&0), Some("kept"));
            assert!(cache.young.len() + cache.old.len() <= 8);
        }
        assert_eq!(cache.find(&1), None);
        assert_eq!(cache.remove(&0), Some("kept"));
        assert_eq!(cache.find(&0), None);
    }
}
