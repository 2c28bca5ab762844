//! How long what the core says counts while nothing is heard of it.

use super::{Vo, Vos};
use std::time::Duration;
use xos_api::vom::{AccountState, GRACE_S_DEFAULT, LEASE_S_DEFAULT};
use xos_base::{Millis, VoId};

/// When the core was heard last, by the wall's clock as it stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// By that clock which says longer ago: from it on work is held.
    pub hold: Millis,
    /// By the clock that nobody can set, where it counts from the same start: from it on work is
    /// ended, which cannot be undone.
    pub end: Millis,
}

impl From<Millis> for Heard {
    fn from(at: Millis) -> Heard {
        Heard { hold: at, end: at }
    }
}

impl Vo {
    /// How long accounts of the VO are good when the core is unheard.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_s.unwrap_or(LEASE_S_DEFAULT))
    }

    /// When the lease ends, and when what is held then is ended, if the core was heard last at
    /// `heard`.
    fn ends(&self, heard: Heard) -> (Millis, Millis) {
        let grace = Duration::from_secs(self.grace_s.unwrap_or(GRACE_S_DEFAULT));
        (heard.hold.plus(self.lease()), heard.end.plus(self.lease()).plus(grace))
    }
}

impl Vos {
    /// Suspends here the VOs whose lease is over at `now`, and ends those whose grace is over as
    /// well, when the core was heard last at `heard`: until the core tells of each again, since it
    /// may have been suspended meanwhile. Whether there are new ones.
    pub fn lapse(&mut self, heard: impl Into<Heard>, now: Millis) -> bool {
        let (mut new, heard) = (false, heard.into());
        for (id, vo) in &self.vos {
            let (lease, grace) = vo.ends(heard);
            if lease > now {
                continue;
            }
            let before = self.lapsed.get(id).copied();
            // Who was heard for a moment, and told nothing, does not bring back what was ended.
            let over = grace <= now || before == Some(true);
            if before != Some(over) {
                self.lapsed.insert(id.clone(), over);
                new = true;
            }
        }
        new
    }

    /// The core has told of all VOs: those of which it has told since the stream to it began are
    /// good again. Which of them were not.
    pub fn told_all(&mut self) -> Vec<VoId> {
        let fresh = &self.fresh;
        let back = self.lapsed.keys().filter(|id| fresh.contains(*id)).cloned().collect();
        self.lapsed.retain(|id, _| !fresh.contains(id));
        back
    }

    /// The stream to the core is over: what changes from now on is not heard.
    pub fn stream_over(&mut self) {
        self.fresh.clear();
    }

