//! The clusters of a site, at its core: keeps what their controllers decide before anybody is told,
//! answers nodes and people, places and balances.

mod balance;
mod brief;
mod clusters;
mod copies;
mod deeds;
mod deps;
mod keep;
mod may;
mod one;
mod ops;
mod policy;
mod queue;
mod starts;
#[cfg(test)]
mod tests;
mod units;
mod views;

pub use deps::{Deps, Machines, NodesOut, Vos};
pub use keep::{Change, Kept, Records, Settings, Waiting};
pub use units::{Envelope, Left, Over, Stop, Unit, Why};

use self::clusters::Clusters;
use crate::cluster::members::{NodeState, Times};
use crate::cluster::messages::{ToController, ToNode, TreeId};
use crate::cluster::place::Policy;
use crate::cluster::record::Effect;
use crate::cluster::trees::Owner;
use crate::pids::NodeNumber;
use crate::wire::{
    CPU_BYTES_MAX, CPUS_MAX, ClusterHeard, ClusterSay, ClusterTell, NodeLooks, PROCESSES_MAX,
    USES_MAX,
};
use one::{Cluster, Told};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};
use xos_api::node::Capacity;
use xos_api::vom::{GROUP_MEMBERS, ServedVo};
use xos_base::when::Clock;
use xos_base::{
    ClusterId, Epoch, Error, Group, GroupNumber, Kind, Membership, NodeId, PersonId, SiteId, VoId,
};
use xos_net::audit::Teller;
use xos_net::clusters::ClusterNews;
use xos_net::{ClusterNames, Rules, Standing};

/// How often time is told to the controllers.
const TICK: Duration = Duration::from_millis(500);
/// How many nodes may have each checkpoint.
const COPIES: RangeInclusive<usize> = 1..=4;
/// How far a node's clock may be off, in seconds.
const CLOCK_OFF: RangeInclusive<u64> = 1..=3600;
/// How often it is asked which VOs the site serves.
const VOS_EVERY: Duration = Duration::from_secs(10);

/// The clusters of the site: nodes that work as one machine. Present on a core that has some.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// From one heartbeat of a node to the next, in milliseconds: 100 to 10000. Default 1000.
    pub heartbeat_ms: u64,
    /// Of silence until a node is suspect, in milliseconds: at least two heartbeats. Default 3000.
    pub suspect_ms: u64,
    /// Of silence until a node counts as dead, and what it ran goes on elsewhere from its last
    /// checkpoint, in milliseconds: at least twice `suspect_ms`, at most 600000. A node that
    /// reaches the core no more stops what it runs before that. Default 8000.
    pub dead_ms: u64,
    /// Whether trees are moved by themselves from loaded nodes to others. Default true.
    pub balance: bool,
    /// Most trees of one member that run at a time in one cluster. Default 1000.
    pub trees_per_member: usize,
    /// Most programs of one member that wait in one cluster until a node has room; 0: they are
    /// refused when all nodes are full. Default 1000.
    pub queue_per_member: usize,
    /// How many nodes are to have each checkpoint of a program that goes on from it when its node
    /// fails: 1 to 4. With 1 it is lost with the disk of the node that made it. Default 2.
    pub checkpoint_copies: usize,
    /// How far the clock of a node may be from this core's, in seconds, 1 to 3600: what runs on one
    /// that is further off may leave it, and nothing moves to it. Default 60.
    pub clock_off_s: u64,
    /// The sites from whose clusters running units of jobs are taken, in the state in which they
    /// are: such a unit is another site's memory and registers, started here with its person's
    /// rights. Each site has this same list for all of its clusters. Default: none.
    pub takes_from: Vec<SiteId>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            heartbeat_ms: 1000,
            suspect_ms: 3000,
            dead_ms: 8000,
            balance: true,
            trees_per_member: 1000,
            queue_per_member: 1000,
            checkpoint_copies: 2,
            clock_off_s: 60,
            takes_from: Vec::new(),
        }
    }
}

impl Config {
    fn times(&self) -> Result<Times, Error> {
        let ms = Duration::from_millis;
        Times::new(ms(self.heartbeat_ms), ms(self.suspect_ms), ms(self.dead_ms))
            .map_err(|e| Error::invalid(format!("[cluster]: {e}")))
    }

