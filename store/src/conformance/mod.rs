//! What every engine must do, as checks that run against any of them.
//!
//! An engine's own tests call [`run_all`] with a [`Factory`]; they add only what is peculiar to the
//! engine, such as kills. The checks need a tokio runtime with several threads.

mod leases;
mod limits;
mod races;
mod verbs;
mod watches;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

use crate::{Guard, Key, KeyError, ManualClock, Op, Store, StoreError};

/// Makes stores of one engine.
#[async_trait]
pub trait Factory: Send + Sync {
    /// A new, empty store whose leases follow `clock`.
    async fn make(&self, clock: Arc<ManualClock>) -> Result<Arc<dyn Store>, StoreError>;
}

/// A check that failed.
#[derive(Debug, Error)]
#[error("{check}: {what}")]
pub struct Failure {
    /// Which check.
    pub check: &'static str,
    /// What was not as it must be.
    pub what: String,
}

/// Why one check stopped.
type Checked = Result<(), Wrong>;

#[derive(Debug)]
struct Wrong(String);

impl From<StoreError> for Wrong {
    fn from(error: StoreError) -> Self {
        Self(format!("unexpected error: {error}"))
    }
}

impl From<KeyError> for Wrong {
    fn from(error: KeyError) -> Self {
        Self(format!("unexpected error: {error}"))
    }
}

impl From<tokio::task::JoinError> for Wrong {
    fn from(error: tokio::task::JoinError) -> Self {
        Self(format!("a task of the check ended: {error}"))
    }
}

/// Runs every check, each on a new store.
pub async fn run_all(factory: &dyn Factory) -> Result<(), Failure> {
    macro_rules! checks {
        ($($module:ident::$check:ident),* $(,)?) => {$(
            let name = concat!(stringify!($module), "::", stringify!($check));
            let failed = |Wrong(what)| Failure { check: name, what };
            let clock = Arc::new(ManualClock::new(1_000_000));
            let store = factory.make(Arc::clone(&clock)).await;
            let store = store.map_err(|e| failed(e.into()))?;
            $module::$check(store, &clock).await.map_err(failed)?;
        )*};
    }
    checks![
        verbs::an_absent_key_is_none,
        verbs::what_was_put_comes_back,
        verbs::guards_decide_and_conflicts_name_their_keys,
        verbs::a_transaction_is_all_or_nothing,
        verbs::a_recreated_key_has_another_version,
        verbs::scan_pages_are_complete_and_in_order,
        verbs::a_page_is_bounded_in_bytes,
        races::counters_lose_no_increment,
        races::one_creator_wins,
        races::pairs_are_never_seen_apart,
        races::scans_miss_nothing_that_stays,
        watches::events_come_in_order,
        watches::a_slow_watch_is_told_to_resync,
        leases::keys_vanish_with_their_lease,
        leases::a_kept_lease_lives_on,
        leases::revoke_removes_at_once,
        leases::a_key_can_leave_its_lease,
        leases::many_leases_may_end_at_once,
        leases::an_expired_lease_takes_no_more_keys,
        limits::the_largest_is_taken,
        limits::more_is_refused_by_name,
    ];
    Ok(())
}

fn ensure(holds: bool, what: impl fmt::Display) -> Checked {
    if holds { Ok(()) } else { Err(Wrong(what.to_string())) }
}

fn same<T: PartialEq + fmt::Debug>(got: &T, wanted: &T, what: &str) -> Checked {
    ensure(got == wanted, format_args!("{what}: got {got:?}, wanted {wanted:?}"))
}

fn key(segments: &[&str]) -> Result<Key, KeyError> {
    Key::of(segments)
}

/// The value under `key` as text; empty when absent.
async fn text(store: &dyn Store, key: &Key) -> Result<String, StoreError> {
    let value = store.get(key).await?.map(|e| e.value).unwrap_or_default();
    Ok(String::from_utf8_lossy(&value).into_owned())
}

/// Adds 1 to a decimal counter by compare and swap; says what it became.
async fn increment(store: &dyn Store, key: &Key) -> Result<u64, StoreError> {
    loop {
        let found = store.get(key).await?;
        let guard = match &found {
            Some(entry) => Guard::Is(key.clone(), entry.version),
            None => Guard::Absent(key.clone()),
        };
        let old = found.map(|e| String::from_utf8_lossy(&e.value).parse().unwrap_or(0));
        let new: u64 = old.unwrap_or(0) + 1;
        let op = Op::put(key.clone(), Bytes::from(new.to_string()));
        if store.txn(vec![guard], vec![op]).await?.applied().is_some() {
            return Ok(new);
        }
    }
}
