//! What the daemon asks a shim, and what the shim asks the envelope's init.
//!
//! All parties are root on one machine and of one build or two; unknown fields are refused, so
//! that a mismatch shows at once instead of half working.

use crate::cgroup::EnvelopeUsage;
use crate::event::{Outcome, UnitUsage};
use crate::spec::{Account, Limits, UnitKey, UnitSpec};
use serde::{Deserialize, Serialize};

/// Most units that wait in one shim for a slot; more are refused, the daemon sends them later.
pub const QUEUE_MAX: usize = 16_384;
/// Most units of one envelope in its whole life.
pub const UNITS_MAX: usize = 200_000;
/// Most connections to one shim.
pub const CONNECTIONS_MAX: usize = 8;
/// Most bytes that wait for a connection that does not read; then it is dropped.
pub const OUTBOX_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Between TERM and KILL when a unit's wall-clock limit or spool limit is reached, milliseconds.
pub const LIMIT_GRACE_MS: u64 = 5_000;
/// Longest grace that can be asked for, milliseconds.
pub const GRACE_MS_MAX: u64 = 3_600_000;

/// A request with its number; the reply carries the same.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Chosen by the caller, above 0.
    pub id: u64,
    /// What is asked.
    pub ask: Ask,
}

/// Requests to a shim. The comment names the reply.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// Start these. Reply: `Vec<StartAnswer>`, in the same order.
    Start {
        /// The units.
        units: Vec<UnitSpec>,
    },
    /// End a unit: TERM, then KILL after the grace. Reply: [`UnitState`].
    Kill {
        /// Which.
        unit: UnitKey,
        /// Grace in milliseconds.
        grace_ms: u64,
    },
    /// End all units, running and waiting; the envelope stays. Reply: `()`.
    KillAll {
        /// Grace in milliseconds.
        grace_ms: u64,
    },
    /// Stop all processes, or let them go on. Reply: `()`.
    Freeze {
        /// Stop?
        on: bool,
    },
    /// Other limits from now on. Reply: `()`.
    Limit {
        /// The limits.
        limits: Limits,
    },
    /// Another number of units at a time. Reply: `()`.
    Slots {
        /// The number.
        slots: u32,
    },
    /// To a shell that was started ahead: become the envelope whose plan now lies in the folder.
    /// Reply: `()`, when its log is begun.
    Adopt,
    /// Reply: `Option<UnitState>`; `None` for a unit that was never sent.
    Unit {
        /// Which.
        unit: UnitKey,
    },
    /// Reply: [`Status`].
    Status,
    /// End the units, then the envelope. Reply: `()`, when it has begun; the log's `Closed` says
    /// that it is done.
    End {
        /// Grace in milliseconds.
        grace_ms: u64,
    },
}

/// What a shim sends: replies, and without being asked how long its log is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Tell {
    /// The answer to the call of that number.
    Reply {
        /// The call's number.
        id: u64,
        /// The answer.
        value: serde_json::Value,
    },
    /// The call of that number was refused.
    Refused {
        /// The call's number.
        id: u64,
        /// Why.
        refusal: Refusal,
    },
    /// The log now has so many bytes.
    Log {
        /// Bytes.
        bytes: u64,
    },
}

/// Why a shim refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The request makes no sense; its sender has a fault.
    #[error("{0}")]
    Invalid(String),
    /// There is no such unit here.
    #[error("no unit {0} was sent to this envelope")]
    NoSuchUnit(UnitKey),
    /// The queue or the life's allowance is full; some units may go elsewhere or come later.
    #[error("the envelope takes no more units now: {0} are its limit")]
    Full(u64),
    /// The envelope is ending.
    #[error("the envelope is ending and starts nothing more")]
    Ending,
    /// The machine refused; the node's administrator looks.
    #[error("{0}")]
    System(String),
}

/// Where a unit stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitState {
    /// It waits for a slot.
    Waiting,
    /// It was recorded as starting and has not ended.
    Running,
    /// It is over.
    Ended(Outcome),
}

/// The answer about one unit of a start request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartAnswer {
    /// Taken now.
    Taken,
    /// It was here before; this is where it stands. Nothing was started.
    Known(UnitState),
    /// Not taken.
    Refused(Refusal),
}

/// How an envelope is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Process id of the shim.
    pub shim_pid: i32,
    /// Process id of the envelope's init, as the node sees it.
    pub init_pid: i32,
    /// Units that wait.
    pub waiting: u64,
    /// Units that run.
    pub running: Vec<UnitKey>,
    /// Units that are over.
    pub ended: u64,
    /// How many may run at a time.
    pub slots: u32,
    /// Whether it is frozen.
    pub frozen: bool,
    /// Whether it is ending.
    pub ending: bool,
    /// Bytes in the log.
    pub log_bytes: u64,
    /// What it has used.
    pub usage: EnvelopeUsage,
    /// Why records cannot be written (a full disk); nothing starts until they can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// From shim to init.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToInit {
    /// Take this person's units from now on. Answered by [`FromInit::Ready`].
    Adopt {
        /// The person.
        account: Box<Account>,
    },
    /// Start a unit.
    Start {
        /// Its place, below the number of slots that init has.
        slot: u32,
        /// The unit.
        unit: Box<UnitSpec>,
    },
    /// Signal a unit's processes.
    Signal {
        /// Its place.
        slot: u32,
        /// KILL instead of TERM.
        kill: bool,
    },
}

/// From init to shim.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromInit {
    /// Ready for units, or not.
    Ready {
        /// Why not.
        error: Option<String>,
    },
    /// [`ToInit::Signal`] was carried out.
    Signalled {},
    /// A unit is over.
    Ended {
        /// Its place.
        slot: u32,
        /// How.
        outcome: Outcome,
        /// What it used, if it had a process.
        usage: Option<UnitUsage>,
    },
}
