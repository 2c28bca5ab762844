//! The clusters as the job service has them: as nodes.

use super::leave::may_come;
use crate::cluster::members::{Member, NodeState};
use crate::cluster::messages::TreeId;
use crate::service::clusters::Held;
use crate::service::one::Cluster;
use crate::service::{ClusterService, ops};
use crate::wire::{ClusterForget, ClusterOutput, ClusterSignal, FORGET_MAX};
use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use xos_api::Done;
use xos_api::aem::{OUTPUT_PART_MAX, OutputPart, UnitCheckpoint};
use xos_api::node::Capacity;
use xos_api::node::units::{
    BATCH_MAX, EndEnvelope, EnvelopeId, Envelopes, KillUnits, StartUnits, UnitEvents, UnitOutput,
    UnitsTaken,
};
use xos_base::{ClusterId, Error, Membership, Millis, NodeId, SiteId};
use xos_net::Clusters;
use xos_net::clusters::{ClusterNews, ClusterOffer, refuses};
use xos_net::identity::hex;

/// What stands for a machine's boot: nothing that is kept is ever lost by a new start.
const BOOT: &str = "cluster";
/// The architecture of a cluster whose nodes differ, as JSDL has it.
const MIXED: &str = "other";

/// What each cluster offers, by what nodes said.
pub(in crate::service) fn offers(
    all: &BTreeMap<ClusterId, Cluster>,
    heard: &BTreeMap<NodeId, Capacity>,
) -> BTreeMap<NodeId, ClusterOffer> {
    all.values().filter_map(|c| offered(c, heard)).collect()
}

/// What one offers, as a node of its name.
fn offered(c: &Cluster, heard: &BTreeMap<NodeId, Capacity>) -> Option<(NodeId, ClusterOffer)> {
    // Both names have one form.
    let node = c.id.as_str().parse().ok()?;
    Some((node, offer(c, heard)))
}

fn offer(c: &Cluster, heard: &BTreeMap<NodeId, Capacity>) -> ClusterOffer {
    let mut capacity = Capacity { cpu_milli: 0, memory_bytes: 0, arch: String::new() };
    let mut largest = (0, 0);
    for (_, node) in c.offering(heard) {
        if capacity.cpu_milli == 0 {
            capacity.arch.clone_from(&node.arch);
        } else if capacity.arch != node.arch {
            MIXED.clone_into(&mut capacity.arch);
        }
        capacity.cpu_milli = capacity.cpu_milli.saturating_add(node.cpu_milli);
        capacity.memory_bytes = capacity.memory_bytes.saturating_add(node.memory_bytes);
        // One node, not the most of each.
        largest = largest.max((node.cpu_milli, node.memory_bytes));
    }
    let key = hex(digest(&SHA256, format!("cluster {}", c.id).as_bytes()).as_ref());
    let members = c.controller.state().members.iter();
    // One that has not joined runs nothing for the cluster, and units as before.
    let works = |m: &Member| m.state != NodeState::Possible;
    let here = members.filter(|(number, m)| !c.settings.left.contains(number) && works(m));
    let nodes = here.map(|(_, m)| m.id.clone()).collect();
    ClusterOffer { capacity, largest, key, nodes }
}

impl ClusterService {
    async fn cluster(&self, node: &NodeId) -> Result<Held, Error> {
        let unknown = || Error::not_found(format!("there is no cluster {node} here"));
        let id: ClusterId = node.as_str().parse().map_err(|_| unknown())?;
        self.clusters.find(&id).await.ok_or_else(unknown)
    }

    fn lock_heard(&self) -> MutexGuard<'_, BTreeMap<NodeId, Capacity>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What nodes said that they offer.
    pub(in crate::service) fn heard(&self) -> BTreeMap<NodeId, Capacity> {
        self.lock_heard().clone()
    }

    /// Tells the job service what a cluster offers, when it is something else than before.
    pub(in crate::service) fn tell_offer(&self, c: &Cluster, heard: &BTreeMap<NodeId, Capacity>) {
        let Some((node, offer)) = offered(c, heard) else { return };
        self.news.send_if_modified(|news| {
            let other = news.offers.get(&node) != Some(&offer);
            if other {
                news.offers.insert(node, offer);
            }
            other
        });
    }

    /// Sends signals without waiting: those that kill are sent again with the next turn.
    pub(in crate::service) fn signal(&self, signals: Vec<(NodeId, ClusterSignal)>) {
        for (node, signal) in signals {
            let nodes = Arc::clone(&self.nodes);
            tokio::spawn(async move {
                if let Err(error) = nodes.signal(&node, signal).await {
                    tracing::debug!(%error, %node, "a unit was not sent a signal");
                }
            });
        }
    }

