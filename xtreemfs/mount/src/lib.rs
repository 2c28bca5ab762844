//! The XtreemFS mount: a volume as a directory of the local machine, by FUSE.
//!
//! One mount serves all people of the machine. Each request acts as the person behind the calling
//! uid, by that person's ticket, and the metadata server decides; root is nobody special. The
//! kernel's caches must not let one person profit from another's rights: it caches no names (each
//! look-up is decided for the person who makes it), attributes for a second, and content only
//! behind an open that the metadata server allowed.

mod answer;
mod content;
pub mod control;
mod convert;
mod core;
mod fs;
mod handles;
#[allow(unsafe_code)]
mod ioctl;
mod serve;
mod uidmap;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fuser::{BackgroundSession, MountOption, Session, SessionACL};
use nix::mount::{MntFlags, umount2};
use tokio::runtime::Handle;
use tracing::{info, warn};
use xtreemfs_client::{Error, Volume};

pub use uidmap::{Block, Mapping, UNKNOWN_ID, UidMap};

/// Threads that take requests from the kernel; the work is done on the runtime.
const THREADS: usize = 2;

/// What the kernel reads ahead on this mount, in KiB. Its own default of 128 is one object.
const KERNEL_READ_AHEAD_KIB: u32 = 1024;

/// Dead mounts of former processes that are cleared off one mount point at most.
const STALE_MOUNTS_MAX: usize = 8;

/// Where and how a volume is mounted.
#[derive(Debug, Clone)]
pub struct Config {
    /// An existing, empty directory.
    pub mount_point: PathBuf,
    /// The source shown by `mount` and `df`, for example `xtreemfs:demo.rennes`.
    pub source: String,
    /// Uids and gids; a clone kept by the caller changes them while mounted.
    pub map: UidMap,
    /// How long [`Mounted::unmount`] tries to flush what is open.
    pub flush_within: Duration,
}

/// Why a volume could not be mounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The machine's administrator acts: no FUSE, no rights, or no such directory.
    #[error("cannot mount at {}: {source}; it must be an existing directory, /dev/fuse must be there and the program must run as root", path.display())]
    Kernel {
        /// The mount point.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A dead mount at the mount point could not be cleared away.
    #[error("{} holds a dead mount that cannot be cleared: {source}; run umount -l on it", path.display())]
    Stale {
        /// The mount point.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The volume's services were not reached or refused.
    #[error(transparent)]
    Volume(#[from] Error),
}

/// A mounted volume. Dropping it unmounts without flushing; [`Mounted::unmount`] is the clean way.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    core: Arc<core::Core>,
    flush_within: Duration,
    session: Option<BackgroundSession>,
}

/// Mounts a volume; it is served by tasks on `runtime` until unmounted.
///
/// # Errors
/// [`MountError`] says who must act.
pub fn mount(config: Config, volume: Volume, runtime: Handle) -> Result<Mounted, MountError> {
    let path = config.mount_point;
    clear_stale(&path)?;
    let kernel = |source| MountError::Kernel { path: path.clone(), source };
    let core = Arc::new(core::Core::new(volume, config.map));
    let filesystem = answer::Mount { core: Arc::clone(&core), server: serve::Server::new(runtime) };
    let session = Session::new(filesystem, &path, &options(config.source)).map_err(kernel)?;
    let session = session.spawn().map_err(kernel)?;
    if core.notifier.set(session.notifier()).is_err() {
        warn!("the mount had a notifier already");
    }
    core.heed_closings();
    raise_read_ahead(&path);
    info!(path = %path.display(), "volume mounted");
    Ok(Mounted { path, core, flush_within: config.flush_within, session: Some(session) })
}

fn options(source: String) -> fuser::Config {
    let mut options = fuser::Config::default();
    options.mount_options = vec![
        MountOption::FSName(source),
        MountOption::Subtype("xtreemfs".into()),
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
    ];
    options.acl = SessionACL::All;
    options.n_threads = Some(THREADS);
    options.clone_fd = true;
    options
}

/// Detaches what a process that died left mounted here.
fn clear_stale(path: &Path) -> Result<(), MountError> {
    for _ in 0..STALE_MOUNTS_MAX {
        match std::fs::metadata(path) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {}
            _ => return Ok(()),
        }
        umount2(path, MntFlags::MNT_DETACH)
            .map_err(|errno| MountError::Stale { path: path.to_owned(), source: errno.into() })?;
    }
    Ok(())
}

/// Lets the kernel read ahead more than one object. The mount works without it.
fn raise_read_ahead(path: &Path) {
    use std::os::unix::fs::MetadataExt;
    let device = match std::fs::metadata(path) {
        Ok(metadata) => metadata.dev(),
        Err(error) => return warn!(%error, "the new mount cannot be looked at"),
    };
    let (major, minor) = (libc::major(device), libc::minor(device));
    let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(error) = std::fs::write(&setting, KERNEL_READ_AHEAD_KIB.to_string()) {
        info!(setting, %error, "the kernel's read-ahead stays as it is");
    }
}

impl Mounted {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the kernel still has it mounted; false after somebody else unmounted it.
    pub fn is_served(&self) -> bool {
        self.session.as_ref().is_some_and(|session| !session.guard.is_finished())
    }

    /// Flushes every open file and unmounts. A mount still in use is detached: it disappears from
    /// its place now, and its last user keeps it until done.
    ///
    /// # Errors
    /// The first error of the flush, after which it is unmounted all the same, or the kernel's.
    pub async fn unmount(mut self) -> Result<(), MountError> {
        let flushed = tokio::time::timeout(self.flush_within, self.core.flush_all()).await;
        let Some(session) = self.session.take() else { return Ok(()) };
        let path = self.path.clone();
        let ended = tokio::task::spawn_blocking(move || end(&path, session)).await;
        let kernel = |source| MountError::Kernel { path: self.path.clone(), source };
        ended.map_err(|error| kernel(io::Error::other(error)))?.map_err(kernel)?;
        match flushed {
            Ok(result) => Ok(result?),
            Err(_) => {
                let reason = "open files were not flushed in time before the unmount";
                Err(Error::Local { errno: libc::EIO, reason: reason.into() }.into())
            }
        }
    }
}

fn end(path: &Path, session: BackgroundSession) -> io::Result<()> {
    if session.guard.is_finished() {
        return session.join();
    }
    match umount2(path, MntFlags::empty()) {
        Ok(()) => session.join(),
        Err(nix::errno::Errno::EBUSY) => {
            umount2(path, MntFlags::MNT_DETACH)?;
            info!(path = %path.display(), "detached; it ends with its last user");
            // The session must live on for those who still use it.
            std::mem::forget(session);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
