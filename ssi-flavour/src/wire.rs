//! What travels between a site's core and the nodes of its clusters, on the control stream that
//! each node opens, and what streams between the nodes of a cluster carry.

use crate::cluster::clock::ClockSeen;
use crate::cluster::members::Moves;
use crate::cluster::messages::{Stretch, ToController, ToNode, TreeId};
use crate::cluster::place::Load;
use crate::pids::NodeNumber;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use xos_api::aem::{Carried, OutputPart, OutputStream, ProcessLimits, Stage};
use xos_api::cluster::TreeLimits;
use xos_api::node::units::EnvelopeId;
use xos_api::{Done, request};
use xos_base::{ClusterId, MemberNumber, Millis, NodeId, PersonId, VoId};

/// The protocol of a stream from the relays of copies to their trees' spools at another node of the
/// cluster: the first frame is a [`RelaysOpening`], then come lines, one for each relay. The first
/// frame of a line is a [`RelayOpening`], then come the frames of [`crate::ghost::proto`].
pub const ALPN_RELAY: &[u8] = b"ssi-relay/2";
/// The protocol of a stream by which a node fetches an image folder from another node of the
/// cluster: the first frame is an [`ImageOpening`].
pub const ALPN_IMAGE: &[u8] = b"ssi-image/2";
/// The protocol of a stream by which a node fetches a part of a tree's output from another node of
/// the cluster: the first frame is a [`WrittenOpening`], then comes what
/// [`crate::ghost::spool::Spools::send`] writes.
pub const ALPN_WRITTEN: &[u8] = b"ssi-written/1";
/// The protocol of a stream by which a node sends packets of trees with a network of their own to
/// another node of the cluster: the first frame is a [`PacketsOpening`], then each packet comes
/// after two bytes with its length ([`crate::overlay`]).
pub const ALPN_PACKETS: &[u8] = b"ssi-packets/1";
/// The protocol of a stream by which a node, of whichever site, fetches the image of a tree that
/// left a cluster: the first frame is a [`CarriedOpening`], then it goes on as one of
/// [`ALPN_IMAGE`].
pub const ALPN_CARRIED: &[u8] = b"ssi-carried/1";
/// Most trees with a network of their own that nodes are told of; the others reach none.
pub const PLACES_MAX: usize = 4096;
/// Most processes that a node tells of at once: those that use most of the processors come first.
pub const PROCESSES_MAX: usize = 1024;
/// Most processors of a node that are told of.
pub const CPUS_MAX: usize = 1024;
/// Longest list of what processors can that counts, in bytes.
pub const CPU_BYTES_MAX: usize = 8192;
/// Longest command of a process that is told of, in bytes.
pub const COMMAND_MAX: usize = 256;

/// A node says what its agent has to say, and how the node is: at each heartbeat, and whenever
/// there are facts. Only for nodes of the site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterSay {
    /// In this order.
    pub messages: Vec<ToController>,
    /// With heartbeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looks: Option<NodeLooks>,
    /// What the copies of units used, at most [`USES_MAX`]: with heartbeats all that are there, and
    /// with the facts that one was saved for a move or ended what that one did until then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used: Vec<TreeUse>,
    /// How the node's clock stands, by the exchange before this one; absent: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockSeen>,
}
request!(ClusterSay => ClusterHeard, Post "/v1/node/cluster/say");

/// Most copies in one [`ClusterSay::used`]: as many as a cell has trees.
pub const USES_MAX: usize = 4096;

/// What a copy of a tree used since it was made, by its control group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TreeUse {
    /// The tree.
    pub tree: TreeId,
    /// The copy.
    pub epoch: u64,
    /// Processor time of all its processes, milliseconds.
    pub cpu_ms: u64,
    /// The most memory at a time, of files that it read too, bytes.
    pub memory_bytes: u64,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterHeard {
    /// The node's place in its cluster; absent: it is in none, and nothing was heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seat: Option<Seat>,
    /// For the node's agent, in this order.
    pub messages: Vec<ToNode>,
    /// What the trees are that the messages start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<(TreeId, Program)>,
    /// The core's time when it answered ([`ClockSeen`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<Millis>,
}

