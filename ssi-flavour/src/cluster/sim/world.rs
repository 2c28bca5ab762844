//! One story.

use super::node::{Leaves, Node};
use super::{Dice, Rules};
use crate::cluster::controller::Controller;
use crate::cluster::interval::Interval;
use crate::cluster::members::{MemberRecord, Moves, NodeState, Times};
use crate::cluster::messages::{End, Outcome, ToController, ToNode, TreeId};
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
    Taken { by: NodeNumber, tree: TreeId, epoch: u64, received: u64 },
}

pub(super) struct World {
    dice: Dice,
    rules: Rules,
    times: Times,
    t: u64,
    rough: bool,
    controller: Option<Controller>,
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
    /// More than one node had a checkpoint of them at some time.
    copied: BTreeSet<TreeId>,
    goals: BTreeMap<TreeId, u64>,
    births: BTreeMap<TreeId, NodeNumber>,
    intakes: BTreeMap<TreeId, Intake>,
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
        let (young, aside, over, given, forsaken) = Default::default();
        let mut world = World {
            dice,
            rules,
            times,
            t: 0,
            rough: true,
            controller: Some(controller),
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
        self.log.truncate(self.log.len() - lost);
        self.stored = self.log.len();
        let mut state = State::default();
        for r in &self.log {
            let text = serde_json::to_string(r).unwrap();
            state.apply(&serde_json::from_str(&text).unwrap());
        }
        let all = lost == 0 && self.young.is_empty();
        assert!(!all || same(&state, controller.state()), "the journal gives another state");
        self.forsaken.extend(std::mem::take(&mut self.young).into_keys());
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
    }

    /// What a decision asks for; the controller can die between any two of them.
    fn perform(&mut self, effects: Vec<Effect>) {
        let mut before = Vec::new();
        for e in &effects {
            self.write(e);
            before.push(self.log.len());
        }
        for (e, before) in effects.into_iter().zip(before) {
            if let Effect::Tell { node, message } = e {
                if self.rules.barrier {
                    self.stored = self.stored.max(before);
                }
                self.send(Mail::Down(node, message));
            }
            if self.rough && self.dice.below(1000) == 0 {
                self.controller_dies();
                return;
            }
        }
    }

    /// Writes down what a decision changed; of young trees aside.
    fn write(&mut self, e: &Effect) {
        let Effect::Keep(record) = e else { return };
        let mut rest = Vec::new();
        for r in record.parts() {
            match r {
                Record::Tree(of) if self.young.contains_key(&of.tree()) => self.write_young(of),
                other => rest.push(other.clone()),
            }
        }
        self.log.extend(Record::of(rest));
    }

    fn write_young(&mut self, r: &TreeRecord) {
        let tree = r.tree();
        match r {
            TreeRecord::Placed { .. }
            | TreeRecord::Runs { .. }
            | TreeRecord::Ended { .. }
            | TreeRecord::Lost { .. } => self.aside.push(Record::Tree(r.clone())),
            TreeRecord::Forgotten { .. } => {
                self.young.remove(&tree);
                let of = self.take_aside(tree);
                self.over.extend(of);
            }
            _ => {
                self.ripen(tree);
                self.log.push(Record::Tree(r.clone()));
            }
        }
    }

    fn take_aside(&mut self, tree: TreeId) -> Vec<Record> {
        let of = |r: &Record| matches!(r, Record::Tree(r) if r.tree() == tree);
        let all = std::mem::take(&mut self.aside);
        let (of, others) = all.into_iter().partition(of);
        self.aside = others;
        of
    }

