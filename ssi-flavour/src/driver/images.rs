//! What an image folder holds, so that only whole images of their owner are ever started.
//!
//! The manifest is written last. It guards against damage and mix-ups; nobody but root and this
//! program's user can change a folder, and they could change the manifest too.

mod lent;
mod reown;

pub(super) use lent::Lent;
pub use reown::{Ids, check, reown};

use super::files::{Opened, Was};
use aws_lc_rs::digest::{Context, SHA256};
use rustix::fs::{Mode, OFlags, RenameFlags, fstat, fsync, open, openat, renameat_with};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The manifest's name in its folder.
pub const MANIFEST: &str = "manifest.json";
/// The manifest until it is whole.
const DRAFT: &str = "manifest.json.new";
/// The version of the manifest that is written, and the only one that is read.
pub const FORMAT: u32 = 1;
/// Longest manifest that is read, in bytes.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The most files that a folder may have.
pub const FILES_MAX: usize = 200_000;
/// Bytes that are hashed at once.
const BLOCK: usize = 256 * 1024;

/// Whose images these are, and what they are of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The pid of the tree's root in its cell.
    pub pid: i32,
    /// The user whose tree it is.
    pub owner: u32,
    /// How many lives the tree had when it was saved: a later life voids an earlier one.
    pub epoch: u64,
    /// The version of CRIU that wrote them.
    pub criu: String,
    /// Files that were open for writing, and what they were then.
    pub open_files: Vec<OpenFile>,
}

/// A file that was open for writing when its program was saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFile {
    /// Its path in the cell.
    pub path: PathBuf,
    /// Its size then.
    pub size_bytes: u64,
    /// How it was open; of images that older programs wrote it is not known.
    #[serde(default)]
    pub opened: BTreeSet<Opened>,
    /// What else it was ([`super::files::record`]); none: it had no name any more, or nobody
    /// looked.
    #[serde(default)]
    pub was: Option<Was>,
}

/// All that an image folder holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose, and what of.
    #[serde(flatten)]
    pub origin: Origin,
    /// Each file but the manifest, by its name.
    pub files: BTreeMap<String, ImageFile>,
}

impl Manifest {
    /// What the images take, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.files.values().map(|file| file.size_bytes).sum()
    }

    /// Whether the content of each file is written down, so that damage is seen whenever it comes.
    pub fn lasts(&self) -> bool {
        self.files.values().all(|file| file.sha256.is_some())
    }
}

