//! Watches.

use std::sync::Arc;

use bytes::Bytes;

use super::{Checked, Wrong, ensure, key, same};
use crate::{Event, Guard, ManualClock, Op, Prefix, Store, WATCH_QUEUE_MAX, Watch};

async fn next(watch: &mut Watch) -> Result<Event, Wrong> {
    watch.next().await.ok_or_else(|| Wrong("the watch ended".into()))
}

/// Engines may repeat events or say Resync; per key the last event must fit what is stored.
pub(super) async fn events_come_in_order(store: Arc<dyn Store>, _: &ManualClock) -> Checked {
    let (a, b, outside) = (key(&["w", "a"])?, key(&["w", "b"])?, key(&["x", "a"])?);
    let mut watch = store.watch(Prefix::of(["w"])?)?;
    store.put(a.clone(), "1".into()).await?;
    store.put(outside, "1".into()).await?;
    store.txn(vec![], vec![Op::put(b.clone(), "1"), Op::Del(a.clone())]).await?;
    store.txn(vec![Guard::Absent(b.clone())], vec![Op::put(a.clone(), "no")]).await?;
    store.txn(vec![], vec![Op::Del(key(&["w", "never was"])?)]).await?;
    store.put(b.clone(), "2".into()).await?;
    let end = key(&["w", "end"])?;
    store.put(end.clone(), Bytes::new()).await?;
    let mut events = Vec::new();
    while events.last() != Some(&Event::Changed(end.clone())) {
        let event = next(&mut watch).await?;
        if event == Event::Resync {
            events.clear();
        } else if events.last() != Some(&event) {
            events.push(event);
        }
    }
    let wanted = [
        Event::Changed(a.clone()),
        Event::Changed(b.clone()),
        Event::Removed(a),
        Event::Changed(b),
        Event::Changed(end),
    ];
    ensure(wanted.ends_with(&events), format_args!("got {events:?}, wanted {wanted:?}"))
}

pub(super) async fn a_slow_watch_is_told_to_resync(
    store: Arc<dyn Store>,
    _: &ManualClock,
) -> Checked {
    let mut watch = store.watch(Prefix::all())?;
    for n in 0..=WATCH_QUEUE_MAX / 16 {
        let ops: Result<Vec<_>, Wrong> =
            (0..16).map(|m| Ok(Op::put(key(&[&n.to_string(), &m.to_string()])?, "x"))).collect();
        store.txn(vec![], ops?).await?;
    }
    let mut events = 0;
    while next(&mut watch).await? != Event::Resync {
        events += 1;
        ensure(events <= WATCH_QUEUE_MAX, "events were lost without a word")?;
    }
    // After the gap it goes on.
    let at = key(&["after"])?;
    store.put(at.clone(), Bytes::new()).await?;
    while next(&mut watch).await? != Event::Changed(at.clone()) {}
    same(&store.get(&at).await?.is_some(), &true, "the key that was told of")
}
