//! How the job service drives clusters: each as one node. Implemented by the clusters of a core.

use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;
use xos_api::Done;
use xos_api::aem::{OutputPart, TaskSpec, UnitCheckpoint};
use xos_api::cluster::PROCESSES_MAX;
use xos_api::node::Capacity;
use xos_api::node::units::{
    EndEnvelope, EnvelopeId, Envelopes, KillUnits, StartUnits, UnitEvents, UnitOutput, UnitsTaken,
};
use xos_base::{Error, Membership, Millis, NodeId, SiteId};

/// Most bytes of arguments, environment and names of staged files of a task that a cluster takes: as
/// JSON, where a byte can take six, they fit into a value of the registry.
pub const TASK_BYTES_MAX: usize = 64 * 1024;

/// Below it a folder is the same on all nodes of a cluster.
const VOLUMES: &str = "/xtreemfs/";

/// A cluster as a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterOffer {
    /// What its nodes that take programs offer together; of no architecture when there are none,
    /// of `other` when they differ.
    pub capacity: Capacity,
    /// The most that one unit can have: processors in thousandths of one, memory in bytes.
    pub largest: (u32, u64),
    /// What tickets for it name as its key: of no key that anybody has.
    pub key: String,
    /// All nodes that have joined it, whatever they do: they take no units by themselves.
    pub nodes: BTreeSet<NodeId>,
}

/// What is new of the clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterNews {
    /// Each cluster of the site, by the id that it has as a node.
    pub offers: BTreeMap<NodeId, ClusterOffer>,
    /// Grows when there are reports that were not there before.
    pub reports: u64,
}

/// Which names the clusters of a core's site have: no node gets one of them, as jobs are sent to
/// both alike.
pub trait ClusterNames: Send + Sync {
    /// Whether a cluster is called so.
    fn has(&self, name: &NodeId) -> bool;

    /// Keeps everybody from making a cluster of this name until what is returned is dropped: by
    /// then the node is in the registry, where it is seen. None: a cluster is called so, or one is
    /// being made.
    fn keep_for_node(&self, name: &NodeId) -> Option<Box<dyn Send>>;
}

/// The clusters of a core's site, as nodes. A cluster that there is not is
/// [`xos_base::Kind::NotFound`] everywhere.
#[async_trait]
pub trait Clusters: Send + Sync + 'static {
    /// What the clusters offer, and that there are reports; from now on.
    fn news(&self) -> watch::Receiver<ClusterNews>;

    /// A node of the site said what it offers, which counts when it is in a cluster.
    fn hears(&self, node: &NodeId, capacity: &Capacity);

    /// What a cluster has; see [`xos_api::node::units::ListEnvelopes`].
    ///
    /// # Errors
    /// That there is no such cluster.
    async fn list_envelopes(&self, cluster: &NodeId) -> Result<Envelopes, Error>;

    /// Takes units of the member whom the order's ticket, which was verified, names.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unsatisfiable`] when it is what a cluster cannot do ([`refuses`]),
    /// [`xos_base::Kind::Denied`] when the member has no account here; those of its records.
    /// Sending the same again is safe.
    async fn start_units(
        &self,
        cluster: &NodeId,
        order: StartUnits,
        member: &Membership,
    ) -> Result<UnitsTaken, Error>;

    /// Ends units.
    ///
    /// # Errors
    /// Those of its records.
    async fn kill_units(&self, cluster: &NodeId, r: KillUnits) -> Result<Done, Error>;

    /// Ends what runs in an envelope, and forgets it once nothing of it is left.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] until then: ask again.
    async fn end_envelope(&self, cluster: &NodeId, r: EndEnvelope) -> Result<Done, Error>;

    /// What a unit wrote.
    ///
    /// # Errors
    /// [`xos_base::Kind::NotFound`] when it is not known, or what it wrote went with a node.
    async fn unit_output(&self, cluster: &NodeId, r: UnitOutput) -> Result<OutputPart, Error>;

    /// How units of an envelope that run stand; with `save` they are checkpointed now.
    ///
    /// # Errors
    /// Those of its records.
    async fn checkpoints(
        &self,
        cluster: &NodeId,
        envelope: &EnvelopeId,
        units: &BTreeSet<u32>,
        save: bool,
    ) -> Result<Vec<UnitCheckpoint>, Error>;

    /// The sites whose running units the clusters take.
    fn takes_from(&self) -> Vec<SiteId>;

    /// Begins to have a unit of an envelope, by its number and attempt, leave: it stops for good,
    /// and is reported as [`xos_api::node::units::UnitChange::Left`]. Asked again with the same `at`,
    /// when somebody wished for it, it says how that stands. With `over`, the image of one that
    /// left is not needed any more.
    ///
    /// # Errors
    /// [`xos_base::Kind::Conflict`]: it goes on as before, and why; `Unavailable`: it may leave
    /// later; those of the records.
    async fn leave(
        &self,
        cluster: &NodeId,
        envelope: &EnvelopeId,
        unit: (u32, u16),
        at: Millis,
        over: bool,
    ) -> Result<Done, Error>;

    /// What happened in envelopes and is not acknowledged, from each its next part.
    async fn reports(&self) -> Vec<(NodeId, UnitEvents)>;

    /// So many events of an envelope are stored.
    async fn acknowledged(&self, cluster: &NodeId, envelope: &EnvelopeId, stored: u64);

    /// The nodes that have trees of an envelope, or are to get one.
    async fn nodes_of(&self, cluster: &NodeId, envelope: &EnvelopeId) -> BTreeSet<NodeId>;
}

