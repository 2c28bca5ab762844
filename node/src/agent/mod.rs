//! The node's part on the network: the control stream to its core, the accounts, tickets and
//! volumes that the core brings, and the units that it orders.

mod cluster;
pub mod config;
mod flood;
mod heard;
pub(crate) mod keep;
mod link;
mod local;
mod logins;
mod machine;
mod mandates;
mod ops;
mod renew;
mod sole;
mod spool;
mod standing;
#[cfg(test)]
mod testing;
pub mod tickets;
mod told;
pub mod units;
mod volumes;
mod vos;

pub use config::Config;
pub use link::run_link;
#[doc(hidden)]
pub use logins::fuzzing;
pub use volumes::{FLUSH_WITHIN, MountSpec, TicketReply, TicketRequest};

use crate::cgroup::Cgroups;
use crate::envelopes::{Envelopes, ShimProgram, WARM_SHELLS};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tickets::{Held, Tickets};
use tokio_util::sync::CancellationToken;
use vos::{Gathering, Kept, Vos};
use xos_api::node::Capacity;
use xos_api::site::SiteDescriptor;
use xos_api::vom::AccountState;
use xos_base::when::Clock;
use xos_base::{Error, Millis, NodeId, SiteId, VoId};
use xos_net::dial::{Dialer, NodeLink, StreamHandler};
use xos_net::identity::key_fingerprint;
use xos_net::tls::ALPN_SSH;
use xos_net::{IdentityCell, Trust};

/// What the agent is made of; `xosd` puts it together.
pub struct Parts {
    /// `[node]`.
    pub config: Config,
    /// The control group (v2) in which those of units are made, as a path below its mount point; it
    /// must hold no process. Else they are made below the one in which `xosd` was started.
    pub cgroup: Option<PathBuf>,
    /// The own site.
    pub site: SiteId,
    /// The state directory of `xosd`.
    pub state: PathBuf,
    /// The node's certificate and key.
    pub identity: IdentityCell,
    /// The trusted sites; the core keeps them up to date.
    pub trust: Trust,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What serves streams that others open to this node, by ALPN.
    pub handlers: HashMap<Vec<u8>, StreamHandler>,
    /// Told each VO's least valid epochs as they change.
    pub watcher: Arc<dyn VoWatcher>,
    /// Where PAM, sshd and NSS ask, with `[node.login]`: [`xos_base::local::SOCKET`].
    pub socket: PathBuf,
}

/// Who wants to know what the core says about VOs: the object server.
pub trait VoWatcher: Send + Sync {
    /// Who may act in a VO, and who is out: told when accounts change, and when time has passed
    /// that ends a membership, a consent or the VO's lease.
    fn may_act(&self, vo: &VoId, members: Members);
    /// The volumes that this node served when it ran last; the core may tell of others.
    fn volumes_kept(&self, volumes: &[xos_api::node::VolumeMount]);
    /// The core told which volumes this node serves now.
    fn volumes_changed(&self, volumes: &[xos_api::node::VolumeMount]);
    /// The core told that a VO is erased: nothing of what is kept for it may be reached any more
    /// when this is done. It may be told again.
    fn vo_erased<'a>(&'a self, vo: &'a VoId) -> Erasing<'a>;
}

/// Ends when a VO's objects are out of reach.
pub type Erasing<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

pub use vos::{Members, Vo, kept_vos};

/// The running agent.
pub struct Agent {
    node: NodeId,
    config: Config,
    folder: PathBuf,
    trust: Trust,
    clock: Arc<dyn Clock>,
    link: NodeLink,
    key: String,
    capacity: Capacity,
    /// Most processes of one job here.
    processes: u32,
    vos: Mutex<Vos>,
    /// The files in which `vos` are kept.
    kept: Kept,
    gathering: Mutex<Gathering>,
    /// Counts the changes of `vos`.
    accounts_changed: tokio::sync::watch::Sender<u64>,
    /// Whether the core has told of accounts since this daemon runs.
    told: AtomicBool,
    /// Whether some work did not obey when it was told last where its member stands.
    unruly: AtomicBool,
    tickets: Arc<Tickets>,
    contact: Mutex<link::Contact>,
    /// The kernel's name of the machine's present run.
    boot: String,
    /// Where it may be in a cluster.
    cluster: Option<cluster::Clustered>,
    /// Where members may sign in, or the node may be in a cluster.
    holding: Option<Arc<logins::Holding>>,
    /// Where members may sign in.
    logins: Option<Arc<logins::Logins>>,
    socket: PathBuf,
    units: Arc<units::Units>,
    /// This program, which also copies files for units.
    stager: PathBuf,
    volumes: volumes::Volumes,
    watcher: Arc<dyn VoWatcher>,
    /// What happens here, for the site's audit.
    spool: spool::Spool,
    /// What was told of where members with work here stand, by uid.
    standings: Mutex<BTreeMap<u32, AccountState>>,
    flood: Mutex<flood::Flood>,
    endings: Mutex<flood::Endings>,
    /// Keeps another daemon out of the folder.
    _sole: std::fs::File,
}

