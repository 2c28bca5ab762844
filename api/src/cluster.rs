//! Clusters: nodes of a site that work as one machine. A program and what it started, a *tree*,
//! runs on one node at a time and moves as a whole.

use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use xos_base::{ClusterId, NodeId, PersonId, VoId};

/// Most nodes in one [`AddClusterNodes`].
pub const NODES_AT_ONCE: usize = 127;
/// Shortest time from one checkpoint to the next that can be asked for, seconds.
pub const CHECKPOINT_S_MIN: u32 = 10;
/// The longest.
pub const CHECKPOINT_S_MAX: u32 = 86_400;
/// The least that a program can be limited to: processors in thousandths of one, memory in bytes.
pub const CPU_MILLI_MIN: u32 = 10;
/// See [`CPU_MILLI_MIN`].
pub const MEMORY_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// The reason of a program that ended because it had all the memory that it may
/// ([`ClusterTree::reason`]).
pub const OUT_OF_MEMORY: &str = "it used more memory than it may";
/// Most processes and threads that a program, or a unit, can ask for.
pub const PROCESSES_MAX: u64 = 8192;
/// Most bytes of program, arguments and environment of a [`RunInCluster`] together.
pub const PROGRAM_BYTES_MAX: usize = 128 * 1024;

/// Makes a cluster without nodes. For administrators of the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCluster {
    /// Its name, at the site asked.
    pub cluster: ClusterId,
}
request!(CreateCluster => ClusterView, Post "/v1/clusters");

/// The clusters of the site. For its administrators, and members of VOs that it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListClusters {}
request!(ListClusters => Vec<ClusterView>, Get "/v1/clusters");

/// A cluster and its nodes. For administrators of the site, and members of VOs that it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetCluster {
    /// The cluster.
    pub cluster: ClusterId,
}
request!(GetCluster => ClusterView, Get "/v1/clusters/{cluster}");

/// Takes nodes of the site up: those whose `xosd.toml` lets them join by themselves, which needs a
/// section `[node.cluster]`. All or none. For administrators of the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddClusterNodes {
    /// The cluster.
    pub cluster: ClusterId,
    /// The nodes, each in no cluster yet; at most [`NODES_AT_ONCE`].
    pub nodes: Vec<NodeId>,
}
request!(AddClusterNodes => ClusterView, Post "/v1/clusters/{cluster}/nodes");

/// A node leaves its cluster. Refused as Conflict while trees are there: drain it first. For
/// administrators of the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveClusterNode {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}
request!(RemoveClusterNode => Done, Delete "/v1/clusters/{cluster}/nodes/{node}");

/// A node takes no new trees, and those that it has move to others. Nothing is ended. For
/// administrators of the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainClusterNode {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Only say what would become of each tree.
    #[serde(default)]
    pub plan: bool,
    /// The other way: a node that is drained takes trees again.
    #[serde(default)]
    pub undo: bool,
}
request!(DrainClusterNode => DrainPlan, Post "/v1/clusters/{cluster}/nodes/{node}/drain");

/// What becomes of the trees of a node that is drained.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainPlan {
    /// Those that it has.
    pub trees: Vec<DrainedTree>,
}

/// What becomes of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainedTree {
    /// The tree.
    pub tree: u64,
    /// The pid of its first process.
    pub pid: i32,
    /// Where it would go, as loads are now; absent: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<NodeId>,
    /// Why it stays.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterView {
    /// Its name.
    pub cluster: ClusterId,
    /// Its nodes, by number.
    pub nodes: Vec<ClusterNode>,
    /// Trees that have not ended.
    pub trees: u64,
    /// Programs that wait until a node has room.
    #[serde(default)]
    pub waiting: u64,
}

/// How a node of a cluster stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClusterNodeState {
    /// It may join.
    Possible,
    /// It joined; it is being tried.
    Present,
    /// It takes trees.
    Online,
    /// It takes no new ones; those that it has are to leave.
    Draining,
    /// It was not heard for a while.
    Suspect,
    /// It was silent for too long: what it ran is restarted elsewhere or lost.
    Failed,
}

/// A node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterNode {
    /// The node.
    pub node: NodeId,
    /// Its number in the cluster: pids from `number * 32768` on were born there.
    pub number: u8,
    /// How it stands.
    pub state: ClusterNodeState,
    /// Why it is as it is, when there is something to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Whether trees come and go.
    pub moves: bool,
    /// Why they do not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub moves_not: String,
    /// Trees that are there.
    pub trees: u64,
    /// What it said last; absent: nothing since the core was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looks: Option<ClusterNodeLooks>,
}

/// What a node said of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterNodeLooks {
    /// Processes that want to run, as a mean that forgets, in thousandths.
    pub load_milli: u64,
    /// Processors.
    pub cpus: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Of these, how many programs can have at once.
    pub memory_free_bytes: u64,
    /// What its processors can, as a number: trees move between nodes that have the same.
    pub cpu_group: u64,
    /// How long ago it said so, milliseconds.
    pub age_ms: u64,
}

/// Group and others may read.
fn umask_default() -> u32 {
    0o022
}

