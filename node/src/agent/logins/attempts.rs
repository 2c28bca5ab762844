//! People who prove themselves at this moment, in PAM's auth phase: a bounded table in memory.
//!
//! Who has the name of an account can begin to prove that they are its person. So attempts are
//! counted by who begins them: nobody else ends those of the account's own user, and who is at a
//! machine does not depend on who comes over the network.

use super::origin::Origin;
use super::tries::Tries;
use crate::agent::told::Login;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use xos_api::cda::Secret;
use xos_base::local::Account;
use xos_base::{Error, Millis, PersonId, VoId};

/// Most of one origin; one more ends its oldest.
const ORIGIN_MAX: usize = 3;
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
    pub(super) origin: Origin,
    /// Whether they may have a code.
    pub(super) code: bool,
    pub(super) waits: Waits,
    pub(super) expires: Millis,
    /// When it was begun, and asked after last.
    pub(super) begun: Millis,
    pub(super) asked: Millis,
    /// Cancelled when it is over, whoever waits in it.
    pub(super) over: CancellationToken,
}

impl Attempt {
    /// As the audit knows it.
    pub(super) fn login<'a>(&'a self, account: &'a Account) -> Login<'a> {
        let rhost = match &self.origin {
            Origin::Remote(host) => Some(host.as_str()),
            Origin::Own(_) | Origin::Local(_) => None,
        };
        Login::of(account, &self.service, rhost)
    }

    fn stays(&self, now: Millis) -> bool {
        let here = matches!(self.waits, Waits::Typed) || now < self.asked.plus(IDLE_MAX);
        here && now < self.expires
    }
}

/// By number: the oldest first.
#[derive(Default)]
struct Table {
    last: u64,
    all: BTreeMap<u64, Attempt>,
    tries: Tries,
}

impl Table {
    fn end(&mut self, number: u64) {
        if let Some(attempt) = self.all.remove(&number) {
            attempt.over.cancel();
        }
    }

    fn forget_gone(&mut self, now: Millis) {
        let gone = self.all.iter().filter(|(_, a)| !a.stays(now));
        for number in gone.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.end(number);
        }
    }

    /// Which ends so that there is room for one more of an origin.
    fn makes_way(&self, origin: &Origin) -> Result<Option<u64>, Error> {
        let mut by: BTreeMap<&Origin, Vec<u64>> = BTreeMap::new();
        for (number, attempt) in &self.all {
            if attempt.origin.shares_with(origin) {
                by.entry(&attempt.origin).or_default().push(*number);
            }
        }
        if let Some(own) = by.get(origin).filter(|own| own.len() >= ORIGIN_MAX) {
            return Ok(own.first().copied());
        }
        if by.values().map(Vec::len).sum::<usize>() < origin.share_max() {
            return Ok(None);
        }
        // Of who has most, and of these who began first.
        let most = by.values().max_by_key(|n| (n.len(), Reverse(n.first().copied())));
        match most.map(Vec::as_slice) {
            Some([_]) if matches!(origin, Origin::Own(_)) => {
                // Each has one, and keeps it.
                Err(Error::limited("too many people prove themselves at this moment here")
                    .hint("try again in a minute"))
            }
            numbers => Ok(numbers.and_then(|n| n.first().copied())),
        }
    }
}

/// Those that are under way. Only root asks, so that a number is name enough.
#[derive(Default)]
pub(super) struct Attempts(Mutex<Table>);

