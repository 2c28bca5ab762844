//! Units on a node: what a host core asks of its node, and what the node reports.
//!
//! An *envelope* is one job on one node: account, cgroup, pid namespace and shim. The node keeps
//! an envelope's events until the envelope is ended, so that a report can be repeated from any
//! sequence number. When the last unit of an envelope has ended and its events are acknowledged,
//! only files need be left of it (output, events), until it is ended.

use crate::aem::{Carried, InlineOutput, OutputPart, OutputStream, TaskSpec, UnitEnd, Usage};
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{JobId, Millis, NodeId, SiteId, VoId};

/// Most units in one request or events in one report.
pub const BATCH_MAX: usize = 1024;

/// One job on one node, for units that need the same room. A host that needs the job there again,
/// with other room or after the envelope was ended, takes the next serial: sequence numbers never
/// start anew under the same id. As text, and as the node's own name for it: `12.rennes@1`.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeId {
    /// The job.
    pub job: JobId,
    /// From 1; given by the host core.
    pub serial: u32,
}

impl std::fmt::Display for EnvelopeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.job, self.serial)
    }
}

/// Starts units of one task. The node makes the envelope when it does not exist. Idempotent: a
/// unit that the node has already seen under the same attempt is not started again.
///
/// The node checks the ticket by itself; account, groups and VO come from the ticket alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// The one unit goes on from this. Only for clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Box<Carried>>,
}
request!(StartUnits => UnitsTaken, Post "/v1/node/units/start");

impl StartUnits {
    /// The variables that XOS sets for a unit, whatever the task says.
    pub fn variables(&self, unit: &UnitOrder, node: &NodeId) -> Vec<(&'static str, String)> {
        vec![
            ("XOS_JOB_ID", self.envelope.job.to_string()),
            ("XOS_UNIT_INDEX", unit.index.to_string()),
            ("XOS_UNIT_COUNT", self.task.array.len().to_string()),
            ("XOS_TASK", self.task.name.clone()),
            ("XOS_VO", self.vo.to_string()),
            ("XOS_SITE", self.site.to_string()),
            ("XOS_NODE", node.to_string()),
        ]
    }

    /// One of the task's paths for a unit: `%j` is the job, `%i` the unit's index, `%%` a percent
    /// sign; any other character after a percent sign stays as it is.
    pub fn path_of(&self, unit: &UnitOrder, path: &str) -> String {
        let mut out = String::with_capacity(path.len());
        let mut rest = path.chars();
        while let Some(c) = rest.next() {
            match (c, if c == '%' { rest.next() } else { None }) {
                ('%', Some('j')) => out.push_str(&self.envelope.job.to_string()),
                ('%', Some('i')) => out.push_str(&unit.index.to_string()),
                ('%', Some('%')) => out.push('%'),
                (c, Some(other)) => out.extend([c, other]),
                (c, None) => out.push(c),
            }
        }
        out
    }
}

/// What an envelope may use as a whole; set when it is made. It starts its units in the order
/// received, `slots` at a time; the others wait in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// How many units run at a time.
    pub slots: u32,
    /// Processors, in thousandths of one: the cgroup's limit.
    pub cpu_milli: u32,
    /// Memory in bytes: the cgroup's limit.
    pub memory_bytes: u64,
}

/// One unit to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnitsTaken {
    /// How many of the units were new to the node.
    pub new: u32,
}

/// Ends units: those that wait in the envelope never start, those that run get SIGTERM and, when
/// `grace_ms` is over, SIGKILL. Each is reported as [`UnitEnd::Cancelled`] unless it ended before.
/// Units that the node does not know are no error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndEnvelope {
    /// The envelope.
    pub envelope: EnvelopeId,
}
request!(EndEnvelope => Done, Post "/v1/node/units/end");

/// The node asks for a fresh ticket for the person of an envelope in which work goes on: it has
/// none (its `xosd` was restarted), or one of an epoch that is over (the person's rights changed,
/// or the work was held and goes on). Until it has one, that work has no right to the volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewTicket {
    /// The envelope.
    pub envelope: EnvelopeId,
}
request!(RenewTicket => RenewedTicket, Post "/v1/node/units/ticket");

/// A ticket of the person's present epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewedTicket {
    /// The ticket, signed by the VO's home.
    pub ticket: String,
}

/// Reads output that the envelope keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListEnvelopes {}
request!(ListEnvelopes => Envelopes, Post "/v1/node/units/list");

/// The envelopes on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Envelopes {
    /// The machine's boot (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// Each envelope.
    pub envelopes: Vec<EnvelopeStatus>,
}

/// One envelope on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeStatus {
    /// The envelope.
    pub envelope: EnvelopeId,
    /// The sequence number of its last event; 0: none.
    pub last: u64,
}

/// The node reports what happened in an envelope. Repeated until it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsAck {
    /// The last stored sequence number.
    pub stored: u64,
    /// The core does not know the envelope (any more): the node ends and forgets it.
    #[serde(default)]
    pub unknown: bool,
}

/// What happened to one unit on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// It stopped in its cluster for good, and goes on elsewhere from an image. The last event of
    /// an attempt.
    Left {
        /// What it used.
        usage: Usage,
        /// The image.
        carried: Box<Carried>,
        /// Why, when nobody asked for it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_knows_its_place_and_its_paths() {
        let start = StartUnits {
            envelope: EnvelopeId { job: "12.rennes".parse().unwrap(), serial: 1 },
            vo: "demo.rennes".parse().unwrap(),
            site: "pisa".parse().unwrap(),
            ticket: String::new(),
            room: Room { slots: 1, cpu_milli: 1000, memory_bytes: 1 },
            task: TaskSpec {
                name: "scan".into(),
                array: "5,7".parse().unwrap(),
                ..TaskSpec::default()
            },
            units: vec![],
            want_output: false,
            carried: None,
        };
        let unit = UnitOrder { unit: 1, index: 7, attempt: 0 };
        let vars = start.variables(&unit, &"n1.pisa".parse().unwrap());
        assert!(vars.contains(&("XOS_UNIT_INDEX", "7".into())));
        assert!(vars.contains(&("XOS_UNIT_COUNT", "2".into())));
        assert_eq!(start.path_of(&unit, "out/%j-%i%%%x%"), "out/12.rennes-7%%x%");
    }
}
