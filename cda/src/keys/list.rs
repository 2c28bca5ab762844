//! Files with several keys, newest first, and when each begins to sign and ceases to count.
//!
//! A new key is put first and named to everybody before it signs; the one before it counts until
//! what it signed has expired. The dates stand in the file, so that all this happens by itself, and
//! goes on where it was after a restart.

use super::blocks::{self, Block, damaged};
use super::place::{Kept, Place, dropped, dropped_block};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use xos_api::site::{DESCRIPTOR_LIST_MAX, LOG_KEYS_MAX};
use xos_base::{Error, Millis};
use xos_net::key::{KeyId, KeyKind, PrivateKey};
use zeroize::Zeroizing;

/// When a key does what. A key without dates, put into the file by hand, signs at once and counts
/// for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dates {
    /// When it was made.
    pub(crate) made: Millis,
    /// From when on it signs.
    pub(crate) signs: Millis,
    /// Until when it counts, once a newer one is to sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Millis>,
}

impl Dates {
    /// Of a key that signs at once.
    pub(crate) fn at_once(now: Millis) -> Dates {
        Dates { made: now, signs: now, until: None }
    }
}

/// One key of a file.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) dates: Dates,
    pub(crate) kept: Kept,
}

/// The keys of a file.
#[derive(Clone)]
pub(crate) struct KeyList {
    pub(crate) kind: KeyKind,
    /// At least one can sign; those that sign no more stand at the end.
    pub(crate) entries: Vec<Entry>,
    /// Keys that were taken out and are to be destroyed in the vault.
    pub(crate) dropped: Vec<KeyId>,
}

impl KeyList {
    /// One key, which signs at once.
    pub(crate) fn of(kind: KeyKind, kept: Kept, now: Millis) -> KeyList {
        let entries = vec![Entry { dates: Dates::at_once(now), kept }];
        KeyList { kind, entries, dropped: Vec::new() }
    }

    /// Reads the keys in `text`, the content of `file`.
    pub(crate) fn read(file: &str, kind: KeyKind, text: &str) -> Result<KeyList, Error> {
        let (mut entries, mut gone) = (Vec::new(), Vec::new());
        for block in blocks::read(text).map_err(|why| damaged(file, why))? {
            gone.extend(dropped(file, &block)?);
            let Some(kept) = Kept::read(file, kind, &block)? else { continue };
            let dates = match block.note.is_empty() {
                true => Dates::default(),
                false => serde_json::from_str(&block.note)
                    .map_err(|e| damaged(file, &format!("the line before a key: {e}")))?,
            };
            entries.push(Entry { dates, kept });
        }
        entries.sort_by_key(|e: &Entry| !e.kept.signs());
        let list = KeyList { kind, entries, dropped: gone };
        let (able, former) = (list.able().count(), list.former().count());
        if able == 0 {
            return Err(Error::internal(format!("{file} holds no key"))
                .hint("restore the folder from a backup"));
        }
        if able > DESCRIPTOR_LIST_MAX || former > LOG_KEYS_MAX {
            return Err(damaged(file, "it has too many keys"));
        }
        Ok(list)
    }

    /// The text of the file.
    pub(crate) fn text(&self) -> Result<Zeroizing<String>, Error> {
        let block = |e: &Entry| {
            let note = serde_json::to_string(&e.dates)
                .map_err(|e| Error::internal(format!("cannot write a key's dates: {e}")))?;
            Ok(Block { note, ..e.kept.block() })
        };
        let mut all = self.entries.iter().map(block).collect::<Result<Vec<_>, Error>>()?;
        all.extend(self.dropped.iter().map(dropped_block));
        Ok(blocks::write(&all))
    }

    /// The keys that can sign, newest first.
    pub(crate) fn able(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| e.kept.signs())
    }

    /// Those that sign no more, of which VO logs still count.
    pub(crate) fn former(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| !e.kept.signs())
    }

    /// Which one signs now: the newest whose time has come; the oldest, if the clock was set back
    /// before all of them.
    pub(crate) fn signing(&self, now: Millis) -> usize {
        let oldest = self.able().count().saturating_sub(1);
        self.able().position(|e| e.dates.signs <= now).unwrap_or(oldest)
    }

    /// Takes out what counts no more: keys older than the one that signs, whose time is over. Of
    /// each the public part stays where VO logs need it (`keep`). How many were taken out.
    pub(crate) fn expire(&mut self, now: Millis, keep: bool) -> Result<usize, Error> {
        let signing = self.signing(now);
        let is_over = |e: &Entry| e.dates.until.is_some_and(|t| t <= now);
        let over = self.able().enumerate().filter(|(i, e)| *i > signing && is_over(e));
        let over: Vec<usize> = over.map(|(i, _)| i).collect();
        self.take(&over, keep)?;
        Ok(over.len())
    }

    /// Takes these of the keys that can sign out, which are named by their places in order.
    pub(crate) fn take(&mut self, which: &[usize], keep: bool) -> Result<(), Error> {
        let mut former = Vec::new();
        // From the end, so that the places before stay what they are; these keys stand first.
        for i in which.iter().rev() {
            let entry = self.entries.remove(*i);
            if keep {
                let kept = Kept::Public(entry.kept.public(self.kind)?);
                former.insert(0, Entry { dates: entry.dates, kept });
            }
            if let Kept::Vault(id, _) = entry.kept {
                self.dropped.push(id);
            }
        }
        let first_former = self.able().count();
        self.entries.splice(first_former..first_former, former);
        Ok(())
    }
}

