//! A node: processes that count, under an agent.

mod output;

use super::Dice;
use super::spools::{Part, Spools};
use crate::cluster::agent::{Act, Agent};
use crate::cluster::messages::{
    End, FORSAKEN, Image, Line, Offsets, Outcome, ToController, TreeId, Written,
};
use crate::pids::NodeNumber;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xos_base::Millis;

/// For how long output that is not taken holds up a dump.
const DRAIN_MS: u64 = 4_000;
/// A program writes a byte in so many ms.
const BYTE_MS: u64 = 50;

pub(super) struct Proc {
    pub(super) epoch: u64,
    pub(super) running: bool,
    pub(super) written: u64,
    pub(super) acked: u64,
    pub(super) spool: bool,
    /// Nobody takes its output until it goes to a spool here.
    held: bool,
    /// What it writes is kept here as well.
    follow: bool,
}

#[derive(Clone)]
enum Work {
    Started,
    Killed,
    Dump { attempt: u64, version: u64 },
    Restore { image: Image },
    Save { version: u64, written: u64 },
    Hold { attempt: u64, version: u64, from: BTreeSet<NodeNumber>, output: Option<Kept> },
    Spool { output: Option<Written> },
}

/// Output that is to be kept, and from where on a copy here keeps what it writes.
#[derive(Clone)]
struct Kept {
    written: Written,
    /// Which copy, and where it was.
    tail: Option<(u64, u64)>,
}

/// Whom a node reaches.
pub(super) struct Near<'a> {
    /// Whether one of the nodes has an image.
    pub(super) image: &'a dyn Fn(TreeId, u64, &BTreeSet<NodeNumber>) -> bool,
    /// Output up to an offset, from the first of the nodes that has it.
    pub(super) output: &'a dyn Fn(TreeId, &[NodeNumber], Line, u64) -> Option<Part>,
}

#[derive(Clone)]
struct Job {
    due: u64,
    since: u64,
    tree: TreeId,
    epoch: u64,
    work: Work,
}

pub(super) struct Node {
    pub(super) number: NodeNumber,
    pub(super) agent: Agent,
    /// Its clock gains so much, millionths.
    ppm: i64,
    offset: u64,
    pub(super) up: bool,
    pub(super) wake_at: u64,
    /// It never comes back, nor does its disk.
    pub(super) dead: bool,
    pub(super) procs: BTreeMap<TreeId, Proc>,
    pub(super) ghosts: BTreeSet<TreeId>,
    pub(super) disk: BTreeSet<(TreeId, u64)>,
    pub(super) spools: Spools,
    /// Trees of which a spool was here when the node was started.
    left: BTreeSet<TreeId>,
    /// Copies whose spools were to be here, and began with all that the tree had written, or not.
    pub(super) adopted: BTreeMap<TreeId, bool>,
    /// Copies whose output goes to spools here since then.
    pub(super) turned: Vec<(TreeId, u64)>,
    jobs: Vec<Job>,
    frozen: bool,
    freeze_at: Option<u64>,
    next_beat: u64,
    obeys: bool,
}

/// What leaves a node.
pub(super) enum Leaves {
    Say(ToController),
    Output { tree: TreeId, epoch: u64, from: u64, len: u64, spool: bool },
    Started(TreeId),
    Restored(TreeId, u64),
    Finished(TreeId, Outcome),
}

impl Node {
    pub(super) fn new(number: NodeNumber, lease: Duration, obeys: bool, dice: &mut Dice) -> Node {
        let (procs, ghosts, disk, jobs, freeze_at) = Default::default();
        let (spools, left, adopted, turned) = Default::default();
        Node {
            number,
            agent: Agent::new(lease),
            ppm: dice.below(18_000) as i64 - 9_000,
            offset: dice.below(1_000_000),
            up: true,
            wake_at: 0,
            dead: false,
            procs,
            ghosts,
            disk,
            spools,
            left,
            adopted,
            turned,
            jobs,
            frozen: true,
            freeze_at,
            next_beat: dice.below(500),
            obeys,
        }
    }

    pub(super) fn clock(&self, t: u64) -> Millis {
        Millis(self.offset + super::world::drifted(t, self.ppm))
    }

    pub(super) fn is_live(&self, tree: TreeId) -> bool {
        self.up && !self.frozen && self.procs.get(&tree).is_some_and(|p| p.running)
    }

    /// The machine stops: only its disk is left.
    pub(super) fn crash(&mut self, wake_at: u64) {
        self.procs.clear();
        self.jobs.clear();
        self.ghosts.clear();
        self.agent = self.agent.lasting();
        self.agent.rebooted();
        self.left = self.spools.trees().into_iter().collect();
        (self.frozen, self.freeze_at) = (true, None);
        (self.up, self.wake_at) = (false, wake_at);
    }

