//! The section `[osd]`: this node keeps file objects.

mod asking;
mod barriers;
mod keys;
mod known;
mod store;

use super::mount::core_address;
use barriers::{Asking, Barriers};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use keys::Keys;
use known::{Homes, Known};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use xos_api::node::VolumeMount;
use xos_base::{Error, NodeId, SiteId, VoId};
use xos_net::dial::{Dialer, StreamHandler};
use xos_net::nodes::Io;
use xos_net::tls::ALPN_XTREEMFS;
use xos_net::{Caller, Principal, Trust};
use xos_node::agent::{Erasing, Members, VoWatcher};
use xtreemfs_proto::Channel;
use xtreemfs_proto::dir::{Barrier, Barriers as BarriersProc, BarriersRequest};
use xtreemfs_proto::dir::{Osd as OsdInfo, OsdRegister, OsdRegisterRequest};
use xtreemfs_proto::dir::{Volume, VolumeList, VolumeListRequest};
use xtreemfs_server::dir::{ASKED_MAX, OSD_VOS_MAX};
use xtreemfs_server::osd::{Osd, OsdParts, WriteVerifier};
use xtreemfs_server::{Peer, Role, VoName};

pub use store::is_own;

/// The keys of volumes, JSON, below the node's folder.
const KEYS: &str = "osd-keys.json";
/// The barriers of volumes, JSON, below the node's folder.
const BARRIERS: &str = "osd-barriers.json";
/// How long a directory is asked to wait for a new barrier.
const WATCH: Duration = Duration::from_secs(30);
/// How often the directories hear of this node when they do not say otherwise.
const BEAT: Duration = Duration::from_secs(15);
/// Pause after a directory did not answer.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a call to a directory may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// `[osd]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where objects are kept. Default: `objects` in the state folder.
    pub path: Option<PathBuf>,
    /// Space on the disk that is left to others, in bytes. Default 1 GiB.
    #[serde(default = "default_reserve")]
    pub reserve_bytes: u64,
}

fn default_reserve() -> u64 {
    1 << 30
}

/// Where the object server of this machine listens for its own mounts.
pub fn own_socket(folder: &Path) -> PathBuf {
    folder.join("osd.sock")
}

/// The node's object server, and what it knows of VOs. Without `[osd]` it only knows.
pub struct Objects {
    node: NodeId,
    folder: PathBuf,
    dialer: Dialer,
    osd: Option<Arc<Osd>>,
    known: Arc<Known>,
}

impl Objects {
    /// Opens the object store.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when it cannot be opened.
    pub async fn start(
        config: Option<Config>,
        node: &NodeId,
        state: &Path,
        dialer: Dialer,
        _trust: &Trust,
    ) -> Result<Arc<Objects>, Error> {
        let folder = state.join("node");
        let keys = Keys::open(folder.join(KEYS));
        let barriers = Barriers::open(folder.join(BARRIERS));
        let known = Arc::new(Known::new(Arc::new(dialer.clone()), keys, barriers));
        let osd = match config {
            None => None,
            Some(config) => {
                let path = config.path.unwrap_or_else(|| state.join("objects"));
                let parts = OsdParts {
                    id: node.to_string(),
                    trust: known.clone(),
                    epochs: known.clone(),
                    clock: Arc::new(xtreemfs_server::SystemClock),
                    had_objects: false,
                    reserve_bytes: config.reserve_bytes,
                    verifier: WriteVerifier::of_this_boot().map_err(|e| {
                        Error::internal(format!("no object store: the kernel's boot id: {e}"))
                    })?,
                };
                let folder = folder.clone();
                let opened =
                    tokio::task::spawn_blocking(move || store::open(&path, &folder, parts))
                        .await
                        .map_err(|e| Error::internal(format!("opening the object store: {e}")))?;
                Some(opened.map_err(|e| Error::internal(format!("no object store: {e}")))?)
            }
        };
        Ok(Arc::new(Objects { node: node.clone(), folder, dialer, osd, known }))
    }

    /// Serves streams that others open to this node.
    pub fn handler(self: &Arc<Objects>) -> StreamHandler {
        let objects = self.clone();
        Arc::new(move |caller: Caller, stream| {
            let objects = objects.clone();
            Box::pin(async move {
                match caller.principal() {
                    Principal::Node(node) => {
                        let key = caller.key().unwrap_or_default();
                        objects.serve((node.as_str(), key), stream).await;
                    }
                    _ => tracing::info!(caller = caller.describe(), "only nodes read objects"),
                }
            }) as BoxFuture<'static, ()>
        })
    }

