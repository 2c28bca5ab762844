//! How many streams a node gives others at a time: each takes a thread, descriptors and maybe a
//! port.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most streams of images that a node gives at a time, all in all.
pub const GIVEN_MAX: usize = 64;

/// The streams that are given now, by what they count as. Clones are of the same.
#[derive(Debug)]
pub struct Given<K>(Arc<Mutex<BTreeMap<K, usize>>>);

/// A stream's place among them, until it is dropped.
#[derive(Debug)]
pub struct GivenPlace<K: Ord> {
    given: Given<K>,
    counts: Vec<K>,
}

impl<K> Default for Given<K> {
    fn default() -> Given<K> {
        Given(Arc::default())
    }
}

impl<K> Clone for Given<K> {
    fn clone(&self) -> Given<K> {
        Given(self.0.clone())
    }
}

impl<K> Given<K> {
    fn all(&self) -> MutexGuard<'_, BTreeMap<K, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord + Clone> Given<K> {
    /// A place for a stream that counts as each of these, of which there are so many at most at a
    /// time. `None`: there are.
    pub fn enter(&self, counts: &[(K, usize)]) -> Option<GivenPlace<K>> {
        let mut all = self.all();
        let full = |(of, most): &(K, usize)| all.get(of).is_some_and(|now| now >= most);
        if counts.iter().any(full) {
            return None;
        }
        for (of, _) in counts {
            *all.entry(of.clone()).or_insert(0) += 1;
        }
        let counts = counts.iter().map(|(of, _)| of.clone()).collect();
        Some(GivenPlace { given: self.clone(), counts })
    }
}

impl<K: Ord> Drop for GivenPlace<K> {
    fn drop(&mut self) {
        let mut all = self.given.all();
        for of in &self.counts {
            match all.get_mut(of) {
                Some(now) if *now > 1 => *now -= 1,
                _ => drop(all.remove(of)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_given_more_than_a_share() {
        // wrong: one rooted node would take all threads and ports of another by asking again and
        // again for the same image
        let given = Given::default();
        let ask = |of: u8| given.enter(&[(0, 3), (of, 2)]);
        let (first, second) = (ask(1), ask(1));
        assert!(first.is_some() && second.is_some() && ask(1).is_none(), "its share");
        let other = ask(2);
        assert!(other.is_some() && ask(3).is_none(), "all together");
        drop(first);
        let again = ask(1);
        assert!(again.is_some() && ask(2).is_none());
        drop((second, other, again));
        assert!(given.all().is_empty(), "nothing stays of those that ended");
    }
}
