//! Nodes with programs, disks and other nodes that do not do what they should.

use super::{Grid, PATIENCE, counts, node, runs};
use crate::silent::Silent;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use xos_base::when::{Clock, SystemClock};
use xos_ssi::cell::Client;
use xos_ssi::cell::proto::Stdio;
use xos_ssi::cluster::messages::{Order, ToNode, TreeId};
use xos_ssi::cluster::record::State;
use xos_ssi::cluster::trees::{Step, TreeState};
use xos_ssi::driver::fake::Fake;
use xos_ssi::ghost::spool::ERROR_FILE;
use xos_ssi::host::Heard;
use xos_ssi::pids::NodeNumber;

/// Whether a tree is over.
fn over(tree: TreeId) -> impl Fn(&State) -> bool {
    move |s| s.trees.tree(tree).is_none_or(|t| t.state.is_final())
}

/// Has a node end a copy, as its controller would one that it does not want. It did not decide so:
/// for it the tree is what it was, and only [`super::Site::is_gone`] tells that the copy went.
fn kill(grid: &Grid, on: NodeNumber, tree: TreeId, epoch: u64) {
    let term = {
        let controller = grid.site.controller.lock().unwrap();
        let mut members = controller.state().members.iter();
        members.find(|(number, _)| *number == on).unwrap().1.term
    };
    let orders = vec![Order::Kill { tree, epoch }];
    let messages = vec![ToNode::Told { term, sent: SystemClock.up(), orders }];
    let heard = Heard { messages, jobs: vec![], refused: vec![] };
    assert!(grid.site.told.lock().unwrap()[&on].send(heard).is_ok());
}

/// Waits until something is so.
pub(super) async fn when(what: &str, good: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !good() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// If it failed, one process that hangs in the kernel would take all programs of its node along.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_be_killed_holds_up_nobody() {
    let Some(silent) = Silent::new() else { return };
    silent.begin();
    let Some(grid) = Grid::faked(Arc::new(Fake::new())).await else { return };
    let one = node(1);
    let text = format!("import os\nos.write(1, b'up\\n')\nos.stat({:?})\n", silent.path());
    let tree = grid.runs(one, &text, Stdio::Three, false).await;
    silent.take();
    kill(&grid, one, tree, 1);
    let another = grid.count(one).await;
    let before = grid.site.lines(one, another, 0).await.len();
    counts(&grid.site.lines(one, another, before + 10).await);
    assert!(!grid.site.is_gone(tree, 1), "it is told to be gone, and is not");
    drop(silent);
    when("it is told to be gone", || grid.site.is_gone(tree, 1)).await;
    assert!(!grid.hosts[&one].0.is_finished());
}

/// If it failed, a program on a volume that does not answer would keep all others from their node.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_begin_holds_up_nobody_and_its_person_reads_why() {
    let Some(silent) = Silent::new() else { return };
    let Some(grid) = Grid::faked(Arc::new(Fake::new())).await else { return };
    let one = node(1);
    let waits = grid.wish(one, |job| job.program.cwd = silent.path().to_owned());
    grid.count(one).await;
    let folder = grid.site.nodes.lock().unwrap()[&one].folder(waits.0);
    when("the reason comes", || {
        let text = std::fs::read_to_string(folder.join(ERROR_FILE)).unwrap_or_default();
        text.contains("did not begin")
    })
    .await;
    grid.site.until("it ends", over(waits)).await;
    assert!(!grid.hosts[&one].0.is_finished());
}

/// If it failed, a person would see a number where their program should be, and no reason.
#[tokio::test(flavor = "multi_thread")]
async fn who_starts_what_cannot_run_reads_why() {
    let Some(grid) = Grid::faked(Arc::new(Fake::new())).await else { return };
    let one = node(1);
    let tree = grid.wish(one, |job| job.program.argv = vec!["no-such-program".into()]);
    let folder = grid.site.nodes.lock().unwrap()[&one].folder(tree.0);
    when("the reason comes", || {
        let text = std::fs::read_to_string(folder.join(ERROR_FILE)).unwrap_or_default();
        text.starts_with("xos: cannot run \"no-such-program\"") && text.ends_with('\n')
    })
    .await;
    grid.site.until("it ends", over(tree)).await;
}

