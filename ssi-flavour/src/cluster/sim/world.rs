//! One story.

mod asked;
mod checks;
mod young;

use super::node::{Leaves, Near, Node, Proc};
use super::spools::Spools;
use super::{Dice, Rules};
use crate::cluster::controller::Controller;
use crate::cluster::cost::Costs;
use crate::cluster::interval::Interval;
use crate::cluster::members::{MemberRecord, Moves, NodeState, Times};
use crate::cluster::messages::{End, Line, Outcome, ToController, ToNode, TreeId};
use crate::cluster::output::{Intake, Taken};
use crate::cluster::record::{Effect, Record, State};
use crate::cluster::trees::{Owner, Tree, TreeRecord, TreeState, Trees, Wish};
use crate::pids::NodeNumber;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xos_base::{MemberNumber, Millis, VoId};

/// For how long things fail.
const ROUGH_MS: u64 = 25_000;
/// Enough for everything to come to rest when nothing fails any more.
const CALM_MS: u64 = 900_000;
const NODES: u8 = 3;
const TREES: usize = 4;
/// How long a tree is young.
const YOUNG_MS: u64 = 1_500;
/// How many nodes are to have each checkpoint.
const COPIES: usize = 2;

/// The time of a clock that gains so many millionths.
pub(super) fn drifted(t: u64, ppm: i64) -> u64 {
    t.saturating_add_signed(t as i64 * ppm / 1_000_000)
}

#[derive(Clone)]
enum Mail {
    Up(NodeNumber, ToController),
    Down(NodeNumber, ToNode),
    Output { by: NodeNumber, tree: TreeId, epoch: u64, from: u64, len: u64, spool: bool },
    Taken { by: NodeNumber, tree: TreeId, epoch: u64, received: u64, spool: bool },
}

pub(super) struct World {
    dice: Dice,
    rules: Rules,
    times: Times,
    t: u64,
    rough: bool,
    controller: Option<Controller>,
    /// What moves cost, as the controller that lives has seen.
    costs: Costs,
    /// All that arrived, whichever controller saw them.
    pub(super) arrived: u64,
    back_at: u64,
    /// Its clock gains so much, millionths.
    ppm: i64,
    log: Vec<Record>,
    /// How much of the log is on the disk.
    stored: usize,
    /// Trees that are young: what became of them is lost with the controller, and since when.
    young: BTreeMap<TreeId, u64>,
    /// What became of those, and of others that were over while they were.
    aside: Vec<Record>,
    over: Vec<Record>,
    /// The last number that the disk has as given.
    given: u64,
    /// Trees that a controller took with it.
    forsaken: BTreeSet<TreeId>,
    mail: Vec<(u64, Mail)>,
    nodes: BTreeMap<NodeNumber, Node>,
    /// Nodes that nobody reaches.
    cut: BTreeSet<NodeNumber>,
    /// Whoever asked for them was told that they are there.
    known: BTreeSet<TreeId>,
    /// Ended, perhaps, while they waited.
    killed: BTreeSet<TreeId>,
    /// More than one node had a checkpoint of them at some time, and none was elsewhere since.
    copied: BTreeSet<TreeId>,
    goals: BTreeMap<TreeId, u64>,
    births: BTreeMap<TreeId, NodeNumber>,
    /// What who follows them has.
    intakes: BTreeMap<TreeId, Intake>,
    /// The last copies that turned to another spool, and where that is.
    homes: BTreeMap<TreeId, (u64, NodeNumber)>,
    /// Trees that lost what they had written: nobody that could be reached had it.
    lossy: BTreeSet<TreeId>,
    /// Trees whose spools were lost, and are whole.
    taken: BTreeSet<TreeId>,
    started: BTreeSet<TreeId>,
    finished: BTreeMap<TreeId, Outcome>,
}

