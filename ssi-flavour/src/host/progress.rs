//! Images of programs that move while they are written: who sends one begins before it is whole,
//! and the program is not stopped before somebody is there who takes it.

use crate::cluster::messages::TreeId;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most images that are waited for and that nobody writes yet: each takes a thread.
const AWAITED_MAX: usize = 64;

type Key = (TreeId, u64);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Somebody waits for it.
    Awaited,
    /// The program runs yet.
    Begun,
    /// In this folder.
    Written { folder: PathBuf, memory_bytes: u64 },
    /// All of it is there.
    Whole,
    /// There will be none.
    Failed,
}

impl Stage {
    fn is_over(&self) -> bool {
        matches!(self, Stage::Awaited | Stage::Whole | Stage::Failed)
    }
}

#[derive(Debug)]
struct One {
    stage: Stage,
    readers: usize,
}

/// The images that are being written. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    all: Mutex<BTreeMap<Key, One>>,
    changed: Condvar,
}

/// The writing side of an image: dropped before it is whole, there will be none.
#[derive(Debug)]
pub(super) struct Writing {
    progress: Progress,
    key: Key,
}

/// The reading side.
#[derive(Debug)]
pub(super) struct Reading {
    progress: Progress,
    key: Key,
}

impl Progress {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, One>> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An image will be written.
    pub(super) fn begin(&self, tree: TreeId, version: u64) -> Writing {
        let key = (tree, version);
        let mut all = self.all();
        all.entry(key).or_insert(One { stage: Stage::Begun, readers: 0 }).stage = Stage::Begun;
        drop(all);
        self.0.changed.notify_all();
        Writing { progress: self.clone(), key }
    }

    /// For who sends an image that is being written, or is about to be.
    ///
    /// # Errors
    /// That too many are waited for.
    pub(super) fn read(&self, tree: TreeId, version: u64) -> io::Result<Reading> {
        let key = (tree, version);
        let mut all = self.all();
        let awaited = all.values().filter(|one| one.stage == Stage::Awaited).count();
        if awaited >= AWAITED_MAX && !all.contains_key(&key) {
            return Err(io::Error::new(ErrorKind::WouldBlock, "too many images are waited for"));
        }
        all.entry(key).or_insert(One { stage: Stage::Awaited, readers: 0 }).readers += 1;
        drop(all);
        self.0.changed.notify_all();
        Ok(Reading { progress: self.clone(), key })
    }

    /// What is over stays so.
    fn set(&self, key: Key, stage: Stage) {
        let mut all = self.all();
        if let Some(one) = all.get_mut(&key) {
            if !one.stage.is_over() {
                one.stage = stage;
            }
            if one.readers == 0 && one.stage.is_over() {
                all.remove(&key);
            }
        }
        drop(all);
        self.0.changed.notify_all();
    }

