mod archived;
mod room;

use super::files::{Segment, list};
use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use xos_api::audit::{FaultKind, Line, Outcome};
use xos_base::Millis;
use xos_net::Audit;

/// A clock that is set by hand, in milliseconds.
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }
}

fn site() -> SiteId {
    "rennes".parse().unwrap()
}

fn options(segment_bytes: u64) -> Options {
    // The disk of whoever runs this may be almost full.
    Options { segment_bytes, reserve_bytes: 0, ..Options::default() }
}

fn hand(at: u64) -> Arc<Hand> {
    Arc::new(Hand(AtomicU64::new(at)))
}

fn open(dir: &Path, segment_bytes: u64) -> AuditLog {
    AuditLog::open(dir, site(), options(segment_bytes), hand(1000)).unwrap()
}

fn event(why: &str) -> Event {
    Event { who: "alice@rennes".into(), why: why.into(), ..Event::new(Millis(5), "sign_in") }
}

async fn fill(log: &AuditLog, from: u64, count: u64) {
    for n in from..from + count {
        log.record(event(&n.to_string())).await.unwrap();
    }
}

fn files(dir: &Path) -> Vec<Segment> {
    list(dir).unwrap()
}

fn all_lines(dir: &Path) -> Vec<String> {
    let text = |s: &Segment| fs::read_to_string(&s.path).unwrap();
    files(dir).iter().flat_map(|s| text(s).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn everything(log: &AuditLog) -> Vec<Line> {
    let mut ask = SearchAudit { limit: Some(7), ..SearchAudit::default() };
    let mut all = Vec::new();
    loop {
        let page = log.search(&Scope::All, &ask).unwrap();
        assert_eq!(page.unreadable, 0);
        all.extend(page.lines);
        ask.before = page.next;
        if ask.before.is_none() {
            return all;
        }
    }
}

fn first_fault(dir: &Path, witnesses: &[Witness]) -> Option<(String, u64, FaultKind)> {
    let check = verify_folder(dir, Some(site()), witnesses).unwrap();
    check.faults.into_iter().next().map(|f| (f.file, f.number, f.kind))
}

/// If it failed, what was stored would be gone or in another order after a restart, or readable by
/// others on the machine.
#[tokio::test]
async fn lines_are_kept_over_restarts_and_files_in_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("audit");
    for round in 0..4 {
        let log = open(&dir, 2000);
        fill(&log, round * 10 + 1, 10).await;
        assert_eq!(log.end().number, (round + 1) * 10);
        let lines = everything(&log);
        let told: Vec<_> = lines.iter().map(|l| l.event.why.parse::<u64>().unwrap()).collect();
        let expected: Vec<_> = (1..=(round + 1) * 10).rev().collect();
        assert_eq!(told, expected);
        assert!(lines.iter().all(|l| l.noted == Millis(1000) && l.site == site()));
    }
    assert!(files(&dir).len() > 3, "it never began a new file");
    assert_eq!(first_fault(&dir, &[]), None);
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    assert!(files(&dir).iter().all(|s| mode(&s.path) == 0o600));
    // A line is what its type says, and nothing else.
    for text in all_lines(&dir) {
        let line: Line = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&line).unwrap(), text);
    }
}

#[tokio::test]
async fn only_one_process_writes() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 2000);
    let second = AuditLog::open(dir.path(), site(), options(2000), hand(1)).err().unwrap();
    assert_eq!(second.kind, xos_base::Kind::Conflict);
    log.close();
    let late = log.record(event("late")).await.unwrap_err();
    assert_eq!(late.kind, xos_base::Kind::Unavailable);
}

