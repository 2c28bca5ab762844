//! The table of envelopes and units, without I/O.

mod kept;

use super::record::{Envelope, Left, Over, Stop, Unit, Why};
use crate::cluster::messages::{End, TreeId};
use crate::cluster::trees::Owner;
use crate::pids::NodeNumber;
use crate::service::keep::Change;
use crate::wire::TreeUnit;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xos_api::aem::{Carried, TaskSpec, UnitEnd, Usage};
use xos_api::node::units::{EnvelopeId, Room, StartUnits, UnitChange, UnitEvent};
use xos_base::{Error, Millis, PersonId};

/// Most units, each attempt by itself, that an envelope gets in its life; the job service opens
/// another one long before.
const ENVELOPE_UNITS_MAX: usize = 200_000;
/// Longest reason of a loss or a refusal that is passed on, in characters.
const REASON_CHARS_MAX: usize = 400;

/// What became of a unit's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::service) enum Happened {
    /// It runs.
    Started,
    /// Its output is at another node now.
    Spooled(NodeNumber),
    /// It ended, or was lost.
    Ended(Result<End, String>),
    /// It left for another cluster, as this; and why, when nobody asked for it.
    Left(Box<Carried>, String),
    /// Its node did not start it, for this reason.
    Refused(String),
}

/// A unit's number in its job, and the attempt.
type Key = (u32, u16);

#[derive(Clone, Debug)]
struct Held {
    kept: Envelope,
    tasks: BTreeMap<String, TaskSpec>,
    units: BTreeMap<Key, Unit>,
    /// Numbered from 1.
    events: Vec<UnitEvent>,
    /// How many of these the job service has stored.
    stored: usize,
    /// By place.
    waiting: BTreeMap<u64, Key>,
    /// Those that have a tree and have not ended.
    running: BTreeSet<Key>,
}

/// What is not kept yet.
#[derive(Clone, Debug, Default)]
struct Dirty {
    envelopes: BTreeSet<EnvelopeId>,
    tasks: BTreeSet<(EnvelopeId, String)>,
    units: BTreeSet<TreeUnit>,
    gone: Vec<Change>,
}

/// A unit that would be started next.
#[derive(Clone, Debug)]
pub(super) struct Next {
    pub unit: TreeUnit,
    pub index: u32,
    pub envelope: Envelope,
    pub task: TaskSpec,
    /// What it goes on from, when it came from a cluster.
    pub carried: Option<Box<Carried>>,
}

/// The units of a cluster.
#[derive(Clone, Debug, Default)]
pub(in crate::service) struct Units {
    held: BTreeMap<EnvelopeId, Held>,
    happened: Vec<(TreeUnit, Happened)>,
    /// What each copy of a tree used so far: processor time in milliseconds, most memory in bytes.
    used: BTreeMap<TreeId, BTreeMap<u64, (u64, u64)>>,
    /// Copies that were sent SIGTERM.
    pub(super) asked: BTreeSet<(TreeId, u64)>,
    dirty: Dirty,
    news: bool,
}

impl Held {
    fn new(kept: Envelope) -> Held {
        let (tasks, units, events, stored, waiting, running) = Default::default();
        Held { kept, tasks, units, events, stored, waiting, running }
    }

    fn running(&self) -> impl Iterator<Item = &Unit> {
        self.running.iter().filter_map(move |key| self.units.get(key))
    }

    /// Adds an event; its number.
    fn tell(&mut self, (unit, attempt): Key, at: Millis, what: UnitChange) -> u64 {
        self.events.push(UnitEvent { unit, attempt, at, what });
        self.events.len() as u64
    }

    fn start(&mut self, key: Key, at: Millis) {
        if self.units.get(&key).is_some_and(|u| u.started.is_none() && !u.is_over()) {
            let seq = self.tell(key, at, UnitChange::Started);
            if let Some(unit) = self.units.get_mut(&key) {
                unit.started = Some((seq, at));
            }
        }
    }

