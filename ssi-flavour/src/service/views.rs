//! What people see of a cluster.

use super::keep::Waiting;
use super::one::{Cluster, Over};
use crate::cluster::members::{Member, Moves, NodeState};
use crate::cluster::messages::{CutFile, End, TreeId};
use crate::cluster::processors::differ;
use crate::cluster::trees::{Owner, Tree, TreeState};
use crate::pids::NodeNumber;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;
use xos_api::cluster::{
    ClusterCheckpoint, ClusterCut, ClusterMoveSeen, ClusterMoves, ClusterNode, ClusterNodeLooks,
    ClusterNodeState, ClusterProcess, ClusterTree, ClusterTreeState, ClusterView, OUT_OF_MEMORY,
};
use xos_base::{Millis, NodeId};

/// The exit status of what was killed for want of memory: 128 and SIGKILL's number.
const KILLED_STATUS: u8 = 137;

impl Cluster {
    /// The cluster and its nodes.
    pub fn view(&self, now: Millis) -> ClusterView {
        let members = self.controller.state().members.iter();
        let here = members.filter(|(number, _)| !self.settings.left.contains(number));
        ClusterView {
            cluster: self.id.clone(),
            nodes: here.map(|(number, m)| self.node_view(number, m, now)).collect(),
            trees: self.trees_alive(),
            waiting: self.controller.state().trees.queue().len() as u64,
            moves: self.moves_view(),
        }
    }

    fn moves_view(&self) -> ClusterMoves {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let (fixed, bytes_per_s) = self.costs.figures();
        ClusterMoves {
            arrived: self.costs.moves(),
            fixed_ms: ms(fixed),
            bytes_per_s,
            last: self.costs.last().map(|a| ClusterMoveSeen {
                bytes: a.bytes,
                still_ms: ms(a.still),
                took_ms: ms(a.took),
            }),
        }
    }

