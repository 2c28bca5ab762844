//! How often others may have the site of an account's person asked about it. A site grants a person
//! so many tries at a machine (`NODE_LOGIN` and `PAIR` of the CDA), and a machine so many for all
//! people (`ADDRESS`); what others spend here is less of both, so that some are left to the
//! accounts' own users.

use std::collections::BTreeMap;
use std::time::Duration;
use xos_base::{Error, Millis};

/// Tries of one account at once.
const BURST: u32 = 3;
/// Then one each so long: half of what the site grants.
const EVERY: Duration = Duration::from_secs(60);
/// Tries of all accounts together at once, and then: half of what the site grants.
const ALL_BURST: u32 = 25;
const ALL_EVERY: Duration = Duration::from_secs(4);

/// When others have all tries again (GCRA, ITU-T I.371).
#[derive(Default)]
pub(super) struct Tries {
    /// Those of each account: no more than those of all together bring about.
    accounts: BTreeMap<u32, Millis>,
    /// Those of all accounts.
    all: Millis,
}

/// The new time for one more try.
fn taken(
    full_at: Millis,
    (burst, every): (u32, Duration),
    now: Millis,
    what: &str,
) -> Result<Millis, Error> {
    let full_at = full_at.max(now);
    let wait = full_at.since(now).saturating_sub(every * (burst - 1));
    if wait.is_zero() {
        return Ok(full_at.plus(every));
    }
    let seconds = wait.as_secs() + 1;
    Err(Error::limited(format!("others tried {what} too often on this machine"))
        .hint(format!("try again in {seconds} seconds")))
}

impl Tries {
    /// Spends one.
    ///
    /// # Errors
    /// [`xos_base::Kind::Limited`] with how long to wait.
    pub(super) fn take(&mut self, uid: u32, now: Millis) -> Result<(), Error> {
        self.accounts.retain(|_, full_at| *full_at > now);
        let own = self.accounts.get(&uid).copied().unwrap_or(now);
        let own = taken(own, (BURST, EVERY), now, "this account")?;
        self.all = taken(self.all, (ALL_BURST, ALL_EVERY), now, "accounts")?;
        self.accounts.insert(uid, own);
        Ok(())
    }

    /// The try was right: it costs nothing.
    pub(super) fn give_back(&mut self, uid: u32) {
        if let Some(full_at) = self.accounts.get_mut(&uid) {
            *full_at = full_at.minus(EVERY);
            self.all = self.all.minus(ALL_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_000_000);

    /// If it failed, strangers would spend all that a person's site grants them at a machine.
    #[test]
    fn others_have_a_few_tries_of_each_account() {
        let mut tries = Tries::default();
        let mut may = |uid, now| tries.take(uid, now).is_ok();
        assert!((0..BURST).all(|_| may(7, NOW)) && !may(7, NOW));
        assert!(may(8, NOW), "one account's tries are another's");
        let later = NOW.plus(EVERY);
        assert!(may(7, later) && !may(7, later));
        tries.give_back(7);
        tries.take(7, later).unwrap();
    }

    /// If it failed, strangers would spend all that a site grants a machine, and nobody could prove
    /// themselves there by a password; or they would fill its memory.
    #[test]
    fn others_have_a_few_tries_of_all_accounts_together() {
        let mut tries = Tries::default();
        let spend = |tries: &mut Tries, now| {
            (0..1000).take_while(|uid| tries.take(*uid, now).is_ok()).count()
        };
        assert_eq!(spend(&mut tries, NOW), ALL_BURST as usize);
        let refused = tries.take(1001, NOW).unwrap_err();
        assert_eq!(refused.kind, xos_base::Kind::Limited, "{refused}");
        // What is refused costs the account nothing, and a right one gives back both.
        assert!(!tries.accounts.contains_key(&1001));
        tries.give_back(0);
        tries.give_back(1001);
        tries.take(1001, NOW).unwrap();
        assert!(tries.take(1002, NOW).is_err());
        let next = NOW.plus(ALL_EVERY);
        tries.take(1002, next).unwrap();
        assert!(tries.take(1003, next).is_err());
        let later = next.plus(ALL_EVERY * ALL_BURST).plus(EVERY * BURST);
        tries.take(1003, later).unwrap();
        assert_eq!(tries.accounts.len(), 1, "what is over is kept");
    }
}
