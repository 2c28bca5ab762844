//! A site, a volume mounted, and people to act as.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use tokio::runtime::Runtime;
use xtreemfs_mount::{Block, Config, Mapping, Mounted, UidMap, mount};

use crate::site::{Shape, Site};

pub const UID_BASE: u32 = 1_900_000_000;
pub const ALICE: u32 = UID_BASE + crate::site::ALICE.0;
pub const BOB: u32 = UID_BASE + crate::site::BOB.0;
pub const MEMBERS: u32 = UID_BASE + crate::site::MEMBERS;
/// A uid in the block without a ticket.
pub const CAROL: u32 = UID_BASE + 9;
/// A uid outside the block.
pub const STRANGER: u32 = 4321;

pub struct World {
    pub site: Site,
    pub map: UidMap,
    pub runtime: Runtime,
    pub path: PathBuf,
    mounted: Option<Mounted>,
    _folder: tempfile::TempDir,
}

/// Why FUSE cannot be tried here, if so.
fn missing() -> Option<&'static str> {
    if !Uid::effective().is_root() {
        return Some("not root");
    }
    (!Path::new("/dev/fuse").exists()).then_some("no /dev/fuse")
}

impl World {
    /// Mounts a volume; `None`, with the reason printed, where that cannot be done.
    pub fn start(shape: Shape) -> Option<World> {
        if let Some(reason) = missing() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let folder = tempfile::tempdir().unwrap();
        // Everybody must be able to get to the mount point.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let path = folder.path().join("vo");
        std::fs::create_dir(&path).unwrap();
        let block = Block { base: UID_BASE, count: 65_536 };
        let map =
            UidMap::new(Mapping { uids: block, gids: block, extra: HashMap::new(), mark: None });
        let (site, volume) = runtime.block_on(async {
            let site = Site::start(shape).await;
            let volume = site.volume().await;
            (site, volume)
        });
        let config = Config {
            mount_point: path.clone(),
            source: "xtreemfs:demo.rennes".into(),
            map: map.clone(),
            flush_within: std::time::Duration::from_secs(30),
        };
        let mounted = mount(config, volume, runtime.handle().clone()).unwrap();
        Some(World { site, map, runtime, path, mounted: Some(mounted), _folder: folder })
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Unmounts cleanly and says how it went.
    pub fn unmount(&mut self) -> Result<(), xtreemfs_mount::MountError> {
        match self.mounted.take() {
            Some(mounted) => self.runtime.block_on(mounted.unmount()),
            None => Ok(()),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            eprintln!("unmount: {error}");
        }
    }
}

/// Runs `work` on a thread whose file accesses are those of `uid` (the kernel sends FUSE the
/// fsuid).
pub fn acting_as<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setfsgid(Gid::from_raw(MEMBERS));
            setfsuid(Uid::from_raw(uid));
            assert_eq!(setfsuid(Uid::from_raw(uid)).as_raw(), uid);
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs a shell script in a real process of `uid`; its exit code and what it printed.
pub fn shell(uid: u32, dir: &Path, script: &str) -> (Option<i32>, String) {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("cd '{}' && {{ {script}\n}} 2>&1", dir.display()));
    let output = command.current_dir("/").uid(uid).gid(MEMBERS).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a shell script that must succeed.
pub fn sh(uid: u32, dir: &Path, script: &str) -> String {
    let (code, output) = shell(uid, dir, script);
    assert_eq!(code, Some(0), "{script}: {output}");
    output
}

pub fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Bytes that differ from place to place.
pub fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|n| (n / 7) as u8 ^ (n as u8).wrapping_mul(31) ^ seed).collect()
}
