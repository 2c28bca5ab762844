//! Memory for images that only travel: a file system that no folder leads to. Nobody else has it,
//! and it goes with this process. From Linux 6.4 on nothing of it comes to a disk; before, it may
//! be swapped as the programs themselves are.

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
    taken: Mutex<Bytes>,
}

/// Bytes of what is not there yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bytes {
    images: u64,
    /// Of programs that are made of images.
    programs: u64,
}

impl Bytes {
    /// With so much more, if all images fit into their `own` place and all together into what is
    /// `free` of the machine's memory.
    fn and(self, more: Bytes, (own, free): (u64, u64)) -> Option<Bytes> {
        let images = self.images.checked_add(more.images)?;
        let programs = self.programs.checked_add(more.programs)?;
        let fits = images <= own && images.checked_add(programs)? <= free;
        fits.then_some(Bytes { images, programs })
    }
}

/// Room for an image that is being written, and for the program that is made of it then: the image
/// is there until that is done.
#[derive(Debug)]
pub(super) struct Room {
    memory: Arc<Shared>,
    has: Bytes,
}

impl Room {
    /// How large the image may be, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.has.images
    }

    /// The image is there: what it takes the system counts.
    pub(super) fn written(&mut self) {
        self.memory.give(Bytes { programs: 0, ..self.has });
        self.has.images = 0;
    }
}

/// How much room the image of a program with so much memory takes, in bytes.
pub(super) fn with_room(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 8).saturating_add(BESIDE_BYTES)
}

impl Memory {
    /// Some of its own.
    ///
    /// # Errors
    /// That the system gives none, as to who is not root.
    pub(super) fn new() -> io::Result<Memory> {
        let mounted = mount()?;
        let root = PathBuf::from(format!("/proc/self/fd/{}", mounted.as_raw_fd()));
        Ok(Memory(Arc::new(Shared { mounted, root, taken: Mutex::default() })))
    }

    /// Where it is, for this process only.
    pub(super) fn root(&self) -> &Path {
        &self.0.root
    }

    /// Room for the image of a program with so much memory, in bytes, that is here already, if
    /// there is.
    pub(super) fn take(&self, bytes: u64) -> Option<Room> {
        self.take_both(Bytes { images: with_room(bytes), programs: 0 })
    }

    /// The same, of a program that is to be made here of that image.
    pub(super) fn take_with_program(&self, bytes: u64) -> Option<Room> {
        self.take_both(Bytes { images: with_room(bytes), programs: bytes })
    }

    fn take_both(&self, more: Bytes) -> Option<Room> {
        let stat = fstatvfs(&self.0.mounted).ok()?;
        let own = stat.f_bavail.saturating_mul(stat.f_frsize);
        let (total, available) = machine(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
        let free = available.saturating_sub(total / FREE_PART);
        let mut taken = self.0.taken();
        *taken = taken.and(more, (own, free))?;
        drop(taken);
        Some(Room { memory: self.0.clone(), has: more })
    }
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, Bytes> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, back: Bytes) {
        let mut taken = self.taken();
        taken.images = taken.images.saturating_sub(back.images);
        taken.programs = taken.programs.saturating_sub(back.programs);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.memory.give(self.has);
    }
}

/// A file system in memory (tmpfs(5), fsopen(2)), not attached to any folder.
fn mount() -> io::Result<OwnedFd> {
    let new = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&new, "size", SIZE)?;
    fsconfig_set_string(&new, "mode", "0700")?;
    if let Err(error) = fsconfig_set_flag(&new, "noswap") {
        // By the disk they would come to one always.
        let next = "have no swap, an encrypted one, or Linux 6.4";
        tracing::warn!(%error, next, "images of programs that move may be swapped to a disk");
    }
    // Those without large pages do not know it.
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
        assert!(taken.images > BESIDE_BYTES && taken.programs == 0);
        let second = memory.take(1).unwrap();
        assert_eq!(memory.0.taken().images, 2 * taken.images);
        drop((first, second));
        assert_eq!(*memory.0.taken(), Bytes::default());
        std::fs::write(memory.root().join("x"), "image").unwrap();
        assert_eq!(std::fs::read_to_string(memory.root().join("x")).unwrap(), "image");
    }
    #[test]
    fn a_program_has_room_beside_its_image() {
        // wrong: a program that comes would take twice what was asked for, and the kernel end
        // programs of others to have it
        let memory = match Memory::new() {
            Ok(memory) => memory,
            Err(e) => return println!("skipped: needs root: {e}"),
        };
        let bytes = 1 << 20;
        let mut room = memory.take_with_program(bytes).unwrap();
        assert_eq!((room.bytes(), memory.0.taken().programs), (with_room(bytes), bytes));
        room.written();
        assert_eq!(*memory.0.taken(), Bytes { images: 0, programs: bytes }, "it is not made yet");
        drop(room);
        assert_eq!(*memory.0.taken(), Bytes::default());
        let both = Bytes { images: 5, programs: 4 };
        assert_eq!(Bytes::default().and(both, (5, 9)), Some(both));
        assert_eq!(Bytes::default().and(both, (5, 8)), None, "there is room for the image only");
        assert_eq!(both.and(both, (9, 18)), None, "another one has it");
    }
}
