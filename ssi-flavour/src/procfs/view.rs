//! What a merged `/proc` is made of, besides what the machine itself says.

use crate::pids::{NODE_NUMBER_MAX, NodeNumber};
use crate::wire::{COMMAND_MAX, CPUS_MAX, CpuTimes, NodeLooks, ProcessLook};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Most processes of other nodes that a shell sees.
pub const VIEW_PROCESSES_MAX: usize = 3072;
/// Most nodes, as there are numbers.
const NODES_MAX: usize = NODE_NUMBER_MAX as usize;
/// Longest name of a node that is shown, in bytes.
const NAME_MAX: usize = 64;
/// Most processors of all nodes whose times fit into one answer.
const VIEW_CPUS_MAX: usize = 6144;

/// How the cluster is, for one person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// This node. What it looks like itself is read from its own `/proc`.
    pub here: NodeNumber,
    /// All nodes, in the order of their numbers.
    pub nodes: Vec<NodeView>,
    /// Processes on the other nodes that the person may see.
    pub processes: Vec<Seen>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeView {
    /// Its number.
    pub number: NodeNumber,
    /// Its name.
    pub name: String,
    /// Processors.
    pub cpus: u32,
    /// What each of them did; empty: unknown.
    pub cpu_times: Vec<CpuTimes>,
    /// Thousandths of a process that want to run.
    pub load_milli: u64,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Of these, how many programs can have at once.
    pub memory_free_bytes: u64,
}

/// A process on another node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Where it is.
    pub node: NodeNumber,
    /// The process.
    pub look: ProcessLook,
}

/// Who knows how the cluster is. It is asked from threads that may wait, but not longer than a
/// reader of `/proc` should.
pub trait Views: Send + Sync {
    /// What the person with this account may see: their own processes, and of others' what the
    /// core lets them. At most a second old.
    fn view(&self, uid: u32) -> View;
}

impl View {
    /// A cluster of which nothing is known but this node.
    pub fn alone(here: NodeNumber) -> View {
        View { here, nodes: Vec::new(), processes: Vec::new() }
    }

    /// From what the nodes say; `sees`: whether the person may see a process.
    pub fn of<'a>(
        here: NodeNumber,
        nodes: impl IntoIterator<Item = (NodeNumber, String, &'a NodeLooks)>,
        sees: impl Fn(&ProcessLook) -> bool,
    ) -> View {
        let mut view = View::alone(here);
        for (number, name, looks) in nodes {
            if number != here {
                let seen = looks.processes.iter().filter(|look| sees(look));
                view.processes.extend(seen.map(|look| Seen { node: number, look: look.clone() }));
            }
            view.nodes.push(NodeView {
                number,
                name,
                cpus: looks.cpus,
                cpu_times: looks.cpu_times.clone(),
                load_milli: looks.load.mean,
                memory_bytes: looks.memory_bytes,
                memory_free_bytes: looks.memory_free_bytes,
            });
        }
        view.bounded()
    }

    /// Without what no cluster has: other nodes wrote it, and one of them may be hostile.
    #[must_use]
    pub fn bounded(mut self) -> View {
        let mut numbers = BTreeSet::new();
        self.nodes.retain(|node| numbers.insert(node.number));
        self.nodes.truncate(NODES_MAX);
        self.nodes.sort_by_key(|node| node.number);
        let mut room = VIEW_CPUS_MAX;
        for node in &mut self.nodes {
            node.cpus = node.cpus.min(u32::try_from(CPUS_MAX).unwrap_or(u32::MAX));
            let cpus = usize::try_from(node.cpus).unwrap_or(CPUS_MAX);
            node.cpu_times.truncate(cpus.min(room));
            room -= node.cpu_times.len();
            node.name = plain(&node.name, NAME_MAX);
        }
        let (here, mut pids) = (self.here, BTreeSet::new());
        self.processes.retain(|seen| {
            let pid = seen.look.pid;
            seen.node != here && NodeNumber::of(pid).is_some() && pids.insert(pid)
        });
        self.processes.truncate(VIEW_PROCESSES_MAX);
        self.processes.sort_by_key(|seen| seen.look.pid);
        for seen in &mut self.processes {
            seen.look.command = plain(&seen.look.command, COMMAND_MAX);
            if !seen.look.state.is_ascii_alphabetic() {
                seen.look.state = '?';
            }
        }
        self
    }

    /// The process of another node that has this pid.
    pub(super) fn process(&self, pid: i32) -> Option<&ProcessLook> {
        let at = self.processes.binary_search_by_key(&pid, |seen| seen.look.pid).ok()?;
        self.processes.get(at).map(|seen| &seen.look)
    }

    /// The nodes other than this one.
    pub(super) fn others(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(|node| node.number != self.here)
    }
}

/// A text of so many bytes at most, on one line and without what steers a terminal.
fn plain(text: &str, bytes_max: usize) -> String {
    let mut plain = String::new();
    for c in text.chars().map(|c| if c.is_control() { '?' } else { c }) {
        if plain.len() + c.len_utf8() > bytes_max {
            break;
        }
        plain.push(c);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::super::process::tests::look;
    use super::*;

    #[test]
    fn what_a_hostile_node_says_is_bounded() {
        // wrong: a node could fill every shell's memory, or hide another's process behind its own
        let number = |n: u8| NodeNumber::try_from(n).unwrap();
        let mut shell = look();
        shell.command = "a\u{1b}[2J\nb".repeat(200);
        shell.state = '\n';
        let mut low = look();
        low.pid = 1;
        let seen = |node, look: &ProcessLook| Seen { node: number(node), look: look.clone() };
        let node = NodeView {
            number: number(2),
            name: "n2\n".repeat(100),
            cpus: u32::MAX,
            cpu_times: vec![CpuTimes::default(); 5000],
            load_milli: 0,
            memory_bytes: u64::MAX,
            memory_free_bytes: u64::MAX,
        };
        let view = View {
            here: number(1),
            nodes: vec![node.clone(), node],
            processes: vec![seen(2, &shell), seen(3, &look()), seen(2, &low), seen(1, &look())],
        };
        let view = view.bounded();
        assert_eq!((view.nodes.len(), view.processes.len()), (1, 1));
        let (node, process) = (&view.nodes[0], &view.processes[0]);
        assert!(node.cpu_times.len() <= CPUS_MAX && node.name.len() <= NAME_MAX);
        assert_eq!((process.node, process.look.state), (number(2), '?'));
        assert!(process.look.command.len() <= COMMAND_MAX);
        assert!(!process.look.command.contains(['\n', '\u{1b}']));
    }
}
