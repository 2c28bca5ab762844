//! Telling watchers what changed, without ever waiting for them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::Notify;

use crate::{Key, Prefix, StoreError};

/// The most watches open on one store.
pub const WATCHERS_MAX: usize = 4096;
/// The most events kept for one watch; beyond it they collapse into one [`Event::Resync`].
pub const WATCH_QUEUE_MAX: usize = 1024;

/// What happened to a key. Carries no value: read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The key was written.
    Changed(Key),
    /// The key was removed, or its lease ended.
    Removed(Key),
    /// Events were lost: scan the prefix again. Later events follow.
    Resync,
}

impl Event {
    fn key(&self) -> Option<&Key> {
        match self {
            Self::Changed(key) | Self::Removed(key) => Some(key),
            Self::Resync => None,
        }
    }
}

/// A running watch; dropping it ends it.
#[derive(Debug)]
pub struct Watch(Arc<Watcher>);

impl Watch {
    /// The next event; `None` once the store is closed. May be cancelled without losing an event.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            {
                let mut queue = lock(&self.0.queue);
                if let Some(event) = queue.events.pop_front() {
                    return Some(event);
                }
                if queue.closed {
                    return None;
                }
            }
            self.0.wake.notified().await;
        }
    }

    /// The next event if one is waiting.
    pub fn try_next(&mut self) -> Option<Event> {
        lock(&self.0.queue).events.pop_front()
    }
}

/// The watches of one store.
#[derive(Debug, Default)]
pub(crate) struct Hub(Mutex<Vec<Weak<Watcher>>>);

#[derive(Debug)]
struct Watcher {
    prefix: Prefix,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    closed: bool,
}

impl Hub {
    pub(crate) fn watch(&self, prefix: Prefix) -> Result<Watch, StoreError> {
        let mut watchers = lock(&self.0);
        watchers.retain(|w| w.strong_count() > 0);
        if watchers.len() >= WATCHERS_MAX {
            return Err(StoreError::TooManyWatchers);
        }
        let watcher = Arc::new(Watcher { prefix, queue: Mutex::default(), wake: Notify::new() });
        watchers.push(Arc::downgrade(&watcher));
        Ok(Watch(watcher))
    }

    /// Hands committed events to whom they concern. Call in commit order.
    pub(crate) fn publish(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        for watcher in lock(&self.0).iter().filter_map(Weak::upgrade) {
            watcher.push(events);
        }
    }

    pub(crate) fn close(&self) {
        for watcher in lock(&self.0).drain(..).filter_map(|w| w.upgrade()) {
            lock(&watcher.queue).closed = true;
            watcher.wake.notify_one();
        }
    }
}

impl Watcher {
    fn push(&self, events: &[Event]) {
        let mut queue = lock(&self.queue);
        let mut pushed = false;
        for event in events.iter().filter(|e| e.key().is_none_or(|k| self.prefix.covers(k))) {
            pushed = true;
            if queue.events.len() >= WATCH_QUEUE_MAX {
                queue.events.clear();
                queue.events.push_back(Event::Resync);
            } else {
                queue.events.push_back(event.clone());
            }
        }
        if pushed {
            self.wake.notify_one();
        }
    }
}

/// Nothing here panics while holding a lock, so a poisoned one is still sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
