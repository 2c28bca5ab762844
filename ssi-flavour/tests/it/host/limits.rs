//! Programs with limits, on two nodes.

use super::*;
use nix::sys::signal::Signal;
use xos_ssi::procs;

/// Takes memory for ever.
const HOG: &str = "
b = []
while True:
    b.append(b'x' * (1 << 20))
";

/// Has as many processes as it can have, and ends badly when it can have no more.
const FORKS: &str = "
import os, time
while True:
    if os.fork() == 0:
        time.sleep(1000)
";

fn over(tree: TreeId) -> impl Fn(&State) -> bool {
    move |s| s.trees.tree(tree).is_none_or(|t| t.state.is_final())
}

/// What a file of a copy's group holds, under either name; empty when there is none.
fn limit(group: &Cgroup, names: [&str; 2]) -> String {
    let paths = group.parts.iter().flat_map(|p| names.map(|name| p.dir.join(name)));
    let texts = paths.filter_map(|path| std::fs::read_to_string(path).ok());
    texts.map(|text| text.trim().to_owned()).next().unwrap_or_default()
}

/// If it failed, one program could take all memory, or all processes, of its node, or its person
/// not know why it ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_ends_by_its_limit_and_others_go_on() {
    let Some(grid) = Grid::new().await else { return };
    let one = node(1);
    if grid.groups.len() < 2 {
        return;
    }
    let other = grid.count(one).await;
    let hog = grid.wish(one, |job| {
        job.program.argv[2] = HOG.to_owned();
        job.limits.memory_bytes = Some(64 << 20);
    });
    let forks = grid.wish(one, |job| {
        job.program.argv[2] = FORKS.to_owned();
        job.limits.pids = 10;
    });
    grid.site.until("the hog ends", over(hog)).await;
    grid.site.until("who forks ends", over(forks)).await;
    {
        let ends = grid.site.ends.lock().unwrap();
        assert_eq!(ends[&hog], End::OutOfMemory);
        assert_eq!(ends[&forks], End::ProcessLimit { status: 1 });
    }
    let before = grid.site.lines(one, other, 0).await.len();
    counts(&grid.site.lines(one, other, before + 10).await);
}

/// If it failed, a program would have no limits after its first move, or leave a group behind on
/// each node that it was on.
#[tokio::test(flavor = "multi_thread")]
async fn limits_move_along() {
    let Some(grid) = Grid::new().await else { return };
    let (one, two) = (node(1), node(2));
    if grid.groups.len() < 2 {
        return;
    }
    let tree = grid.wish(one, |job| {
        job.limits = Limits { cpu_millis: Some(500), memory_bytes: Some(512 << 20), pids: 50 };
    });
    grid.site.lines(one, tree, 10).await;
    grid.site.until("it runs", |s| runs(s, tree, one)).await;
    for (epoch, from, to) in [(2, one, two), (3, two, one)] {
        grid.site.decide(|c, now| c.migrate(tree, to, now));
        grid.site.until("it moves", |s| runs(s, tree, to)).await;
        let group = grid.groups[&to].child(&format!("{tree}.{epoch}"));
        assert_eq!(group.processes().unwrap().len(), 1, "it is in its group");
        assert_eq!(limit(&group, ["pids.max"; 2]), "50");
        let memory = limit(&group, ["memory.max", "memory.limit_in_bytes"]);
        assert_eq!(memory, (512 << 20).to_string());
        let cpu = limit(&group, ["cpu.max", "cpu.cfs_quota_us"]);
        assert_eq!(cpu.split(' ').next(), Some("50000"));
        let before = grid.site.lines(one, tree, 0).await.len();
        counts(&grid.site.lines(one, tree, before + 10).await);
        let old = grid.groups[&from].child(&format!("{tree}.{}", epoch - 1));
        let until = Instant::now() + PATIENCE;
        while old.is_there() {
            assert!(Instant::now() < until, "the group of the copy before stays");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// If it failed, what left its program by a session of its own would be ended by a move without a
/// word, or run on after the program where nobody counts it.
#[tokio::test(flavor = "multi_thread")]
async fn what_left_its_program_keeps_it_and_ends_with_it() {
    let Some(grid) = Grid::new().await else { return };
    let (one, two) = (node(1), node(2));
    if grid.groups.len() < 2 {
        return;
    }
    let other = grid.count(one).await;
    let tree = grid.runs(one, LEAVER, Stdio::Three, false).await;
    grid.site.lines(one, tree, 10).await;
    let group = grid.groups[&one].child(&format!("{tree}.1"));
    assert_eq!(group.processes().unwrap().len(), 2);
    grid.site.decide(|c, now| c.migrate(tree, two, now));
    grid.site.until("it goes on", |s| runs(s, tree, one)).await;
    assert_eq!(grid.site.controller.lock().unwrap().state().trees.tree(tree).unwrap().epoch, 1);
    // It began its session; what left it began another one, and is the child of who did.
    let began = |pid: &i32| procs::one(*pid).is_some_and(|p| p.session == *pid);
    let root = group.processes().unwrap().into_iter().find(began).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(root), Signal::SIGKILL).unwrap();
    grid.site.until("it ends", over(tree)).await;
    let until = Instant::now() + PATIENCE;
    while group.is_there() {
        assert!(Instant::now() < until, "what left it runs on: {:?}", group.processes());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Another program of the same person has not ended meanwhile.
    let before = grid.site.lines(one, other, 0).await.len();
    counts(&grid.site.lines(one, other, before + 10).await);
}

/// A counter, and a process that left it by a session of its own.
const LEAVER: &str = "
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.closerange(0, 3)
    time.sleep(100000)
os.wait()
n = 0
while True:
    os.write(1, b'%d %d\\n' % (os.getpid(), n))
    n += 1
    time.sleep(0.02)
";
