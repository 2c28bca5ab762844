//! Which mounts are changed now. Each change waits for other machines, so they go side by side:
//! never two for one volume, and few for one home, which may be one that does not answer.

use super::MountSpec;
use super::process::Running;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio::task::{Id, JoinSet};
use xos_base::{SiteId, VoId};

/// How many volumes of one home are mounted or ended at a time.
const HOME_MAX: usize = 4;

/// What is to be done with one volume.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Whose.
    pub(super) vo: VoId,
    /// The mount that goes.
    pub(super) end: Option<Running>,
    /// The mount that comes then.
    pub(super) begin: Option<MountSpec>,
}

/// The node's mounts.
pub(super) struct Mounts {
    running: BTreeMap<VoId, Running>,
    /// Volumes that are being changed, by home.
    busy: BTreeMap<SiteId, BTreeSet<VoId>>,
    tasks: JoinSet<Option<Running>>,
    of: HashMap<Id, VoId>,
}

impl Mounts {
    pub(super) fn new(running: BTreeMap<VoId, Running>) -> Mounts {
        let (busy, tasks, of) = Default::default();
        Mounts { running, busy, tasks, of }
    }

    /// What is to be done now to come to what is wanted; it counts as under way from now on.
    /// `stands`: whether a mount is as it should be.
    pub(super) fn due(
        &mut self,
        mut wanted: BTreeMap<VoId, MountSpec>,
        stands: impl Fn(&Running) -> bool,
    ) -> Vec<Change> {
        let all: BTreeSet<VoId> = wanted.keys().chain(self.running.keys()).cloned().collect();
        let mut changes = Vec::new();
        for vo in all {
            let begin = wanted.remove(&vo);
            let good = |r: &Running| begin.as_ref() == Some(&r.spec) && stands(r);
            let busy = self.busy.entry(vo.site()).or_default();
            let full = busy.contains(&vo) || busy.len() >= HOME_MAX;
            if full || self.running.get(&vo).is_some_and(good) {
                continue;
            }
            busy.insert(vo.clone());
            changes.push(Change { end: self.running.remove(&vo), begin, vo });
        }
        changes
    }

    /// Carries out a change of [`Mounts::due`].
    pub(super) fn spawn(
        &mut self,
        vo: VoId,
        change: impl Future<Output = Option<Running>> + Send + 'static,
    ) {
        let task = self.tasks.spawn(change);
        self.of.insert(task.id(), vo);
    }

    /// Waits until a change is done. Dropping the future loses nothing.
    pub(super) async fn changed(&mut self) {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let (id, mount) = match ended {
            Ok(ended) => ended,
            Err(e) => {
                tracing::error!(error = %e, "a task that mounts failed");
                (e.id(), None)
            }
        };
        if let Some(vo) = self.of.remove(&id) {
            self.done(vo, mount);
        }
    }

    fn done(&mut self, vo: VoId, mount: Option<Running>) {
        if let Some(busy) = self.busy.get_mut(&vo.site()) {
            busy.remove(&vo);
        }
        if let Some(mount) = mount {
            self.running.insert(vo, mount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(vo: &str) -> MountSpec {
        let home = vo.split_once('.').unwrap().1;
        serde_json::from_value(serde_json::json!({
            "vo": vo, "volume": "v", "home": home, "site": "rennes", "at": "/x", "base": 1,
            "size": 2, "folder": "/f", "tickets": "/t",
        }))
        .unwrap()
    }

    fn id(vo: &str) -> VoId {
        vo.parse().unwrap()
    }

    #[test]
    fn a_home_that_does_not_answer_holds_up_its_own_volumes_only() {
        // wrong: a hostile home would keep all volumes of the node from being mounted, or one
        // volume be mounted twice
        let mute: Vec<String> = (0..6).map(|n| format!("v{n}.mute")).collect();
        let names = || mute.iter().map(String::as_str).chain(["demo.pisa"]);
        let wanted = || -> BTreeMap<_, _> { names().map(|n| (id(n), spec(n))).collect() };
        let mut mounts = Mounts::new(BTreeMap::new());
        let due = |mounts: &mut Mounts, stands| -> Vec<String> {
            mounts.due(wanted(), |_| stands).into_iter().map(|c| c.vo.to_string()).collect()
        };
        let first = due(&mut mounts, true);
        assert_eq!(first, ["demo.pisa", "v0.mute", "v1.mute", "v2.mute", "v3.mute"]);
        assert!(due(&mut mounts, true).is_empty(), "they are under way");
        let running = |vo| Running { pid: 7, started: 8, spec: spec(vo) };
        mounts.done(id("demo.pisa"), Some(running("demo.pisa")));
        mounts.done(id("v1.mute"), None);
        assert_eq!(due(&mut mounts, true), ["v1.mute"], "it failed, and is tried again");
        // One that fell is ended first; one that nobody wants is only ended.
        let fell = mounts.due(wanted(), |_| false);
        let change = |begin| Change { vo: id("demo.pisa"), end: Some(running("demo.pisa")), begin };
        assert_eq!(fell, [change(Some(spec("demo.pisa")))]);
        mounts.done(id("demo.pisa"), Some(running("demo.pisa")));
        assert_eq!(mounts.due(BTreeMap::new(), |_| true), [change(None)]);
    }
}