    /// A tree is young no more: all that became of it is one change.
    fn ripen(&mut self, tree: TreeId) {
        self.young.remove(&tree);
        let of = self.take_aside(tree);
        self.log.extend(Record::of(of));
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
                Mail::Taken { by, tree, epoch, received } => {
                    if self.nodes[&by].up {
                        self.nodes.get_mut(&by).unwrap().acked(tree, epoch, received);
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
        if !spool && !ghost {
            return;
        }
        let intake = self.intakes.entry(tree).or_default();
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
        let received = intake.received;
        let taken = Mail::Taken { by, tree, epoch, received };
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
            let reaches = |tree: TreeId, version: u64, from: &BTreeSet<NodeNumber>| {
                let mut disks = from.iter().filter_map(|m| disks.get(m));
                disks.any(|disk| disk.contains(&(tree, version)))
            };
            let node = self.nodes.get_mut(&n).unwrap();
            let time = (self.t, passed);
            let out = node.live(time, &self.goals, reaches, self.rough, &mut self.dice);
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

    fn prove(&mut self) {
        for n in self.numbers(NodeState::Present) {
            if let Some(controller) = &mut self.controller {
                let effects = controller.prove(n, Moves::Yes, 1).unwrap();
                self.perform(effects);
            }
        }
        if !self.rough {
            for n in self.numbers(NodeState::Draining) {
                if let Some(controller) = &mut self.controller {
                    let effects = controller.drain(n, false).unwrap();
                    self.perform(effects);
                }
            }
        }
    }

    fn submit(&mut self) {
        let online = self.numbers(NodeState::Online);
        let birth = self.dice.one_of(&online);
        let node = self.dice.one_of(&online);
        let Some(controller) = &mut self.controller else { return };
        let next = controller.state().trees.next();
        assert!(!self.forsaken.contains(&next), "tree {next} is given twice");
        if self.known.len() >= TREES || self.known.contains(&next) {
            return;
        }
        let member = MemberNumber(if self.dice.chance(50) { 7 } else { 8 });
        let owner = Owner { vo: vo(), member, uid: 70_000 + member.0 };
        let restartable = self.dice.chance(70);
        let wish = Wish { owner, restartable, interval: Interval::Best };
        let queued = self.dice.chance(40);
        let young = !queued && !restartable && self.dice.chance(70);
        let (tree, effects) = if queued {
            controller.queue(&wish)
        } else {
            let (Some(birth), Some(node)) = (birth, node) else { return };
            if !self.nodes[&birth].up {
                return;
            }
            let root = *birth.pids().start() + 300;
            let Ok((tree, effects)) = controller.start(root, &wish, birth, node) else { return };
            // The ghost is there before anything is told, and asks again when the controller dies.
            self.births.insert(tree, birth);
            self.nodes.get_mut(&birth).unwrap().ghosts.insert(tree);
            (tree, effects)
        };
        let least = if young { 1 } else { 60 };
        self.goals.insert(tree, least + self.dice.below(400));
        self.known.insert(tree);
        if young {
            self.young.insert(tree, self.t);
        }
        effects.iter().for_each(|e| self.write(e));
        // It is acknowledged: it is on the disk, or its number is.
        if !young || tree.0 > self.given {
            self.stored = self.log.len();
            self.given = self.given.max(tree.0) + u64::from(young);
        }
        self.perform(effects.into_iter().filter(|e| !matches!(e, Effect::Keep(_))).collect());
    }

    /// A node has room for what waits.
    fn begin(&mut self) {
        let online = self.numbers(NodeState::Online);
        let birth = self.dice.one_of(&online);
        let node = self.dice.one_of(&online);
        let (Some(birth), Some(node)) = (birth, node) else { return };
        let Some(controller) = &mut self.controller else { return };
        let next = controller.state().trees.queue().next(|_| false).map(|(tree, _)| tree);
        let Some(tree) = next.filter(|_| self.nodes[&birth].up) else { return };
        let root = *birth.pids().start() + 300;
        let Ok(effects) = controller.begin(tree, root, birth, node) else { return };
        assert!(!self.started.contains(&tree), "tree {tree} waits though it was started");
        self.births.insert(tree, birth);
        self.nodes.get_mut(&birth).unwrap().ghosts.insert(tree);
        self.perform(effects);
    }

    fn kill_waiting(&mut self) {
        let Some(controller) = &mut self.controller else { return };
        let next = controller.state().trees.queue().next(|_| false).map(|(tree, _)| tree);
        if let Some(tree) = next {
            let effects = controller.end(tree).unwrap();
            self.killed.insert(tree);
            self.perform(effects);
        }
    }

    /// The site serves the VO, or does not for a while; or its share has ended.
    fn serve(&mut self, on: bool) {
        let vos = if on { BTreeSet::from([vo()]) } else { BTreeSet::new() };
        let ended = !on && self.dice.chance(30);
        let Some(controller) = &mut self.controller else { return };
        let mut effects = controller.serve(&vos);
        if ended {
            effects.extend(controller.drop_waiting(&vos));
        }
        self.perform(effects);
    }

    /// Nodes fetch checkpoints that others made.
    fn copy(&mut self) {
        let now = self.clock();
        let online = self.numbers(NodeState::Online);
        let Some(controller) = &mut self.controller else { return };
        let mut effects = controller.settle(COPIES);
        for tree in controller.thin(COPIES) {
            let Some(to) = self.dice.one_of(&online) else { continue };
            effects.extend(controller.hold(tree, to, now).unwrap_or_default());
        }
        self.perform(effects);
    }

    fn migrate(&mut self) {
        let now = self.clock();
        let running = self.trees(|s| *s == TreeState::Running);
        let online = self.numbers(NodeState::Online);
        let (Some(tree), Some(to)) = (self.dice.one_of(&running), self.dice.one_of(&online)) else {
            return;
        };
        let Some(controller) = &mut self.controller else { return };
        if let Ok(effects) = controller.migrate(tree, to, now) {
            self.perform(effects);
        }
    }

    fn save(&mut self) {
        let now = self.clock();
        let running = self.trees(|s| *s == TreeState::Running);
        let Some(tree) = self.dice.one_of(&running) else { return };
        let Some(controller) = &mut self.controller else { return };
        if let Ok(effects) = controller.save(tree, now) {
            self.perform(effects);
        }
    }

    fn drain(&mut self) {
        let on = self.dice.chance(30);
        let from = if on { NodeState::Online } else { NodeState::Draining };
        let list = self.numbers(from);
        let Some(n) = self.dice.one_of(&list) else { return };
        let Some(controller) = &mut self.controller else { return };
        if let Ok(effects) = controller.drain(n, on) {
            self.perform(effects);
        }
    }

    fn restart(&mut self) {
        let now = self.clock();
        let online = self.numbers(NodeState::Online);
        for tree in self.trees(|s| matches!(s, TreeState::Checkpointed { .. })) {
            let Some(to) = self.dice.one_of(&online) else { return };
            let Some(controller) = &mut self.controller else { return };
            if let Ok(effects) = controller.restart(tree, to, now) {
                self.perform(effects);
            }
        }
    }

    fn two_live(&self) {
        for tree in self.births.keys() {
            let live: Vec<String> = self
                .nodes
                .iter()
                .filter(|(_, n)| n.is_live(*tree))
                .map(|(n, node)| format!("{n} (epoch {})", node.procs[tree].epoch))
                .collect();
            assert!(live.len() < 2, "tree {tree} lives on {} at {}", live.join(" and "), self.t);
        }
    }

    fn look_at_copies(&mut self) {
        let Some(controller) = &self.controller else { return };
        let two = |t: &Tree| {
            let of = t.checkpoint.as_ref().filter(|c| !c.shared && t.restartable);
            !t.state.is_final() && of.is_some_and(|c| c.nodes.len() >= COPIES)
        };
        let trees = controller.state().trees.iter().filter(|(_, t)| two(t));
        self.copied.extend(trees.map(|(tree, _)| tree));
    }

    fn is_over(&self) -> bool {
        let Some(controller) = &self.controller else { return false };
        controller.state().trees.iter().next().is_none()
            && controller.state().trees.queue().is_empty()
            && self.nodes.values().all(|n| n.procs.is_empty())
            && self.nodes.values().all(|n| n.ghosts.is_disjoint(&self.forsaken))
    }

    fn check(&self) {
        let Some(controller) = &self.controller else { panic!("no controller") };
        if let Some((id, t)) = controller.state().trees.iter().next() {
            panic!("tree {id} hangs: {:?}, confirmed {}", t.state, t.confirmed);
        }
        assert!(controller.state().trees.queue().is_empty(), "something waits for ever");
        for (n, node) in &self.nodes {
            assert!(node.procs.is_empty(), "{n} keeps copies of trees that are over");
            let waits = !node.ghosts.is_disjoint(&self.forsaken);
            assert!(!waits, "a ghost at {n} waits for a tree that nobody knows");
        }
        let log = || self.log.iter().chain(&self.over).flat_map(Record::parts);
        let failed = log().any(|r| {
            matches!(r, Record::Member(MemberRecord::Became { state: NodeState::Failed, .. }))
        });
        let mut ends: BTreeMap<TreeId, Outcome> = BTreeMap::new();
        for r in log() {
            let (tree, outcome) = match r {
                Record::Tree(TreeRecord::Ended { tree, end }) => (*tree, Outcome::Ended(*end)),
                Record::Tree(TreeRecord::Lost { tree, reason }) => {
                    self.check_lost(*tree, reason, failed);
                    (*tree, Outcome::Lost { reason: reason.clone() })
                }
                _ => continue,
            };
            let waited = self.killed.contains(&tree) && !self.started.contains(&tree);
            if let Outcome::Ended(end) = &outcome
                && !waited
            {
                assert_eq!(*end, End::Exit { code: 0 }, "tree {tree}: nobody killed it");
                let received = self.intakes.get(&tree).map_or(0, |i| i.received);
                assert_eq!(received, self.goals[&tree], "tree {tree}: output is missing");
            }
            assert!(ends.insert(tree, outcome).is_none(), "tree {tree} ended twice");
        }
        let ended: BTreeSet<TreeId> = ends.keys().copied().collect();
        let known: BTreeSet<TreeId> = self.known.difference(&self.forsaken).copied().collect();
        assert_eq!(ended, known, "a tree is gone without an end");
        for (tree, outcome) in self.finished.iter().filter(|(t, _)| !self.forsaken.contains(t)) {
            assert_eq!(ends.get(tree), Some(outcome), "tree {tree}: its ghost knows better");
        }
    }

    fn check_lost(&self, tree: TreeId, reason: &str, failed: bool) {
        if reason.contains("not served any more") {
            assert!(!self.started.contains(&tree), "tree {tree} is lost, and ran");
            return;
        }
        assert!(failed && !reason.is_empty(), "tree {tree} is lost: {reason}");
        // No more than one node was lost for good.
        let copied = self.copied.contains(&tree) && !reason.contains("restarts failed");
        assert!(!copied, "tree {tree} is lost, and two nodes had a checkpoint of it: {reason}");
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
