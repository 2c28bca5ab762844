//! One cluster: its controller, what the nodes said of themselves, and what is still to be kept.

use super::brief::Brief;
use super::deeds::{Deed, Own};
use super::keep::{Change, Kept, Settings, Waiting};
use super::starts;
use super::units::{Asked, Happened, Units};
use crate::cluster::clock::ClockSeen;
use crate::cluster::controller::Controller;
use crate::cluster::cost::Costs;
use crate::cluster::members::{MemberRecord, Times};
use crate::cluster::messages::{CutFile, End, ToNode, TreeId};
use crate::cluster::record::{Effect, Record};
use crate::cluster::trees::{Owner, TreeRecord, TreeState};
use crate::pids::NodeNumber;
use crate::wire::{NodeLooks, PLACES_MAX, Place, Program, Seat};
use std::collections::{BTreeMap, BTreeSet};
use xos_base::{ClusterId, Millis, NodeId, PersonId, VoId};

/// How many trees that are over are remembered.
const OVER_MAX: usize = 256;

/// What is sent to a node.
pub(super) type Told = (NodeNumber, ToNode);

/// A tree that is over.
#[derive(Clone, Debug)]
pub(super) struct Over {
    pub person: PersonId,
    pub owner: Owner,
    pub argv: Vec<String>,
    /// Its root's pid and where it was last; none: it never began.
    pub place: Option<(i32, NodeNumber)>,
    /// Where its output is; none: it never began.
    pub output_at: Option<NodeNumber>,
    pub how: Result<End, String>,
    /// Files that were cut back for its restarts.
    pub cut: Vec<CutFile>,
    /// Why its node did not start it; empty: it did.
    pub refused: String,
}

/// What is not kept yet.
#[derive(Clone, Debug, Default)]
struct Dirty {
    settings: bool,
    last: bool,
    programs: BTreeSet<TreeId>,
    trees: BTreeSet<TreeId>,
    /// Trees that waited before.
    begun: BTreeSet<TreeId>,
    nodes: BTreeSet<NodeNumber>,
}

/// A cluster. What only guides choices is in memory.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub id: ClusterId,
    pub controller: Controller,
    pub times: Times,
    pub settings: Settings,
    pub programs: BTreeMap<TreeId, Program>,
    /// What the trees are to be that wait.
    pub waiting: BTreeMap<TreeId, Waiting>,
    /// Why the programs of each VO wait, as it was seen last.
    pub full: BTreeMap<VoId, String>,
    /// What each node said last, and when.
    pub looks: BTreeMap<NodeNumber, (NodeLooks, Millis)>,
    /// How the clock of each stood then.
    pub clocks: BTreeMap<NodeNumber, ClockSeen>,
    /// What was sent to each node since, in the unit of loads.
    pub coming: BTreeMap<NodeNumber, u64>,
    /// When a tree was last moved away from each node by itself.
    pub moved: BTreeMap<NodeNumber, Millis>,
    /// What moves cost.
    pub costs: Costs,
    /// Since when each tree is known.
    pub since: BTreeMap<TreeId, Millis>,
    /// When each tree that moved came where it is.
    pub arrived: BTreeMap<TreeId, Millis>,
    /// When each tree was checkpointed last, or that was tried.
    pub saved: BTreeMap<TreeId, Millis>,
    /// Why the last move or checkpoint of a tree came to nothing, and when.
    pub trouble: BTreeMap<TreeId, (String, Millis)>,
    /// Why a node failed to fetch a copy of a checkpoint, or what was written by then, and when.
    pub unheld: BTreeMap<(TreeId, NodeNumber), (String, Millis)>,
    /// Moves and restarts under way that nobody asked for.
    pub own: BTreeMap<TreeId, Own>,
    /// What the cluster did by itself, for the audit.
    pub deeds: Vec<Deed>,
    pub over: BTreeMap<TreeId, Over>,
    /// The last mandate that each person brought, by uid. A program keeps its own as well.
    pub mandates: BTreeMap<u32, String>,
    /// The units of jobs that run as trees here.
    pub units: Units,
    /// Trees of units that somebody asked to leave and that have not: the last wish for each.
    pub leaving: BTreeMap<TreeId, Asked>,
    /// Why trees of units leave that nobody asked to.
    pub why_left: BTreeMap<TreeId, String>,
    /// Since when the persons have no right here whose trees left.
    pub out: BTreeMap<TreeId, Millis>,
    /// The last tree of which each node was told what it is, with a heartbeat.
    pub said: BTreeMap<NodeNumber, TreeId>,
    /// Where the output of each tree goes, as long as it is not forgotten.
    outputs: BTreeMap<TreeId, NodeNumber>,
    /// The last pid given on each node.
    pids: BTreeMap<NodeNumber, i32>,
    pub(super) brief: Brief,
    dirty: Dirty,
}

