//! Whom a node of a cluster may let have a stream: the core knows where trees are and whose they
//! are, and a node believes no other node.

use super::ClusterService;
use super::one::Cluster;
use super::policy::{self, Action};
use crate::cluster::messages::TreeId;
use crate::cluster::trees::{Tree, TreeState};
use crate::pids::NodeNumber;
use crate::wire::{ClusterMay, Comer};
use std::collections::BTreeSet;
use xos_api::Done;
use xos_api::audit::Event;
use xos_base::{Error, NodeId};
use xos_net::Caller;

impl ClusterService {
    pub(super) async fn node_may(&self, caller: Caller, r: ClusterMay) -> Result<Done, Error> {
        if !policy::may(&caller, &self.site, &BTreeSet::new(), None, Action::Say) {
            let who = caller.describe();
            return Err(Error::denied(format!("{who} is not a node of {}", self.site)));
        }
        self.judged(caller.node()?, &r).await
    }

    /// What is said to a node that asks. Who takes the memory of a program away from this site, or
    /// is refused it, is in the audit.
    pub(super) async fn judged(&self, asks: &NodeId, r: &ClusterMay) -> Result<Done, Error> {
        let (allowed, event) = {
            let c = self.clusters.find(&r.cluster).await;
            let c = c.filter(|c| c.number(asks).is_some());
            let c = c.ok_or_else(|| Error::denied(format!("{asks} is not in {}", r.cluster)))?;
            (allows(&c, r.tree, &r.comer, asks), self.fetched(&c, r, asks))
        };
        let said = if allowed { Ok(Done {}) } else { Err(refusal(r)) };
        match event {
            Some(event) => self.told.end(event, said).await,
            None => said,
        }
    }

    fn fetched(&self, c: &Cluster, r: &ClusterMay, asks: &NodeId) -> Option<Event> {
        let Comer::Carried { node, version, .. } = &r.comer else { return None };
        let mut event = Event::new(self.clock.now(), "fetch_image");
        (event.who, event.node) = (format!("node {node}"), Some(asks.clone()));
        event.on = format!("{}: image {version} of tree {}", r.cluster, r.tree);
        if let Some(program) = c.programs.get(&r.tree) {
            (event.person, event.vo) = (Some(program.person.clone()), Some(program.vo.clone()));
        }
        Some(event)
    }
}

fn refusal(r: &ClusterMay) -> Error {
    let (cluster, tree) = (&r.cluster, r.tree);
    match &r.comer {
        Comer::Image { node, version } => Error::denied(format!(
            "{node} has nothing to do with image {version} of tree {tree} of {cluster}"
        )),
        Comer::Written { node } => Error::denied(format!(
            "{node} has nothing to do with the output of tree {tree} of {cluster}"
        )),
        Comer::Carried { node, version, .. } => {
            Error::denied(format!("image {version} of tree {tree} of {cluster} is not for {node}"))
        }
        Comer::Output { node, .. } => {
            Error::denied(format!("tree {tree} of {cluster} is not at {node}"))
        }
        // The same for one that is another's as for one that never was.
        Comer::Ghost { .. } => {
            Error::not_found(format!("no tree {tree} of yours is known in {cluster}"))
                .hint(format!("xos cluster ps {cluster} lists them"))
        }
    }
}

/// Allowed: the image to who restores the tree from it or keeps a copy of that checkpoint; what was written
/// to who keeps it with one, or has the tree and with it the next spool; the output to be brought
/// by the copy that is the tree, to where it is collected; a ghost of the tree's owner; the image
/// of a tree that left to who shows the key, for the person whose tree it is.
pub(super) fn allows(c: &Cluster, tree: TreeId, comer: &Comer, asks: &NodeId) -> bool {
    let t = c.controller.state().trees.tree(tree);
    match comer {
        Comer::Image { node, version } => match (t, c.number(node)) {
            (Some(t), Some(node)) => fetches(t, node, *version),
            _ => false,
        },
        Comer::Written { node } => match (t, c.number(node)) {
            (Some(t), Some(node)) => keeps(t, node),
            _ => false,
        },
        Comer::Carried { version, key, vo, member, .. } => {
            let whose = |t: &Tree| t.owner.vo == *vo && t.owner.member == *member;
            let left = t.filter(|t| t.state == TreeState::Away).is_some_and(whose);
            left && c.is_key_of(tree, *version, key)
        }
        Comer::Output { node, epoch } => match (t, c.number(node)) {
            (Some(t), Some(node)) => {
                is_tree(t, node, *epoch) && c.number(asks) == Some(t.output_at())
            }
            _ => false,
        },
        Comer::Ghost { vo, member } => {
            c.owner(tree).is_some_and(|owner| owner.vo == *vo && owner.member == *member)
        }
    }
}

/// Whether a copy is the tree. One of an attempt sends nothing before that is recorded: what it had
/// said would stay, and keep out the copy that goes on when the attempt fails.
fn is_tree(t: &Tree, node: NodeNumber, copy: u64) -> bool {
    t.uses(node) && t.node == node && t.epoch == copy
}

fn keeps(t: &Tree, node: NodeNumber) -> bool {
    let goes_on = t.spool && t.node == node && t.uses(node);
    goes_on || t.holding.as_ref().is_some_and(|h| h.node == node)
}

fn fetches(t: &Tree, node: NodeNumber, version: u64) -> bool {
    let holds = t.holding.as_ref().is_some_and(|h| h.node == node)
        && t.checkpoint.as_ref().is_some_and(|image| image.version == version);
    holds || t.comes_to() == Some((node, version))
}
