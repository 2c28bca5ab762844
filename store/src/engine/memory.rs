//! The registry in memory: for tests of what stands on it. Forgets everything when dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Clock, Entry, Guard, Key, LeaseId, Op, PAGE_BYTES_MAX, PAGE_ENTRIES_MAX, Page, Prefix, Store,
    StoreError, SystemClock, TxnOutcome, Watch,
    apply::{self, Answer, Request, State},
    record::{Head, Lease},
    txn::{check_limits, check_ttl},
    watch::Hub,
};

/// A [`Store`] without a file. Expired leases are cleared by the next call of any verb.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    tables: Mutex<Tables>,
    hub: Hub,
}

impl MemoryStore {
    /// An empty store on the machine's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// An empty store whose leases follow `clock`.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock, tables: Mutex::default(), hub: Hub::default() }
    }

    /// Locks the tables, with what has expired already gone.
    fn tables(&self) -> Result<MutexGuard<'_, Tables>, StoreError> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = self.clock.now_ms();
        let mut events = Vec::new();
        while apply::expire(&mut *tables, now_ms, &mut events)? > 0 {}
        self.hub.publish(&events);
        Ok(tables)
    }

    fn change(&self, request: Request) -> Result<Answer, StoreError> {
        let mut tables = self.tables()?;
        let mut events = Vec::new();
        let answer = apply::apply(&mut *tables, self.clock.now_ms(), request, &mut events)?;
        self.hub.publish(&events);
        Ok(answer)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.hub.close();
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.tables()?.records.get(key).map(|row| row.entry(key)))
    }

    async fn txn(&self, guards: Vec<Guard>, ops: Vec<Op>) -> Result<TxnOutcome, StoreError> {
        check_limits(&guards, &ops)?;
        match self.change(Request::Txn { guards, ops })? {
            Answer::Txn(outcome) => Ok(outcome),
            other => Err(mismatch(&other)),
        }
    }

    async fn scan(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let tables = self.tables()?;
        let start = match after {
            Some(key) if key.as_str() >= prefix.as_str() => Bound::Excluded(key.as_str()),
            _ => Bound::Included(prefix.as_str()),
        };
        let rows = tables.records.range::<str, _>((start, Bound::Unbounded));
        let mut page = Page::default();
        let mut bytes = 0;
        for (key, row) in rows.take_while(|(key, _)| prefix.covers(key)) {
            if page.entries.len() >= limit.clamp(1, PAGE_ENTRIES_MAX) || bytes >= PAGE_BYTES_MAX {
                page.next = page.entries.last().map(|e| e.key.clone());
                break;
            }
            bytes += row.value.len();
            page.entries.push(row.entry(key));
        }
        Ok(page)
    }

    fn watch(&self, prefix: Prefix) -> Result<Watch, StoreError> {
        self.hub.watch(prefix)
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        check_ttl(ttl)?;
        match self.change(Request::Lease { ttl })? {
            Answer::Lease(id) => Ok(id),
            other => Err(mismatch(&other)),
        }
    }

    async fn keep(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.change(Request::Keep(lease)).map(drop)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.change(Request::Revoke(lease)).map(drop)
    }
}

/// The answer of another verb: a defect of the engine, told instead of a panic.
pub(crate) fn mismatch(answer: &Answer) -> StoreError {
    StoreError::Unknown { cause: format!("the engine answered with {answer:?}") }
}

#[derive(Default)]
struct Tables {
    records: BTreeMap<Key, Row>,
    leases: BTreeMap<LeaseId, Lease>,
    links: BTreeSet<(LeaseId, Key)>,
    due: BTreeSet<(u64, LeaseId)>,
    number: u64,
}

struct Row {
    head: Head,
    value: Bytes,
}

impl Row {
    fn entry(&self, key: &Key) -> Entry {
        Entry { key: key.clone(), value: self.value.clone(), version: self.head.version() }
    }
}

impl State for Tables {
    fn head(&self, key: &Key) -> Result<Option<Head>, StoreError> {
        Ok(self.records.get(key).map(|row| row.head))
    }

    fn write(&mut self, key: &Key, head: Head, value: &[u8]) -> Result<(), StoreError> {
        let row = Row { head, value: Bytes::copy_from_slice(value) };
        self.records.insert(key.clone(), row);
        Ok(())
    }

    fn remove(&mut self, key: &Key) -> Result<(), StoreError> {
        self.records.remove(key);
        Ok(())
    }

    fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        Ok(self.leases.get(&id).copied())
    }

    fn set_lease(
        &mut self,
        id: LeaseId,
        old: Option<Lease>,
        new: Option<Lease>,
    ) -> Result<(), StoreError> {
        if let Some(old) = old {
            self.due.remove(&(old.expires_ms, id));
            self.leases.remove(&id);
        }
        if let Some(new) = new {
            self.due.insert((new.expires_ms, id));
            self.leases.insert(id, new);
        }
        Ok(())
    }

    fn link(&mut self, id: LeaseId, key: &Key) -> Result<(), StoreError> {
        self.links.insert((id, key.clone()));
        Ok(())
    }

    fn unlink(&mut self, id: LeaseId, key: &Key) -> Result<(), StoreError> {
        self.links.remove(&(id, key.clone()));
        Ok(())
    }

    fn linked(&self, id: LeaseId) -> Result<Vec<Key>, StoreError> {
        Ok(self.links.iter().filter(|(l, _)| *l == id).map(|(_, key)| key.clone()).collect())
    }

    fn due(&self, now_ms: u64, max: usize) -> Result<Vec<LeaseId>, StoreError> {
        let due = self.due.iter().take_while(|(expires_ms, _)| *expires_ms <= now_ms);
        Ok(due.take(max).map(|(_, id)| *id).collect())
    }

    fn next_number(&mut self) -> Result<u64, StoreError> {
        self.number += 1;
        Ok(self.number)
    }

    fn last_number(&self) -> Result<u64, StoreError> {
        Ok(self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, WATCH_QUEUE_MAX};

    #[tokio::test]
    async fn a_closed_store_ends_its_watches() {
        // A service waiting for events would otherwise hang at shutdown.
        let store = MemoryStore::new();
        let mut watch = store.watch(Prefix::all()).unwrap();
        store.put(Key::of(["a"]).unwrap(), Bytes::new()).await.unwrap();
        drop(store);
        assert_eq!(watch.next().await, Some(Event::Changed(Key::of(["a"]).unwrap())));
        assert_eq!(watch.next().await, None);
    }

    #[tokio::test]
    async fn an_unread_watch_holds_bounded_memory() {
        let store = MemoryStore::new();
        let mut watch = store.watch(Prefix::all()).unwrap();
        for n in 0..WATCH_QUEUE_MAX * 3 {
            store.put(Key::of([n.to_string()]).unwrap(), Bytes::new()).await.unwrap();
        }
        let mut events = Vec::new();
        while let Some(event) = watch.try_next() {
            events.push(event);
        }
        assert!(events.len() <= WATCH_QUEUE_MAX);
        assert_eq!(events[0], Event::Resync);
    }
}