/// A file of an image folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// Its size.
    pub size_bytes: u64,
    /// Of its content, in hexadecimal; none: the image only travels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Why images are not used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The folder was never finished.
    #[error("the images in {} are not whole: saving the program was broken off", .folder.display())]
    Torn {
        /// The folder.
        folder: PathBuf,
    },
    /// Something in the folder is not as it was written.
    #[error("{} is not as it was written: {what}", .path.display())]
    Altered {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// Others could have read or changed it.
    #[error("{} is not this program's alone: {what}", .path.display())]
    Open {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// They are of another person's program.
    #[error("the images in {} are user {found}'s, not user {expected}'s", .folder.display())]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// Whose they are.
        found: u32,
        /// Whose they should be.
        expected: u32,
    },
    /// They cannot be those of the account that they are to be.
    #[error("{} cannot be of this account's program: {what}", .path.display())]
    Bound {
        /// A file in the folder.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// The system refused something.
    #[error("cannot read or write {}: {source}", .path.display())]
    System {
        /// The folder, or a file in it.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Writes the manifest of a folder whose files are all written, and brings everything to the disk.
///
/// # Errors
/// When something in the folder is not a file of this program's user alone, or the disk is full.
pub fn seal(folder: &Path, origin: Origin) -> Result<Manifest, ImageError> {
    let measured = |file: &File| -> std::io::Result<ImageFile> {
        let measured = measure(file)?;
        file.sync_all()?;
        Ok(measured)
    };
    sealed(folder, origin, measured, true)
}

/// The same for images that only travel, and are no checkpoint: the manifest has no digests, as
/// each part of them is sealed on its way, and nothing is brought to the disk.
///
/// # Errors
/// As [`seal`].
pub fn seal_to_travel(folder: &Path, origin: Origin) -> Result<Manifest, ImageError> {
    let sized = |file: &File| -> std::io::Result<ImageFile> {
        Ok(ImageFile { size_bytes: file.metadata()?.len(), sha256: None })
    };
    sealed(folder, origin, sized, false)
}

fn sealed(
    folder: &Path,
    origin: Origin,
    measure: impl Fn(&File) -> std::io::Result<ImageFile>,
    lasts: bool,
) -> Result<Manifest, ImageError> {
    let dir = Folder::open(folder)?;
    let mut files = BTreeMap::new();
    for name in dir.names()? {
        let file = dir.file(&name)?;
        let measured = measure(&file).map_err(dir.failed(&name))?;
        files.insert(name, measured);
    }
    let manifest = Manifest { format: FORMAT, origin, files };
    let written = serde_json::to_vec(&manifest).map_err(std::io::Error::from);
    let written = written.and_then(|bytes| dir.put(&bytes, lasts));
    written.map_err(dir.failed(MANIFEST))?;
    Ok(manifest)
}

/// Reads a folder's manifest, without looking whether all is as that says.
///
/// # Errors
/// When there is none, or it is none.
pub(crate) fn manifest(folder: &Path) -> Result<Manifest, ImageError> {
    Folder::open(folder)?.manifest()
}

/// Reads a folder's manifest and compares all files with it; of images that only travel their
/// sizes, as their content was compared when it came.
///
/// # Errors
/// When the folder is torn, altered, open to others, or not of `owner`'s program.
pub fn verify(folder: &Path, owner: u32) -> Result<Manifest, ImageError> {
    let dir = Folder::open(folder)?;
    let manifest = dir.manifest()?;
    let found = manifest.origin.owner;
    if found != owner {
        return Err(ImageError::Foreign { folder: folder.into(), found, expected: owner });
    }
    let names = dir.names()?;
    let listed: Vec<&String> = manifest.files.keys().collect();
    if let Some(strange) = names.iter().find(|name| !manifest.files.contains_key(*name)) {
        return Err(dir.altered(strange, "it came later"));
    }
    if let Some(missing) = listed.into_iter().find(|name| names.binary_search(name).is_err()) {
        return Err(dir.altered(missing, "it is gone"));
    }
    for (name, expected) in &manifest.files {
        let file = dir.file(name)?;
        let size = file.metadata().map_err(dir.failed(name))?.len();
        if size != expected.size_bytes {
            let what = format!("{size} bytes, not {}", expected.size_bytes);
            return Err(dir.altered(name, what));
        }
        let lasts = expected.sha256.is_some();
        if lasts && measure(&file).map_err(dir.failed(name))? != *expected {
            return Err(dir.altered(name, "its content differs"));
        }
    }
    Ok(manifest)
}

/// What a folder's images are of, as its manifest says. Nothing is compared with that.
///
/// # Errors
/// When the folder is torn or open to others, or its manifest none.
pub fn origin(folder: &Path) -> Result<Origin, ImageError> {
    Folder::open(folder)?.manifest().map(|manifest| manifest.origin)
}

/// An image folder that is this program's user's alone.
pub(super) struct Folder<'a> {
    path: &'a Path,
    fd: OwnedFd,
    /// A group may read it ([`Lent`]).
    lent: bool,
}

impl<'a> Folder<'a> {
    /// Opens it, if nobody else can enter it, or only who it is lent to.
    pub(super) fn open(path: &'a Path) -> Result<Folder<'a>, ImageError> {
        let failed = |source: std::io::Error| ImageError::System { path: path.into(), source };
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = open(path, how, Mode::empty()).map_err(|e| failed(e.into()))?;
        let stat = fstat(&fd).map_err(|e| failed(e.into()))?;
        let refused = |what| Err(ImageError::Open { path: path.into(), what });
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return refused("the folder is another user's");
        }
        let mode = stat.st_mode & 0o7777;
        if mode != lent::OWN.0 && mode != lent::LENT.0 {
            return refused("the folder's mode is not 0700");
        }
        Ok(Folder { path, fd, lent: mode == lent::LENT.0 })
    }

    /// Its descriptor.
    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// The names of all files but the manifest, sorted.
    pub(super) fn names(&self) -> Result<Vec<String>, ImageError> {
        let mut names = Vec::new();
        let dir = rustix::fs::Dir::read_from(&self.fd).map_err(|e| self.failed("")(e.into()))?;
        for entry in dir {
            let entry = entry.map_err(|e| self.failed("")(e.into()))?;
            let Ok(name) = entry.file_name().to_str() else {
                return Err(self.altered("", "it holds a file whose name is no text"));
            };
            if ![".", "..", MANIFEST, DRAFT].contains(&name) {
                names.push(name.to_owned());
            }
            if names.len() > FILES_MAX {
                return Err(self.altered("", format!("it has more than {FILES_MAX} files")));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Opens a file, if it is one and nobody else's.
    fn file(&self, name: &str) -> Result<File, ImageError> {
        let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let refused = |what| Err(ImageError::Open { path: self.path.join(name), what });
        if name.contains('/') {
            return refused("a name with a slash");
        }
        let fd = match openat(&self.fd, name, how, Mode::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::LOOP) => return refused("a link"),
            Err(e) => return Err(self.failed(name)(e.into())),
        };
        let stat = fstat(&fd).map_err(|e| self.failed(name)(e.into()))?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            return refused("no plain file");
        }
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return refused("another user's");
        }
        let mode = stat.st_mode & 0o7777;
        if mode != lent::OWN.1 && !(self.lent && mode == lent::LENT.1) {
            return refused("its mode is not 0600");
        }
        if stat.st_nlink != 1 {
            return refused("it has a second name elsewhere");
        }
        Ok(File::from(fd))
    }

    fn manifest(&self) -> Result<Manifest, ImageError> {
        let file = match self.file(MANIFEST) {
            Err(ImageError::System { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                return Err(ImageError::Torn { folder: self.path.into() });
            }
            file => file?,
        };
        let mut bytes = Vec::new();
        let read = (&file).take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes);
        let read = read.map_err(self.failed(MANIFEST))?;
        if u64::try_from(read).is_ok_and(|read| read > MANIFEST_BYTES_MAX) {
            return Err(self.altered(MANIFEST, "it is too long"));
        }
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|e| self.altered(MANIFEST, format!("no manifest: {e}")))?;
        if manifest.format != FORMAT {
            let what = format!("format {}, not {FORMAT}", manifest.format);
            return Err(self.altered(MANIFEST, what));
        }
        Ok(manifest)
    }

    /// The manifest, whole or not at all; if it is to last, also after a power loss.
    fn put(&self, bytes: &[u8], lasts: bool) -> std::io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, DRAFT, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
        let how = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut draft = File::from(openat(&self.fd, DRAFT, how, Mode::from_raw_mode(0o600))?);
        draft.write_all(bytes)?;
        if lasts {
            draft.sync_all()?;
        }
        renameat_with(&self.fd, DRAFT, &self.fd, MANIFEST, RenameFlags::NOREPLACE)?;
        if lasts {
            fsync(self.fd.as_fd())?;
        }
        Ok(())
    }

    fn failed(&self, name: &str) -> impl FnOnce(std::io::Error) -> ImageError + use<> {
        let path = self.path.join(name);
        move |source| ImageError::System { path, source }
    }

    fn altered(&self, name: &str, what: impl Into<String>) -> ImageError {
        ImageError::Altered { path: self.path.join(name), what: what.into() }
    }
}

fn measure(mut file: &File) -> std::io::Result<ImageFile> {
    let mut context = Context::new(&SHA256);
    let mut block = vec![0; BLOCK];
    let mut size_bytes = 0;
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            break;
        }
        context.update(&block[..read]);
        size_bytes += read as u64;
    }
    let mut sha256 = String::with_capacity(64);
    for byte in context.finish().as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(sha256, "{byte:02x}");
    }
    Ok(ImageFile { size_bytes, sha256: Some(sha256) })
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