/// A node of a cluster asks whether somebody may have a stream to it. Only for nodes of the site;
/// denied, or for ghosts not found, when not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterMay {
    /// The cluster.
    pub cluster: ClusterId,
    /// The tree that the stream is about.
    pub tree: TreeId,
    /// Who comes.
    pub comer: Comer,
}
request!(ClusterMay => Done, Post "/v1/node/cluster/may");

/// Who wants a stream to a node, as they proved, and for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Comer {
    /// A node that fetches an image.
    Image {
        /// The node.
        node: NodeId,
        /// The image's number.
        version: u64,
    },
    /// A node that fetches output, to keep it with a checkpoint or to go on with it.
    Written {
        /// The node.
        node: NodeId,
    },
    /// A node, of whichever site, that fetches the image of a tree that left, to have it go on.
    Carried {
        /// The node.
        node: NodeId,
        /// The image's number.
        version: u64,
        /// The key that it shows ([`Carried::key`]).
        key: String,
        /// The VO of the person for whom it goes on.
        vo: VoId,
        /// That person's number in it.
        member: MemberNumber,
    },
    /// A node whose copy's output goes to the spool here.
    Output {
        /// The node.
        node: NodeId,
        /// The copy.
        epoch: u64,
    },
    /// A member who follows the tree.
    Ghost {
        /// Their VO.
        vo: VoId,
        /// Their number in it.
        member: MemberNumber,
    },
}

/// A node's place in its cluster. Another cluster or number than before: nothing of what the node
/// kept of clusters counts any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Seat {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node's number in it.
    pub number: NodeNumber,
    /// All nodes of the cluster, this one too: those let one another have streams.
    pub nodes: BTreeMap<NodeNumber, NodeId>,
    /// From one heartbeat to the next, milliseconds.
    pub heartbeat_ms: u64,
    /// Of silence until a node is suspect, milliseconds.
    pub suspect_ms: u64,
    /// Of silence until a node's term is ended, milliseconds.
    pub dead_ms: u64,
    /// Where the trees are that have a network of their own, at most [`PLACES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
}

/// Where a tree is that has a network of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The tree.
    pub tree: TreeId,
    /// The node.
    pub node: NodeNumber,
    /// Its person's account: trees of one reach one another.
    pub uid: u32,
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeLooks {
    /// How many processes want to run.
    pub load: Load,
    /// Processors.
    pub cpus: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Of these, how many programs can have at once.
    pub memory_free_bytes: u64,
    /// What the canary showed; absent: it has not been tried in this term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves: Option<Moves>,
    /// What the processors can, as a number: trees move between nodes that say the same.
    pub cpu_group: u64,
    /// The same in words, one for each that the processors have; for people, who are told which of
    /// them others lack. At most [`CPU_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cpu_words: String,
    /// How long saving or restoring one program may take there, seconds; 0: it does not say.
    #[serde(default)]
    pub limit_s: u64,
    /// What each processor did since the node booted, at most [`CPUS_MAX`]; empty: unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu_times: Vec<CpuTimes>,
    /// The processes in the cell, at most [`PROCESSES_MAX`].
    pub processes: Vec<ProcessLook>,
}

/// What a processor did since its node booted, in hundredths of a second, as proc_stat(5) has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CpuTimes {
    /// Programs.
    pub user: u64,
    /// Programs that yield to others.
    pub nice: u64,
    /// The kernel, for programs.
    pub system: u64,
    /// Nothing.
    pub idle: u64,
    /// Nothing, while something waited for a disk.
    pub iowait: u64,
    /// Interrupts.
    pub irq: u64,
    /// What interrupts left to do.
    pub softirq: u64,
    /// It was another virtual machine's.
    pub steal: u64,
}

/// A process in a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessLook {
    /// Its pid in the cluster.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// The tree that it belongs to.
    pub tree: TreeId,
    /// Its account.
    pub uid: u32,
    /// Program and arguments, cut to [`COMMAND_MAX`].
    pub command: String,
    /// The state's letter, as in proc_pid_stat(5): `R`, `S`, `D`, `T`, `Z`.
    pub state: char,
    /// How much of one processor it had lately, in thousandths.
    pub cpu_milli: u32,
    /// Memory that it holds (resident), bytes.
    pub memory_bytes: u64,
    /// What ps(1) and top(1) show besides.
    #[serde(default)]
    pub more: ProcessMore,
}

