use super::*;
use crate::state::JobRecord;
use crate::testing;
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