/// Why no cluster can run units of a task, whatever room it has; for the person.
pub fn refuses(task: &TaskSpec) -> Option<String> {
    let stages = task.stage_in.iter().chain(&task.stage_out);
    let on_volume = task.cwd.as_ref().is_some_and(|cwd| cwd.starts_with(VOLUMES));
    if task.checkpointable && stages.clone().next().is_some() && !on_volume {
        return Some(format!(
            "what it goes on from is of no use on another node without its files; have it work in \
             a folder of the volume (below {VOLUMES})"
        ));
    }
    if task.limits.processes.is_some_and(|many| !(1..=PROCESSES_MAX).contains(&many)) {
        return Some(format!("a unit in a cluster can have 1 to {PROCESSES_MAX} processes"));
    }
    let env = task.env.iter().flat_map(|(name, value)| [name, value]);
    let files = stages.flat_map(|stage| [&stage.name, &stage.volume]);
    let bytes: usize = task.argv.iter().chain(env).chain(files).map(String::len).sum();
    (bytes > TASK_BYTES_MAX).then(|| {
        let most = TASK_BYTES_MAX / 1024;
        format!("a cluster takes at most {most} KiB of arguments, environment and names of files")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::aem::{ProcessLimits, Stage};

    /// If it failed, units would go to a cluster that drops a part of what they ask for.
    #[test]
    fn what_a_cluster_cannot_do_is_a_reason() {
        let task = TaskSpec { argv: vec!["a".into()], ..TaskSpec::default() };
        assert_eq!(refuses(&task), None);
        let staged = TaskSpec { stage_out: vec![Stage::default()], ..task.clone() };
        assert_eq!(refuses(&staged), None);
        let saved = TaskSpec { checkpointable: true, ..staged };
        assert!(refuses(&saved).unwrap().contains("/xtreemfs/"));
        let cwd = |cwd: &str| TaskSpec { cwd: Some(cwd.into()), ..saved.clone() };
        assert_eq!(refuses(&cwd("/xtreemfs/demo.rennes/a")), None);
        assert!(refuses(&cwd("a")).is_some());
        let limits = ProcessLimits { open_files: Some(9), ..ProcessLimits::default() };
        assert_eq!(refuses(&TaskSpec { limits, ..task.clone() }), None);
        let limits = ProcessLimits { processes: Some(1 << 20), ..limits };
        assert!(refuses(&TaskSpec { limits, ..task.clone() }).unwrap().contains("processes"));
        let argv = vec!["x".repeat(TASK_BYTES_MAX + 1)];
        assert!(refuses(&TaskSpec { argv, ..task }).unwrap().contains("64 KiB"));
    }
}
