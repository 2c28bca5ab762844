//! The section `[files]`: DIR and MRC for the volumes of VOs that are at home here, and what the
//! site's nodes are told about volumes.

mod both;
mod choice;
mod erased;
mod knowledge;
mod opens;

use super::mount::core_address;
use both::Both;
use choice::{KnownOsds, barrier_of};
use erased::Erased;
use futures_util::future::BoxFuture;
use knowledge::Knowledge;
use opens::Opens;
use prost::Message;
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio_util::sync::CancellationToken;
use xos_api::node::{SetVolumes, VolumeMount};
use xos_api::vom::RecordVolume;
use xos_base::when::Clock;
use xos_base::{Error, NodeId, SiteId, VoId};
use xos_net::dial::StreamHandler;
use xos_net::nodes::Io;
use xos_net::{Audit, Caller, Grid, NodeChange, Nodes, Principal, Trust};
use xos_vom::{Homed, Vom};
use xtreemfs_proto::dir::{Volume, VolumeRegister, VolumeRegisterRequest};
use xtreemfs_proto::mrc::VolumeCreateRequest;
use xtreemfs_proto::rpc::interface;
use xtreemfs_proto::{Handler, Incoming, Procedure, Room, RpcError};
use xtreemfs_server::dir::{Dir, REPEAT_INTERVAL};
use xtreemfs_server::mrc::{Mrc, MrcParts};
use xtreemfs_server::{Budget, Peer, Role, Signer};

/// The label of the volume that every VO has.
const MAIN: &str = "main";
/// The group `members` of every VO.
const MEMBERS: u32 = 1;
/// Most bytes of requests that DIR and MRC hold at once, over all connections, those counted in
/// that are still coming in.
const REQUEST_BYTES_MAX: usize = 128 << 20;
/// The same of one node.
const REQUEST_BYTES_PER_NODE_MAX: usize = 8 << 20;
/// Rights of a volume's root folder: every member makes folders, and removes only their own.
const ROOT_MODE: u32 = 0o1770;

/// `[files]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Bytes of one object in new volumes. Default 524288.
    #[serde(default = "default_stripe")]
    pub stripe_bytes: u32,
    /// Most object servers that a file of a new volume is striped over. Default 4.
    #[serde(default = "default_width")]
    pub stripe_width: u32,
}

fn default_stripe() -> u32 {
    512 * 1024
}

fn default_width() -> u32 {
    4
}

/// What the file services work with.
pub struct Parts {
    /// This site.
    pub site: SiteId,
    /// Where the MRC keeps its state.
    pub state: PathBuf,
    /// Calls to the own core.
    pub grid: Grid,
    /// The site's nodes.
    pub nodes: Nodes,
    /// The trusted sites.
    pub trust: Trust,
    /// The VOs.
    pub vom: Vom,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Takes note of files that are opened, where a VO asks for it.
    pub audit: Arc<dyn Audit>,
    /// Ends the background work.
    pub stop: CancellationToken,
}

/// The file services of a core.
pub struct Files {
    config: Config,
    parts: Parts,
    dir: Arc<Dir>,
    mrc: Arc<Mrc>,
    knowledge: Arc<Knowledge>,
    opens: Arc<Opens>,
    erased: Erased,
    requests: Arc<Budget>,
}

impl Files {
    /// Opens DIR and MRC.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the MRC's state is damaged.
    pub async fn start(config: Config, parts: Parts) -> Result<Arc<Files>, Error> {
        let fault = |what: &str, e: &dyn std::fmt::Display| Error::internal(format!("{what}: {e}"));
        std::fs::create_dir_all(&parts.state).map_err(|e| fault("file services", &e))?;
        let erased = Erased::open(parts.state.join("erased.json"))?;
        let knowledge = Arc::new(Knowledge {
            site: parts.site.clone(),
            trust: parts.trust.clone(),
            vom: parts.vom.clone(),
            clock: parts.clock.clone(),
            shown: Mutex::default(),
            stores: RwLock::default(),
            serving: RwLock::default(),
        });
        let clock: Arc<dyn xtreemfs_server::Clock> = Arc::new(xtreemfs_server::SystemClock);
        let dir = Dir::new(knowledge.clone(), clock.clone());
        let seed = signing_seed(&parts.state.join("capability.key"))?;
        let signer = Signer::from_seed(&seed).map_err(|e| fault("capability key", &e))?;
        let (opens, noting) = opens::opens(knowledge.clone());
        let (opens, now) = (Arc::new(opens), parts.clock.clone());
        let audit = parts.audit.clone();
        tokio::spawn(noting.run(parts.site.to_string(), move || now.now(), audit));
        let mrc_parts = MrcParts {
            signer,
            authenticator: knowledge.clone(),
            epochs: knowledge.clone(),
            osds: Arc::new(KnownOsds { dir: dir.clone(), knowledge: knowledge.clone() }),
            policy: knowledge.clone(),
            opens: opens.clone(),
            clock,
            random: Box::new(random_16),
            checkpoint_bytes: xtreemfs_server::mrc::store::LOG_BYTES_CHECKPOINT,
        };
        let folder = parts.state.join("mrc");
        let mrc = tokio::task::spawn_blocking(move || Mrc::open(&folder, mrc_parts))
            .await
            .map_err(|e| fault("opening the MRC", &e))?
            .map_err(|e| fault("cannot open the MRC", &e))?;
        let requests = Arc::new(Budget::new(REQUEST_BYTES_MAX, REQUEST_BYTES_PER_NODE_MAX));
        Ok(Arc::new(Files { config, parts, dir, mrc, knowledge, opens, erased, requests }))
    }

