//! A node: envelopes on a disk, units that run.

use super::{Dice, Hold, Runs};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use xos_api::aem::{Carried, UnitEnd, Usage};
use xos_api::node::units::{
    EnvelopeId, EnvelopeStatus, Envelopes, EventsAck, StartUnits, UnitChange, UnitEvent,
    UnitEvents, UnitOrder,
};
use xos_base::{Millis, NodeId};

#[derive(Default)]
pub(super) struct Envelope {
    slots: u32,
    seen: BTreeSet<(u32, u16)>,
    /// Units that may leave, and those that came, each with the run that its image is of.
    movable: BTreeSet<(u32, u16)>,
    came: BTreeMap<(u32, u16), u16>,
    waiting: VecDeque<UnitOrder>,
    running: Vec<UnitOrder>,
    events: Vec<UnitEvent>,
    pub(super) acked: u64,
}

pub(super) struct Node {
    pub(super) boot: u32,
    pub(super) envelopes: BTreeMap<EnvelopeId, Envelope>,
}

impl Envelope {
    fn happened(&mut self, unit: UnitOrder, now: Millis, what: UnitChange) {
        self.events.push(UnitEvent { unit: unit.unit, attempt: unit.attempt, at: now, what });
    }

    fn ended(&mut self, unit: UnitOrder, now: Millis, how: UnitEnd) {
        let usage = Usage { wall_ms: 5, cpu_ms: 3, memory_bytes: 4096 };
        self.happened(unit, now, UnitChange::Ended { how, usage, output: None });
    }
}

/// What a unit goes on from that left a cluster: its version is the run.
fn image(cluster: &NodeId, run: u16) -> Box<Carried> {
    Box::new(Carried {
        cluster: cluster.as_str().parse().unwrap(),
        tree: 1,
        version: run.into(),
        nodes: vec![cluster.clone()],
        key: "0".repeat(64),
        bytes: 1,
        pid: 65_432,
        cpu_group: 1,
        base: 1_000_000,
        stdout_bytes: 0,
        stderr_bytes: 0,
        to: None,
    })
}

impl Node {
    pub(super) fn list(&self) -> Envelopes {
        let status = |(id, e): (&EnvelopeId, &Envelope)| EnvelopeStatus {
            envelope: id.clone(),
            last: e.events.len() as u64,
        };
        let envelopes = self.envelopes.iter().map(status).collect();
        Envelopes { boot: self.boot.to_string(), envelopes }
    }

    pub(super) fn start(&mut self, r: &StartUnits) {
        let e = self.envelopes.entry(r.envelope.clone()).or_default();
        e.slots = r.room.slots;
        for u in &r.units {
            if e.seen.insert((u.unit, u.attempt)) {
                e.waiting.push_back(*u);
                if r.task.checkpointable {
                    e.movable.insert((u.unit, u.attempt));
                }
                if let Some(carried) = &r.carried {
                    let run = u16::try_from(carried.version).unwrap();
                    e.came.insert((u.unit, u.attempt), run);
                }
            }
        }
    }

    pub(super) fn kill(&mut self, id: &EnvelopeId, units: Option<&[u32]>, now: Millis) {
        let Some(e) = self.envelopes.get_mut(id) else { return };
        let hit = |u: &UnitOrder| units.is_none_or(|list| list.contains(&u.unit));
        let waiting: Vec<_> = e.waiting.iter().copied().filter(hit).collect();
        let running: Vec<_> = e.running.iter().copied().filter(hit).collect();
        e.waiting.retain(|u| !hit(u));
        e.running.retain(|u| !hit(u));
        for u in waiting.into_iter().chain(running) {
            e.ended(u, now, UnitEnd::Cancelled);
        }
    }

    /// Something happens by itself: a unit starts, ends, or leaves. Those in `hold` run until they
    /// are killed. While it is `rough`, what came from elsewhere is not always begun with.
    pub(super) fn live(
        &mut self,
        (own, rough): (&NodeId, bool),
        (dice, now): (&mut Dice, Millis),
        (runs, images): (&mut Runs, &mut Runs),
        hold: &Hold,
    ) {
        for (id, e) in &mut self.envelopes {
            if (e.running.len() as u32) < e.slots
                && let Some(u) = e.waiting.pop_front()
            {
                if let Some(run) = e.came.get(&(u.unit, u.attempt)).copied() {
                    if rough && dice.chance(30) {
                        e.ended(u, now, UnitEnd::NotStarted { reason: "a pid".into() });
                        continue;
                    }
                    *images.entry((id.job.to_string(), u.unit, run)).or_default() += 1;
                }
                e.happened(u, now, UnitChange::Started);
                *runs.entry((id.job.to_string(), u.unit, u.attempt)).or_default() += 1;
                // Such as a program that is not there: it fails before anybody hears that it began.
                if dice.chance(10) && !hold.contains(&(id.job.clone(), u.unit)) {
                    e.ended(u, now, UnitEnd::Exit { code: 1 });
                } else {
                    e.running.push(u);
                }
            } else if !e.running.is_empty() && dice.chance(60) {
                let n = dice.below(e.running.len() as u64) as usize;
                if hold.contains(&(id.job.clone(), e.running[n].unit)) {
                    continue;
                }
                let u = e.running.remove(n);
                if e.movable.contains(&(u.unit, u.attempt)) && dice.chance(25) {
                    let (usage, carried) = (Usage::default(), image(own, u.attempt));
                    e.happened(u, now, UnitChange::Left { usage, carried, why: String::new() });
                    continue;
                }
                let code = u8::from(dice.chance(5));
                e.ended(u, now, UnitEnd::Exit { code });
            }
        }
    }

    /// The machine stops: what ran has no witness. Sometimes the disk is gone too; or only the
    /// disk, when the core knows that it was `answered` for: that the answer is lost, and the disk
    /// too, and the machine goes on, are too many faults at once.
    pub(super) fn reboot(&mut self, dice: &mut Dice, answered: bool, now: Millis) {
        let lost = dice.chance(30);
        self.boot += u32::from(!lost || !answered || dice.chance(50));
        if lost {
            self.envelopes.clear();
            return;
        }
        for e in self.envelopes.values_mut() {
            let units: Vec<_> = e.running.drain(..).chain(e.waiting.drain(..)).collect();
            for u in units {
                e.ended(u, now, UnitEnd::Lost { reason: "the machine stopped".into() });
            }
        }
    }

    /// The next report of an envelope with news.
    pub(super) fn report(&self, dice: &mut Dice) -> Option<UnitEvents> {
        let (id, e) = self.envelopes.iter().find(|(_, e)| (e.events.len() as u64) > e.acked)?;
        // Sometimes from further back than needed.
        let after = if dice.chance(20) { dice.below(e.acked + 1) } else { e.acked };
        let events = e.events[after as usize..].iter().take(7).cloned().collect();
        Some(UnitEvents { envelope: id.clone(), after, events })
    }

    pub(super) fn acknowledged(&mut self, id: &EnvelopeId, ack: EventsAck) {
        if ack.unknown {
            self.envelopes.remove(id);
        } else if let Some(e) = self.envelopes.get_mut(id) {
            e.acked = ack.stored;
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.envelopes.values().all(|e| {
            e.waiting.is_empty() && e.running.is_empty() && e.acked == e.events.len() as u64
        })
    }
}
