//! How many connections there are, and whose: nobody keeps root out, nor sshd's question for
//! principals, nor another user. Who says nothing makes way for who comes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// The user as whom sshd runs `xos-principals` (`xos.conf`): nobody, whose number is the same on
/// every Linux, and below all of `/etc/subuid`, which begins at 100,000 (useradd(8)).
const NOBODY: u32 = 65_534;
/// Most connections of one user who is neither root nor [`NOBODY`].
const USER_MAX: usize = 8;

/// Among whom places are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// Root's programs, with calls that are answered at once.
    Root,
    /// Those of root's that wait for a person.
    Waiting,
    /// [`NOBODY`].
    Principals,
    /// Everybody else.
    Others,
}

impl Share {
    fn of(uid: u32, root: bool) -> Share {
        match uid {
            _ if root => Share::Root,
            NOBODY => Share::Principals,
            _ => Share::Others,
        }
    }

    /// Most connections at a time.
    const fn most(self) -> usize {
        match self {
            // More than all proofs that are under way, as logins bound them.
            Share::Root | Share::Waiting => 32,
            Share::Principals => 16,
            Share::Others => 40,
        }
    }
}

#[derive(Debug)]
struct Held {
    share: Share,
    uid: u32,
    /// It has not sent its call yet.
    idle: bool,
    gone: CancellationToken,
}

/// Those that are taken, by number: the oldest first.
#[derive(Debug, Default)]
struct Taken {
    last: u64,
    all: BTreeMap<u64, Held>,
}

impl Taken {
    fn count(&self, is: impl Fn(&Held) -> bool) -> usize {
        self.all.values().filter(|h| is(h)).count()
    }

    /// Ends an idle one of these: the oldest of the user who holds most. Whether there was one.
    fn make_way(&mut self, among: impl Fn(&Held) -> bool) -> bool {
        let mut by = HashMap::<u32, usize>::new();
        for held in self.all.values().filter(|h| among(h)) {
            *by.entry(held.uid).or_default() += 1;
        }
        let idle = self.all.iter().filter(|(_, h)| h.idle && among(h));
        // The first is the oldest, and `max_by_key` would take the last.
        let most = idle.rev().max_by_key(|(_, h)| by.get(&h.uid));
        let found = most.map(|(number, _)| *number);
        let ended = found.and_then(|number| self.all.remove(&number));
        if let Some(held) = &ended {
            held.gone.cancel();
        }
        ended.is_some()
    }
}

/// The places of connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

/// One place, as long as it lives.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    number: u64,
    gone: CancellationToken,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of `uid`, if there is one for it.
    pub(super) fn take(&self, uid: u32, root: bool) -> Option<Place> {
        let share = Share::of(uid, root);
        let mut taken = self.lock();
        let own = |h: &Held| h.share == share && h.uid == uid;
        let all = |h: &Held| h.share == share;
        let made = if share == Share::Others && taken.count(own) >= USER_MAX {
            taken.make_way(own)
        } else {
            taken.count(all) < share.most() || taken.make_way(all)
        };
        if !made {
            return None;
        }
        taken.last += 1;
        let (number, gone) = (taken.last, CancellationToken::new());
        taken.all.insert(number, Held { share, uid, idle: true, gone: gone.clone() });
        drop(taken);
        Some(Place { places: self.clone(), number, gone })
    }
}

impl Place {
    /// Returns when the place was given to somebody else.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// The call is there: from now on the place is kept. One that `waits` for a person takes none
    /// of those of calls that are answered at once; `false`: there are too many of them.
    pub(super) fn asked(&self, waits: bool) -> bool {
        let mut taken = self.places.lock();
        let waiting = Share::Waiting;
        if waits && taken.count(|h| h.share == waiting) >= waiting.most() {
            return false;
        }
        if let Some(held) = taken.all.get_mut(&self.number) {
            held.idle = false;
            if waits {
                held.share = waiting;
            }
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place whose call is there.
    fn asked(places: &Places, uid: u32, root: bool) -> Option<Place> {
        places.take(uid, root).inspect(|place| assert!(place.asked(false)))
    }

    /// If it failed, local users could keep one another, sshd, or root and so everybody, from
    /// signing in.
    #[test]
    fn users_have_a_share_and_root_and_sshd_always_some() {
        let places = Places::default();
        let mine: Vec<_> = (0..USER_MAX).map(|_| asked(&places, 1000, false).unwrap()).collect();
        assert!(asked(&places, 1000, false).is_none());
        let others: Vec<_> = (2000..).map_while(|uid| asked(&places, uid, false)).collect();
        assert_eq!(others.len(), Share::Others.most() - USER_MAX);
        for (share, uid, root) in [(Share::Root, 0, true), (Share::Principals, NOBODY, false)] {
            let all: Vec<_> =
                (0..share.most()).map(|_| asked(&places, uid, root).unwrap()).collect();
            assert!(asked(&places, uid, root).is_none());
            drop(all);
            assert!(asked(&places, uid, root).is_some());
        }
        drop(mine);
        assert!(asked(&places, 1000, false).is_some());
        drop(others);
        assert!(places.lock().all.is_empty());
    }

    /// If it failed, one user with a range of numbers, or who stops a program of root's before it
    /// asks, would hold all places and say nothing.
    #[test]
    fn who_says_nothing_makes_way_for_who_comes() {
        let places = Places::default();
        let honest = asked(&places, 1000, false).unwrap();
        let first = places.take(3000, false).unwrap();
        let second = places.take(3000, false).unwrap();
        let left = Share::Others.most() - 3;
        let range: Vec<_> =
            (100_000..).take(left).map(|uid| places.take(uid, false).unwrap()).collect();
        let new = places.take(1001, false).unwrap();
        assert!(first.gone.is_cancelled(), "not the oldest of who holds most");
        assert!(!second.gone.is_cancelled() && !honest.gone.is_cancelled());
        drop(first);
        let another = places.take(1002, false).unwrap();
        assert!(second.gone.is_cancelled(), "not the oldest");
        assert!(!new.gone.is_cancelled() && !honest.gone.is_cancelled());
        drop((another, range, second));

        let own: Vec<_> = (0..=USER_MAX).map(|_| places.take(1000, false).unwrap()).collect();
        assert_eq!(own.iter().filter(|p| p.gone.is_cancelled()).count(), 2);
        let most = Share::Root.most();
        let root: Vec<_> = (0..=most).map(|_| places.take(0, true).unwrap()).collect();
        assert!(root[0].gone.is_cancelled() && !root[1].gone.is_cancelled());
    }

    /// If it failed, people who take their time over a proof would keep all others from signing in
    /// by any way.
    #[test]
    fn who_waits_for_a_person_takes_no_place_of_who_does_not() {
        let places = Places::default();
        let waits = |_| {
            let place = places.take(0, true).unwrap();
            assert!(place.asked(true));
            place
        };
        let waiting: Vec<_> = (0..Share::Waiting.most()).map(waits).collect();
        let one_more = places.take(0, true).unwrap();
        assert!(!one_more.asked(true), "those who wait are not bounded");
        drop(one_more);
        let all: Vec<_> =
            (0..Share::Root.most()).map(|_| asked(&places, 0, true).unwrap()).collect();
        drop((all, waiting));
        assert!(places.lock().all.is_empty());
    }
}