    /// When the next lease or grace ends if the core stays unheard since `heard`.
    pub fn next_lapse(&self, heard: impl Into<Heard>) -> Option<Millis> {
        let heard = heard.into();
        let lives = self.vos.iter().filter(|(_, vo)| vo.state != AccountState::Ended);
        let next = |(id, vo): (&VoId, &Vo)| match (self.lapsed.get(id), vo.ends(heard)) {
            (None, (lease, _)) => Some(lease),
            (Some(false), (_, grace)) => Some(grace),
            (Some(true), _) => None,
        };
        lives.filter_map(next).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{self, BASE, member};
    use xos_api::vom::VoAccounts;

    const OTHER: u32 = BASE + 65_536;

    fn accounts(vo: &str, base: u32, lease_s: Option<u64>, state: AccountState) -> VoAccounts {
        let (vo, ann) = (vo.parse().unwrap(), member(1, "ann", "active"));
        VoAccounts { vo, base, lease_s, state, ..testing::accounts(vec![ann]) }
    }

    /// If it failed, sessions and units would go on at a node that is cut off, for members who were
    /// removed long ago; or they would go on before it is known whether they still may.
    #[test]
    fn who_is_unheard_for_the_lease_is_held_until_told_of_again() {
        use AccountState::{Active, Suspended};
        let mut vos = Vos::default();
        vos.apply(accounts("demo.rennes", BASE, Some(300), Active));
        vos.apply(accounts("other.rennes", OTHER, None, Active));
        let heard = Millis::from_secs(1000);
        let at = Millis::from_secs;
        let states =
            |vos: &Vos| [BASE + 1, OTHER + 1].map(|uid| vos.state_of(uid, at(9999)).unwrap());
        assert_eq!(vos.next_lapse(heard), Some(at(1300)));
        assert!(!vos.lapse(heard, at(1300).minus(Duration::from_millis(1))));
        assert_eq!(states(&vos), [Active, Active]);
        assert!(vos.lapse(heard, at(1300)));
        assert_eq!(states(&vos), [Suspended, Active]);
        assert!(!vos.lapse(heard, at(1301)), "nothing new");
        assert_eq!(vos.next_lapse(heard), Some(at(4600)), "an hour unless it was set");
        assert!(vos.lapse(heard, at(4600)));
        let day = 24 * 3600;
        assert_eq!(states(&vos), [Suspended, Suspended]);
        assert_eq!(vos.next_lapse(heard), Some(at(1300 + day)), "a day unless it was set");
        // The core is heard, and tells of one, then of the other, which was suspended meanwhile.
        assert!(!vos.lapse(at(5000), at(5000)));
        assert_eq!(states(&vos), [Suspended, Suspended]);
        vos.stream_over();
        vos.apply(accounts("demo.rennes", BASE, Some(300), Active));
        assert_eq!(states(&vos), [Suspended, Suspended], "not all is told yet");
        let back = vos.told_all();
        assert!(back.len() == 1 && back[0].as_str() == "demo.rennes", "{back:?}");
        assert_eq!(states(&vos), [Active, Suspended]);
        vos.apply(accounts("other.rennes", OTHER, None, Suspended));
        vos.told_all();
        assert_eq!(states(&vos), [Active, Suspended]);
    }

    /// If it failed, work of members who were removed would be kept for good at a node that is cut
    /// off, or be ended before its time, or go on when somebody plugs the cable in for a moment.
    #[test]
    fn what_is_held_for_the_grace_is_ended() {
        use AccountState::{Active, Ended, Suspended};
        let mut vos = Vos::default();
        let mut short = accounts("demo.rennes", BASE, Some(300), Active);
        short.grace_s = Some(60);
        vos.apply(short.clone());
        vos.apply(accounts("other.rennes", OTHER, Some(300), Active));
        let (heard, at) = (Millis::from_secs(1000), Millis::from_secs);
        let states =
            |vos: &Vos| [BASE + 1, OTHER + 1].map(|uid| vos.state_of(uid, at(9999)).unwrap());
        assert!(vos.lapse(heard, at(1300)) && !vos.lapse(heard, at(1359)));
        assert_eq!(states(&vos), [Suspended, Suspended]);
        assert!(!vos.has_left(BASE + 1, at(1359)));
        assert_eq!(vos.next_lapse(heard), Some(at(1360)));
        assert!(vos.lapse(heard, at(1360)) && !vos.lapse(heard, at(1361)));
        assert_eq!(states(&vos), [Ended, Suspended]);
        assert!(vos.has_left(BASE + 1, at(1360)) && !vos.has_left(OTHER + 1, at(1360)));
        assert!(vos.held([BASE + 1, OTHER + 1], at(1360)).iter().eq(&[OTHER + 1]));
        // A daemon that is started anew finds it so at once.
        let mut again: Vos = serde_json::from_str(&serde_json::to_string(&vos).unwrap()).unwrap();
        assert!(again.lapse(heard, at(1360)));
        assert_eq!(states(&again), [Ended, Suspended]);
        // The core was there for a moment and told nothing.
        assert!(!vos.lapse(at(1400), at(1750)));
        assert_eq!(states(&vos), [Ended, Suspended]);
        vos.stream_over();
        vos.apply(short);
        vos.told_all();
        assert_eq!(states(&vos), [Active, Suspended]);
        // A clock that was set forward holds, and does not end.
        let heard = Heard { hold: Millis(0), end: at(1299) };
        assert!(vos.lapse(heard, at(1300)));
        assert_eq!(states(&vos), [Suspended, Suspended]);
        vos.told_all();
        let heard = Millis::from_secs(1000);
        // No grace: it is ended with the lease.
        let mut none = accounts("demo.rennes", BASE, Some(300), Active);
        none.grace_s = Some(0);
        vos.apply(none);
        assert!(vos.lapse(heard, at(1300)));
        assert_eq!(states(&vos), [Ended, Suspended]);
    }

    /// If it failed, a node that was brought up to date would not read what it kept before, or one
    /// that is started anew would forget a lease.
    #[test]
    fn the_lease_is_kept_in_the_file_and_what_lapsed_is_not() {
        use AccountState::Active;
        let mut vos = Vos::default();
        vos.apply(accounts("demo.rennes", BASE, None, Active));
        let former = serde_json::to_string(&vos).unwrap();
        assert!(!former.contains("lease") && !former.contains("lapsed"), "{former}");
        vos.apply(accounts("demo.rennes", BASE, Some(600), Active));
        let kept = serde_json::to_string(&vos).unwrap();
        assert!(vos.lapse(Millis(0), Millis::from_secs(600)));
        assert_eq!(serde_json::to_string(&vos).unwrap(), kept);
        let mut read: Vos = serde_json::from_str(&kept).unwrap();
        assert_eq!(read.state_of(BASE + 1, Millis(0)), Some(Active));
        assert!(!read.lapse(Millis(0), Millis::from_secs(599)));
        assert!(read.lapse(Millis(0), Millis::from_secs(600)));
        assert!(serde_json::from_str::<Vos>(&former).is_ok());
    }
}
