//! What cluster shells want of the core: how the other nodes are, and where their programs run.
//! Their node asks for them.

use super::super::ClusterService;
use super::super::clusters::Held;
use super::super::keep::Waiting;
use super::super::one::Cluster;
use super::super::policy::{self, Action};
use super::refused;
use super::run::check;
use crate::cluster::interval::Interval;
use crate::cluster::place::{self, Choice, Need, ONE, Policy};
use crate::cluster::trees::{Owner, Tree, TreeState, Wish};
use crate::pids::NodeNumber;
use crate::procfs::VIEW_PROCESSES_MAX;
use crate::wire::{
    ClusterGhostGone, ClusterLooks, ClusterSeen, ClusterSignal, NodeLooks, PlaceInCluster, Placed,
    ProcessLook, SeenNode,
};
use std::collections::BTreeSet;
use xos_api::Done;
use xos_api::cluster::RunInCluster;
use xos_base::{ClusterId, Error, Millis, NodeId};
use xos_net::Caller;

const SIGKILL: u8 = 9;

impl ClusterService {
    /// The node that asks, if it is one of the site's.
    pub(super) fn asking<'a>(&self, caller: &'a Caller) -> Result<&'a NodeId, Error> {
        if !policy::may(caller, &self.site, &BTreeSet::new(), None, Action::Say) {
            let who = caller.describe();
            return Err(Error::denied(format!("{who} is not a node of {}", self.site)));
        }
        caller.node()
    }

    /// The cluster, if the node is in it, and its number there.
    async fn member(
        &self,
        cluster: &ClusterId,
        node: &NodeId,
    ) -> Result<(Held, NodeNumber), Error> {
        let found = self.clusters.find(cluster).await;
        let found = found.and_then(|c| c.number(node).map(|number| (c, number)));
        found.ok_or_else(|| Error::denied(format!("{node} is not in {cluster}")))
    }

    pub(super) async fn cluster_looks(
        &self,
        caller: Caller,
        r: ClusterLooks,
    ) -> Result<ClusterSeen, Error> {
        self.looks_for(self.asking(&caller)?, r).await
    }

    pub(in crate::service) async fn looks_for(
        &self,
        asks: &NodeId,
        r: ClusterLooks,
    ) -> Result<ClusterSeen, Error> {
        let (c, number) = self.member(&r.cluster, asks).await?;
        let mut trees = c.controller.state().trees.iter();
        if !trees.any(|(_, t)| t.owner.uid == r.uid && t.uses(number)) {
            return Err(Error::denied(format!("user {} has no program at {asks}", r.uid)));
        }
        Ok(seen(&c, r.uid, number, self.clock.up()))
    }

    pub(super) async fn place_in_cluster(
        &self,
        caller: Caller,
        r: PlaceInCluster,
    ) -> Result<Placed, Error> {
        self.place_for(self.asking(&caller)?, r).await
    }

    pub(in crate::service) async fn place_for(
        &self,
        asks: &NodeId,
        r: PlaceInCluster,
    ) -> Result<Placed, Error> {
        // Denied, not unavailable: nothing has begun, and who asks is to know that.
        let served = self.served().await.map_err(|e| {
            Error::denied(format!("which VOs are served here is not known now: {}", e.message))
        })?;
        let (mut held, here) = self.member(&r.cluster, asks).await?;
        let c = &mut *held;
        let (owner, pid) = (asker(c, &r, here)?, r.pid);
        if !served.contains_key(&owner.vo) {
            return Err(Error::denied(format!("{} is not served here now", owner.vo)));
        }
        let waiting = wanted(c, r, owner)?;
        let node = self.least_loaded(c, &waiting.wish.owner, here);
        c.comes(node);
        if node == here {
            return Ok(Placed::Here {});
        }
        let started = c.controller.start(pid, &waiting.wish, here, node);
        let (tree, effects) = started.map_err(refused)?;
        c.programs.insert(tree, waiting.placed(pid, asks.clone()));
        c.begins_young(tree);
        self.begun(c, tree, effects).await?;
        let epoch = c.controller.state().trees.tree(tree).map_or(1, |t| t.epoch);
        let name = c.name(node).ok_or_else(|| Error::internal("a node has no name"))?;
        Ok(Placed::Elsewhere { tree, epoch, node: name })
    }

    /// The node with most room for one more process, full or not: who has many started at once
    /// says how many. Where the person's are too many already, it is where they are.
    fn least_loaded(&self, c: &Cluster, owner: &Owner, here: NodeNumber) -> NodeNumber {
        let trees = c.controller.state().trees.iter();
        let own = trees.filter(|(_, t)| t.owner == *owner && !t.state.is_final()).count();
        if own >= self.config.trees_per_member {
            return here;
        }
        let policy = Policy { full_percent: u64::MAX / ONE, ..self.policy };
        let need = Need { vo: owner.vo.clone(), cpu_group: None, near: Some(here) };
        match place::place(&policy, &c.node_views(), &need) {
            Choice::On(node) => node,
            Choice::Queue | Choice::Nowhere { .. } => here,
        }
    }

    pub(super) async fn ghost_gone(
        &self,
        caller: Caller,
        r: ClusterGhostGone,
    ) -> Result<Done, Error> {
        self.end_without_ghost(self.asking(&caller)?, r).await
    }

    pub(in crate::service) async fn end_without_ghost(
        &self,
        asks: &NodeId,
        r: ClusterGhostGone,
    ) -> Result<Done, Error> {
        let (tree, epoch, node) = {
            let (c, number) = self.member(&r.cluster, asks).await?;
            // What the core itself gave a pid has no such ghost.
            let ghost = !number.given_pids().contains(&r.pid);
            let born = |t: &Tree| t.root == r.pid && t.birth == number && !t.state.is_final();
            let mut trees = c.controller.state().trees.iter();
            let Some((tree, t)) = trees.find(|(_, t)| ghost && born(t)) else {
                return Ok(Done {});
            };
            let runs = t.state == TreeState::Running;
            let node = runs.then(|| c.name(t.node)).flatten().ok_or_else(|| {
                Error::conflict(format!("tree {tree} does not run at the moment: try again"))
            })?;
            (tree, t.epoch, node)
        };
        let (cluster, signal) = (r.cluster, SIGKILL);
        self.nodes.signal(&node, ClusterSignal { cluster, tree, epoch, pid: None, signal }).await
    }
}

