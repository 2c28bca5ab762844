//! What cluster shells at this node want of the core, which their agent asks for.

use crate::agent::Agent;
use serde::Serialize;
use std::sync::Arc;
use xos_base::{ClusterId, Error, Kind};
use xos_ssi::cell::proto::Tree;
use xos_ssi::seat::{Placing, Want, Where};
use xos_ssi::wire::{ClusterGhostGone, ClusterLooks, ClusterSeen, PlaceInCluster, Placed};

/// As the agent is answered.
type Had = Result<serde_json::Value, String>;

fn told<T: Serialize>(said: Result<T, Error>) -> Had {
    let value = said.map_err(|e| e.to_string())?;
    serde_json::to_value(value).map_err(|e| e.to_string())
}

impl Agent {
    /// Asks the core what the agent wants, and answers.
    pub(super) async fn ask_core(self: &Arc<Agent>, id: u64, want: Want) {
        let Some(seated) = self.cluster.as_ref().and_then(|c| c.seated().clone()) else { return };
        let cluster = seated.seat.cluster.clone();
        let had = match want {
            Want::Looks { uid } => told(self.looks(cluster, uid).await),
            Want::Place(placing) => told(Ok(self.place(cluster, *placing).await)),
            Want::GhostGone { pid } => told(self.end_without_ghost(cluster, pid).await),
        };
        if let Err(error) = seated.client.had(id, had) {
            tracing::debug!(%error, "the cluster's agent is gone");
        }
    }

    async fn looks(&self, cluster: ClusterId, uid: u32) -> Result<ClusterSeen, Error> {
        self.core()?.call(ClusterLooks { cluster, uid }).await
    }

    async fn end_without_ghost(&self, cluster: ClusterId, pid: i32) -> Result<(), Error> {
        self.core()?.call(ClusterGhostGone { cluster, pid }).await.map(drop)
    }

    /// Where a program runs. Here, when it surely began nowhere else.
    async fn place(&self, cluster: ClusterId, p: Placing) -> Where {
        let Ok(core) = self.core() else { return Where::Here {} };
        let Placing { tree, uid, pid, argv, env, cwd, umask, terminal } = p;
        let r = PlaceInCluster { cluster, tree, uid, pid, argv, env, cwd, umask, terminal };
        match core.call(r).await {
            Ok(Placed::Here {}) => Where::Here {},
            Ok(Placed::Elsewhere { tree, epoch, .. }) => {
                Where::Elsewhere { tree: Tree { id: tree.0, epoch } }
            }
            Err(error) if refuses(error.kind) => {
                tracing::debug!(%error, %tree, "a program of a shell runs where it is");
                Where::Here {}
            }
            Err(error) => Where::Unsure { why: error.to_string() },
        }
    }
}

/// Whether the core said no; else it may have done it.
fn refuses(kind: Kind) -> bool {
    !matches!(kind, Kind::Unavailable | Kind::Internal)
}
