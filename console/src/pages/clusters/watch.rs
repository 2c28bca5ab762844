//! Open pages of clusters look again when a node or a program is no more as it was.

use super::{Asker, Whose, is_over, no_program, number};
use crate::live;
use crate::visit::{Reply, Shown, Stop, Visit};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use std::sync::Arc;
use std::time::Duration;
use xos_api::cluster::{ClusterNode, ClusterTree, GetCluster, ListTrees};
use xos_base::ClusterId;

/// How often this core is asked for an open page.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often another site's is.
const LOOK_AFAR_EVERY: Duration = Duration::from_secs(3);
/// After so many looks a page is drawn again without a change: loads are others by then.
const LOOKS_MAX: u32 = 5;

/// What is looked at.
struct Watch {
    visit: Arc<Visit>,
    asker: Asker,
    whose: Whose,
    cluster: ClusterId,
    /// One program; absent: the cluster.
    tree: Option<u64>,
}

/// What was seen, without what is never the same twice.
#[derive(PartialEq, Eq)]
struct Seen {
    nodes: Vec<ClusterNode>,
    trees: Vec<ClusterTree>,
}

/// Follows a cluster.
pub(crate) async fn cluster(visit: Visit) -> Shown {
    follow(visit, None).await
}

/// Follows a program.
pub(crate) async fn program(visit: Visit) -> Shown {
    let tree = number(&visit, "tree")?;
    follow(visit, Some(tree)).await
}

async fn follow(visit: Visit, tree: Option<u64>) -> Shown {
    let whose = Whose::of(&visit)?;
    let cluster: ClusterId = visit.place("cluster")?;
    let asker = Asker::at(&visit, &whose, &cluster).await?;
    let visit = Arc::new(visit);
    let watch = Watch { visit: Arc::clone(&visit), asker, whose, cluster, tree };
    // Whoever may not see it keeps no stream open.
    let seen = watch.look().await?;
    let items = unfold((watch, seen), |(watch, seen)| async move {
        let seen = watch.next(seen).await?;
        Some((Bytes::from_static(live::AGAIN), (watch, seen)))
    });
    Ok(Reply::Lines(live::lines(&visit, items.boxed())?))
}

impl Watch {
    async fn look(&self) -> Result<Seen, Stop> {
        let cluster = self.cluster.clone();
        let mut trees = self.asker.call(&self.visit, ListTrees { cluster }).await?;
        let Some(tree) = self.tree else {
            let cluster = self.cluster.clone();
            let mut nodes = self.asker.call(&self.visit, GetCluster { cluster }).await?.nodes;
            nodes.iter_mut().for_each(|n| n.looks = None);
            return Ok(Seen { nodes, trees });
        };
        trees.retain(|t| t.tree == tree && self.whose.shows(&self.visit, t));
        if trees.is_empty() {
            return Err(no_program(&self.cluster, tree));
        }
        Ok(Seen { nodes: Vec::new(), trees })
    }

    /// What is seen when the page shall look again; none: it need not any more, or its browser
    /// opens the next stream.
    async fn next(&self, before: Seen) -> Option<Seen> {
        if self.tree.is_some() && before.trees.iter().all(is_over) {
            return None;
        }
        let every =
            if matches!(self.asker, Asker::Afar(..)) { LOOK_AFAR_EVERY } else { LOOK_EVERY };
        for _ in 0..LOOKS_MAX {
            tokio::time::sleep(every).await;
            let now = self.look().await.ok()?;
            if now != before {
                return Some(now);
            }
        }
        Some(before)
    }
}
