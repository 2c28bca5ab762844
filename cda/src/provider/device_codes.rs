//! What another device waits for (RFC 8628): sign-ins to clients, and logins to machines. A bounded
//! table in memory of each; a restart of the core forgets them. Who has their part of it, or most
//! of a full one, loses their own oldest: nobody is pushed out by others who ask for more.

use super::secret;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use xos_base::{Error, Millis};
use xos_net::identity::sha256;

/// Most at a time.
pub(super) const DEVICES_MAX: usize = 16 * 1024;
/// How long a person may take.
pub(super) const DEVICE_LIFE: Duration = Duration::from_secs(10 * 60);
/// The pause before each question of a client, at first.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// By how much a question that comes too early lengthens it (RFC 8628, 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// Longest pause.
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// The characters of a code that people type: no vowels, so that no words come, and none that are
/// taken for another (RFC 8628, 6.1).
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// How many of them: some 34 bits.
const CODE_LEN: usize = 8;

type Key = [u8; 32];

/// What another device wants.
pub(super) trait Wanted {
    /// Most that one asker has at a time.
    const MOST: usize;

    /// For whom the device asks.
    fn asker(&self) -> String;
}

enum State<A> {
    Asked,
    Allowed(A),
    Declined,
}

struct Entry<W, A> {
    begun: Millis,
    asker: String,
    wish: W,
    user_code: String,
    interval: Duration,
    next: Millis,
    state: State<A>,
}

struct Tables<W, A> {
    by_device: HashMap<Key, Entry<W, A>>,
    by_code: HashMap<String, Key>,
    /// How many each asker has; nobody stands there with none.
    of: HashMap<String, usize>,
}

/// What the device hears that asks.
pub(super) enum Polled<A> {
    /// The person is through.
    Allowed(A),
    /// The person said no.
    Declined,
    /// Not yet.
    Pending,
    /// It asks too often.
    SlowDown,
    /// The person took too long.
    Expired,
    /// It never was, or is another's.
    Gone,
}

/// All that are under way: `W` is what is wanted, `A` what the person allows.
pub(super) struct Devices<W, A>(Mutex<Tables<W, A>>);

impl<W, A> Default for Devices<W, A> {
    fn default() -> Devices<W, A> {
        let (by_device, by_code, of) = (HashMap::new(), HashMap::new(), HashMap::new());
        Devices(Mutex::new(Tables { by_device, by_code, of }))
    }
}

/// A new code for people, evenly distributed.
fn user_code() -> Result<String, Error> {
    let mut code = String::with_capacity(CODE_LEN);
    while code.len() < CODE_LEN {
        for byte in crate::issue::random::<16>()? {
            // 240 is the greatest multiple of 20 in a byte.
            if byte < 240 && code.len() < CODE_LEN {
                code.push(char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
            }
        }
    }
    Ok(code)
}

/// A code as it is shown.
pub(super) fn shown(code: &str) -> String {
    let (a, b) = code.split_at(CODE_LEN / 2);
    format!("{a}-{b}")
}

/// A code as people type it.
fn typed(text: &str) -> String {
    let kept = text.chars().filter(|c| !c.is_whitespace() && *c != '-');
    kept.take(CODE_LEN + 1).map(|c| c.to_ascii_uppercase()).collect()
}

impl<W, A> Tables<W, A> {
    fn insert(&mut self, key: Key, entry: Entry<W, A>) {
        self.by_code.insert(entry.user_code.clone(), key);
        *self.of.entry(entry.asker.clone()).or_default() += 1;
        self.by_device.insert(key, entry);
    }

    fn remove(&mut self, key: &Key) -> Option<Entry<W, A>> {
        let entry = self.by_device.remove(key)?;
        self.by_code.remove(&entry.user_code);
        if let Some(count) = self.of.get_mut(&entry.asker) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&entry.asker);
            }
        }
        Some(entry)
    }

    /// Whose entry makes way for one of `asker`'s, of whom there are `most` at a time; `None` when
    /// there is room.
    fn whose_turn_to_go(&self, asker: &str, most: usize) -> Option<String> {
        if self.of.get(asker).is_some_and(|count| *count >= most) {
            return Some(asker.to_owned());
        }
        let full = self.by_device.len() >= DEVICES_MAX;
        let greatest = self.of.iter().filter(|_| full).max_by_key(|(_, count)| **count);
        greatest.map(|(asker, _)| asker.clone())
    }

    fn make_room(&mut self, asker: &str, most: usize, now: Millis) {
        if self.whose_turn_to_go(asker, most).is_none() {
            return;
        }
        let late = self.by_device.iter().filter(|(_, e)| now >= e.begun.plus(DEVICE_LIFE));
        let late: Vec<Key> = late.map(|(key, _)| *key).collect();
        for key in &late {
            self.remove(key);
        }
        let Some(whose) = self.whose_turn_to_go(asker, most) else { return };
        tracing::warn!(%whose, "too many devices sign in: the oldest of these ends");
        let own = self.by_device.iter().filter(|(_, e)| e.asker == whose);
        if let Some(oldest) = own.min_by_key(|(_, e)| e.begun).map(|(key, _)| *key) {
            self.remove(&oldest);
        }
    }

    /// The one with that code, while its person has not decided.
    fn asked(&mut self, code: &str, now: Millis) -> Option<&mut Entry<W, A>> {
        let key = self.by_code.get(&typed(code))?;
        let entry = self.by_device.get_mut(key)?;
        let waits = now < entry.begun.plus(DEVICE_LIFE) && matches!(entry.state, State::Asked);
        waits.then_some(entry)
    }
}

