//! The room that a site has, and tells of.

use super::{Facts, NodeView};
use crate::state::HostTable;
use crate::state::host::{Envelope, Placement};
use std::collections::{BTreeMap, HashMap};
use xos_api::aem::{ClusterRoom, Pool, Refusal, Resources, ShareRoom, SiteCapacity, TaskSpec};
use xos_api::node::Capacity;
use xos_base::{ClusterId, NodeId, SiteId, VoId};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Use {
    cpu_milli: u64,
    memory_bytes: u64,
}

/// Free room of each node and VO, counted from the table.
pub(super) struct Rooms {
    nodes: BTreeMap<NodeId, Use>,
    vos: HashMap<VoId, Use>,
}

impl Rooms {
    pub(super) fn count(table: &HostTable, units: impl Fn(&Placement, &Envelope) -> u32) -> Rooms {
        let mut rooms = Rooms { nodes: BTreeMap::new(), vos: HashMap::new() };
        for p in table.active() {
            for e in p.envelopes.values() {
                rooms.take(&e.node, &p.vo, units(p, e), e.cpu_milli, e.memory_bytes);
            }
        }
        rooms
    }

    pub(super) fn take(&mut self, node: &NodeId, vo: &VoId, n: u32, cpu: u32, memory: u64) {
        let add = |u: &mut Use| {
            u.cpu_milli += u64::from(cpu) * u64::from(n);
            u.memory_bytes = u.memory_bytes.saturating_add(memory.saturating_mul(n.into()));
        };
        add(self.nodes.entry(node.clone()).or_default());
        add(self.vos.entry(vo.clone()).or_default());
    }

    pub(super) fn free(&self, node: &NodeId, c: &Capacity) -> Use {
        let used = self.nodes.get(node).copied().unwrap_or_default();
        Use {
            cpu_milli: u64::from(c.cpu_milli).saturating_sub(used.cpu_milli),
            memory_bytes: c.memory_bytes.saturating_sub(used.memory_bytes),
        }
    }

    pub(super) fn left(&self, share: &ShareRoom) -> Use {
        let used = self.vos.get(&share.vo).copied().unwrap_or_default();
        Use {
            cpu_milli: share.cpu_milli.saturating_sub(used.cpu_milli),
            memory_bytes: share.memory_bytes.saturating_sub(used.memory_bytes),
        }
    }
}

/// How many units that need so much find room.
pub(super) fn fit(free: Use, r: &Resources) -> u32 {
    let by_cpu = free.cpu_milli / u64::from(r.cpu_milli.max(1));
    let by_memory = free.memory_bytes / r.memory_bytes.max(1);
    u32::try_from(by_cpu.min(by_memory)).unwrap_or(u32::MAX)
}

