//! How many ghosts may be attached to the spools of a node.

use super::spools::locked;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

/// Most ghosts that are attached to the spools of a node at once.
pub const GUESTS_MAX: usize = 1024;
/// Most of these of one person.
pub const OWN_GUESTS_MAX: usize = 256;

/// How many ghosts of each person are attached, by uid. A clone is the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<BTreeMap<u32, usize>>>);

impl Places {
    /// One more.
    ///
    /// # Errors
    /// That there are too many, of all people or of this one.
    pub fn take(&self, uid: u32) -> io::Result<Place> {
        let mut guests = locked(&self.0);
        if guests.values().sum::<usize>() >= GUESTS_MAX {
            return Err(io::Error::other(format!("{GUESTS_MAX} programs are followed already")));
        }
        let own = guests.entry(uid).or_default();
        if *own >= OWN_GUESTS_MAX {
            let why = format!("user {uid} follows {OWN_GUESTS_MAX} programs already");
            return Err(io::Error::other(why));
        }
        *own += 1;
        Ok(Place { all: self.clone(), uid })
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    all: Places,
    uid: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut guests = locked(&self.all.0);
        if let Some(own) = guests.get_mut(&self.uid) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                guests.remove(&self.uid);
            }
        }
    }
}