impl<W: Clone + Wanted, A> Devices<W, A> {
    fn tables(&self) -> MutexGuard<'_, Tables<W, A>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one: the code of the device, and that of the person.
    /// `interval`: the pause before each question of the device, at first.
    pub(super) fn begin(
        &self,
        wish: W,
        interval: Duration,
        now: Millis,
    ) -> Result<(String, String), Error> {
        let device_code = secret()?;
        let key = sha256(device_code.as_bytes());
        let asker = wish.asker();
        let mut tables = self.tables();
        tables.make_room(&asker, W::MOST, now);
        let user_code = loop {
            let code = user_code()?;
            if !tables.by_code.contains_key(&code) {
                break code;
            }
        };
        let entry = Entry {
            begun: now,
            asker,
            wish,
            user_code: user_code.clone(),
            interval,
            next: now.plus(interval),
            state: State::Asked,
        };
        tables.insert(key, entry);
        Ok((device_code, user_code))
    }

    /// What the device wants that shows this code, while it waits for its person.
    pub(super) fn wish(&self, code: &str, now: Millis) -> Option<W> {
        self.tables().asked(code, now).map(|e| e.wish.clone())
    }

    /// The person decided, once; `false`: there is no such code any more.
    pub(super) fn decide(&self, code: &str, allowed: Option<A>, now: Millis) -> bool {
        let mut tables = self.tables();
        let Some(entry) = tables.asked(code, now) else { return false };
        entry.state = allowed.map_or(State::Declined, State::Allowed);
        true
    }

    /// Takes back what was allowed and not fetched, where `is_it` knows it; whether there was any.
    pub(super) fn take_back(&self, is_it: impl Fn(&W, &A) -> bool, now: Millis) -> bool {
        let mut any = false;
        for entry in self.tables().by_device.values_mut() {
            if matches!(&entry.state, State::Allowed(allowed) if is_it(&entry.wish, allowed)) {
                any |= now < entry.begun.plus(DEVICE_LIFE);
                entry.state = State::Declined;
            }
        }
        any
    }