/// The keys of a file, ready to sign.
pub(crate) struct Several<K> {
    /// The one that signs.
    pub(crate) signing: Arc<K>,
    /// All that count, newest first.
    pub(crate) all: Vec<Arc<K>>,
}

impl<K> Several<K> {
    /// Opens the keys of `list`, the content of `file`; `ready` makes each ready for its purpose.
    pub(crate) fn open(
        (file, list): (&str, &KeyList),
        place: &Place,
        now: Millis,
        ready: impl Fn(Arc<dyn PrivateKey>) -> Result<K, Error>,
    ) -> Result<Several<K>, Error> {
        let open = |e: &Entry| place.open(list.kind, &e.kept).and_then(&ready).map(Arc::new);
        let all = list.able().map(open).collect::<Result<Vec<_>, Error>>();
        let all = all.map_err(|e| Error { message: format!("{file}: {}", e.message), ..e })?;
        let signing = all.get(list.signing(now)).cloned();
        let signing = signing.ok_or_else(|| damaged(file, "it holds no key"))?;
        Ok(Several { signing, all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_net::key::LocalKey;

    fn kept() -> Kept {
        Kept::File(LocalKey::generate(KeyKind::Ed25519).unwrap())
    }

    fn entry(signs: u64, until: Option<u64>) -> Entry {
        let dates = Dates { made: Millis(1), signs: Millis(signs), until: until.map(Millis) };
        Entry { dates, kept: kept() }
    }

    fn list_of(entries: Vec<Entry>) -> KeyList {
        KeyList { kind: KeyKind::Ed25519, entries, dropped: Vec::new() }
    }

    fn publics(list: &KeyList) -> Vec<Vec<u8>> {
        list.entries.iter().map(|e| e.kept.public(list.kind).unwrap()).collect()
    }

    fn reread(list: &KeyList) -> KeyList {
        KeyList::read("signing.pem", list.kind, &list.text().unwrap()).unwrap()
    }

    /// If it failed, a key would sign before others know it, or be dropped while what it signed
    /// is in use.
    #[test]
    fn a_key_signs_and_ceases_to_count_at_its_times() {
        let entries = vec![entry(100, None), entry(50, Some(200)), entry(0, Some(90))];
        let mut list = reread(&list_of(entries));
        let all = publics(&list);
        for (now, signs, count) in [(0, 2, 3), (49, 2, 3), (50, 1, 3), (89, 1, 3), (90, 1, 2)] {
            assert_eq!(list.signing(Millis(now)), signs, "at {now}");
            list.expire(Millis(now), true).unwrap();
            list = reread(&list);
            assert_eq!(list.able().count(), count, "at {now}");
            assert_eq!(publics(&list), all, "at {now}: the order, or a public key, is lost");
        }
        assert_eq!(list.signing(Millis(100)), 0);
        assert_eq!(list.expire(Millis(200), false).unwrap(), 1);
        let left = reread(&list);
        assert_eq!(publics(&left), [all[0].clone(), all[2].clone()]);
        assert_eq!((left.able().count(), left.former().count()), (1, 1));
    }

    /// If it failed, a core whose clock jumps would have no key to sign with.
    #[test]
    fn there_is_always_a_key_that_signs() {
        let entries = vec![entry(100, Some(1)), entry(50, Some(1))];
        let mut list = list_of(entries);
        assert_eq!(list.signing(Millis(0)), 1);
        assert_eq!(list.expire(Millis(0), false).unwrap(), 0, "before all of them");
        assert_eq!(list.expire(Millis(u64::MAX), false).unwrap(), 1);
        assert_eq!(list.expire(Millis(u64::MAX), false).unwrap(), 0, "the last one is gone");
    }

    /// If it failed, a key in a token would stay there for ever, or be destroyed while it signs.
    #[test]
    fn keys_in_a_vault_that_are_taken_out_are_named_until_they_are_destroyed() {
        let kept = |n: u8| Kept::Vault(KeyId([n; 16]), vec![n; 32]);
        let mut entries = vec![entry(100, None), entry(0, Some(200))];
        (entries[0].kept, entries[1].kept) = (kept(1), kept(2));
        let mut list = reread(&list_of(entries));
        list.expire(Millis(199), true).unwrap();
        assert!(list.dropped.is_empty());
        list.expire(Millis(200), true).unwrap();
        let left = reread(&list);
        assert_eq!(left.dropped, [KeyId([2; 16])]);
        assert_eq!(publics(&left), [vec![1; 32], vec![2; 32]]);
        assert_eq!(left.able().count(), 1);
    }

    /// If it failed, an administrator who puts a key into a file by hand would be told nothing, and
    /// a file that was cut off would count as one with fewer keys.
    #[test]
    fn files_by_hand_are_read_and_damaged_ones_refused() {
        let read = |text: &str| KeyList::read("x.pem", KeyKind::Ed25519, text);
        let by_hand = list_of(vec![entry(7, None)]);
        let text = by_hand.text().unwrap();
        let bare = text.split_once('\n').unwrap().1;
        assert_eq!(read(bare).unwrap().entries[0].dates, Dates::default());
        let cut = &text[..text.len() - 20];
        let other = text.replacen("made", "maid", 1);
        for bad in ["", cut, &other, &text.repeat(DESCRIPTOR_LIST_MAX + 1)] {
            let e = read(bad).err().unwrap();
            assert!(e.message.contains("x.pem") && e.hint.is_some(), "{e}");
        }
    }
}