    fn end(&mut self, key: Key, at: Millis, how: UnitEnd, (cpu_ms, memory_bytes): (u64, u64)) {
        let Some(usage) = self.rests(key, at, (cpu_ms, memory_bytes)) else { return };
        let what = UnitChange::Ended { how: how.clone(), usage, output: None };
        let seq = self.tell(key, at, what);
        if let Some(unit) = self.units.get_mut(&key) {
            unit.over = Some(Over { seq, at, how, usage });
        }
    }

    /// Nothing of a unit runs or waits here any more: what it used, unless that was so before.
    fn rests(&mut self, key: Key, at: Millis, used: (u64, u64)) -> Option<Usage> {
        let unit = self.units.get(&key).filter(|u| !u.is_over())?;
        self.waiting.remove(&unit.place);
        self.running.remove(&key);
        let since = unit.started.map_or(at, |(_, since)| since);
        let wall_ms = u64::try_from(at.since(since).as_millis()).unwrap_or(u64::MAX);
        Some(Usage { wall_ms, cpu_ms: used.0, memory_bytes: used.1 })
    }

    fn leave(
        &mut self,
        key: Key,
        at: Millis,
        (carried, why): (Box<Carried>, String),
        used: (u64, u64),
    ) {
        let Some(usage) = self.rests(key, at, used) else { return };
        let why: String = why.chars().take(REASON_CHARS_MAX).collect();
        let what = UnitChange::Left { usage, carried: carried.clone(), why: why.clone() };
        let seq = self.tell(key, at, what);
        if let Some(unit) = self.units.get_mut(&key) {
            unit.left = Some(Left { seq, at, usage, carried, why });
        }
    }
}

impl Units {
    /// Takes the units of an order; how many were new.
    pub(super) fn take(
        &mut self,
        order: &StartUnits,
        owner: &Owner,
        person: &PersonId,
    ) -> Result<u32, Error> {
        let id = &order.envelope;
        let known = self.held.get(id);
        if known.is_some_and(|h| h.kept.owner != *owner) {
            return Err(Error::conflict("that envelope is another person's"));
        }
        if known.is_some_and(|h| h.kept.ending) {
            return Err(Error::unavailable(format!("envelope {id} is being ended")));
        }
        let count = known.map_or(0, |h| h.units.len());
        if count + order.units.len() > ENVELOPE_UNITS_MAX {
            let text = format!("an envelope has {ENVELOPE_UNITS_MAX} units at most");
            return Err(Error::limited(text));
        }
        let name = &order.task.name;
        if known.and_then(|h| h.tasks.get(name)).is_some_and(|task| *task != order.task) {
            return Err(Error::conflict(format!("task {name} of {id} is known as another one")));
        }
        if known.is_none() {
            self.dirty.envelopes.insert(id.clone());
        }
        let held = self.held.entry(id.clone()).or_insert_with(|| {
            Held::new(Envelope {
                owner: owner.clone(),
                person: person.clone(),
                site: order.site.clone(),
                room: Room { slots: order.room.slots.max(1), ..order.room },
                ending: false,
            })
        });
        if held.tasks.insert(name.clone(), order.task.clone()).is_none() {
            self.dirty.tasks.insert((id.clone(), name.clone()));
        }
        let mut new = 0;
        for u in &order.units {
            let key = (u.unit, u.attempt);
            if held.units.contains_key(&key) {
                continue;
            }
            let place = held.units.len() as u64;
            let (task, index) = (name.clone(), u.index);
            let (tree, spool, stop, started, over, left) = Default::default();
            let carried = order.carried.clone();
            let unit = Unit { place, task, index, tree, spool, stop, started, over, carried, left };
            held.units.insert(key, unit);
            held.waiting.insert(place, key);
            self.dirty.units.insert(unit_of(id, key));
            new += 1;
        }
        Ok(new)
    }