/// If it failed, a kill in mid-write would break the chain, or an edited line would keep the core
/// from starting or take what follows it with it.
#[tokio::test]
async fn half_a_line_is_cut_and_damage_is_told_and_gone_on_behind() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1 << 20);
    fill(&log, 1, 5).await;
    drop(log);
    let path = files(dir.path()).remove(0).path;
    let whole = fs::read(&path).unwrap();
    let torn = [&whole[..], &br#"{"site":"rennes","num"#[..]].concat();
    fs::write(&path, &torn).unwrap();
    let log = open(dir.path(), 1 << 20);
    assert_eq!((log.end().number, fs::read(&path).unwrap()), (5, whole.clone()));
    fill(&log, 6, 1).await;
    drop(log);
    assert_eq!(first_fault(dir.path(), &[]), None);

    let good = fs::read_to_string(&path).unwrap();
    let edited = good.replace("\"why\":\"3\"", "\"why\":\"x\"");
    fs::write(&path, &edited).unwrap();
    let log = open(dir.path(), 1 << 20);
    fill(&log, 7, 1).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), edited, "the damaged file was changed");
    let lines = everything(&log);
    assert_eq!(lines[1].event.what, "audit_damaged");
    assert!(lines[1].event.why.contains("line 3"), "{:?}", lines[1]);
    assert_eq!((lines[0].number, lines[1].number, log.end().number), (8, 7, 8));
    drop(log);
    let check = verify_folder(dir.path(), None, &[]).unwrap();
    assert_eq!(check.faults.len(), 1, "{:?}", check.faults);
    assert_eq!((check.faults[0].number, check.faults[0].kind), (3, FaultKind::Altered));
}

/// If it failed, whoever edits one line could use up all numbers, or set the time of all lines to
/// come.
#[tokio::test]
async fn an_edited_number_or_name_does_not_end_the_audit() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1 << 20);
    fill(&log, 1, 5).await;
    drop(log);
    let path = files(dir.path()).remove(0).path;
    let text = fs::read_to_string(&path).unwrap();
    let edited = text.replace("\"number\":5,", &format!("\"number\":{},", u64::MAX));
    let edited = edited.replacen("\"noted\":1000", &format!("\"noted\":{}", u64::MAX), 1);
    fs::write(&path, edited).unwrap();
    fs::write(dir.path().join(format!("{}.jsonl", u64::MAX)), "rubbish\n").unwrap();
    let log = open(dir.path(), 1 << 20);
    fill(&log, 6, 2).await;
    assert_eq!(log.end().number, 8, "five lines, one that tells, two more");
    drop(log);
    let log = open(dir.path(), 1 << 20);
    fill(&log, 8, 1).await;
    assert_eq!((log.end().number, log.end().noted), (9, Millis(1000)));
}

/// If it failed, one of the ways to tamper with the audit would not be seen, or seen elsewhere than
/// it is.
#[tokio::test]
async fn what_is_removed_altered_reordered_replaced_or_cut_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 2000);
    fill(&log, 1, 40).await;
    let end = log.end();
    drop(log);
    let witness = Witness { by: "pisa".parse().unwrap(), number: end.number, hash: end.hash };
    let seen = [witness];
    assert_eq!(first_fault(dir.path(), &seen), None);
    let parts = files(dir.path());
    let second = &parts[1];
    let (name, at) = (second.name(), second.first);
    let good = fs::read_to_string(&second.path).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let write = |lines: &[&str]| fs::write(&second.path, lines.join("\n") + "\n").unwrap();
    let found = || first_fault(dir.path(), &seen);

    write(&[&lines[..1], &lines[2..]].concat());
    assert_eq!(found(), Some((name.clone(), at + 1, FaultKind::Missing)));
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    write(&swapped);
    assert_eq!(found(), Some((name.clone(), at + 1, FaultKind::Missing)));
    let altered = lines[1].replace("alice", "mallo");
    write(&[lines[0], altered.as_str(), lines[2]]);
    let fault = found().unwrap();
    assert_eq!((fault.0, fault.1, fault.2), (name, at + 1, FaultKind::Altered));
    // Half of the file is cut off.
    write(&lines[..2]);
    assert_eq!(found().unwrap().1, at + 2);
    // Another file in its place, and none.
    fs::copy(&parts[2].path, &second.path).unwrap();
    assert_eq!(found().unwrap().1, at);
    fs::remove_file(&second.path).unwrap();
    assert_eq!(found(), Some((parts[2].name(), at, FaultKind::Missing)));
    fs::write(&second.path, &good).unwrap();
    assert_eq!(found(), None);
    // The tail: nobody here can tell, who witnessed it can.
    let last = parts.last().unwrap();
    fs::remove_file(&last.path).unwrap();
    assert_eq!(first_fault(dir.path(), &[]), None);
    assert_eq!(found().unwrap().2, FaultKind::Cut);
    // Opened again, it goes on behind the cut: what was witnessed still tells.
    let log = open(dir.path(), 2000);
    fill(&log, 1, 40).await;
    drop(log);
    assert_eq!(first_fault(dir.path(), &[]), None);
    assert_eq!(found().unwrap().2, FaultKind::Rewritten);
}

