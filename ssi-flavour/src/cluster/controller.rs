//! The one that decides in a cluster.

mod away;
mod copies;
mod trees;

use super::crash::term_ended;
use super::members::{Heard, Member, MemberError, MemberRecord, Moves, NodeState, Times};
use super::messages::{Fact, Order, ToController, ToNode, TreeId};
use super::record::{Effect, Record, State};
use super::trees::{STEP_LIMIT_MAX, STEP_MAX, STEP_MORE, TreeRecord};
use crate::pids::NodeNumber;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xos_base::{Millis, NodeId, VoId};

/// Why nothing is done about a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such tree.
    #[error("the cluster has no tree {0}; `xos cluster ps` lists them")]
    Unknown(TreeId),
    /// It is in no state for it.
    #[error("tree {tree} {state}: try again when it runs")]
    State {
        /// The tree.
        tree: TreeId,
        /// What it does.
        state: &'static str,
    },
    /// It is there.
    #[error("tree {tree} is on {node} already")]
    There {
        /// The tree.
        tree: TreeId,
        /// Where it is.
        node: String,
    },
    /// A node does not do.
    #[error("tree {tree}: {reason}")]
    Node {
        /// The tree.
        tree: TreeId,
        /// What is in the way.
        reason: String,
    },
}

/// The controller. `now` is everywhere a clock that nobody can set and that does not go back while
/// this value lives ([`xos_base::when::Clock::up`]).
#[derive(Clone, Debug)]
pub struct Controller {
    state: State,
    times: Times,
    heard: Heard,
    /// When it began.
    began: Millis,
    /// How long saving or restoring a tree may take at a node, where it said so.
    limits: BTreeMap<NodeNumber, Duration>,
}

impl Controller {
    /// A controller with the stored state. Each node that has a term may have been answered just
    /// before.
    pub fn new(state: State, times: Times, now: Millis) -> Controller {
        let mut heard = Heard::default();
        for (number, m) in state.members.iter() {
            if m.state.has_term() {
                heard.note(number, now, None);
            }
        }
        Controller { state, times, heard, began: now, limits: BTreeMap::new() }
    }

    /// What is stored.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// A node said something.
    pub fn message(&mut self, from: NodeNumber, m: &ToController, now: Millis) -> Vec<Effect> {
        let mut out = Vec::new();
        match m {
            ToController::Join { after } => self.joins(from, *after, now, &mut out),
            ToController::Beat { term, sent, copies, images } => {
                if self.state.members.is_in(from, *term) {
                    self.beats(from, *sent, now, &mut out);
                    let mut orders = self.state.trees.orders(from);
                    orders.extend(self.state.trees.stale(from, copies, images));
                    self.tell(from, orders, &mut out);
                } else if self.state.members.node(from).is_some_and(|m| *term <= m.term) {
                    out.push(Effect::Tell {
                        node: from,
                        message: ToNode::Expelled { term: *term },
                    });
                }
            }
            ToController::Facts { term, facts } if self.state.members.is_in(from, *term) => {
                self.facts(from, facts, now, &mut out);
            }
            ToController::Ghosts { term, trees } if self.state.members.is_in(from, *term) => {
                self.forsake(from, trees, now, &mut out);
            }
            ToController::Spools { term, trees } if self.state.members.is_in(from, *term) => {
                self.unspool(from, trees, &mut out);
            }
            // Of an ended term: what became of its trees is decided.
            ToController::Facts { .. }
            | ToController::Ghosts { .. }
            | ToController::Spools { .. } => {}
        }
        out
    }

    fn joins(&mut self, from: NodeNumber, after: u64, now: Millis, out: &mut Vec<Effect>) {
        let Some(m) = self.state.members.node(from) else { return };
        let (term, dead_ms) = (m.term, self.dead_ms());
        if after == term {
            if m.state.has_term() {
                let reason = format!("{} began anew", m.id);
                self.end_term(from, NodeState::Failed, &reason, now, out);
            }
            let term = term + 1;
            self.keep(MemberRecord::Joined { number: from, term, dead_ms }, out);
            self.heard.note(from, now, None);
            out.push(Effect::Tell { node: from, message: ToNode::Admitted { after, term } });
        } else if after + 1 == term {
            // It was admitted and may not have heard so; meanwhile the times may be longer.
            if m.state.has_term() && m.dead_ms < dead_ms {
                self.keep(MemberRecord::Joined { number: from, term, dead_ms }, out);
            }
            out.push(Effect::Tell { node: from, message: ToNode::Admitted { after, term } });
        }
    }

    fn dead_ms(&self) -> u64 {
        u64::try_from(self.times.dead().as_millis()).unwrap_or(u64::MAX)
    }