/// What ps(1) and top(1) show of a process besides; all zero: unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessMore {
    /// When it began.
    pub started: Millis,
    /// Its threads.
    pub threads: u32,
    /// Processor time of the program, milliseconds.
    pub user_ms: u64,
    /// Processor time of the kernel for it, milliseconds.
    pub system_ms: u64,
    /// How readily it yields to others, -20 to 19.
    pub nice: i32,
    /// Its address space, bytes.
    pub virtual_bytes: u64,
}

/// The core says at once what the controller decided. It may come late or twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterTell {
    /// The cluster: a node that is in another one takes no notice.
    pub cluster: ClusterId,
    /// For the node's agent, in this order.
    pub messages: Vec<ToNode>,
    /// What the trees are that the messages start or restore.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<(TreeId, Program)>,
}
request!(ClusterTell => Done, Post "/v1/node/cluster/tell");

/// What a tree is, as the node needs to know that starts or restores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The program, and its arguments.
    pub argv: Vec<String>,
    /// Its environment, beside what the node sets for an account.
    pub env: BTreeMap<String, String>,
    /// The folder that it begins in: absolute, or relative to the account's home
    /// ([`Program::folder`]).
    pub cwd: String,
    /// The mask of modes of new files.
    pub umask: u32,
    /// The VO that it runs in.
    pub vo: VoId,
    /// Whose it is.
    pub person: PersonId,
    /// The person's number in the VO.
    pub member: MemberNumber,
    /// The person's account at this site: the VO's base there plus the number. Nodes make sure of
    /// it.
    pub uid: u32,
    /// Whether it runs on a terminal.
    pub terminal: bool,
    /// Whether it is a cluster shell: its `/proc` is that of the whole cluster
    /// ([`crate::procfs`]).
    #[serde(default)]
    pub shell: bool,
    /// Whether its standard input may be written by who follows it; else that is empty.
    #[serde(default)]
    pub attached: bool,
    /// Whether it has a network of its own ([`crate::overlay`]).
    #[serde(default)]
    pub own_net: bool,
    /// What all of it may use at most.
    #[serde(default, skip_serializing_if = "TreeLimits::is_none")]
    pub limits: TreeLimits,
    /// What each of its processes may, but for their number.
    #[serde(default, skip_serializing_if = "ProcessLimits::is_none")]
    pub each: ProcessLimits,
    /// Files that are copied into its folder, which is made when it is not there, and out of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<Staged>,
    /// The pid of its root, one of [`NodeNumber::given_pids`] of `birth`, unless it came from
    /// another cluster. Absent: whichever is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Where its ghost is.
    pub birth: NodeId,
    /// The unit of a job that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<TreeUnit>,
    /// The person's mandate for what they run in the cluster. The core keeps it: it is not told to
    /// nodes, which ask for tickets ([`ClusterRight`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mandate: Option<String>,
    /// What its first copy here is made from, when it came from a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Box<Carried>>,
}

impl Program {
    /// The folder that it begins in, for an account with this home.
    pub fn folder(&self, home: &Path) -> PathBuf {
        home.join(&self.cwd)
    }
}

/// Files that are copied between the VO's volume and the folder in which a program begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Staged {
    /// Into the folder, before it begins.
    pub stage_in: Vec<Stage>,
    /// Out of it, once it has ended.
    pub stage_out: Vec<Stage>,
}

/// One attempt of a unit, in its envelope.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct TreeUnit {
    /// The envelope.
    pub envelope: EnvelopeId,
    /// The unit's number in the job.
    pub unit: u32,
    /// The attempt, from 0.
    pub attempt: u16,
}

