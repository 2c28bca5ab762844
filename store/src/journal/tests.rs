use std::{
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::*;

fn small() -> Options {
    Options { segment_bytes: 200 }
}

async fn append_all(journal: &Journal, records: &[Vec<u8>]) {
    for record in records {
        journal.append(record.clone()).await.unwrap();
    }
}

fn open(dir: &Path) -> Result<(Journal, Vec<Vec<u8>>), JournalError> {
    let (journal, replay) = Journal::open(dir, Options::default())?;
    let records: Result<Vec<Vec<u8>>, _> = replay.map(|r| r.map(|r| r.bytes.to_vec())).collect();
    Ok((journal, records?))
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    files::list(dir).unwrap().segments.into_iter().map(|(_, path)| path).collect()
}

/// Runs a future that needs only the writer's thread.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn numbered(range: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    range.map(|n| format!("record {n} {}", "x".repeat(n % 17)).into_bytes()).collect()
}

#[tokio::test]
async fn what_was_appended_comes_back_over_many_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, mut replay) = Journal::open(dir.path(), small()).unwrap();
    assert!(replay.next().is_none());
    let records = numbered(0..100);
    append_all(&journal, &records[..40]).await;
    let batch = records[40..70].iter().map(|r| Bytes::from(r.clone())).collect();
    assert_eq!(journal.append_batch(batch).await.unwrap(), Seq(70));
    append_all(&journal, &records[70..]).await;
    assert_eq!(journal.sync().await.unwrap(), Seq(100));
    drop(journal);
    assert!(segments(dir.path()).len() > 5);
    let (journal, found) = open(dir.path()).unwrap();
    assert_eq!(found, records);
    assert_eq!(journal.append("more").await.unwrap(), Seq(101));
}

#[tokio::test]
async fn appends_keep_the_order_of_calls() {
    // The state machine decides in this order; replayed in another it would decide otherwise.
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), small()).unwrap();
    let pending: Vec<Append> = (0..500).map(|n| journal.append(format!("{n}"))).collect();
    for (append, n) in pending.into_iter().rev().zip((1..=500).rev()) {
        assert_eq!(append.await.unwrap(), Seq(n));
    }
    drop(journal);
    let wanted: Vec<Vec<u8>> = (0..500).map(|n| format!("{n}").into_bytes()).collect();
    assert_eq!(open(dir.path()).unwrap().1, wanted);
}

#[tokio::test]
async fn a_snapshot_replaces_what_it_contains() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), small()).unwrap();
    let records = numbered(0..60);
    append_all(&journal, &records).await;
    let before = segments(dir.path()).len();
    journal.snapshot("state at 40".into(), Seq(40)).await.unwrap();
    assert!(segments(dir.path()).len() < before);
    let behind = journal.snapshot("older".into(), Seq(39)).await;
    assert!(matches!(behind, Err(JournalError::SnapshotBehind { .. })));
    let ahead = journal.snapshot("not yet".into(), Seq(61)).await;
    assert!(matches!(ahead, Err(JournalError::SnapshotAhead { .. })));
    drop(journal);
    let (journal, mut replay) = Journal::open(dir.path(), small()).unwrap();
    let snapshot = replay.take_snapshot().unwrap();
    assert_eq!((snapshot.upto, &snapshot.state[..]), (Seq(40), &b"state at 40"[..]));
    let rest: Vec<Vec<u8>> = replay.map(|r| r.unwrap().bytes.to_vec()).collect();
    assert_eq!(rest, records[40..]);
    // All contained: the next record still gets the next place.
    journal.snapshot("state at 60".into(), Seq(60)).await.unwrap();
    drop(journal);
    let (journal, found) = open(dir.path()).unwrap();
    assert!(found.is_empty());
    assert_eq!(journal.append("next").await.unwrap(), Seq(61));
}

#[tokio::test]
async fn a_snapshot_without_any_segment_left_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), small()).unwrap();
    append_all(&journal, &numbered(0..5)).await;
    journal.snapshot("all".into(), Seq(5)).await.unwrap();
    drop(journal);
    for segment in segments(dir.path()) {
        fs::remove_file(segment).unwrap();
    }
    let (journal, found) = open(dir.path()).unwrap();
    assert!(found.is_empty());
    assert_eq!(journal.append("next").await.unwrap(), Seq(6));
}

#[tokio::test]
async fn limits_and_a_second_opener_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), small()).unwrap();
    let second = Journal::open(dir.path(), small()).unwrap_err();
    assert!(matches!(second, JournalError::InUse { .. }));
    let large = journal.append(vec![0; RECORD_BYTES_MAX + 1]).await;
    assert!(matches!(large, Err(JournalError::TooLarge { .. })));
    let many = journal.append_batch(vec![Bytes::new(); QUEUE_RECORDS_MAX + 1]).await;
    assert!(matches!(many, Err(JournalError::Busy)));
    assert_eq!(journal.append(vec![7; RECORD_BYTES_MAX]).await.unwrap(), Seq(1));
    assert_eq!(journal.append_batch(vec![]).await.unwrap(), Seq(1));
    drop(journal);
    assert_eq!(open(dir.path()).unwrap().1, [vec![7; RECORD_BYTES_MAX]]);
}

