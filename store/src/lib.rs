//! State that must outlive a process: the registry ([`Store`]) and the [`journal`].
//!
//! The registry holds small facts (VOs, people, nodes, volumes, leases) under short keys and
//! changes them in guarded transactions. Its verbs are those that every engine can serve: two live
//! here, [`RedbStore`] (the default: one file) and [`MemoryStore`] (tests). An engine is right when
//! [`conformance::run_all`] passes against it. The journal holds what is appended in bulk.

mod apply;
mod clock;
pub mod conformance;
mod engine;
mod error;
pub mod journal;
mod key;
mod record;
mod txn;
mod watch;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use clock::{Clock, ManualClock, SystemClock};
pub use engine::{memory::MemoryStore, redb::RedbStore};
pub use error::StoreError;
pub use key::{KEY_BYTES_MAX, Key, KeyError, Prefix};
pub use txn::{
    Entry, GUARDS_MAX, Guard, LEASE_KEYS_MAX, LEASE_TTL_MAX, LeaseId, OPS_MAX, Op, PAGE_BYTES_MAX,
    PAGE_ENTRIES_MAX, Page, TxnOutcome, VALUE_BYTES_MAX, Version,
};
pub use watch::{Event, WATCH_QUEUE_MAX, WATCHERS_MAX, Watch};

/// The registry: a small, transactional map from [`Key`] to bytes.
///
/// What portable callers may rely on: reads see every transaction acknowledged before they began; a
/// transaction happens whole or not at all; what was acknowledged survives a kill. They may not
/// rely on an order of [`Version`]s, nor on a lease alone for mutual exclusion (guard with the
/// version).
#[async_trait]
pub trait Store: Send + Sync {
    /// The value under `key` and its version; `None` when absent or its lease has expired.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// Applies all of `ops` if every one of `guards` holds, else none.
    ///
    /// At most [`GUARDS_MAX`] guards and [`OPS_MAX`] ops, each key at most once among the ops. With
    /// no ops this asks whether the guards hold together. [`StoreError::Unknown`] means that it may
    /// or may not have happened: read again before trying again.
    async fn txn(&self, guards: Vec<Guard>, ops: Vec<Op>) -> Result<TxnOutcome, StoreError>;

    /// The entries below `prefix` in key order, from the first key greater than `after`.
    ///
    /// At most `limit` entries (capped at [`PAGE_ENTRIES_MAX`]) and about [`PAGE_BYTES_MAX`] bytes.
    /// One page is one consistent snapshot; consecutive pages may see changes in between.
    async fn scan(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError>;

    /// Events of keys below `prefix`, for every transaction acknowledged after this call returned.
    ///
    /// Each at least once, per key in order. To hold a view: watch first, then scan, then follow.
    fn watch(&self, prefix: Prefix) -> Result<Watch, StoreError>;

    /// A new lease which expires `ttl` after now unless kept; keys put with it vanish with it.
    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// Sets the lease's expiry to its ttl after now; [`StoreError::UnknownLease`] once it expired.
    async fn keep(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Ends the lease now and removes its keys. Ending an unknown lease is no error.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Writes one key whatever it held before, without a lease, and says its new version.
    async fn put(&self, key: Key, value: Bytes) -> Result<Version, StoreError> {
        match self.txn(Vec::new(), vec![Op::put(key.clone(), value)]).await? {
            TxnOutcome::Applied(version) => Ok(version),
            TxnOutcome::Conflict { .. } => Err(StoreError::Unknown {
                cause: format!("the engine reported a conflict for the unguarded write of {key}"),
            }),
        }
    }
}
