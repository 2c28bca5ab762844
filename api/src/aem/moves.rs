//! Units that move from one site's cluster to another's.

use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{ClusterId, JobId, Millis, NodeId, SiteId, UnitId};

/// Most times that one unit is handed from cluster to cluster, those included that no cluster took.
pub const MOVES_MAX: u16 = 100;
/// Most moves of a job that are remembered.
pub const MOVES_KEPT: usize = 64;
/// Most nodes that are named as having the image of a unit.
pub const CARRIED_NODES_MAX: usize = 8;
/// Length of the key of an image, hexadecimal digits.
pub const CARRIED_KEY_LEN: usize = 64;

/// A unit that stopped in a cluster for good, as an image from which it goes on elsewhere: of all
/// that was, this is what lives. It is started from once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    /// The cluster that has the image.
    pub cluster: ClusterId,
    /// The program's number there.
    pub tree: u64,
    /// The number of the image.
    pub version: u64,
    /// The nodes that have it, at most [`CARRIED_NODES_MAX`].
    pub nodes: Vec<NodeId>,
    /// What a node shows to be given it: hexadecimal, of [`CARRIED_KEY_LEN`] digits.
    pub key: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// The pid of the unit's first process, which it keeps.
    pub pid: i32,
    /// What its processors can, as a number: it goes on where they can the same.
    pub cpu_group: u64,
    /// From which number on the members of its VO have their accounts at that site.
    pub base: u32,
    /// How many bytes the unit wrote to its output until then.
    pub stdout_bytes: u64,
    /// How many to its error output.
    pub stderr_bytes: u64,
    /// The cluster that is to take it; absent: any of the site that is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ClusterId>,
}

impl std::fmt::Debug for Carried {
    /// Without the key, which no log is to have.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "image {} of tree {} of {}", self.version, self.tree, self.cluster)
    }
}

impl Carried {
    /// Whether it has the form that one from a cluster of `site` has.
    pub fn is_of(&self, site: &SiteId) -> bool {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        self.cluster.site() == *site
            && self.pid > 1
            && self.key.len() == CARRIED_KEY_LEN
            && self.key.bytes().all(hex)
            && (1..=CARRIED_NODES_MAX).contains(&self.nodes.len())
            && self.nodes.iter().all(|node| node.site() == *site)
    }
}

/// Moves a unit that runs in a cluster to a cluster of another site: it is stopped and saved, and
/// goes on there, as its person, from where it was. What answers that it is begun says nothing of
/// its end: the job's moves and reasons tell that. When no cluster there takes it, it goes on where
/// it was. For who may cancel the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveUnit {
    /// The unit.
    pub unit: UnitId,
    /// The site.
    pub site: SiteId,
    /// The cluster there; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
}
request!(MoveUnit => Done, Post "/v1/units/{unit}/move");

/// A move of a unit from one cluster to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnitMove {
    /// The unit.
    pub unit: UnitId,
    /// The run that left: 0 is the first.
    pub attempt: u16,
    /// From where.
    pub from: SiteId,
    /// From which cluster there.
    pub cluster: ClusterId,
    /// When it stopped there.
    pub left: Millis,
    /// The number of the image from which it went on.
    pub checkpoint: u64,
    /// Where it runs since; absent: no cluster has taken it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<NodeId>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<Millis>,
    /// Why it moved.
    pub why: String,
}

/// The owner of a job asks a host to let a unit that runs there in a cluster go: to stop it for
/// good and keep its image ([`super::HostedRun::Left`] tells of that). Asked again it says how that
/// stands. Only a core may ask, and only for jobs of its own site. Refused as Conflict: it goes on
/// as before, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostLeave {
    /// The job.
    pub job: JobId,
    /// The unit's number in it.
    pub unit: u32,
    /// The run that is meant.
    pub attempt: u16,
    /// When somebody asked for the move, by the owner's clock: it stands for the wish. The same
    /// again is no other one, so that one to which was said that the unit stays comes to nothing
    /// for good. Of no meaning with `over`.
    #[serde(default)]
    pub at: Millis,
    /// The unit left and runs elsewhere: its image is not needed any more.
    #[serde(default)]
    pub over: bool,
}
request!(HostLeave => Done, Post "/v1/hosted/{job}/leave");