impl World {
    pub(super) fn new(mut dice: Dice, rules: Rules) -> World {
        let ms = Duration::from_millis;
        let times = Times::new(ms(500), ms(1000), ms(4000)).unwrap();
        let numbers = (1..=NODES).map(|n| NodeNumber::try_from(n).unwrap());
        let nodes: BTreeMap<NodeNumber, Node> =
            numbers.map(|n| (n, Node::new(n, times.lease(), rules.lease, &mut dice))).collect();
        let ppm = dice.below(18_000) as i64 - 9_000;
        let controller = Controller::new(State::default(), times, Millis(0));
        let (log, mail, cut, goals, births, intakes, started, finished) = Default::default();
        let (known, killed, copied) = Default::default();
        let (homes, lossy, taken) = Default::default();
        let (young, aside, over, given, forsaken) = Default::default();
        let mut world = World {
            dice,
            rules,
            times,
            t: 0,
            rough: true,
            controller: Some(controller),
            costs: Costs::default(),
            arrived: 0,
            back_at: 0,
            ppm,
            log,
            stored: 0,
            young,
            aside,
            over,
            given,
            forsaken,
            mail,
            nodes,
            cut,
            known,
            killed,
            copied,
            goals,
            births,
            intakes,
            homes,
            lossy,
            taken,
            started,
            finished,
        };
        for n in 1..=NODES {
            let id = format!("n{n}.rennes").parse().unwrap();
            let vos = BTreeSet::from([vo()]);
            let effects = world.controller.as_mut().unwrap().add(&id, vos).unwrap();
            world.log.extend(effects.iter().filter_map(kept));
        }
        world.stored = world.log.len();
        world
    }

    pub(super) fn play(&mut self) {
        while self.t < ROUGH_MS {
            self.step();
        }
        self.rough = false;
        self.cut.clear();
        while self.t < ROUGH_MS + CALM_MS && !self.is_over() {
            self.step();
        }
        self.check();
    }

    fn step(&mut self) {
        let passed = 50 + self.dice.below(300);
        self.t += passed;
        if self.rough {
            self.faults();
        }
        self.deliver();
        self.live(passed);
        self.control();
        self.two_live();
        self.look_at_copies();
    }

    fn faults(&mut self) {
        if self.dice.chance(1) {
            self.controller_dies();
        }
        if !self.rules.crashes {
            return;
        }
        let numbers: Vec<NodeNumber> = self.nodes.keys().copied().collect();
        let Some(n) = self.dice.one_of(&numbers) else { return };
        match self.dice.below(80) {
            0 => {
                let wake_at = self.t + self.dice.below(8_000);
                self.nodes.get_mut(&n).unwrap().crash(wake_at);
            }
            1 => {
                self.cut.insert(n);
            }
            2..=6 => {
                self.cut.remove(&n);
            }
            7 if self.nodes[&n].up => {
                let node = self.nodes.get_mut(&n).unwrap();
                let out = node.restart_agent(self.t, &mut self.dice);
                self.leaves(n, out);
            }
            // One of them, and for good.
            8 if self.dice.chance(30) && !self.nodes.values().any(|node| node.dead) => {
                self.nodes.get_mut(&n).unwrap().die();
            }
            _ => {}
        }
    }

    fn clock(&self) -> Millis {
        Millis(drifted(self.t, self.ppm))
    }

    fn controller_dies(&mut self) {
        let Some(controller) = self.controller.take() else { return };
        let queued = (self.log.len() - self.stored) as u64;
        let lost = self.dice.below(queued + 1) as usize;
        let gone = self.log.split_off(self.log.len() - lost);
        self.stored = self.log.len();
        let mut state = State::default();
        for r in &self.log {
            let text = serde_json::to_string(r).unwrap();
            state.apply(&serde_json::from_str(&text).unwrap());
        }
        let all = lost == 0 && self.young.is_empty();
        assert!(!all || same(&state, controller.state()), "the journal gives another state");
        self.forsaken.extend(std::mem::take(&mut self.young).into_keys());
        for r in gone.iter().flat_map(Record::parts) {
            let Record::Tree(TreeRecord::Placed { tree, birth, .. }) = r else { continue };
            if state.trees.queue().wish(*tree).is_none() {
                // What made a young tree known was not on the disk yet, nor was the tree.
                self.forsaken.insert(*tree);
            } else {
                // It waits again: nobody was told where it is to be.
                self.nodes.get_mut(birth).unwrap().ghosts.remove(tree);
            }
        }
        self.aside.clear();
        let text = serde_json::to_string(&state).unwrap();
        let again: State = serde_json::from_str(&text).unwrap();
        assert!(again == state, "the snapshot gives another state");
        self.back_at = self.t + self.dice.below(6_000);
    }