    fn policy(&self) -> Result<Policy, Error> {
        let copies = self.checkpoint_copies;
        if !COPIES.contains(&copies) {
            let (least, most) = (*COPIES.start(), *COPIES.end());
            return Err(Error::invalid(format!(
                "[cluster]: checkpoint_copies is {copies}: let it be {least} to {most}"
            )));
        }
        if !CLOCK_OFF.contains(&self.clock_off_s) {
            let (off, least, most) = (self.clock_off_s, CLOCK_OFF.start(), CLOCK_OFF.end());
            return Err(Error::invalid(format!(
                "[cluster]: clock_off_s is {off}: let it be {least} to {most}"
            )));
        }
        let trees_per_member = self.trees_per_member;
        Ok(Policy { copies, trees_per_member, ..Policy::default() })
    }
}

/// The clusters of a site.
pub struct ClusterService {
    config: Config,
    times: Times,
    policy: Policy,
    site: SiteId,
    clock: Arc<dyn Clock>,
    records: Arc<dyn Records>,
    nodes: Arc<dyn NodesOut>,
    machines: Arc<dyn Machines>,
    vos: Arc<dyn Vos>,
    rules: Arc<dyn Rules>,
    standing: Arc<dyn Standing>,
    told: Teller,
    /// What the nodes of the site said that they offer to units.
    heard: std::sync::Mutex<BTreeMap<NodeId, Capacity>>,
    /// For the job service.
    news: watch::Sender<ClusterNews>,
    clusters: Clusters,
    /// Held while a cluster is made, or the nodes of one change: no name is given twice, and no
    /// node is in two.
    changing: Mutex<()>,
}

impl ClusterService {
    /// Reads the clusters. [`ClusterService::keep`] is to be run then.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] for a bad configuration; those of the records.
    pub async fn start(config: Config, deps: Deps) -> Result<Arc<ClusterService>, Error> {
        let (times, policy) = (config.times()?, config.policy()?);
        let now = deps.clock.up();
        let kept = deps.records.load().await?;
        let clusters: BTreeMap<ClusterId, Cluster> = kept
            .into_iter()
            .map(|(id, kept)| (id.clone(), Cluster::new(id, kept, times, now)))
            .collect();
        let news = ClusterNews { offers: units::offers(&clusters, &BTreeMap::new()), reports: 0 };
        Ok(Arc::new(ClusterService {
            config,
            times,
            policy,
            site: deps.site,
            clock: deps.clock,
            records: deps.records,
            nodes: deps.nodes,
            machines: deps.machines,
            vos: deps.vos,
            rules: deps.rules,
            standing: deps.standing,
            told: Teller::new(deps.audit),
            heard: std::sync::Mutex::default(),
            news: watch::Sender::new(news),
            clusters: Clusters::new(clusters.into_values()),
            changing: Mutex::default(),
        }))
    }

    /// Whether a node is called so: one that joined, was heard since this core began, or is or was
    /// in a cluster.
    async fn is_node(&self, name: &str) -> Result<bool, Error> {
        let known = self.heard().keys().any(|id| id.as_str() == name);
        if known || self.clusters.has_node(name) {
            return Ok(true);
        }
        match name.parse::<NodeId>() {
            Ok(node) => self.machines.has(&node).await,
            Err(_) => Ok(false),
        }
    }

    /// Looks after the clusters until it is dropped.
    pub async fn keep(self: Arc<Self>) {
        tokio::join!(self.keep_turning(), self.keep_looking_at_vos());
    }

    /// Keeps what is in memory only; from now on all is kept before anybody is told. For a core that
    /// is about to end.
    pub async fn settle(&self) {
        for (_, cluster) in self.clusters.list() {
            let mut held = cluster.lock().await;
            held.keeps_all();
            self.pass_on(&mut held, Vec::new()).await;
        }
    }

    async fn keep_turning(self: &Arc<Self>) {
        let mut tick = ticks(TICK);
        let mut turns: BTreeMap<ClusterId, JoinHandle<()>> = BTreeMap::new();
        loop {
            tick.tick().await;
            for (id, cluster) in self.clusters.list() {
                // One that is still being kept has the others wait for nothing.
                if turns.get(&id).is_some_and(|turn| !turn.is_finished()) {
                    continue;
                }
                let service = Arc::clone(self);
                let turn = async move { service.turn(&cluster).await };
                turns.insert(id, tokio::spawn(turn));
            }
        }
    }

    async fn keep_looking_at_vos(&self) {
        let mut tick = ticks(VOS_EVERY);
        loop {
            tick.tick().await;
            if let Err(error) = self.look_at_vos().await {
                tracing::debug!(%error, "which VOs are served here is not known now");
            }
        }
    }

