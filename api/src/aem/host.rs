//! Between cores: the owner of a job has units run by a host.

use super::{Carried, InlineOutput, Outline, OutputPart, OutputStream, TaskSpec, UnitEnd, Usage};
use crate::{Done, request, subscribe};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{ClusterId, JobId, Millis, NodeId, SiteId, UnitId, VoId};

/// Units that follow one another in a job's numbering and belong to one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnitRun {
    /// The number in the job of the first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// The owner asks a host to run units of one task. Only a core may ask, and only for jobs of its
/// own site. Idempotent: units that the host already has under the same attempt are accepted and
/// not started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostUnits {
    /// The job.
    pub job: JobId,
    /// The VO.
    pub vo: VoId,
    /// The word of the VO's home that the person authorised the job
    /// ([`crate::cda::Mandate`]): who that person is stands there and nowhere else.
    pub mandate: String,
    /// The task's place in the job.
    pub task: u16,
    /// The number in the job of the task's first unit.
    pub task_first: u32,
    /// The task.
    pub spec: TaskSpec,
    /// The job that the person signed: its digest stands in the mandate, and the task's in it.
    pub outline: Outline,
    /// The units, at most [`super::HOST_BATCH_MAX`] of them.
    pub units: Vec<UnitRun>,
    /// The attempt, from 0; without `moves` at most [`TaskSpec::retry`].
    pub attempt: u16,
    /// A host that reads this later, by its clock, refuses: the owner may have asked elsewhere.
    pub until: Millis,
    /// Somebody watches, and the job has this one unit: short output comes with its end.
    #[serde(default)]
    pub want_output: bool,
    /// How many of the attempts before were no new runs, but handed a running unit on: at most
    /// [`super::MOVES_MAX`].
    #[serde(default, skip_serializing_if = "super::spec::is_zero")]
    pub moves: u16,
    /// The one unit does not begin: it goes on from this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Box<Carried>>,
}
request!(HostUnits => HostReply, Post "/v1/hosted");

/// What the host took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostReply {
    /// Units the host answers for from now on.
    pub accepted: Vec<UnitRun>,
    /// Why it took none, or only some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// Why a host refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The rule, one word with dashes.
    pub rule: String,
    /// A sentence for the person.
    pub text: String,
    /// Whether asking again later can help: nodes are busy, the share is used up.
    pub later: bool,
}

/// Ends units at a host, or makes it forget a job that has ended. Idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelHosted {
    /// The job.
    pub job: JobId,
    /// The units; empty: all, and the host may forget the job with its output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitRun>,
}
request!(CancelHosted => Done, Post "/v1/hosted/{job}/cancel");

/// What happened to the caller's units here, and what room this site has: first all since
/// `after`, then as it happens. One such stream per pair of sites.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostEvents {
    /// The last [`HostItem::Units`] sequence number that the owner has stored; 0: none.
    pub after: u64,
}
subscribe!(HostEvents => HostItem, Get "/v1/hosted/events");

/// The owner has stored the items up to `seq`; the host may forget them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AckHosted {
    /// The sequence number.
    pub seq: u64,
}
request!(AckHosted => Done, Post "/v1/hosted/ack");

/// One item of [`HostEvents`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "item", rename_all = "snake_case", deny_unknown_fields)]
pub enum HostItem {
    /// What happened to units of one job, in order.
    Units {
        /// Its sequence number; the next item's is greater by one.
        seq: u64,
        /// The job.
        job: JobId,
        /// The attempt that all events belong to.
        attempt: u16,
        /// What happened.
        events: Vec<HostedEvent>,
    },
    /// The room there is for the VOs that the asking site serves too. Sent first, after changes
    /// (at most some times a second), and as a sign of life.
    Capacity {
        /// The room.
        capacity: SiteCapacity,
    },
}

/// What happened to one unit at a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostedEvent {
    /// The unit's number in the job.
    pub unit: u32,
    /// When, by the host's clock or its node's.
    pub at: Millis,
    /// What.
    pub what: HostedRun,
}

/// How far a hosted unit came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "run", rename_all = "snake_case", deny_unknown_fields)]
pub enum HostedRun {
    /// It started.
    Started {
        /// Where.
        node: NodeId,
    },
    /// It ended. Comes once, and without a start before it when there was none.
    Ended {
        /// Where, when it got as far as that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<NodeId>,
        /// When it had started, when it had.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started: Option<Millis>,
        /// How.
        how: UnitEnd,
        /// What it used.
        #[serde(default)]
        usage: Usage,
        /// Its short output, when that was wanted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<InlineOutput>,
    },
    /// It stopped here for good, and goes on elsewhere from an image. The last of its attempt.
    Left {
        /// Where it was.
        node: NodeId,
        /// What it used.
        #[serde(default)]
        usage: Usage,
        /// The image.
        carried: Box<Carried>,
        /// Why it left, when nobody asked for it; at most 512 bytes.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
}

/// The room that a site has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteCapacity {
    /// By processor architecture.
    pub pools: Vec<Pool>,
    /// Units accepted and not started.
    pub waiting: u32,
    /// What is left of the shares of VOs for which the asking site has units here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<ShareRoom>,
    /// The sites whose running units its clusters take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub takes_from: Vec<SiteId>,
    /// Its clusters: what goes on from an image waits nowhere, and so needs room in one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<ClusterRoom>,
}

/// The room in a cluster, whose nodes are in [`SiteCapacity::pools`] too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterRoom {
    /// The cluster.
    pub cluster: ClusterId,
    /// The architecture of its nodes, as JSDL names it.
    pub arch: String,
    /// Processors that are not in use, in thousandths of one.
    pub cpu_free_milli: u64,
    /// Memory that is not in use, in bytes.
    pub memory_free_bytes: u64,
    /// Most processors that one unit can have, in thousandths of one.
    pub node_cpu_milli: u32,
    /// Most memory that one unit can have, in bytes.
    pub node_memory_bytes: u64,
}

/// What is left of a VO's share at a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareRoom {
    /// The VO.
    pub vo: VoId,
    /// Processors, in thousandths of one.
    pub cpu_milli: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
}

/// The nodes of one architecture at a site: those that are connected, or, in a pool with none,
/// those that were a while ago and may come back. Of these only the largest is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// The architecture, as JSDL names it.
    pub arch: String,
    /// Nodes that are connected.
    pub nodes: u32,
    /// Processors of all, in thousandths of one.
    pub cpu_milli: u64,
    /// Of these, not in use.
    pub cpu_free_milli: u64,
    /// Memory of all, in bytes.
    pub memory_bytes: u64,
    /// Of it, not in use.
    pub memory_free_bytes: u64,
    /// Processors of the largest node, in thousandths of one.
    pub node_cpu_milli: u32,
    /// Memory of the largest node, in bytes.
    pub node_memory_bytes: u64,
}

/// Reads the output of a hosted unit. Only the job's owner may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostOutput {
    /// The unit.
    pub unit: UnitId,
    /// Which stream.
    pub stream: OutputStream,
    /// From which byte.
    pub offset: u64,
    /// Most bytes, at most [`super::OUTPUT_PART_MAX`].
    pub limit: u32,
    /// Of which run, when it is one that left; absent: of the last one there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u16>,
}
request!(HostOutput => OutputPart, Get "/v1/hosted/output");
