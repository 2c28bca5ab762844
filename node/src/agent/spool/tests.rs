use super::*;
use std::io::Write;
use xos_base::Millis;
use xos_base::when::SystemClock;

fn open(dir: &Path, most: u64) -> Spool {
    let node = "n1.rennes".parse().unwrap();
    Spool::bounded(dir, node, Arc::new(SystemClock), most).unwrap()
}

fn event(n: u64) -> Event {
    Event { on: format!("{n}"), ..Event::new(Millis(n), "open_session") }
}

async fn note(spool: &Spool, of: std::ops::Range<u64>) {
    for n in of {
        spool.record(event(n)).await.unwrap();
    }
}

fn told(report: &ReportEvents) -> Vec<&str> {
    report.events.iter().map(|e| e.on.as_str()).collect()
}

/// If it failed, logins on a node whose core was away would be in no audit after a restart, or be
/// there twice.
#[tokio::test]
async fn what_the_core_has_not_stored_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 1 << 20);
    note(&spool, 0..3).await;
    let before = spool.next().unwrap();
    assert_eq!((before.first, told(&before)), (1, vec!["0", "1", "2"]));
    drop(spool);
    let spool = open(dir.path(), 1 << 20);
    assert_eq!(spool.next().unwrap(), before, "it is reported otherwise");
    spool.stored_before(3);
    note(&spool, 3..4).await;
    let rest = spool.next().unwrap();
    assert_eq!((rest.first, told(&rest), &rest.series), (3, vec!["2", "3"], &before.series));
}

/// If it failed, a core that answers late or not at all would get events in another order, or not
/// all of them.
#[tokio::test(start_paused = true)]
async fn each_report_is_sent_until_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 1 << 20);
    let all = REPORT_EVENTS_MAX as u64 + 5;
    note(&spool, 0..all).await;
    let (got, tries) = (Mutex::new(Vec::<String>::new()), AtomicU64::new(0));
    let done = Notify::new();
    let (taken, asked, over) = (&got, &tries, &done);
    let send = move |report: ReportEvents| async move {
        let (got, tries, done) = (taken, asked, over);
        if tries.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            return Err(Error::unavailable("the core is away"));
        }
        let mut got = got.lock().unwrap();
        assert_eq!(report.first, got.len() as u64 + 1);
        got.extend(report.events.into_iter().map(|e| e.on));
        if got.len() as u64 == all {
            done.notify_one();
        }
        Ok(())
    };
    tokio::select! {
        () = spool.report(send) => {}
        () = done.notified() => {}
    }
    let wanted: Vec<String> = (0..all).map(|n| n.to_string()).collect();
    assert_eq!(*got.lock().unwrap(), wanted);
    assert_eq!(tries.load(Ordering::SeqCst), 4);
}

/// If it failed, a user who signs in again and again would fill the node's disk while its core is
/// away, or push out of the audit what was noted before.
#[tokio::test]
async fn the_spool_is_bounded_and_says_what_fell_out() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 2000);
    let mut refused = 0;
    for n in 0..100 {
        refused += u64::from(spool.record(event(n)).await.is_err());
    }
    let bytes = spool.shared.lock().bytes;
    assert!(refused > 50 && bytes <= 2000, "{refused} fell out at {bytes} bytes");
    let kept = spool.next().unwrap();
    assert_eq!(kept.events[0].on, "0", "an old event fell out");
    spool.stored_before(kept.first + kept.events.len() as u64);
    spool.record(event(100)).await.unwrap();
    let report = spool.next().unwrap();
    assert_eq!(report.first, kept.first + kept.events.len() as u64);
    assert_eq!(report.events[0].what, "left_out");
    assert!(report.events[0].why.starts_with(&format!("{refused} ")), "{:?}", report.events[0]);
    assert_eq!(report.events[1].on, "100");
}

/// If it failed, a flood of logins would leave no room for the word that somebody's work was ended.
#[tokio::test]
async fn room_is_kept_for_what_is_done_to_members() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 4000);
    let mut n = 0;
    while spool.record(event(n)).await.is_ok() {
        n += 1;
    }
    for what in flood::KEPT_ROOM {
        let event = Event { what: what.to_owned(), ..event(n) };
        spool.record(event).await.unwrap();
    }
    assert!(spool.shared.lock().bytes <= 4000);
    assert_eq!(spool.shared.waiting.load(Ordering::Relaxed), 0);
}

/// If it failed, a node whose power went while it wrote would not start, or give the number of an
/// event that its core has to another one.
#[tokio::test]
async fn a_torn_end_is_cut_and_damage_begins_a_new_count() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit/events");
    let spool = open(dir.path(), 1 << 20);
    note(&spool, 0..2).await;
    let before = spool.next().unwrap();
    drop(spool);
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(br#"{"time":3,"what":"open_se"#).unwrap();
    let spool = open(dir.path(), 1 << 20);
    assert_eq!(spool.next().unwrap(), before);
    note(&spool, 2..3).await;
    assert_eq!(told(&spool.next().unwrap()), ["0", "1", "2"]);
    drop(spool);

    let text = std::fs::read_to_string(&path).unwrap();
    let broken = text.replacen("open_session", "\u{0}", 1);
    assert_ne!(broken, text);
    std::fs::write(&path, broken).unwrap();
    let spool = open(dir.path(), 1 << 20);
    let report = spool.next().unwrap();
    assert_eq!((report.first, told(&report)), (1, vec!["1", "2"]));
    assert_ne!(report.series, before.series);
    note(&spool, 3..4).await;
    let report = spool.next().unwrap();
    assert_eq!(report.events[2].what, "left_out", "what was lost is not told");
    assert_eq!(report.events[3].on, "3");
}

/// If it failed, the file would grow for ever although the core takes everything.
#[tokio::test]
async fn what_the_core_has_leaves_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit/events");
    let spool = open(dir.path(), 1 << 30);
    let long = Event { on: "x".repeat(1000), ..event(0) };
    for _ in 0..400 {
        spool.record(long.clone()).await.unwrap();
    }
    let full = std::fs::metadata(&path).unwrap().len();
    assert!(full > 400_000);
    spool.stored_before(400);
    // Whatever is written next comes after the look at the size.
    note(&spool, 1..3).await;
    assert!(std::fs::metadata(&path).unwrap().len() < full / 2);
    let report = spool.next().unwrap();
    assert_eq!((report.first, report.events.len()), (400, 3));
    drop(spool);
    assert_eq!(open(dir.path(), 1 << 30).next().unwrap(), report);
}