    /// The machine burns.
    pub(super) fn die(&mut self) {
        self.crash(u64::MAX);
        self.disk.clear();
        self.spools = Spools::default();
        self.dead = true;
    }

    /// Only the agent is killed and started again.
    pub(super) fn restart_agent(&mut self, t: u64, dice: &mut Dice) -> Vec<Leaves> {
        self.jobs.clear();
        let now = self.clock(t);
        let late = self.late(now);
        let acts = self.agent.restarted(now);
        let out = self.act(acts, t, dice);
        self.freeze_at = self.freeze_at.map(|at| at.saturating_sub(late));
        out
    }

    /// How long ago the lease ended: nodes see that at once, not only when a step of the story is.
    fn late(&self, now: Millis) -> u64 {
        now.since(self.agent.lease_until()).as_millis() as u64
    }

    pub(super) fn act(&mut self, acts: Vec<Act>, t: u64, dice: &mut Dice) -> Vec<Leaves> {
        let mut out = Vec::new();
        for act in acts {
            self.one(act, t, dice, &mut out);
        }
        out
    }

    fn one(&mut self, act: Act, t: u64, dice: &mut Dice, out: &mut Vec<Leaves>) {
        match act {
            Act::Start { tree, epoch } => {
                if let Entry::Vacant(place) = self.procs.entry(tree) {
                    let (running, spool, written, acked) = (true, false, 0, 0);
                    let (held, follow) = (false, false);
                    place.insert(Proc { epoch, running, written, acked, spool, held, follow });
                    out.push(Leaves::Started(tree));
                }
                self.job(t, dice.below(300), tree, epoch, Work::Started);
            }
            Act::Resume { tree, epoch } => {
                let dump = |j: &Job| j.tree == tree && matches!(j.work, Work::Dump { .. });
                self.jobs.retain(|j| !dump(j));
                if let Some(p) = self.proc(tree, epoch) {
                    p.running = true;
                }
            }
            Act::Dump { tree, epoch, attempt, version, .. } => {
                if let Some(p) = self.proc(tree, epoch) {
                    p.running = false;
                }
                let work = Work::Dump { attempt, version };
                self.job(t, 50 + dice.below(800), tree, epoch, work);
            }
            Act::Restore { tree, epoch, image, .. } => {
                self.job(t, 50 + dice.below(1200), tree, epoch, Work::Restore { image });
            }
            // A way to be faster only.
            Act::Expect { .. } => {}
            Act::Kill { tree, epoch } => {
                self.jobs.retain(|j| j.tree != tree || j.epoch != epoch);
                if self.proc(tree, epoch).is_some() {
                    self.procs.remove(&tree);
                }
                self.job(t, dice.below(300), tree, epoch, Work::Killed);
            }
            Act::Save { tree, epoch, version } => {
                if let Some(written) = self.proc(tree, epoch).map(|p| p.written) {
                    let work = Work::Save { version, written };
                    self.job(t, 50 + dice.below(500), tree, epoch, work);
                }
            }
            Act::Hold { tree, attempt, version, from, output, .. } => {
                let tail = self.procs.get(&tree).map(|p| (p.epoch, p.written));
                let output = output.map(|written| Kept { written, tail });
                let work = Work::Hold { attempt, version, from, output };
                self.job(t, 50 + dice.below(1500), tree, 0, work);
            }
            Act::Spool { tree, epoch, output } => {
                if let Some(p) = self.proc(tree, epoch) {
                    p.held = !p.spool;
                }
                let at = |j: &Job| j.tree == tree && j.epoch == epoch;
                if !self.jobs.iter().any(|j| at(j) && matches!(j.work, Work::Spool { .. })) {
                    self.job(t, dice.below(300), tree, epoch, Work::Spool { output });
                }
            }
            Act::Unspool { tree, epoch } => {
                self.left.remove(&tree);
                let used = self.procs.get(&tree).is_some_and(|p| p.spool);
                if !used && self.spools.line(tree) <= epoch {
                    self.spools.unspool(tree);
                }
            }
            Act::Finish { tree, outcome } => {
                if self.ghosts.remove(&tree) {
                    out.push(Leaves::Finished(tree, outcome));
                }
            }
            Act::Forsake { tree } => {
                if self.ghosts.remove(&tree) {
                    let outcome = Outcome::Lost { reason: FORSAKEN.to_owned() };
                    out.push(Leaves::Finished(tree, outcome));
                }
            }
            Act::Abandon => self.ghosts.clear(),
            Act::Discard { tree, version } => {
                self.disk.remove(&(tree, version));
                if !self.agent.keeps_some(tree) {
                    self.spools.let_go(tree);
                    if let Some(p) = self.procs.get_mut(&tree) {
                        p.follow = false;
                    }
                }
            }
            Act::Freeze if !self.obeys => {}
            // Within the time that a node has for it.
            Act::Freeze => {
                let at = t + dice.below(450);
                self.freeze_at = Some(self.freeze_at.map_or(at, |before| before.min(at)));
            }
            Act::Thaw => (self.frozen, self.freeze_at) = (false, None),
            Act::Say(m) => out.push(Leaves::Say(m)),
        }
    }

