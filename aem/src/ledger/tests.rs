use super::*;
use crate::state::JobRecord;
use crate::testing;
use std::collections::BTreeSet;
use xos_base::Millis;

fn submitted(job: u64) -> JobRecord {
    JobRecord::Submitted {
        job,
        at: Millis(5),
        spec: Box::new(testing::spec(&[("main", "0-3", &[])])),
        member: Box::new(testing::alice()),
        proof: None,
        watched: false,
    }
}

#[tokio::test]
async fn what_was_appended_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let site: SiteId = "rennes".parse().unwrap();
    let ledger = Ledger::open(site.clone(), dir.path()).unwrap();
    for n in 1..=3 {
        let (_, queued, due) = ledger
            .transact(|t| {
                t.put(submitted(n));
                Ok(())
            })
            .unwrap();
        assert_eq!(due.mandates, BTreeSet::from([n]));
        ledger.stored(queued).await.unwrap();
    }
    let before = ledger.read(State::clone);
    drop(ledger);
    let ledger = Ledger::open(site, dir.path()).unwrap();
    assert_eq!(ledger.read(State::clone), before);
    assert_eq!(before.jobs.next(), 4);
}

#[tokio::test]
async fn a_snapshot_holds_the_whole_state() {
    let dir = tempfile::tempdir().unwrap();
    let site: SiteId = "rennes".parse().unwrap();
    let ledger = Ledger::open(site.clone(), dir.path()).unwrap();
    let (_, queued, _) = ledger
        .transact(|t| {
            t.put(submitted(1));
            Ok(())
        })
        .unwrap();
    ledger.stored(queued).await.unwrap();
    ledger.lock().since_snapshot = SNAPSHOT_AFTER_BYTES;
    ledger.snapshot_if_due().await.unwrap();
    assert!(ledger.lock().snapshot_bytes > 0);
    let (_, queued, _) = ledger
        .transact(|t| {
            t.put(submitted(2));
            Ok(())
        })
        .unwrap();
    ledger.stored(queued).await.unwrap();
    let before = ledger.read(State::clone);
    drop(ledger);
    assert_eq!(Ledger::open(site, dir.path()).unwrap().read(State::clone), before);
}

fn mandated(bytes: usize) -> JobRecord {
    JobRecord::Mandated { job: 9, mandate: "x".repeat(bytes) }
}

/// If it failed, a change that another site made too large would have the whole state loaded anew,
/// and again when it comes again.
#[tokio::test]
async fn a_change_that_is_too_large_is_refused_alone() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open("rennes".parse().unwrap(), dir.path()).unwrap();
    let put = |record: JobRecord| {
        ledger.transact(|t| {
            t.put(record);
            Ok(())
        })
    };
    let (_, before, _) = put(submitted(1)).unwrap();
    let state = ledger.read(State::clone);
    let Err(refused) = put(mandated(RECORD_BYTES_MAX)) else { panic!("it was taken") };
    assert_eq!(refused.kind, xos_base::Kind::TooLarge);
    assert!(!ledger.is_broken(), "the state is loaded anew");
    assert!(ledger.read(|s| *s == state), "it was applied");
    let (_, after, _) = put(submitted(2)).unwrap();
    ledger.stored(before).await.unwrap();
    ledger.stored(after).await.unwrap();
}

/// If it failed, a disk that is slow for a while would have the state loaded anew, and people would
/// be told that what is stored was not.
#[tokio::test]
async fn a_change_waits_while_the_disk_is_far_behind() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open("rennes".parse().unwrap(), dir.path()).unwrap();
    let disk = ledger.disk.write().await;
    let far: Vec<Queued> = (0..9)
        .map(|_| {
            let change = ledger.transact(|t| {
                t.put(mandated(4_000_000));
                Ok(())
            });
            change.unwrap().1
        })
        .collect();
    let mut next = Box::pin(ledger.change(|t| {
        t.put(submitted(1));
        Ok(())
    }));
    assert!(futures_util::poll!(&mut next).is_pending());
    assert_eq!(ledger.read(|s| s.jobs.len()), 0, "it did not wait");
    drop(disk);
    for queued in far {
        ledger.stored(queued).await.unwrap();
    }
    let (_, queued, _) = next.await.unwrap();
    ledger.stored(queued).await.unwrap();
    assert_eq!(ledger.read(|s| s.jobs.len()), 1);
}