    fn node_view(&self, number: NodeNumber, m: &Member, now: Millis) -> ClusterNode {
        let moves_not = match (&m.moves, m.state.has_term()) {
            (Some(Moves::No { reason }), _) => reason.clone(),
            (None, true) => "it has not been tried yet".to_owned(),
            (None, false) | (Some(Moves::Yes), _) => m.clock.clone(),
        };
        ClusterNode {
            node: m.id.clone(),
            number: number.into(),
            state: match m.state {
                NodeState::Possible => ClusterNodeState::Possible,
                NodeState::Present => ClusterNodeState::Present,
                NodeState::Online => ClusterNodeState::Online,
                NodeState::Draining => ClusterNodeState::Draining,
                NodeState::Suspect => ClusterNodeState::Suspect,
                NodeState::Failed => ClusterNodeState::Failed,
            },
            reason: m.reason.clone(),
            moves: m.can_move().is_ok() && m.clock.is_empty(),
            moves_not,
            processors: self.processors(number),
            trees: self.controller.state().trees.count_on(number) as u64,
            looks: self.looks.get(&number).map(|(looks, at)| ClusterNodeLooks {
                load_milli: looks.load.mean,
                cpus: looks.cpus,
                memory_bytes: looks.memory_bytes,
                memory_free_bytes: looks.memory_free_bytes,
                cpu_group: looks.cpu_group,
                clock_ahead_ms: self.clocks.get(&number).map(|seen| seen.ahead_ms),
                age_ms: u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    /// How a node's processors differ from those that most nodes have, where they do.
    fn processors(&self, number: NodeNumber) -> String {
        let here = |n: &&NodeNumber| !self.settings.left.contains(*n);
        let group = |n: &NodeNumber| self.looks.get(n).map(|(looks, _)| looks.cpu_group);
        let mut groups: BTreeMap<u64, (usize, Reverse<NodeNumber>)> = BTreeMap::new();
        for n in self.looks.keys().filter(here) {
            let Some(group) = group(n) else { continue };
            groups.entry(group).or_insert((0, Reverse(*n))).0 += 1;
        }
        // Of as many each, those of the first node.
        let most = groups.into_iter().max_by_key(|(_, how)| *how);
        let Some((most, (_, Reverse(like)))) = most else { return String::new() };
        if group(&number).is_none_or(|own| own == most) {
            return String::new();
        }
        let words = |n: NodeNumber| self.looks.get(&n).map(|(looks, _)| looks.cpu_words.as_str());
        let differ = differ(words(like).unwrap_or_default(), words(number).unwrap_or_default());
        let what = if differ.is_empty() { "other ones".to_owned() } else { differ };
        format!("other processors than {}: {what}", self.controller.state().members.name(like))
    }

    /// The name of a node.
    pub fn name(&self, number: NodeNumber) -> Option<NodeId> {
        self.controller.state().members.node(number).map(|m| m.id.clone())
    }

    /// A tree; none: it is not known.
    pub fn tree_view(&self, tree: TreeId) -> Option<ClusterTree> {
        let of_state = || {
            let t = self.controller.state().trees.tree(tree)?;
            self.view_of(tree, t)
        };
        let waiting = || self.waiting.get(&tree).map(|w| self.waiting_view(tree, w));
        let over = || self.over.get(&tree).map(|over| self.over_view(tree, over));
        of_state().or_else(waiting).or_else(over)
    }

    /// All trees of which `sees` says so, those that are over too.
    pub fn tree_list(&self, sees: impl Fn(&Owner) -> bool) -> Vec<ClusterTree> {
        let trees = &self.controller.state().trees;
        let seen = trees.iter().filter(|(_, t)| sees(&t.owner));
        let mut all: Vec<ClusterTree> =
            seen.filter_map(|(tree, t)| self.view_of(tree, t)).collect();
        let waiting = self.waiting.iter().filter(|(_, w)| sees(&w.wish.owner));
        all.extend(waiting.map(|(tree, w)| self.waiting_view(*tree, w)));
        let gone = self
            .over
            .iter()
            .filter(|(tree, over)| trees.tree(**tree).is_none() && sees(&over.owner));
        all.extend(gone.map(|(tree, over)| self.over_view(*tree, over)));
        all.sort_by_key(|t| t.tree);
        all
    }

    /// Whose a tree is; none: it is not known.
    pub fn owner(&self, tree: TreeId) -> Option<Owner> {
        let lives = self.controller.state().trees.tree(tree).map(|t| &t.owner);
        let waits = || self.waiting.get(&tree).map(|w| &w.wish.owner);
        lives.or_else(waits).or_else(|| self.over.get(&tree).map(|over| &over.owner)).cloned()
    }

    fn view_of(&self, tree: TreeId, t: &Tree) -> Option<ClusterTree> {
        let program = self.programs.get(&tree)?;
        let (mut state, mut reason, to, status) = describe(&t.state);
        if let Some(barred) = &t.barred {
            reason = format!("{reason}; {barred}");
        }
        if state == ClusterTreeState::Running && !t.confirmed {
            // It cannot be moved on until its node has said so.
            state = ClusterTreeState::Moving;
        }
        Some(ClusterTree {
            tree: tree.0,
            pid: Some(t.root),
            person: program.person.clone(),
            vo: t.owner.vo.clone(),
            argv: program.argv.clone(),
            state,
            reason,
            node: self.name(t.node),
            output_at: self.name(t.output_at()),
            to: to.and_then(|to| self.name(to)),
            status,
            checkpoint: t.checkpoint.as_ref().map(|image| ClusterCheckpoint {
                version: image.version,
                bytes: image.bytes,
                freeze_ms: image.freeze_ms,
                copies: u32::try_from(self.controller.copies(t, image)).unwrap_or(u32::MAX),
            }),
            saving: t.saving.is_some(),
            trouble: self.trouble_of(tree).unwrap_or_default(),
            cut: cut(&t.cut),
            refused: self.over.get(&tree).map(|over| over.refused.clone()).unwrap_or_default(),
        })
    }

    fn waiting_view(&self, tree: TreeId, w: &Waiting) -> ClusterTree {
        ClusterTree {
            tree: tree.0,
            pid: None,
            person: w.person.clone(),
            vo: w.wish.owner.vo.clone(),
            argv: w.run.argv.clone(),
            state: ClusterTreeState::Queued,
            reason: self.waits_for(tree, &w.wish.owner),
            node: None,
            output_at: None,
            to: None,
            status: None,
            checkpoint: None,
            saving: false,
            trouble: String::new(),
            cut: Vec::new(),
            refused: String::new(),
        }
    }

    fn over_view(&self, tree: TreeId, over: &Over) -> ClusterTree {
        let state = match &over.how {
            Ok(end) => TreeState::Ended(*end),
            Err(reason) => TreeState::Lost { reason: reason.clone() },
        };
        let (state, reason, _, status) = describe(&state);
        ClusterTree {
            tree: tree.0,
            pid: over.place.map(|(pid, _)| pid),
            person: over.person.clone(),
            vo: over.owner.vo.clone(),
            argv: over.argv.clone(),
            state,
            reason,
            node: over.place.and_then(|(_, node)| self.name(node)),
            output_at: over.output_at.and_then(|node| self.name(node)),
            to: None,
            status,
            checkpoint: None,
            saving: false,
            trouble: String::new(),
            cut: cut(&over.cut),
            refused: over.refused.clone(),
        }
    }

    /// The processes of the trees of which `sees` says so.
    pub fn process_list(&self, sees: impl Fn(&Owner) -> bool) -> Vec<ClusterProcess> {
        let trees = &self.controller.state().trees;
        let mut all = Vec::new();
        for (number, (looks, _)) in &self.looks {
            let Some(node) = self.name(*number) else { continue };
            for p in &looks.processes {
                // A copy that is not the tree any more is on its way out.
                let own = trees.tree(p.tree).filter(|t| t.uses(*number) && sees(&t.owner));
                if own.is_none() {
                    continue;
                }
                all.push(ClusterProcess {
                    pid: p.pid,
                    parent: p.parent,
                    tree: p.tree.0,
                    node: node.clone(),
                    person: self.programs.get(&p.tree).map(|program| program.person.clone()),
                    command: p.command.clone(),
                    state: p.state,
                    cpu_milli: p.cpu_milli,
                    memory_bytes: p.memory_bytes,
                });
            }
        }
        all.sort_by_key(|p| p.pid);
        all
    }
}

fn cut(files: &[CutFile]) -> Vec<ClusterCut> {
    let view = |file: &CutFile| ClusterCut {
        path: file.path.clone(),
        kept: file.kept.clone(),
        bytes: file.bytes,
    };
    files.iter().map(view).collect()
}

/// How a tree stands, more about that, where it goes, its exit status.
fn describe(state: &TreeState) -> (ClusterTreeState, String, Option<NodeNumber>, Option<u8>) {
    let none = String::new;
    match state {
        TreeState::Starting => (ClusterTreeState::Starting, none(), None, None),
        TreeState::Running => (ClusterTreeState::Running, none(), None, None),
        TreeState::Moving { to, .. } => (ClusterTreeState::Moving, none(), Some(*to), None),
        TreeState::Checkpointed { reason, .. } => {
            (ClusterTreeState::Checkpointed, reason.clone(), None, None)
        }
        TreeState::Restarting { to, reason, .. } => {
            (ClusterTreeState::Restarting, reason.clone(), Some(*to), None)
        }
        TreeState::Leaving { .. } => {
            let reason = "it leaves for another cluster".to_owned();
            (ClusterTreeState::Moving, reason, None, None)
        }
        TreeState::Away => {
            let reason = "it left: it goes on from this in another cluster".to_owned();
            (ClusterTreeState::Checkpointed, reason, None, None)
        }
        TreeState::Lost { reason } => (ClusterTreeState::Lost, reason.clone(), None, None),
        TreeState::Ended(End::Exit { code }) => {
            (ClusterTreeState::Ended, format!("exit status {code}"), None, Some(*code))
        }
        TreeState::Ended(End::Signal { number }) => {
            let status = 128_u8.saturating_add(*number);
            (ClusterTreeState::Ended, format!("by signal {number}"), None, Some(status))
        }
        TreeState::Ended(End::OutOfMemory) => {
            let why = OUT_OF_MEMORY.to_owned();
            (ClusterTreeState::Ended, why, None, Some(KILLED_STATUS))
        }
        TreeState::Ended(End::ProcessLimit { status }) => {
            let why = format!("exit status {status}, when it had as many processes as it may");
            (ClusterTreeState::Ended, why, None, Some(*status))
        }
    }
}
