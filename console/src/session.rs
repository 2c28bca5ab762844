//! Browser sessions: a bounded table in memory. A restart of the core ends them all.

use crate::Random;
use crate::tokens::Tokens;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use xos_api::cda::SignedIn;
use xos_base::when::Clock;
use xos_base::{Error, Millis, PersonId};

/// A session that nobody uses for so long ends.
pub const IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// No session is older.
pub const LIFE_MAX: Duration = Duration::from_secs(12 * 3600);
/// Most sessions; one more ends the one that was idle longest.
pub const SESSIONS_MAX: usize = 10_000;
/// Most sessions of one person; one more ends the one that was idle longest.
pub const PER_PERSON_MAX: usize = 16;
/// Most event streams and downloads that one session has open.
const STREAMS_MAX: usize = 8;
/// Bytes of a session id and of a form token: 128 bits.
const ID_LEN: usize = 16;

/// The table's key: a digest, so that neither timing nor a memory dump gives a usable id.
type Key = [u8; 32];

/// A signed-in browser.
pub(crate) struct Session {
    key: Key,
    /// Who signed in.
    pub(crate) person: PersonId,
    /// Stands in every form of this session.
    pub(crate) form_token: String,
    /// The session is over at this time at the latest.
    pub(crate) until: Millis,
    /// What the person may prove themselves by.
    pub(crate) tokens: tokio::sync::Mutex<Tokens>,
    /// Held by each stream.
    pub(crate) streams: Arc<Semaphore>,
    site_admin: AtomicBool,
    used: AtomicU64,
    ended: watch::Sender<bool>,
    notice: Mutex<Option<String>>,
}

impl Session {
    /// Whether it can still be used at `now`.
    pub(crate) fn lives(&self, now: Millis) -> bool {
        let idle = now.since(Millis(self.used.load(Ordering::Relaxed)));
        !*self.ended.borrow() && now < self.until && idle < IDLE_MAX
    }

    /// Whether the person administered this site when the token was last made: what the menu
    /// shows. The API decides by the token itself.
    pub(crate) fn site_admin(&self) -> bool {
        self.site_admin.load(Ordering::Relaxed)
    }

    /// Keeps what a new token says of that.
    pub(crate) fn set_site_admin(&self, site_admin: bool) {
        self.site_admin.store(site_admin, Ordering::Relaxed);
    }

    /// Waits until somebody ends it.
    pub(crate) async fn ended(&self) {
        // It cannot fail while the sender, which is in `self`, lives.
        if self.ended.subscribe().wait_for(|ended| *ended).await.is_err() {
            tracing::debug!("a session went away");
        }
    }

    /// Leaves a sentence for the next page.
    pub(crate) fn leave_notice(&self, text: String) {
        *lock(&self.notice) = Some(text);
    }

    /// Takes the sentence that the last action left.
    pub(crate) fn take_notice(&self) -> Option<String> {
        lock(&self.notice).take()
    }
}

/// All sessions.
pub(crate) struct Sessions {
    table: Mutex<HashMap<Key, Arc<Session>>>,
    clock: Arc<dyn Clock>,
    random: Random,
}

impl Sessions {
    pub(crate) fn new(clock: Arc<dyn Clock>, random: Random) -> Sessions {
        Sessions { table: Mutex::default(), clock, random }
    }

    /// A new session with a new id, whatever the browser had before.
    pub(crate) fn open(&self, signed_in: SignedIn) -> Result<(String, Arc<Session>), Error> {
        let now = self.clock.now();
        let id = self.secret()?;
        let session = Arc::new(Session {
            key: key(&id),
            person: signed_in.person,
            form_token: self.secret()?,
            until: now.plus(LIFE_MAX).min(signed_in.session_until),
            tokens: tokio::sync::Mutex::new(Tokens::new(signed_in.token)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            site_admin: AtomicBool::new(signed_in.site_admin),
            used: AtomicU64::new(now.0),
            ended: watch::Sender::new(false),
            notice: Mutex::default(),
        });
        let mut table = lock(&self.table);
        sweep(&mut table, now);
        let own = |s: &Session| s.person == session.person;
        if table.values().filter(|s| own(s)).count() >= PER_PERSON_MAX {
            end_idlest(&mut table, own);
        }
        if table.len() >= SESSIONS_MAX {
            tracing::warn!(limit = SESSIONS_MAX, "too many sessions: the idlest ends");
            end_idlest(&mut table, |_| true);
        }
        table.insert(session.key, session.clone());
        Ok((id, session))
    }

    /// The session of a cookie. `uses`: the person does something, so that it is not idle.
    pub(crate) fn find(&self, id: &str, uses: bool) -> Option<Arc<Session>> {
        if id.len() != 2 * ID_LEN {
            return None;
        }
        let session = lock(&self.table).get(&key(id)).cloned()?;
        let now = self.clock.now();
        if !session.lives(now) {
            self.end(&session);
            return None;
        }
        if uses {
            session.used.fetch_max(now.0, Ordering::Relaxed);
        }
        Some(session)
    }

    /// Ends a session; streams that it has open end too.
    pub(crate) fn end(&self, session: &Session) {
        session.ended.send_replace(true);
        lock(&self.table).remove(&session.key);
    }

    /// Drops what is over.
    pub(crate) fn sweep(&self) {
        sweep(&mut lock(&self.table), self.clock.now());
    }

    /// Those that are open.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        lock(&self.table).values().cloned().collect()
    }

