//! What people do with trees that run.

use super::super::ClusterService;
use super::super::one::{Cluster, Over};
use super::super::policy::{self, Action};
use super::{SHELL_STAYS, no_node, refused};
use crate::cluster::messages::TreeId;
use crate::cluster::place::Choice;
use crate::cluster::record::Effect;
use crate::cluster::trees::{Owner, TreeState};
use crate::wire::{ClusterSignal, ClusterWhy};
use std::collections::BTreeSet;
use xos_api::Done;
use xos_api::cluster::{
    CancelTree, CheckpointTree, ClusterProcess, ClusterTree, GetTree, KillTree, ListProcesses,
    ListTrees, MigrateTree, NodeObstacle, RestartTree, TreeObstacle, TreeWhy, WhyTree,
};
use xos_base::{ClusterId, Error, NodeId};
use xos_net::Caller;

/// The highest number of a signal; see signal(7).
const SIGNAL_MAX: u8 = 64;
const SIGKILL: u8 = 9;

/// Whether a tree can move, or be checkpointed, as far as it is known without asking its node.
fn may_stop(c: &Cluster, tree: TreeId) -> Result<(), Error> {
    if !c.is_shell(tree) {
        return Ok(());
    }
    Err(Error::conflict(format!("tree {tree}: {SHELL_STAYS}"))
        .hint("what it has placed on other nodes moves, and what xos cluster run starts"))
}

/// Whether somebody ends a tree who does not look after the disks: of one that left the image is
/// all that its job has.
fn may_cancel(tree: TreeId, state: &TreeState) -> Result<(), Error> {
    if *state != TreeState::Away {
        return Ok(());
    }
    Err(Error::conflict(format!("tree {tree} left, and its job goes on from what is here of it"))
        .hint("cancel the unit: xos job cancel"))
}

impl ClusterService {
    pub(super) async fn list_trees(
        &self,
        caller: Caller,
        r: ListTrees,
    ) -> Result<Vec<ClusterTree>, Error> {
        self.authorise(&caller, Action::See).await?;
        let c = self.clusters.of(&r.cluster).await?;
        Ok(c.tree_list(|owner| self.sees(&caller, owner)))
    }

    /// Somebody who may not see it is told that there is no such tree.
    pub(super) async fn get_tree(&self, caller: Caller, r: GetTree) -> Result<ClusterTree, Error> {
        self.authorise(&caller, Action::See).await?;
        let c = self.clusters.of(&r.cluster).await?;
        let tree = TreeId(r.tree);
        let seen = c.owner(tree).filter(|owner| self.sees(&caller, owner));
        seen.and_then(|_| c.tree_view(tree)).ok_or_else(|| {
            Error::not_found(format!("no tree {tree} of yours is known in {}", c.id))
                .hint(format!("xos cluster ps {} lists them", c.id))
        })
    }

    pub(super) async fn list_processes(
        &self,
        caller: Caller,
        r: ListProcesses,
    ) -> Result<Vec<ClusterProcess>, Error> {
        self.authorise(&caller, Action::See).await?;
        let c = self.clusters.of(&r.cluster).await?;
        Ok(c.process_list(|owner| self.sees(&caller, owner)))
    }

    fn sees(&self, caller: &Caller, owner: &Owner) -> bool {
        policy::may(caller, &self.site, &BTreeSet::new(), Some(owner), Action::SeeTree)
    }

    /// The tree of a process, which the caller may handle. Somebody who may not is told that there
    /// is no such process.
    fn handled(&self, c: &Cluster, caller: &Caller, pid: i32) -> Result<TreeId, Error> {
        let tree = c.tree_of(pid, |tree| self.handles(c, caller, tree));
        tree.ok_or_else(|| {
            Error::not_found(format!("no process {pid} of yours is known in {}", c.id))
                .hint(format!("xos cluster ps {} lists them", c.id))
        })
    }

    fn handles(&self, c: &Cluster, caller: &Caller, tree: TreeId) -> bool {
        let trees = &c.controller.state().trees;
        let waits = || trees.queue().wish(tree).map(|wish| &wish.owner);
        let owner = trees.tree(tree).map(|t| &t.owner).or_else(waits);
        owner.is_some_and(|owner| {
            policy::may(caller, &self.site, &BTreeSet::new(), Some(owner), Action::HandleTree)
        })
    }

    /// A tree by its number, which the caller may handle.
    fn handled_tree(&self, c: &Cluster, caller: &Caller, tree: u64) -> Result<TreeId, Error> {
        let tree = TreeId(tree);
        if self.handles(c, caller, tree) {
            return Ok(tree);
        }
        Err(Error::not_found(format!("no tree {tree} of yours is known in {}", c.id))
            .hint(format!("xos cluster ps {} lists them", c.id)))
    }

    /// Keeps and sends what was decided about a tree; how it stands then.
    async fn decided(
        &self,
        c: &mut Cluster,
        tree: TreeId,
        effects: Vec<Effect>,
    ) -> Result<ClusterTree, Error> {
        let told = self.commit(c, effects).await?;
        self.send(c, told);
        c.tree_view(tree).ok_or_else(|| Error::not_found(format!("tree {tree} is no more")))
    }