    /// Serves `xtreemfs/1` streams of nodes.
    pub fn handler(self: &Arc<Files>) -> StreamHandler {
        let files = self.clone();
        Arc::new(move |caller, stream| files.clone().serve(caller, stream))
    }

    fn serve(self: Arc<Files>, caller: Caller, stream: Box<dyn Io>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Principal::Node(node) = caller.principal() else {
                tracing::info!(caller = caller.describe(), "only nodes speak xtreemfs/1 to a core");
                return;
            };
            let both = self.both(node, caller.key().unwrap_or_default());
            if let Err(e) = xtreemfs_proto::serve::serve(stream, Arc::new(both)).await {
                tracing::debug!(%node, error = %e, "file stream ended");
            }
        })
    }

    /// What a stream of a node, which proved that key, gets.
    fn both(&self, node: &NodeId, key: &str) -> Both {
        let peer = |role| Peer { id: node.to_string(), key: key.to_owned(), role };
        Both {
            dir: self.dir.connection(peer(Role::Service)),
            mrc: self.mrc.connection(peer(Role::Client)),
            node: node.clone(),
            knowledge: self.knowledge.clone(),
            share: self.requests.share(node.as_str()),
            requests: self.requests.clone(),
        }
    }

    /// Makes missing volumes, registers them, and tells nodes what to mount: after each change,
    /// and now and then. Runs until the core stops.
    pub async fn keep(self: Arc<Files>) {
        let mut changes = self.parts.vom.changes();
        let mut coming = self.parts.nodes.changes();
        loop {
            self.settle().await;
            tokio::select! {
                () = self.parts.stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
                change = coming.recv() => match change {
                    Ok(NodeChange { connected: false, .. }) => continue,
                    Ok(NodeChange { node, .. }) => self.erased.anew(&node),
                    Err(_) => {}
                },
                () = tokio::time::sleep(REPEAT_INTERVAL) => {}
            }
        }
    }

    /// What is wrong with one volume must not hold up the others; it is tried again the next time.
    async fn settle(&self) {
        for homed in self.parts.vom.homed() {
            if let Err(e) = self.make_volume(&homed).await {
                tracing::warn!(vo = %homed.vo, error = %e, "a VO has no volume yet");
            }
        }
        if let Err(e) = self.register_volumes().await {
            tracing::warn!(error = %e, "volumes are not all registered yet");
        }
        for gone in self.parts.vom.erased() {
            if let Err(e) = self.erase(&gone.vo).await {
                tracing::warn!(vo = %gone.vo, error = %e, "what is kept for a VO that is no more stays");
            }
        }
        let mounts = self.mounts();
        let told = self.parts.nodes.connected().into_iter().map(|node| {
            let volumes = mounts.clone();
            async move {
                if let Err(e) = self.parts.nodes.call(&node, SetVolumes { volumes }).await {
                    tracing::warn!(%node, error = %e, "a node was not told its volumes");
                }
            }
        });
        futures_util::future::join_all(told).await;
        self.carry_out().await;
    }

    /// A VO that is suspended gets its volume when it is resumed: nothing can be recorded for it.
    async fn make_volume(&self, homed: &Homed) -> Result<(), Error> {
        let made = homed.volumes.iter().any(|v| v == MAIN);
        if !homed.active || made || self.erased.has(&homed.vo) {
            return Ok(());
        }
        let request = VolumeCreateRequest {
            name: homed.vo.to_string(),
            vo: homed.vo.to_string(),
            // Whoever owned it could remove what others have in it, sticky or not.
            owner: xtreemfs_server::NO_MEMBER,
            group: MEMBERS,
            mode: ROOT_MODE,
            stripe_size: self.config.stripe_bytes,
            width: self.config.stripe_width,
            osds: Vec::new(),
        };
        match self.mrc.create_volume(&request).await {
            Ok(volume) => tracing::info!(vo = %homed.vo, id = volume.id, "volume made"),
            // Made before a crash, and not recorded yet.
            Err(e) if e.errno == xtreemfs_proto::Errno::EEXIST => {}
            Err(e) => return Err(Error::internal(format!("no volume for {}: {e}", homed.vo))),
        }
        let record = RecordVolume { vo: homed.vo.clone(), name: MAIN.to_owned() };
        self.parts.grid.call(&self.parts.site, record).await.map(drop)
    }

    async fn register_volumes(&self) -> Result<(), Error> {
        let fault = |e: RpcError| Error::internal(format!("volumes: {e}"));
        let own = core_address(&self.parts.site);
        let me =
            self.dir.connection(Peer { id: own.clone(), key: String::new(), role: Role::Service });
        let mut registered = Ok(());
        for volume in self.mrc.volumes().map_err(fault)? {
            // Of what the directory knows already, the pause of who raised it goes on.
            if volume.barrier > 0 && !self.dir.has_barrier(&volume.id) {
                self.dir.raise_barrier(&barrier_of(&volume, volume.barrier), None);
            }
            let volume = Volume {
                id: volume.id,
                name: volume.name,
                vo: volume.vo,
                mrc_address: own.clone(),
                mrc_key: bytes::Bytes::copy_from_slice(&self.mrc.public_key().0),
            };
            let request = VolumeRegisterRequest { volume: Some(volume) };
            let answer = me.handle(Incoming {
                interface: interface::DIR,
                proc: VolumeRegister::PROC,
                slot: None,
                until_ms: None,
                message: request.encode_to_vec().into(),
                data: bytes::Bytes::new(),
                room: Room::default(),
            });
            registered = registered.and(answer.await.map(drop).map_err(fault));
        }
        registered
    }

    /// The volumes of every VO that has accounts at this site; notes who serves and stores the VOs
    /// that are at home here.
    fn mounts(&self) -> Vec<VolumeMount> {
        let mut stores: HashMap<VoId, HashMap<SiteId, u64>> = HashMap::new();
        let mut serving: HashMap<VoId, HashSet<SiteId>> = HashMap::new();
        let homed = self.parts.vom.homed();
        let asking = homed.iter().filter(|homed| homed.audit_opens);
        self.opens.ask(asking.map(|homed| homed.vo.clone()));
        for homed in homed {
            let giving = homed.sites.iter().filter(|s| s.terms.storage_bytes > 0);
            let giving = giving.map(|s| (s.site.clone(), s.terms.storage_bytes));
            stores.insert(homed.vo.clone(), giving.collect());
            serving.insert(homed.vo, homed.sites.into_iter().map(|s| s.site).collect());
        }
        *self.knowledge.serving.write().unwrap_or_else(PoisonError::into_inner) = serving;
        *self.knowledge.stores.write().unwrap_or_else(PoisonError::into_inner) = stores;
        let kept = self.parts.vom.kept().into_iter();
        kept.filter(|k| k.volumes.iter().any(|v| v == MAIN))
            .map(|k| VolumeMount {
                volume: k.vo.to_string(),
                home: k.vo.site(),
                store: k.store,
                vo: k.vo,
            })
            .collect()
    }
}

/// Random bytes for a volume's id; two volumes with one id would share their objects, so without
/// randomness nothing goes on.
fn random_16() -> [u8; 16] {
    let mut out = [0; 16];
    if aws_lc_rs::rand::fill(&mut out).is_err() {
        tracing::error!("the system gives no randomness");
        std::process::abort();
    }
    out
}

/// 32 random bytes in a file of their own, made once.
fn signing_seed(path: &Path) -> Result<[u8; 32], Error> {
    match std::fs::read(path) {
        Ok(bytes) => {
            bytes.try_into().map_err(|_| Error::internal(format!("{} is damaged", path.display())))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let mut seed = [0; 32];
            aws_lc_rs::rand::fill(&mut seed)
                .map_err(|_| Error::internal("the system gives no randomness"))?;
            super::durable::write_new(path, seed)?;
            Ok(seed)
        }
        Err(e) => Err(Error::internal(format!("cannot read {}: {e}", path.display()))),
    }
}

#[cfg(test)]
mod tests;
