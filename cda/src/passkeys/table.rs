//! What is under way: a bounded table in memory. A restart of the core forgets it.
//!
//! When the table is full the oldest goes, so that who fills it must do so anew for each person
//! they want to keep out.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use xos_base::{Error, Millis};
use xos_net::identity::{hex, sha256};

struct Entry<T> {
    begun: Millis,
    expires: Millis,
    kept: T,
}

/// A digest of the secret, so that neither timing nor a memory dump gives a usable one.
type Key = [u8; 32];

/// Things that a secret gives back once, in time.
pub(crate) struct Table<T> {
    entries: Mutex<HashMap<Key, Entry<T>>>,
    life: Duration,
    max: usize,
}

/// A text that nobody can guess: 32 hex digits.
pub(crate) fn secret() -> Result<String, Error> {
    Ok(hex(&crate::issue::random::<16>()?))
}

impl<T> Table<T> {
    /// Keeps at most `max` things, each for `life`.
    pub(crate) fn new(life: Duration, max: usize) -> Table<T> {
        Table { entries: Mutex::default(), life, max }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Key, Entry<T>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a thing under a secret; until when.
    pub(crate) fn put(&self, secret: &str, kept: T, now: Millis) -> Millis {
        let expires = now.plus(self.life);
        let mut entries = self.entries();
        if entries.len() >= self.max {
            entries.retain(|_, e| now < e.expires);
        }
        if entries.len() >= self.max {
            tracing::warn!(limit = self.max, "too many sign-ins are under way: the oldest ends");
            let oldest = entries.iter().min_by_key(|(_, e)| e.begun).map(|(k, _)| *k);
            if let Some(oldest) = oldest {
                entries.remove(&oldest);
            }
        }
        entries.insert(sha256(secret.as_bytes()), Entry { begun: now, expires, kept });
        expires
    }

    /// Takes a thing out, if it is there and not too old.
    pub(crate) fn take(&self, secret: &str, now: Millis) -> Option<T> {
        let entry = self.entries().remove(&sha256(secret.as_bytes()))?;
        (now < entry.expires).then_some(entry.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(300);

    /// If it failed, what somebody saw of a sign-in could be used again, or much later.
    #[test]
    fn a_thing_is_taken_once_and_in_time() {
        let table = Table::new(LIFE, 10);
        let now = Millis(1_000_000);
        let expires = table.put("a", 1, now);
        assert_eq!(table.take("b", now), None);
        assert_eq!(table.take("a", now), Some(1));
        assert_eq!(table.take("a", now), None, "it was taken twice");
        table.put("a", 1, now);
        assert_eq!(table.take("a", expires), None, "it was taken too late");
    }

    /// If it failed, strangers could fill the core's memory by beginning sign-ins.
    #[test]
    fn the_table_is_bounded_and_the_oldest_goes() {
        let table = Table::new(LIFE, 10);
        for i in 0..11 {
            table.put(&i.to_string(), i, Millis(i));
        }
        assert_eq!(table.entries().len(), 10);
        assert_eq!(table.take("0", Millis(20)), None);
        assert_eq!(table.take("10", Millis(20)), Some(10));
    }
}