impl Cluster {
    /// A cluster as it was kept.
    pub fn new(id: ClusterId, kept: Kept, times: Times, now: Millis) -> Cluster {
        let controller = Controller::new(kept.state(now), times, now);
        let units = Units::of(&kept, &controller.state().trees);
        let since = kept.trees.keys().map(|tree| (*tree, now)).collect();
        let waiting = kept.queue().map(|(tree, w)| (tree, w.clone())).collect();
        let brief = Brief::new(last_of(&controller));
        Cluster {
            id,
            controller,
            times,
            settings: kept.settings,
            programs: kept.programs,
            waiting,
            full: BTreeMap::new(),
            looks: BTreeMap::new(),
            clocks: BTreeMap::new(),
            coming: BTreeMap::new(),
            moved: BTreeMap::new(),
            costs: Costs::default(),
            since,
            arrived: BTreeMap::new(),
            saved: BTreeMap::new(),
            trouble: BTreeMap::new(),
            unheld: BTreeMap::new(),
            own: BTreeMap::new(),
            deeds: Vec::new(),
            over: BTreeMap::new(),
            mandates: BTreeMap::new(),
            units,
            leaving: BTreeMap::new(),
            why_left: BTreeMap::new(),
            out: BTreeMap::new(),
            outputs: kept.trees.iter().map(|(tree, t)| (*tree, t.output_at())).collect(),
            pids: BTreeMap::new(),
            said: BTreeMap::new(),
            brief,
            dirty: Dirty::default(),
        }
    }

    /// The settings are other ones now.
    pub fn settings_changed(&mut self) {
        self.dirty.settings = true;
    }

    /// The number of a node that has not left.
    pub fn number(&self, node: &NodeId) -> Option<NodeNumber> {
        self.known(node).filter(|number| !self.settings.left.contains(number))
    }

    /// The number of a node, also of one that left.
    pub fn known(&self, node: &NodeId) -> Option<NodeNumber> {
        let mut all = self.controller.state().members.iter();
        all.find(|(_, m)| m.id == *node).map(|(number, _)| number)
    }

    /// What a node is told of its place.
    pub fn seat(&self, number: NodeNumber) -> Seat {
        let members = self.controller.state().members.iter();
        let ms = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Seat {
            cluster: self.id.clone(),
            number,
            nodes: members
                .filter(|(number, _)| !self.settings.left.contains(number))
                .map(|(number, m)| (number, m.id.clone()))
                .collect(),
            heartbeat_ms: ms(self.times.heartbeat()),
            suspect_ms: ms(self.times.suspect()),
            dead_ms: ms(self.times.dead()),
            places: self.places(),
        }
    }

    fn places(&self) -> Vec<Place> {
        let own_net = |tree: &TreeId| self.programs.get(tree).is_some_and(|p| p.own_net);
        let trees = self.controller.state().trees.iter();
        let live = trees.filter(|(tree, t)| !t.state.is_final() && own_net(tree));
        let place = live.map(|(tree, t)| Place { tree, node: t.node, uid: t.owner.uid });
        place.take(PLACES_MAX).collect()
    }

    /// What the trees are that messages start or restore, without the mandates of their persons, and
    /// at most so many as go at a time ([`starts::fit`]); the orders for others are taken out.
    pub fn programs_of(
        &self,
        messages: &mut [ToNode],
        after: Option<TreeId>,
    ) -> Vec<(TreeId, Program)> {
        let told = |tree: TreeId| {
            let program = self.programs.get(&tree)?;
            Some(Program { mandate: None, ..program.clone() })
        };
        starts::fit(messages, after, told)
    }