    /// Spools of before; which they are stands for who wrote to them last.
    fn left_spools(&self) -> Vec<(TreeId, u64)> {
        self.left.iter().map(|tree| (*tree, self.spools.line(*tree))).collect()
    }

    fn proc(&mut self, tree: TreeId, epoch: u64) -> Option<&mut Proc> {
        self.procs.get_mut(&tree).filter(|p| p.epoch == epoch)
    }

    fn job(&mut self, t: u64, after: u64, tree: TreeId, epoch: u64, work: Work) {
        self.jobs.push(Job { due: t + after, since: t, tree, epoch, work });
    }

    /// Some time went by.
    pub(super) fn live(
        &mut self,
        (t, passed): (u64, u64),
        goals: &BTreeMap<TreeId, u64>,
        near: &Near<'_>,
        rough: bool,
        dice: &mut Dice,
    ) -> Vec<Leaves> {
        let now = self.clock(t);
        let late = self.late(now);
        let acts = self.agent.tick(now);
        let lapsed = !acts.is_empty();
        let mut out = self.act(acts, t, dice);
        if lapsed {
            self.freeze_at = self.freeze_at.map(|at| at.saturating_sub(late));
        }
        if self.freeze_at.is_some_and(|at| at <= t) {
            (self.frozen, self.freeze_at) = (true, None);
        }
        self.run(passed, goals, dice, &mut out);
        let jobs = std::mem::take(&mut self.jobs);
        let (due, later): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|j| j.due <= t);
        self.jobs = later;
        for job in due {
            let acts = self.done(&job, t, near, rough && dice.chance(8), dice, &mut out);
            out.extend(self.act(acts, t, dice));
        }
        let ended: Vec<(TreeId, u64)> = self
            .procs
            .iter()
            .filter(|(tree, p)| p.running && p.acked >= goals[*tree])
            .map(|(tree, p)| (*tree, p.epoch))
            .collect();
        for (tree, epoch) in ended {
            if !self.frozen {
                if let Some(p) = self.proc(tree, epoch) {
                    p.running = false;
                }
                let acts = self.agent.ended(tree, epoch, End::Exit { code: 0 });
                out.extend(self.act(acts.into_iter().collect(), t, dice));
            }
        }
        if t >= self.next_beat {
            self.next_beat = t + 500;
            let mut acts = self.agent.beat(now);
            acts.extend(self.agent.stands(self.ghosts.iter().copied().collect()));
            acts.extend(self.agent.left(self.left_spools()));
            out.extend(self.act(acts, t, dice));
        }
        out
    }

    fn run(
        &mut self,
        passed: u64,
        goals: &BTreeMap<TreeId, u64>,
        dice: &mut Dice,
        out: &mut Vec<Leaves>,
    ) {
        for (tree, p) in &mut self.procs {
            if p.running && !self.frozen {
                p.written = (p.written + passed / BYTE_MS).min(goals[tree]);
            }
            // What holds a tree's output sends it while the tree stands still, too.
            if p.acked < p.written && !p.held && dice.chance(60) {
                let (from, len) = (p.acked, p.written - p.acked);
                let (tree, epoch, spool) = (*tree, p.epoch, p.spool);
                out.push(Leaves::Output { tree, epoch, from, len, spool });
            }
        }
    }

    fn done(
        &mut self,
        job: &Job,
        t: u64,
        near: &Near<'_>,
        unlucky: bool,
        dice: &mut Dice,
        out: &mut Vec<Leaves>,
    ) -> Vec<Act> {
        let Job { tree, epoch, since, .. } = *job;
        let now = self.clock(t);
        let luck = if unlucky { Err("bad luck".to_owned()) } else { Ok(()) };
        match &job.work {
            Work::Started => self.agent.started(tree, epoch).into_iter().collect(),
            Work::Killed => self.agent.killed(tree, epoch).into_iter().collect(),
            Work::Dump { attempt, version } => {
                let Some((written, acked)) = self.proc(tree, epoch).map(|p| (p.written, p.acked))
                else {
                    return Vec::new();
                };
                if acked < written && t < since + DRAIN_MS {
                    self.jobs.push(Job { due: t + 100, ..job.clone() });
                    return Vec::new();
                }
                let drained = luck.and(if acked < written {
                    Err("nobody takes the output".to_owned())
                } else {
                    Ok(())
                });
                let done = drained.map(|()| self.image(tree, *version, written, dice));
                self.agent.dumped(tree, epoch, *attempt, done)
            }
            Work::Save { version, written } => {
                let acked = self.proc(tree, epoch).map(|p| p.acked);
                let done = match acked {
                    Some(acked) if acked < *written && t < since + DRAIN_MS => {
                        self.jobs.push(Job { due: t + 100, ..job.clone() });
                        return Vec::new();
                    }
                    Some(acked) if acked >= *written => {
                        luck.map(|()| self.image(tree, *version, *written, dice))
                    }
                    _ => Err("nobody takes the output".to_owned()),
                };
                self.agent.saved(tree, epoch, *version, done).into_iter().collect()
            }
            Work::Restore { image } => {
                let here = self.disk.contains(&(tree, image.version));
                let given = || image.shared || (near.image)(tree, image.version, &image.nodes);
                let fetched =
                    if here || given() { luck } else { Err("no node has the image".to_owned()) };
                if fetched.is_ok() {
                    let written = image.output.out;
                    let (running, spool, acked) = (false, false, written);
                    let (held, follow) = (false, false);
                    let p = Proc { epoch, running, written, acked, spool, held, follow };
                    self.procs.insert(tree, p);
                    self.disk.insert((tree, image.version));
                    out.push(Leaves::Restored(tree, written));
                }
                self.agent.restored(tree, epoch, fetched, now).into_iter().collect()
            }
            Work::Hold { attempt, version, from, output } => {
                let here = self.disk.contains(&(tree, *version));
                let mut fetched = if here || (near.image)(tree, *version, from) {
                    luck
                } else {
                    Err("no node has the image".to_owned())
                };
                if fetched.is_ok() {
                    self.disk.insert((tree, *version));
                    if let Some(kept) = output
                        && !self.keep(tree, kept, near)
                    {
                        if t < since + DRAIN_MS {
                            self.jobs.push(Job { due: t + 100, ..job.clone() });
                            return Vec::new();
                        }
                        fetched = Err("no node has the output".to_owned());
                    }
                }
                let fetched = fetched.map(|()| output.is_some());
                self.agent.held(tree, *attempt, *version, fetched).into_iter().collect()
            }
            Work::Spool { output } => {
                let Some((acked, written)) = self.proc(tree, epoch).map(|p| (p.acked, p.written))
                else {
                    return Vec::new();
                };
                let has = (acked, written);
                if !self.procs[&tree].spool && !self.adopt(tree, output.as_ref(), has, near) {
                    if t < since + DRAIN_MS {
                        self.jobs.push(Job { due: t + 100, ..job.clone() });
                        return Vec::new();
                    }
                    self.spools.unspool(tree);
                    self.spools.let_go(tree);
                    self.spools.open(tree, acked);
                    if let Some(output) = output {
                        self.spools.renew(tree, output.line.number + 1);
                    }
                    self.adopted.insert(tree, false);
                }
                if let Some(p) = self.proc(tree, epoch) {
                    (p.spool, p.held, p.follow) = (true, false, false);
                }
                self.left.remove(&tree);
                self.turned.push((tree, epoch));
                self.agent.spooled(tree, epoch).into_iter().collect()
            }
        }
    }

    fn image(&mut self, tree: TreeId, version: u64, written: u64, dice: &mut Dice) -> Image {
        self.disk.insert((tree, version));
        Image {
            version,
            output: Offsets { out: written, err: 0 },
            bytes: 1 << 20,
            freeze_ms: 30,
            still_ms: 30,
            nodes: BTreeSet::from([self.number]),
            shared: dice.chance(50),
            written: BTreeSet::new(),
            brief: BTreeSet::new(),
        }
    }

    /// Output was taken; `spool`: by one that the copy turned to.
    pub(super) fn acked(&mut self, tree: TreeId, epoch: u64, (received, spool): (u64, bool)) {
        if let Some(p) = self.proc(tree, epoch).filter(|p| p.spool == spool && !p.held) {
            p.acked = p.acked.max(received.min(p.written));
        }
    }
}