impl Attempts {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one, before anything is waited for.
    ///
    /// # Errors
    /// [`xos_base::Kind::Limited`] when there are too many.
    pub(super) fn begin(&self, attempt: Attempt, now: Millis) -> Result<Held<'_>, Error> {
        let mut table = self.table();
        table.forget_gone(now);
        if let Some(number) = table.makes_way(&attempt.origin)? {
            table.end(number);
        }
        table.last += 1;
        let number = table.last;
        table.all.insert(number, attempt);
        Ok(Held { attempts: self, number, goes_on: false })
    }

    /// One that somebody asks after, while it is time.
    pub(super) fn ask(&self, name: &str, now: Millis) -> Option<(Held<'_>, Attempt)> {
        let number = name.parse().ok()?;
        let attempt = self.look(number, now)?;
        Some((Held { attempts: self, number, goes_on: false }, attempt))
    }

    fn look(&self, number: u64, now: Millis) -> Option<Attempt> {
        let mut table = self.table();
        let attempt = table.all.get_mut(&number).filter(|a| now < a.expires)?;
        attempt.asked = now;
        Some(attempt.clone())
    }

    /// Lets an attempt ask the site of its person; others than the account's own user do so now and
    /// then only.
    ///
    /// # Errors
    /// [`xos_base::Kind::Limited`] with how long to wait.
    pub(super) fn spend(&self, attempt: &Attempt, now: Millis) -> Result<(), Error> {
        match attempt.origin {
            Origin::Own(_) => Ok(()),
            Origin::Local(_) | Origin::Remote(_) => self.table().tries.take(attempt.uid, now),
        }
    }

    /// What was spent last was right.
    pub(super) fn give_back(&self, attempt: &Attempt) {
        if !matches!(attempt.origin, Origin::Own(_)) {
            self.table().tries.give_back(attempt.uid);
        }
    }
}

/// An attempt as long as a call works on it. It ends with the call, also when that is given up
/// because the caller is gone, unless the call says that it goes on.
pub(super) struct Held<'a> {
    attempts: &'a Attempts,
    number: u64,
    goes_on: bool,
}

