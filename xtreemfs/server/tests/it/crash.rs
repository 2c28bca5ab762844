//! The MRC killed, the disk full, files damaged: what was acknowledged must be there.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use xtreemfs_proto::Errno;
use xtreemfs_proto::mrc::ROOT_INODE;
use xtreemfs_server::mrc::{Mrc, MrcParts, StoreError};

use crate::world::*;

/// Tells the child where its store is.
const DIR_VARIABLE: &str = "XTREEMFS_CRASH_DIR";
/// Tells the child that the size of its files is limited.
const LIMITED_VARIABLE: &str = "XTREEMFS_CRASH_LIMITED";
/// People who work at once, so that transactions share a sync.
const WORKERS: u32 = 8;
/// So small that several checkpoints happen while the child lives.
const CHECKPOINT_BYTES: u64 = 16 << 10;

pub async fn person(mrc: &Arc<Mrc>, member: u32) -> Person {
    let channel = connect_mrc(mrc, "node-1").await;
    let slot = sign_in(&channel, &ticket("demo", member, "100", false)).await.unwrap();
    let volume = mrc.volumes().unwrap()[0].id.clone();
    Person { channel, slot, volume }
}

/// What worker `w` does as its step `n`, in order: makes a file, renames it, removes every third.
fn step(w: u32, n: usize) -> (char, String, String) {
    let (file, kind) = (n / 3, n % 3);
    let (first, second) = (format!("w{w}-{file}"), format!("w{w}-{file}-renamed"));
    match kind {
        0 => ('c', first, String::new()),
        1 => ('r', first, second),
        _ if file % 3 == 0 => ('u', second, String::new()),
        _ => ('l', second, String::new()),
    }
}

async fn perform(person: &Person, (what, name, new): &(char, String, String)) -> Result<(), Errno> {
    match what {
        'c' => person.file(ROOT_INODE, name, 0o644).await.map(drop),
        'r' => person.rename((ROOT_INODE, name), (ROOT_INODE, new), 1).await.map(drop),
        'u' => person.unlink(ROOT_INODE, name).await.map(drop),
        _ => person.lookup(ROOT_INODE, name).await.map(drop),
    }
}

/// Whether a refused step has left nothing behind.
async fn is_undone(person: &Person, (what, name, new): &(char, String, String)) -> bool {
    let there = person.lookup(ROOT_INODE, name).await.is_ok();
    match what {
        'c' => !there,
        'r' => there && person.lookup(ROOT_INODE, new).await == Err(Errno::ENOENT),
        _ => there,
    }
}

/// Not a test: the process that is killed. Says each step that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the other tests of this file"]
async fn child() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    // With a limit on files, the log must reach it before a checkpoint starts a new one.
    let limited = std::env::var_os(LIMITED_VARIABLE).is_some();
    let checkpoint_bytes = if limited { 1 << 30 } else { CHECKPOINT_BYTES };
    let mrc = open_mrc(Path::new(&dir), &Surroundings::new(), checkpoint_bytes);
    if mrc.volumes().unwrap().is_empty() {
        mrc.create_volume(&volume_request("home")).await.unwrap();
    }
    let work = (0..WORKERS).map(|w| {
        let mrc = mrc.clone();
        tokio::spawn(async move {
            let person = person(&mrc, 10 + w).await;
            for n in 0.. {
                let outcome = match perform(&person, &step(w, n)).await {
                    Ok(()) => "done".to_owned(),
                    Err(errno) if is_undone(&person, &step(w, n)).await => {
                        errno.symbol().to_owned()
                    }
                    Err(_) => "refused but kept".to_owned(),
                };
                let mut out = std::io::stdout().lock();
                writeln!(out, "\nstep {w} {n} {outcome}").unwrap();
                out.flush().unwrap();
                if outcome != "done" {
                    return;
                }
            }
        })
    });
    for worker in work.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
}

/// A child's report: how many steps of each worker were acknowledged, and the errors.
#[derive(Default)]
struct Report {
    done: HashMap<u32, usize>,
    errors: Vec<String>,
}

/// Runs the child until it has said `lines` steps, kills it, and reads the rest of what it said.
fn run_child(dir: &Path, lines: usize, limit_file_size: bool) -> Report {
    let own = std::env::current_exe().unwrap();
    let mut command = if limit_file_size {
        let mut shell = Command::new("sh");
        // 64 blocks of 512 bytes per file; the signal is ignored, so that writing fails instead.
        shell.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""]).arg(own);
        shell.env(LIMITED_VARIABLE, "1");
        shell
    } else {
        Command::new(own)
    };
    command.args(["--exact", "crash::child", "--ignored", "--nocapture"]);
    command.env(DIR_VARIABLE, dir).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.process_group(0).spawn().unwrap();
    let mut report = Report::default();
    let (mut seen, mut killed) = (0, false);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        // A line cut short by the kill was not said.
        let &["step", w, n, outcome] = &words[..] else { continue };
        let (w, n): (u32, usize) = (w.parse().unwrap(), n.parse().unwrap());
        if outcome == "done" {
            report.done.insert(w, n + 1);
        } else {
            report.errors.push(outcome.to_owned());
        }
        seen += 1;
        if seen >= lines && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    report
}

/// Names after the first `steps` steps of a worker.
fn names_after(w: u32, steps: usize) -> Vec<String> {
    let mut names = Vec::new();
    for n in 0..steps {
        let (what, name, new) = step(w, n);
        match what {
            'c' => names.push(name),
            'r' => {
                names.retain(|known| *known != name);
                names.push(new);
            }
            'u' => names.retain(|known| *known != name),
            _ => {}
        }
    }
    names.sort();
    names
}

