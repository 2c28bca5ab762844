//! Memory for images that only travel: a file system that no folder leads to. Nobody else has it,
//! it goes with this process, and nothing of it comes to a disk.

use rustix::fs::fstatvfs;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much of the machine's memory images may take at most (tmpfs(5)).
const SIZE: &str = "50%";
/// What an image has beside the memory of its program: this, and an eighth of that.
const BESIDE_BYTES: u64 = 16 * 1024 * 1024;
/// Of the machine's memory such a part stays free of images.
const FREE_PART: u64 = 16;

/// Memory for images. Clones are of the same.
#[derive(Clone, Debug)]
pub(super) struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    mounted: OwnedFd,
    root: PathBuf,
    /// Bytes of what is not written yet.
    taken: Mutex<u64>,
}

/// Room for an image that is being written.
#[derive(Debug)]
pub(super) struct Room {
    memory: Arc<Shared>,
    bytes: u64,
}

impl Room {
    /// How large it is.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Memory {
    /// Some of its own.
    ///
    /// # Errors
    /// That the system gives none, as to who is not root.
    pub(super) fn new() -> io::Result<Memory> {
        let mounted = mount()?;
        let root = PathBuf::from(format!("/proc/self/fd/{}", mounted.as_raw_fd()));
        Ok(Memory(Arc::new(Shared { mounted, root, taken: Mutex::new(0) })))
    }

    /// Where it is, for this process only.
    pub(super) fn root(&self) -> &Path {
        &self.0.root
    }

    /// Room for the image of a program with so much memory, in bytes, if there is.
    pub(super) fn take(&self, bytes: u64) -> Option<Room> {
        let bytes = bytes.saturating_add(bytes / 8).saturating_add(BESIDE_BYTES);
        let stat = fstatvfs(&self.0.mounted).ok()?;
        let own = stat.f_bavail.saturating_mul(stat.f_frsize);
        let (total, available) = machine(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
        let mut taken = self.0.taken();
        let all = taken.checked_add(bytes)?;
        if all > own.min(available.saturating_sub(total / FREE_PART)) {
            return None;
        }
        *taken = all;
        drop(taken);
        Some(Room { memory: self.0.clone(), bytes })
    }
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, u64> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = self.memory.taken();
        *taken = taken.saturating_sub(self.bytes);
    }
}

/// A file system in memory (tmpfs(5), fsopen(2)), not attached to any folder.
fn mount() -> io::Result<OwnedFd> {
    let new = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&new, "size", SIZE)?;
    fsconfig_set_string(&new, "mode", "0700")?;
    // Kernels before 6.4 do not know it; those without large pages not the other one.
    let _kept = fsconfig_set_flag(&new, "noswap");
    let _large = fsconfig_set_string(&new, "huge", "within_size");
    fsconfig_create(&new)?;
    let none = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&new, FsMountFlags::FSMOUNT_CLOEXEC, none)?)
}

/// All memory and what is available, in bytes, by a `/proc/meminfo` (proc(5)).
fn machine(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| -> Option<u64> {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some((field("MemTotal")?, field("MemAvailable")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_has() {
        // wrong: images would take the memory that programs need
        let text = "MemTotal:       16303428 kB\nMemFree: 1 kB\nMemAvailable:    8151714 kB\n";
        assert_eq!(machine(text), Some((16_303_428 * 1024, 8_151_714 * 1024)));
        assert_eq!(machine("MemTotal: 5 kB\n"), None);
    }

    #[test]
    fn room_is_given_once_and_comes_back() {
        // wrong: images that come at the same time would take more memory than there is, or after
        // some moves none would find room any more
        let memory = match Memory::new() {
            Ok(memory) => memory,
            Err(e) => return println!("skipped: needs root: {e}"),
        };
        assert!(memory.take(u64::MAX / 2).is_none());
        let first = memory.take(1).unwrap();
        let taken = *memory.0.taken();
        assert!(taken > BESIDE_BYTES);
        let second = memory.take(1).unwrap();
        assert_eq!(*memory.0.taken(), 2 * taken);
        drop((first, second));
        assert_eq!(*memory.0.taken(), 0);
        std::fs::write(memory.root().join("x"), "image").unwrap();
        assert_eq!(std::fs::read_to_string(memory.root().join("x")).unwrap(), "image");
    }
}
