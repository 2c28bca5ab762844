//! A disk that fills up: an error that says so, nothing lost, and work goes on once there is space.

use bytes::Bytes;
use xos_store::{
    Guard, Key, ManualClock, Op, Prefix, RedbStore, Store, StoreError,
    journal::{Journal, JournalError, Options, Seq},
};

use super::{Ballast, SmallDisk};

fn key(n: usize) -> Key {
    Key::of(["k", &n.to_string()]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_on_a_full_disk_refuses_and_recovers() {
    let Some(disk) = SmallDisk::new(8 << 20) else { return };
    let path = disk.path().join("registry");
    let clock = std::sync::Arc::new(ManualClock::new(1));
    let store = RedbStore::open_with_clock(&path, clock).unwrap();
    let value = Bytes::from(vec![7; 64 * 1024]);
    let kept = store.put(key(0), value.clone()).await.unwrap();
    let ballast = Ballast::fill(disk.path());
    let mut written = 1;
    let refusal = loop {
        assert!(written < 1000, "the small disk took more than it holds");
        match store.put(key(written), value.clone()).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refusal, StoreError::Full { .. }), "{refusal:?}");
    for _ in 0..3 {
        // Still full: still refused, still readable, still not there.
        let again = store.put(key(written), value.clone()).await;
        assert!(again.is_err(), "{again:?}");
        assert_eq!(store.get(&key(0)).await.unwrap().unwrap().version, kept);
        assert!(store.get(&key(written)).await.unwrap().is_none());
    }
    drop(ballast);
    let guards = vec![Guard::Is(key(0), kept), Guard::Absent(key(written))];
    let ops = vec![Op::put(key(written), value.clone())];
    let outcome = store.txn(guards, ops).await.unwrap();
    assert!(outcome.applied().is_some());
    drop(store);
    let store = RedbStore::open(&path).unwrap();
    let page = store.scan(&Prefix::all(), None, 1000).await.unwrap();
    assert_eq!(page.entries.len(), written + 1);
    assert!(page.entries.iter().all(|e| e.value == value));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_on_a_full_disk_refuses_and_recovers() {
    let Some(disk) = SmallDisk::new(2 << 20) else { return };
    let dir = disk.path().join("journal");
    let (journal, _) = Journal::open(&dir, Options { segment_bytes: 50_000 }).unwrap();
    let record = |n: u64| Bytes::from(format!("{n} {}", "x".repeat(10_000)));
    for n in 1..=8 {
        assert_eq!(journal.append(record(n)).await.unwrap(), Seq(n));
    }
    let ballast = Ballast::fill(disk.path());
    let mut next = 9;
    let refusal = loop {
        assert!(next < 1000, "the small disk took more than it holds");
        match journal.append(record(next)).await {
            Ok(_) => next += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refusal, JournalError::Full { .. }), "{refusal:?}");
    let snapshot = journal.snapshot(vec![1; 100_000].into(), Seq(5)).await;
    assert!(matches!(snapshot, Err(JournalError::Full { .. })), "{snapshot:?}");
    drop(ballast);
    assert_eq!(journal.append(record(next)).await.unwrap(), Seq(next));
    drop(journal);
    let (_journal, mut replay) = Journal::open(&dir, Options::default()).unwrap();
    assert_eq!(replay.take_snapshot(), None);
    for n in 1..=next {
        let found = replay.next().unwrap().unwrap();
        assert_eq!((found.seq, found.bytes), (Seq(n), record(n)));
    }
    assert!(replay.next().is_none());
}