    /// Has nodes remove what the trees of an envelope wrote. A node that is not in the cluster any
    /// more is not waited for.
    async fn remove_output(&self, node: &NodeId, id: &EnvelopeId) -> Result<(), Error> {
        let (name, spools) = {
            let mut held = self.cluster(node).await?;
            let c = &mut *held;
            let spools = c.units.spools(id).into_iter();
            let named = spools.filter_map(|(number, trees)| {
                let m = c.controller.state().members.node(number)?;
                let here = m.state.has_term() && !c.settings.left.contains(&number);
                Some((m.id.clone(), here, trees))
            });
            (c.id.clone(), named.collect::<Vec<(NodeId, bool, Vec<TreeId>)>>())
        };
        for (node, here, trees) in spools {
            for part in trees.chunks(FORGET_MAX) {
                let forget = ClusterForget { cluster: name.clone(), trees: part.to_vec() };
                match self.nodes.forget(&node, forget).await {
                    Ok(Done {}) => {}
                    Err(error) if here => return Err(error),
                    Err(error) => {
                        tracing::info!(%error, %node, "output stays at a node that is gone");
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Clusters for ClusterService {
    fn news(&self) -> watch::Receiver<ClusterNews> {
        self.news.subscribe()
    }

    fn hears(&self, node: &NodeId, capacity: &Capacity) {
        self.lock_heard().insert(node.clone(), capacity.clone());
    }

    async fn list_envelopes(&self, node: &NodeId) -> Result<Envelopes, Error> {
        let mut held = self.cluster(node).await?;
        let c = &mut *held;
        // What is listed must not be forgotten with a power cut.
        let told = self.commit(c, Vec::new()).await?;
        self.send(c, told);
        Ok(Envelopes { boot: BOOT.to_owned(), envelopes: c.units.list() })
    }

    async fn start_units(
        &self,
        node: &NodeId,
        order: StartUnits,
        member: &Membership,
    ) -> Result<UnitsTaken, Error> {
        if order.units.len() > BATCH_MAX {
            return Err(Error::too_large(format!("at most {BATCH_MAX} units at a time")));
        }
        if let Some(why) = refuses(&order.task) {
            return Err(Error::unsatisfiable(format!("{node} cannot run it: {why}")));
        }
        if let Some(carried) = &order.carried {
            let cluster = node.as_str().parse::<ClusterId>();
            let cluster = cluster.map_err(|_| Error::invalid("no cluster's name"))?;
            let asked = order.task.resources.memory_bytes;
            may_come(&cluster, &self.config.takes_from, (carried, asked))?;
            if order.units.len() != 1 || !order.task.checkpointable {
                return Err(Error::invalid("one unit goes on from an image, and is checkpointed"));
            }
        }
        let served = self.served().await?;
        let vo = served.get(&member.vo).ok_or_else(|| {
            Error::denied(format!("{} does not serve {} now", self.site, member.vo))
        })?;
        let owner = ops::owner(member, vo)?;
        let heard = self.heard();
        let mut held = self.cluster(node).await?;
        let c = &mut *held;
        if let Some(carried) = &order.carried {
            c.may_bring(&order, &owner.vo, carried)?;
        }
        let new = c.units.take(&order, &owner, &member.person)?;
        let effects = c.start_units(&self.policy, &heard, self.clock.up());
        let told = self.commit(c, effects).await?;
        self.send(c, told);
        Ok(UnitsTaken { new })
    }

    async fn kill_units(&self, node: &NodeId, r: KillUnits) -> Result<Done, Error> {
        let now = self.clock.now();
        let kill_at = now.plus(Duration::from_millis(r.grace_ms));
        let mut held = self.cluster(node).await?;
        let c = &mut *held;
        c.units.kill(&r.envelope, r.units.as_deref(), (now, kill_at));
        let (signals, effects) = c.stop_units(now);
        let told = self.commit(c, effects).await?;
        self.send(c, told);
        self.signal(signals);
        Ok(Done {})
    }

    async fn end_envelope(&self, node: &NodeId, r: EndEnvelope) -> Result<Done, Error> {
        let id = &r.envelope;
        let now = self.clock.now();
        let quiet = {
            let mut held = self.cluster(node).await?;
            let c = &mut *held;
            c.units.close(id);
            c.units.kill(id, None, (now, now));
            let (signals, mut effects) = c.stop_units(now);
            effects.extend(c.end_all_left(id));
            let told = self.commit(c, effects).await?;
            self.send(c, told);
            self.signal(signals);
            // Until their ghosts ended too, what they wrote is not left alone.
            c.units.is_quiet(id).map(|quiet| quiet && !c.is_known(id))
        };
        match quiet {
            None => return Ok(Done {}),
            Some(false) => {
                return Err(Error::unavailable(format!("what runs in {id} is being ended")));
            }
            Some(true) => {}
        }
        self.remove_output(node, id).await?;
        let mut held = self.cluster(node).await?;
        let c = &mut *held;
        c.units.forget(id);
        let told = self.commit(c, Vec::new()).await?;
        self.send(c, told);
        Ok(Done {})
    }

    async fn unit_output(&self, node: &NodeId, r: UnitOutput) -> Result<OutputPart, Error> {
        let limit = r.limit.min(OUTPUT_PART_MAX);
        let (at, ask, over) = {
            let mut held = self.cluster(node).await?;
            let c = &mut *held;
            let unit = c.units.unit(&r.envelope, (r.unit, r.attempt)).ok_or_else(|| {
                Error::not_found(format!("no such unit of job {} in {node}", r.envelope.job))
            })?;
            let over = unit.is_over();
            let (Some(tree), Some(spool)) = (unit.tree, unit.spool) else {
                // It never ran, or waits.
                return Ok(OutputPart::new(String::new(), over));
            };
            let at = c.name(spool).ok_or_else(|| Error::internal("a node has no name"))?;
            let (cluster, stream, from) = (c.id.clone(), r.stream, r.offset);
            (at, ClusterOutput { cluster, tree, stream, from, limit }, over)
        };
        let part = self.nodes.output(&at, ask).await?;
        // In base64 three bytes are four.
        if part.data.len() / 4 > limit as usize / 3 + 1 {
            return Err(Error::unavailable(format!("{at} sends more than was asked")));
        }
        Ok(OutputPart::new(part.data, over && part.eof))
    }

    async fn checkpoints(
        &self,
        node: &NodeId,
        envelope: &EnvelopeId,
        units: &BTreeSet<u32>,
        save: bool,
    ) -> Result<Vec<UnitCheckpoint>, Error> {
        let now = self.clock.up();
        let mut held = self.cluster(node).await?;
        let c = &mut *held;
        let mut out = Vec::new();
        let mut effects = Vec::new();
        for (unit, tree) in c.units.running_of(envelope, units) {
            let mut refused = String::new();
            if save {
                match c.controller.save(tree, now) {
                    Ok(more) => effects.extend(more),
                    Err(error) => refused = error.to_string(),
                }
            }
            let mut told = c.checkpoint_of(unit, tree, now);
            if !refused.is_empty() {
                told.trouble = refused;
            }
            out.push(told);
        }
        let told = self.commit(c, effects).await?;
        self.send(c, told);
        Ok(out)
    }

    fn takes_from(&self) -> Vec<SiteId> {
        self.config.takes_from.clone()
    }

    async fn leave(
        &self,
        node: &NodeId,
        envelope: &EnvelopeId,
        (unit, attempt): (u32, u16),
        at: Millis,
        over: bool,
    ) -> Result<Done, Error> {
        let now = self.clock.up();
        let mut held = self.cluster(node).await?;
        let c = &mut *held;
        let effects = c.unit_leaves(envelope, (unit, attempt), (at, over), now)?;
        let told = self.commit(c, effects).await?;
        self.send(c, told);
        Ok(Done {})
    }

    async fn reports(&self) -> Vec<(NodeId, UnitEvents)> {
        let mut out = Vec::new();
        for (id, cluster) in self.clusters.list() {
            let Ok(node) = id.as_str().parse::<NodeId>() else { continue };
            let c = cluster.lock().await;
            // What is not kept yet is told with the next change of the cluster.
            if !c.changes().is_empty() {
                continue;
            }
            out.extend(c.units.reports().into_iter().map(|report| (node.clone(), report)));
        }
        out
    }

    async fn acknowledged(&self, node: &NodeId, envelope: &EnvelopeId, stored: u64) {
        if let Ok(mut c) = self.cluster(node).await {
            c.units.acknowledged(envelope, stored);
        }
    }

    async fn nodes_of(&self, node: &NodeId, envelope: &EnvelopeId) -> BTreeSet<NodeId> {
        let c = self.cluster(node).await;
        c.map(|c| c.nodes_with(envelope)).unwrap_or_default()
    }
}