    /// Time went by for a cluster.
    async fn turn(&self, cluster: &Mutex<Cluster>) {
        let heard = self.heard();
        let mut held = cluster.lock().await;
        let (c, now) = (&mut *held, self.clock.up());
        c.ripen(now);
        let (signals, mut effects) = c.stop_units(self.clock.now());
        effects.extend(c.controller.tick(now));
        effects.extend(c.turn(&self.policy, self.config.balance, now));
        effects.extend(c.start_units(&self.policy, &heard, now));
        self.pass_on(c, effects).await;
        self.signal(signals);
        self.tell_offer(c, &heard);
    }

    async fn look_at_vos(&self) -> Result<(), Error> {
        let all = self.vos.served().await?;
        let of = |keep: fn(&ServedVo) -> bool| -> BTreeSet<VoId> {
            all.iter().filter(|s| keep(s)).map(|s| s.vo.clone()).collect()
        };
        // While a VO is suspended its programs wait; when the share has ended they need not.
        let (serving, kept) = (of(|s| s.serving), of(|s| s.serving || s.accepted.is_some()));
        for (_, cluster) in self.clusters.list() {
            let mut held = cluster.lock().await;
            let c = &mut *held;
            let mut effects = c.controller.serve(&serving);
            effects.extend(c.controller.drop_waiting(&kept));
            let out = |owner: &Owner, person: &PersonId| {
                let served = serving.contains(&owner.vo);
                if served { self.is_out(owner, person) } else { !kept.contains(&owner.vo) }
            };
            effects.extend(c.end_left_of(out, self.clock.up()));
            self.pass_on(c, effects).await;
        }
        Ok(())
    }

    /// Whether a person is no member in force of a VO that is served, or a newer one than whose the
    /// tree is: numbers are not given again.
    fn is_out(&self, owner: &Owner, person: &PersonId) -> bool {
        // Each member is in it; what a credential would say besides is of no meaning here.
        let Ok(name) = GROUP_MEMBERS.parse() else { return false };
        let all = Group { name, number: GroupNumber(1) };
        let membership = Membership {
            vo: owner.vo.clone(),
            person: person.clone(),
            number: owner.member,
            epoch: Epoch(u64::MAX),
            groups: vec![all],
            roles: Vec::new(),
            expires: None,
        };
        let now = self.standing.effective(&membership, self.clock.now());
        now.is_err_and(|e| matches!(e.kind, Kind::Denied | Kind::Unauthenticated))
    }

    /// The VOs that the site serves now.
    async fn served(&self) -> Result<BTreeMap<VoId, ServedVo>, Error> {
        let all = self.vos.served().await?.into_iter().filter(|s| s.serving);
        Ok(all.map(|s| (s.vo.clone(), s)).collect())
    }

    /// Keeps what was decided, then sends what follows. What could not be kept is not told: it is
    /// tried again at the next occasion, and nodes hear it with their heartbeats then.
    async fn pass_on(&self, c: &mut Cluster, effects: Vec<Effect>) {
        match self.commit(c, effects).await {
            Ok(told) => self.send(c, told),
            Err(error) => tracing::error!(%error, cluster = %c.id, "a cluster cannot be kept"),
        }
    }

    /// Keeps and sends that a program begins or waits. When that cannot be kept, there is none: who
    /// asked is told so, and is not to find it running later.
    async fn begun(
        &self,
        c: &mut Cluster,
        tree: TreeId,
        effects: Vec<Effect>,
    ) -> Result<(), Error> {
        match self.commit(c, effects).await {
            Ok(told) => {
                self.send(c, told);
                Ok(())
            }
            Err(error) => {
                let gone = c.controller.withdraw(tree);
                let _nobody_knows = c.take(gone, self.clock.up());
                Err(error)
            }
        }
    }

    /// Keeps what was decided; returns what is to be sent.
    async fn commit(&self, c: &mut Cluster, effects: Vec<Effect>) -> Result<Vec<Told>, Error> {
        let told = c.take(effects, self.clock.up());
        c.units.settle(self.clock.now());
        let changes = c.changes();
        if !changes.is_empty() {
            self.records.keep(&c.id, &changes).await?;
            if c.kept() {
                self.news.send_modify(|news| news.reports += 1);
            }
        }
        self.note_deeds(c);
        Ok(told)
    }

