//! The volumes that this node mounts. Each mount is a process of its own, so that neither a
//! restart of `xosd` nor a crash of another mount takes open files away.

mod mounts;
mod process;

use super::Agent;
use super::keep;
use mounts::{Change, Mounts};
pub use process::FLUSH_WITHIN;
use process::Running;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use xos_api::node::VolumeMount;
use xos_base::{Error, MemberNumber, SiteId, VoId};

/// Where volumes are mounted, on every node of every site.
pub const MOUNTS: &str = "/xtreemfs";
/// How often mounts are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest line on the ticket socket, in bytes.
const LINE_MAX: u64 = 64 * 1024;
/// Most volumes on one node.
const VOLUMES_MAX: usize = 1024;

/// What the mount process is told, in a file only root reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountSpec {
    /// The VO.
    pub vo: VoId,
    /// The volume's name at its DIR.
    pub volume: String,
    /// The site whose core runs DIR and MRC.
    pub home: SiteId,
    /// The own site.
    pub site: SiteId,
    /// Where to mount.
    pub at: PathBuf,
    /// Local uid = this + member number, gid likewise.
    pub base: u32,
    /// How many numbers from `base` on are the VO's.
    pub size: u32,
    /// The node's folder with certificate, key and trusted sites.
    pub folder: PathBuf,
    /// The socket at which `xosd` gives tickets.
    pub tickets: PathBuf,
}

/// A mount process asks for a person's ticket. One JSON text a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketRequest {
    /// The VO.
    pub vo: VoId,
    /// The member.
    pub member: MemberNumber,
}

/// The answer: one JSON text a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TicketReply {
    /// The ticket.
    Ticket {
        /// As it came from the VO's home.
        jws: String,
        /// When it lapses, ms since 1970.
        expires: u64,
    },
    /// That person does not work on this node now.
    None {},
}

/// The node's volumes.
pub(super) struct Volumes {
    folder: PathBuf,
    wanted: Mutex<Vec<VolumeMount>>,
    changed: Notify,
}

impl Volumes {
    pub(super) fn new(folder: &Path) -> Result<Volumes, Error> {
        let folder = folder.join("volumes");
        std::fs::create_dir_all(&folder)
            .and_then(|()| {
                std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))
            })
            .map_err(|e| Error::internal(format!("cannot make {}: {e}", folder.display())))?;
        let wanted = keep::read(&folder.join("wanted.json"))?.unwrap_or_default();
        let (wanted, changed) = (Mutex::new(wanted), Notify::new());
        Ok(Volumes { folder, wanted, changed })
    }

    pub(super) fn set(&self, volumes: Vec<VolumeMount>) -> Result<(), Error> {
        if volumes.len() > VOLUMES_MAX {
            return Err(Error::too_large(format!("a node mounts at most {VOLUMES_MAX} volumes")));
        }
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if *wanted != volumes {
            keep::write(&self.folder.join("wanted.json"), &volumes)?;
            *wanted = volumes;
            self.changed.notify_one();
        }
        Ok(())
    }

    pub(super) fn wanted(&self) -> Vec<VolumeMount> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("tickets.sock")
    }

    fn record(&self, vo: &VoId) -> PathBuf {
        self.folder.join(format!("{vo}.running.json"))
    }
}