/// How all other nodes are, with the processes of a person's programs alone: a node may lie about
/// whose a process is, and not about whose a tree is.
fn seen(c: &Cluster, uid: u32, here: NodeNumber, now: Millis) -> ClusterSeen {
    let trees = &c.controller.state().trees;
    let mut room = VIEW_PROCESSES_MAX;
    let mut nodes = Vec::new();
    for (number, (looks, at)) in c.looks.iter().filter(|(number, _)| **number != here) {
        let Some(node) = c.name(*number) else { continue };
        let own = |p: &&ProcessLook| {
            let tree = trees.tree(p.tree).filter(|t| t.owner.uid == uid && t.uses(*number));
            p.uid == uid && tree.is_some()
        };
        let processes: Vec<ProcessLook> =
            looks.processes.iter().filter(own).take(room).cloned().collect();
        room -= processes.len();
        let looks = NodeLooks {
            load: looks.load,
            cpus: looks.cpus,
            memory_bytes: looks.memory_bytes,
            memory_free_bytes: looks.memory_free_bytes,
            moves: None,
            cpu_group: looks.cpu_group,
            cpu_times: looks.cpu_times.clone(),
            processes,
        };
        let age_ms = u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX);
        nodes.push(SeenNode { number: *number, node, age_ms, looks });
    }
    ClusterSeen { nodes }
}

/// Whose the tree is that a program is to come from.
fn asker(c: &Cluster, r: &PlaceInCluster, here: NodeNumber) -> Result<Owner, Error> {
    let trees = &c.controller.state().trees;
    let t = trees.tree(r.tree).filter(|t| t.node == here && t.uses(here) && t.owner.uid == r.uid);
    let t = t.ok_or_else(|| {
        Error::denied(format!("user {} has no tree {} at node {here}", r.uid, r.tree))
    })?;
    if NodeNumber::of(r.pid) != Some(here) || here.given_pids().contains(&r.pid) {
        return Err(Error::invalid(format!("{} is no pid of what runs at node {here}", r.pid)));
    }
    if trees.iter().any(|(_, t)| t.root == r.pid && !t.state.is_final()) {
        return Err(Error::conflict(format!("a program has the pid {} already", r.pid)));
    }
    Ok(t.owner.clone())
}

/// What is to run: as who asked for the tree that it comes from, with their right to the volume.
fn wanted(c: &Cluster, r: PlaceInCluster, owner: Owner) -> Result<Waiting, Error> {
    let from = c.programs.get(&r.tree);
    let from = from.ok_or_else(|| Error::not_found(format!("nobody knows tree {}", r.tree)))?;
    let run = RunInCluster {
        cluster: r.cluster,
        vo: owner.vo.clone(),
        argv: r.argv,
        env: r.env,
        cwd: r.cwd,
        shell: false,
        node: None,
        restartable: false,
        checkpoint_s: None,
        queue: false,
        attached: true,
        own_net: false,
        // Else who is limited would be no more by having others placed.
        limits: from.limits,
        terminal: r.terminal,
        umask: r.umask,
        mandate: from.mandate.clone(),
    };
    check(&run)?;
    let wish = Wish { owner, restartable: false, interval: Interval::Best };
    Ok(Waiting { wish, person: from.person.clone(), run })
}