    fn beats(&mut self, from: NodeNumber, sent: Millis, now: Millis, out: &mut Vec<Effect>) {
        self.heard.note(from, now, Some(sent));
        if let Some(m) = self.state.members.node(from)
            && m.state == NodeState::Suspect
        {
            let state = m.before;
            self.keep(MemberRecord::Became { number: from, state, reason: String::new() }, out);
        }
    }

    fn facts(&mut self, from: NodeNumber, facts: &[Fact], now: Millis, out: &mut Vec<Effect>) {
        let mut touched = BTreeSet::new();
        for fact in facts {
            if let Some(r) = self.state.trees.heard(from, fact, now) {
                touched.extend(self.put(r, out));
            }
        }
        self.push(&touched, out);
    }

    /// Time went by: silent nodes, steps that take too long.
    pub fn tick(&mut self, now: Millis) -> Vec<Effect> {
        let mut out = Vec::new();
        let mut touched = BTreeSet::new();
        let silent = |number| self.heard.at(number).map(|at| now.since(at)).unwrap_or_default();
        let (mut dead, mut suspect) = (Vec::new(), Vec::new());
        for (number, m) in self.state.members.iter().filter(|(_, m)| m.state.has_term()) {
            let most = m.dead(self.times.dead());
            if silent(number) >= most {
                dead.push((number, format!("{} was silent for {most:?}", m.id)));
            } else if silent(number) >= self.times.suspect() && m.state != NodeState::Suspect {
                suspect.push((number, format!("silent for {:?}", self.times.suspect())));
            }
        }
        for (number, reason) in suspect {
            let state = NodeState::Suspect;
            self.keep(MemberRecord::Became { number, state, reason }, &mut out);
        }
        for (number, reason) in dead {
            touched.extend(self.end_term(number, NodeState::Failed, &reason, now, &mut out));
        }
        let step = |node: NodeNumber| self.step_max(node);
        for r in self.state.trees.overdue(self.began, now, step) {
            touched.extend(self.put(r, &mut out));
        }
        self.push(&touched, &mut out);
        out
    }

    /// How long a node lets saving or restoring one tree take. Not stored: it says so with each
    /// heartbeat.
    pub fn limit(&mut self, node: NodeNumber, limit: Duration) {
        self.limits.insert(node, limit);
    }

    /// How long a step may take there: the node is the first to give it up.
    fn step_max(&self, node: NodeNumber) -> Duration {
        let own = self.limits.get(&node).copied().unwrap_or_default().min(STEP_LIMIT_MAX);
        STEP_MAX.max(own + STEP_MORE)
    }

    /// Takes a node up; it may join then.
    ///
    /// # Errors
    /// [`MemberError`] when it is known, or all numbers were given.
    pub fn add(&mut self, id: &NodeId, serves: BTreeSet<VoId>) -> Result<Vec<Effect>, MemberError> {
        let mut out = Vec::new();
        let r = self.state.members.add(id)?;
        if let MemberRecord::Added { number, .. } = &r {
            let vos = MemberRecord::Serves { number: *number, vos: serves };
            let mut list = Vec::new();
            self.apply(r, &mut list);
            self.apply(vos, &mut list);
            out.extend(Record::of(list).map(Effect::Keep));
        }
        Ok(out)
    }

    /// Which VOs the site serves: all nodes serve these.
    pub fn serve(&mut self, vos: &BTreeSet<VoId>) -> Vec<Effect> {
        let mut out = Vec::new();
        let others = self.state.members.iter().filter(|(_, m)| m.serves != *vos);
        let others: Vec<NodeNumber> = others.map(|(number, _)| number).collect();
        for number in others {
            self.keep(MemberRecord::Serves { number, vos: vos.clone() }, &mut out);
        }
        out
    }

    /// A present node was tried: it is online.
    ///
    /// # Errors
    /// [`MemberError`] when the node is not one that is to be tried.
    pub fn prove(
        &mut self,
        node: NodeNumber,
        moves: Moves,
        cpu_group: u64,
    ) -> Result<Vec<Effect>, MemberError> {
        let mut out = Vec::new();
        let r = self.state.members.prove(node, moves, cpu_group)?;
        self.keep(r, &mut out);
        Ok(out)
    }

    /// What is wrong with a node's clock; empty: nothing. As long as something is no tree comes to
    /// it by a move or a restart.
    pub fn clock(&mut self, node: NodeNumber, wrong: &str) -> Vec<Effect> {
        let mut out = Vec::new();
        let known = self.state.members.node(node);
        // In other words it would be kept again with each heartbeat.
        if known.is_some_and(|m| m.state.has_term() && m.clock.is_empty() != wrong.is_empty()) {
            let wrong = wrong.to_owned();
            self.keep(MemberRecord::Clock { number: node, wrong }, &mut out);
        }
        out
    }

