//! Each verb alone.

use std::sync::Arc;

use bytes::Bytes;

use super::{Checked, ensure, key, same, text};
use crate::{Guard, ManualClock, Op, PAGE_BYTES_MAX, Prefix, Store, TxnOutcome, VALUE_BYTES_MAX};

pub(super) async fn an_absent_key_is_none(store: Arc<dyn Store>, _: &ManualClock) -> Checked {
    same(&store.get(&key(&["a"])?).await?, &None, "absent key")?;
    let page = store.scan(&Prefix::all(), None, 10).await?;
    ensure(page.entries.is_empty() && page.next.is_none(), "an empty store lists something")?;
    // Removing what is not there is no error and no event, but an applied transaction.
    let outcome = store.txn(vec![], vec![Op::Del(key(&["a"])?)]).await?;
    ensure(outcome.applied().is_some(), "removing an absent key was refused")
}

pub(super) async fn what_was_put_comes_back(store: Arc<dyn Store>, _: &ManualClock) -> Checked {
    let all_bytes: Vec<u8> = (0..=255).collect();
    for value in [Bytes::new(), Bytes::from(all_bytes)] {
        let at = key(&["odd name/ü%", "x"])?;
        let version = store.put(at.clone(), value.clone()).await?;
        let entry = store.get(&at).await?;
        let entry = entry.ok_or_else(|| super::Wrong("what was put is absent".into()))?;
        same(&entry.value, &value, "value")?;
        same(&entry.version, &version, "version")?;
        same(&entry.key, &at, "key")?;
    }
    Ok(())
}

pub(super) async fn guards_decide_and_conflicts_name_their_keys(
    store: Arc<dyn Store>,
    _: &ManualClock,
) -> Checked {
    let (a, b, c) = (key(&["a"])?, key(&["b"])?, key(&["c"])?);
    let first = store.put(a.clone(), "1".into()).await?;
    let second = store.put(a.clone(), "2".into()).await?;
    ensure(first != second, "two writes have one version")?;
    let cases = [
        (Guard::Absent(a.clone()), false),
        (Guard::Absent(b.clone()), true),
        (Guard::Exists(a.clone()), true),
        (Guard::Exists(b.clone()), false),
        (Guard::Is(a.clone(), second), true),
        (Guard::Is(a.clone(), first), false),
        (Guard::Is(b.clone(), first), false),
    ];
    for (guard, holds) in cases {
        let outcome = store.txn(vec![guard.clone()], vec![]).await?;
        same(&outcome.applied().is_some(), &holds, &format!("{guard:?} alone"))?;
        let outcome = store.txn(vec![guard.clone()], vec![Op::put(c.clone(), "x")]).await?;
        same(&outcome.applied().is_some(), &holds, &format!("{guard:?} with a write"))?;
    }
    let guards = vec![Guard::Absent(a.clone()), Guard::Exists(c), Guard::Exists(b.clone())];
    let outcome = store.txn(guards, vec![Op::put(a, "3")]).await?;
    let TxnOutcome::Conflict { mut keys } = outcome else {
        return ensure(false, "failed guards were ignored");
    };
    keys.sort();
    same(&keys, &vec![key(&["a"])?, b], "conflicting keys")
}

pub(super) async fn a_transaction_is_all_or_nothing(
    store: Arc<dyn Store>,
    _: &ManualClock,
) -> Checked {
    let (a, b, c) = (key(&["a"])?, key(&["b"])?, key(&["c"])?);
    store.put(c.clone(), "old".into()).await?;
    let ops = vec![Op::put(a.clone(), "1"), Op::put(b.clone(), "2"), Op::Del(c.clone())];
    let outcome = store.txn(vec![Guard::Exists(b.clone())], ops.clone()).await?;
    ensure(outcome.applied().is_none(), "a failed guard was ignored")?;
    same(&text(&*store, &a).await?, &String::new(), "a after a refusal")?;
    same(&text(&*store, &c).await?, &"old".into(), "c after a refusal")?;
    let version = store.txn(vec![Guard::Absent(b.clone())], ops).await?.applied();
    same(&store.get(&a).await?.map(|e| e.version), &version, "version of a")?;
    same(&store.get(&b).await?.map(|e| e.version), &version, "version of b")?;
    same(&store.get(&c).await?, &None, "c after its removal")
}

/// Otherwise a guard would take a new member for the one that was removed.
pub(super) async fn a_recreated_key_has_another_version(
    store: Arc<dyn Store>,
    _: &ManualClock,
) -> Checked {
    let a = key(&["a"])?;
    let first = store.put(a.clone(), "same".into()).await?;
    store.txn(vec![], vec![Op::Del(a.clone())]).await?;
    store.put(a.clone(), "same".into()).await?;
    let outcome = store.txn(vec![Guard::Is(a.clone(), first)], vec![Op::Del(a)]).await?;
    ensure(outcome.applied().is_none(), "a new key passed for the removed one")
}

pub(super) async fn scan_pages_are_complete_and_in_order(
    store: Arc<dyn Store>,
    _: &ManualClock,
) -> Checked {
    for group in ["v", "vo", "vo-", "vo0", "w"] {
        for n in 0..25 {
            store.put(key(&[group, &format!("{n:02}")])?, n.to_string().into()).await?;
        }
    }
    store.put(key(&["vo"])?, "the prefix itself".into()).await?;
    let prefix = Prefix::of(["vo"])?;
    for limit in [1, 7, 24, 25, 26] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = store.scan(&prefix, after.as_ref(), limit).await?;
            ensure(page.entries.len() <= limit, "a page is longer than its limit")?;
            seen.extend(page.entries);
            after = page.next;
            if after.is_none() {
                break;
            }
            ensure(seen.len() <= 25, "paging does not end")?;
        }
        let wanted: Result<Vec<_>, _> = (0..25).map(|n| key(&["vo", &format!("{n:02}")])).collect();
        same(&seen.iter().map(|e| e.key.clone()).collect(), &wanted?, "keys of a scan")?;
        ensure(seen.iter().zip(0..).all(|(e, n)| e.value == n.to_string()), "a value is wrong")?;
    }
    let outside = store.scan(&prefix, Some(&key(&["a"])?), 100).await?;
    same(&outside.entries.len(), &25, "scan after a key before the prefix")?;
    let outside = store.scan(&prefix, Some(&key(&["w"])?), 100).await?;
    same(&outside.entries.len(), &0, "scan after a key behind the prefix")?;
    let all = store.scan(&Prefix::all(), None, usize::MAX).await?;
    same(&all.entries.len(), &126, "scan of everything")
}

pub(super) async fn a_page_is_bounded_in_bytes(store: Arc<dyn Store>, _: &ManualClock) -> Checked {
    let value = Bytes::from(vec![7; VALUE_BYTES_MAX]);
    let many = 2 * PAGE_BYTES_MAX / VALUE_BYTES_MAX;
    for n in 0..many {
        store.put(key(&["big", &format!("{n:04}")])?, value.clone()).await?;
    }
    let page = store.scan(&Prefix::all(), None, usize::MAX).await?;
    let bytes: usize = page.entries.iter().map(|e| e.value.len()).sum();
    ensure(bytes <= PAGE_BYTES_MAX + VALUE_BYTES_MAX, "a page takes too much memory")?;
    let rest = store.scan(&Prefix::all(), page.next.as_ref(), usize::MAX).await?;
    same(&(page.entries.len() + rest.entries.len()), &many, "entries of both pages")
}