    /// A pid for the root of a tree that is born on a node; none: all are taken.
    pub fn free_pid(&mut self, birth: NodeNumber) -> Option<i32> {
        let range = birth.given_pids();
        let trees = self.controller.state().trees.iter();
        let taken: BTreeSet<i32> = trees.map(|(_, t)| t.root).collect();
        let last = self.pids.get(&birth).copied().unwrap_or(*range.end());
        // From the last one on, and around.
        let after = (last + 1..=*range.end()).chain(*range.start()..=last);
        let pid = after.into_iter().find(|pid| !taken.contains(pid))?;
        self.pids.insert(birth, pid);
        Some(pid)
    }

    /// Whether a tree is a cluster shell.
    pub fn is_shell(&self, tree: TreeId) -> bool {
        self.programs.get(&tree).is_some_and(|program| program.shell)
    }

    /// The tree to which a process belongs, as far as is known, among those of which `meant` says
    /// so: one that came from another cluster may have a pid that is somebody else's here.
    pub fn tree_of(&self, pid: i32, meant: impl Fn(TreeId) -> bool) -> Option<TreeId> {
        let trees = &self.controller.state().trees;
        let lives = |tree: &TreeId| {
            let lives = trees.tree(*tree).is_some_and(|t| !t.state.is_final());
            lives && meant(*tree)
        };
        let processes = self.looks.values().flat_map(|(looks, _)| &looks.processes);
        let told = processes.filter(|p| p.pid == pid).map(|p| p.tree).find(lives);
        let root = || trees.iter().find(|(id, t)| t.root == pid && lives(id)).map(|(id, _)| id);
        told.or_else(root)
    }

    /// Takes what the controller decided; returns what is to be sent once [`Cluster::changes`] are
    /// kept.
    pub fn take(&mut self, effects: Vec<Effect>, now: Millis) -> Vec<Told> {
        let mut told = Vec::new();
        for effect in effects {
            match effect {
                Effect::Keep(record) => record.parts().iter().for_each(|r| self.changed(r, now)),
                Effect::Tell { node, message } => told.push((node, message)),
            }
        }
        told
    }

    /// What a change means for what is to be kept: all that changed is kept in one piece.
    fn changed(&mut self, record: &Record, now: Millis) {
        match record {
            Record::Member(r) => {
                tracing::debug!(cluster = %self.id, ?r, "a node changed");
                self.member_changed(r);
            }
            Record::Tree(r) => {
                tracing::debug!(cluster = %self.id, ?r, "a tree changed");
                self.tree_changed(r, now);
            }
            Record::All(list) => list.iter().for_each(|r| self.changed(r, now)),
        }
    }

    fn member_changed(&mut self, r: &MemberRecord) {
        let number = match r {
            MemberRecord::Added { number, .. }
            | MemberRecord::Joined { number, .. }
            | MemberRecord::Proved { number, .. }
            | MemberRecord::Clock { number, .. }
            | MemberRecord::Serves { number, .. }
            | MemberRecord::Became { number, .. } => *number,
        };
        let member = self.controller.state().members.node(number);
        if member.is_none_or(|m| !m.state.has_term()) {
            self.looks.remove(&number);
            self.clocks.remove(&number);
        }
        if let MemberRecord::Became { state, reason, .. } = r {
            tracing::info!(cluster = %self.id, %number, %state, reason, "a node of a cluster");
        }
        if let MemberRecord::Clock { wrong, .. } = r
            && !wrong.is_empty()
        {
            tracing::warn!(cluster = %self.id, %number, wrong, "a node's clock");
        }
        self.note_member(r);
        self.dirty.nodes.insert(number);
    }