impl Agent {
    /// Reads the node's state, re-attaches to what runs, and writes the account file.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the state cannot be read, or envelopes not be had.
    pub async fn start(mut parts: Parts) -> Result<Arc<Agent>, Error> {
        let node = parts.site.node(&parts.config.name)?;
        let folder = parts.state.join("node");
        std::fs::create_dir_all(&folder)
            .map_err(|e| Error::internal(format!("cannot make {}: {e}", folder.display())))?;
        let sole = sole::hold(&folder)?;
        let key = key_fingerprint(&parts.identity.get().chain()[0])?;
        let capacity = machine::capacity(parts.config.cpu_milli, parts.config.memory_bytes)?;
        let processes = machine::processes(parts.config.processes)?;
        let streams = Arc::new(OnceLock::new());
        if parts.config.login.is_some() {
            parts.handlers.insert(ALPN_SSH.to_vec(), logins::handler(streams.clone()));
        }
        if parts.config.cluster.is_some() {
            parts.handlers.extend(cluster::handlers(&streams));
        }
        let dialer = Dialer::new(parts.trust.clone(), parts.identity.clone());
        let cluster = parts.config.cluster.clone();
        let cgroups = find_cgroups(parts.cgroup.as_deref())?;
        let own = cgroups.envelope(&cluster::GROUP.parse().map_err(|e| fault("cgroup", &e))?);
        let cluster = cluster.map(|c| cluster::Clustered::new(c, &folder, dialer.clone(), own));
        let link = NodeLink::new(node.clone(), dialer, parts.handlers, parts.clock.clone())?;
        let (kept, vos) = Kept::open(&folder)?;
        let vos = vos.bounded().indexed();
        let (holding, logins) =
            logins::prepare(&parts.config, &folder, cgroups.clone(), processes)?;
        let envelopes = open_envelopes(&folder, cgroups)?;
        let units = Arc::new(units::Units::open(envelopes).await?);
        let stager = std::env::current_exe()
            .map_err(|e| Error::internal(format!("cannot find this program: {e}")))?;
        let tickets = Arc::new(Tickets::default());
        let boot = units.boot().to_owned();
        let contact = link::Contact::new(&folder, heard::Moment::at(parts.clock.now(), &boot));
        let spool = spool::Spool::open(&folder, node.clone(), parts.clock.clone())?;
        let agent = Arc::new(Agent {
            units,
            stager,
            volumes: volumes::Volumes::new(&folder)?,
            node,
            config: parts.config,
            folder,
            trust: parts.trust,
            clock: parts.clock,
            link,
            key,
            capacity,
            processes,
            vos: Mutex::new(vos),
            kept,
            gathering: Mutex::default(),
            accounts_changed: tokio::sync::watch::channel(0).0,
            told: AtomicBool::new(false),
            unruly: AtomicBool::new(false),
            tickets,
            contact: Mutex::new(contact),
            boot,
            cluster,
            holding,
            logins,
            socket: parts.socket,
            watcher: parts.watcher,
            spool,
            standings: Mutex::default(),
            flood: Mutex::default(),
            endings: Mutex::default(),
            _sole: sole,
        });
        if streams.set(Arc::downgrade(&agent)).is_err() {
            return Err(Error::internal("two agents serve the same streams"));
        }
        for site in agent.kept_sites()? {
            agent.trust.add(site)?;
        }
        if let Err(error) = agent.write_accounts() {
            // What is left of before serves until the core tells of accounts again.
            tracing::error!(%error, "names of grid accounts may be old");
        }
        {
            let (vos, now) = (agent.lock_vos(), agent.now());
            for (vo, _) in vos.iter() {
                agent.watcher.may_act(vo, vos.members(vo, now));
            }
        }
        agent.watcher.volumes_kept(&agent.volumes.wanted());
        Ok(agent)
    }