    /// Units are to end; those that wait do at once.
    pub(super) fn kill(
        &mut self,
        id: &EnvelopeId,
        units: Option<&[u32]>,
        (now, kill_at): (Millis, Millis),
    ) {
        let Some(held) = self.held.get_mut(id) else { return };
        let meant = |key: &&Key| units.is_none_or(|list| list.contains(&key.0));
        let waiting: Vec<Key> = held.waiting.values().filter(meant).copied().collect();
        for key in waiting {
            held.end(key, now, UnitEnd::Cancelled, (0, 0));
            self.news = true;
            self.dirty.units.insert(unit_of(id, key));
        }
        let running: Vec<Key> = held.running.iter().filter(meant).copied().collect();
        for key in running {
            let Some(unit) = held.units.get_mut(&key) else { continue };
            let kill_at = unit.stop.map_or(kill_at, |stop| stop.kill_at.min(kill_at));
            let why = unit.stop.map_or(Why::Asked, |stop| stop.why);
            let stop = Some(Stop { why, kill_at });
            if unit.stop != stop {
                unit.stop = stop;
                self.dirty.units.insert(unit_of(id, key));
            }
        }
    }

    /// An envelope takes nothing more.
    pub(super) fn close(&mut self, id: &EnvelopeId) {
        if let Some(held) = self.held.get_mut(id)
            && !held.kept.ending
        {
            held.kept.ending = true;
            self.dirty.envelopes.insert(id.clone());
        }
    }

    /// Whether nothing of an envelope runs; none: there is no such envelope.
    pub(super) fn is_quiet(&self, id: &EnvelopeId) -> Option<bool> {
        self.held.get(id).map(|h| h.running.is_empty() && h.waiting.is_empty())
    }

    /// Where the trees of an envelope left what they wrote.
    pub(super) fn spools(&self, id: &EnvelopeId) -> BTreeMap<NodeNumber, Vec<TreeId>> {
        let mut all: BTreeMap<NodeNumber, Vec<TreeId>> = BTreeMap::new();
        for unit in self.held.get(id).into_iter().flat_map(|h| h.units.values()) {
            if let (Some(tree), Some(node)) = (unit.tree, unit.spool) {
                all.entry(node).or_default().push(tree);
            }
        }
        all
    }

    /// An envelope is no more.
    pub(super) fn forget(&mut self, id: &EnvelopeId) {
        let Some(held) = self.held.remove(id) else { return };
        let units = held.units.into_keys().map(|key| Change::UnitGone(unit_of(id, key)));
        self.dirty.gone.extend(units);
        let tasks = held.tasks.into_keys().map(|name| Change::TaskGone(id.clone(), name));
        self.dirty.gone.extend(tasks);
        self.dirty.gone.push(Change::EnvelopeGone(id.clone()));
    }

    /// What became of a unit's tree; counts with [`Units::settle`].
    pub fn happened(&mut self, unit: &TreeUnit, what: Happened) {
        self.happened.push((unit.clone(), what));
    }

    /// Takes in what happened until now, and which units ran for too long.
    pub fn settle(&mut self, now: Millis) {
        for (id, what) in std::mem::take(&mut self.happened) {
            let Some(held) = self.held.get_mut(&id.envelope) else { continue };
            let key = (id.unit, id.attempt);
            let over = match what {
                Happened::Started => {
                    held.start(key, now);
                    None
                }
                Happened::Spooled(node) => {
                    if let Some(unit) = held.units.get_mut(&key) {
                        unit.spool = Some(node);
                    }
                    None
                }
                Happened::Ended(Ok(end)) => Some(Ok(end)),
                Happened::Ended(Err(why)) => Some(Err(UnitEnd::Lost { reason: cut(&why) })),
                Happened::Refused(why) => Some(Err(UnitEnd::NotStarted { reason: cut(&why) })),
                Happened::Left(carried, why) => {
                    let Some(unit) = held.units.get(&key) else { continue };
                    // One that is to end does: its tree is ended with the next turn.
                    if unit.stop.is_some() {
                        continue;
                    }
                    let used = unit.tree.and_then(|tree| self.used.remove(&tree));
                    let used = used.map(|copies| summed(&copies)).unwrap_or_default();
                    self.asked.retain(|(tree, _)| unit.tree != Some(*tree));
                    held.leave(key, now, (carried, why), used);
                    None
                }
            };
            if let Some(how) = over {
                let Some(unit) = held.units.get(&key) else { continue };
                let used = unit.tree.and_then(|tree| self.used.remove(&tree));
                let used = used.map(|copies| summed(&copies)).unwrap_or_default();
                self.asked.retain(|(tree, _)| unit.tree != Some(*tree));
                let (stop, started) = (unit.stop, how.is_ok());
                // Of one that came, and of which no copy became the tree, nothing ever ran.
                let never = unit.carried.is_some() && unit.started.is_none();
                if started {
                    held.start(key, now);
                }
                let how = match (ended(how, stop), never) {
                    (UnitEnd::Lost { reason }, true) => UnitEnd::NotStarted { reason },
                    (how, _) => how,
                };
                held.end(key, now, how, used);
            }
            self.news = true;
            self.dirty.units.insert(id);
        }
    }