    fn recover(&mut self) {
        let mut state = State::default();
        self.log.iter().for_each(|r| state.apply(r));
        let trees = state.trees.iter().map(|(tree, t)| (tree, t.clone())).collect();
        state.trees = Trees::of(trees, state.trees.queue().clone(), TreeId(self.given));
        self.controller = Some(Controller::new(state, self.times, self.clock()));
        self.costs = Costs::default();
    }

    /// What the controller's costs learn from a decision.
    fn note_costs(&mut self, r: &Record) {
        let Some(controller) = &self.controller else { return };
        let (trees, now) = (&controller.state().trees, self.clock());
        for part in r.parts() {
            let Record::Tree(r) = part else { continue };
            let Some(a) = self.costs.note(r, trees, now) else { continue };
            assert!(a.from != a.to && a.still <= a.took, "a move that is none: {a:?}");
            // Of one size the times seen bound what is expected.
            let most = Duration::from_millis(CALM_MS);
            assert!(self.costs.expected(a.from, a.to, a.bytes) <= most);
            self.arrived += 1;
        }
    }

    /// What a decision asks for; the controller can die between any two of them.
    fn perform(&mut self, effects: Vec<Effect>) {
        let mut before = Vec::new();
        for e in &effects {
            self.write(e);
            before.push(self.log.len());
        }
        for (e, before) in effects.into_iter().zip(before) {
            match e {
                Effect::Keep(r) => self.note_costs(&r),
                Effect::Tell { node, message } => {
                    if self.rules.barrier {
                        self.stored = self.stored.max(before);
                    }
                    self.send(Mail::Down(node, message));
                }
            }
            if self.rough && self.dice.below(1000) == 0 {
                self.controller_dies();
                return;
            }
        }
    }

    fn send(&mut self, mail: Mail) {
        if self.rough && self.dice.chance(10) {
            return;
        }
        let mut due = self.t + 1 + self.dice.below(60);
        if self.rough && self.dice.chance(5) {
            due += self.dice.below(6_000);
        }
        if self.rough && self.dice.chance(8) {
            let again = due + self.dice.below(6_000);
            self.mail.push((again, mail.clone()));
        }
        self.mail.push((due, mail));
    }

    fn reached(&self, n: NodeNumber) -> bool {
        self.nodes[&n].up && !self.cut.contains(&n)
    }

    fn deliver(&mut self) {
        let t = self.t;
        let all = std::mem::take(&mut self.mail);
        let (mut due, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|(at, _)| *at <= t);
        self.mail = later;
        due.sort_by_key(|(at, _)| *at);
        for (_, mail) in due {
            match mail {
                Mail::Up(n, m) => {
                    let now = self.clock();
                    // What a node sent before it was cut off arrives.
                    if let Some(controller) = &mut self.controller {
                        let effects = controller.message(n, &m, now);
                        self.perform(effects);
                    }
                }
                Mail::Down(n, m) => {
                    if self.reached(n) {
                        let node = self.nodes.get_mut(&n).unwrap();
                        let now = node.clock(t);
                        let acts = node.agent.message(&m, now);
                        let out = node.act(acts, t, &mut self.dice);
                        self.leaves(n, out);
                    }
                }
                Mail::Output { by, tree, epoch, from, len, spool } => {
                    self.output(by, (tree, epoch), from, len, spool);
                }
                Mail::Taken { by, tree, epoch, received, spool } => {
                    if self.nodes[&by].up {
                        self.nodes.get_mut(&by).unwrap().acked(tree, epoch, (received, spool));
                    }
                }
            }
        }
    }

