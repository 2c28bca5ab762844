//! Who waits for news of what.

use crate::core::lock;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use tokio::sync::watch;
use xos_base::SiteId;

/// Those who watch jobs, and owners who listen to this host.
#[derive(Default)]
pub(crate) struct Watchers {
    jobs: Mutex<HashMap<u64, watch::Sender<()>>>,
    owners: Mutex<HashMap<SiteId, watch::Sender<()>>>,
}

impl Watchers {
    /// A job changed.
    pub(crate) fn job(&self, job: u64) {
        tell(&self.jobs, &job);
    }

    /// There is something for an owner.
    pub(crate) fn owner(&self, owner: &SiteId) {
        tell(&self.owners, owner);
    }

    /// There may be something for every owner.
    pub(crate) fn all_owners(&self) {
        for sender in lock(&self.owners).values() {
            sender.send_replace(());
        }
    }

    /// Changes of a job from now on.
    pub(crate) fn watch_job(&self, job: u64) -> watch::Receiver<()> {
        join(&self.jobs, job)
    }

    /// News for an owner from now on.
    pub(crate) fn watch_owner(&self, owner: SiteId) -> watch::Receiver<()> {
        join(&self.owners, owner)
    }
}

fn tell<K: Eq + Hash>(map: &Mutex<HashMap<K, watch::Sender<()>>>, key: &K) {
    let mut map = lock(map);
    if let Some(sender) = map.get(key)
        && sender.send(()).is_err()
    {
        // Nobody looks on any more.
        map.remove(key);
    }
}

fn join<K: Eq + Hash>(map: &Mutex<HashMap<K, watch::Sender<()>>>, key: K) -> watch::Receiver<()> {
    lock(map).entry(key).or_insert_with(|| watch::channel(()).0).subscribe()
}
