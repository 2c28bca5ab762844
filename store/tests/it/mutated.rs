//! Files of the journal and the registry, good ones made bad: opening them answers, whatever a
//! failing disk made of them, and takes little memory.

#[path = "../../../tools/mutate.rs"]
mod mutate;

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use mutate::{modest, survives};
use xos_store::{
    Key, Prefix, RedbStore, Store,
    journal::{Journal, Options, Seq},
};

fn files(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    found.retain(|p| p.extension().is_some_and(|e| e == "log" || e == "bin"));
    found.sort();
    found
}

#[tokio::test]
async fn segments_and_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), Options { segment_bytes: 400 }).unwrap();
    for n in 0..20 {
        journal.append(format!("record {n} {}", "x".repeat(n))).await.unwrap();
    }
    journal.snapshot(Bytes::from_static(b"state at 10"), Seq(10)).await.unwrap();
    drop(journal);
    let paths = files(dir.path());
    let good: Vec<Vec<u8>> = paths.iter().map(|p| fs::read(p).unwrap()).collect();
    let mut turn = 0;
    // Opening sets a writer up, with a queue of its own.
    survives(
        &good,
        500,
        |n| modest(n) + (1 << 20),
        |input| {
            turn = (turn + 1) % paths.len();
            fs::write(&paths[turn], input).unwrap();
            if let Ok((journal, replay)) = Journal::open(dir.path(), Options::default()) {
                // Each record is one that was written, or a refusal.
                for record in replay.flatten() {
                    assert!(record.bytes.starts_with(b"record "), "a record is made up");
                }
                drop(journal);
            }
            for (path, bytes) in paths.iter().zip(&good) {
                fs::write(path, bytes).unwrap();
            }
            for path in files(dir.path()).iter().filter(|p| !paths.contains(p)) {
                fs::remove_file(path).unwrap();
            }
        },
    );
}

#[test]
fn registries() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    {
        let store = RedbStore::open(&path).unwrap();
        for n in 0..50 {
            let key = Key::of(["k", &n.to_string()]).unwrap();
            runtime.block_on(store.put(key, Bytes::from(vec![7; 100 * n]))).unwrap();
        }
    }
    let good = vec![fs::read(&path).unwrap()];
    // The engine reserves its page cache at once.
    survives(
        &good,
        200,
        |n| 4 * n + (64 << 20),
        |input| {
            fs::write(&path, input).unwrap();
            if let Ok(store) = RedbStore::open(&path) {
                // Read or refused, as long as it is answered.
                runtime.block_on(store.scan(&Prefix::all(), None, 1000)).ok();
            }
        },
    );
}