    fn output(
        &mut self,
        by: NodeNumber,
        (tree, epoch): (TreeId, u64),
        from: u64,
        len: u64,
        spool: bool,
    ) {
        let birth = self.births[&tree];
        let near = birth == by && self.nodes[&birth].up;
        let ghost = (near || self.reached(birth)) && self.nodes[&birth].ghosts.contains(&tree);
        // What a copy sent that is gone is not heard any more: its line is.
        let turned = |p: &Proc| p.epoch == epoch && p.spool;
        let live = self.nodes[&by].procs.get(&tree).is_some_and(turned);
        let heard = if spool { live } else { ghost };
        if !heard {
            return;
        }
        let intake = self.intakes.entry(tree).or_default();
        // Who follows it has what the spool began with from there: a copy does not send it again.
        let begun = self.nodes[&by].spools.spool(tree).filter(|part| spool && part.ends >= from);
        if let Some(part) = begun.filter(|part| part.begins <= intake.received) {
            intake.take(epoch, intake.received, part.ends.saturating_sub(intake.received));
        }
        let before = intake.received;
        match intake.take(epoch, from, len) {
            Taken::Gap => panic!("tree {tree}: output between {before} and {from} is lost"),
            Taken::Stale => return,
            Taken::New { skip } => {
                assert_eq!(intake.received - before, len - skip, "tree {tree}: doubled output");
                assert!(intake.received <= self.goals[&tree], "tree {tree}: too much output");
            }
            Taken::Known => {}
        }
        let at = if spool { by } else { birth };
        let kept = self.nodes.get_mut(&at).unwrap().spools.open(tree, from);
        assert!(from <= kept.ends, "tree {tree}: {at} lacks {} to {from}", kept.ends);
        kept.ends = kept.ends.max(from + len);
        let received = kept.ends;
        let taken = Mail::Taken { by, tree, epoch, received, spool };
        if near || spool {
            self.mail.push((self.t + 1, taken));
        } else {
            self.send(taken);
        }
    }

    fn leaves(&mut self, n: NodeNumber, out: Vec<Leaves>) {
        for leaf in out {
            match leaf {
                Leaves::Say(m) if !self.cut.contains(&n) => self.send(Mail::Up(n, m)),
                Leaves::Say(_) => {}
                Leaves::Output { tree, epoch, from, len, spool } => {
                    let local = spool || self.births[&tree] == n;
                    if local || !self.cut.contains(&n) {
                        self.send(Mail::Output { by: n, tree, epoch, from, len, spool });
                    }
                }
                Leaves::Started(tree) => {
                    assert!(self.started.insert(tree), "tree {tree} was started twice");
                }
                Leaves::Restored(tree, written) => {
                    let received = self.intakes.get(&tree).map_or(0, |i| i.received);
                    assert!(written <= received, "tree {tree}: output before the image is lost");
                }
                Leaves::Finished(tree, outcome) => {
                    if self.forsaken.contains(&tree) {
                        let lives = self.nodes.values().any(|node| node.is_live(tree));
                        assert!(!lives, "tree {tree} runs, and its ghost has ended");
                    }
                    let before = self.finished.insert(tree, outcome.clone());
                    assert!(before.is_none_or(|b| b == outcome), "tree {tree} ended twice");
                }
            }
        }
    }

