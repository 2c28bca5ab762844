//! Which nodes run the units that this host accepted.

mod room;

pub use room::{capacity, has_room};

use super::pace::Pace;
use crate::state::HostTable;
use crate::state::host::Placement;
use crate::state::record::{Decision, HostRecord};
use crate::state::runs;
use room::{Rooms, fit};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;
use xos_api::aem::{Refusal, Resources, ShareRoom, TaskSpec};
use xos_api::node::Capacity;
use xos_api::node::units::BATCH_MAX;
use xos_base::{ClusterId, JobId, Millis, NodeId, SiteId, VoId};
use xos_net::clusters;

/// Most envelopes with open units that one job has on one node.
pub const ENVELOPES_MAX: usize = 8;
/// Most units that one envelope runs at a time.
pub const SLOTS_MAX: u32 = 1024;

/// Most units, each attempt by itself, that one envelope gets in its life. A node refuses more than
/// 200,000 for good: far from there the next serial is opened.
pub const ENVELOPE_UNITS_MAX: u32 = 100_000;

/// How long a unit that goes on from an image waits here for room, since it runs nowhere meanwhile.
pub const CAME_MAX: Duration = Duration::from_secs(30);

/// A node that was connected a while ago and may come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    /// What it offered.
    pub capacity: Capacity,
    /// Since when it is gone.
    pub since: Millis,
}

/// A connected node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// What it offers.
    pub capacity: Capacity,
    /// Its key's fingerprint.
    pub key: String,
    /// Its boot, once its envelopes were listed; until then it gets nothing.
    pub boot: Option<String>,
    /// Of a cluster, the most that one unit can have there: processors in thousandths of one,
    /// memory in bytes. None: it is a machine.
    pub cluster: Option<(u32, u64)>,
}

impl NodeView {
    /// The most that one unit can have, were nothing else there.
    fn most(&self) -> (u32, u64) {
        self.cluster.unwrap_or((self.capacity.cpu_milli, self.capacity.memory_bytes))
    }

    /// Whether it could run units of a task, were nothing else there.
    fn suits(&self, task: &TaskSpec) -> bool {
        let ((cpu_milli, memory_bytes), r) = (self.most(), &task.resources);
        r.arch.as_ref().is_none_or(|a| *a == self.capacity.arch)
            && r.cpu_milli <= cpu_milli
            && r.memory_bytes <= memory_bytes
            && match self.cluster {
                None => !task.checkpointable,
                Some(_) => clusters::refuses(task).is_none(),
            }
    }
}

/// Everything that the choice looks at besides the units.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The connected nodes.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Nodes that may come back.
    pub away: BTreeMap<NodeId, Away>,
    /// Nodes that are in a cluster: they get no units by themselves, so that no room is given
    /// twice.
    pub seated: BTreeSet<NodeId>,
    /// The sites whose running units the clusters take.
    pub takes_from: Vec<SiteId>,
    /// How fast units end, by job, envelope.
    pub pace: Pace<(JobId, u32)>,
    /// The whole shares of the VOs served here, as far as known.
    pub shares: HashMap<VoId, ShareRoom>,
    /// Envelopes to which nothing more is sent: their node refused.
    pub broken: HashMap<(JobId, NodeId), Millis>,
}

impl Facts {
    /// The nodes that get units: a cluster, and not those that are in it.
    fn offered(&self) -> impl Iterator<Item = (&NodeId, &NodeView)> {
        self.nodes.iter().filter(move |(id, _)| !self.seated.contains(*id))
    }

    /// Whether units of a task that only clusters can run, or that none can, find a node here.
    ///
    /// # Errors
    /// Why not, and whether it may pass.
    pub fn judge_kind(&self, task: &TaskSpec) -> Result<(), Refusal> {
        let why = match (task.checkpointable, clusters::refuses(task)) {
            (false, None) => return Ok(()),
            (true, None) if self.offered().any(|(_, n)| n.cluster.is_some() && n.suits(task)) => {
                return Ok(());
            }
            (true, why) => {
                let refused = why.is_some();
                let text = why.unwrap_or_else(|| "no cluster here has room for it".to_owned());
                let text = format!("only a cluster checkpoints it, and {text}");
                // Nodes of a cluster come and go.
                let later = !refused && self.offered().any(|(_, n)| n.cluster.is_some());
                return Err(Refusal { rule: "cluster".to_owned(), text, later });
            }
            (false, Some(why)) => why,
        };
        let Some((name, _)) = self.offered().find(|(_, n)| n.cluster.is_some()) else {
            return Ok(());
        };
        if self.offered().any(|(_, n)| n.cluster.is_none() && n.suits(task)) {
            return Ok(());
        }
        let text = format!("of this site's nodes only cluster {name} has room for it, and {why}");
        let away = self.away.keys().any(|id| !self.seated.contains(id));
        Err(Refusal { rule: "cluster".to_owned(), text, later: away })
    }
}

