//! This site's rules in memory, in step with the registry.

use super::book::Book;
use super::engine::Engine;
use crate::Inner;
use crate::registry::Registry;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use xos_api::policy::{Rule, RuleList};
use xos_api::vom::Actor;
use xos_base::{Error, Millis};
use xos_store::Version;

/// How often it is looked whether another core of this site has set them.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The site's rules, and a signal that they changed.
pub(crate) struct Own {
    now: RwLock<Now>,
    /// Held while they change.
    changing: Mutex<()>,
    changed: watch::Sender<u64>,
}

struct Now {
    book: Book,
    engine: Arc<Engine>,
    stored: Option<Version>,
}

impl Now {
    fn new(book: Book, stored: Option<Version>) -> Now {
        Now { engine: Arc::new(Engine::new(&book)), book, stored }
    }
}

impl Own {
    /// From what the registry held.
    pub(crate) fn new(book: Book, stored: Option<Version>) -> Own {
        let now = RwLock::new(Now::new(book, stored));
        Own { now, changing: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// The rules, ready to be asked.
    pub(crate) fn engine(&self) -> Arc<Engine> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).engine.clone()
    }

    /// For readers.
    pub(crate) fn list(&self) -> RuleList {
        self.now.read().unwrap_or_else(PoisonError::into_inner).book.list()
    }

    /// Tells when they changed.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Sets the rules, made from `version`; stored before they count. `of`: the site, in words.
    ///
    /// # Errors
    /// [`xos_base::Kind::Conflict`] with who changed what since `version`; those of the registry.
    pub(crate) async fn set(
        &self,
        registry: &Registry,
        (version, rules): (u64, Vec<Rule>),
        (by, now): (Actor, Millis),
        of: &str,
    ) -> Result<u64, Error> {
        let _changing = self.changing.lock().await;
        let (mut book, stored) = {
            let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
            (now.book.clone(), now.stored)
        };
        book.made_from(version, of)?;
        let part = book.difference(&rules);
        if part.put.is_empty() && part.remove.is_empty() {
            return Ok(version);
        }
        book.change(version.saturating_add(1), by, now, part);
        match registry.put_rules(&book, stored).await? {
            Some(stored) => {
                let version = book.version;
                self.take(book, Some(stored));
                Ok(version)
            }
            None => {
                // Another core of this site was faster.
                let (book, stored) = registry.rules().await?;
                let told = book.made_from(version, of);
                self.take(book, stored);
                told.and(Err(Error::conflict("the site's rules change too fast").hint("try again")))
            }
        }
    }

    /// Takes over what another core of this site has set; whether it had.
    ///
    /// # Errors
    /// Those of the registry.
    async fn catch_up(&self, registry: &Registry) -> Result<bool, Error> {
        let _changing = self.changing.lock().await;
        let known = self.now.read().unwrap_or_else(PoisonError::into_inner).stored;
        if registry.rules_version().await? == known {
            return Ok(false);
        }
        let (book, stored) = registry.rules().await?;
        self.take(book, stored);
        Ok(true)
    }

    fn take(&self, book: Book, stored: Option<Version>) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Now::new(book, stored);
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// Looks again and again whether another core of this site has set its rules.
pub(crate) async fn follow(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match inner.rules.own.catch_up(&inner.registry).await {
            Ok(true) => tracing::info!("another core has set rules of the site"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "whether the site's rules are others is not known");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_store::MemoryStore;

    /// If it failed, a core would let in whom another core of its site was told to keep out, until
    /// it is started anew.
    #[tokio::test]
    async fn what_another_core_of_the_site_set_is_taken_over() {
        let registry = Registry::new(Arc::new(MemoryStore::new()));
        let (book, stored) = registry.rules().await.unwrap();
        let (one, other) = (Own::new(book.clone(), stored), Own::new(book, stored));
        assert!(!other.catch_up(&registry).await.unwrap());
        let by = (Actor::Site("rennes".parse().unwrap()), Millis(1));
        one.set(&registry, (0, Vec::new()), by, "rennes").await.unwrap();
        let told = other.changed();
        assert!(other.catch_up(&registry).await.unwrap());
        assert_eq!(other.list(), one.list());
        assert!(told.has_changed().unwrap(), "nodes do not hear of it");
        assert!(!other.catch_up(&registry).await.unwrap());
    }
}
