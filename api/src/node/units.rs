//! Units on a node: what a host core asks of its node, and what the node reports.
//!
//! An *envelope* is one job on one node: account, cgroup, pid namespace and shim. The node keeps
//! an envelope's events until the envelope is ended, so that a report can be repeated from any
//! sequence number.

use crate::aem::{InlineOutput, OutputPart, OutputStream, TaskSpec, UnitEnd, Usage};
use crate::{Done, request};
use serde::{Deserialize, Serialize};
use xos_base::{JobId, Millis, SiteId, VoId};

/// Most units in one request or events in one report.
pub const BATCH_MAX: usize = 1024;

/// One job on one node. A host that needs the job again on a node where its envelope was ended
/// takes the next serial, so that sequence numbers never start anew under the same id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeId {
    /// The job.
    pub job: JobId,
    /// From 1; given by the host core.
    pub serial: u32,
}

/// Starts units of one task. The node makes the envelope when it does not exist. Idempotent: a
/// unit that the node has already seen under the same attempt is not started again.
///
/// The node checks the ticket by itself; account, groups and VO come from the ticket alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartUnits {
    /// The envelope.
    pub envelope: EnvelopeId,
    /// The VO; must be the ticket's.
    pub vo: VoId,
    /// This site: `XOS_SITE`.
    pub site: SiteId,
    /// The right to act for the person on this node (JWS of the VO's home CDA).
    pub ticket: String,
    /// What the envelope may use as a whole.
    pub room: Room,
    /// The task: `XOS_TASK` and the rest. Its `array`, `after` and `retry` are not the node's
    /// concern, except that `array` tells how many units there are: `XOS_UNIT_COUNT`.
    pub task: TaskSpec,
    /// The units, at most [`BATCH_MAX`].
    pub units: Vec<UnitOrder>,
    /// Whether short output comes with a unit's end.
    #[serde(default)]
    pub want_output: bool,
}
request!(StartUnits => UnitsTaken, Post "/v1/node/units/start");

/// What an envelope may use as a whole. The latest order counts. The envelope starts its units in
/// the order received, as many at once as fit; the others wait in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// Most units at once.
    pub at_once: u32,
    /// Processors, in thousandths of one: the cgroup's limit.
    pub cpu_milli: u32,
    /// Memory in bytes: the cgroup's limit.
    pub memory_bytes: u64,
}

/// One unit to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitOrder {
    /// Its number in the job.
    pub unit: u32,
    /// Its index in the task's array: `XOS_UNIT_INDEX`.
    pub index: u32,
    /// The attempt, from 0.
    pub attempt: u16,
}

/// The node's records hold the units: it answers for them from now on, whatever happens to it.
/// What cannot be started is reported as a [`UnitEnd::NotStarted`] event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitsTaken {
    /// How many of the units were new to the node.
    pub new: u32,
}

/// Changes an envelope's room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRoom {
    /// The envelope.
    pub envelope: EnvelopeId,
    /// What it may use from now on.
    pub room: Room,
}
request!(SetRoom => Done, Post "/v1/node/units/room");

/// Ends units: those that wait in the envelope never start, those that run get SIGTERM and, when
/// `grace_ms` is over, SIGKILL. Each is reported as [`UnitEnd::Cancelled`] unless it ended before.
/// Units that the node does not know are no error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KillUnits {
    /// The envelope.
    pub envelope: EnvelopeId,
    /// The units' numbers; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<Vec<u32>>,
    /// Time between SIGTERM and SIGKILL, in milliseconds.
    pub grace_ms: u64,
}
request!(KillUnits => Done, Post "/v1/node/units/kill");

/// Ends every process of the envelope and forgets it with its output and its events. An envelope
/// that the node does not know is no error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndEnvelope {
    /// The envelope.
    pub envelope: EnvelopeId,
}
request!(EndEnvelope => Done, Post "/v1/node/units/end");

/// Reads output that the envelope keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitOutput {
    /// The envelope.
    pub envelope: EnvelopeId,
    /// The unit's number.
    pub unit: u32,
    /// The attempt.
    pub attempt: u16,
    /// Which stream.
    pub stream: OutputStream,
    /// From which byte.
    pub offset: u64,
    /// Most bytes, at most [`crate::aem::OUTPUT_PART_MAX`].
    pub limit: u32,
}
request!(UnitOutput => OutputPart, Post "/v1/node/units/output");

/// Asks a node, first thing after it connected, which envelopes it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListEnvelopes {}
request!(ListEnvelopes => Envelopes, Post "/v1/node/units/list");

/// The envelopes on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelopes {
    /// The machine's boot (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// Each envelope.
    pub envelopes: Vec<EnvelopeStatus>,
}

/// One envelope on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeStatus {
    /// The envelope.
    pub envelope: EnvelopeId,
    /// The sequence number of its last event; 0: none.
    pub last: u64,
}

/// The node reports what happened in an envelope. Repeated until it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitEvents {
    /// The envelope.
    pub envelope: EnvelopeId,
    /// The sequence number before the first event; the first event of an envelope has 1.
    pub after: u64,
    /// The events, at most [`BATCH_MAX`], without a gap.
    pub events: Vec<UnitEvent>,
}
request!(UnitEvents => EventsAck, Post "/v1/node/units/events");

/// Up to where the core has stored an envelope's events. When that is less than what the report
/// began with, the node reports again from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsAck {
    /// The last stored sequence number.
    pub stored: u64,
    /// The core does not know the envelope (any more): the node ends and forgets it.
    #[serde(default)]
    pub unknown: bool,
}

/// What happened to one unit on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitEvent {
    /// The unit's number in the job.
    pub unit: u32,
    /// The attempt.
    pub attempt: u16,
    /// When, by the node's clock.
    pub at: Millis,
    /// What.
    pub what: UnitChange,
}

/// How far a unit came on its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "run", rename_all = "snake_case", deny_unknown_fields)]
pub enum UnitChange {
    /// Its program was started.
    Started,
    /// It ended, or could not be started. The last event of an attempt.
    Ended {
        /// How.
        how: UnitEnd,
        /// What it used.
        usage: Usage,
        /// Its whole output, when that was wanted and is short.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<InlineOutput>,
    },
}