    /// Waits until something is found, at most so long.
    fn until<T>(
        &self,
        within: Duration,
        find: impl Fn(&BTreeMap<Key, One>) -> Option<T>,
    ) -> Option<T> {
        let until = Instant::now() + within;
        let mut all = self.all();
        loop {
            if let Some(found) = find(&all) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.0.changed.wait_timeout(all, left);
            all = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Writing {
    /// Waits until somebody takes it, at most so long; whether somebody does.
    pub(super) fn awaited(&self, within: Duration) -> bool {
        let read = |all: &BTreeMap<Key, One>| {
            let over = |one: &One| one.readers > 0 || one.stage == Stage::Failed;
            all.get(&self.key).is_some_and(over).then_some(())
        };
        self.progress.until(within, read).is_some()
    }

    /// Nobody wants it any more.
    pub(super) fn give_up(&self) {
        self.progress.set(self.key, Stage::Failed);
    }

    /// It is written to this folder from now on, of a program with so much memory.
    pub(super) fn to(&self, folder: PathBuf, memory_bytes: u64) {
        self.progress.set(self.key, Stage::Written { folder, memory_bytes });
    }

    /// All of it is there.
    pub(super) fn whole(&self) {
        self.progress.set(self.key, Stage::Whole);
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let whole = self.progress.all().get(&self.key).is_none_or(|o| o.stage == Stage::Whole);
        if !whole {
            self.progress.set(self.key, Stage::Failed);
        }
    }
}

impl Reading {
    /// Waits until it is written: where, and how much memory its program has; `None`: it is whole,
    /// or nobody writes it within that time.
    ///
    /// # Errors
    /// That there will be none.
    pub(super) fn folder(&self, within: Duration) -> io::Result<Option<(PathBuf, u64)>> {
        let find = |all: &BTreeMap<Key, One>| match all.get(&self.key).map(|one| &one.stage) {
            Some(Stage::Written { folder, memory_bytes }) => {
                Some(Ok(Some((folder.clone(), *memory_bytes))))
            }
            Some(Stage::Whole) | None => Some(Ok(None)),
            Some(Stage::Failed) => Some(Err(none())),
            Some(Stage::Awaited | Stage::Begun) => None,
        };
        self.progress.until(within, find).unwrap_or(Ok(None))
    }

    /// Waits so long, or until it is whole: whether it is.
    ///
    /// # Errors
    /// That there will be none.
    pub(super) fn whole(&self, within: Duration) -> io::Result<bool> {
        let find = |all: &BTreeMap<Key, One>| match all.get(&self.key).map(|one| &one.stage) {
            Some(Stage::Whole) => Some(Ok(true)),
            Some(Stage::Failed) | None => Some(Err(none())),
            Some(_) => None,
        };
        self.progress.until(within, find).unwrap_or(Ok(false))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut all = self.progress.all();
        if let Some(one) = all.get_mut(&self.key) {
            one.readers = one.readers.saturating_sub(1);
            if one.readers == 0 && one.stage.is_over() {
                all.remove(&self.key);
            }
        }
    }
}

fn none() -> io::Error {
    io::Error::new(ErrorKind::NotFound, "the program was not saved")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: TreeId = TreeId(7);
    const NOW: Duration = Duration::ZERO;

    #[test]
    fn who_comes_first_waits_for_the_other() {
        // wrong: a program would stand still while the way to its new node is made
        let progress = Progress::default();
        let writing = progress.begin(TREE, 1);
        assert!(!writing.awaited(NOW));
        let reading = progress.read(TREE, 1).unwrap();
        assert!(writing.awaited(NOW));
        assert_eq!(reading.folder(NOW).unwrap(), None);
        writing.to("/images/7/1".into(), 100);
        assert_eq!(reading.folder(NOW).unwrap(), Some(("/images/7/1".into(), 100)));
        assert!(!reading.whole(NOW).unwrap());
        writing.whole();
        assert!(reading.whole(NOW).unwrap());
        drop(reading);
        let early = progress.read(TREE, 2).unwrap();
        assert!(progress.begin(TREE, 2).awaited(NOW));
        drop(early);
        assert!(progress.all().is_empty(), "nothing is left of any");
    }

    #[test]
    fn what_was_given_up_is_no_image() {
        // wrong: who takes half an image would wait for the rest, or take it for a whole one
        let progress = Progress::default();
        let writing = progress.begin(TREE, 1);
        let reading = progress.read(TREE, 1).unwrap();
        writing.to("/images/7/1".into(), 100);
        drop(writing);
        assert!(reading.folder(NOW).is_err() && reading.whole(NOW).is_err());
        drop(reading);
        assert!(progress.all().is_empty());
    }

    #[test]
    fn few_wait_for_what_nobody_writes() {
        // wrong: another node could take all threads of this one
        let progress = Progress::default();
        let all: Vec<Reading> =
            (0..AWAITED_MAX as u64).map(|n| progress.read(TREE, n).unwrap()).collect();
        assert!(progress.read(TREE, 1000).is_err());
        drop(all);
        assert!(progress.read(TREE, 1000).is_ok());
    }
}