/// The core reads what a tree wrote, as far as it is in a spool of this node
/// ([`crate::ghost::spool::Spools::read`]). At the end of the file as it is now the answer's `eof`
/// is set: whether more comes the core knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterOutput {
    /// The cluster.
    pub cluster: ClusterId,
    /// The tree.
    pub tree: TreeId,
    /// Which of its streams.
    pub stream: OutputStream,
    /// From which byte of all that it wrote to it.
    pub from: u64,
    /// Most bytes, at most [`xos_api::aem::OUTPUT_PART_MAX`].
    pub limit: u32,
}
request!(ClusterOutput => OutputPart, Post "/v1/node/cluster/output");

/// A node asks how the nodes of its cluster are, for the shells of a person who has programs there.
/// Only for nodes of the site; denied when the person has none at that node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterLooks {
    /// The cluster.
    pub cluster: ClusterId,
    /// The person's account.
    pub uid: u32,
}
request!(ClusterLooks => ClusterSeen, Post "/v1/node/cluster/looks");

/// The other nodes of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterSeen {
    /// By number.
    pub nodes: Vec<SeenNode>,
}

/// Another node, as one person may see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeenNode {
    /// Its number.
    pub number: NodeNumber,
    /// Its name.
    pub node: NodeId,
    /// How long ago it said so, milliseconds.
    pub age_ms: u64,
    /// What it said, with the person's processes alone.
    pub looks: NodeLooks,
}

/// A process of a tree at the node that asks is to become a program that runs where there is room.
/// It keeps its pid, and stands for the program when that runs elsewhere. Only for nodes of the
/// site. Refused: it runs where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceInCluster {
    /// The cluster.
    pub cluster: ClusterId,
    /// The tree of which the process is.
    pub tree: TreeId,
    /// The process's account: that of the tree.
    pub uid: u32,
    /// Its pid, one of this node's.
    pub pid: i32,
    /// The program, and its arguments.
    pub argv: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// The folder that it begins in, from the root.
    pub cwd: String,
    /// The mask of modes of new files.
    pub umask: u32,
    /// Whether it runs on a terminal.
    pub terminal: bool,
}
request!(PlaceInCluster => Placed, Post "/v1/node/cluster/place");

/// Where a program runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Placed {
    /// At the node that asked, as part of the tree that it came from.
    Here {},
    /// On another node, as a tree of its own whose output is collected at the node that asked.
    Elsewhere {
        /// The tree.
        tree: TreeId,
        /// Its first copy.
        epoch: u64,
        /// Where.
        node: NodeId,
    },
}

/// The process that stood for a program elsewhere is gone before the program ended: the program is
/// killed, as if it had been that process. Only for nodes of the site, about what was born there.
/// Refused as Conflict while it is being started or moves; without such a program nothing is to be
/// done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterGhostGone {
    /// The cluster.
    pub cluster: ClusterId,
    /// The process's pid, and the program's.
    pub pid: i32,
}
request!(ClusterGhostGone => Done, Post "/v1/node/cluster/ghost-gone");

/// A node asks for a person's right to their VO's volume, for its key. Only for nodes of the site;
/// denied when none of the person's programs is to be at that node, not found when they brought no
/// mandate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterRight {
    /// The cluster.
    pub cluster: ClusterId,
    /// The person's account.
    pub uid: u32,
}
request!(ClusterRight => PersonRight, Post "/v1/node/cluster/right");

/// How a node gets a person's right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PersonRight {
    /// It is this.
    Ticket {
        /// The ticket, for the node.
        ticket: String,
    },
    /// It asks with this envelope ([`xos_api::node::units::RenewTicket`]): what runs there is a
    /// unit of it.
    Unit {
        /// The envelope.
        envelope: EnvelopeId,
    },
}

/// Most trees in one [`ClusterForget`].
pub const FORGET_MAX: usize = 4096;

/// Nobody wants the output of trees any more, which are over: their spools are removed
/// ([`crate::ghost::spool::Spools::forget`]). Ones that are not there are no error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterForget {
    /// The cluster.
    pub cluster: ClusterId,
    /// The trees, at most [`FORGET_MAX`].
    pub trees: Vec<TreeId>,
}
request!(ClusterForget => Done, Post "/v1/node/cluster/forget");

