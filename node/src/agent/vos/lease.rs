//! How long what the core says counts while nothing is heard of it.

use super::{Vo, Vos};
use std::time::Duration;
use xos_api::vom::{AccountState, LEASE_S_DEFAULT};
use xos_base::Millis;

impl Vo {
    /// How long accounts of the VO are good when the core is unheard.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_s.unwrap_or(LEASE_S_DEFAULT))
    }
}

impl Vos {
    /// Suspends here the VOs whose lease is over at `now`, when the core was heard last at `heard`:
    /// until the core tells of each again, since it may have been suspended meanwhile. Whether
    /// there are new ones.
    pub fn lapse(&mut self, heard: Millis, now: Millis) -> bool {
        let before = self.lapsed.len();
        let over = self.vos.iter().filter(|(_, vo)| heard.plus(vo.lease()) <= now);
        self.lapsed.extend(over.map(|(id, _)| id.clone()));
        self.lapsed.len() > before
    }

    /// When the next lease ends if the core stays unheard since `heard`.
    pub fn next_lapse(&self, heard: Millis) -> Option<Millis> {
        let lives = |vo: &Vo| vo.state != AccountState::Ended;
        let left = self.vos.iter().filter(|(id, vo)| lives(vo) && !self.lapsed.contains(*id));
        left.map(|(_, vo)| heard.plus(vo.lease())).min()
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
        assert_eq!((states(&vos), vos.next_lapse(heard)), ([Suspended, Suspended], None));
        // The core is heard, and tells of one, then of the other, which was suspended meanwhile.
        assert!(!vos.lapse(at(5000), at(5000)));
        assert_eq!(states(&vos), [Suspended, Suspended]);
        vos.apply(accounts("demo.rennes", BASE, Some(300), Active));
        assert_eq!(states(&vos), [Active, Suspended]);
        vos.apply(accounts("other.rennes", OTHER, None, Suspended));
        assert_eq!(states(&vos), [Active, Suspended]);
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