#[tokio::test]
async fn damage_before_the_tail_is_told_and_nothing_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), Options { segment_bytes: 400 }).unwrap();
    append_all(&journal, &numbered(0..26)).await;
    drop(journal);
    let paths = segments(dir.path());
    assert!(paths.len() > 2);
    let newest = fs::read(paths.last().unwrap()).unwrap();
    assert!(last_record_start(&newest) > format::SEGMENT_HEAD, "needs several records");
    for path in &paths {
        let good = fs::read(path).unwrap();
        let last = path == paths.last().unwrap();
        // The last record of all cannot be told from a torn one; any other can.
        let end = if last { last_record_start(&good) } else { good.len() };
        for at in 0..end {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(path, &bad).unwrap();
            let error = open(dir.path()).map(drop).unwrap_err();
            assert!(matches!(error, JournalError::Corrupt { .. }), "byte {at}: {error}");
            assert_eq!(fs::read(path).unwrap(), bad, "a damaged journal was changed");
        }
        fs::write(path, &good).unwrap();
    }
    for path in &paths[..paths.len() - 1] {
        let good = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        let missing = open(dir.path()).map(drop).unwrap_err();
        assert!(matches!(missing, JournalError::Corrupt { .. }), "{missing}");
        fs::write(path, &good[..good.len() - 1]).unwrap();
        let short = open(dir.path()).map(drop).unwrap_err();
        assert!(matches!(short, JournalError::Corrupt { .. }), "{short}");
        fs::write(path, &good).unwrap();
    }
    assert_eq!(open(dir.path()).unwrap().1, numbered(0..26));
}

fn last_record_start(segment: &[u8]) -> usize {
    let salt = format::SegmentHead::decode(segment).unwrap().salt;
    let (mut at, mut last) = (format::SEGMENT_HEAD, format::SEGMENT_HEAD);
    while let Some(found) = format::record_at(&segment[at..], salt) {
        last = at;
        at += found.len();
    }
    last
}

#[tokio::test]
async fn a_gap_in_what_was_never_synced_is_a_torn_tail() {
    // A power cut may keep a later page of one write and lose an earlier one.
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), Options::default()).unwrap();
    append_all(&journal, &numbered(0..3)).await;
    let batch = numbered(3..9).into_iter().map(Bytes::from).collect();
    journal.append_batch(batch).await.unwrap();
    drop(journal);
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let salt = format::SegmentHead::decode(&bytes).unwrap().salt;
    let mut at = format::SEGMENT_HEAD;
    for _ in 0..5 {
        at += format::record_at(&bytes[at..], salt).unwrap().len();
    }
    bytes[at..at + 10].fill(0);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(open(dir.path()).unwrap().1, numbered(0..5));
}

#[tokio::test]
async fn a_damaged_snapshot_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), small()).unwrap();
    append_all(&journal, &numbered(0..3)).await;
    journal.snapshot("state".into(), Seq(3)).await.unwrap();
    drop(journal);
    let path = files::snapshot_path(dir.path(), Seq(3));
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        let error = open(dir.path()).map(drop).unwrap_err();
        assert!(matches!(error, JournalError::Corrupt { .. }), "byte {at}: {error}");
        fs::write(&path, &good[..at]).unwrap();
        assert!(open(dir.path()).is_err(), "cut at {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// A torn tail, cut at any byte and with any rubbish behind the cut, costs only what it tore.
    #[test]
    fn a_torn_tail_costs_only_itself(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..12),
        rubbish in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path(), Options::default()).unwrap();
        let batch = records.iter().map(|r| Bytes::from(r.clone())).collect();
        wait(journal.append_batch(batch)).unwrap();
        drop(journal);
        let path = segments(dir.path()).pop().unwrap();
        let good = fs::read(&path).unwrap();
        for cut in format::SEGMENT_HEAD..good.len() {
            let mut torn = good[..cut].to_vec();
            torn.extend_from_slice(&rubbish);
            fs::write(&path, &torn).unwrap();
            let mut end = format::SEGMENT_HEAD;
            let whole = records.iter().take_while(|r| {
                end += format::RECORD_HEAD + r.len();
                // Rubbish may happen to complete the record it follows.
                end <= cut || torn.get(..end) == good.get(..end)
            });
            let whole: Vec<Vec<u8>> = whole.cloned().collect();
            let (journal, found) = open(dir.path()).unwrap();
            prop_assert_eq!(&found, &whole, "cut at {}", cut);
            drop(journal);
        }
        let (journal, found) = open(dir.path()).unwrap();
        wait(journal.append("after")).unwrap();
        drop(journal);
        let again = open(dir.path()).unwrap().1;
        prop_assert_eq!(again.len(), found.len() + 1);
    }

    /// Whatever lies in a segment file, opening answers; it never panics.
    #[test]
    fn any_segment_content_opens_or_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().unwrap();
        let head = format::SegmentHead { first: Seq(1), salt: 3 }.encode();
        let path = dir.path().join("seg-00000000000000000001.log");
        fs::write(&path, [&head[..], &bytes].concat()).unwrap();
        prop_assert!(open(dir.path()).unwrap().1.is_empty());
        fs::write(&path, &bytes).unwrap();
        prop_assert!(open(dir.path()).is_err());
    }
}