/// What a program and all that it starts may use at most, on whichever node it is. Absent: as much
/// as the node has, and 2048 processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TreeLimits {
    /// Processors in thousandths of one, at least [`CPU_MILLI_MIN`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_milli: Option<u32>,
    /// Memory in bytes, at least [`MEMORY_BYTES_MIN`]. When it has all of it, the kernel ends one of
    /// its processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads at a time, 1 to [`PROCESSES_MAX`]; never more than its node allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
}

impl TreeLimits {
    /// Whether none is asked for.
    pub fn is_none(&self) -> bool {
        *self == TreeLimits::default()
    }
}

/// Runs a program in a cluster, as the caller in the VO that they act in. It goes on when the
/// caller goes. Members of VOs that the site serves, as the VO's and the site's rules for `run`
/// allow.
///
/// When all nodes that would do are full it waits until one has room: each member's programs in the
/// order in which they came, the members in turn. Refused as Limited when too many wait already, or
/// it is not to wait; as Unsatisfiable when no node would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunInCluster {
    /// The cluster.
    pub cluster: ClusterId,
    /// The VO, in which the caller must act.
    pub vo: VoId,
    /// The program, and its arguments. With `shell` it may be empty: a login shell then.
    pub argv: Vec<String>,
    /// Its environment, beside what nodes set for an account.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The folder that it begins in, which must be there on the node: an absolute path. With
    /// `shell` it may be empty: the person's home then.
    pub cwd: String,
    /// Whether it sees the whole cluster in `/proc`, and may have programs placed on other nodes.
    /// Such a one never moves, so that it is not restartable.
    #[serde(default)]
    pub shell: bool,
    /// The node; absent: the least loaded one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Whether it goes on from its last checkpoint when its node fails. Then it is checkpointed by
    /// itself now and then.
    #[serde(default)]
    pub restartable: bool,
    /// How often, [`CHECKPOINT_S_MIN`] to [`CHECKPOINT_S_MAX`] seconds; only with `restartable`.
    /// Absent: by what a checkpoint of it costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_s: Option<u32>,
    /// Whether it waits when all nodes are full, rather than be refused. One for which a node is
    /// named does not wait.
    #[serde(default = "yes")]
    pub queue: bool,
    /// Whether its standard input waits for who attaches at `output_at`; else it is empty.
    #[serde(default)]
    pub attached: bool,
    /// Whether it runs on a terminal, which waits for who attaches.
    #[serde(default)]
    pub terminal: bool,
    /// Whether it has a network of its own instead of its node's: a loopback, and the address 10 and
    /// the last three bytes of the tree's number, by which the caller's programs in the VO that have
    /// one too reach it, and nobody else. Its connections (TCP) move along.
    #[serde(default)]
    pub own_net: bool,
    /// What it may use at most.
    #[serde(default, skip_serializing_if = "TreeLimits::is_none")]
    pub limits: TreeLimits,
    /// The mask of modes of new files, at most 511 (octal 777).
    #[serde(default = "umask_default")]
    pub umask: u32,
    /// The caller's mandate for the cluster ([`crate::cda::IssueClusterMandate`]): with it nodes get
    /// the right to the VO's volume for the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mandate: Option<String>,
}
request!(RunInCluster => ClusterRun, Post "/v1/clusters/{cluster}/trees");

fn yes() -> bool {
    true
}

/// A program that was placed, or waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterRun {
    /// Its tree.
    pub tree: u64,
    /// The pid of its first process, the same wherever it moves; absent: it waits until a node has
    /// room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Where it begins; absent: it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Where its output is collected, and who follows it attaches; absent: it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_at: Option<NodeId>,
}

/// The trees of a cluster, and those that ended lately: the caller's in the VO that they act in;
/// for administrators of the site all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListTrees {
    /// The cluster.
    pub cluster: ClusterId,
}
request!(ListTrees => Vec<ClusterTree>, Get "/v1/clusters/{cluster}/trees");

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetTree {
    /// The cluster.
    pub cluster: ClusterId,
    /// The tree.
    pub tree: u64,
}
request!(GetTree => ClusterTree, Get "/v1/clusters/{cluster}/tree");

/// How a tree stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClusterTreeState {
    /// It waits until a node has room.
    Queued,
    /// Its node was told to start it.
    Starting,
    /// It runs.
    Running,
    /// It moves.
    Moving,
    /// Its node failed; it waits, as a checkpoint, for another.
    Checkpointed,
    /// It is being restarted from its checkpoint.
    Restarting,
    /// It cannot go on.
    Lost,
    /// It ended.
    Ended,
}

/// A tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterTree {
    /// Its number.
    pub tree: u64,
    /// The pid of its first process; absent: it was not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Whose it is.
    pub person: PersonId,
    /// The VO that it runs in.
    pub vo: VoId,
    /// The program, and its arguments.
    pub argv: Vec<String>,
    /// How it stands.
    pub state: ClusterTreeState,
    /// More about that: why it waits or is lost, how it ended.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Where it is, or was last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Where its output is collected, and who follows it attaches: where it was born, or, when that
    /// node was lost, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_at: Option<NodeId>,
    /// Where it moves to, or is restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<NodeId>,
    /// Its exit status, once it ended: that of a shell when it was a signal, 128 plus its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// Its last complete checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<ClusterCheckpoint>,
    /// A checkpoint is being made.
    pub saving: bool,
    /// Why the last move or checkpoint that was tried came to nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
    /// Files that were cut back when it was restarted, as it writes again what it wrote since its
    /// checkpoint; the last 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<ClusterCut>,
}

