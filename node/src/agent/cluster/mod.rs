//! The node in a cluster of its site: keeps its agent (`xos-agent`) running, brings what that and
//! the core say to one another, and the streams between the cluster's nodes.
//!
//! The agent goes on without `xosd`; what it has to say to the core waits.

mod asking;
mod clock;
mod lines;
mod orders;
mod programs;
mod relays;
mod rights;
mod shells;
mod starts;
mod streams;
mod units;

pub(super) use streams::handlers;

use super::Agent;
use super::config;
use super::units::in_background;
use crate::cgroup::EnvelopeCgroup;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use xos_base::accounts::OWN_ID;
use xos_base::{ClusterId, Error, Kind};
use xos_net::dial::Dialer;
use xos_ssi::cell::proto::Account;
use xos_ssi::cluster::clock::ClockSeen;
use xos_ssi::seat::{self, Begun, Client, Plan, Wanted};
use xos_ssi::wire::{ClusterSay, Seat};

/// How often the core is asked whether the node is in a cluster.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// The same where the core has no clusters.
const ASK_RARELY: Duration = Duration::from_secs(30);
/// The pause after the agent ended, or could not be started.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How often it is looked whether an agent still says something, as it does with each heartbeat
/// once it has begun, and how many times in a row it may not have.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const SILENT_MAX: u32 = 10;
/// Below it is a folder of each cluster with a socket that members' programs reach, the same on all
/// nodes: what is placed elsewhere keeps its environment.
const PLACES: &str = "/run/xos/cluster";
/// The control group of the agent and all that runs in the cell.
pub(super) const GROUP: &str = "cluster";
/// The agent's program, beside this one.
const AGENT_PROGRAM: &str = "xos-agent";

/// What is kept of clusters.
pub(super) struct Clustered {
    config: config::Cluster,
    folder: PathBuf,
    dialer: Dialer,
    /// Below it are the agent and all that runs in the cell, so that the end of `xosd` ends none of
    /// it.
    cgroup: EnvelopeCgroup,
    people: rights::People,
    preparing: starts::Preparing,
    relays: relays::Relays,
    /// Images that other nodes are given now.
    given: streams::Images,
    asking: asking::Asking,
    seated: Mutex<Option<Seated>>,
    /// How the node's clock stood at the core's last answer.
    clock: Mutex<Option<ClockSeen>>,
}

/// The node's place, and its agent there.
#[derive(Clone)]
struct Seated {
    seat: Seat,
    client: Client,
}

impl Clustered {
    /// Below the folder of the node.
    pub(super) fn new(
        config: config::Cluster,
        folder: &Path,
        dialer: Dialer,
        cgroup: EnvelopeCgroup,
    ) -> Clustered {
        let folder = folder.join("cluster");
        let (people, preparing, relays, given, asking) = Default::default();
        let (seated, clock) = Default::default();
        Clustered {
            config,
            folder,
            dialer,
            cgroup,
            people,
            preparing,
            relays,
            given,
            asking,
            seated,
            clock,
        }
    }

    fn seated(&self) -> MutexGuard<'_, Option<Seated>> {
        self.seated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place, if the node is in this cluster.
    fn at(&self, cluster: &ClusterId) -> Result<Seated, Error> {
        let seated = self.seated().clone().filter(|s| s.seat.cluster == *cluster);
        seated.ok_or_else(|| Error::conflict(format!("this node is not in {cluster} now")))
    }

    /// The folder of a seat.
    fn folder(&self, seat: &Seat) -> PathBuf {
        self.folder.join(format!("{}-{}", seat.cluster, seat.number))
    }

    fn plan(&self, agent: &Agent, seat: &Seat) -> Plan {
        // Two folders up: where a build, or an installation, has it.
        let own = std::env::current_exe().ok();
        let beside = own.as_deref().and_then(Path::parent).and_then(Path::parent);
        let beside = beside.map(|folder| folder.join("criu/criu"));
        Plan {
            node: seat.number,
            heartbeat_ms: seat.heartbeat_ms,
            suspect_ms: seat.suspect_ms,
            dead_ms: seat.dead_ms,
            criu: self.config.criu.iter().cloned().chain(beside).collect(),
            path: std::env::var("PATH").unwrap_or_default(),
            shared: self.config.shared.clone(),
            limit_s: self.config.limit_s,
            direct: self.config.direct,
            cpus: agent.capacity.cpu_milli.div_ceil(1000).max(1),
            memory_bytes: agent.capacity.memory_bytes,
            canary: Account { uid: OWN_ID, gid: OWN_ID, groups: Vec::new() },
            cgroup: self.cgroup.clone(),
            place: Path::new(PLACES).join(seat.cluster.as_str()).join("place.sock"),
        }
    }
}

/// Whether two seats are one agent's.
fn same(a: &Seat, b: &Seat) -> bool {
    let of = |s: &Seat| (s.cluster.clone(), s.number, s.heartbeat_ms, s.suspect_ms, s.dead_ms);
    of(a) == of(b)
}

