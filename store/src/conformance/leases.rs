//! Leases, under a clock that the check moves.

use std::{sync::Arc, time::Duration};

use super::{Checked, ensure, key, same, text};
use crate::{
    Event, Guard, Key, LEASE_KEYS_MAX, LEASE_TTL_MAX, LeaseId, ManualClock, OPS_MAX, Op, Prefix,
    Store, StoreError,
};

const TTL: Duration = Duration::from_secs(30);

fn put(key: &Key, lease: LeaseId) -> Vec<Op> {
    vec![Op::put_leased(key.clone(), "leased", lease)]
}

pub(super) async fn keys_vanish_with_their_lease(
    store: Arc<dyn Store>,
    clock: &ManualClock,
) -> Checked {
    let (a, b) = (key(&["node", "a"])?, key(&["node", "b"])?);
    let lease = store.lease(TTL).await?;
    store.txn(vec![], put(&a, lease)).await?;
    store.put(b.clone(), "stays".into()).await?;
    let mut watch = store.watch(Prefix::of(["node"])?)?;
    clock.advance(TTL - Duration::from_millis(1));
    same(&text(&*store, &a).await?, &"leased".into(), "before the end")?;
    clock.advance(Duration::from_millis(1));
    same(&store.get(&a).await?, &None, "after the end")?;
    same(&store.scan(&Prefix::all(), None, 10).await?.entries.len(), &1, "entries after the end")?;
    // For guards it is gone too, whether or not it was cleared away.
    let outcome = store.txn(vec![Guard::Absent(a.clone())], vec![]).await?;
    ensure(outcome.applied().is_some(), "an expired key counts as present")?;
    same(&watch.next().await, &Some(Event::Removed(a)), "event")
}

pub(super) async fn a_kept_lease_lives_on(store: Arc<dyn Store>, clock: &ManualClock) -> Checked {
    let a = key(&["a"])?;
    let lease = store.lease(TTL).await?;
    store.txn(vec![], put(&a, lease)).await?;
    for _ in 0..3 {
        clock.advance(TTL - Duration::from_secs(1));
        store.keep(lease).await?;
    }
    same(&text(&*store, &a).await?, &"leased".into(), "kept key")?;
    clock.advance(TTL);
    same(&store.get(&a).await?, &None, "key that was no longer kept")?;
    let late = store.keep(lease).await;
    ensure(matches!(late, Err(StoreError::UnknownLease { .. })), "an expired lease was kept")
}

pub(super) async fn revoke_removes_at_once(store: Arc<dyn Store>, _: &ManualClock) -> Checked {
    let lease = store.lease(TTL).await?;
    let other = store.lease(TTL).await?;
    ensure(lease != other, "two leases have one name")?;
    for (n, lease) in [(1, lease), (2, lease), (3, other)] {
        store.txn(vec![], put(&key(&["k", &n.to_string()])?, lease)).await?;
    }
    store.revoke(lease).await?;
    let left = store.scan(&Prefix::all(), None, 10).await?.entries;
    same(&left.iter().map(|e| e.key.as_str()).collect(), &vec!["k/3"], "keys left")?;
    store.revoke(lease).await?;
    let outcome = store.keep(lease).await;
    ensure(matches!(outcome, Err(StoreError::UnknownLease { .. })), "a revoked lease was kept")
}

/// A key written again without the lease, or removed and made anew, must not vanish with it.
pub(super) async fn a_key_can_leave_its_lease(
    store: Arc<dyn Store>,
    clock: &ManualClock,
) -> Checked {
    let (a, b, c) = (key(&["a"])?, key(&["b"])?, key(&["c"])?);
    let short = store.lease(TTL).await?;
    let long = store.lease(TTL * 2).await?;
    for at in [&a, &b, &c] {
        store.txn(vec![], put(at, short)).await?;
    }
    store.put(a.clone(), "stays".into()).await?;
    store.txn(vec![], vec![Op::Del(b.clone())]).await?;
    store.put(b.clone(), "stays".into()).await?;
    store.txn(vec![], put(&c, long)).await?;
    clock.advance(TTL);
    same(&text(&*store, &a).await?, &"stays".into(), "overwritten key")?;
    same(&text(&*store, &b).await?, &"stays".into(), "recreated key")?;
    same(&text(&*store, &c).await?, &"leased".into(), "key under another lease")?;
    clock.advance(TTL);
    same(&store.get(&c).await?, &None, "key after the other lease")
}

pub(super) async fn an_expired_lease_takes_no_more_keys(
    store: Arc<dyn Store>,
    clock: &ManualClock,
) -> Checked {
    for ttl in [Duration::ZERO, LEASE_TTL_MAX + Duration::from_secs(1)] {
        let refused = matches!(store.lease(ttl).await, Err(StoreError::BadTtl { .. }));
        ensure(refused, format_args!("a lease of {ttl:?} was given"))?;
    }
    let lease = store.lease(TTL).await?;
    let mut count = 0;
    while count < LEASE_KEYS_MAX {
        let more = (LEASE_KEYS_MAX - count).min(OPS_MAX as u64);
        let ops: Result<Vec<_>, super::Wrong> = (count..count + more)
            .map(|n| Ok(Op::put_leased(key(&["k", &n.to_string()])?, "x", lease)))
            .collect();
        store.txn(vec![], ops?).await?;
        count += more;
    }
    let over = store.txn(vec![], put(&key(&["one more"])?, lease)).await;
    ensure(matches!(over, Err(StoreError::LeaseFull { .. })), "a full lease took a key")?;
    clock.advance(TTL);
    let late = store.txn(vec![], put(&key(&["late"])?, lease)).await;
    ensure(matches!(late, Err(StoreError::UnknownLease { .. })), "an expired lease took a key")?;
    same(&store.get(&key(&["late"])?).await?, &None, "the refused key")
}

/// A whole site of nodes going silent at once must not leave some of them looking alive.
pub(super) async fn many_leases_may_end_at_once(
    store: Arc<dyn Store>,
    clock: &ManualClock,
) -> Checked {
    let mut keys = Vec::new();
    for n in 0..200 {
        let at = key(&["node", &n.to_string()])?;
        let lease = store.lease(TTL).await?;
        store.txn(vec![], put(&at, lease)).await?;
        keys.push(at);
    }
    clock.advance(TTL);
    for at in keys.iter().rev() {
        let outcome = store.txn(vec![Guard::Exists(at.clone())], vec![]).await?;
        ensure(outcome.applied().is_none(), format_args!("{at} counts as present"))?;
        same(&store.get(at).await?, &None, "a key after its end")?;
    }
    same(&store.scan(&Prefix::all(), None, 10).await?.entries.len(), &0, "entries left")
}