/// If it failed, whoever cuts the file of a running core would not be seen before others look.
#[tokio::test]
async fn a_running_core_knows_its_own_end_and_verifies_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    fill(&log, 1, 40).await;
    assert!(files(dir.path()).len() > 2 * check::FILES_MAX);
    let (mut from, mut lines, mut parts) = (None, 0, 0);
    loop {
        let check = log.check(from.as_ref(), Vec::new()).unwrap();
        assert_eq!(check.faults, []);
        (lines, parts) = (lines + check.lines, parts + 1);
        from = check.next;
        if from.is_none() {
            break;
        }
    }
    assert!(lines == 40 && parts >= 3, "{lines} lines in {parts} parts");
    let last = files(dir.path()).pop().unwrap();
    fs::remove_file(&last.path).unwrap();
    let mut check = log.check(None, Vec::new()).unwrap();
    while let Some(from) = check.next.take() {
        check = log.check(Some(&from), Vec::new()).unwrap();
    }
    assert_eq!(check.faults.first().unwrap().kind, FaultKind::Cut);
}

fn node() -> NodeId {
    "n1.rennes".parse().unwrap()
}

/// If it failed, a node that reports again after a break would have its events twice, or none; or a
/// rooted one could pass them off as somebody else's.
#[tokio::test]
async fn a_report_is_stored_once_also_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let events = |from: u64, count: u64| {
        (from..from + count).map(|n| event(&n.to_string())).collect::<Vec<_>>()
    };
    for round in 0..3_u64 {
        // Small files, so that the marks come from the folder, not from lines.
        let log = open(dir.path(), 400);
        let series = || "a".to_owned();
        log.report(node(), series(), 1, events(1, round + 2)).await.unwrap();
        log.report(node(), series(), 1, events(1, round + 3)).await.unwrap();
        assert_eq!(log.end().number, round + 3, "stored twice, or not at all");
        drop(log);
    }
    let log = open(dir.path(), 400);
    let lines = everything(&log);
    assert!(lines.iter().all(|l| l.event.node == Some(node())), "{lines:?}");
    // A hole, and a count that begins anew, are told.
    log.report(node(), "a".into(), 9, events(9, 1)).await.unwrap();
    log.report(node(), "b".into(), 1, events(1, 1)).await.unwrap();
    let whats: Vec<_> = everything(&log).into_iter().take(4).map(|l| l.event.what).collect();
    assert_eq!(whats, ["sign_in", "reports_begin_anew", "sign_in", "reports_missing"]);
    assert_eq!(first_fault(dir.path(), &[]), None);
}

