//! The images of a node: `<folder>/<tree>/<version>/`, for root alone, and how one travels.

use crate::cluster::messages::TreeId;
use crate::driver::ExternalFd;
use crate::driver::images::{FILES_MAX, MANIFEST};
use crate::ghost::relay::Offsets;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// In an image folder: [`Streams`].
const STREAMS: &str = "streams.json";
/// Longest such file that is read, bytes.
const STREAMS_BYTES_MAX: u64 = 64 * 1024;
/// Longest name of a file of an image, bytes.
const NAME_MAX: u32 = 255;
/// Largest image that is taken, bytes.
const IMAGE_BYTES_MAX: u64 = 1 << 40;
/// Largest manifest of an image, bytes, as far as it counts for the size of the whole.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What the names of folders begin with in which an image that arrives is until it is whole.
const PART: &str = "part-";

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
pub struct Store(PathBuf);

impl Store {
    /// That of a folder, which is made when it is needed.
    pub fn new(folder: impl Into<PathBuf>) -> Store {
        Store(folder.into())
    }

    /// Where an image is, or would be.
    pub fn folder(&self, tree: TreeId, version: u64) -> PathBuf {
        self.0.join(tree.to_string()).join(version.to_string())
    }

    /// Whether an image is here as a whole.
    pub(super) fn has(&self, tree: TreeId, version: u64) -> bool {
        self.folder(tree, version).join(MANIFEST).exists()
    }

    /// An empty folder for an image.
    pub(super) fn make(&self, tree: TreeId, version: u64) -> io::Result<PathBuf> {
        self.discard(tree, version)?;
        let folder = self.folder(tree, version);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(folder)
    }

    /// Removes an image.
    pub(super) fn discard(&self, tree: TreeId, version: u64) -> io::Result<()> {
        match self.take_out(tree, version)? {
            Some(out) => self.remove(tree, &out),
            None => self.prune(tree),
        }
    }

