//! The requests of people: submit, wait, cancel, read output.

use super::{JobSpec, UnitEnd};
use crate::{request, subscribe};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{JobId, Millis, SiteId, UnitId};

/// Submits a job to this core, which owns it from then on. The answer means that the job survives
/// any crash of the core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitJob {
    /// The job.
    pub spec: JobSpec,
    /// The person's signed word that they submit a job to this site (`xos_api::cda`), made with
    /// their certificate's key; not needed by a caller with a bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
}
request!(SubmitJob => Submitted, Post "/v1/jobs");

/// The job that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Submitted {
    /// Its id.
    pub job: JobId,
}

/// Submits a job and watches it in one request; the first event acknowledges it. Hanging up does
/// not cancel the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitAndWatch {
    /// The job.
    pub spec: JobSpec,
    /// As in [`SubmitJob::proof`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
}
subscribe!(SubmitAndWatch => JobEvent, Post "/v1/jobs/watched");

/// Watches a job: first where it stands, then each change, at last its end, after which the
/// stream ends. Changes that follow one another quickly come as one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchJob {
    /// The job.
    pub job: JobId,
    /// The last [`JobEvent::seq`] already seen; then only what came later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}
subscribe!(WatchJob => JobEvent, Get "/v1/jobs/{job}/events");

/// Where a job stands after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobEvent {
    /// The job.
    pub job: JobId,
    /// Grows with each change of the job.
    pub seq: u64,
    /// Its state.
    pub state: JobState,
    /// How many of its units are where.
    pub counts: Counts,
    /// Why units wait, when they do: the latest reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Reason>,
    /// Set in the last event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<JobEnd>,
}

/// A job's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobEnd {
    /// The exit status for `xsub` and `xwait`: 0, or that of the first unit, by number, that failed; 69
    /// (EX_UNAVAILABLE) when no site can run it.
    pub exit_status: u8,
    /// The unit that the exit status comes from, when it is not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitId>,
    /// How that unit ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<UnitEnd>,
    /// The whole output of a job with one unit, when it is short; else it is read with
    /// [`ReadOutput`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<InlineOutput>,
    /// Why no site can run that unit: of each site that refused it the latest reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
}

/// The whole output of a unit: both streams together at most
/// [`super::INLINE_OUTPUT_MAX`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InlineOutput {
    /// Standard output, base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdout: String,
    /// Standard error, base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr: String,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum JobState {
    /// Accepted; no unit has started.
    Queued,
    /// At least one unit has started.
    Running {
        /// When the first one did.
        since: Millis,
    },
    /// Every unit ended with exit status 0.
    Done {
        /// When the last one did.
        at: Millis,
    },
    /// A unit failed, was lost or was refused by every site.
    Failed {
        /// When the last unit came to its end.
        at: Millis,
    },
    /// It was cancelled, by somebody or since a job before it failed.
    Cancelled {
        /// When the last unit came to its end.
        at: Millis,
    },
}

impl JobState {
    /// Whether nothing follows.
    pub fn is_final(&self) -> bool {
        matches!(self, JobState::Done { .. } | JobState::Failed { .. } | JobState::Cancelled { .. })
    }

    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running { .. } => "running",
            JobState::Done { .. } => "done",
            JobState::Failed { .. } => "failed",
            JobState::Cancelled { .. } => "cancelled",
        }
    }
}

/// How many units are in which state; they add up to the job's units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Counts {
    /// Waiting for other tasks or jobs.
    pub waiting: u32,
    /// Ready, at no site yet.
    pub queued: u32,
    /// Taken by a site, not started.
    pub placed: u32,
    /// Running.
    pub running: u32,
    /// Ended with exit status 0.
    pub done: u32,
    /// Ended otherwise.
    pub failed: u32,
    /// Lost.
    pub lost: u32,
    /// Cancelled.
    pub cancelled: u32,
    /// Refused by every site.
    pub refused: u32,
}

impl Counts {
    /// All units.
    pub fn total(&self) -> u32 {
        self.open() + self.ended()
    }

    /// Units that have not come to their end.
    pub fn open(&self) -> u32 {
        self.waiting + self.queued + self.placed + self.running
    }

    /// Units that have.
    pub fn ended(&self) -> u32 {
        self.done + self.failed + self.lost + self.cancelled + self.refused
    }
}

/// Why something did not happen, as the site that refused says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// When.
    pub at: Millis,
    /// The site that refused; without one, the job itself is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteId>,
    /// The rule that decided, one word with dashes: `no-share`, `memory`, `site-policy`, …
    pub rule: String,
    /// A sentence for the person.
    pub text: String,
    /// The task concerned; without one, the whole job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}

/// Cancels a job: what has not started never starts, what runs gets SIGTERM, then SIGKILL.
/// A job that has ended stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelJob {
    /// The job.
    pub job: JobId,
}
request!(CancelJob => Cancelled, Post "/v1/jobs/{job}/cancel");

/// Cancels some units of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelUnits {
    /// The job.
    pub job: JobId,
    /// The numbers of the units in the job, as in `0-15,20`.
    pub units: super::Array,
}
request!(CancelUnits => Cancelled, Post "/v1/jobs/{job}/units/cancel");

/// What a cancellation reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cancelled {
    /// Units that were open and are being ended.
    pub units: u32,
}

/// One of a unit's two output streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

/// Reads what a unit wrote, where it did not name a file of its own for it. Output lives as long
/// as the job is known and its node keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadOutput {
    /// The unit.
    pub unit: UnitId,
    /// Which stream.
    #[serde(default)]
    pub stream: OutputStream,
    /// From which byte.
    #[serde(default)]
    pub offset: u64,
    /// Most bytes, at most 262,144; without it that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
request!(ReadOutput => OutputPart, Get "/v1/units/{unit}/output");

/// A part of a unit's output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputPart {
    /// The bytes from the offset asked for, base64; none when there are none yet.
    pub data: String,
    /// Whether nothing follows: the unit has ended and this is all.
    pub eof: bool,
    /// From which byte on this is, when what comes before it is nowhere any more, as where a unit
    /// that moved was before. Absent: from the offset asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

impl OutputPart {
    /// A part from the offset asked for: base64, and whether nothing follows.
    pub fn new(data: String, eof: bool) -> OutputPart {
        OutputPart { data, eof, from: None }
    }
}
