//! The audit of a site: who did what to whom, why, how it went and from where.

use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use xos_base::{Millis, NodeId, PersonId, SiteId, VoId};

/// Longest text in an [`Event`], in characters; what is longer is cut.
pub const TEXT_MAX: usize = 1000;
/// Most events in one [`ReportEvents`].
pub const REPORT_EVENTS_MAX: usize = 500;

/// How something went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was not allowed.
    Refused,
    /// It was allowed and went wrong.
    Failed,
}

/// Something that happened at a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When, by the clock of the machine where it happened.
    pub time: Millis,
    /// The operation, in snake case: `sign_in`, `open_session`, `start_unit`, `remove_member`.
    pub what: String,
    /// Who did it: a person, `core of pisa`, `node n1.rennes`; empty: nobody was proved.
    pub who: String,
    /// What or whom it was done to: a job, a node, a file; empty: nothing else than `person`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub on: String,
    /// The person whom it concerns, when there is one: who acts, unless it is done to another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
    /// The VO in which it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vo: Option<VoId>,
    /// The node on which it happened; absent: at the core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// How it went.
    pub outcome: Outcome,
    /// The reason that was given for it, or why it was refused or failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Where the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
}

/// One line of a site's audit: an event in its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// The site.
    pub site: SiteId,
    /// From 1, without a gap.
    pub number: u64,
    /// SHA-256 of the line before it, as it is written without its newline, hex; of the first:
    /// empty.
    pub prev: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened at a node, from the node to its core. The reply says that the lines are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportEvents {
    /// Numbers the first of `events`, from 1 for the first that the node ever noted: what is
    /// reported twice is stored once.
    pub first: u64,
    /// Names the count: made anew when the node's folder was.
    pub series: String,
    /// In order, at most [`REPORT_EVENTS_MAX`].
    pub events: Vec<Event>,
}
request!(ReportEvents => Done, Post "/v1/node/audit");
