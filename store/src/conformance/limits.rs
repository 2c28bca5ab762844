//! Limits: the last that fits is taken, the first beyond is refused by name and changes nothing.

use std::sync::Arc;

use bytes::Bytes;

use super::{Checked, Wrong, ensure, key, same};
use crate::{
    GUARDS_MAX, Guard, KEY_BYTES_MAX, Key, ManualClock, OPS_MAX, Op, Prefix, Store, StoreError,
    VALUE_BYTES_MAX,
};

fn numbered(n: usize) -> Result<Key, Wrong> {
    Ok(key(&["n", &n.to_string()])?)
}

pub(super) async fn the_largest_is_taken(store: Arc<dyn Store>, _: &ManualClock) -> Checked {
    let long: Key = "k".repeat(KEY_BYTES_MAX).parse()?;
    let value = Bytes::from(vec![1; VALUE_BYTES_MAX]);
    store.put(long.clone(), value.clone()).await?;
    same(&store.get(&long).await?.map(|e| e.value == value), &Some(true), "the largest entry")?;
    let guards: Result<Vec<_>, Wrong> =
        (0..GUARDS_MAX).map(|n| Ok(Guard::Absent(numbered(n)?))).collect();
    let ops: Result<Vec<_>, Wrong> = (0..OPS_MAX).map(|n| Ok(Op::put(numbered(n)?, "x"))).collect();
    let outcome = store.txn(guards?, ops?).await?;
    ensure(outcome.applied().is_some(), "the largest transaction was not applied")
}

pub(super) async fn more_is_refused_by_name(store: Arc<dyn Store>, _: &ManualClock) -> Checked {
    let big = Bytes::from(vec![1; VALUE_BYTES_MAX + 1]);
    let refused = store.put(numbered(0)?, big).await;
    ensure(matches!(refused, Err(StoreError::ValueTooLarge { .. })), "value beyond the limit")?;
    let ops: Result<Vec<_>, Wrong> =
        (0..=OPS_MAX).map(|n| Ok(Op::put(numbered(n)?, "x"))).collect();
    let refused = store.txn(vec![], ops?).await;
    ensure(matches!(refused, Err(StoreError::TooManyOps { .. })), "ops beyond the limit")?;
    let guards: Result<Vec<_>, Wrong> =
        (0..=GUARDS_MAX).map(|n| Ok(Guard::Absent(numbered(n)?))).collect();
    let refused = store.txn(guards?, vec![Op::put(numbered(0)?, "x")]).await;
    ensure(matches!(refused, Err(StoreError::TooManyGuards { .. })), "guards beyond the limit")?;
    let twice = vec![Op::put(numbered(0)?, "x"), Op::Del(numbered(0)?)];
    let refused = store.txn(vec![], twice).await;
    ensure(matches!(refused, Err(StoreError::DuplicateKey { .. })), "one key twice")?;
    let left = store.scan(&Prefix::all(), None, 10).await?.entries;
    ensure(left.is_empty(), "a refused transaction left something behind")
}
