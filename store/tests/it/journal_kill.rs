//! SIGKILL under a journal that rolls over and takes snapshots all the time.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use xos_store::journal::{Journal, Options, Seq};

use super::kill::{child_dir, run_and_kill, scatter, tell};

const WRITERS: u64 = 8;
const ROUNDS: u64 = 20;
const SEED: u64 = 7;

fn options() -> Options {
    Options { segment_bytes: 3000 }
}

/// The state that the journal carries: the last number of each writer.
type Counts = BTreeMap<u64, u64>;

fn encode(counts: &Counts) -> Bytes {
    counts.iter().map(|(writer, n)| format!("{writer} {n}\n")).collect::<String>().into()
}

fn apply(counts: &mut Counts, bytes: &[u8]) {
    for line in std::str::from_utf8(bytes).unwrap().lines() {
        let (writer, n) = line.split_once(' ').unwrap();
        let n: u64 = n.trim_end_matches('.').parse().unwrap();
        let before = counts.insert(writer.parse().unwrap(), n);
        assert!(before.is_none_or(|b| b + 1 == n), "writer {writer} went from {before:?} to {n}");
    }
}

fn open(dir: &Path) -> (Journal, Counts, Seq) {
    let (journal, mut replay) = Journal::open(dir, options()).unwrap();
    let mut counts = Counts::new();
    let mut last = Seq(0);
    if let Some(snapshot) = replay.take_snapshot() {
        apply(&mut counts, &snapshot.state);
        last = snapshot.upto;
    }
    for record in replay {
        let record = record.unwrap();
        assert_eq!(record.seq.0, last.0 + 1, "a record is missing");
        last = record.seq;
        apply(&mut counts, &record.bytes);
    }
    (journal, counts, last)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of a_killed_journal_replays_all_that_was_acknowledged"]
async fn child_appends() {
    let Some(dir) = child_dir() else { return };
    let (journal, mut counts, _) = open(&dir);
    let journal = Arc::new(journal);
    loop {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let journal = Arc::clone(&journal);
                let from = counts.get(&writer).copied().unwrap_or(0);
                tokio::spawn(async move {
                    for n in from + 1..from + 6 {
                        let padding = ".".repeat((scatter(n * WRITERS + writer) % 300) as usize);
                        journal.append(format!("{writer} {n}{padding}")).await.unwrap();
                        tell(writer, n);
                    }
                    (writer, from + 5)
                })
            })
            .collect();
        for writer in writers {
            counts.extend([writer.await.unwrap()]);
        }
        // Runs beside the next round, which changes the journal but not this state.
        let (state, upto) = (encode(&counts), journal.last());
        let journal = Arc::clone(&journal);
        drop(tokio::spawn(async move {
            if let Err(error) = journal.snapshot(state, upto).await {
                println!("{error}");
            }
        }));
    }
}

#[test]
fn a_killed_journal_replays_all_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Counts::new();
    for round in 0..ROUNDS {
        let acks = 1 + scatter(SEED + round) % 400;
        println!("seed {SEED} round {round}: kill after {acks}");
        expected.extend(run_and_kill("journal_kill::child_appends", dir.path(), acks));
        let (journal, counts, last) = open(dir.path());
        assert_eq!(journal.last(), last);
        for (writer, acked) in &mut expected {
            let found = counts.get(writer).copied().unwrap_or(0);
            assert!(found == *acked || found == *acked + 1, "{found}, acknowledged {acked}");
            *acked = found;
        }
        let files = std::fs::read_dir(dir.path()).unwrap().count();
        assert!(files < 60, "snapshots let no segment go: {files} files");
    }
}
