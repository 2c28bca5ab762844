//! How many connections there are, and whose: nobody keeps root out, nor another user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most connections at a time.
const ALL_MAX: usize = 64;
/// Of these, those that are not root's: the others are kept for root.
const OTHERS_MAX: usize = 48;
/// Of these, those of one user.
const USER_MAX: usize = 8;

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    others: usize,
    by: HashMap<u32, usize>,
}

/// The places of connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

/// One place, as long as it lives.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    /// Whose it is; `None`: root's.
    user: Option<u32>,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of `uid`, if there is one for it.
    pub(super) fn take(&self, uid: u32, root: bool) -> Option<Place> {
        let mut taken = self.lock();
        if taken.all >= ALL_MAX {
            return None;
        }
        let user = (!root).then_some(uid);
        if let Some(uid) = user {
            let own = taken.by.get(&uid).copied().unwrap_or(0);
            if taken.others >= OTHERS_MAX || own >= USER_MAX {
                return None;
            }
            taken.others += 1;
            taken.by.insert(uid, own + 1);
        }
        taken.all += 1;
        drop(taken);
        Some(Place { places: self.clone(), user })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        let Some(uid) = self.user else { return };
        taken.others -= 1;
        if let Some(own) = taken.by.get_mut(&uid) {
            *own -= 1;
            if *own == 0 {
                taken.by.remove(&uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, local users could keep one another, or root and so everybody, from signing in.
    #[test]
    fn users_have_a_share_and_root_always_some() {
        let places = Places::default();
        let mine: Vec<_> = (0..USER_MAX).map(|_| places.take(1000, false).unwrap()).collect();
        assert!(places.take(1000, false).is_none());
        let mut others = Vec::new();
        for uid in 2000.. {
            match places.take(uid, false) {
                Some(place) => others.push(place),
                None => break,
            }
        }
        assert_eq!(others.len(), OTHERS_MAX - USER_MAX);
        let root: Vec<_> =
            (0..ALL_MAX - OTHERS_MAX).map(|_| places.take(0, true).unwrap()).collect();
        assert!(places.take(0, true).is_none());
        drop((mine, root));
        assert!(places.take(0, true).is_some() && places.take(1000, false).is_some());
        drop(others);
        let taken = places.lock();
        assert_eq!((taken.all, taken.others, taken.by.len()), (0, 0, 0));
    }
}
