//! Files that programs had open when their node died.

use super::{Grid, UID, counts, node, runs};
use std::path::PathBuf;
use tempfile::TempDir;
use xos_ssi::cell::proto::Stdio;
use xos_ssi::cluster::messages::TreeId;
use xos_ssi::cluster::record::State;
use xos_ssi::cluster::trees::{Tree, TreeState};

/// A program with a log that died with node 2; node 1 has its checkpoint.
struct Dead {
    grid: Grid,
    tree: TreeId,
    log: PathBuf,
    _home: TempDir,
}

impl Dead {
    async fn new() -> Option<Dead> {
        let mut grid = Grid::new().await?;
        let home = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(home.path(), Some(UID), Some(UID)).unwrap();
        let log = home.path().canonicalize().unwrap().join("log");
        let text = format!(
            "import os, time\n\
             log = os.open({log:?}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)\n\
             n = 0\n\
             while True:\n    \
                 os.write(log, f'{{n}}\\n'.encode())\n    \
                 os.write(1, f'{{os.getpid()}} {{n}}\\n'.encode())\n    \
                 n += 1\n    \
                 time.sleep(0.02)\n"
        );
        let (one, two) = (node(1), node(2));
        let tree = grid.runs(one, &text, Stdio::Three, false).await;
        grid.site.lines(one, tree, 10).await;
        grid.site.decide(|c, now| c.migrate(tree, two, now));
        grid.site.until("it moves", |s| runs(s, tree, two)).await;
        let before = grid.site.lines(one, tree, 0).await.len();
        grid.site.lines(one, tree, before + 10).await;
        grid.kill(two).await;
        let dead = Dead { grid, tree, log, _home: home };
        dead.grid.site.until("its node is taken for dead", |s| dead.waits(s)).await;
        Some(dead)
    }

    fn waits(&self, s: &State) -> bool {
        matches!(s.trees.tree(self.tree).unwrap().state, TreeState::Checkpointed { .. })
    }

    fn tree(&self) -> Tree {
        self.grid.site.controller.lock().unwrap().state().trees.tree(self.tree).unwrap().clone()
    }

    fn restart(&self) {
        self.grid.site.decide(|c, now| c.restart(self.tree, node(1), now));
    }

    /// Waits until it runs and has written more.
    async fn goes_on(&self) {
        let (site, one) = (&self.grid.site, node(1));
        site.until("it is restarted", |s| runs(s, self.tree, one)).await;
        let before = site.lines(one, self.tree, 0).await.len();
        counts(&site.lines(one, self.tree, before + 10).await);
    }
}

/// If it failed, a program that keeps a log would have lines twice in it once its node has died, or
/// nobody would be told where the rest of it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_nodes_log_has_each_line_once() {
    let Some(dead) = Dead::new().await else { return };
    dead.restart();
    dead.goes_on().await;
    let text = std::fs::read_to_string(&dead.log).unwrap();
    let count = text.matches('\n').count();
    let expected: String = (0..count).map(|n| format!("{n}\n")).collect();
    assert!(text.starts_with(&expected), "{text}");
    let told = dead.tree().cut;
    let [cut] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(cut.path, dead.log.to_str().unwrap());
    let kept = std::fs::read_to_string(&cut.kept).unwrap();
    assert_eq!(kept.len() as u64, cut.bytes);
    assert!(cut.bytes > 0 && text.contains(&kept), "{kept}");
}

/// If it failed, a program would go on with a file that is not the one that it knows, be lost for
/// it, or never go on though its person says that it is right.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_log_waits_for_who_says_that_it_is_right() {
    let Some(dead) = Dead::new().await else { return };
    std::fs::write(&dead.log, "mine\n").unwrap();
    dead.restart();
    let barred = |s: &State| s.trees.tree(dead.tree).unwrap().barred.is_some();
    dead.grid.site.until("its log keeps it", barred).await;
    let t = dead.tree();
    assert!(matches!(t.state, TreeState::Checkpointed { .. }), "{t:?}");
    assert!(t.barred.unwrap().contains(dead.log.to_str().unwrap()));
    assert_eq!((t.tries, t.cut), (0, Vec::new()));
    assert_eq!(std::fs::read_to_string(&dead.log).unwrap(), "mine\n");
    dead.grid.site.decide(|c, now| c.restart_as_is(dead.tree, node(1), now));
    dead.goes_on().await;
    assert!(std::fs::read_to_string(&dead.log).unwrap().starts_with("mine\n"));
}