/// If it failed, a program would not run because another one's session still has its number.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_whose_number_is_taken_gets_another() {
    let Some(grid) = Grid::faked(Arc::new(Fake::new())).await else { return };
    let one = node(1);
    let pid = *one.given_pids().start();
    for taken in [false, true] {
        let tree = grid.wish(one, |job| job.pid = Some(pid));
        let lines = grid.site.lines(one, tree, 10).await;
        counts(&lines);
        assert_ne!(lines[0].starts_with(&format!("{pid} ")), taken, "{lines:?}");
    }
}

/// If it failed, a full disk would end all programs of its node, and keep it from its cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_keeps_a_node_from_new_programs_only() {
    let Some(grid) = Grid::small().await else { return };
    let one = node(1);
    let tree = grid.count(one).await;
    let small = grid.small.as_ref().unwrap();
    small.fill();
    let new = grid.wish(one, |_| {});
    let before = grid.site.lines(one, tree, 0).await.len();
    counts(&grid.site.lines(one, tree, before + 50).await);
    {
        let controller = grid.site.controller.lock().unwrap();
        assert!(!runs(controller.state(), new, one), "nothing of it would be known afterwards");
    }
    kill(&grid, one, tree, 1);
    let folder = grid.dir.path().join("1");
    when("it ends though there is no room", || !has_processes(&folder, tree)).await;
    small.clear();
    grid.site.until("there is room", |s| runs(s, new, one)).await;
    when("it is told to be gone", || grid.site.is_gone(tree, 1)).await;
    assert!(!grid.hosts[&one].0.is_finished());
}

/// Whether a cell still has a tree.
fn has_processes(folder: &Path, tree: TreeId) -> bool {
    let mut cell = Client::connect(&folder.join("cell")).unwrap();
    let status = cell.status().unwrap();
    status.trees.iter().any(|t| t.tree.is_some_and(|t| t.id == tree.0))
}

/// If it failed, a move that is given up would last until a node answers that does not.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_come_is_not_waited_for_once_the_move_is_given_up() {
    let Some(grid) = Grid::new().await else { return };
    let (one, two) = (node(1), node(2));
    let tree = grid.count(one).await;
    grid.site.silent.store(true, Ordering::SeqCst);
    grid.site.decide(|c, now| c.migrate(tree, two, now));
    when("it is fetched", || !grid.site.kept.lock().unwrap().is_empty()).await;
    let restores = |s: &State| match &s.trees.tree(tree).unwrap().state {
        TreeState::Moving { next, step: Step::Restoring { .. }, .. } => Some(*next),
        _ => None,
    };
    grid.site
        .until("nobody takes it, and it is saved all the same", |s| restores(s).is_some())
        .await;
    let next = restores(grid.site.controller.lock().unwrap().state()).unwrap();
    kill(&grid, two, tree, next);
    let mut socket = grid.site.kept.lock().unwrap().remove(0);
    let mut asked = Vec::new();
    let read = tokio::task::spawn_blocking(move || socket.read_to_end(&mut asked)).await.unwrap();
    assert!(read.unwrap() > 0, "nobody waits for it any more");
    grid.site.until("it goes on", |s| runs(s, tree, one)).await;
}

/// If it failed, images of programs, which are as large as their memory, would fill a node's disk
/// move by move.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_came_to_nothing_is_removed() {
    let Some(grid) = Grid::new().await else { return };
    let (one, two) = (node(1), node(2));
    let tree = grid.count(one).await;
    grid.site.spoils.store(true, Ordering::SeqCst);
    grid.site.decide(|c, now| c.migrate(tree, two, now));
    grid.site.until("it goes on", |s| runs(s, tree, one)).await;
    let images = grid.dir.path().join(format!("2/images/{tree}"));
    when("its image goes", || !images.exists()).await;
    let before = grid.site.lines(one, tree, 0).await.len();
    counts(&grid.site.lines(one, tree, before + 10).await);
}