    /// Takes an image from its place, which is done at once, where removing it may take a while:
    /// what is to be removed then, unless there is none.
    pub(super) fn take_out(&self, tree: TreeId, version: u64) -> io::Result<Option<PathBuf>> {
        let out = self.part(tree, version);
        match std::fs::rename(self.folder(tree, version), &out) {
            Ok(()) => Ok(Some(out)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Removes what was taken out.
    pub(super) fn remove(&self, tree: TreeId, out: &Path) -> io::Result<()> {
        remove(out)?;
        self.prune(tree)
    }

    /// A folder of an image that is not whole, and never will be if this program ends.
    fn part(&self, tree: TreeId, version: u64) -> PathBuf {
        let name = format!("{PART}{version}-{}", PARTS.fetch_add(1, Ordering::Relaxed));
        self.0.join(tree.to_string()).join(name)
    }

    /// Writes an image for another node: of each file, the manifest last, the length of its name,
    /// the name, its size (four and eight bytes, little endian), its bytes; then a length of 0.
    ///
    /// # Errors
    /// That it is not here, or those of either side.
    pub fn send(&self, tree: TreeId, version: u64, to: &mut dyn Write) -> io::Result<()> {
        let folder = self.folder(tree, version);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder)? {
            names.extend(entry?.file_name().into_string().ok().filter(|name| name != MANIFEST));
        }
        names.push(MANIFEST.to_owned());
        for name in names {
            let mut file = File::open(folder.join(&name))?;
            let size = file.metadata()?.len();
            to.write_all(&(name.len() as u32).to_le_bytes())?;
            to.write_all(name.as_bytes())?;
            to.write_all(&size.to_le_bytes())?;
            let copied = io::copy(&mut (&mut file).take(size), to)?;
            if copied != size {
                return Err(io::Error::other(format!("{name} became shorter while it was sent")));
            }
        }
        to.write_all(&0u32.to_le_bytes())?;
        to.flush()
    }

    /// Takes an image that another node sent: it is in its place once all of it is here. Whether it
    /// is sound is seen when it is restored.
    ///
    /// # Errors
    /// That it breaks off or is no image; then nothing is left of it.
    pub fn receive(&self, tree: TreeId, version: u64, from: &mut dyn Read) -> io::Result<()> {
        self.take(tree, version, IMAGE_BYTES_MAX, from)
    }

    /// The same for an image of which it was said how large it is: it may be so much larger as its
    /// manifest is.
    ///
    /// # Errors
    /// As [`Store::receive`], and when it is larger.
    pub(super) fn receive_at_most(
        &self,
        tree: TreeId,
        version: u64,
        bytes: u64,
        from: &mut dyn Read,
    ) -> io::Result<()> {
        let most = bytes.saturating_add(MANIFEST_BYTES_MAX).min(IMAGE_BYTES_MAX);
        self.take(tree, version, most, from)
    }

    fn take(&self, tree: TreeId, version: u64, most: u64, from: &mut dyn Read) -> io::Result<()> {
        let part = self.part(tree, version);
        DirBuilder::new().recursive(true).mode(0o700).create(&part)?;
        let received = receive(&part, most, from).and_then(|()| self.arrive(tree, version, &part));
        if received.is_err() {
            remove(&part)?;
            self.prune(tree)?;
        }
        received
    }

    /// Puts an image that is whole in its place.
    fn arrive(&self, tree: TreeId, version: u64, part: &Path) -> io::Result<()> {
        File::open(part)?.sync_all()?;
        let folder = self.folder(tree, version);
        if std::fs::rename(part, &folder).is_err() {
            if self.has(tree, version) {
                // Another one arrived before.
                return remove(part);
            }
            // What is there is no image.
            remove(&folder)?;
            std::fs::rename(part, &folder)?;
        }
        File::open(self.0.join(tree.to_string()))?.sync_all()
    }

    /// Removes what did not arrive as a whole before this program began, and images that came to
    /// nothing: all but those that are `kept`.
    ///
    /// # Errors
    /// Those of the disk.
    pub(super) fn sweep(&self, kept: &BTreeSet<(TreeId, u64)>) -> io::Result<()> {
        let trees = match std::fs::read_dir(&self.0) {
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
    fn prune(&self, tree: TreeId) -> io::Result<()> {
        match std::fs::remove_dir(self.0.join(tree.to_string())) {
            Err(e)
                if e.kind() != ErrorKind::NotFound && e.kind() != ErrorKind::DirectoryNotEmpty =>
            {
                Err(e)
            }
            _ => Ok(()),
        }
    }
}

/// Removes a folder that may not be there.
fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn receive(folder: &Path, most: u64, from: &mut dyn Read) -> io::Result<()> {
    let broken = |why: &str| io::Error::new(ErrorKind::InvalidData, why.to_owned());
    let mut room = most;
    for _ in 0..=FILES_MAX {
        let (mut len, mut size) = ([0; 4], [0; 8]);
        from.read_exact(&mut len)?;
        let len = u32::from_le_bytes(len);
        if len == 0 {
            return Ok(());
        }
        if len > NAME_MAX {
            return Err(broken("a name over 255 bytes in an image"));
        }
        let mut name = vec![0; len as usize];
        from.read_exact(&mut name)?;
        let name = String::from_utf8(name).map_err(|_| broken("a name that is no text"))?;
        if name.contains(['/', '\0']) || name == "." || name == ".." {
            return Err(broken("a name in an image that is no file's"));
        }
        from.read_exact(&mut size)?;
        let size = u64::from_le_bytes(size);
        let larger = || broken("an image that is larger than it may be");
        room = room.checked_sub(size).ok_or_else(larger)?;
        let mut file = create(&folder.join(name))?;
        if io::copy(&mut Read::take(&mut *from, size), &mut file)? != size {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        file.sync_all()?;
    }
    Err(broken("more files than an image has"))
}

fn create(path: &Path) -> io::Result<File> {
    let mut how = OpenOptions::new();
    how.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_arrives_whole_or_not_at_all() {
        // wrong: half an image would lie there as if it were one, or a file be written elsewhere
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = (Store::new(dir.path().join("a")), Store::new(dir.path().join("b")));
        let tree = TreeId(7);
        let folder = here.make(tree, 2).unwrap();
        for (name, text) in [("core-1.img", "abc"), (MANIFEST, "{}"), ("empty.img", "")] {
            create(&folder.join(name)).unwrap().write_all(text.as_bytes()).unwrap();
        }
        let mut sent = Vec::new();
        here.send(tree, 2, &mut sent).unwrap();
        there.receive(tree, 2, &mut &sent[..]).unwrap();
        assert!(there.has(tree, 2));
        let got = std::fs::read_to_string(there.folder(tree, 2).join("core-1.img")).unwrap();
        assert_eq!(got, "abc");
        for cut in 0..sent.len() {
            assert!(there.receive(tree, 3, &mut &sent[..cut]).is_err(), "{cut}");
            assert!(!there.folder(tree, 3).exists());
        }
        // Fetched twice, as when it is kept and restored; what is there stays.
        there.receive(tree, 2, &mut &sent[..]).unwrap();
        assert!(there.has(tree, 2));
        let size = (MANIFEST_BYTES_MAX + 2).to_le_bytes();
        let large = [&1u32.to_le_bytes()[..], b"x", &size].concat();
        assert!(there.receive_at_most(tree, 3, 1, &mut &large[..]).is_err());
        there.receive_at_most(tree, 4, 3, &mut &sent[..]).unwrap();
        there.discard(tree, 4).unwrap();
        let bad = [&4u32.to_le_bytes()[..], b"../x", &0u64.to_le_bytes()].concat();
        assert!(there.receive(tree, 3, &mut &bad[..]).is_err());
        there.discard(tree, 2).unwrap();
        assert!(!there.has(tree, 2));
        there.discard(tree, 2).unwrap();
    }

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
        let out = store.take_out(TreeId(7), 1).unwrap().unwrap();
        assert!(!whole.exists() && out.exists());
        assert_eq!(store.take_out(TreeId(7), 1).unwrap(), None);
        store.remove(TreeId(7), &out).unwrap();
        assert!(!dir.path().join("images/7").exists());
    }
}