/// Chooses nodes for what waits. Records to be journalled before anything is sent.
pub fn plan(table: &HostTable, facts: &Facts, now: Millis) -> Vec<HostRecord> {
    let rooms = Rooms::count(table, |_, e| e.busy());
    let mut pass = Pass { facts, now, rooms, out: Vec::new() };
    let mut placements: Vec<&Placement> =
        table.active().filter(|p| !p.waiting.is_empty()).collect();
    placements.sort_by_key(|p| (p.open(), p.since));
    for p in placements {
        pass.placement(p);
    }
    pass.out
}

struct Pass<'a> {
    facts: &'a Facts,
    now: Millis,
    rooms: Rooms,
    out: Vec<HostRecord>,
}

impl Pass<'_> {
    fn placement(&mut self, p: &Placement) {
        // What came back from a node that never got it may be cancelled by now.
        let wanted = |u: &u32| !p.forgotten && p.units.get(u).is_some_and(|h| !h.cancel);
        let vain = self.in_vain(p, wanted);
        let mut over = Vec::new();
        let mut waiting = p.waiting.iter().copied().peekable();
        let mut last_serial = p.last_serial;
        let mut used: BTreeMap<u32, u32> = BTreeMap::new();
        while let Some(first) = waiting.peek().copied() {
            if !wanted(&first) {
                over.extend(waiting.next());
                continue;
            }
            if vain.contains(&first) {
                waiting.next();
                continue;
            }
            let Some(task) = p.units.get(&first).map(|h| h.task) else { break };
            let Some(spec) = p.tasks.get(&task).map(|t| &*t.spec) else { break };
            // A batch is of one task and one attempt, as a request to a node is.
            let attempt = p.units.get(&first).map_or(0, |h| h.attempt);
            let same =
                |u: &u32| p.units.get(u).is_some_and(|h| h.task == task && h.attempt == attempt);
            // What goes on from an image goes alone.
            let carried = p.carried.get(&first).map(|c| c.to.as_ref());
            let only = carried.flatten();
            let alone = |u: &u32| *u == first || (carried.is_none() && !p.carried.contains_key(u));
            let like = |u: &u32| wanted(u) && same(u) && alone(u);
            let (serial, room) = match self.known(p, spec, only, &used) {
                Some(found) => found,
                None => match self.open(p, spec, only, (last_serial, p.waiting.len() as u32)) {
                    Some(found) => {
                        last_serial += 1;
                        found
                    }
                    None => break,
                },
            };
            let room = room.min(BATCH_MAX as u32);
            let mut batch = Vec::new();
            while (batch.len() as u32) < room
                && let Some(unit) = waiting.next_if(like)
            {
                batch.push(unit);
            }
            *used.entry(serial).or_default() += batch.len() as u32;
            if let Some(e) = p.envelopes.get(&serial) {
                let now =
                    e.slots.min(e.open.len() as u32 + used.get(&serial).copied().unwrap_or(0));
                let more = now.saturating_sub(e.busy()).min(batch.len() as u32);
                self.rooms.take(&e.node, &p.vo, more, e.cpu_milli, e.memory_bytes);
            }
            let units = runs::pack(batch);
            self.out.push(HostRecord::Sent { job: p.job.clone(), serial, units });
        }
        if !over.is_empty() {
            let (job, at, units) = (p.job.clone(), self.now, Some(runs::pack(over)));
            self.out.push(HostRecord::Cancelled { job, at, units });
        }
    }

    /// Gives units back to their owner that are to go on from an image and waited too long for
    /// room. They were never sent, so that another site may have them.
    fn in_vain(&mut self, p: &Placement, wanted: impl Fn(&u32) -> bool) -> BTreeSet<u32> {
        let late = |at: &Millis| self.now.since(*at) >= CAME_MAX;
        let came = p.came.iter().filter(|(_, at)| late(at)).map(|(unit, _)| *unit);
        let vain: BTreeSet<u32> = came.filter(|u| p.waiting.contains(u) && wanted(u)).collect();
        if !vain.is_empty() {
            let reason = format!("no cluster had room for it within {CAME_MAX:?}");
            let (what, units) = (Decision::NotStarted { reason }, runs::pack(vain.iter().copied()));
            self.out.push(HostRecord::Decided { job: p.job.clone(), at: self.now, units, what });
        }
        vain
    }

    /// An envelope that takes units now, in one cluster only or anywhere, and how many.
    fn known(
        &self,
        p: &Placement,
        task: &TaskSpec,
        only: Option<&ClusterId>,
        used: &BTreeMap<u32, u32>,
    ) -> Option<(u32, u32)> {
        let r = &task.resources;
        for (serial, e) in &p.envelopes {
            let Some(node) = self.facts.nodes.get(&e.node) else { continue };
            let mine = used.get(serial).copied().unwrap_or(0);
            let open = e.open.len() as u32 + mine;
            let fits = !e.gone
                && only.is_none_or(|cluster| cluster.as_str() == e.node.as_str())
                && e.ended.saturating_add(open) < ENVELOPE_UNITS_MAX
                && node.boot.as_deref() == Some(e.boot.as_str())
                && e.cpu_milli == r.cpu_milli
                && e.memory_bytes == r.memory_bytes
                && !self.facts.seated.contains(&e.node)
                && (node.cluster.is_none() || node.suits(task))
                && !self.is_broken(&p.job, &e.node);
            if !fits {
                continue;
            }
            let slots = e.slots.saturating_sub(open);
            if slots > 0 {
                let free = fit(self.rooms.free(&e.node, &node.capacity), r).min(self.share(p, r));
                if free.min(slots) > 0 {
                    return Some((*serial, free.min(slots)));
                }
                continue;
            }
            let ahead = self.facts.pace.ahead(&(p.job.clone(), *serial), self.now);
            let beyond = (e.slots + ahead).saturating_sub(open);
            if beyond > 0 {
                return Some((*serial, beyond));
            }
        }
        None
    }

    /// A new envelope on the node with most room.
    fn open(
        &mut self,
        p: &Placement,
        task: &TaskSpec,
        only: Option<&ClusterId>,
        (last, wanted): (u32, u32),
    ) -> Option<(u32, u32)> {
        let r = &task.resources;
        let share = self.share(p, r);
        let best = self
            .facts
            .offered()
            .filter(|(_, n)| n.suits(task))
            .filter(|(id, _)| only.is_none_or(|cluster| cluster.as_str() == id.as_str()))
            .filter(|(id, _)| !self.is_broken(&p.job, id))
            .filter(|(id, _)| {
                let open = p.envelopes.values().filter(|e| e.node == **id && !e.open.is_empty());
                open.count() < ENVELOPES_MAX
            })
            .filter_map(|(id, n)| {
                let boot = n.boot.as_ref()?;
                let free = fit(self.rooms.free(id, &n.capacity), r).min(share);
                (free > 0).then_some((free, id, boot))
            })
            // Of equals the first by name.
            .max_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.cmp(a.1)))?;
        let (free, node, boot) = (best.0, best.1.clone(), best.2.clone());
        let slots = free.min(wanted.max(1)).min(SLOTS_MAX);
        let serial = last + 1;
        self.rooms.take(&node, &p.vo, slots, r.cpu_milli, r.memory_bytes);
        let job = p.job.clone();
        let (cpu_milli, memory_bytes) = (r.cpu_milli, r.memory_bytes);
        self.out.push(HostRecord::Opened {
            job,
            serial,
            node,
            boot,
            slots,
            cpu_milli,
            memory_bytes,
        });
        Some((serial, slots))
    }

    fn share(&self, p: &Placement, r: &Resources) -> u32 {
        self.facts.shares.get(&p.vo).map_or(0, |s| fit(self.rooms.left(s), r))
    }

    fn is_broken(&self, job: &JobId, node: &NodeId) -> bool {
        self.facts.broken.get(&(job.clone(), node.clone())).is_some_and(|t| *t > self.now)
    }
}

#[cfg(test)]
mod tests;