/// The room of this site, for an owner with units of the given VOs here. Of its own units only
/// those take room whose start was reported: the others it counts as waiting here. Nodes that may
/// come back are in pools of their own, without any node.
pub fn capacity(table: &HostTable, facts: &Facts, owner: &SiteId, vos: &[VoId]) -> SiteCapacity {
    let rooms = Rooms::count(table, |p, e| match p.job.site == *owner {
        true => e.slots.min(e.running),
        false => e.busy(),
    });
    let mut pools: BTreeMap<&str, Pool> = BTreeMap::new();
    for (id, node) in facts.offered().filter(|(_, n)| n.boot.is_some() && n.most().0 > 0) {
        let (c, (cpu_milli, memory_bytes)) = (&node.capacity, node.most());
        let p = pools.entry(c.arch.as_str()).or_default();
        let free = rooms.free(id, c);
        p.arch.clone_from(&c.arch);
        p.nodes += 1;
        p.cpu_milli += u64::from(c.cpu_milli);
        p.cpu_free_milli += free.cpu_milli;
        p.memory_bytes = p.memory_bytes.saturating_add(c.memory_bytes);
        p.memory_free_bytes = p.memory_free_bytes.saturating_add(free.memory_bytes);
        p.node_cpu_milli = p.node_cpu_milli.max(cpu_milli);
        p.node_memory_bytes = p.node_memory_bytes.max(memory_bytes);
    }
    let not_yet = facts.offered().map(|(_, n)| n).filter(|n| n.boot.is_none());
    let not_yet = not_yet.map(|n| (n.capacity.arch.as_str(), n.most()));
    let mut away: BTreeMap<&str, Pool> = BTreeMap::new();
    let gone = facts.away.iter().filter(|(id, _)| !facts.seated.contains(*id));
    let gone = gone.map(|(_, a)| &a.capacity);
    let gone = gone.map(|c| (c.arch.as_str(), (c.cpu_milli, c.memory_bytes)));
    for (arch, (cpu_milli, memory_bytes)) in gone.chain(not_yet) {
        let p = away.entry(arch).or_default();
        p.arch = arch.to_owned();
        p.node_cpu_milli = p.node_cpu_milli.max(cpu_milli);
        p.node_memory_bytes = p.node_memory_bytes.max(memory_bytes);
    }
    let shares = vos.iter().filter_map(|vo| facts.shares.get(vo)).map(|s| {
        let left = rooms.left(s);
        ShareRoom { vo: s.vo.clone(), cpu_milli: left.cpu_milli, memory_bytes: left.memory_bytes }
    });
    SiteCapacity {
        pools: pools.into_values().chain(away.into_values()).collect(),
        waiting: table.active().map(|p| p.waiting.len() as u32).sum(),
        shares: shares.collect(),
        takes_from: facts.takes_from.clone(),
        clusters: clusters(table, facts),
    }
}

/// The clusters of this site.
fn clusters(table: &HostTable, facts: &Facts) -> Vec<ClusterRoom> {
    let is_one = |n: &NodeView| n.cluster.is_some() && n.boot.is_some();
    let mut all = facts.offered().filter(|(_, n)| is_one(n)).peekable();
    if all.peek().is_none() {
        return Vec::new();
    }
    // Also what was sent and has not begun: nobody counts that for a cluster by itself.
    let rooms = Rooms::count(table, |_, e| e.busy());
    let told = all.filter_map(|(id, node)| {
        let (free, most) = (rooms.free(id, &node.capacity), node.most());
        Some(ClusterRoom {
            cluster: id.as_str().parse().ok()?,
            arch: node.capacity.arch.clone(),
            cpu_free_milli: free.cpu_milli,
            memory_free_bytes: free.memory_bytes,
            node_cpu_milli: most.0,
            node_memory_bytes: most.1,
        })
    });
    told.collect()
}

/// Whether some cluster, or the one that is named, has room for a unit of a VO that goes on from an
/// image: it runs nowhere until it begins, and so is not to wait here for room.
///
/// # Errors
/// Why not; it may pass.
pub fn has_room(
    table: &HostTable,
    facts: &Facts,
    vo: &VoId,
    task: &TaskSpec,
    only: Option<&ClusterId>,
) -> Result<(), Refusal> {
    let (rooms, r) = (Rooms::count(table, |_, e| e.busy()), &task.resources);
    let busy = |text: String| Err(Refusal { rule: "busy".to_owned(), text, later: true });
    if facts.shares.get(vo).is_none_or(|share| fit(rooms.left(share), r) == 0) {
        return busy(format!("the share of {vo} at this site is in use"));
    }
    let is_meant = |id: &NodeId, n: &NodeView| {
        let named = only.is_none_or(|cluster| cluster.as_str() == id.as_str());
        named && n.cluster.is_some() && n.boot.is_some() && n.suits(task)
    };
    let mut meant = facts.offered().filter(|(id, n)| is_meant(id, n));
    if meant.any(|(id, n)| fit(rooms.free(id, &n.capacity), r) > 0) {
        return Ok(());
    }
    busy(match only {
        Some(cluster) => format!("{cluster} has no room for it now"),
        None => "no cluster here has room for it now".to_owned(),
    })
}