    pub(super) async fn migrate_tree(
        &self,
        caller: Caller,
        r: MigrateTree,
    ) -> Result<ClusterTree, Error> {
        let moved = self.migrated(&caller, &r).await;
        let what = format!("pid {} to {}", r.pid, r.node);
        self.noted(&caller, "migrate_tree", &r.cluster, &what, moved).await
    }

    async fn migrated(&self, caller: &Caller, r: &MigrateTree) -> Result<ClusterTree, Error> {
        let now = self.clock.up();
        let mut held = self.clusters.of(&r.cluster).await?;
        let c = &mut *held;
        let tree = self.handled(c, caller, r.pid)?;
        may_stop(c, tree)?;
        let to = c.number(&r.node).ok_or_else(|| no_node(&r.cluster, &r.node))?;
        let effects = c.controller.migrate(tree, to, now).map_err(refused)?;
        c.comes(to);
        self.decided(c, tree, effects).await
    }

    pub(super) async fn checkpoint_tree(
        &self,
        caller: Caller,
        r: CheckpointTree,
    ) -> Result<ClusterTree, Error> {
        let saved = self.checkpointed(&caller, &r).await;
        let what = format!("pid {}", r.pid);
        self.noted(&caller, "checkpoint_tree", &r.cluster, &what, saved).await
    }

    async fn checkpointed(
        &self,
        caller: &Caller,
        r: &CheckpointTree,
    ) -> Result<ClusterTree, Error> {
        let now = self.clock.up();
        let mut held = self.clusters.of(&r.cluster).await?;
        let c = &mut *held;
        let tree = self.handled(c, caller, r.pid)?;
        may_stop(c, tree)?;
        let effects = c.controller.save(tree, now).map_err(refused)?;
        self.decided(c, tree, effects).await
    }

    pub(super) async fn restart_tree(
        &self,
        caller: Caller,
        r: RestartTree,
    ) -> Result<ClusterTree, Error> {
        let restarted = self.restarted(&caller, &r).await;
        let what = match r.as_is {
            true => format!("tree {} with its files as they are", r.tree),
            false => format!("tree {}", r.tree),
        };
        self.noted(&caller, "restart_tree", &r.cluster, &what, restarted).await
    }

    async fn restarted(&self, caller: &Caller, r: &RestartTree) -> Result<ClusterTree, Error> {
        let now = self.clock.up();
        let mut held = self.clusters.of(&r.cluster).await?;
        let c = &mut *held;
        let tree = self.handled_tree(c, caller, r.tree)?;
        let known = c.controller.state().trees.tree(tree).cloned();
        let to = match (&r.node, known) {
            (Some(node), _) => c.number(node).ok_or_else(|| no_node(&r.cluster, node))?,
            (None, None) => return Err(Error::conflict(format!("tree {tree} has not begun"))),
            (None, Some(t)) => match c.place_again(&self.policy, &t) {
                Choice::On(to) => to,
                Choice::Queue => return Err(Error::limited("all nodes are full: try again later")),
                Choice::Nowhere { reason } => return Err(Error::conflict(reason)),
            },
        };
        let begun = match r.as_is {
            true => c.controller.restart_as_is(tree, to, now),
            false => c.controller.restart(tree, to, now),
        };
        let effects = begun.map_err(refused)?;
        c.comes(to);
        self.decided(c, tree, effects).await
    }

    pub(super) async fn cancel_tree(&self, caller: Caller, r: CancelTree) -> Result<Done, Error> {
        let cancelled = self.cancelled(&caller, &r).await;
        let what = format!("tree {}", r.tree);
        self.noted(&caller, "cancel_tree", &r.cluster, &what, cancelled).await
    }

    async fn cancelled(&self, caller: &Caller, r: &CancelTree) -> Result<Done, Error> {
        let (tree, epoch, node) = {
            let mut held = self.clusters.of(&r.cluster).await?;
            let c = &mut *held;
            let tree = self.handled_tree(c, caller, r.tree)?;
            let t = c.controller.state().trees.tree(tree);
            if let Some(t) = t.filter(|_| !caller.site_admin()) {
                may_cancel(tree, &t.state)?;
            }
            match Self::at(c, tree) {
                Some((epoch, node)) => (tree, epoch, node),
                None => {
                    let effects = c.controller.end(tree).map_err(refused)?;
                    let told = self.commit(c, effects).await?;
                    self.send(c, told);
                    return Ok(Done {});
                }
            }
        };
        let signal = SIGKILL;
        let r = ClusterSignal { cluster: r.cluster.clone(), tree, epoch, pid: None, signal };
        self.nodes.signal(&node, r).await
    }

    /// The copy of a tree that runs, and where.
    fn at(c: &Cluster, tree: TreeId) -> Option<(u64, NodeId)> {
        let t = c.controller.state().trees.tree(tree)?;
        let runs = t.state == TreeState::Running;
        runs.then(|| c.name(t.node)).flatten().map(|node| (t.epoch, node))
    }

