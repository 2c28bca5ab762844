//! The images of a node: `<folder>/<tree>/<version>/`, for root alone. Those of programs that move
//! are in memory, if they fit there, and on the disk once they are kept as checkpoints.

use super::memory::{Memory, Room, with_room};
use super::part::Part;
use crate::cluster::messages::TreeId;
use crate::driver::ExternalFd;
use crate::driver::images::{self, MANIFEST, Manifest};
use crate::ghost::relay::Offsets;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// In an image folder: [`Streams`].
const STREAMS: &str = "streams.json";
/// Longest such file that is read, bytes.
const STREAMS_BYTES_MAX: u64 = 64 * 1024;
/// What the names of folders begin with in which an image that arrives is until it is whole.
const PART: &str = "part-";
/// Most trees of which it is known that an image was larger than it was said to be.
const LARGER_MAX: usize = 1024;

/// Numbers them: one image may be fetched to be kept and to be restored at the same time.
static PARTS: AtomicU64 = AtomicU64::new(0);

/// The streams of a tree when it was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Streams {
    /// How far they were.
    pub(super) at: Offsets,
    /// Its standard input, output and error; one when they are a terminal.
    pub(super) keys: Vec<ExternalFd>,
}

impl Streams {
    /// Adds them to an image that is not sealed yet.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        create(&folder.join(STREAMS))?.write_all(&serde_json::to_vec(self)?)
    }

    pub(super) fn read(folder: &Path) -> io::Result<Streams> {
        let mut bytes = Vec::new();
        File::open(folder.join(STREAMS))?.take(STREAMS_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// Where images lie.
#[derive(Clone, Debug)]
pub struct Store {
    disk: PathBuf,
    memory: Option<Memory>,
    came: Arc<Mutex<Came>>,
}

/// What is known of images that came. Clones of a store have the same.
#[derive(Debug, Default)]
struct Came {
    /// Of those in memory of which the program is not made yet: room for that.
    rooms: BTreeMap<(TreeId, u64), Room>,
    /// Trees of which the last one was larger than it was said to be.
    larger: BTreeSet<TreeId>,
}

impl Store {
    /// That of a folder, which is made when it is needed, without memory.
    pub fn new(folder: impl Into<PathBuf>) -> Store {
        Store { disk: folder.into(), memory: None, came: Arc::default() }
    }

    /// The same, with memory of its own where the system gives some.
    pub(super) fn with_memory(self) -> Store {
        let memory = Memory::new();
        if let Err(error) = &memory {
            tracing::warn!(%error, "programs that move go by the disk");
        }
        Store { memory: memory.ok(), ..self }
    }

    fn came(&self) -> MutexGuard<'_, Came> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory first.
    fn places(&self) -> impl Iterator<Item = &Path> {
        self.memory.as_ref().map(Memory::root).into_iter().chain([self.disk.as_path()])
    }

    /// Where an image is, or would be.
    pub fn folder(&self, tree: TreeId, version: u64) -> PathBuf {
        let on_disk = within(&self.disk, tree, version);
        let mut all = self.places().map(|place| within(place, tree, version));
        all.find(|folder| folder.exists()).unwrap_or(on_disk)
    }

    /// Whether an image is here as a whole.
    pub(super) fn has(&self, tree: TreeId, version: u64) -> bool {
        self.folder(tree, version).join(MANIFEST).exists()
    }

    /// An empty folder for a checkpoint.
    pub(super) fn make(&self, tree: TreeId, version: u64) -> io::Result<PathBuf> {
        self.discard(tree, version)?;
        let folder = within(&self.disk, tree, version);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(folder)
    }

    /// An empty folder for the image of a program that moves and has so much memory, in bytes: in
    /// memory, if there is room, which is held until it is written.
    pub(super) fn make_to_travel(
        &self,
        tree: TreeId,
        version: u64,
        bytes: u64,
    ) -> io::Result<(PathBuf, Option<Room>)> {
        let room = self.memory.as_ref().and_then(|memory| Some((memory, memory.take(bytes)?)));
        let Some((memory, room)) = room else {
            return self.make(tree, version).map(|folder| (folder, None));
        };
        self.discard(tree, version)?;
        let folder = within(memory.root(), tree, version);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok((folder, Some(room)))
    }

    /// Removes an image.
    pub(super) fn discard(&self, tree: TreeId, version: u64) -> io::Result<()> {
        let out = self.take_out(tree, version)?;
        self.remove(tree, &out)
    }

    /// Takes an image from its place, which is done at once, where removing it may take a while:
    /// what is to be removed then.
    pub(super) fn take_out(&self, tree: TreeId, version: u64) -> io::Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        self.made(tree, version);
        for place in self.places() {
            let out = part(place, tree, version);
            match std::fs::rename(within(place, tree, version), &out) {
                Ok(()) => all.push(out),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(all)
    }

    /// Removes what was taken out.
    pub(super) fn remove(&self, tree: TreeId, out: &[PathBuf]) -> io::Result<()> {
        out.iter().try_for_each(|out| remove(out))?;
        self.prune(tree)
    }

    /// A folder for an image of so many bytes, as is said, that comes from another node. It is to
    /// be on the disk when it is whole if it `lasts`; else it is in memory, if there is room for it
    /// and for the program that is made of it. Of a tree of which more came than was said the next
    /// one goes by the disk, whatever is said.
    pub(super) fn part(
        &self,
        (tree, version): (TreeId, u64),
        said: u64,
        lasts: bool,
    ) -> io::Result<Part> {
        let larger = self.came().larger.contains(&tree);
        let memory = self.memory.as_ref().filter(|_| !lasts && !larger);
        let room = memory.and_then(|m| Some((m.root(), m.take_with_program(said)?)));
        let (place, room) = match room {
            Some((root, room)) => (root, Some(room)),
            None => (self.disk.as_path(), None),
        };
        let (path, of) = (part(place, tree, version), place.join(tree.to_string()));
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let on_disk = if larger { u64::MAX } else { with_room(said) };
        Ok(Part { path, of, lasts, room, on_disk })
    }

    /// More came of a tree's image than was said.
    pub(super) fn was_larger(&self, tree: TreeId) {
        let mut came = self.came();
        if came.larger.len() >= LARGER_MAX {
            came.larger.pop_first();
        }
        came.larger.insert(tree);
    }

    /// The program is made of its image, or will not be.
    pub(super) fn made(&self, tree: TreeId, version: u64) {
        let room = self.came().rooms.remove(&(tree, version));
        drop(room);
    }

    /// Puts an image that is whole in its place.
    pub(super) fn arrive(&self, tree: TreeId, version: u64, part: &mut Part) -> io::Result<()> {
        if part.lasts {
            File::open(&part.path)?.sync_all()?;
        }
        let folder = part.of.join(version.to_string());
        if std::fs::rename(&part.path, &folder).is_err() {
            if self.has(tree, version) {
                // Another one arrived before.
                return remove(&part.path);
            }
            // What is there is no image.
            remove(&folder)?;
            std::fs::rename(&part.path, &folder)?;
        }
        let mut came = self.came();
        came.larger.remove(&tree);
        if let Some(mut room) = part.room.take() {
            room.written();
            came.rooms.insert((tree, version), room);
        }
        drop(came);
        if part.lasts { File::open(&part.of)?.sync_all() } else { Ok(()) }
    }

    /// Makes an image that only travelled a checkpoint: it is on the disk then, with its digests.
    ///
    /// # Errors
    /// That it is not here, or the disk is full; then it is as it was.
    pub(super) fn keep(&self, tree: TreeId, version: u64) -> io::Result<()> {
        let from = self.folder(tree, version);
        let manifest = images::manifest(&from).map_err(io::Error::other)?;
        if manifest.lasts() {
            return Ok(());
        }
        let mut to = self.part((tree, version), manifest.size_bytes(), true)?;
        let kept = || -> io::Result<()> {
            let expected = sizes(&manifest);
            for name in manifest.files.keys() {
                let mut file = create(&to.path.join(name))?;
                io::copy(&mut File::open(from.join(name))?, &mut file)?;
            }
            let sealed = images::seal(&to.path, manifest.origin).map_err(io::Error::other)?;
            if sizes(&sealed) != expected {
                return Err(io::Error::other("its image changed meanwhile"));
            }
            let out = self.take_out(tree, version)?;
            self.arrive(tree, version, &mut to)?;
            out.iter().try_for_each(|out| remove(out))
        };
        let kept = kept();
        if kept.is_err() {
            remove(&to.path)?;
        }
        self.prune(tree)?;
        kept
    }

    /// Removes what did not arrive as a whole before this program began, and images that came to
    /// nothing: all but those that are `kept`.
    ///
    /// # Errors
    /// Those of the disk.
    pub(super) fn sweep(&self, kept: &BTreeSet<(TreeId, u64)>) -> io::Result<()> {
        let trees = match std::fs::read_dir(&self.disk) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            trees => trees?,
        };
        for tree in trees {
            let tree = tree?;
            let number = |name: &OsStr| name.to_str().and_then(|name| name.parse::<u64>().ok());
            let Some(id) = number(&tree.file_name()).map(TreeId) else { continue };
            for entry in std::fs::read_dir(tree.path())? {
                let entry = entry?;
                let name = entry.file_name();
                let nothing = number(&name).is_some_and(|version| !kept.contains(&(id, version)));
                if nothing || name.to_string_lossy().starts_with(PART) {
                    remove(&entry.path())?;
                }
            }
            self.prune(id)?;
        }
        Ok(())
    }

    /// A tree's folder goes with the last of its images.
    pub(super) fn prune(&self, tree: TreeId) -> io::Result<()> {
        for place in self.places() {
            match std::fs::remove_dir(place.join(tree.to_string())) {
                Err(e)
                    if e.kind() != ErrorKind::NotFound
                        && e.kind() != ErrorKind::DirectoryNotEmpty =>
                {
                    return Err(e);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn sizes(manifest: &Manifest) -> Vec<(String, u64)> {
    manifest.files.iter().map(|(name, file)| (name.clone(), file.size_bytes)).collect()
}

fn within(place: &Path, tree: TreeId, version: u64) -> PathBuf {
    place.join(tree.to_string()).join(version.to_string())
}

/// A folder of an image that is not whole, and never will be if this program ends.
fn part(place: &Path, tree: TreeId, version: u64) -> PathBuf {
    let name = format!("{PART}{version}-{}", PARTS.fetch_add(1, Ordering::Relaxed));
    place.join(tree.to_string()).join(name)
}

/// Removes a folder that may not be there.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// A new file for root alone.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let mut how = OpenOptions::new();
    how.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::images::{Origin, seal_to_travel, verify};

    #[test]
    fn what_a_killed_host_was_fetching_or_making_goes() {
        // wrong: a program's memory would lie there for ever, under a name that nobody asks for
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("images"));
        let kept = BTreeSet::from([(TreeId(7), 1)]);
        store.sweep(&kept).unwrap();
        let whole = store.make(TreeId(7), 1).unwrap();
        let nothing = store.make(TreeId(7), 2).unwrap();
        store.make(TreeId(8), 1).unwrap();
        let part = dir.path().join("images/7/part-2-0");
        std::fs::create_dir(&part).unwrap();
        std::fs::write(part.join("pages-1.img"), "half").unwrap();
        store.sweep(&kept).unwrap();
        assert!(whole.exists() && !part.exists() && !nothing.exists());
        assert!(!dir.path().join("images/8").exists());
        // what is taken out is gone from its place at once, and from the disk in the end
        let out = store.take_out(TreeId(7), 1).unwrap();
        assert!(!whole.exists() && out[0].exists());
        assert_eq!(store.take_out(TreeId(7), 1).unwrap(), Vec::<PathBuf>::new());
        store.remove(TreeId(7), &out).unwrap();
        assert!(!dir.path().join("images/7").exists());
    }

    #[test]
    fn what_moved_is_kept_on_the_disk_with_its_digests() {
        // wrong: a checkpoint would be gone with the agent, or its damage not be seen
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("images")).with_memory();
        let (tree, owner) = (TreeId(7), 70_001);
        let (folder, room) = store.make_to_travel(tree, 3, 1000).unwrap();
        assert_eq!(room.is_some(), store.memory.is_some());
        create(&folder.join("pages-1.img")).unwrap().write_all(b"memory").unwrap();
        let (criu, open_files) = ("4.2.1".to_owned(), Vec::new());
        seal_to_travel(&folder, Origin { pid: 7, owner, epoch: 1, criu, open_files }).unwrap();
        assert!(store.has(tree, 3) && store.folder(tree, 3) == folder);
        for _ in 0..2 {
            store.keep(tree, 3).unwrap();
            let kept = dir.path().join("images/7/3");
            assert!(verify(&kept, owner).unwrap().lasts());
            assert_eq!(std::fs::read_to_string(kept.join("pages-1.img")).unwrap(), "memory");
        }
        let places: Vec<bool> =
            store.places().map(|place| within(place, tree, 3).exists()).collect();
        assert_eq!(places.iter().filter(|is| **is).count(), 1, "it takes no memory any more");
        store.discard(tree, 3).unwrap();
        assert!(!store.has(tree, 3) && store.keep(tree, 3).is_err());
    }

    #[test]
    fn what_does_not_fit_into_memory_goes_by_the_disk() {
        // wrong: a large program would never move, or others be killed for want of memory
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("images")).with_memory();
        let (folder, room) = store.make_to_travel(TreeId(7), 1, u64::MAX / 4).unwrap();
        assert!(folder.starts_with(dir.path()) && room.is_none());
        let part = store.part((TreeId(7), 2), u64::MAX / 4, false).unwrap();
        assert!(part.path.starts_with(dir.path()));
    }

    #[test]
    fn room_for_a_program_is_held_until_it_is_made() {
        // wrong: several programs would come at once where there is memory for their images only
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("images")).with_memory();
        if store.memory.is_none() {
            return println!("skipped: needs root");
        }
        let held = || store.came().rooms.len();
        for version in [1, 2] {
            let mut part = store.part((TreeId(7), version), 1000, false).unwrap();
            assert!(part.room.is_some());
            std::fs::write(part.path.join(MANIFEST), "{}").unwrap();
            store.arrive(TreeId(7), version, &mut part).unwrap();
        }
        assert_eq!(held(), 2);
        store.made(TreeId(7), 1);
        assert_eq!(held(), 1);
        store.discard(TreeId(7), 2).unwrap();
        assert_eq!(held(), 0, "it will not be made");
    }
}