    async fn serve(&self, (peer, key): (&str, &str), stream: Box<dyn Io>) {
        let Some(osd) = &self.osd else { return };
        let peer_of = Peer { id: peer.to_owned(), key: key.to_owned(), role: Role::Client };
        let handler = osd.connection(peer_of);
        if let Err(e) = xtreemfs_proto::serve::serve(stream, handler).await {
            tracing::info!(peer, error = %e, "object stream ended");
        }
    }

    /// Serves the own mounts' socket and keeps the directories informed, until `stop`.
    pub async fn run(self: Arc<Objects>, stop: CancellationToken) {
        let Some(osd) = &self.osd else { return };
        // What a stop left of a VO that was erased.
        tokio::spawn(sweep(osd.clone()));
        let local = tokio::spawn(self.clone().serve_own(stop.clone()));
        let mut beats: BTreeMap<SiteId, tokio::task::JoinHandle<()>> = BTreeMap::new();
        while !stop.is_cancelled() {
            let homes = self.known.homes();
            beats.retain(|home, task| {
                let keep = homes.contains_key(home) && !task.is_finished();
                if !keep {
                    task.abort();
                }
                keep
            });
            for home in homes.keys() {
                beats
                    .entry(home.clone())
                    .or_insert_with(|| tokio::spawn(self.clone().serve_home(home.clone())));
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.known.changed.notified() => {}
            }
        }
        for task in beats.values() {
            task.abort();
        }
        local.abort();
    }

