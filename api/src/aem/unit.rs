//! What becomes of a unit.

use super::Reason;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{Millis, NodeId, SiteId};

/// How a unit's run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "end", rename_all = "snake_case", deny_unknown_fields)]
pub enum UnitEnd {
    /// The program ended by itself.
    Exit {
        /// Its exit status, 0 to 255.
        code: u8,
    },
    /// A signal ended it.
    Signal {
        /// The signal's number.
        signal: u8,
    },
    /// It used more memory than it asked for.
    OutOfMemory,
    /// It ended badly, and while it ran its job had as many processes on the node as it may have.
    ProcessLimit {
        /// Its exit status, or 128 + the signal that ended it.
        status: u8,
    },
    /// It ran longer than its wall time.
    WallTime,
    /// It could not be started: no such program, no such directory, a file to stage in missing.
    NotStarted {
        /// What was wrong, for the person; at most 512 bytes.
        reason: String,
    },
    /// It ended well, and a file to stage out could not be stored.
    StageOut {
        /// What was wrong, for the person; at most 512 bytes.
        reason: String,
    },
    /// Somebody cancelled it.
    Cancelled,
    /// It ended without a witness: the machine stopped or lost its records.
    Lost {
        /// What is known; at most 512 bytes.
        reason: String,
    },
}

impl UnitEnd {
    /// Whether the unit did what it was asked for.
    pub fn is_success(&self) -> bool {
        matches!(self, UnitEnd::Exit { code: 0 })
    }

    /// The exit status that stands for it: the program's own, 128 + signal as a shell says, 137
    /// out of memory, 124 wall time (timeout(1)), 126 not started, 130 cancelled, 75 lost
    /// (EX_TEMPFAIL), 74 stage-out (EX_IOERR).
    pub fn exit_status(&self) -> u8 {
        match self {
            UnitEnd::Exit { code } => *code,
            UnitEnd::Signal { signal } => signal.saturating_add(128),
            UnitEnd::OutOfMemory => 137,
            UnitEnd::ProcessLimit { status } => *status,
            UnitEnd::WallTime => 124,
            UnitEnd::NotStarted { .. } => 126,
            UnitEnd::StageOut { .. } => 74,
            UnitEnd::Cancelled => 130,
            UnitEnd::Lost { .. } => 75,
        }
    }
}

/// What a run used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// From start to end, in milliseconds.
    pub wall_ms: u64,
    /// Processor time of all its processes, in milliseconds.
    pub cpu_ms: u64,
    /// Most memory in use at once, in bytes; 0 when the node could not measure it.
    pub memory_bytes: u64,
}

/// Where a unit stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum UnitState {
    /// Other tasks or jobs must succeed first.
    Waiting,
    /// It may run as soon as a site takes it.
    Queued,
    /// A site took it; it waits there for a node.
    Placed {
        /// The site.
        site: SiteId,
    },
    /// It runs.
    Running {
        /// The site.
        site: SiteId,
        /// The node.
        node: NodeId,
        /// Since when.
        since: Millis,
    },
    /// It ended with exit status 0.
    Done {
        /// The site.
        site: SiteId,
        /// The node.
        node: NodeId,
        /// When it ended.
        at: Millis,
        /// What it used.
        usage: Usage,
    },
    /// It ended otherwise.
    Failed {
        /// The site.
        site: SiteId,
        /// The node, when it got as far as that.
        node: Option<NodeId>,
        /// When it ended.
        at: Millis,
        /// How.
        end: UnitEnd,
        /// What it used.
        usage: Usage,
    },
    /// Nobody can say what became of it, and its author did not allow it to run again.
    Lost {
        /// The site.
        site: SiteId,
        /// The node, when it got as far as that.
        node: Option<NodeId>,
        /// Since when.
        at: Millis,
        /// What is known.
        reason: String,
    },
    /// It was cancelled: by its person, by an administrator, or since what it waited for failed.
    Cancelled {
        /// When.
        at: Millis,
    },
    /// No site can ever run it.
    Refused {
        /// When that was known.
        at: Millis,
        /// Each site's reason.
        reasons: Vec<Reason>,
    },
}