impl Agent {
    /// Keeps the node in its cluster, if it is in one, until `stop`.
    pub(super) async fn keep_cluster(self: Arc<Agent>, stop: CancellationToken) {
        let Some(clustered) = &self.cluster else { return };
        let keep = async {
            loop {
                let pause = match self.seat().await {
                    Ok(Some(seat)) => self.sit(clustered, seat).await,
                    Ok(None) => self.leave(clustered, None).await,
                    Err(e) if e.kind == Kind::NotFound => ASK_RARELY,
                    // The agent that runs goes on: it may be heard of later.
                    Err(error) => {
                        tracing::debug!(%error, "the core does not say which cluster this node is in");
                        ASK_EVERY
                    }
                };
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            () = keep => {}
            () = stop.cancelled() => {}
        }
        *clustered.seated() = None;
    }

    /// Where the core says that the node sits.
    async fn seat(&self) -> Result<Option<Seat>, Error> {
        let (messages, used) = Default::default();
        let say = ClusterSay { messages, looks: None, used, clock: None };
        Ok(self.say(say).await?.seat)
    }

    /// Works at a seat as long as it has it. How long to wait then.
    async fn sit(self: &Arc<Agent>, clustered: &Clustered, seat: Seat) -> Duration {
        self.leave(clustered, Some(&seat)).await;
        let (folder, plan) = (clustered.folder(&seat), clustered.plan(self, &seat));
        let (of, cgroup) = (folder.clone(), clustered.cgroup.clone());
        let begun = in_background(move || {
            cgroup.make().map_err(io::Error::other)?;
            begin(&of, &plan)
        });
        let begun = begun.await;
        let (client, wanted) = match begun.and_then(|b| b.map_err(|e| fault(&e))) {
            Ok(begun) => begun,
            Err(error) => {
                tracing::error!(%error, "this node cannot take its place in {}", seat.cluster);
                return AGAIN_AFTER;
            }
        };
        tracing::info!(cluster = %seat.cluster, number = %seat.number, "in a cluster");
        *clustered.seated() = Some(Seated { seat: seat.clone(), client: client.clone() });
        if let Err(error) = client.places(seat.places.clone()) {
            tracing::debug!(%error, "the cluster's agent is gone");
        }
        let hangs = self.serve_seat(clustered, &seat, &client, wanted).await;
        *clustered.seated() = None;
        if hangs {
            tracing::error!("the cluster's agent hangs: it is ended, and what it runs");
            let killed = in_background(move || seat::kill(&folder)).await;
            if let Err(error) = killed.and_then(|k| k.map_err(|e| fault(&e))) {
                tracing::error!(%error, "the cluster's agent is not ended: this is tried again");
            }
        }
        AGAIN_AFTER
    }

    /// Does what the agent of a seat wants, until it is gone, the seat is another one, or the agent
    /// hangs: whether that is so.
    async fn serve_seat(
        self: &Arc<Agent>,
        clustered: &Clustered,
        seat: &Seat,
        client: &Client,
        mut wanted: UnboundedReceiver<Wanted>,
    ) -> bool {
        let hangs = client.hangs();
        tokio::pin!(hangs);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Until its cell is there an agent says nothing.
        let mut silent = None;
        loop {
            let wanted = tokio::select! {
                wanted = wanted.recv() => wanted,
                () = &mut hangs => return true,
                _ = look.tick() => {
                    silent = silent.map(|times: u32| times + 1);
                    if silent.is_some_and(|times| times >= SILENT_MAX) {
                        return true;
                    }
                    continue;
                }
            };
            let stays = clustered.seated().as_ref().is_some_and(|s| same(&s.seat, seat));
            let Some(wanted) = wanted.filter(|_| stays) else { return false };
            if matches!(wanted, Wanted::Say { .. }) {
                silent = Some(0);
            }
            self.clone().serve_agent(wanted);
        }
    }

    /// Ends what is left of other seats.
    async fn leave(&self, clustered: &Clustered, but: Option<&Seat>) -> Duration {
        let kept = but.map(|seat| clustered.folder(seat));
        let folder = clustered.folder.clone();
        let left = in_background(move || leave(&folder, kept.as_deref())).await;
        if let Err(error) = left.and_then(|l| l.map_err(|e| fault(&e))) {
            tracing::error!(%error, "what this node ran in a cluster before may still run");
        }
        ASK_EVERY
    }

    /// Does what the agent wants, without holding others up.
    fn serve_agent(self: Arc<Agent>, wanted: Wanted) {
        tokio::spawn(async move {
            match wanted {
                Wanted::Say { id, message, looks, people, used } => {
                    let looks = looks.map(|looks| *looks);
                    if let (Some(people), Some(clustered)) = (people, &self.cluster) {
                        clustered.people.seen(&people, self.now());
                    }
                    let say = ClusterSay { messages: vec![message], looks, used, clock: None };
                    self.pass_on(id, say).await;
                }
                Wanted::Want { id, want } => self.ask_core(id, want).await,
                Wanted::Image { from, tree, version, socket } => {
                    self.fetch_image(from, tree, version, socket).await;
                }
                Wanted::Written { from, tree, ask, socket } => {
                    self.fetch_written(from, tree, ask, socket).await;
                }
                Wanted::Carried { from, what, socket } => {
                    self.fetch_carried(&from, *what, socket).await;
                }
                Wanted::Output { at, tree, from, socket } => {
                    self.reach_spool(at, tree, from, socket).await;
                }
                Wanted::Packets { to, socket } => self.carry_packets(to, socket).await,
            }
        });
    }
}

fn fault(e: &io::Error) -> Error {
    Error::internal(format!("the cluster's agent: {e}"))
}

/// Connects to the agent of a seat.
fn begin(folder: &Path, plan: &Plan) -> io::Result<Begun> {
    let program = std::env::current_exe()?.with_file_name(AGENT_PROGRAM);
    seat::begin(&program, folder, plan)
}

/// Has the agents of all seats below a folder end, but of one, and removes what is left of those
/// that have ended.
fn leave(folder: &Path, but: Option<&Path>) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    let mut last = Ok(());
    for entry in entries {
        let path = entry?.path();
        if but == Some(path.as_path()) {
            continue;
        }
        last = seat::end(&path).and(last);
    }
    last
}