    async fn serve_own(self: Arc<Objects>, stop: CancellationToken) {
        let path = own_socket(&self.folder);
        let removed = match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        let made = removed.and_then(|()| UnixListener::bind(&path)).and_then(|l| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            Ok(l)
        });
        let listener = match made {
            Ok(listener) => listener,
            Err(e) => {
                tracing::error!(error = %e, "no socket for this node's own mounts");
                return;
            }
        };
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(e) => {
                        tracing::warn!(error = %e, "socket for own mounts");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            // Only root's own processes come this way.
            match stream.peer_cred() {
                Ok(cred) if cred.uid() == 0 => {}
                _ => continue,
            }
            let objects = self.clone();
            tokio::spawn(async move {
                // By the socket's owner, not by a key.
                objects.serve((objects.node.as_str(), ""), Box::new(stream)).await;
            });
        }
    }

    /// Keeps the directory of `home` informed, and itself.
    async fn serve_home(self: Arc<Objects>, home: SiteId) {
        tokio::join!(self.beat(&home), self.watch(&home));
    }

    /// Waits for barriers of the VOs of `home`, again and again.
    async fn watch(&self, home: &SiteId) {
        loop {
            if let Err(e) = self.hear_barriers(home).await {
                tracing::debug!(%home, error = %e, "a directory does not tell of closed folders");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Goes by what the directory of `home` tells, and says so with the next question, until
    /// something goes wrong or it answers without waiting and without news.
    async fn hear_barriers(&self, home: &SiteId) -> Result<(), Error> {
        let channel = Channel::new(self.dialer.core(home, ALPN_XTREEMFS).await?);
        'again: loop {
            let (asked, vos) = (Instant::now(), self.known.homes().remove(home));
            let vos = vos.unwrap_or_default();
            let parts = self.known.barriers.parts(&vos, ASKED_MAX);
            let asking = parts.into_iter().map(|part| ask_barriers(&channel, home, part));
            let mut asking: FuturesUnordered<_> = asking.collect();
            let answer = loop {
                tokio::select! {
                    answer = asking.next() => break answer,
                    () = self.known.told.notified() => {
                        // Other VOs than those that were asked about are kept here now.
                        if self.known.homes().get(home) != Some(&vos) {
                            continue 'again;
                        }
                    }
                }
            };
            let Some(told) = answer.transpose()? else { return Ok(()) };
            let known = self.known.clone();
            let learn = move || known.barriers.learn(&vos, told);
            let learned = tokio::task::spawn_blocking(learn).await;
            let news = learned.map_err(|e| Error::internal(format!("barriers: {e}")))??;
            if !news && asked.elapsed() < PAUSE {
                return Ok(());
            }
        }
    }

    /// Registers at the directory of `home`, again and again.
    async fn beat(&self, home: &SiteId) {
        loop {
            let pause = match self.register(home).await {
                Ok(pause) => {
                    // It answers, so that it can be asked what it has too.
                    self.known.hear(home).await;
                    pause
                }
                Err(e) => {
                    tracing::warn!(%home, error = %e, "a directory does not know this node yet");
                    PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.known.told.notified() => {}
            }
        }
    }

    async fn register(&self, home: &SiteId) -> Result<Duration, Error> {
        let Some(osd) = &self.osd else { return Ok(BEAT) };
        let Some(vos) = self.known.homes().remove(home) else { return Ok(BEAT) };
        if vos.len() > OSD_VOS_MAX {
            let kept = vos.len();
            tracing::warn!(%home, kept, limit = OSD_VOS_MAX, "too many VOs: some get no new files");
        }
        let vos = vos.iter().take(OSD_VOS_MAX).map(VoId::to_string).collect();
        let space = osd.space().map_err(|e| Error::internal(format!("free space: {e}")))?;
        let info = OsdInfo {
            id: self.node.to_string(),
            address: self.node.to_string(),
            free_bytes: space.free_bytes,
            total_bytes: space.total_bytes,
            vos,
            seen_ms: 0,
        };
        let request = OsdRegisterRequest { osd: Some(info) };
        let channel = Channel::new(self.dialer.core(home, ALPN_XTREEMFS).await?);
        let (reply, _) = channel
            .call::<OsdRegister>(None, &request, bytes::Bytes::new(), CALL_LIMIT)
            .await
            .map_err(|e| Error::unavailable(format!("{}: {e}", core_address(home))))?;
        Ok(Duration::from_millis(reply.repeat_ms).clamp(PAUSE, BEAT))
    }
}

/// What is new to this node of some VOs of `home`; nothing after a while.
async fn ask_barriers(
    channel: &Channel,
    home: &SiteId,
    (vos, known): Asking,
) -> Result<Vec<Barrier>, Error> {
    let request = BarriersRequest { vos, known, wait_ms: WATCH.as_millis() as u64, osd: true };
    let (limit, nothing) = (WATCH + CALL_LIMIT, bytes::Bytes::new());
    let answer = channel.call::<BarriersProc>(None, &request, nothing, limit).await;
    let unheard = |e| Error::unavailable(format!("{}: {e}", core_address(home)));
    answer.map(|(reply, _)| reply.barriers).map_err(unheard)
}

/// Gives back the space of VOs that are erased.
async fn sweep(osd: Arc<Osd>) {
    if let Err(e) = osd.sweep().await {
        tracing::warn!(error = %e, "objects of an erased VO are left until the next start");
    }
}

#[async_trait::async_trait]
impl Homes for Dialer {
    async fn volumes_of(&self, home: &SiteId, vo: &VoName) -> Result<Vec<Volume>, Error> {
        let channel = Channel::new(self.core(home, ALPN_XTREEMFS).await?);
        let request = VolumeListRequest { vo: vo.to_string() };
        let (reply, _) = channel
            .call::<VolumeList>(None, &request, bytes::Bytes::new(), CALL_LIMIT)
            .await
            .map_err(|e| Error::unavailable(format!("{}: {e}", core_address(home))))?;
        Ok(reply.volumes)
    }
}

impl VoWatcher for Objects {
    fn may_act(&self, vo: &VoId, members: Members) {
        self.known.members(vo, members);
    }

    fn volumes_kept(&self, volumes: &[VolumeMount]) {
        self.known.volumes_kept(volumes);
    }

    fn volumes_changed(&self, volumes: &[VolumeMount]) {
        self.known.volumes_told(volumes);
    }

    fn vo_erased<'a>(&'a self, vo: &'a VoId) -> Erasing<'a> {
        Box::pin(async move {
            let (Some(osd), Some(name)) = (&self.osd, VoName::parse(vo.as_str())) else {
                return Ok(());
            };
            let failed = |e| Error::internal(format!("the objects of {vo} are not deleted: {e}"));
            if osd.erase(&name).await.map_err(failed)? {
                tracing::info!(%vo, "the objects of a VO that is erased are deleted");
                tokio::spawn(sweep(osd.clone()));
            }
            Ok(())
        })
    }
}
