//! The volumes that this node mounts. Each mount is a process of its own, so that neither a
//! restart of `xosd` nor a crash of another mount takes open files away.

use super::Agent;
use super::keep;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
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

/// A mount process that was started; kept in a file, so that a new `xosd` finds it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Running {
    pid: u32,
    /// Field 22 of `/proc/<pid>/stat`: no other process has both.
    started: u64,
    spec: MountSpec,
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

    fn wanted(&self) -> Vec<VolumeMount> {
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
        let mut running: BTreeMap<VoId, Running> = self.find_running();
        while !stop.is_cancelled() {
            self.settle(&mut running).await;
            self.tickets.sweep(self.now());
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.volumes.changed.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
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

    /// One look at all mounts: ends what is not wanted, starts what is missing.
    async fn settle(&self, running: &mut BTreeMap<VoId, Running>) {
        let wanted: BTreeMap<VoId, MountSpec> = self
            .volumes
            .wanted()
            .into_iter()
            .filter_map(|v| Some((v.vo.clone(), self.mount_spec(v)?)))
            .collect();
        let gone: Vec<VoId> = running
            .iter()
            .filter(|(vo, r)| {
                wanted.get(*vo) != Some(&r.spec) || !alive(r.pid, r.started) || !mounted(&r.spec.at)
            })
            .map(|(vo, _)| vo.clone())
            .collect();
        for vo in gone {
            if let Some(r) = running.remove(&vo) {
                tracing::info!(%vo, pid = r.pid, "ending a mount");
                if let Err(e) = self.end(&r).await {
                    tracing::error!(%vo, error = %e, "a mount cannot be ended");
                }
            }
        }
        for (vo, spec) in wanted {
            if running.contains_key(&vo) {
                continue;
            }
            match self.begin(spec).await {
                Ok(r) => {
                    tracing::info!(%vo, pid = r.pid, "mounted");
                    running.insert(vo, r);
                }
                Err(e) => tracing::warn!(%vo, error = %e, "a volume cannot be mounted yet"),
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

    async fn begin(&self, spec: MountSpec) -> Result<Running, Error> {
        let fail = |what: &str, e: std::io::Error| {
            Error::internal(format!("cannot {what} for the mount of {}: {e}", spec.vo))
        };
        // What a crashed mount left behind answers every call with ENOTCONN.
        unmount(&spec.at).await?;
        std::fs::create_dir_all(&spec.at).map_err(|e| fail("make a folder", e))?;
        let file = self.volumes.folder.join(format!("{}.json", spec.vo));
        keep::write(&file, &spec)?;
        let log = self.volumes.folder.join(format!("{}.log", spec.vo));
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|e| fail("open a log", e))?;
        let program = std::env::current_exe().map_err(|e| fail("find xosd", e))?;
        let mut child = tokio::process::Command::new(program)
            .arg("mount")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(|e| fail("start a process", e))?;
        let pid = child.id().unwrap_or_default();
        let started = start_time(pid).unwrap_or_default();
        let running = Running { pid, started, spec: spec.clone() };
        keep::write(&self.volumes.record(&spec.vo), &running)?;
        // The process says "mounted" once, or ends.
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            let mut out = BufReader::new(out);
            out.read_line(&mut line).await.map_err(|e| fail("hear from the process", e))?;
        }
        let said = line.trim().to_owned();
        tokio::spawn(async move {
            match child.wait().await {
                Ok(status) => tracing::info!(pid, %status, "a mount process ended"),
                Err(e) => tracing::warn!(pid, error = %e, "a mount process was lost"),
            }
        });
        if said == "mounted" {
            Ok(running)
        } else {
            Err(Error::unavailable(format!("its process ended: see {}.log", spec.vo)))
        }
    }

    async fn end(&self, r: &Running) -> Result<(), Error> {
        unmount(&r.spec.at).await?;
        if alive(r.pid, r.started) {
            // Unmounting ends the process by itself; one that hangs is killed.
            let pid = nix::unistd::Pid::from_raw(i32::try_from(r.pid).unwrap_or(i32::MAX));
            match nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(e) => tracing::warn!(pid = r.pid, error = %e, "cannot end a mount process"),
            }
        }
        match std::fs::remove_file(self.volumes.record(&r.spec.vo)) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::internal(format!("cannot forget a mount: {e}"))),
        }
    }

    async fn serve_tickets(self: Arc<Agent>, stop: CancellationToken) {
        let path = self.volumes.socket();
        // Another xosd on the same state is kept out by the envelopes' lock.
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

/// Field 22 of `/proc/<pid>/stat`, in clock ticks since boot (proc(5)).
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is in parentheses and may hold anything.
    let rest = stat.rsplit_once(')')?.1;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn alive(pid: u32, started: u64) -> bool {
    start_time(pid) == Some(started)
}

/// Whether a file system is mounted at `at`. Read from the mount table: asking the file system
/// itself could wait for a server.
fn mounted(at: &Path) -> bool {
    match std::fs::read_to_string("/proc/self/mountinfo") {
        Ok(text) => {
            let wanted = at.to_string_lossy();
            text.lines().any(|l| l.split(' ').nth(4) == Some(wanted.as_ref()))
        }
        Err(e) => {
            tracing::error!(error = %e, "cannot read the mount table");
            false
        }
    }
}

/// Takes away whatever is mounted at `at`, also while files there are open.
async fn unmount(at: &Path) -> Result<(), Error> {
    let at = at.to_owned();
    let task = tokio::task::spawn_blocking(move || {
        while mounted(&at) {
            let flags = nix::mount::MntFlags::MNT_DETACH;
            nix::mount::umount2(&at, flags)
                .map_err(|e| Error::internal(format!("cannot unmount {}: {e}", at.display())))?;
        }
        Ok(())
    });
    task.await.unwrap_or_else(|e| Err(Error::internal(format!("unmounting failed: {e}"))))
}