    /// Units that ran for as long as they may are to end, `grace` later by SIGKILL.
    pub(super) fn watch_walls(&mut self, now: Millis, grace: Duration) {
        for (id, held) in &mut self.held {
            for key in &held.running {
                let Some(unit) = held.units.get_mut(key) else { continue };
                let wall_s = held.tasks.get(&unit.task).and_then(|t| t.resources.wall_time_s);
                let (Some(wall_s), Some((_, since))) = (wall_s, unit.started) else { continue };
                if unit.stop.is_none() && now.since(since) >= Duration::from_secs(wall_s) {
                    unit.stop = Some(Stop { why: Why::WallTime, kill_at: now.plus(grace) });
                    self.dirty.units.insert(unit_of(id, *key));
                }
            }
        }
    }

    /// The trees of units that are to end, and from when on by SIGKILL.
    pub(super) fn stopping(&self) -> Vec<(TreeId, Millis)> {
        let running = self.running().filter_map(|(_, unit)| Some((unit.tree?, unit.stop?.kill_at)));
        running.collect()
    }

    fn running(&self) -> impl Iterator<Item = (&Held, &Unit)> {
        self.held.values().flat_map(|held| held.running().map(move |unit| (held, unit)))
    }

    /// The trees of units that run, and what these have: thousandths of processors, bytes.
    pub(super) fn taken(&self) -> Vec<(TreeId, u64, u64)> {
        let running = self.running().filter_map(|(held, unit)| {
            let r = &held.tasks.get(&unit.task)?.resources;
            Some((unit.tree?, u64::from(r.cpu_milli), r.memory_bytes))
        });
        running.collect()
    }

    /// The trees of an envelope that have not ended.
    pub(super) fn trees_of(&self, id: &EnvelopeId) -> Vec<TreeId> {
        let held = self.held.get(id).into_iter();
        held.flat_map(|held| held.running()).filter_map(|unit| unit.tree).collect()
    }

    /// Those of the units of an envelope that run, and their trees.
    pub(super) fn running_of(&self, id: &EnvelopeId, units: &BTreeSet<u32>) -> Vec<(u32, TreeId)> {
        let Some(held) = self.held.get(id) else { return Vec::new() };
        let meant = held.running.iter().filter(|(unit, _)| units.contains(unit));
        meant.filter_map(|key| Some((key.0, held.units.get(key)?.tree?))).collect()
    }

    /// Envelopes with units that wait and may start beside those that run.
    pub fn waiting(&self) -> Vec<EnvelopeId> {
        let may = |h: &Held| !h.waiting.is_empty() && h.running.len() < h.kept.room.slots as usize;
        self.held.iter().filter(|(_, h)| may(h)).map(|(id, _)| id.clone()).collect()
    }

