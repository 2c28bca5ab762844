//! What programs wrote when the node is lost that has it.

use super::{Grid, counts, node, runs};
use std::sync::atomic::Ordering;
use xos_ssi::cluster::messages::TreeId;
use xos_ssi::cluster::record::State;
use xos_ssi::cluster::trees::TreeState;
use xos_ssi::pids::NodeNumber;

/// Whether a node has the last checkpoint, and what was written by then.
fn has(s: &State, tree: TreeId, on: NodeNumber) -> bool {
    let t = s.trees.tree(tree).unwrap();
    t.checkpoint.as_ref().is_some_and(|image| t.has(image, on))
}

/// Makes a checkpoint of a program where it runs.
async fn saved(grid: &Grid, tree: TreeId) {
    let version = |s: &State| s.trees.tree(tree).unwrap().checkpoint.as_ref().map(|c| c.version);
    let before = version(grid.site.controller.lock().unwrap().state());
    grid.site.decide(|c, now| c.save(tree, now));
    grid.site.until("it is saved", |s| version(s) > before).await;
}

/// Has a node keep the last checkpoint of a program, and what that had written by then.
async fn held(grid: &Grid, tree: TreeId, on: NodeNumber) {
    let lasts = |s: &State| {
        let t = s.trees.tree(tree).unwrap();
        t.checkpoint.as_ref().is_some_and(|image| image.brief.is_empty())
    };
    grid.site.until("its checkpoint is on the disk", lasts).await;
    grid.site.decide(|c, now| c.hold(tree, on, now));
    grid.site.until("it is kept with its output", |s| has(s, tree, on)).await;
}

/// A machine is lost with its disk.
async fn lost(grid: &mut Grid, number: NodeNumber) {
    grid.kill(number).await;
    std::fs::remove_dir_all(grid.dir.path().join(format!("spools-{number}"))).unwrap();
}

/// If it failed, what a program wrote before its node died would be gone, or be there twice.
#[tokio::test(flavor = "multi_thread")]
async fn output_outlives_the_node_of_a_programs_birth() {
    let Some(mut grid) = Grid::new().await else { return };
    let (one, two) = (node(1), node(2));
    let tree = grid.count(one).await;
    saved(&grid, tree).await;
    held(&grid, tree, two).await;
    // Once more, with what was written since.
    let before = grid.site.lines(one, tree, 0).await.len();
    grid.site.lines(one, tree, before + 10).await;
    saved(&grid, tree).await;
    held(&grid, tree, two).await;
    let before = grid.site.lines(one, tree, 0).await.len();
    lost(&mut grid, one).await;
    let waits =
        |s: &State| matches!(s.trees.tree(tree).unwrap().state, TreeState::Checkpointed { .. });
    grid.site.until("its node is taken for dead", waits).await;
    grid.site.decide(|c, now| c.restart(tree, two, now));
    grid.site.until("it is restarted", |s| runs(s, tree, two)).await;
    counts(&grid.site.lines(two, tree, before + 20).await);
    let t = grid.site.controller.lock().unwrap().state().trees.tree(tree).unwrap().clone();
    assert_eq!((t.home(), t.output_at()), (Some(two), two));
}

/// If it failed, a program that runs elsewhere would go on when the node of its birth dies, and
/// what it had written be gone all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_runs_elsewhere_has_all_that_it_wrote() {
    let Some(mut grid) = Grid::new().await else { return };
    let (one, two) = (node(1), node(2));
    let tree = grid.count(one).await;
    grid.site.decide(|c, now| c.migrate(tree, two, now));
    grid.site.until("it moves", |s| runs(s, tree, two)).await;
    held(&grid, tree, two).await;
    let before = grid.site.lines(one, tree, 0).await.len();
    let before = grid.site.lines(one, tree, before + 20).await.len();
    lost(&mut grid, one).await;
    let home = |s: &State| s.trees.tree(tree).unwrap().home() == Some(two) && runs(s, tree, two);
    grid.site.until("its output is where it is", home).await;
    counts(&grid.site.lines(two, tree, before + 20).await);
}

/// If it failed, a checkpoint would count as copied though what the program wrote is nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_without_its_output_is_no_copy() {
    let Some(grid) = Grid::new().await else { return };
    let (one, two) = (node(1), node(2));
    let tree = grid.count(one).await;
    saved(&grid, tree).await;
    grid.site.mute.store(true, Ordering::SeqCst);
    grid.site.decide(|c, now| c.hold(tree, two, now));
    let over = |s: &State| s.trees.tree(tree).unwrap().holding.is_none();
    grid.site.until("it is given up", over).await;
    assert!(!has(grid.site.controller.lock().unwrap().state(), tree, two));
    grid.site.mute.store(false, Ordering::SeqCst);
    held(&grid, tree, two).await;
}
