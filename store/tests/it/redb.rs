//! What is peculiar to the file engine.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use xos_store::{Key, ManualClock, Op, Prefix, RedbStore, Store, StoreError};

use super::kill::scatter;

const ENTRIES: usize = 300;

fn key(n: usize) -> Key {
    Key::of(["k", &format!("{n:04}")]).unwrap()
}

fn value(n: usize) -> String {
    format!("value {n} {}", "x".repeat(n))
}

async fn fill(path: &Path) {
    let store = RedbStore::open(path).unwrap();
    for n in 0..ENTRIES {
        store.put(key(n), value(n).into()).await.unwrap();
    }
}

/// Reads everything by scan and by key: whatever is answered must be right.
async fn read_all(store: &RedbStore) -> Result<(), StoreError> {
    let page = store.scan(&Prefix::all(), None, 1000).await?;
    assert_eq!(page.entries.len(), ENTRIES, "a damaged file lost entries without a word");
    for n in 0..ENTRIES {
        let entry = store.get(&key(n)).await?;
        let entry = entry.expect("a damaged file lost an entry without a word");
        assert_eq!(entry.value, value(n), "a damaged file gave another value");
    }
    Ok(())
}

#[tokio::test]
async fn a_damaged_file_is_an_error_or_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry");
    fill(&path).await;
    let good = fs::read(&path).unwrap();
    let mut refused = 0;
    for round in 0..150 {
        let mut bad = good.clone();
        // A run of rot, as of a bad sector: most of it in the pages that hold something.
        let at = (scatter(round) % bad.len() as u64) as usize;
        let end = (at + 512).min(bad.len());
        bad[at..end].iter_mut().zip(0..).for_each(|(b, n)| *b ^= scatter(n) as u8);
        fs::write(&path, &bad).unwrap();
        match RedbStore::open(&path) {
            Ok(store) => {
                if read_all(&store).await.is_err() {
                    refused += 1;
                }
            }
            Err(StoreError::Corrupt { .. }) => refused += 1,
            Err(other) => panic!("round {round} at {at}: {other}"),
        }
    }
    assert!(refused > 5, "only {refused} of 150 damaged files were noticed");
    fs::write(&path, &good).unwrap();
    read_all(&RedbStore::open(&path).unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_short_or_foreign_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry");
    fill(&path).await;
    let good = fs::read(&path).unwrap();
    for len in [1, 100, 4096, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..len]).unwrap();
        if let Ok(store) = RedbStore::open(&path) {
            read_all(&store).await.unwrap();
        }
    }
    fs::write(&path, "[core]\nthis = \"is the configuration\"\n".repeat(500)).unwrap();
    let Err(refusal) = RedbStore::open(&path) else { panic!("opened a text file") };
    assert!(matches!(refusal, StoreError::Corrupt { .. }), "{refusal:?}");
    let Err(refusal) = RedbStore::open(dir.path().join("none/registry")) else {
        panic!("made a folder")
    };
    assert!(matches!(refusal, StoreError::Io { .. }), "{refusal:?}");
}

#[tokio::test]
async fn one_process_at_a_time_and_nobody_else_reads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry");
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let Err(refusal) = RedbStore::open(&path) else { panic!("opened twice") };
    assert!(matches!(refusal, StoreError::InUse { .. }), "{refusal:?}");
    drop(store);
    RedbStore::open(&path).unwrap();
}

#[tokio::test]
async fn versions_and_leases_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry");
    let clock = Arc::new(ManualClock::new(5_000));
    let open = || RedbStore::open_with_clock(&path, clock.clone()).unwrap();
    let store = open();
    let version = store.put(key(1), "stays".into()).await.unwrap();
    let lease = store.lease(Duration::from_secs(10)).await.unwrap();
    let ops = vec![Op::put_leased(key(2), "goes", lease)];
    store.txn(vec![], ops).await.unwrap();
    drop(store);
    let store = open();
    assert_eq!(store.get(&key(1)).await.unwrap().unwrap().version, version);
    assert!(store.get(&key(2)).await.unwrap().is_some());
    let later = store.lease(Duration::from_secs(10)).await.unwrap();
    assert_ne!(later, lease, "a lease's name was given twice");
    drop(store);
    clock.advance(Duration::from_secs(10));
    let store = open();
    assert!(store.get(&key(2)).await.unwrap().is_none());
    let mut watch = store.watch(Prefix::all()).unwrap();
    assert_ne!(store.put(key(3), "new".into()).await.unwrap(), version);
    // The writer clears away what expired while nobody was there, and says so.
    assert_eq!(watch.next().await, Some(xos_store::Event::Removed(key(2))));
}

#[tokio::test]
async fn expiry_is_told_without_any_request() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(5_000));
    let store = RedbStore::open_with_clock(dir.path().join("registry"), clock.clone()).unwrap();
    let lease = store.lease(Duration::from_secs(10)).await.unwrap();
    store.txn(vec![], vec![Op::put_leased(key(1), "x", lease)]).await.unwrap();
    let mut watch = store.watch(Prefix::all()).unwrap();
    clock.advance(Duration::from_secs(10));
    assert_eq!(watch.next().await, Some(xos_store::Event::Removed(key(1))));
}
