//! People who prove themselves at this moment, in PAM's auth phase: a bounded table in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use xos_api::cda::Secret;
use xos_base::{Error, Millis, PersonId, VoId};

/// Most that are under way: each may hold a connection of root's, and others are to be left.
const ATTEMPTS_MAX: usize = 24;
/// Most of one account; one more ends the oldest.
const ACCOUNT_MAX: usize = 3;
/// After how long without a call whoever waits for another device is taken to be gone.
const IDLE_MAX: Duration = Duration::from_secs(40);

/// What is waited for.
#[derive(Clone)]
pub(super) enum Waits {
    /// For what the person types at this machine.
    Typed,
    /// For what they decide on another device.
    Code {
        /// Names it to the core.
        secret: Secret,
        /// Before each question to the core.
        pause: Duration,
    },
}

/// Somebody who is waited for.
#[derive(Clone)]
pub(super) struct Attempt {
    pub(super) user: String,
    pub(super) uid: u32,
    pub(super) service: String,
    pub(super) person: PersonId,
    pub(super) vo: VoId,
    pub(super) waits: Waits,
    pub(super) expires: Millis,
    /// When it was begun, and asked after last.
    pub(super) begun: Millis,
    pub(super) asked: Millis,
}

impl Attempt {
    fn stays(&self, now: Millis) -> bool {
        let here = matches!(self.waits, Waits::Typed) || now < self.asked.plus(IDLE_MAX);
        here && now < self.expires
    }
}

#[derive(Default)]
struct Table {
    last: u64,
    all: BTreeMap<u64, Attempt>,
}

/// Those that are under way. Only root asks, so that a number is name enough.
#[derive(Default)]
pub(super) struct Attempts(Mutex<Table>);

impl Attempts {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for one more of an account.
    ///
    /// # Errors
    /// [`xos_base::Kind::Limited`] when there are too many of others.
    pub(super) fn make_room(&self, uid: u32, now: Millis) -> Result<(), Error> {
        let mut table = self.table();
        table.all.retain(|_, a| a.stays(now));
        let own: Vec<u64> =
            table.all.iter().filter(|(_, a)| a.uid == uid).map(|(n, _)| *n).collect();
        if own.len() >= ACCOUNT_MAX {
            // Numbers grow, so the first is the oldest.
            table.all.remove(&own[0]);
        }
        if table.all.len() >= ATTEMPTS_MAX {
            return Err(Error::limited("too many people prove themselves at this moment here")
                .hint("try again in a minute"));
        }
        Ok(())
    }

    /// Keeps one; its name.
    pub(super) fn put(&self, attempt: Attempt) -> String {
        let mut table = self.table();
        table.last += 1;
        let number = table.last;
        table.all.insert(number, attempt);
        number.to_string()
    }

    /// One that somebody asks after, while it is time.
    pub(super) fn ask(&self, name: &str, now: Millis) -> Option<Attempt> {
        let mut table = self.table();
        let attempt = table.all.get_mut(&name.parse().ok()?).filter(|a| now < a.expires)?;
        attempt.asked = now;
        Some(attempt.clone())
    }

    /// It waits for something else from now on.
    pub(super) fn wait(&self, name: &str, (waits, expires): (Waits, Millis), now: Millis) {
        let Ok(number) = name.parse::<u64>() else { return };
        if let Some(attempt) = self.table().all.get_mut(&number) {
            (attempt.waits, attempt.expires, attempt.asked) = (waits, expires, now);
        }
    }

    /// It is over.
    pub(super) fn end(&self, name: &str) {
        if let Ok(number) = name.parse::<u64>() {
            self.table().all.remove(&number);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const NOW: Millis = Millis(1_000_000);

    /// Somebody who waits for another device.
    pub(in crate::agent::logins) fn attempt(uid: u32, now: Millis) -> Attempt {
        Attempt {
            user: "ann.demo.rennes".into(),
            uid,
            service: "sudo".into(),
            person: "ann@rennes".parse().unwrap(),
            vo: "demo.rennes".parse().unwrap(),
            waits: Waits::Code { secret: Secret("s".into()), pause: Duration::from_secs(1) },
            expires: now.plus(Duration::from_secs(600)),
            begun: now,
            asked: now,
        }
    }

    /// If it failed, one account's attempts would keep all others from proving themselves, or those
    /// who went away would.
    #[test]
    fn attempts_are_bounded_for_each_account_and_end_when_nobody_asks() {
        let attempts = Attempts::default();
        let mut names = Vec::new();
        for _ in 0..=ACCOUNT_MAX {
            attempts.make_room(7, NOW).unwrap();
            names.push(attempts.put(attempt(7, NOW)));
        }
        assert!(attempts.ask(&names[0], NOW).is_none(), "the oldest stayed");
        assert!(attempts.ask(&names[1], NOW).is_some());
        let others = ATTEMPTS_MAX - ACCOUNT_MAX;
        for uid in 0..u32::try_from(others).unwrap() {
            attempts.make_room(1000 + uid, NOW).unwrap();
            attempts.put(attempt(1000 + uid, NOW));
        }
        assert_eq!(attempts.make_room(8, NOW).unwrap_err().kind, xos_base::Kind::Limited);
        let later = NOW.plus(IDLE_MAX);
        attempts.make_room(8, later).unwrap();
        assert!(attempts.table().all.is_empty(), "who went away holds a place");
        attempts.end("nonsense");
        assert!(attempts.ask("nonsense", later).is_none());
    }

    /// If it failed, who types slowly would have to begin anew, or a code would count for ever.
    #[test]
    fn who_types_has_their_time_and_a_code_has_its_own() {
        let attempts = Attempts::default();
        let name = attempts.put(Attempt { waits: Waits::Typed, ..attempt(7, NOW) });
        let later = NOW.plus(IDLE_MAX);
        attempts.make_room(8, later).unwrap();
        assert!(attempts.ask(&name, later).is_some());
        let code = attempt(7, later);
        let until = later.plus(IDLE_MAX / 2);
        attempts.wait(&name, (code.waits, until), later);
        let now = attempts.ask(&name, later).unwrap();
        assert!(matches!(now.waits, Waits::Code { .. }) && now.begun == NOW);
        assert!(attempts.ask(&name, until).is_none(), "its time is over");
    }
}