impl Held<'_> {
    /// The attempt, while it is time.
    pub(super) fn ask(&self, now: Millis) -> Option<Attempt> {
        self.attempts.look(self.number, now)
    }

    /// It waits for something else from now on; `false`: it is over.
    pub(super) fn waits(&self, (waits, expires): (Waits, Millis), now: Millis) -> bool {
        let mut table = self.attempts.table();
        let found = table.all.get_mut(&self.number);
        let there = found.is_some();
        if let Some(attempt) = found {
            (attempt.waits, attempt.expires, attempt.asked) = (waits, expires, now);
        }
        there
    }

    /// It goes on with another call; its name.
    pub(super) fn goes_on(mut self) -> String {
        self.goes_on = true;
        self.number.to_string()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.goes_on {
            self.attempts.table().end(self.number);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const NOW: Millis = Millis(1_000_000);

    /// Somebody who waits for another device, at the account's own shell.
    pub(in crate::agent::logins) fn attempt(uid: u32, now: Millis) -> Attempt {
        Attempt {
            user: "ann.demo.rennes".into(),
            uid,
            service: "sudo".into(),
            person: "ann@rennes".parse().unwrap(),
            vo: "demo.rennes".parse().unwrap(),
            origin: Origin::Own(uid),
            code: true,
            waits: Waits::Code { secret: Secret("s".into()), pause: Duration::from_secs(1) },
            expires: now.plus(Duration::from_secs(600)),
            begun: now,
            asked: now,
            over: CancellationToken::new(),
        }
    }

    fn from(origin: Origin, now: Millis) -> Attempt {
        Attempt { origin, ..attempt(7, now) }
    }

    /// Begins one that goes on; its name and how to see that it is over.
    fn begun(attempts: &Attempts, attempt: Attempt) -> (String, CancellationToken) {
        let over = attempt.over.clone();
        let now = attempt.begun;
        (attempts.begin(attempt, now).unwrap().goes_on(), over)
    }

    /// If it failed, whoever knows the name of an account could keep its person from proving
    /// themselves, by beginning to do so in their name.
    #[test]
    fn nobody_else_ends_attempts_of_the_accounts_own_user() {
        let attempts = Attempts::default();
        let own = begun(&attempts, attempt(7, NOW));
        let console = begun(&attempts, from(Origin::Local(0), NOW));
        for n in 0..100 {
            begun(&attempts, from(Origin::Remote(format!("192.0.2.{n}")), NOW));
            begun(&attempts, from(Origin::Remote("198.51.100.1".into()), NOW));
            begun(&attempts, from(Origin::Local(1000), NOW));
            begun(&attempts, from(Origin::Local(1001 + n % 2), NOW));
        }
        assert!(!own.1.is_cancelled(), "others ended it");
        assert!(!console.1.is_cancelled(), "others with more ended that of a console");
        let (held, _) = attempts.ask(&own.0, NOW).unwrap();
        held.goes_on();
        let all = [Origin::Own(7), Origin::Local(0), Origin::Remote(String::new())];
        let most: usize = all.iter().map(Origin::share_max).sum();
        assert!(attempts.table().all.len() <= most, "they are not bounded");
    }

    /// If it failed, one user's attempts would keep others from proving themselves.
    #[test]
    fn who_has_most_makes_way_and_each_user_keeps_one() {
        let attempts = Attempts::default();
        let mine: Vec<_> = (0..=ORIGIN_MAX).map(|_| begun(&attempts, attempt(7, NOW))).collect();
        assert!(mine[0].1.is_cancelled() && !mine[1].1.is_cancelled());
        let most = u32::try_from(Origin::Own(7).share_max()).unwrap();
        let others: Vec<_> = (1..most).map(|n| begun(&attempts, attempt(1000 + n, NOW))).collect();
        assert!(mine[2].1.is_cancelled() && !mine[ORIGIN_MAX].1.is_cancelled());
        let refused = attempts.begin(attempt(8, NOW), NOW).err().unwrap();
        assert_eq!(refused.kind, xos_base::Kind::Limited);
        assert!(others.iter().all(|(_, over)| !over.is_cancelled()));
    }

    /// If it failed, who went away would hold a place, or a call would wait for nobody.
    #[test]
    fn attempts_end_when_nobody_asks_and_with_a_call_that_is_given_up() {
        let attempts = Attempts::default();
        let (name, over) = begun(&attempts, attempt(7, NOW));
        let later = NOW.plus(IDLE_MAX);
        let second = attempt(8, later);
        let ended = second.over.clone();
        let held = attempts.begin(second, later).unwrap();
        assert!(over.is_cancelled() && attempts.ask(&name, later).is_none());
        assert!(!ended.is_cancelled() && held.ask(later).is_some());
        drop(held);
        assert!(ended.is_cancelled() && attempts.table().all.is_empty());
        assert!(attempts.ask("nonsense", later).is_none());
    }

    /// If it failed, strangers would spend what a person's site grants them at a machine, and they
    /// could not prove themselves there any more.
    #[test]
    fn what_others_try_is_not_the_accounts_own_users() {
        let attempts = Attempts::default();
        let stranger = from(Origin::Remote("192.0.2.1".into()), NOW);
        let tried = |a: &Attempt| (0..100).take_while(|_| attempts.spend(a, NOW).is_ok()).count();
        assert!(tried(&stranger) < 5);
        assert_eq!(tried(&from(Origin::Local(1000), NOW)), 0);
        attempts.give_back(&stranger);
        assert_eq!(tried(&stranger), 1);
        assert_eq!(tried(&attempt(7, NOW)), 100);
    }

    /// If it failed, who types slowly would have to begin anew, or a code would count for ever.
    #[test]
    fn who_types_has_their_time_and_a_code_has_its_own() {
        let attempts = Attempts::default();
        let (name, _) = begun(&attempts, Attempt { waits: Waits::Typed, ..attempt(7, NOW) });
        let later = NOW.plus(IDLE_MAX);
        begun(&attempts, attempt(8, later));
        let code = attempt(7, later);
        let until = later.plus(IDLE_MAX / 2);
        let (held, _) = attempts.ask(&name, later).unwrap();
        assert!(held.waits((code.waits, until), later));
        let now = held.ask(later).unwrap();
        assert!(matches!(now.waits, Waits::Code { .. }) && now.begun == NOW);
        assert!(held.ask(until).is_none(), "its time is over");
    }
}