    /// The device asks, if it is the one that `is_its` knows by what it wants.
    pub(super) fn poll(
        &self,
        device_code: &str,
        is_its: impl Fn(&W) -> bool,
        now: Millis,
    ) -> Polled<A> {
        let key = sha256(device_code.as_bytes());
        let mut tables = self.tables();
        let Some(entry) = tables.by_device.get_mut(&key).filter(|e| is_its(&e.wish)) else {
            return Polled::Gone;
        };
        if now >= entry.begun.plus(DEVICE_LIFE) {
            tables.remove(&key);
            return Polled::Expired;
        }
        if now < entry.next {
            entry.interval = (entry.interval + SLOWER).min(INTERVAL_MAX);
            entry.next = now.plus(entry.interval);
            return Polled::SlowDown;
        }
        if matches!(entry.state, State::Asked) {
            entry.next = now.plus(entry.interval);
            return Polled::Pending;
        }
        match tables.remove(&key).map(|e| e.state) {
            Some(State::Allowed(approval)) => Polled::Allowed(approval),
            Some(State::Declined) => Polled::Declined,
            Some(State::Asked) | None => Polled::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_000_000);

    /// What is wanted, and by whom, is told by a letter, and what is allowed by a number.
    type Letters = Devices<char, u8>;

    impl Wanted for char {
        const MOST: usize = DEVICES_MAX / 8;

        fn asker(&self) -> String {
            self.to_string()
        }
    }

    /// Begins so many for a letter, a moment later than what a test begins with.
    fn flood(devices: &Letters, letter: char, count: usize) {
        for _ in 0..count {
            devices.begin(letter, INTERVAL, NOW.plus(Duration::from_secs(1))).unwrap();
        }
    }

    fn poll(devices: &Letters, code: &str, letter: char, now: Millis) -> Polled<u8> {
        devices.poll(code, |wanted| *wanted == letter, now)
    }

    /// If it failed, people could not type what they read, or would type a word.
    #[test]
    fn codes_are_easy_to_type() {
        let code = user_code().unwrap();
        assert_eq!(code.len(), CODE_LEN);
        assert!(code.bytes().all(|b| ALPHABET.contains(&b)), "{code}");
        assert_eq!(typed(&format!(" {} ", shown(&code).to_lowercase())), code);
        assert_ne!(typed(&format!("{code}X")), code, "more than the code is no code");
        assert_eq!(typed("é-\u{0}").chars().count(), 2);
    }

    /// If it failed, a code could be had twice, by another client, or after the person said no.
    #[test]
    fn a_device_gets_its_answer_once_and_alone() {
        let devices = Letters::default();
        let (device, code) = devices.begin('c', INTERVAL, NOW).unwrap();
        let turn = NOW.plus(INTERVAL);
        assert!(matches!(poll(&devices, "x", 'c', turn), Polled::Gone));
        assert!(matches!(poll(&devices, &device, 'd', turn), Polled::Gone));
        assert!(matches!(poll(&devices, &device, 'c', turn), Polled::Pending));
        assert!(matches!(poll(&devices, &device, 'c', turn), Polled::SlowDown));
        assert!(devices.wish(&code, turn).is_some());
        assert!(devices.decide(&code, Some(7), turn));
        assert!(!devices.decide(&code, None, turn), "it was decided twice");
        assert!(devices.wish(&code, turn).is_none());
        let turn = turn.plus(INTERVAL);
        assert!(matches!(poll(&devices, &device, 'c', turn), Polled::SlowDown), "the pause grew");
        let turn = turn.plus(INTERVAL * 3);
        assert!(matches!(poll(&devices, &device, 'c', turn), Polled::Allowed(7)));
        assert!(matches!(poll(&devices, &device, 'c', turn), Polled::Gone));

        let (device, code) = devices.begin('c', INTERVAL, NOW).unwrap();
        assert!(devices.decide(&code, None, NOW));
        assert!(matches!(poll(&devices, &device, 'c', turn), Polled::Declined));
    }

    /// If it failed, what a person took back would be given all the same, or another's go with it.
    #[test]
    fn what_is_taken_back_is_not_given() {
        let devices = Letters::default();
        let (device, code) = devices.begin('c', INTERVAL, NOW).unwrap();
        assert!(!devices.take_back(|_, _| true, NOW), "nothing is allowed yet");
        assert!(devices.decide(&code, Some(7), NOW));
        assert!(!devices.take_back(|wish, allowed| *wish == 'c' && *allowed == 8, NOW));
        assert!(devices.take_back(|wish, allowed| *wish == 'c' && *allowed == 7, NOW));
        let turn = NOW.plus(INTERVAL);
        assert!(matches!(poll(&devices, &device, 'c', turn), Polled::Declined));
    }

    /// If it failed, a code that somebody wrote down would be good for ever, or strangers could
    /// fill the core's memory.
    #[test]
    fn they_end_and_are_bounded() {
        let devices = Letters::default();
        let (device, code) = devices.begin('c', INTERVAL, NOW).unwrap();
        let late = NOW.plus(DEVICE_LIFE);
        assert!(devices.wish(&code, late).is_none() && !devices.decide(&code, None, late));
        assert!(matches!(poll(&devices, &device, 'c', late), Polled::Expired));
        let (first, _) = devices.begin('c', INTERVAL, NOW).unwrap();
        // One more for 'c' than for each other letter, and all together one too many.
        for letter in 'a'..='p' {
            flood(&devices, letter, DEVICES_MAX / 16);
        }
        let tables = devices.tables();
        assert_eq!((tables.by_device.len(), tables.by_code.len()), (DEVICES_MAX, DEVICES_MAX));
        assert_eq!(tables.of.values().sum::<usize>(), DEVICES_MAX);
        drop(tables);
        assert!(matches!(poll(&devices, &first, 'c', NOW.plus(INTERVAL)), Polled::Gone));
        // What is over makes way before what is not.
        devices.begin('q', INTERVAL, NOW.plus(DEVICE_LIFE * 2)).unwrap();
        let tables = devices.tables();
        assert_eq!((tables.by_device.len(), tables.by_code.len(), tables.of.len()), (1, 1, 1));
    }

    /// If it failed, a site that asks without end would keep people from signing in at all others.
    #[test]
    fn who_asks_without_end_pushes_out_their_own_only() {
        let devices = Letters::default();
        let (honest, code) = devices.begin('h', INTERVAL, NOW).unwrap();
        let (first, _) = devices.begin('a', INTERVAL, NOW).unwrap();
        let part = DEVICES_MAX / 8;
        flood(&devices, 'a', part);
        let turn = NOW.plus(INTERVAL);
        assert_eq!(devices.tables().of.get("a"), Some(&part));
        assert!(matches!(poll(&devices, &first, 'a', turn), Polled::Gone));
        // Nor do several, when together they have all there is.
        for letter in 'b'..='g' {
            flood(&devices, letter, part);
        }
        flood(&devices, 'x', part + 100);
        assert_eq!(devices.tables().by_device.len(), DEVICES_MAX);
        assert!(matches!(poll(&devices, &honest, 'h', turn), Polled::Pending));
        assert!(devices.wish(&code, turn).is_some());
    }
}
