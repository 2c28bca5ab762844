//! Places beneath a folder: whatever links others put into it, nothing outside is reached.
//!
//! The kernel keeps the promise, openat2(2) with `RESOLVE_BENEATH`: it follows links and `..`, and
//! refuses each one that leaves the folder, at the moment when it opens. No look before is counted
//! on, since others may change the folder at any time.

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat2, unlinkat};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use xos_api::aem::StageMode;

/// How often the kernel is asked again: it gives up a `..` while somebody renames something.
const TRIES_MAX: u32 = 128;

/// Why a place cannot be had.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A link leads out of the folder.
    Link,
    /// Anything else.
    Io(io::Error),
}

impl From<Errno> for Trouble {
    fn from(e: Errno) -> Trouble {
        match e {
            Errno::XDEV => Trouble::Link,
            other => Trouble::Io(other.into()),
        }
    }
}

/// A place beneath a folder; whether there is anything is another matter.
pub(super) struct Place {
    folder: PathBuf,
    beneath: OwnedFd,
    /// Relative to the folder.
    path: PathBuf,
    /// What people call the folder.
    pub what: &'static str,
}

impl Place {
    /// The place `path` beneath `folder`, which is trusted to be what it is.
    pub(super) fn new(folder: &Path, path: PathBuf, what: &'static str) -> io::Result<Place> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let beneath = rustix::fs::open(folder, flags, Mode::empty())?;
        Ok(Place { folder: folder.to_owned(), beneath, path, what })
    }

    /// The whole path, for messages.
    pub(super) fn shown(&self) -> PathBuf {
        self.folder.join(&self.path)
    }

    /// Opens the file to read it.
    pub(super) fn read(&self) -> Result<File, Trouble> {
        Ok(self.open(&self.path, OFlags::RDONLY, Mode::empty())?.into())
    }

    /// Opens the file to write it; `None` when there is one that is to stay.
    pub(super) fn write(&self, mode: StageMode) -> Result<Option<File>, Trouble> {
        let how = match mode {
            StageMode::Overwrite => OFlags::TRUNC,
            StageMode::Append => OFlags::APPEND,
            StageMode::DontOverwrite => OFlags::EXCL,
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | how;
        match self.open(&self.path, flags, Mode::from_raw_mode(0o666)) {
            Ok(fd) => Ok(Some(fd.into())),
            Err(Trouble::Io(e))
                if e.kind() == io::ErrorKind::AlreadyExists && mode == StageMode::DontOverwrite =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Makes the folders on the way that are missing.
    pub(super) fn make_parent(&self) -> Result<(), Trouble> {
        let parent = self.parent();
        if self.folder_at(parent).is_ok() {
            return Ok(());
        }
        let mut above = PathBuf::new();
        for part in parent.components() {
            let Component::Normal(name) = part else { continue };
            let here = above.join(name);
            match self.folder_at(&here) {
                Err(Trouble::Io(e)) if e.kind() == io::ErrorKind::NotFound => {
                    match mkdirat(self.folder_at(&above)?, name, Mode::from_raw_mode(0o777)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(e) => return Err(e.into()),
                    }
                    self.folder_at(&here)?;
                }
                there => drop(there?),
            }
            above = here;
        }
        Ok(())
    }

    /// Removes the file; a link is removed itself. None there is no error.
    pub(super) fn remove(&self) -> Result<(), Trouble> {
        let Some(name) = self.path.file_name() else { return Ok(()) };
        let removed = self
            .folder_at(self.parent())
            .and_then(|dir| unlinkat(dir, name, AtFlags::empty()).map_err(Trouble::from));
        match removed {
            Err(Trouble::Io(e)) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    fn folder_at(&self, path: &Path) -> Result<OwnedFd, Trouble> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
    }

    fn open(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Trouble> {
        match self.open_beneath(path, flags, mode) {
            Err(Errno::XDEV) => {}
            other => return other.map_err(Trouble::from),
        }
        // To the kernel every absolute link leads out, also one that leads back in.
        let path = self.led_back(path).ok_or(Trouble::Link)?;
        self.open_beneath(&path, flags, mode).map_err(Trouble::from)
    }

    fn open_beneath(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let (flags, resolve) =
            (flags | OFlags::CLOEXEC, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS);
        for _ in 0..TRIES_MAX {
            match openat2(&self.beneath, path, flags, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Where beneath the folder a path ends that leaves it and comes back. Only a guess: what is
    /// opened by it is opened beneath the folder again.
    fn led_back(&self, path: &Path) -> Option<PathBuf> {
        let whole = self.folder.join(path);
        let real = fs::canonicalize(&whole).ok().or_else(|| {
            // A file that is to be made, in a folder that is there.
            let parent = fs::canonicalize(whole.parent()?).ok()?;
            Some(parent.join(whole.file_name()?))
        })?;
        let folder = fs::canonicalize(&self.folder).ok()?;
        real.strip_prefix(folder).ok().map(Path::to_owned)
    }
}