/// The core sends a signal to a process of a tree, or to its root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterSignal {
    /// The cluster.
    pub cluster: ClusterId,
    /// The tree.
    pub tree: TreeId,
    /// Its copy that is meant.
    pub epoch: u64,
    /// The process, which must belong to the tree. Absent: all of the tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The signal's number.
    pub signal: u8,
}
request!(ClusterSignal => Done, Post "/v1/node/cluster/signal");

/// The core asks what keeps a tree from moving away from its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterWhy {
    /// The cluster.
    pub cluster: ClusterId,
    /// The tree.
    pub tree: TreeId,
    /// Its copy that is meant.
    pub epoch: u64,
}
request!(ClusterWhy => Obstacles, Post "/v1/node/cluster/why");

/// What keeps a tree from moving.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Obstacles {
    /// Nothing, when there are none.
    pub obstacles: Vec<Obstacle>,
}

/// One thing that keeps a tree from moving.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Obstacle {
    /// The process that it is about.
    pub pid: i32,
    /// What it is, a sentence.
    pub what: String,
    /// What a person can do about it.
    pub next: String,
}

/// First on a stream of [`ALPN_RELAY`], from a node where copies run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelaysOpening {
    /// The cluster.
    pub cluster: ClusterId,
}

/// First on a line of such a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayOpening {
    /// The tree.
    pub tree: TreeId,
    /// The copy.
    pub epoch: u64,
    /// Where a spool that is new begins, in output and error output, bytes.
    pub from: [u64; 2],
}

/// The first frame of a stream by which a node sends packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketsOpening {
    /// The cluster.
    pub cluster: ClusterId,
}

/// First on a stream of [`ALPN_CARRIED`], from the node where the tree goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CarriedOpening {
    /// The cluster that the tree left.
    pub cluster: ClusterId,
    /// The tree there.
    pub tree: TreeId,
    /// The image's number.
    pub version: u64,
    /// The key to it.
    pub key: String,
    /// The VO of the person for whom it goes on.
    pub vo: VoId,
    /// That person's number in it.
    pub member: MemberNumber,
}

/// First on a stream of [`ALPN_IMAGE`], from the node that restores a tree from the image, or keeps
/// a copy of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageOpening {
    /// The cluster.
    pub cluster: ClusterId,
    /// The tree.
    pub tree: TreeId,
    /// The image's number.
    pub version: u64,
}

/// The first frame on a stream by which a node fetches a part of what a tree wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenOpening {
    /// The cluster.
    pub cluster: ClusterId,
    /// The tree.
    pub tree: TreeId,
    /// Which part.
    pub ask: Stretch,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::messages::Order;

    /// If it failed, core and node would not understand one another.
    #[test]
    fn what_is_said_comes_back_the_same() {
        let heard = ClusterHeard {
            seat: Some(Seat {
                cluster: "c1.rennes".parse().unwrap(),
                number: 3u8.try_into().unwrap(),
                nodes: BTreeMap::from([(3u8.try_into().unwrap(), "n1.rennes".parse().unwrap())]),
                heartbeat_ms: 1000,
                suspect_ms: 3000,
                dead_ms: 8000,
                places: vec![Place { tree: TreeId(7), node: 3u8.try_into().unwrap(), uid: 7 }],
            }),
            messages: vec![ToNode::Told {
                term: 2,
                sent: Millis(5),
                orders: vec![Order::Start { tree: TreeId(7), epoch: 1 }],
            }],
            programs: Vec::new(),
            now: Some(Millis(7)),
        };
        let text = serde_json::to_string(&heard).unwrap();
        assert_eq!(serde_json::from_str::<ClusterHeard>(&text).unwrap(), heard);
        let used = vec![TreeUse { tree: TreeId(7), epoch: 1, cpu_ms: 5, memory_bytes: 6 }];
        let messages = vec![ToController::Join { after: 0 }];
        let clock = Some(ClockSeen { ahead_ms: -5, give_ms: 1 });
        let say = ClusterSay { messages, looks: None, used, clock };
        let text = serde_json::to_string(&say).unwrap();
        assert_eq!(serde_json::from_str::<ClusterSay>(&text).unwrap(), say);
    }
}
