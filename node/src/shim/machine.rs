//! What a shim decides, without I/O: which unit starts when, what is recorded, who is signalled.
//!
//! The once-only rule lives here: a unit is asked of init only after [`Do::Record`] of its
//! `Starting`, and a key that is known is never taken again.

use crate::event::{Cause, Event, Outcome, TAKEN_MAX, UnitUsage};
use crate::proto::{
    GRACE_MS_MAX, LIMIT_GRACE_MS, QUEUE_MAX, Refusal, StartAnswer, UNITS_MAX, UnitState,
};
use crate::spec::{SLOTS_MAX, UnitKey, UnitSpec};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// An effect, to be performed in order; what comes before [`Do::Spawn`] must be on file first.
#[derive(Clone, Debug, PartialEq)]
pub enum Do {
    /// Append to the log.
    Record(Event),
    /// Ask init to start the unit in that place.
    Spawn(u32, Box<UnitSpec>),
    /// Ask init to signal the unit in that place: KILL if true, else TERM.
    Signal(u32, bool),
}

struct Running {
    key: UnitKey,
    spools: Spools,
    /// When its wall-clock limit is reached, in monotonic milliseconds.
    wall_at: Option<u64>,
    stop: Option<Stop>,
}

struct Stop {
    cause: Cause,
    kill_at: u64,
    killed: bool,
}

/// Which standard streams of a unit are spool files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spools {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

impl Spools {
    /// Those that are no files of the unit's own.
    pub fn of(unit: &UnitSpec) -> Spools {
        Spools { stdout: unit.stdout.is_none(), stderr: unit.stderr.is_none() }
    }
}

/// Which limits of the envelope were reached, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Processes were ended for want of memory since the last unit ended.
    pub memory: bool,
    /// A new process or thread was refused since the unit started.
    pub processes: bool,
}

enum Known {
    Waiting,
    Running(u32),
    Ended(Box<Outcome>),
}

/// The state of one envelope's units.
pub struct Machine {
    slots: u32,
    queue: VecDeque<UnitSpec>,
    running: BTreeMap<u32, Running>,
    known: HashMap<UnitKey, Known>,
    ended: u64,
    frozen_at: Option<u64>,
    ending: bool,
    halted: bool,
    /// The disk has little room.
    short: bool,
}

impl Machine {
    /// An envelope with no units.
    pub fn new(slots: u32) -> Machine {
        Machine {
            slots: slots.clamp(1, SLOTS_MAX),
            queue: VecDeque::new(),
            running: BTreeMap::new(),
            known: HashMap::new(),
            ended: 0,
            frozen_at: None,
            ending: false,
            halted: false,
            short: false,
        }
    }

    /// Knows units of before, which ended like that; to be called before any unit is taken.
    pub fn resume(&mut self, ended: impl IntoIterator<Item = (UnitKey, Outcome)>) {
        let ended = ended.into_iter().map(|(key, outcome)| (key, Known::Ended(Box::new(outcome))));
        self.known.extend(ended);
        self.ended = self.known.len() as u64;
    }