    fn tree_changed(&mut self, r: &TreeRecord, now: Millis) {
        let tree = r.tree();
        self.dirty.trees.insert(tree);
        self.brief.changes(r);
        self.unit_changed(r);
        self.note_tree(r);
        if let Some(a) = self.costs.note(r, &self.controller.state().trees, now) {
            let (still, took) = (a.still.as_millis(), a.took.as_millis());
            tracing::info!(
                cluster = %self.id, %tree, from = %a.from, to = %a.to, bytes = a.bytes,
                still_ms = still, took_ms = took, "a move arrived"
            );
        }
        if let Some(t) = self.controller.state().trees.tree(tree) {
            self.outputs.insert(tree, t.output_at());
        }
        match r {
            TreeRecord::Queued { .. } => self.number_given(tree),
            TreeRecord::Placed { .. } | TreeRecord::Came { .. } => {
                self.number_given(tree);
                self.dirty.programs.insert(tree);
                self.since.insert(tree, now);
                if self.waiting.remove(&tree).is_some() {
                    self.dirty.begun.insert(tree);
                }
            }
            TreeRecord::NotHeld { node, reason, .. } => {
                tracing::info!(cluster = %self.id, %tree, %node, reason, "no copy of a checkpoint");
                self.unheld.insert((tree, *node), (reason.clone(), now));
            }
            TreeRecord::Undoing { reason, .. }
            | TreeRecord::Undone { reason, .. }
            | TreeRecord::Stayed { reason, .. }
            | TreeRecord::NotSaved { reason, .. } => {
                self.saved.insert(tree, now);
                self.trouble.insert(tree, (reason.clone(), now));
            }
            TreeRecord::Committed { .. } => {
                self.arrived.insert(tree, now);
                self.trouble.remove(&tree);
            }
            TreeRecord::Barred { .. } => {
                self.trouble.remove(&tree);
            }
            TreeRecord::Saved { .. } => {
                self.saved.insert(tree, now);
                self.trouble.remove(&tree);
            }
            TreeRecord::Ended { end, why, .. } => {
                self.ended(tree, Ok(*end));
                if let Some(over) = self.over.get_mut(&tree) {
                    over.refused.clone_from(why);
                }
            }
            TreeRecord::Lost { reason, .. } => self.ended(tree, Err(reason.clone())),
            TreeRecord::Forgotten { .. } => {
                self.waiting.remove(&tree);
                self.programs.remove(&tree);
                self.outputs.remove(&tree);
                self.since.remove(&tree);
                self.arrived.remove(&tree);
                self.saved.remove(&tree);
                self.trouble.remove(&tree);
                self.leaving.remove(&tree);
                self.why_left.remove(&tree);
                self.unheld.retain(|(of, _), _| *of != tree);
                if self.brief.forget(tree) {
                    self.dirty.trees.remove(&tree);
                    self.dirty.programs.remove(&tree);
                }
            }
            _ => {}
        }
    }

    fn number_given(&mut self, tree: TreeId) {
        self.dirty.last |= !self.brief.is_given(tree);
    }

    /// More numbers are to be kept as given.
    pub fn numbers_run_out(&mut self) {
        self.dirty.last = true;
    }

    /// The last number that was given to a tree.
    pub fn last_number(&self) -> TreeId {
        last_of(&self.controller)
    }

    /// What a change means for the unit that the tree is, if it is one.
    fn unit_changed(&mut self, r: &TreeRecord) {
        let tree = r.tree();
        let Some(program) = self.programs.get(&tree) else { return };
        let came = program.carried.is_some();
        let Some(unit) = program.unit.clone() else { return };
        if let TreeRecord::Left { .. } = r {
            if let Some(left) = self.left(tree) {
                self.units.happened(&unit, left);
            }
            return;
        }
        let t = self.controller.state().trees.tree(tree);
        let what = match r {
            TreeRecord::Runs { .. } => Happened::Started,
            // From here on it may have run, whether its node says so or not.
            TreeRecord::Committed { .. } if came => Happened::Started,
            TreeRecord::Ended { why, .. } if !why.is_empty() => Happened::Refused(why.clone()),
            TreeRecord::Ended { end, .. } => Happened::Ended(Ok(*end)),
            TreeRecord::Lost { reason, .. } => Happened::Ended(Err(reason.clone())),
            // Without a ghost, its output is where it runs.
            _ => match t.filter(|t| t.spool && !t.state.is_final()) {
                Some(t) => Happened::Spooled(t.output_at()),
                None => return,
            },
        };
        self.units.happened(&unit, what);
    }