impl Agent {
    /// Serves tickets to the mount processes and keeps the mounts that the core wants.
    pub(super) async fn keep_volumes(self: Arc<Agent>, stop: CancellationToken) {
        let server = tokio::spawn(self.clone().serve_tickets(stop.clone()));
        let mut mounts = Mounts::new(self.find_running());
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                // What failed waits for the next look.
                () = mounts.changed() => continue,
                () = self.volumes.changed.notified() => {}
                _ = look.tick() => {}
            }
            self.settle(&mut mounts);
            self.tickets.sweep(self.now());
        }
        server.abort();
    }

    fn find_running(&self) -> BTreeMap<VoId, Running> {
        let mut found = BTreeMap::new();
        let entries = match std::fs::read_dir(&self.volumes.folder) {
            Ok(entries) => entries,
            Err(e) => {
                tracing::warn!(error = %e, "cannot look for running mounts");
                return found;
            }
        };
        for entry in entries.flatten() {
            if !entry.file_name().to_string_lossy().ends_with(".running.json") {
                continue;
            }
            match keep::read::<Running>(&entry.path()) {
                Ok(Some(r)) => {
                    found.insert(r.spec.vo.clone(), r);
                }
                Ok(None) => {}
                Err(e) => tracing::warn!(error = %e, "a mount's record is not readable"),
            }
        }
        found
    }

    /// One look at all mounts: ends what is not wanted, starts what is missing, beside everything
    /// else.
    fn settle(self: &Arc<Agent>, mounts: &mut Mounts) {
        let wanted: BTreeMap<VoId, MountSpec> = self
            .volumes
            .wanted()
            .into_iter()
            .filter_map(|v| Some((v.vo.clone(), self.mount_spec(v)?)))
            .collect();
        for change in mounts.due(wanted, process::stands) {
            let agent = self.clone();
            mounts.spawn(change.vo.clone(), async move { agent.change(change).await });
        }
    }

    async fn change(&self, change: Change) -> Option<Running> {
        let vo = &change.vo;
        if let Some(old) = change.end {
            tracing::info!(%vo, pid = old.pid, "ending a mount");
            let ended = self.end(&old).await;
            if let Err(e) = &ended {
                tracing::error!(%vo, error = %e, "a mount cannot be ended");
            }
            self.note_mount("unmount", &old.spec, &ended);
        }
        match self.begin(change.begin?).await {
            Ok(r) => {
                tracing::info!(%vo, pid = r.pid, "mounted");
                self.note_mount("mount", &r.spec, &Ok(()));
                Some(r)
            }
            Err(e) => {
                tracing::warn!(%vo, error = %e, "a volume cannot be mounted yet");
                None
            }
        }
    }

    /// `None` as long as the VO's accounts have not come.
    fn mount_spec(&self, v: VolumeMount) -> Option<MountSpec> {
        let (base, size) = self.lock_vos().vo(&v.vo).map(|vo| (vo.base, vo.size))?;
        Some(MountSpec {
            at: Path::new(MOUNTS).join(v.vo.as_str()),
            site: self.node.site(),
            folder: self.folder.clone(),
            tickets: self.volumes.socket(),
            vo: v.vo,
            volume: v.volume,
            home: v.home,
            base,
            size,
        })
    }

    async fn serve_tickets(self: Arc<Agent>, stop: CancellationToken) {
        let path = self.volumes.socket();
        // No other xosd uses it: the node's folder is locked.
        if let Err(e) = std::fs::remove_file(&path)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            tracing::error!(error = %e, "cannot replace the ticket socket");
        }
        let listener = match UnixListener::bind(&path) {
            Ok(l) => l,
            Err(e) => {
                tracing::error!(error = %e, path = %path.display(), "no ticket socket");
                return;
            }
        };
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(e) => {
                        tracing::warn!(error = %e, "ticket socket");
                        tokio::time::sleep(LOOK_EVERY).await;
                        continue;
                    }
                },
            };
            let agent = self.clone();
            tokio::spawn(async move {
                if let Err(e) = agent.give_tickets(stream).await {
                    tracing::debug!(error = %e, "a mount process hung up");
                }
            });
        }
    }

    async fn give_tickets(&self, stream: UnixStream) -> std::io::Result<()> {
        // The folder is root's alone; the kernel's word is asked all the same.
        if stream.peer_cred()?.uid() != 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
        }
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(tokio::io::AsyncReadExt::take(reader, LINE_MAX));
        let mut line = String::new();
        loop {
            line.clear();
            reader.get_mut().set_limit(LINE_MAX);
            if reader.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let request: TicketRequest = serde_json::from_str(&line)?;
            let held = self.tickets.find(&request.vo, request.member, self.now());
            let reply = match held {
                Some(t) => TicketReply::Ticket { jws: t.jws, expires: t.expires.0 },
                None => TicketReply::None {},
            };
            let mut text = serde_json::to_vec(&reply)?;
            text.push(b'\n');
            writer.write_all(&text).await?;
        }
    }
}