    /// A text that nobody can guess: 32 hex digits.
    pub(crate) fn secret(&self) -> Result<String, Error> {
        let mut bytes = [0; ID_LEN];
        (self.random)(&mut bytes)?;
        Ok(xos_net::identity::hex(&bytes))
    }
}

/// Whether a text has the form of [`Sessions::secret`].
pub(crate) fn is_secret(text: &str) -> bool {
    text.len() == 2 * ID_LEN && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn key(id: &str) -> Key {
    xos_net::identity::sha256(id.as_bytes())
}

fn sweep(table: &mut HashMap<Key, Arc<Session>>, now: Millis) {
    table.retain(|_, s| s.lives(now));
}

fn end_idlest(table: &mut HashMap<Key, Arc<Session>>, among: impl Fn(&Session) -> bool) {
    let idlest = table
        .values()
        .filter(|s| among(s))
        .min_by_key(|s| s.used.load(Ordering::Relaxed))
        .map(|s| s.key);
    if let Some(session) = idlest.and_then(|k| table.remove(&k)) {
        session.ended.send_replace(true);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::cda::Token;

    struct At(AtomicU64);

    impl Clock for At {
        fn now(&self) -> Millis {
            Millis(self.0.load(Ordering::Relaxed))
        }
    }

    fn world() -> (Arc<At>, Sessions) {
        let clock = Arc::new(At(AtomicU64::new(1_000_000)));
        (clock.clone(), Sessions::new(clock, crate::system_random()))
    }

    fn signed_in(name: &str) -> SignedIn {
        let site: xos_base::SiteId = "rennes".parse().unwrap();
        SignedIn {
            person: site.person(name).unwrap(),
            token: Token { token: "t".into(), audience: site, expires: Millis(u64::MAX) },
            session_until: Millis(u64::MAX),
            site_admin: false,
            memberships: None,
            recovered: None,
        }
    }

    #[test]
    fn a_session_ends_when_idle_and_use_keeps_it_to_its_absolute_end() {
        let (clock, sessions) = world();
        let step = |d: Duration| clock.0.fetch_add(d.as_millis() as u64, Ordering::Relaxed);
        let (id, _) = sessions.open(signed_in("alice")).unwrap();
        step(IDLE_MAX - Duration::from_secs(1));
        assert!(sessions.find(&id, false).is_some(), "a look without use finds it");
        step(Duration::from_secs(1));
        assert!(sessions.find(&id, true).is_none(), "looking kept an idle session open");

        let (id, session) = sessions.open(signed_in("alice")).unwrap();
        for _ in 0..LIFE_MAX.as_secs() / 1200 {
            assert!(sessions.find(&id, true).is_some());
            step(Duration::from_secs(1200));
        }
        assert!(sessions.find(&id, true).is_none(), "use kept it beyond its absolute end");
        assert!(!session.lives(clock.now()));
    }

    #[test]
    fn the_table_is_bounded_for_each_person_and_the_idlest_ends() {
        let (clock, sessions) = world();
        let mut ids = Vec::new();
        for _ in 0..=PER_PERSON_MAX {
            clock.0.fetch_add(1, Ordering::Relaxed);
            ids.push(sessions.open(signed_in("alice")).unwrap().0);
        }
        let (other, _) = sessions.open(signed_in("bob")).unwrap();
        assert!(sessions.find(&ids[0], true).is_none());
        assert!(sessions.find(&ids[1], true).is_some());
        assert!(sessions.find(&other, true).is_some());
        assert_eq!(sessions.all().len(), PER_PERSON_MAX + 1);
    }

    #[test]
    fn what_is_no_id_finds_nothing() {
        let (_, sessions) = world();
        let (id, session) = sessions.open(signed_in("alice")).unwrap();
        for bad in ["", "0", &id.to_uppercase(), &format!("{id}0"), &"0".repeat(32)] {
            let same = bad == id;
            assert!(same || sessions.find(bad, true).is_none(), "{bad:?}");
        }
        sessions.end(&session);
        assert!(sessions.find(&id, true).is_none());
    }
}
