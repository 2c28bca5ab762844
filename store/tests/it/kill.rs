//! SIGKILL in mid-write: the test starts itself as a child that writes and tells what was
//! acknowledged, kills it at a seeded moment, and looks at what is left.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use xos_store::{Guard, Key, Op, Prefix, RedbStore, Store};

const DIR: &str = "XOS_STORE_KILL_DIR";
const WRITERS: u64 = 6;
const ROUNDS: u64 = 20;
const SEED: u64 = 20_101;

/// A small generator, so that a failing round can be repeated from its seed.
pub(crate) fn scatter(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Tells the parent that `writer`'s write number `n` was acknowledged.
pub(crate) fn tell(writer: u64, n: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "acked {writer} {n}").and_then(|()| out.flush()).unwrap();
}

/// Runs the ignored test `child` on `dir`, kills it after `acks` acknowledgements, and says the
/// last acknowledged number of each writer.
pub(crate) fn run_and_kill(child: &str, dir: &Path, acks: u64) -> BTreeMap<u64, u64> {
    let mut process = Command::new(env::current_exe().unwrap())
        .args(["--exact", child, "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut last = BTreeMap::new();
    let mut count = 0;
    for line in BufReader::new(process.stdout.take().unwrap()).lines() {
        // The test harness may have put its own words before ours.
        let line = line.unwrap();
        let Some((_, told)) = line.split_once("acked ") else { continue };
        let Some((writer, n)) = told.split_once(' ') else { continue };
        let (writer, n): (u64, u64) = (writer.parse().unwrap(), n.parse().unwrap());
        let before = last.insert(writer, n);
        assert!(before.is_none_or(|b| b < n), "acknowledged backwards");
        count += 1;
        if count == acks {
            // What it told before it died is still in the pipe and read to the end.
            process.kill().unwrap();
        }
    }
    process.wait().unwrap();
    assert!(count >= acks, "the child ended by itself after {count} acknowledgements");
    last
}

pub(crate) fn child_dir() -> Option<std::path::PathBuf> {
    env::var_os(DIR).map(Into::into)
}

fn pair(writer: u64) -> [Key; 2] {
    ["a", "b"].map(|half| Key::of(["pair", &writer.to_string(), half]).unwrap())
}

async fn number(store: &RedbStore, key: &Key) -> u64 {
    let entry = store.get(key).await.unwrap();
    entry.map_or(0, |e| std::str::from_utf8(&e.value).unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of nothing_acknowledged_is_lost_by_a_kill"]
async fn child_writes_pairs() {
    let Some(dir) = child_dir() else { return };
    let store = Arc::new(RedbStore::open(dir.join("registry")).unwrap());
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let [a, b] = pair(writer);
                for n in number(&store, &a).await + 1.. {
                    let value = n.to_string();
                    let padding = Key::of(["padding", &scatter(n).to_string()]).unwrap();
                    let guard = match store.get(&a).await.unwrap() {
                        Some(entry) => Guard::Is(a.clone(), entry.version),
                        None => Guard::Absent(a.clone()),
                    };
                    let ops = vec![
                        Op::put(a.clone(), value.clone()),
                        Op::put(padding, vec![0x5a; (scatter(n) % 9000) as usize]),
                        Op::put(b.clone(), value),
                    ];
                    let outcome = store.txn(vec![guard], ops).await.unwrap();
                    assert!(outcome.applied().is_some());
                    tell(writer, n);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
    for round in 0..ROUNDS {
        let acks = 1 + scatter(SEED + round) % 150;
        println!("seed {SEED} round {round}: kill after {acks}");
        expected.extend(run_and_kill("kill::child_writes_pairs", dir.path(), acks));
        let store = RedbStore::open(dir.path().join("registry")).unwrap();
        for (writer, acked) in &mut expected {
            let [a, b] = pair(*writer);
            let (a, b) = (number(&store, &a).await, number(&store, &b).await);
            assert_eq!(a, b, "half a transaction of writer {writer} in round {round}");
            assert!(a == *acked || a == *acked + 1, "{a} found, {acked} acknowledged");
            *acked = a;
        }
        let page = store.scan(&Prefix::all(), None, 1).await.unwrap();
        assert!(!page.entries.is_empty());
    }
}