    fn ended(&mut self, tree: TreeId, how: Result<End, String>) {
        if let Err(reason) = &how {
            tracing::warn!(cluster = %self.id, %tree, reason, "a tree is lost");
        }
        let over = match (self.waiting.remove(&tree), self.programs.get(&tree)) {
            (Some(w), _) => {
                let (person, argv) = (w.person, w.run.argv);
                let (place, output_at, cut, refused) = Default::default();
                Over { person, owner: w.wish.owner, argv, place, output_at, how, cut, refused }
            }
            (None, Some(program)) => {
                let t = self.controller.state().trees.tree(tree);
                let known = t.map(|t| (t.root, t.node));
                let cut = t.map(|t| t.cut.clone()).unwrap_or_default();
                // A tree without a ghost is forgotten at once: where it was, its pid says.
                let born = || program.pid.and_then(|pid| Some((pid, NodeNumber::of(pid)?)));
                let place = known.or_else(born);
                let (person, argv) = (program.person.clone(), program.argv.clone());
                let (vo, member, uid) = (program.vo.clone(), program.member, program.uid);
                let output_at = self.outputs.get(&tree).copied().or(place.map(|(_, node)| node));
                let (owner, refused) = (Owner { vo, member, uid }, String::new());
                Over { person, owner, argv, place, output_at, how, cut, refused }
            }
            (None, None) => return,
        };
        self.over.insert(tree, over);
        while self.over.len() > OVER_MAX {
            self.over.pop_first();
        }
    }

    /// What is to be kept now: trees before nodes, so that a node whose term ended is not kept
    /// without what became of its trees.
    pub fn changes(&self) -> Vec<Change> {
        let (state, dirty) = (self.controller.state(), &self.dirty);
        let mut out = Vec::new();
        if dirty.settings {
            out.push(Change::Settings(self.settings.clone()));
        }
        if dirty.last {
            out.push(Change::Last(self.brief.ahead(self.last_number())));
        }
        let old = |tree: &&TreeId| !self.brief.is_young(**tree);
        for tree in dirty.programs.iter().filter(old) {
            if let Some(program) = self.programs.get(tree) {
                out.push(Change::Program(*tree, program.clone()));
            }
        }
        // Of a unit before its tree: one without a tree that is known never ran.
        out.extend(self.units.changes());
        for tree in dirty.trees.iter().filter(old) {
            let waits = self.waiting.get(tree);
            out.push(match (state.trees.tree(*tree), waits) {
                (Some(t), _) => Change::Tree(*tree, t.clone()),
                (None, Some(waits)) => Change::Queued(*tree, Box::new(waits.clone())),
                (None, None) => Change::Gone(*tree),
            });
        }
        // After what they are now: with only a part of this on the disk none is lost.
        out.extend(dirty.begun.iter().map(|tree| Change::Begun(*tree)));
        for number in &dirty.nodes {
            if let Some(m) = state.members.node(*number) {
                out.push(Change::Node(*number, m.clone()));
            }
        }
        out
    }

    /// They are. Whether units have reports that were not there before.
    pub fn kept(&mut self) -> bool {
        let Dirty { last, mut programs, mut trees, .. } = std::mem::take(&mut self.dirty);
        if last {
            self.brief.gave(self.last_number());
        }
        programs.retain(|tree| self.brief.is_young(*tree));
        trees.retain(|tree| self.brief.is_young(*tree));
        self.dirty = Dirty { programs, trees, ..Dirty::default() };
        self.units.kept()
    }

    /// Why the last move or checkpoint of a tree came to nothing, or no other node has that.
    pub fn trouble_of(&self, tree: TreeId) -> Option<String> {
        let of = self.unheld.iter().find(|((of, _), _)| *of == tree);
        let unheld =
            || of.map(|(_, (why, _))| format!("no copy of its checkpoint was made: {why}"));
        self.trouble.get(&tree).map(|(why, _)| why.clone()).or_else(unheld)
    }

    /// Trees that have not ended.
    pub fn trees_alive(&self) -> u64 {
        let alive = self.controller.state().trees.iter().filter(|(_, t)| !t.state.is_final());
        alive.count() as u64
    }

    /// Trees that move away from a node now.
    pub fn leaving(&self, node: NodeNumber) -> u32 {
        let leaves = |t: &crate::cluster::trees::Tree| {
            t.node == node && matches!(t.state, TreeState::Moving { .. })
        };
        let count = self.controller.state().trees.iter().filter(|(_, t)| leaves(t)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

fn last_of(controller: &Controller) -> TreeId {
    TreeId(controller.state().trees.next().0 - 1)
}
