//! How often others may have the site of an account's person asked about it. A site grants a person
//! so many tries at a machine (`NODE_LOGIN` and `PAIR` of the CDA); what others spend here is less,
//! so that some are left to the account's own user.

use std::collections::BTreeMap;
use std::time::Duration;
use xos_base::{Error, Millis};

/// Tries at once.
const BURST: u32 = 3;
/// Then one each so long: half of what the site grants.
const EVERY: Duration = Duration::from_secs(60);
/// Most accounts that others tried lately.
const ACCOUNTS_MAX: usize = 1000;

/// For each account the time at which others have all tries again (GCRA, ITU-T I.371).
#[derive(Default)]
pub(super) struct Tries(BTreeMap<u32, Millis>);

impl Tries {
    /// Spends one.
    ///
    /// # Errors
    /// [`xos_base::Kind::Limited`] with how long to wait.
    pub(super) fn take(&mut self, uid: u32, now: Millis) -> Result<(), Error> {
        self.0.retain(|_, full_at| *full_at > now);
        let full_at = self.0.get(&uid).copied();
        if full_at.is_none() && self.0.len() >= ACCOUNTS_MAX {
            return Err(Error::limited("too many accounts are tried on this machine")
                .hint("try again in a few minutes"));
        }
        let full_at = full_at.unwrap_or(now);
        let wait = full_at.since(now).saturating_sub(EVERY * (BURST - 1));
        if !wait.is_zero() {
            let seconds = wait.as_secs() + 1;
            return Err(Error::limited("others tried this account too often on this machine")
                .hint(format!("try again in {seconds} seconds")));
        }
        self.0.insert(uid, full_at.plus(EVERY));
        Ok(())
    }

    /// The try was right: it costs nothing.
    pub(super) fn give_back(&mut self, uid: u32) {
        if let Some(full_at) = self.0.get_mut(&uid) {
            *full_at = full_at.minus(EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_000_000);

    /// If it failed, strangers would spend all that a person's site grants them at a machine, or
    /// fill its memory.
    #[test]
    fn others_have_a_few_tries_of_each_account() {
        let mut tries = Tries::default();
        let mut taken = |uid, now| tries.take(uid, now).is_ok();
        assert!((0..BURST).all(|_| taken(7, NOW)) && !taken(7, NOW));
        assert!(taken(8, NOW), "one account's tries are another's");
        let later = NOW.plus(EVERY);
        assert!(taken(7, later) && !taken(7, later));
        tries.give_back(7);
        tries.take(7, later).unwrap();
        for uid in 100..100 + u32::try_from(ACCOUNTS_MAX).unwrap() {
            tries.take(uid, later).ok();
        }
        assert_eq!(tries.0.len(), ACCOUNTS_MAX);
        assert!(tries.take(1, later).is_err());
        tries.take(1, later.plus(EVERY * BURST)).unwrap();
        assert_eq!(tries.0.len(), 1);
    }
}
