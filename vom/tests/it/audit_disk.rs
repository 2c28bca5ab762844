//! The audit under SIGKILL in mid-write and on a full disk.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::geteuid;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use xos_api::audit::{Event, Line};
use xos_base::when::SystemClock;
use xos_base::{Kind, Millis};
use xos_net::Audit;
use xos_vom::audit::{AuditLog, Options, verify_folder};

const DIR: &str = "XOS_AUDIT_KILL_DIR";
const WRITERS: u64 = 8;
const ROUNDS: u64 = 12;
const SEED: u64 = 11;

fn open(dir: &Path) -> AuditLog {
    let options = Options { segment_bytes: 5000, reserve_bytes: 0, ..Options::default() };
    let site = "rennes".parse().unwrap();
    AuditLog::open(dir, site, options, Arc::new(SystemClock)).unwrap()
}

fn event(who: u64, n: u64) -> Event {
    let mut event = Event::new(Millis(1), "try_it");
    event.who = who.to_string();
    event.on = n.to_string();
    event
}

fn lines(dir: &Path) -> Vec<Line> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "jsonl"));
    files.sort();
    let text: String = files.iter().map(|f| std::fs::read_to_string(f).unwrap()).collect();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// The last number of each writer.
fn last(dir: &Path) -> BTreeMap<u64, u64> {
    let mut last = BTreeMap::new();
    for line in lines(dir) {
        let (who, n) = (line.event.who.parse().unwrap(), line.event.on.parse().unwrap());
        let before: u64 = last.insert(who, n).unwrap_or(0);
        assert_eq!(before + 1, n, "writer {who}");
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of a_killed_core_has_every_line_that_it_gave_a_receipt_for"]
async fn child_notes() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let from = last(dir);
    let log = Arc::new(open(dir));
    let writers: Vec<_> = (0..WRITERS)
        .map(|who| {
            let (log, from) = (log.clone(), from.get(&who).copied().unwrap_or(0));
            tokio::spawn(async move {
                for n in from + 1.. {
                    log.record(event(who, n)).await.unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "noted {who} {n}").and_then(|()| out.flush()).unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

fn run_and_kill(dir: &Path, receipts: u64) -> BTreeMap<u64, u64> {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "audit_disk::child_notes", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut last, mut count) = (BTreeMap::new(), 0);
    for line in BufReader::new(process.stdout.take().unwrap()).lines() {
        // The test harness may have put its own words before ours.
        let line = line.unwrap();
        let Some((_, told)) = line.split_once("noted ") else { continue };
        let Some((who, n)) = told.split_once(' ') else { continue };
        last.insert(who.parse().unwrap(), n.parse().unwrap());
        count += 1;
        if count == receipts {
            process.kill().unwrap();
        }
    }
    process.wait().unwrap();
    assert!(count >= receipts, "the child ended by itself after {count} receipts");
    last
}

/// If it failed, what somebody was told is in the audit would not be there after a crash, or a
/// crash would pass for tampering.
#[test]
fn a_killed_core_has_every_line_that_it_gave_a_receipt_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
    for round in 0..ROUNDS {
        let receipts = 1 + (SEED + round * 7919) % 400;
        println!("seed {SEED} round {round}: kill after {receipts}");
        expected.extend(run_and_kill(dir.path(), receipts));
        // Cuts what was half written.
        drop(open(dir.path()));
        let found = last(dir.path());
        for (who, told) in &mut expected {
            let have = found.get(who).copied().unwrap_or(0);
            assert!(have == *told || have == *told + 1, "{have} found, {told} told");
            *told = have;
        }
        let check = verify_folder(dir.path(), None, &[]);
        if !found.is_empty() {
            assert_eq!(check.unwrap().faults, []);
        }
    }
}

/// A file system of some bytes, gone when dropped; `None`, with the reason printed, where we may
/// not.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(bytes: usize) -> Option<SmallDisk> {
        if !geteuid().is_root() {
            println!("skipped: mounting a small disk needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={bytes}");
        let tmpfs = Some("tmpfs");
        let flags = MsFlags::empty();
        if let Err(errno) = mount(tmpfs, dir.path(), tmpfs, flags, Some(options.as_str())) {
            println!("skipped: no small disk could be mounted: {errno}");
            return None;
        }
        Some(SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

/// If it failed, a full disk would break the chain, or what was lost then would go unsaid.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_what_was_lost_is_noted() {
    let Some(disk) = SmallDisk::new(1 << 20) else { return };
    let dir = disk.0.path().join("audit");
    let log = open(&dir);
    log.record(event(1, 1)).await.unwrap();
    let ballast = disk.0.path().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let mut next = 2;
    let refused = loop {
        match log.record(event(1, next)).await {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
        assert!(next < 1000, "the small disk took more than it holds");
    };
    assert_eq!(refused.kind, Kind::Unavailable, "{refused}");
    for _ in 0..2 {
        log.record(event(1, 0)).await.unwrap_err();
    }
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    log.record(event(1, next)).await.unwrap();
    drop(log);
    let all = lines(&dir);
    let [.., lost, newest] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(lost.event.what, "events_lost");
    assert_eq!(newest.event.on, next.to_string());
    assert!(lost.event.why.starts_with("3 events"), "{}", lost.event.why);
    assert_eq!(verify_folder(&dir, None, &[]).unwrap().faults, []);
}
