//! What is kept of envelopes and units.

use crate::cluster::messages::TreeId;
use crate::cluster::trees::Owner;
use crate::pids::NodeNumber;
use serde::{Deserialize, Serialize};
use xos_api::aem::{Carried, UnitEnd, Usage};
use xos_api::node::units::Room;
use xos_base::{Millis, PersonId, SiteId};

/// An envelope as it is kept, without tasks and units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Whose.
    pub owner: Owner,
    /// The person.
    pub person: PersonId,
    /// The site: `XOS_SITE`.
    pub site: SiteId,
    /// How many units run at a time.
    pub room: Room,
    /// It is being ended, and takes nothing more.
    pub ending: bool,
}

/// Why a unit is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// Somebody asked for it.
    Asked,
    /// It ran for as long as it may.
    WallTime,
}

/// A unit that is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Why.
    pub why: Why,
    /// From when on by SIGKILL.
    pub kill_at: Millis,
}

/// How a unit ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Over {
    /// The number of the event.
    pub seq: u64,
    /// When.
    pub at: Millis,
    /// How.
    pub how: UnitEnd,
    /// What it used, as far as its nodes said so.
    pub usage: Usage,
}

/// That a unit left for another cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Left {
    /// The number of the event.
    pub seq: u64,
    /// When.
    pub at: Millis,
    /// What it used here.
    pub usage: Usage,
    /// What it goes on from.
    pub carried: Box<Carried>,
    /// Why, when nobody asked for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// An attempt of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Its place among those of its envelope, in the order received.
    pub place: u64,
    /// The name of its task.
    pub task: String,
    /// Its index in the task's array.
    pub index: u32,
    /// Its tree, once it has one.
    pub tree: Option<TreeId>,
    /// The node that has what it writes.
    pub spool: Option<NodeNumber>,
    /// Whether it is to end.
    pub stop: Option<Stop>,
    /// The number of the event of its start, and when that was.
    pub started: Option<(u64, Millis)>,
    /// How it ended.
    pub over: Option<Over>,
    /// What it goes on from, when it came from a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Box<Carried>>,
    /// That it left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
}

impl Unit {
    /// Whether nothing of it runs here, or will.
    pub fn is_over(&self) -> bool {
        self.over.is_some() || self.left.is_some()
    }
}