    /// The unit of an envelope that would be started next; none: it has as many as it may.
    pub(super) fn next(&self, id: &EnvelopeId) -> Option<Next> {
        let held = self.held.get(id)?;
        let (_, key) = held.waiting.first_key_value()?;
        let free = held.running.len() < held.kept.room.slots as usize;
        let unit = held.units.get(key).filter(|_| free)?;
        Some(Next {
            unit: unit_of(id, *key),
            index: unit.index,
            envelope: held.kept.clone(),
            task: held.tasks.get(&unit.task)?.clone(),
            carried: unit.carried.clone(),
        })
    }

    /// A unit that waits does not go on here.
    pub(super) fn refuse(&mut self, id: &TreeUnit, why: &str) {
        let Some(held) = self.held.get_mut(&id.envelope) else { return };
        if let Some(unit) = held.units.get(&(id.unit, id.attempt)) {
            held.waiting.remove(&unit.place);
        }
        self.happened(id, Happened::Ended(Err(why.to_owned())));
    }

    /// All units, each with its envelope.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Envelope, &Unit)> {
        self.held.values().flat_map(|held| held.units.values().map(move |unit| (&held.kept, unit)))
    }

    /// The units of an envelope.
    pub(super) fn units_of(&self, id: &EnvelopeId) -> impl Iterator<Item = &Unit> {
        self.held.get(id).into_iter().flat_map(|held| held.units.values())
    }

    /// A unit has a tree, born at a node.
    pub(super) fn placed(&mut self, id: &TreeUnit, tree: TreeId, birth: NodeNumber) {
        let Some(held) = self.held.get_mut(&id.envelope) else { return };
        let key = (id.unit, id.attempt);
        if let Some(unit) = held.units.get_mut(&key) {
            (unit.tree, unit.spool) = (Some(tree), Some(birth));
            held.waiting.remove(&unit.place);
            held.running.insert(key);
            self.dirty.units.insert(id.clone());
        }
    }

    /// A copy of a unit's tree used so much processor time, milliseconds, and had so much memory,
    /// bytes, since it was made. What is over has been reported.
    pub(super) fn used(
        &mut self,
        id: &TreeUnit,
        (tree, epoch): (TreeId, u64),
        (cpu_ms, memory_bytes): (u64, u64),
    ) {
        let runs = self.unit(&id.envelope, (id.unit, id.attempt));
        if !runs.is_some_and(|unit| unit.over.is_none() && unit.tree == Some(tree)) {
            return;
        }
        let (cpu, memory) = self.used.entry(tree).or_default().entry(epoch).or_default();
        // What was said before may come later.
        *cpu = cpu_ms.max(*cpu);
        *memory = memory_bytes.max(*memory);
    }

    /// A unit.
    pub(super) fn unit(&self, id: &EnvelopeId, key: (u32, u16)) -> Option<&Unit> {
        self.held.get(id)?.units.get(&key)
    }
}

fn unit_of(id: &EnvelopeId, (unit, attempt): Key) -> TreeUnit {
    TreeUnit { envelope: id.clone(), unit, attempt }
}

/// What all copies of a tree used together: one runs after the other.
fn summed(copies: &BTreeMap<u64, (u64, u64)>) -> (u64, u64) {
    copies.values().fold((0, 0), |(cpu, memory), (more_cpu, other)| {
        (cpu.saturating_add(*more_cpu), memory.max(*other))
    })
}

fn cut(reason: &str) -> String {
    reason.chars().take(REASON_CHARS_MAX).collect()
}

/// What the end of its tree means for a unit.
fn ended(how: Result<End, UnitEnd>, stop: Option<Stop>) -> UnitEnd {
    match (stop.map(|stop| stop.why), how) {
        (Some(Why::Asked), _) => UnitEnd::Cancelled,
        (Some(Why::WallTime), _) => UnitEnd::WallTime,
        (None, Ok(End::Exit { code })) => UnitEnd::Exit { code },
        (None, Ok(End::Signal { number })) => UnitEnd::Signal { signal: number },
        (None, Ok(End::OutOfMemory)) => UnitEnd::OutOfMemory,
        (None, Ok(End::ProcessLimit { status })) => UnitEnd::ProcessLimit { status },
        (None, Err(never)) => never,
    }
}