    /// Sends without waiting: what is lost is said again with the heartbeat.
    fn send(&self, c: &Cluster, told: Vec<Told>) {
        let mut by_node: BTreeMap<NodeNumber, Vec<ToNode>> = BTreeMap::new();
        for (node, message) in told {
            by_node.entry(node).or_default().push(message);
        }
        for (number, mut messages) in by_node {
            let Some(m) = c.controller.state().members.node(number) else { continue };
            let (node, nodes) = (m.id.clone(), Arc::clone(&self.nodes));
            // What is left out is said with the heartbeat.
            let programs = c.programs_of(&mut messages, None);
            let tell = ClusterTell { cluster: c.id.clone(), messages, programs };
            tokio::spawn(async move {
                if let Err(error) = nodes.tell(&node, tell).await {
                    tracing::debug!(%error, %node, "a node hears with its heartbeat only");
                }
            });
        }
    }

    /// A node of the site says something.
    ///
    /// # Errors
    /// Those of the records: then it is as if the node had not been heard.
    pub async fn say(&self, node: &NodeId, r: ClusterSay) -> Result<ClusterHeard, Error> {
        let Some((mut held, number)) = self.clusters.at(node).await else {
            return Ok(ClusterHeard::default());
        };
        let (c, now) = (&mut *held, self.clock.up());
        let mut effects = Vec::new();
        // Before what is said of a copy has it be the tree no more.
        for used in r.used.iter().take(USES_MAX) {
            c.take_use(number, used);
        }
        for message in &r.messages {
            effects.extend(c.controller.message(number, message, now));
        }
        if let Some(looks) = r.looks {
            effects.extend(look(c, number, &r.messages, looks, now));
        }
        if let Some(seen) = r.clock {
            let most = Duration::from_secs(self.config.clock_off_s);
            c.clocks.insert(number, seen);
            effects.extend(seen.is_wrong(most).into_iter().flat_map(|wrong| {
                let trouble = if wrong { seen.trouble(most) } else { String::new() };
                c.controller.clock(number, &trouble)
            }));
        }
        let mut told = self.commit(c, effects).await?;
        // What ended made room.
        let more = c.start_units(&self.policy, &self.heard(), now);
        if !more.is_empty() {
            told.extend(self.commit(c, more).await?);
        }
        let (own, others): (Vec<Told>, Vec<Told>) =
            told.into_iter().partition(|(to, _)| *to == number);
        self.send(c, others);
        let mut messages: Vec<ToNode> = own.into_iter().map(|(_, message)| message).collect();
        let programs = c.programs_of(&mut messages, c.said.get(&number).copied());
        if let Some((last, _)) = programs.last() {
            c.said.insert(number, *last);
        }
        let now = Some(self.clock.now());
        Ok(ClusterHeard { seat: Some(c.seat(number)), messages, programs, now })
    }
}

impl ClusterNames for ClusterService {
    fn has(&self, name: &NodeId) -> bool {
        self.clusters.has(name.as_str())
    }

    fn keep_for_node(&self, name: &NodeId) -> Option<Box<dyn Send>> {
        Some(Box::new(self.clusters.name_for_node(name.as_str())?))
    }
}

/// Ticks, none of which is made up for.
fn ticks(every: Duration) -> Interval {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

/// How a node is. What it says with a heartbeat of its term counts.
fn look(
    c: &mut Cluster,
    number: NodeNumber,
    messages: &[ToController],
    mut looks: NodeLooks,
    now: xos_base::Millis,
) -> Vec<Effect> {
    let members = &c.controller.state().members;
    let beats = messages.iter().any(|m| match m {
        ToController::Beat { term, .. } => members.is_in(number, *term),
        _ => false,
    });
    if !beats {
        return Vec::new();
    }
    let present = members.node(number).is_some_and(|m| m.state == NodeState::Present);
    looks.processes.truncate(PROCESSES_MAX);
    looks.cpu_times.truncate(CPUS_MAX);
    if looks.cpu_words.len() > CPU_BYTES_MAX {
        looks.cpu_words.clear();
    }
    let (moves, cpu_group) = (looks.moves.clone(), looks.cpu_group);
    c.controller.limit(number, Duration::from_secs(looks.limit_s));
    c.looks.insert(number, (looks, now));
    c.coming.remove(&number);
    let Some(moves) = moves.filter(|_| present) else { return Vec::new() };
    match c.controller.prove(number, moves, cpu_group) {
        Ok(effects) => effects,
        Err(error) => {
            tracing::debug!(%error, %number, "a node was tried and is not to be");
            Vec::new()
        }
    }
}
