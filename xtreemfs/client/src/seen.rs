//! Which inode a name stood for when it was last looked at, so that after a lost answer the client
//! can tell whether what has the name now is what it wanted to change.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Ino;
use crate::limits::SEEN_NAMES_MAX;

/// Inodes by directory and name.
type Names = HashMap<(Ino, Box<[u8]>), Ino>;

/// Names and their inodes; never a reason to believe that a name is still there.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<Names>);

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a name stands for. When there are too many, all are forgotten.
    pub(crate) fn note(&self, (parent, name): (Ino, &[u8]), ino: Ino) {
        let mut seen = self.lock();
        if seen.len() >= SEEN_NAMES_MAX {
            seen.clear();
        }
        seen.insert((parent, Box::from(name)), ino);
    }

    /// What a name stood for, if that is remembered.
    pub(crate) fn find(&self, (parent, name): (Ino, &[u8])) -> Option<Ino> {
        self.lock().get(&(parent, Box::from(name))).copied()
    }

    /// Forgets a name that was removed or moved away.
    pub(crate) fn forget(&self, (parent, name): (Ino, &[u8])) {
        self.lock().remove(&(parent, Box::from(name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a long-lived mount would grow with every name that was ever looked at.
    #[test]
    fn it_never_outgrows_its_limit() {
        let seen = Seen::default();
        for n in 0..=SEEN_NAMES_MAX as u64 {
            seen.note((Ino(1), &n.to_be_bytes()), Ino(n));
        }
        assert_eq!(seen.lock().len(), 1);
        let last = (SEEN_NAMES_MAX as u64).to_be_bytes();
        assert_eq!(seen.find((Ino(1), &last)), Some(Ino(SEEN_NAMES_MAX as u64)));
    }
}
