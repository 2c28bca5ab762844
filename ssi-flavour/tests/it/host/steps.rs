//! Moves whose driver fails at one step or another: with real cells and programs, and with a driver
//! that is none, so that each step can be made to fail.

use super::trouble::when;
use super::{Grid, counts, node, runs};
use async_trait::async_trait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use xos_ssi::cell::Client;
use xos_ssi::driver::fake::{Failure, Fake};
use xos_ssi::driver::images::{MANIFEST, Manifest, Origin};
use xos_ssi::driver::{
    Abilities, Checkpointer, DriverError, DumpOrder, Dumped, Leave, RestoreOrder, Restored, Step,
};

/// Programs stand still for real; what is saved of them is in the fake driver's table.
#[derive(Default)]
struct Table {
    fake: Fake,
    /// What was saved last.
    last: Mutex<PathBuf>,
}

#[async_trait]
impl Checkpointer for Table {
    async fn probe(&self) -> Result<Abilities, DriverError> {
        self.fake.probe().await
    }

    async fn dump(&self, order: &DumpOrder) -> Result<Dumped, DriverError> {
        if self.fake.program(order.cell, order.root).is_none() {
            self.fake.start(order.cell, order.root)?;
        }
        let dumped = self.fake.dump(order).await?;
        if order.leave != Leave::Running {
            kill(Pid::from_raw(order.root), Signal::SIGSTOP).unwrap();
        }
        *self.last.lock().unwrap() = order.folder.clone();
        Ok(dumped)
    }

    async fn seal(&self, folder: &Path, origin: Origin) -> Result<Manifest, DriverError> {
        let manifest = self.fake.seal(folder, origin).await?;
        // The last of what is sent to another node.
        std::fs::write(folder.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        Ok(manifest)
    }

    async fn seal_to_travel(&self, folder: &Path, origin: Origin) -> Result<Manifest, DriverError> {
        self.seal(folder, origin).await
    }

    async fn restore(&self, order: RestoreOrder) -> Result<Restored, DriverError> {
        let last = self.last.lock().unwrap().clone();
        assert!(self.fake.copy(&last, &order.folder), "it comes from {}", last.display());
        self.fake.restore(order).await
    }
}

/// If it failed, a program whose move breaks off would stand still for ever, lose its output or do
/// something twice, or live on two nodes.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_step_of_a_move_fails_the_program_goes_on_where_it_was() {
    let table = Arc::new(Table::default());
    let Some(grid) = Grid::faked(table.clone()).await else { return };
    let (one, two) = (node(1), node(2));
    let tree = grid.count(one).await;
    let epoch = || {
        let controller = grid.site.controller.lock().unwrap();
        controller.state().trees.tree(tree).unwrap().epoch
    };
    for (step, failure) in [
        (Step::Dump, Failure::Refuses),
        (Step::Dump, Failure::TimesOut),
        (Step::Seal, Failure::Refuses),
        (Step::Restore, Failure::Refuses),
        (Step::Restore, Failure::TimesOut),
    ] {
        table.fake.fail_next(step, failure);
        let before = grid.site.lines(one, tree, 0).await.len();
        grid.site.decide(|c, now| c.migrate(tree, two, now));
        grid.site.until("it goes on", |s| runs(s, tree, one)).await;
        counts(&grid.site.lines(one, tree, before + 10).await);
        assert_eq!(epoch(), 1, "{step:?} {failure:?}");
        let mut cell = Client::connect(&grid.dir.path().join("2/cell")).unwrap();
        let there = cell.status().unwrap().trees.into_iter().filter_map(|t| t.tree);
        assert_eq!(there.filter(|t| t.id == tree.0).count(), 0, "{step:?} {failure:?}");
        let images = grid.dir.path().join(format!("2/images/{tree}"));
        when("its image goes", || !images.exists()).await;
    }
}
