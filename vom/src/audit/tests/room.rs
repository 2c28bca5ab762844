//! Room in the queue and on the disk.

use super::*;
use futures_util::FutureExt;
use std::io;

/// If it failed, nodes that come back all at once would push the core's own events out, or one node
/// the others' reports.
#[test]
fn reports_leave_most_of_the_queue() {
    let queue = Queue::default();
    let push = |node: Option<u32>, count: usize| {
        let (given, receipt) = Receipt::new();
        let node = node.map(|n| format!("n{n}.rennes").parse().unwrap());
        let report = node.map(|node| (node, "a".to_owned(), 1));
        queue.push(Task { events: vec![event("x"); count], report, given });
        // Nobody writes: what is taken waits.
        receipt.now_or_never().is_none()
    };
    assert!(push(Some(0), 500));
    assert!(!push(Some(0), 1), "two reports of one node");
    let taken = (1..1000).take_while(|n| push(Some(*n), 500)).count();
    assert_eq!(taken + 1, QUEUE_EVENTS_MAX / 4 / 500);
    let own = (0..1000).take_while(|_| push(None, 500)).count();
    assert_eq!(own + taken + 1, QUEUE_EVENTS_MAX / 500);
}

/// Of the disk that the test below makes up.
static FREE: AtomicU64 = AtomicU64::new(0);

fn made_up(_: &Path) -> io::Result<u64> {
    Ok(FREE.load(Ordering::SeqCst))
}

/// If it failed, strangers could fill the disk to the end, and what matters would have no place; or
/// nobody would see that lines are missing.
#[tokio::test]
async fn without_space_only_what_matters_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    let clock = hand(1000);
    let options = Options { reserve_bytes: 100, free: made_up, ..Options::default() };
    FREE.store(100, Ordering::SeqCst);
    let log = AuditLog::open(dir.path(), site(), options, clock.clone()).unwrap();
    let note = async |at: u64, what: &str, who: &str, outcome: Outcome| {
        let e = Event { who: who.into(), outcome, ..Event::new(Millis(at), what) };
        log.record(e).await.unwrap();
    };
    let noted = || everything(&log).into_iter().rev().map(|l| l.event.what).collect::<Vec<_>>();
    note(0, "end_units", "core of pisa", Outcome::Done).await;
    FREE.store(99, Ordering::SeqCst);
    clock.0.store(60_000, Ordering::SeqCst);
    note(60_000, "remove_member", "alice@rennes", Outcome::Done).await;
    let before = ["end_units", "audit_space_low", "remove_member"];
    assert_eq!(noted(), before);
    // One a minute is let through, so that more space is seen.
    note(60_000, "sign_in", "", Outcome::Refused).await;
    note(60_001, "sign_in", "", Outcome::Refused).await;
    note(60_002, "start_units", "core of pisa", Outcome::Done).await;
    note(60_003, "sign_in", "alice@rennes", Outcome::Done).await;
    note(60_004, "apply", "bob@rennes", Outcome::Refused).await;
    assert_eq!(noted()[3..], ["sign_in", "sign_in", "apply"]);
    FREE.store(100, Ordering::SeqCst);
    clock.0.store(120_000, Ordering::SeqCst);
    note(120_000, "start_units", "core of pisa", Outcome::Done).await;
    note(120_001, "start_units", "core of pisa", Outcome::Done).await;
    assert_eq!(noted()[6..], ["audit_space_enough", "start_units", "start_units"]);
    let enough = everything(&log).into_iter().find(|l| l.event.what == "audit_space_enough");
    assert!(enough.unwrap().event.why.starts_with("2 lines"), "what was left out is counted");
    assert!(free_bytes(dir.path()).unwrap() > 0);
}