/// A file that was cut back to the size that it had when its tree was checkpointed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterCut {
    /// Its path.
    pub path: String,
    /// The file beside it that holds what was behind its end.
    pub kept: String,
    /// So much of it, bytes.
    pub bytes: u64,
}

/// A complete checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterCheckpoint {
    /// Its number in the tree.
    pub version: u64,
    /// Its size.
    pub bytes: u64,
    /// For how long the tree stood still, milliseconds.
    pub freeze_ms: u64,
    /// How many nodes that are in the cluster now have it. With 1 the tree is lost when that node
    /// does not come back; until there are as many as the site wants, one before it is kept too.
    #[serde(default)]
    pub copies: u32,
}

/// The processes of a cluster, as its nodes told lately: the caller's in the VO that they act in;
/// for administrators of the site all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListProcesses {
    /// The cluster.
    pub cluster: ClusterId,
}
request!(ListProcesses => Vec<ClusterProcess>, Get "/v1/clusters/{cluster}/processes");

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterProcess {
    /// Its pid in the cluster.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// The tree that it belongs to.
    pub tree: u64,
    /// Where it is.
    pub node: NodeId,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
    /// Program and arguments, cut.
    pub command: String,
    /// The state's letter, as in proc_pid_stat(5).
    pub state: char,
    /// How much of one processor it had lately, in thousandths.
    pub cpu_milli: u32,
    /// Memory that it holds (resident), bytes.
    pub memory_bytes: u64,
}

/// Begins to move a tree to another node: [`ListTrees`] says how it goes on. Its owner and
/// administrators of the site.
///
/// Refused as Conflict with what is in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrateTree {
    /// The cluster.
    pub cluster: ClusterId,
    /// Any process of the tree.
    pub pid: i32,
    /// Where to.
    pub node: NodeId,
}
request!(MigrateTree => ClusterTree, Post "/v1/clusters/{cluster}/migrate");

/// Begins a checkpoint of a tree, which goes on: [`ListTrees`] says when it is complete. Its owner
/// and administrators of the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointTree {
    /// The cluster.
    pub cluster: ClusterId,
    /// Any process of the tree.
    pub pid: i32,
}
request!(CheckpointTree => ClusterTree, Post "/v1/clusters/{cluster}/checkpoint");

/// Begins to restart a tree that waits as a checkpoint. Its owner and administrators of the site.
///
/// Files that it had open and that only grew since are cut back first; of any other change of them
/// it goes on waiting, and its `reason` names them, unless `as_is` says that they are right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestartTree {
    /// The cluster.
    pub cluster: ClusterId,
    /// The tree.
    pub tree: u64,
    /// Where; absent: on the least loaded node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Whether it goes on with its files as they are: none is cut back, and none keeps it.
    #[serde(default)]
    pub as_is: bool,
}
request!(RestartTree => ClusterTree, Post "/v1/clusters/{cluster}/restart");

/// Sends a signal to a process of a tree, wherever it is. Its owner and administrators of the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KillTree {
    /// The cluster.
    pub cluster: ClusterId,
    /// The process.
    pub pid: i32,
    /// The signal's number, 1 to 64.
    pub signal: u8,
}
request!(KillTree => Done, Post "/v1/clusters/{cluster}/kill");

/// Ends a tree, whatever it does: one that waits, or rests as a checkpoint, at once; one that runs
/// by SIGKILL to all its processes. Its owner and administrators of the site.
///
/// Refused as Conflict while it is being started or moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelTree {
    /// The cluster.
    pub cluster: ClusterId,
    /// The tree.
    pub tree: u64,
}
request!(CancelTree => Done, Post "/v1/clusters/{cluster}/cancel");

/// What keeps a tree from moving, asked before anything is tried. Its owner and administrators of
/// the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhyTree {
    /// The cluster.
    pub cluster: ClusterId,
    /// Any process of the tree.
    pub pid: i32,
}
request!(WhyTree => TreeWhy, Get "/v1/clusters/{cluster}/why");

/// What keeps a tree from moving.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TreeWhy {
    /// The tree.
    pub tree: u64,
    /// What is in the way, in the tree itself; empty: nothing that was seen.
    pub obstacles: Vec<TreeObstacle>,
    /// Each other node of the cluster to which it cannot move now.
    pub nodes: Vec<NodeObstacle>,
}

/// What in a tree keeps it from moving.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TreeObstacle {
    /// The process.
    pub pid: i32,
    /// What it is.
    pub what: String,
    /// What can be done about it.
    pub next: String,
}

/// Why a tree cannot move to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeObstacle {
    /// The node.
    pub node: NodeId,
    /// What is in the way.
    pub reason: String,
}
