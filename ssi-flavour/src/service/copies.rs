//! Which nodes fetch copies of checkpoints.

use super::one::Cluster;
use crate::cluster::members::NodeState;
use crate::cluster::messages::TreeId;
use crate::cluster::place::{self, Need, NodeView};
use crate::cluster::record::Effect;
use crate::pids::NodeNumber;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xos_base::Millis;

/// Most images that one node fetches at a time to keep them.
const HOLDS_PER_NODE: usize = 4;
/// How long a node is not asked again for a copy of a tree's checkpoint after it had failed.
const UNHELD_PAUSE: Duration = Duration::from_secs(60);

impl Cluster {
    /// Has nodes fetch checkpoints that are on fewer than so many, and lets go of older ones.
    pub(super) fn copies(&mut self, copies: usize, now: Millis) -> Vec<Effect> {
        self.unheld.retain(|_, (_, at)| now.since(*at) < UNHELD_PAUSE);
        let mut out = self.controller.settle(copies);
        let thin = self.controller.thin(copies);
        if thin.is_empty() {
            return out;
        }
        let (views, mut busy) = (self.node_views(), self.fetching());
        for tree in thin {
            let Some(node) = self.holder(tree, &views, &busy) else { continue };
            match self.controller.hold(tree, node, now) {
                Ok(effects) => {
                    *busy.entry(node).or_default() += 1;
                    out.extend(effects);
                }
                Err(error) => {
                    tracing::debug!(cluster = %self.id, %error, "no node fetches a checkpoint");
                }
            }
        }
        out
    }

    /// How many images each node fetches now to keep them.
    fn fetching(&self) -> BTreeMap<NodeNumber, usize> {
        let mut busy: BTreeMap<NodeNumber, usize> = BTreeMap::new();
        let trees = self.controller.state().trees.iter();
        for h in trees.filter_map(|(_, t)| t.holding.as_ref()) {
            *busy.entry(h.node).or_default() += 1;
        }
        busy
    }

    fn holder(
        &self,
        tree: TreeId,
        views: &[NodeView],
        busy: &BTreeMap<NodeNumber, usize>,
    ) -> Option<NodeNumber> {
        let t = self.controller.state().trees.tree(tree)?;
        let image = t.checkpoint.as_ref()?;
        let group = self.controller.state().members.node(t.node)?.cpu_group;
        let vo = t.owner.vo.clone();
        let need = Need { vo, cpu_group: Some(group), near: Some(t.birth) };
        let full = busy.iter().filter(|(_, n)| **n >= HOLDS_PER_NODE).map(|(node, _)| *node);
        let failed = self.unheld.keys().filter(|(of, _)| *of == tree).map(|(_, node)| *node);
        let not: BTreeSet<NodeNumber> = full.chain(failed).collect();
        let online = |node: NodeNumber| {
            let m = self.controller.state().members.node(node);
            m.is_some_and(|m| m.state == NodeState::Online)
        };
        // Who has the image first: only what was written is to be fetched, or part of that.
        let mut has = image.nodes.iter().copied();
        let lacks = has.find(|n| {
            let lasts = !image.brief.contains(n);
            lasts && !t.has(image, *n) && !not.contains(n) && online(*n)
        });
        let has = image.nodes.iter().copied().chain([t.node]).chain(not.iter().copied());
        lacks.or_else(|| place::hold(views, &need, &has.collect()))
    }
}