    /// Whether no unit runs or waits.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.queue.is_empty()
    }

    /// Takes units, or says where those stand that it has had before. They count as taken when
    /// the record is on file.
    pub fn start(&mut self, units: Vec<UnitSpec>, out: &mut Vec<Do>) -> Vec<StartAnswer> {
        let mut taken = Vec::new();
        let mut take = |unit: UnitSpec| {
            let key = unit.key.clone();
            let answer = self.take(unit);
            if answer == StartAnswer::Taken {
                taken.push(key);
            }
            answer
        };
        let answers = units.into_iter().map(&mut take).collect();
        let records = taken.chunks(TAKEN_MAX).map(|units| Event::Taken { units: units.to_vec() });
        out.extend(records.map(Do::Record));
        answers
    }

    fn take(&mut self, unit: UnitSpec) -> StartAnswer {
        if let Some(state) = self.state(&unit.key) {
            return StartAnswer::Known(state);
        }
        let refusal = if self.ending {
            Refusal::Ending
        } else if self.queue.len() >= QUEUE_MAX {
            Refusal::Full(QUEUE_MAX as u64)
        } else if self.known.len() >= UNITS_MAX {
            Refusal::Full(UNITS_MAX as u64)
        } else if let Err(e) = unit.check() {
            Refusal::Invalid(e.to_string())
        } else {
            self.known.insert(unit.key.clone(), Known::Waiting);
            self.queue.push_back(unit);
            return StartAnswer::Taken;
        };
        StartAnswer::Refused(refusal)
    }

    /// Where a unit stands.
    pub fn state(&self, key: &UnitKey) -> Option<UnitState> {
        self.known.get(key).map(|k| match k {
            Known::Waiting => UnitState::Waiting,
            Known::Running(_) => UnitState::Running,
            Known::Ended(o) => UnitState::Ended((**o).clone()),
        })
    }

    /// Starts waiting units while there is room. Nothing starts in a frozen envelope, or while the
    /// disk has little room.
    pub fn fill(&mut self, now: u64, out: &mut Vec<Do>) {
        if self.frozen_at.is_some() || self.halted || self.short {
            return;
        }
        while (self.running.len() as u32) < self.slots {
            let Some(unit) = self.queue.pop_front() else { return };
            let Some(slot) = (0..SLOTS_MAX).find(|s| !self.running.contains_key(s)) else {
                self.queue.push_front(unit);
                return;
            };
            let running = Running {
                key: unit.key.clone(),
                spools: Spools::of(&unit),
                wall_at: unit.wall_ms.map(|ms| now.saturating_add(ms)),
                stop: None,
            };
            self.running.insert(slot, running);
            self.known.insert(unit.key.clone(), Known::Running(slot));
            out.push(Do::Record(Event::Starting { unit: unit.key.clone() }));
            out.push(Do::Spawn(slot, Box::new(unit)));
        }
    }

    /// The unit in a place and its spool files.
    pub fn at(&self, slot: u32) -> Option<(&UnitKey, Spools)> {
        self.running.get(&slot).map(|r| (&r.key, r.spools))
    }

    /// A unit is over, as init saw it.
    pub fn ended(
        &mut self,
        slot: u32,
        mut outcome: Outcome,
        usage: Option<UnitUsage>,
        reached: Reached,
        out: &mut Vec<Do>,
    ) {
        let Some(r) = self.running.remove(&slot) else { return };
        let ours = r.stop.as_ref().map(|s| s.cause);
        match &mut outcome {
            Outcome::Signaled { signal: 9, cause } if reached.memory => {
                *cause = Some(Cause::MemoryLimit);
            }
            // A shell reports its child's KILL as 137.
            Outcome::Exited { code: 137, cause } if reached.memory => {
                *cause = Some(Cause::MemoryLimit);
            }
            // It managed without.
            Outcome::Exited { code: 0, .. } if ours.is_none() => {}
            Outcome::Signaled { cause, .. } | Outcome::Exited { cause, .. } if cause.is_none() => {
                *cause = ours.or(reached.processes.then_some(Cause::ProcessLimit));
            }
            _ => {}
        }
        self.finish(r.key, outcome, usage, out);
    }

    fn finish(
        &mut self,
        unit: UnitKey,
        outcome: Outcome,
        usage: Option<UnitUsage>,
        out: &mut Vec<Do>,
    ) {
        self.known.insert(unit.clone(), Known::Ended(Box::new(outcome.clone())));
        self.ended += 1;
        out.push(Do::Record(Event::Ended { unit, outcome, usage }));
    }

    /// Ends one unit.
    ///
    /// # Errors
    /// [`Refusal::NoSuchUnit`].
    pub fn kill(
        &mut self,
        key: &UnitKey,
        grace_ms: u64,
        now: u64,
        out: &mut Vec<Do>,
    ) -> Result<UnitState, Refusal> {
        match self.known.get(key) {
            None => return Err(Refusal::NoSuchUnit(key.clone())),
            Some(Known::Waiting) => {
                self.queue.retain(|u| u.key != *key);
                self.finish(key.clone(), Outcome::Cancelled, None, out);
            }
            Some(Known::Running(slot)) => self.stop(*slot, Cause::Asked, grace_ms, now, out),
            Some(Known::Ended(_)) => {}
        }
        self.state(key).ok_or_else(|| Refusal::NoSuchUnit(key.clone()))
    }

    /// Ends all units, those that wait first.
    pub fn kill_all(&mut self, cause: Cause, grace_ms: u64, now: u64, out: &mut Vec<Do>) {
        let outcome = match cause {
            Cause::Asked | Cause::EnvelopeEnded => Outcome::Cancelled,
            _ => {
                let reason = "the envelope died before the unit was started".to_owned();
                Outcome::StartFailed { reason, errno: 0 }
            }
        };
        for unit in std::mem::take(&mut self.queue) {
            self.finish(unit.key, outcome.clone(), None, out);
        }
        for slot in self.running.keys().copied().collect::<Vec<_>>() {
            self.stop(slot, cause, grace_ms, now, out);
        }
    }

    /// The unit in a place has written more than it may.
    pub fn spool_full(&mut self, slot: u32, now: u64, out: &mut Vec<Do>) {
        self.stop(slot, Cause::SpoolLimit, LIMIT_GRACE_MS, now, out);
    }

    /// TERM now and KILL later; no grace is KILL now. A second stop can only come earlier.
    fn stop(&mut self, slot: u32, cause: Cause, grace_ms: u64, now: u64, out: &mut Vec<Do>) {
        let Some(r) = self.running.get_mut(&slot) else { return };
        let kill_at = now.saturating_add(grace_ms.min(GRACE_MS_MAX));
        match &mut r.stop {
            Some(s) => s.kill_at = s.kill_at.min(kill_at),
            None => {
                r.stop = Some(Stop { cause, kill_at, killed: false });
                if grace_ms > 0 {
                    out.push(Do::Signal(slot, false));
                }
            }
        }
        if let Some(s) = r.stop.as_mut().filter(|s| s.kill_at <= now && !s.killed) {
            s.killed = true;
            out.push(Do::Signal(slot, true));
        }
    }

    /// Does what is due. While frozen nothing is: nobody could act on it.
    pub fn tick(&mut self, now: u64, out: &mut Vec<Do>) {
        if self.frozen_at.is_some() {
            return;
        }
        let over = |r: &Running| r.stop.is_none() && r.wall_at.is_some_and(|t| t <= now);
        let late: Vec<u32> = self.running.iter().filter(|(_, r)| over(r)).map(|x| *x.0).collect();
        for slot in late {
            self.stop(slot, Cause::WallLimit, LIMIT_GRACE_MS, now, out);
        }
        for (slot, r) in &mut self.running {
            if let Some(s) = r.stop.as_mut().filter(|s| s.kill_at <= now && !s.killed) {
                s.killed = true;
                out.push(Do::Signal(*slot, true));
            }
        }
    }

    /// When [`Machine::tick`] is next needed.
    pub fn next_due(&self) -> Option<u64> {
        if self.frozen_at.is_some() {
            return None;
        }
        let due = |r: &Running| match &r.stop {
            Some(s) if s.killed => None,
            Some(s) => Some(s.kill_at),
            None => r.wall_at,
        };
        self.running.values().filter_map(due).min()
    }

    /// The envelope was frozen.
    pub fn frozen(&mut self, now: u64) {
        self.frozen_at.get_or_insert(now);
    }

    /// The envelope goes on: the time in between counts for nothing.
    pub fn thawed(&mut self, now: u64) {
        let Some(at) = self.frozen_at.take() else { return };
        let gap = now.saturating_sub(at);
        for r in self.running.values_mut() {
            r.wall_at = r.wall_at.map(|t| t.saturating_add(gap));
            if let Some(s) = &mut r.stop {
                s.kill_at = s.kill_at.saturating_add(gap);
            }
        }
    }

    /// Takes no more units from now on.
    pub fn set_ending(&mut self) {
        self.ending = true;
    }

    /// Starts nothing from now on: there is nobody left to start it.
    pub fn halt(&mut self) {
        self.halted = true;
        self.ending = true;
    }

    /// Whether the disk has little room now: then no unit is started.
    pub fn set_short(&mut self, short: bool) {
        self.short = short;
    }

    /// Whether units wait for room on the disk.
    pub fn is_short(&self) -> bool {
        self.short
    }

    /// Changes how many units run at a time; those that run go on.
    pub fn set_slots(&mut self, slots: u32) {
        self.slots = slots.clamp(1, SLOTS_MAX);
    }

    /// Init is dead, and with it everything: whatever ran was killed, whatever waits never runs.
    pub fn init_died(&mut self, cause: Cause, out: &mut Vec<Do>) {
        self.halt();
        for (_, r) in std::mem::take(&mut self.running) {
            let cause = Some(r.stop.map_or(cause, |s| s.cause));
            self.finish(r.key, Outcome::Signaled { signal: 9, cause }, None, out);
        }
        self.kill_all(cause, 0, 0, out);
    }

    /// Numbers for the status: waiting, ended, slots, frozen, ending.
    pub fn counts(&self) -> (u64, u64, u32, bool, bool) {
        let frozen = self.frozen_at.is_some();
        (self.queue.len() as u64, self.ended, self.slots, frozen, self.ending)
    }

    /// The units that run, by place.
    pub fn running(&self) -> impl Iterator<Item = (u32, &UnitKey, Spools)> {
        self.running.iter().map(|(s, r)| (*s, &r.key, r.spools))
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
