//! Many at once.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::{Checked, Wrong, ensure, increment, key, same, text};
use crate::{Guard, ManualClock, Op, Prefix, Store};

const TASKS: usize = 8;
const ROUNDS: usize = 25;

pub(super) async fn counters_lose_no_increment(store: Arc<dyn Store>, _: &ManualClock) -> Checked {
    let at = key(&["counter"])?;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (store, at) = (Arc::clone(&store), at.clone());
            tokio::spawn(async move {
                let mut got = Vec::new();
                for _ in 0..ROUNDS {
                    got.push(increment(&*store, &at).await?);
                }
                Ok::<_, Wrong>(got)
            })
        })
        .collect();
    let mut seen = BTreeSet::new();
    for task in tasks {
        for number in task.await?? {
            ensure(seen.insert(number), format_args!("{number} was given twice"))?;
        }
    }
    same(&text(&*store, &at).await?, &(TASKS * ROUNDS).to_string(), "counter")
}

/// Otherwise two people would get one member number.
pub(super) async fn one_creator_wins(store: Arc<dyn Store>, _: &ManualClock) -> Checked {
    for round in 0..ROUNDS {
        let at = key(&["name", &round.to_string()])?;
        let tasks: Vec<_> = (0..TASKS)
            .map(|n| {
                let (store, at) = (Arc::clone(&store), at.clone());
                tokio::spawn(async move {
                    let guards = vec![Guard::Absent(at.clone())];
                    let outcome = store.txn(guards, vec![Op::put(at, n.to_string())]).await;
                    outcome.map(|o| o.applied().map(|_| n))
                })
            })
            .collect();
        let mut winners = Vec::new();
        for task in tasks {
            winners.extend(task.await??);
        }
        same(&winners.len(), &1, "creators who won")?;
        same(&text(&*store, &at).await?, &winners[0].to_string(), "who is stored")?;
    }
    Ok(())
}

pub(super) async fn pairs_are_never_seen_apart(store: Arc<dyn Store>, _: &ManualClock) -> Checked {
    let (a, b) = (key(&["pair", "a"])?, key(&["pair", "b"])?);
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..TASKS * ROUNDS {
                let value = Bytes::from(n.to_string());
                let ops = vec![Op::put(a.clone(), value.clone()), Op::put(b.clone(), value)];
                store.txn(vec![], ops).await?;
            }
            Ok::<_, Wrong>(())
        })
    };
    let prefix = Prefix::of(["pair"])?;
    while !writer.is_finished() {
        let page = store.scan(&prefix, None, 10).await?;
        let values: BTreeSet<_> = page.entries.iter().map(|e| e.value.clone()).collect();
        ensure(values.len() <= 1, format_args!("half a transaction was read: {values:?}"))?;
        tokio::task::yield_now().await;
    }
    writer.await?
}

/// Pages are taken while keys come and go around those that stay.
pub(super) async fn scans_miss_nothing_that_stays(
    store: Arc<dyn Store>,
    _: &ManualClock,
) -> Checked {
    for n in 0..50 {
        store.put(key(&["mix", &format!("{n:02}"), "stays"])?, Bytes::new()).await?;
    }
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..TASKS * ROUNDS {
                let at = key(&["mix", &format!("{:02}", n * 7 % 50), "goes"])?;
                store.put(at.clone(), Bytes::new()).await?;
                store.txn(vec![], vec![Op::Del(at)]).await?;
            }
            Ok::<_, Wrong>(())
        })
    };
    let prefix = Prefix::of(["mix"])?;
    let mut rounds = 0;
    while rounds == 0 || !writer.is_finished() {
        let mut stays = 0;
        let mut last = None;
        loop {
            let page = store.scan(&prefix, last.as_ref(), 3).await?;
            stays += page.entries.iter().filter(|e| e.key.as_str().ends_with("stays")).count();
            let Some(next) = page.next else { break };
            ensure(last.is_none_or(|l| l < next), "paging went backwards")?;
            last = Some(next);
        }
        same(&stays, &50, "keys that stay")?;
        rounds += 1;
    }
    writer.await?
}
