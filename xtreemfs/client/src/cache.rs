//! What the client remembers of directories: little and for a short time.
//!
//! * A *directory* that a person looked up stays known for [`DIRECTORY_TTL`], for that person only:
//!   the MRC decided with this person's rights, and nobody else may profit from it.
//! * An entry that came with a *listing* serves one look-up within [`LISTED_TTL`] (for `ls -l`).
//!
//! Files are otherwise looked up at the MRC each time, missing names always: a file that appears
//! on another node is seen at once, and open gives what the last close left.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{CACHED_ENTRIES_MAX, DIRECTORY_TTL, LISTED_TTL};

/// Entries by directory; within it by person and name.
#[derive(Debug)]
pub(crate) struct Entries<Member, Ino, Attributes> {
    inner: Mutex<Inner<Member, Ino, Attributes>>,
    limit: usize,
}

#[derive(Debug)]
struct Inner<Member, Ino, Attributes> {
    directories: HashMap<Ino, Directory<Member, Attributes>>,
    count: usize,
    /// Raised by every `forget`, so that an answer older than the change is not kept.
    generation: u64,
}

type Directory<Member, Attributes> = HashMap<(Member, Box<[u8]>), Entry<Attributes>>;

#[derive(Debug)]
struct Entry<Attributes> {
    attributes: Attributes,
    until: Instant,
    once: bool,
}

/// The state of the cache before a request was sent; see [`Entries::keep`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before(u64);

impl<Member, Ino, Attributes> Entries<Member, Ino, Attributes>
where
    Member: std::hash::Hash + Eq + Copy,
    Ino: std::hash::Hash + Eq + Copy,
    Attributes: Clone,
{
    pub(crate) fn new() -> Self {
        Self::with_limit(CACHED_ENTRIES_MAX)
    }

    fn with_limit(limit: usize) -> Self {
        let inner = Inner { directories: HashMap::new(), count: 0, generation: 0 };
        Entries { inner: Mutex::new(inner), limit }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner<Member, Ino, Attributes>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before the request whose answer [`Entries::keep`] gets.
    pub(crate) fn before(&self) -> Before {
        Before(self.lock().generation)
    }

    /// What is known of `name` in `parent` for this person.
    pub(crate) fn find(
        &self,
        member: Member,
        parent: Ino,
        name: &[u8],
        now: Instant,
    ) -> Option<Attributes> {
        let mut inner = self.lock();
        let directory = inner.directories.get_mut(&parent)?;
        let key = (member, Box::from(name));
        let entry = directory.get(&key)?;
        let (fresh, once) = (entry.until > now, entry.once);
        let attributes = fresh.then(|| entry.attributes.clone());
        if once || !fresh {
            directory.remove(&key);
            if directory.is_empty() {
                inner.directories.remove(&parent);
            }
            inner.count -= 1;
        }
        attributes
    }

    /// Keeps a directory that this person looked up.
    pub(crate) fn keep(
        &self,
        before: Before,
        member: Member,
        parent: Ino,
        name: &[u8],
        attributes: Attributes,
        now: Instant,
    ) {
        self.insert(before, (member, parent, name), attributes, (now, DIRECTORY_TTL), false);
    }

    /// Keeps an entry of a listing for one look-up.
    pub(crate) fn keep_listed(
        &self,
        before: Before,
        member: Member,
        parent: Ino,
        name: &[u8],
        attributes: Attributes,
        now: Instant,
    ) {
        self.insert(before, (member, parent, name), attributes, (now, LISTED_TTL), true);
    }

    fn insert(
        &self,
        before: Before,
        (member, parent, name): (Member, Ino, &[u8]),
        attributes: Attributes,
        (now, ttl): (Instant, Duration),
        once: bool,
    ) {
        let mut inner = self.lock();
        if inner.generation != before.0 {
            return;
        }
        if inner.count >= self.limit {
            inner.drop_old(now);
        }
        if inner.count >= self.limit {
            inner.directories.clear();
            inner.count = 0;
        }
        let entry = Entry { attributes, until: now + ttl, once };
        let directory = inner.directories.entry(parent).or_default();
        if directory.insert((member, Box::from(name)), entry).is_none() {
            inner.count += 1;
        }
    }

    /// Drops all entries of a directory, after anything in it or its rights changed.
    pub(crate) fn forget(&self, parent: Ino) {
        let mut inner = self.lock();
        inner.generation += 1;
        if let Some(directory) = inner.directories.remove(&parent) {
            inner.count -= directory.len();
        }
    }

    /// Drops everything, after an answer showed that an entry was out of date.
    pub(crate) fn forget_all(&self) {
        let mut inner = self.lock();
        inner.generation += 1;
        inner.directories.clear();
        inner.count = 0;
    }
}

impl<Member, Ino, Attributes> Inner<Member, Ino, Attributes> {
    fn drop_old(&mut self, now: Instant) {
        for directory in self.directories.values_mut() {
            directory.retain(|_, entry| entry.until > now);
        }
        self.directories.retain(|_, directory| !directory.is_empty());
        self.count = self.directories.values().map(HashMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Cache = Entries<u32, u64, &'static str>;

    #[test]
    fn an_entry_serves_only_the_person_it_was_looked_up_for() {
        let (cache, now) = (Cache::new(), Instant::now());
        cache.keep(cache.before(), 7, 1, b"home", "dir", now);
        assert_eq!(cache.find(7, 1, b"home", now), Some("dir"));
        assert_eq!(cache.find(8, 1, b"home", now), None, "rights of another person");
        assert_eq!(cache.find(7, 1, b"home", now + DIRECTORY_TTL), None, "too old");
    }

    #[test]
    fn a_listed_entry_serves_one_lookup() {
        let (cache, now) = (Cache::new(), Instant::now());
        cache.keep_listed(cache.before(), 7, 1, b"f", "file", now);
        assert_eq!(cache.find(7, 1, b"f", now), Some("file"));
        assert_eq!(cache.find(7, 1, b"f", now), None);
        assert!(cache.lock().directories.is_empty(), "memory for every directory ever listed");
    }

    #[test]
    fn an_answer_older_than_a_change_is_not_kept() {
        let (cache, now) = (Cache::new(), Instant::now());
        let before = cache.before();
        cache.forget(1);
        cache.keep(before, 7, 1, b"home", "dir", now);
        assert_eq!(cache.find(7, 1, b"home", now), None);
    }

    #[test]
    fn the_cache_never_outgrows_its_limit() {
        let (cache, now) = (Cache::with_limit(3), Instant::now());
        for n in 0..10u8 {
            cache.keep(cache.before(), 7, u64::from(n % 2), &[n], "dir", now);
            assert!(cache.lock().count <= 3);
        }
        cache.forget_all();
        assert_eq!(cache.lock().count, 0);
    }
}