    /// The node's id.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Runs until `stop`: keeps the control stream, reports units, keeps mounts. Units and
    /// mounts go on without it.
    pub async fn run(self: Arc<Agent>, stop: CancellationToken) {
        let favored = tokio::spawn(self.clone().favor_moves());
        let volumes = tokio::spawn(self.clone().keep_volumes(stop.clone()));
        let standing = tokio::spawn(self.clone().keep_standing(stop.clone()));
        let local = tokio::spawn(self.clone().keep_local(stop.clone()));
        let signed_in = tokio::spawn(self.clone().keep_logins(stop.clone()));
        let clustered = tokio::spawn(self.clone().keep_cluster(stop.clone()));
        run_link(self, stop).await;
        if let Err(e) = favored.await {
            tracing::error!(error = %e, "the task that sets up control groups failed");
        }
        for task in [local, signed_in] {
            if let Err(e) = task.await {
                tracing::error!(error = %e, "the task that serves logins failed");
            }
        }
        if let Err(e) = clustered.await {
            tracing::error!(error = %e, "the task that keeps the node in its cluster failed");
        }
        if let Err(e) = standing.await {
            tracing::error!(error = %e, "the task that holds and ends members' work failed");
        }
        if let Err(e) = volumes.await {
            tracing::error!(error = %e, "the task that keeps mounts failed");
        }
    }

    async fn favor_moves(self: Arc<Agent>) {
        if self.config.favor_dynmods
            && let Err(why) = crate::cgroup::favor_moves().await
        {
            tracing::info!(why, "sessions and first units of jobs begin some milliseconds later");
        }
    }

    fn now(&self) -> Millis {
        self.clock.now()
    }

    fn lock_vos(&self) -> MutexGuard<'_, Vos> {
        self.vos.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept_sites(&self) -> Result<Vec<SiteDescriptor>, Error> {
        Ok(keep::read(&self.folder.join("sites.json"))?.unwrap_or_default())
    }

    /// Writes the account file that nss-xos reads.
    fn write_accounts(&self) -> Result<(), Error> {
        let local = machine::local_users()?;
        let homes = self.config.homes.display().to_string();
        let shell = self.shell();
        let generation = self.now().0;
        let file = self.lock_vos().accounts(generation, (homes.as_str(), shell.as_str()), &local);
        let path = xos_base::accounts::DEFAULT_PATH;
        file.write_atomic(Path::new(path))
            .map_err(|e| Error::internal(format!("cannot write the account file {path}: {e}")))
    }

    /// Verifies a ticket and holds it.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unauthenticated`] when it is forged, lapsed, or for another node.
    fn take_ticket(&self, jws: &str) -> Result<Held, Error> {
        let own = (&self.node, self.key.as_str());
        let (membership, claims) =
            xos_net::ticket::verify_ticket_of(&self.trust, jws, own, self.now())?;
        let held = Held { jws: jws.to_owned(), membership, expires: claims.expires };
        self.tickets.put(held.clone());
        Ok(held)
    }
}

fn fault(what: &str, e: &dyn std::fmt::Display) -> Error {
    Error::internal(format!("{what}: {e}"))
}

/// The cgroup below which envelopes and sessions have theirs.
fn find_cgroups(cgroup: Option<&Path>) -> Result<Cgroups, Error> {
    let instance = "xos".parse().map_err(|e| fault("cgroup", &e))?;
    let cgroups =
        Cgroups::prepare(&instance, cgroup).map_err(|e| fault("no cgroups for units", &e))?;
    if let (missing, trouble) = cgroups.missing()
        && (!missing.is_empty() || trouble.is_some())
    {
        tracing::warn!(?missing, trouble, "some limits of units cannot be set on this machine");
    }
    Ok(cgroups)
}

/// The envelopes, and how shims are started.
fn open_envelopes(folder: &Path, cgroups: Cgroups) -> Result<Envelopes, Error> {
    let shim = ShimProgram::find().map_err(|e| fault("cannot find xos-shim", &e))?;
    Envelopes::open(folder, shim, cgroups, || xos_base::when::SystemClock.now())
        .map(|envelopes| envelopes.warm(WARM_SHELLS))
        .map_err(|e| fault("cannot use the envelopes' folder", &e))
}
