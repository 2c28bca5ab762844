//! What `xosd` and a node's agent say to one another: frames as between agent and cell
//! ([`crate::cell::frame`]). Both are root on one machine.

use crate::cell::proto::{Account, Tree};
use crate::cgroup::Cgroup;
use crate::cluster::members::Times;
use crate::cluster::messages::{Stretch, ToController, ToNode, TreeId};
use crate::host::{Brought, Job};
use crate::pids::NodeNumber;
use crate::wire::{NodeLooks, Place, TreeUse};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use xos_base::NodeId;

/// What an agent works with; `xosd` writes it before it starts one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The node's number in the cluster.
    pub node: NodeNumber,
    /// From one heartbeat to the next, milliseconds.
    pub heartbeat_ms: u64,
    /// Of silence until a node is suspect, milliseconds.
    pub suspect_ms: u64,
    /// Of silence until a node's term is ended, milliseconds.
    pub dead_ms: u64,
    /// Where CRIU may be; then what `PATH` leads to.
    pub criu: Vec<PathBuf>,
    /// `PATH`.
    pub path: String,
    /// Folders that have the same content on every node.
    pub shared: Vec<PathBuf>,
    /// How long one run of CRIU may take, seconds.
    pub limit_s: u64,
    /// Whether images go straight to other nodes where these are reached.
    pub direct: bool,
    /// Processors that trees may use.
    pub cpus: u32,
    /// Memory that trees may use, bytes.
    pub memory_bytes: u64,
    /// As whom the canary runs: nobody's account.
    pub canary: Account,
    /// The control group below which the agent has one, with all that it runs as root and the
    /// cell's init, and each copy of a tree; no process is in it itself.
    pub cgroup: Cgroup,
    /// The socket by which members' programs have others placed; it lies in a folder that they
    /// reach.
    pub place: PathBuf,
}

/// What the agent asks of the core, through `xosd`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Want {
    /// How the other nodes are, for the shells of a person; answer: [`crate::wire::ClusterSeen`].
    Looks {
        /// The person's account.
        uid: u32,
    },
    /// Where a program is to run; answer: [`Where`].
    Place(Box<Placing>),
    /// The process that stood for a program elsewhere is gone; answer: `null`.
    GhostGone {
        /// Its pid, and the program's.
        pid: i32,
    },
}

/// A program that is to be placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placing {
    /// The tree of the process that asks.
    pub tree: TreeId,
    /// The process's account.
    pub uid: u32,
    /// Its pid in the cell.
    pub pid: i32,
    /// The program, and its arguments.
    pub argv: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// The folder that it begins in.
    pub cwd: String,
    /// The mask of modes of new files.
    pub umask: u32,
    /// Whether it runs on a terminal.
    pub terminal: bool,
}

/// Where a program runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Where {
    /// At this node: nothing was begun.
    Here {},
    /// On another one.
    Elsewhere {
        /// Its tree.
        tree: Tree,
    },
    /// That is not known: it may have been begun elsewhere.
    Unsure {
        /// Why.
        why: String,
    },
}

impl Plan {
    /// The cluster's times.
    ///
    /// # Errors
    /// That they do not fit together.
    pub(super) fn times(&self) -> io::Result<Times> {
        let ms = Duration::from_millis;
        let times = Times::new(ms(self.heartbeat_ms), ms(self.suspect_ms), ms(self.dead_ms));
        times.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))
    }

    /// Whether an agent that works by this plan, in whichever form its version has it, can be gone
    /// on with: the node is the same one, and the times, by which two copies of a tree never live
    /// at once. What else changed counts when it is begun anew.
    pub(super) fn agrees(&self, theirs: &serde_json::Value) -> bool {
        let Ok(own) = serde_json::to_value(self) else { return false };
        let fields = ["node", "heartbeat_ms", "suspect_ms", "dead_ms"];
        fields.iter().all(|field| own.get(field) == theirs.get(field))
    }
}