async fn all_names(person: &Person) -> Vec<String> {
    let (mut names, mut cookie) = (Vec::new(), 0);
    loop {
        let part = person.list(ROOT_INODE, cookie, 0).await.unwrap();
        for entry in &part.entries {
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            cookie = entry.cookie;
        }
        if part.end {
            return names;
        }
    }
}

/// Compares what the store holds with what the child said. A step that was under way when the
/// child died may have happened or not; anything else must be as said.
async fn compare(dir: &Path, report: &Report, under_way: usize) {
    let mrc = open_mrc(dir, &Surroundings::new(), CHECKPOINT_BYTES);
    let person = person(&mrc, 99).await;
    let all = all_names(&person).await;
    for w in 0..WORKERS {
        let prefix = format!("w{w}-");
        let mut names: Vec<_> = all.iter().filter(|name| name.starts_with(&prefix)).collect();
        names.sort();
        let done = report.done.get(&w).copied().unwrap_or(0);
        let fits = (done..=done + under_way).any(|steps| {
            let expected = names_after(w, steps);
            expected.iter().eq(names.iter().copied())
        });
        assert!(fits, "worker {w}: {done} steps were acknowledged, found {names:?}");
    }
    let root = person.getattr(ROOT_INODE).await.unwrap();
    assert_eq!(root.size, all.len() as u64, "the root counts its entries wrongly");
}

/// SIGKILL in mid-write, at different moments and with checkpoints going on, must lose nothing
/// that was acknowledged.
#[tokio::test]
async fn a_kill_loses_nothing_acknowledged() {
    for lines in [1, 40, 300, 1000] {
        let dir = tempfile::tempdir().unwrap();
        let report = run_child(dir.path(), lines, false);
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        assert!(report.done.values().sum::<usize>() >= lines.min(300));
        compare(dir.path(), &report, 1).await;
    }
}

/// When the log cannot grow, the change must be refused and taken back, not half kept: what was
/// refused must be gone, at once and after a restart.
#[tokio::test]
async fn a_full_disk_refuses_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let report = run_child(dir.path(), usize::MAX, true);
    assert_eq!(report.errors.len(), WORKERS as usize, "{:?}", report.errors);
    assert!(report.errors.iter().all(|error| error == "ENOSPC"), "{:?}", report.errors);
    assert!(report.done.values().sum::<usize>() > 20);
    compare(dir.path(), &report, 0).await;
}

async fn filled(dir: &Path, count: usize) {
    let mrc = open_mrc(dir, &Surroundings::new(), CHECKPOINT_BYTES);
    mrc.create_volume(&volume_request("home")).await.unwrap();
    let ann = person(&mrc, 10).await;
    for n in 0..count {
        ann.file(ROOT_INODE, &format!("f{n}"), 0o644).await.unwrap();
    }
}

fn files(dir: &Path, kind: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let named =
        |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(kind);
    let mut files: Vec<_> = entries.filter(named).collect();
    files.sort();
    files
}

fn try_open(dir: &Path) -> Result<Arc<Mrc>, StoreError> {
    let around = Surroundings::new();
    let parts = MrcParts {
        signer: xtreemfs_server::Signer::from_seed(&SEED).unwrap(),
        authenticator: around.clone(),
        epochs: around.clone(),
        osds: around.clone(),
        policy: around.clone(),
        opens: around.clone(),
        clock: around,
        random: Box::new(|| [9; 16]),
        checkpoint_bytes: 1 << 30,
    };
    Mrc::open(dir, parts)
}

/// Opens a store that the test has just let go of: its threads end with the last connection.
pub async fn reopen(dir: &Path) -> Result<Arc<Mrc>, StoreError> {
    loop {
        match try_open(dir) {
            Err(StoreError::InUse(_)) => tokio::task::yield_now().await,
            other => return other,
        }
    }
}

/// Checkpoints must replace old logs (else the disk fills) and hold everything.
#[tokio::test]
async fn checkpoints_replace_logs() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 600).await;
    assert!(!files(dir.path(), "checkpoint.").is_empty(), "no checkpoint was written");
    let logs = files(dir.path(), "log.");
    let bytes: u64 = logs.iter().map(|log| log.metadata().unwrap().len()).sum();
    assert!(bytes < 10 * CHECKPOINT_BYTES, "{bytes} bytes in {} logs", logs.len());
    let mrc = reopen(dir.path()).await.unwrap();
    assert_eq!(all_names(&person(&mrc, 10).await).await.len(), 600);
    let second = try_open(dir.path()).unwrap_err();
    assert!(matches!(second, StoreError::InUse(_)), "two servers on one store: {second}");
}

/// A torn end is cut off and the store goes on; damage elsewhere stops the server with a message,
/// because going on would lose what was acknowledged.
#[tokio::test]
async fn torn_and_damaged_files() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 600).await;
    drop(reopen(dir.path()).await.unwrap());
    let log = files(dir.path(), "log.").pop().unwrap();
    let good = std::fs::read(&log).unwrap();
    std::fs::write(&log, [&good[..], &[200, 0, 0, 0, 1, 2, 3, 4, 5]].concat()).unwrap();
    {
        let mrc = reopen(dir.path()).await.unwrap();
        let ann = person(&mrc, 10).await;
        assert_eq!(all_names(&ann).await.len(), 600);
        ann.file(ROOT_INODE, "after the tear", 0o644).await.unwrap();
    }
    {
        let mrc = reopen(dir.path()).await.unwrap();
        assert_eq!(all_names(&person(&mrc, 10).await).await.len(), 601);
    }
    let checkpoint = files(dir.path(), "checkpoint.").pop().unwrap();
    let mut bytes = std::fs::read(&checkpoint).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&checkpoint, &bytes).unwrap();
    let error = reopen(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}