/// If it failed, a search would miss lines, or show more than it may.
#[tokio::test]
async fn a_search_finds_what_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let clock = hand(0);
    let log = AuditLog::open(dir.path(), site(), options(900), clock.clone()).unwrap();
    for n in 1..=60_u64 {
        clock.0.store(n * 10, Ordering::SeqCst);
        let person = if n % 2 == 0 { "bob@pisa" } else { "alice@rennes" };
        let vo = if n % 3 == 0 { "demo.rennes" } else { "other.pisa" };
        let e = Event {
            who: person.into(),
            person: Some(person.parse().unwrap()),
            vo: Some(vo.parse().unwrap()),
            why: format!("Reason {n}"),
            outcome: if n % 5 == 0 { Outcome::Refused } else { Outcome::Done },
            ..Event::new(Millis(1), if n % 4 == 0 { "start_unit" } else { "sign_in" })
        };
        log.record(e).await.unwrap();
    }
    let find = |scope: &Scope, ask: SearchAudit| {
        let page = log.search(scope, &ask).unwrap();
        page.lines.iter().map(|l| l.number).collect::<Vec<_>>()
    };
    let every = |f: fn(u64) -> bool| (1..=60).rev().filter(|n| f(*n)).collect::<Vec<_>>();
    let d = SearchAudit::default;
    let all = &Scope::All;
    assert_eq!(find(all, d()), every(|_| true));
    let (since, until) = (Some(Millis(200)), Some(Millis(405)));
    assert_eq!(find(all, SearchAudit { since, until, ..d() }), every(|n| (20..=40).contains(&n)));
    assert_eq!(find(all, SearchAudit { before: Some(31), ..d() }), every(|n| n < 31));
    let person = Some("bob@pisa".parse().unwrap());
    assert_eq!(find(all, SearchAudit { person, ..d() }), every(|n| n % 2 == 0));
    let what = Some("start_unit".to_owned());
    assert_eq!(find(all, SearchAudit { what, ..d() }), every(|n| n % 4 == 0));
    let outcome = Some(Outcome::Refused);
    assert_eq!(find(all, SearchAudit { outcome, ..d() }), every(|n| n % 5 == 0));
    let text = Some("reason 17".to_owned());
    assert_eq!(find(all, SearchAudit { text, ..d() }), [17_u64]);
    let who = Some("BOB".to_owned());
    assert_eq!(find(all, SearchAudit { who, ..d() }), every(|n| n % 2 == 0));
    let demo = || "demo.rennes".parse::<xos_base::VoId>().unwrap();
    assert_eq!(find(&Scope::Vo(demo()), d()), every(|n| n % 3 == 0));
    let vo = Some("other.pisa".parse().unwrap());
    assert_eq!(find(&Scope::Vo(demo()), SearchAudit { vo, ..d() }), Vec::<u64>::new());
    let bob = "bob@pisa".parse::<xos_base::PersonId>().unwrap();
    assert_eq!(find(&Scope::Own(bob.clone(), None), d()), every(|n| n % 2 == 0));
    assert_eq!(find(&Scope::Own(bob, Some(demo())), d()), every(|n| n % 6 == 0));
}

/// If it failed, a clock set back would put lines where no search finds them.
#[tokio::test]
async fn a_clock_set_back_leaves_lines_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let clock = hand(500);
    let log = AuditLog::open(dir.path(), site(), options(1 << 20), clock.clone()).unwrap();
    fill(&log, 1, 1).await;
    clock.0.store(100, Ordering::SeqCst);
    fill(&log, 2, 1).await;
    drop(log);
    let log = AuditLog::open(dir.path(), site(), options(1 << 20), clock).unwrap();
    fill(&log, 3, 1).await;
    assert!(everything(&log).iter().all(|l| l.noted == Millis(500)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever texts events hold, they come back as they were, cut at most; and whatever lies in a
    /// file, it opens, and takes lines.
    #[test]
    fn any_text_and_any_file(
        texts in prop::collection::vec(any::<String>(), 1..6),
        rubbish in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), 1 << 20);
        for text in &texts {
            runtime.block_on(log.record(event(text))).unwrap();
        }
        let told: Vec<_> = everything(&log).into_iter().rev().map(|l| l.event.why).collect();
        prop_assert_eq!(&told, &texts);
        drop(log);
        let path = files(dir.path()).remove(0).path;
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(&rubbish);
        fs::write(&path, &bytes).unwrap();
        let log = open(dir.path(), 1 << 20);
        runtime.block_on(log.record(event("after"))).unwrap();
        let newest = log.search(&Scope::All, &SearchAudit::default()).unwrap().lines;
        prop_assert_eq!(newest[0].event.why.as_str(), "after");
        prop_assert!(newest[0].number > texts.len() as u64);
    }
}