/// From `xosd` to the agent. Those with an `id` are answered by [`Tell::Reply`] or [`Tell::Failed`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Ask {
    /// What the controller said.
    Heard {
        /// The answer to this [`Tell::Say`]; without it the controller said it by itself.
        answers: Option<u64>,
        /// In this order.
        messages: Vec<ToNode>,
        /// What the trees are that they start.
        jobs: Vec<(TreeId, Job)>,
        /// Trees whose persons may start nothing here, and why.
        refused: Vec<(TreeId, String)>,
    },
    /// The controller was not reached.
    Unheard {
        /// The [`Tell::Say`].
        answers: u64,
    },
    /// What the agent wanted.
    Had {
        /// The [`Tell::Want`].
        answers: u64,
        /// The value.
        value: serde_json::Value,
    },
    /// It is not had.
    HadNot {
        /// The [`Tell::Want`].
        answers: u64,
        /// Why.
        why: String,
    },
    /// Send a signal; reply: `null`.
    Signal {
        /// The call.
        id: u64,
        /// The copy.
        tree: Tree,
        /// Which process; absent: all.
        pid: Option<i32>,
        /// The signal's number.
        signal: i32,
    },
    /// What keeps a copy from moving; reply: obstacles.
    Why {
        /// The call.
        id: u64,
        /// The copy.
        tree: Tree,
    },
    /// Write an image to the socket that comes along.
    Image {
        /// The tree.
        tree: TreeId,
        /// The image.
        version: u64,
    },
    /// Write a part of a tree's output to the socket that comes along.
    Written {
        /// The tree.
        tree: TreeId,
        /// Which part.
        ask: Stretch,
    },
    /// Write the image of a tree that left to the socket that comes along, which leads to a node of
    /// another cluster.
    Carried {
        /// The tree.
        tree: TreeId,
        /// The image.
        version: u64,
    },
    /// The socket that comes along leads to the relay of a copy of a tree that has its spool here.
    Output {
        /// The copy.
        tree: Tree,
        /// Where a new spool begins.
        from: [u64; 2],
    },
    /// The socket that comes along leads to the ghost of who follows a tree whose spool is here.
    Attach {
        /// The tree.
        tree: TreeId,
        /// Who follows it, and whose it is.
        uid: u32,
    },
    /// The socket that comes along has packets of a node's trees.
    Packets {
        /// The node.
        from: NodeNumber,
    },
    /// Where the trees are that have a network of their own.
    Places {
        /// All of them.
        places: Vec<Place>,
    },
    /// Say that the agent lives; reply: `null`.
    Ping {
        /// The call.
        id: u64,
    },
    /// End all that runs, and the agent.
    End,
}

impl Ask {
    /// How many descriptors come along.
    pub(super) fn fds(&self) -> usize {
        match self {
            Ask::Image { .. }
            | Ask::Written { .. }
            | Ask::Carried { .. }
            | Ask::Output { .. }
            | Ask::Attach { .. }
            | Ask::Packets { .. } => 1,
            _ => 0,
        }
    }
}

/// From the agent to `xosd`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Tell {
    /// First on a connection.
    Begun {
        /// The [`Plan`] that the agent works by, as its version has it.
        plan: serde_json::Value,
    },
    /// For the controller; answered by [`Ask::Heard`] or [`Ask::Unheard`].
    Say {
        /// The call.
        id: u64,
        /// What.
        message: ToController,
        /// How the node is, with heartbeats.
        looks: Option<Box<NodeLooks>>,
        /// Whose copies the node has, by account, with heartbeats.
        people: Option<BTreeSet<u32>>,
        /// What copies of units used until then.
        #[serde(default)]
        used: Vec<TreeUse>,
    },
    /// For the core; answered by [`Ask::Had`] or [`Ask::HadNot`].
    Want {
        /// The call.
        id: u64,
        /// What.
        want: Want,
    },
    /// Connect the socket that comes along to another node's image.
    Image {
        /// The node.
        from: NodeNumber,
        /// The tree.
        tree: TreeId,
        /// The image.
        version: u64,
    },
    /// Connect the socket that comes along to what another node has of a tree's output.
    Written {
        /// The node.
        from: NodeNumber,
        /// The tree.
        tree: TreeId,
        /// Which part.
        ask: Stretch,
    },
    /// Connect the socket that comes along to the image of a tree that left another cluster.
    Carried {
        /// The node there.
        from: NodeId,
        /// What of, and for whom.
        what: Box<Brought>,
    },
    /// Connect the socket that comes along, which a copy's relay has, to the tree's spool.
    Output {
        /// The node that has the spool.
        at: NodeNumber,
        /// The copy.
        tree: Tree,
        /// Where a new spool begins.
        from: [u64; 2],
    },
    /// Connect the socket that comes along to another node, for packets.
    Packets {
        /// The node.
        to: NodeNumber,
    },
    /// An answer.
    Reply {
        /// To which call.
        id: u64,
        /// The value.
        value: serde_json::Value,
    },
    /// It was not done.
    Failed {
        /// Which call.
        id: u64,
        /// Why.
        why: String,
    },
}

impl Tell {
    /// How many descriptors come along.
    pub(super) fn fds(&self) -> usize {
        match self {
            Tell::Image { .. }
            | Tell::Written { .. }
            | Tell::Carried { .. }
            | Tell::Output { .. }
            | Tell::Packets { .. } => 1,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {

    #[test]
    fn an_agent_with_other_times_is_not_gone_on_with() {
        // wrong: a node would run its copies for longer than the core waits for it, and two live;
        // or all programs end because a path of the node's settings is another one
        let plan = super::super::testing::plan(8000);
        let said = |edit: fn(&mut serde_json::Value)| {
            let mut value = serde_json::to_value(&plan).unwrap();
            edit(&mut value);
            plan.agrees(&value)
        };
        assert!(said(|_| {}) && said(|v| v["path"] = "/opt/bin".into()));
        assert!(said(|v| v["of a later version"] = 1.into()));
        for field in ["node", "heartbeat_ms", "suspect_ms", "dead_ms"] {
            let mut value = serde_json::to_value(&plan).unwrap();
            value[field] = 60_000.into();
            assert!(!plan.agrees(&value), "{field}");
        }
        assert!(!plan.agrees(&serde_json::Value::Null));
    }
}