    fn live(&mut self, passed: u64) {
        let numbers: Vec<NodeNumber> = self.nodes.keys().copied().collect();
        for n in numbers {
            if !self.nodes[&n].up {
                let node = &self.nodes[&n];
                if node.dead || (self.rough && self.t < node.wake_at) {
                    continue;
                }
                self.nodes.get_mut(&n).unwrap().up = true;
            }
            let all = self.nodes.keys().copied();
            let near: BTreeSet<NodeNumber> =
                all.filter(|m| self.reached(*m) && !self.cut.contains(&n)).collect();
            let disks: BTreeMap<NodeNumber, BTreeSet<(TreeId, u64)>> =
                near.iter().map(|m| (*m, self.nodes[m].disk.clone())).collect();
            let spools: BTreeMap<NodeNumber, Spools> =
                near.iter().map(|m| (*m, self.nodes[m].spools.clone())).collect();
            let image = |tree: TreeId, version: u64, from: &BTreeSet<NodeNumber>| {
                let mut disks = from.iter().filter_map(|m| disks.get(m));
                disks.any(|disk| disk.contains(&(tree, version)))
            };
            let output = |tree: TreeId, at: &[NodeNumber], line: Line, upto: u64| {
                let mut from = at.iter().filter(|m| **m != n).filter_map(|m| spools.get(m));
                from.find_map(|of| of.gives(tree, line, upto))
            };
            let near = Near { image: &image, output: &output };
            let node = self.nodes.get_mut(&n).unwrap();
            let time = (self.t, passed);
            let out = node.live(time, &self.goals, &near, self.rough, &mut self.dice);
            let node = self.nodes.get_mut(&n).unwrap();
            let (adopted, turned) =
                (std::mem::take(&mut node.adopted), std::mem::take(&mut node.turned));
            for (tree, _) in adopted.iter().filter(|(_, whole)| !**whole) {
                let has = self.nodes[&n].procs.get(tree).map_or(0, |p| p.acked);
                self.is_nowhere(*tree, has, n, &spools);
            }
            for (tree, epoch) in turned {
                let home = self.homes.entry(tree).or_insert((epoch, n));
                if epoch >= home.0 {
                    *home = (epoch, n);
                }
            }
            for (tree, whole) in adopted {
                let set = if whole { &mut self.taken } else { &mut self.lossy };
                set.insert(tree);
            }
            self.leaves(n, out);
        }
    }

    fn control(&mut self) {
        if self.controller.is_none() {
            if self.rough && self.t < self.back_at {
                return;
            }
            self.recover();
        }
        if !self.rules.barrier && self.dice.chance(5) {
            self.stored = self.log.len();
        }
        let old = self.young.iter().filter(|(_, since)| self.t >= **since + YOUNG_MS);
        let old: Vec<TreeId> = old.map(|(tree, _)| *tree).collect();
        for tree in old {
            self.ripen(tree);
            self.stored = self.log.len();
        }
        let now = self.clock();
        let Some(controller) = &mut self.controller else { return };
        let effects = controller.tick(now);
        self.perform(effects);
        self.prove();
        if self.rough {
            match self.dice.below(14) {
                0 | 1 => self.submit(),
                2..=4 => self.migrate(),
                5 | 6 => self.save(),
                7 if self.dice.chance(20) => self.drain(),
                8 => self.begin(),
                9 if self.dice.chance(20) => self.kill_waiting(),
                10 if self.dice.chance(15) => self.serve(false),
                11 => self.serve(true),
                12 | 13 => self.copy(),
                _ => {}
            }
        } else {
            self.serve(true);
            self.begin();
            self.copy();
        }
        self.restart();
    }

    fn numbers(&self, state: NodeState) -> Vec<NodeNumber> {
        let Some(controller) = &self.controller else { return Vec::new() };
        let members = controller.state().members.iter();
        members.filter(|(_, m)| m.state == state).map(|(n, _)| n).collect()
    }

    fn trees(&self, fit: impl Fn(&TreeState) -> bool) -> Vec<TreeId> {
        let Some(controller) = &self.controller else { return Vec::new() };
        let trees = controller.state().trees.iter();
        trees.filter(|(_, t)| fit(&t.state)).map(|(id, _)| id).collect()
    }
}

fn kept(e: &Effect) -> Option<Record> {
    match e {
        Effect::Keep(r) => Some(r.clone()),
        Effect::Tell { .. } => None,
    }
}

/// Whether two states are the same but for the numbers that were given.
fn same(a: &State, b: &State) -> bool {
    let trees = |state: &State| -> BTreeMap<TreeId, Tree> {
        state.trees.iter().map(|(tree, t)| (tree, t.clone())).collect()
    };
    a.members == b.members && trees(a) == trees(b) && a.trees.queue() == b.trees.queue()
}

fn vo() -> VoId {
    "demo.rennes".parse().unwrap()
}
