//! The operations: for each who asks, may they, what changes, what comes back.

mod drain;
mod rights;
mod run;
mod shells;
mod trees;

pub(super) use run::owner;

use super::one::Cluster;
use super::policy::{self, Action};
use super::{ClusterService, Kept};
use crate::cluster::controller::Refused;
use crate::cluster::members::{MemberError, NodeState};
use crate::cluster::record::Effect;
use crate::pids::NODE_NUMBER_MAX;
use crate::wire::{
    ClusterGhostGone, ClusterHeard, ClusterLooks, ClusterMay, ClusterRight, ClusterSay,
    PlaceInCluster,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xos_api::Done;
use xos_api::cluster::{
    AddClusterNodes, CancelTree, CheckpointTree, ClusterView, CreateCluster, DrainClusterNode,
    GetCluster, GetTree, KillTree, ListClusters, ListProcesses, ListTrees, MigrateTree,
    NODES_AT_ONCE, RemoveClusterNode, RestartTree, RunInCluster, WhyTree,
};
use xos_api::vom::ServedVo;
use xos_base::{ClusterId, Error, NodeId, VoId};
use xos_net::audit::asked;
use xos_net::{Caller, Router};

/// Why a cluster shell is where it is.
const SHELL_STAYS: &str = "it is a cluster shell, which never moves";
/// Most clusters of a site.
const CLUSTERS_MAX: usize = 64;

impl ClusterService {
    /// Registers the operations.
    pub fn register(self: &Arc<Self>, router: &mut Router) {
        macro_rules! on {
            ($($request:ty => $method:ident),* $(,)?) => {$({
                let service = Arc::clone(self);
                router.on::<$request, _, _>(move |caller, r| {
                    let service = Arc::clone(&service);
                    async move { service.$method(caller, r).await }
                });
            })*};
        }
        on!(
            CreateCluster => create_cluster,
            ListClusters => list_clusters,
            GetCluster => get_cluster,
            AddClusterNodes => add_nodes,
            RemoveClusterNode => remove_node,
            DrainClusterNode => drain_node,
            RunInCluster => run_in_cluster,
            ListTrees => list_trees,
            GetTree => get_tree,
            ListProcesses => list_processes,
            MigrateTree => migrate_tree,
            CheckpointTree => checkpoint_tree,
            RestartTree => restart_tree,
            KillTree => kill_tree,
            CancelTree => cancel_tree,
            WhyTree => why_tree,
            ClusterSay => node_says,
            ClusterMay => node_may,
            ClusterLooks => cluster_looks,
            PlaceInCluster => place_in_cluster,
            ClusterGhostGone => ghost_gone,
            ClusterRight => cluster_right,
        );
    }

    async fn node_says(&self, caller: Caller, r: ClusterSay) -> Result<ClusterHeard, Error> {
        if !policy::may(&caller, &self.site, &BTreeSet::new(), None, Action::Say) {
            return Err(Error::denied(format!(
                "{} is not a node of {}",
                caller.describe(),
                self.site
            )));
        }
        self.say(caller.node()?, r).await
    }

    async fn create_cluster(&self, caller: Caller, r: CreateCluster) -> Result<ClusterView, Error> {
        let made = self.created(&caller, &r).await;
        self.noted(&caller, "create_cluster", &r.cluster, "", made).await
    }

    async fn created(&self, caller: &Caller, r: &CreateCluster) -> Result<ClusterView, Error> {
        self.authorise(caller, Action::Change).await?;
        if r.cluster.site() != self.site {
            return Err(Error::invalid(format!("{} is no name of this site", r.cluster))
                .hint(format!("its clusters are called NAME.{}", self.site)));
        }
        let now = self.clock.up();
        let _changing = self.changing.lock().await;
        if self.clusters.has(r.cluster.as_str()) {
            return Err(Error::conflict(format!("there is a cluster {} already", r.cluster)));
        }
        let kept = self.clusters.name_for_cluster(r.cluster.as_str());
        let _kept = kept.ok_or_else(|| {
            Error::conflict(format!("a node joins as {} just now", r.cluster))
                .hint("jobs are sent to a cluster as to a node: give it a name of its own")
        })?;
        if self.is_node(r.cluster.as_str()).await? {
            return Err(Error::conflict(format!("a node of this site is called {}", r.cluster))
                .hint("jobs are sent to a cluster as to a node: give it a name of its own"));
        }
        if self.clusters.count() >= CLUSTERS_MAX {
            return Err(Error::limited(format!("a site has at most {CLUSTERS_MAX} clusters")));
        }
        let mut c = Cluster::new(r.cluster.clone(), Kept::default(), self.times, now);
        c.settings_changed();
        self.commit(&mut c, Vec::new()).await?;
        let view = c.view(now);
        self.clusters.insert(c);
        Ok(view)
    }

    async fn list_clusters(
        &self,
        caller: Caller,
        _: ListClusters,
    ) -> Result<Vec<ClusterView>, Error> {
        self.authorise(&caller, Action::See).await?;
        let mut views = Vec::new();
        for (_, cluster) in self.clusters.list() {
            views.push(cluster.lock().await.view(self.clock.up()));
        }
        Ok(views)
    }

    async fn get_cluster(&self, caller: Caller, r: GetCluster) -> Result<ClusterView, Error> {
        self.authorise(&caller, Action::See).await?;
        Ok(self.clusters.of(&r.cluster).await?.view(self.clock.up()))
    }

    async fn add_nodes(&self, caller: Caller, r: AddClusterNodes) -> Result<ClusterView, Error> {
        let nodes: Vec<String> = r.nodes.iter().take(8).map(ToString::to_string).collect();
        let what = format!("{} nodes: {}", r.nodes.len(), nodes.join(", "));
        let added = self.added(&caller, &r).await;
        self.noted(&caller, "add_cluster_nodes", &r.cluster, &what, added).await
    }

    async fn added(&self, caller: &Caller, r: &AddClusterNodes) -> Result<ClusterView, Error> {
        self.authorise(caller, Action::Change).await?;
        if r.nodes.is_empty() || r.nodes.len() > NODES_AT_ONCE {
            return Err(Error::invalid(format!("1 to {NODES_AT_ONCE} nodes are added at a time")));
        }
        if let Some(other) = r.nodes.iter().find(|n| n.site() != self.site) {
            return Err(Error::invalid(format!("{other} is not a node of {}", self.site))
                .hint("a cluster is of one site's nodes"));
        }
        let serves: BTreeSet<VoId> = self.served().await?.into_keys().collect();
        let now = self.clock.up();
        let _changing = self.changing.lock().await;
        if let Some(id) = r.nodes.iter().find(|n| self.clusters.has(n.as_str())) {
            return Err(Error::invalid(format!("{id} is a cluster, and no node of one")));
        }
        let mut held = self.clusters.of(&r.cluster).await?;
        let c = &mut *held;
        let mut new = BTreeSet::new();
        for node in &r.nodes {
            if self.clusters.seat_of(node).is_some() || !new.insert(node) {
                return Err(Error::conflict(format!("{node} is in a cluster already"))
                    .hint("xos cluster status shows in which one"));
            }
        }
        // Before anything is changed: all or none.
        let unknown = new.iter().filter(|node| c.known(node).is_none()).count();
        if c.controller.state().members.iter().count() + unknown > usize::from(NODE_NUMBER_MAX) {
            return Err(member_error(MemberError::Full));
        }
        let before = c.clone();
        let mut effects = Vec::new();
        for node in &new {
            match c.known(node) {
                // It was in before, and keeps its number.
                Some(number) => {
                    c.settings.left.remove(&number);
                    c.settings_changed();
                }
                None => {
                    let added = c.controller.add(node, serves.clone());
                    effects.extend(added.map_err(member_error)?);
                }
            }
        }
        self.all_or_none(c, before, effects).await?;
        self.clusters.seat(&c.id, new);
        Ok(c.view(now))
    }

    async fn remove_node(&self, caller: Caller, r: RemoveClusterNode) -> Result<Done, Error> {
        let removed = self.removed(&caller, &r).await;
        let what = r.node.to_string();
        self.noted(&caller, "remove_cluster_node", &r.cluster, &what, removed).await
    }

    async fn removed(&self, caller: &Caller, r: &RemoveClusterNode) -> Result<Done, Error> {
        self.authorise(caller, Action::Change).await?;
        let now = self.clock.up();
        let _changing = self.changing.lock().await;
        let mut held = self.clusters.of(&r.cluster).await?;
        let c = &mut *held;
        let number = c.number(&r.node).ok_or_else(|| no_node(&r.cluster, &r.node))?;
        let before = c.clone();
        let state = c.controller.state().members.node(number).map(|m| m.state);
        let effects = match state {
            // There is no term to be ended.
            Some(NodeState::Possible) => Vec::new(),
            _ => c.controller.remove(number, now).map_err(|e| {
                let (cluster, node) = (&r.cluster, &r.node);
                let hint = match e {
                    MemberError::Needed { .. } => format!(
                        "wait until their jobs go on elsewhere, or give them up: the plan of a \
                         drain lists them, xos cluster cancel {cluster} TREE ends one"
                    ),
                    _ => format!("drain it first: xos cluster drain {cluster} {node}"),
                };
                member_error(e).hint(hint)
            })?,
        };
        c.settings.left.insert(number);
        c.settings_changed();
        self.all_or_none(c, before, effects).await?;
        self.clusters.unseat(&r.node);
        Ok(Done {})
    }

    /// Keeps and sends what was decided; else the cluster is as it was before.
    async fn all_or_none(
        &self,
        c: &mut Cluster,
        before: Cluster,
        effects: Vec<Effect>,
    ) -> Result<(), Error> {
        match self.commit(c, effects).await {
            Ok(told) => {
                self.send(c, told);
                Ok(())
            }
            Err(error) => {
                *c = before;
                Err(error)
            }
        }
    }

    /// Whether the caller may do something; the VOs that the site serves.
    async fn authorise(
        &self,
        caller: &Caller,
        action: Action,
    ) -> Result<BTreeMap<VoId, ServedVo>, Error> {
        // Whoever administers the site is let see what is wrong with it.
        let served = match self.served().await {
            Ok(served) => served,
            Err(error) if caller.site_admin() => {
                tracing::debug!(%error, "which VOs are served here is not known now");
                BTreeMap::new()
            }
            Err(error) => return Err(error),
        };
        let vos = served.keys().cloned().collect();
        if policy::may(caller, &self.site, &vos, None, action) {
            return Ok(served);
        }
        let who = caller.describe();
        Err(match action {
            Action::Change => Error::denied(format!("{who} does not administer this site")),
            _ => Error::denied(format!("{who} does not act in a VO that this site serves"))
                .hint("name the VO with --vo; `xos vo list` shows yours"),
        })
    }

    /// Notes what was asked of a cluster and how it went.
    async fn noted<T>(
        &self,
        caller: &Caller,
        what: &str,
        cluster: &ClusterId,
        on: &str,
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        let mut event = asked(caller, self.clock.now(), what);
        event.on = if on.is_empty() { cluster.to_string() } else { format!("{cluster}: {on}") };
        self.told.end(event, result).await
    }
}

pub(super) fn no_cluster(id: &ClusterId) -> Error {
    Error::not_found(format!("there is no cluster {id} here"))
        .hint("xos cluster status lists the clusters of the site")
}

fn no_node(cluster: &ClusterId, node: &NodeId) -> Error {
    Error::not_found(format!("{node} is not a node of {cluster}"))
        .hint(format!("xos cluster nodes {cluster} lists them"))
}

fn member_error(e: MemberError) -> Error {
    match e {
        MemberError::Unknown(_) => Error::not_found(e.to_string()),
        MemberError::Full => Error::limited(e.to_string()),
        MemberError::Known(_)
        | MemberError::State { .. }
        | MemberError::Busy { .. }
        | MemberError::Needed { .. } => Error::conflict(e.to_string()),
    }
}

fn refused(e: Refused) -> Error {
    match e {
        Refused::Unknown(_) => Error::not_found(e.to_string()),
        Refused::State { .. } | Refused::There { .. } | Refused::Node { .. } => {
            Error::conflict(e.to_string())
        }
    }
}