    /// A node is to take no new trees (`on`), or is to take some again.
    ///
    /// # Errors
    /// [`MemberError`] when it cannot from where it is.
    pub fn drain(&mut self, node: NodeNumber, on: bool) -> Result<Vec<Effect>, MemberError> {
        let mut out = Vec::new();
        let state = if on { NodeState::Draining } else { NodeState::Online };
        let r = self.state.members.change(node, state, "")?;
        self.keep(r, &mut out);
        Ok(out)
    }

    /// A node that has no trees leaves.
    ///
    /// # Errors
    /// [`MemberError`] when it has trees, works and alone has images of some that left, or cannot
    /// from where it is.
    pub fn remove(&mut self, node: NodeNumber, now: Millis) -> Result<Vec<Effect>, MemberError> {
        let mut out = Vec::new();
        let m = self.state.members.node(node).ok_or(MemberError::Unknown(node))?;
        let trees = self.state.trees.count_on(node);
        if trees > 0 {
            return Err(MemberError::Busy { node: m.id.clone(), trees });
        }
        let images = self.only_at(node).len();
        // One that failed cannot be waited for.
        if images > 0 && m.state.has_term() {
            return Err(MemberError::Needed { node: m.id.clone(), images });
        }
        let reason = format!("{} left the cluster", m.id);
        self.state.members.change(node, NodeState::Possible, &reason)?;
        let touched = self.end_term(node, NodeState::Possible, &reason, now, &mut out);
        self.push(&touched, &mut out);
        Ok(out)
    }

    fn member(&self, tree: TreeId, node: NodeNumber) -> Result<&Member, Refused> {
        let none = || Refused::Node { tree, reason: MemberError::Unknown(node).to_string() };
        self.state.members.node(node).ok_or_else(none)
    }

    /// The node's term is over: its lease ended, or it says that nothing is left. What becomes of
    /// its trees is one change with that.
    fn end_term(
        &mut self,
        node: NodeNumber,
        state: NodeState,
        reason: &str,
        now: Millis,
        out: &mut Vec<Effect>,
    ) -> BTreeSet<NodeNumber> {
        let reason = reason.to_owned();
        self.heard.forget(node);
        let records = term_ended(&self.state.trees, node, &reason, now);
        let mut list = Vec::new();
        self.apply(MemberRecord::Became { number: node, state, reason }, &mut list);
        let mut touched = BTreeSet::new();
        for r in records {
            touched.extend(self.change(r, &mut list));
        }
        out.extend(Record::of(list).map(Effect::Keep));
        touched
    }

    fn keep(&mut self, r: impl Into<Record>, out: &mut Vec<Effect>) {
        let mut list = Vec::new();
        self.apply(r, &mut list);
        out.extend(list.into_iter().map(Effect::Keep));
    }

    fn apply(&mut self, r: impl Into<Record>, list: &mut Vec<Record>) {
        let r = r.into();
        self.state.apply(&r);
        list.push(r);
    }

    /// A change of a tree; returns the nodes that it concerns.
    fn put(&mut self, r: TreeRecord, out: &mut Vec<Effect>) -> BTreeSet<NodeNumber> {
        let mut list = Vec::new();
        let nodes = self.change(r, &mut list);
        out.extend(Record::of(list).map(Effect::Keep));
        nodes
    }

    /// A change of a tree, and what is one with it.
    fn change(&mut self, r: TreeRecord, list: &mut Vec<Record>) -> BTreeSet<NodeNumber> {
        let tree = r.tree();
        self.apply(r, list);
        let Some(t) = self.state.trees.tree(tree) else { return BTreeSet::new() };
        let nodes = t.nodes();
        if t.home().is_none() && t.state.is_final() {
            // There is neither a ghost that waits for it nor a spool.
            self.apply(TreeRecord::Forgotten { tree }, list);
        }
        nodes
    }

    fn push(&self, nodes: &BTreeSet<NodeNumber>, out: &mut Vec<Effect>) {
        for node in nodes {
            let orders = self.state.trees.orders(*node);
            if !orders.is_empty() {
                self.tell(*node, orders, out);
            }
        }
    }

    /// Sent before the next heartbeat too, as long as the last one lets the node work.
    fn tell(&self, node: NodeNumber, orders: Vec<Order>, out: &mut Vec<Effect>) {
        let m = self.state.members.node(node).filter(|m| m.state.has_term());
        if let (Some(m), Some(sent)) = (m, self.heard.sent(node)) {
            let message = ToNode::Told { term: m.term, sent, orders };
            out.push(Effect::Tell { node, message });
        }
    }
}