    pub(super) async fn kill_tree(&self, caller: Caller, r: KillTree) -> Result<Done, Error> {
        let killed = self.killed(&caller, &r).await;
        let what = format!("signal {} to pid {}", r.signal, r.pid);
        self.noted(&caller, "kill_tree", &r.cluster, &what, killed).await
    }

    async fn killed(&self, caller: &Caller, r: &KillTree) -> Result<Done, Error> {
        if !(1..=SIGNAL_MAX).contains(&r.signal) {
            return Err(Error::invalid(format!("{} is no signal: 1 to {SIGNAL_MAX}", r.signal)));
        }
        let (tree, epoch, node) = self.running(caller, &r.cluster, r.pid).await?;
        let (cluster, pid, signal) = (r.cluster.clone(), Some(r.pid), r.signal);
        self.nodes.signal(&node, ClusterSignal { cluster, tree, epoch, pid, signal }).await
    }

    /// The copy of a process that runs, and where.
    async fn running(
        &self,
        caller: &Caller,
        cluster: &ClusterId,
        pid: i32,
    ) -> Result<(TreeId, u64, NodeId), Error> {
        let c = self.clusters.of(cluster).await?;
        let tree = self.handled(&c, caller, pid)?;
        let runs = Self::at(&c, tree).map(|(epoch, node)| (tree, epoch, node));
        runs.ok_or_else(|| {
            let reason = c.tree_view(tree).map(|t| t.reason).unwrap_or_default();
            let t = c.controller.state().trees.tree(tree);
            rests(cluster, tree, &reason, t.is_some_and(|t| t.barred.is_some()))
        })
    }

    /// Why the last one of this pid was not started, if that is why it does not run.
    async fn not_started(&self, caller: &Caller, r: &WhyTree) -> Option<Error> {
        let c = self.clusters.find(&r.cluster).await?;
        let of = |over: &&Over| over.place.is_some_and(|(pid, _)| pid == r.pid);
        let seen = c.over.values().rev().filter(of).find(|over| self.sees(caller, &over.owner))?;
        let why = seen.refused.as_str();
        (!why.is_empty()).then(|| Error::conflict(format!("{} was not started: {why}", r.pid)))
    }

    pub(super) async fn why_tree(&self, caller: Caller, r: WhyTree) -> Result<TreeWhy, Error> {
        let (tree, epoch, node) = match self.running(&caller, &r.cluster, r.pid).await {
            Ok(running) => running,
            Err(e) => return Err(self.not_started(&caller, &r).await.unwrap_or(e)),
        };
        let ask = ClusterWhy { cluster: r.cluster.clone(), tree, epoch };
        let seen = self.nodes.why(&node, ask).await?;
        let obstacle =
            |o: crate::wire::Obstacle| TreeObstacle { pid: o.pid, what: o.what, next: o.next };
        let c = self.clusters.of(&r.cluster).await?;
        let mut nodes = Vec::new();
        for (number, m) in c.controller.state().members.iter() {
            if m.id == node || c.settings.left.contains(&number) {
                continue;
            }
            if let Err(error) = c.controller.can_migrate(tree, number) {
                nodes.push(NodeObstacle { node: m.id.clone(), reason: error.to_string() });
            }
        }
        let obstacles = seen.obstacles.into_iter().map(obstacle).collect();
        Ok(TreeWhy { tree: tree.0, obstacles, nodes })
    }
}

/// What is said of a tree that does not run; `barred`: its files keep it, for `reason`.
fn rests(cluster: &ClusterId, tree: TreeId, reason: &str, barred: bool) -> Error {
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let says = Error::conflict(format!("tree {tree} does not run at the moment{why}"));
    match barred {
        true => says.hint(format!(
            "put its files back and restart it, or have it go on with them as they are: \
             xos cluster restart {cluster} {tree} --as-is"
        )),
        false => says.hint(format!("`xos cluster ps {cluster}` shows how it stands; try again")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, somebody who tidies up what waits would take the only image from a job that
    /// goes on elsewhere.
    #[test]
    fn what_left_is_not_cancelled_by_its_number() {
        let e = may_cancel(TreeId(7), &TreeState::Away).unwrap_err();
        assert!(e.message.contains("tree 7 left") && e.hint.unwrap().contains("xos job cancel"));
        assert!(may_cancel(TreeId(7), &TreeState::Running).is_ok());
    }

    /// If it failed, who asks why a program does not run would be told to try again, while it waits
    /// for them to decide about its files.
    #[test]
    fn a_program_that_its_files_keep_says_so() {
        let cluster = "c1.rennes".parse().unwrap();
        let says = |why: &str, barred| {
            let e = rests(&cluster, TreeId(7), why, barred);
            (e.message, e.hint.unwrap_or_default())
        };
        let (message, hint) = says("its node failed; /xtreemfs/a is shorter", true);
        assert!(message.ends_with("moment: its node failed; /xtreemfs/a is shorter"), "{message}");
        assert!(hint.ends_with("xos cluster restart c1.rennes 7 --as-is"), "{hint}");
        let (message, hint) = says("", false);
        assert_eq!(message, "tree 7 does not run at the moment");
        assert!(hint.ends_with("try again"), "{hint}");
    }
}
