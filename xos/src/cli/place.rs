//! Files that are replaced whole, also in folders of the person's that others use too: `~/.ssh`,
//! `~/.config`. Nobody else may have had a hand in what is read there or written over.

use super::home::FILE_MAX;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use xos_base::Error;

/// Rights of others that are refused: to write.
const WRITABLE: u32 = 0o022;

/// Puts `bytes` in the place of `file` in the folder `dir`, whole or not at all.
///
/// # Errors
/// What the system says; then the file is as it was.
pub fn replace(dir: &OwnedFd, file: &str, bytes: &[u8], mode: Mode) -> std::io::Result<()> {
    let temporary = format!(".{file}.{}", std::process::id());
    // Left over by a process of the same number that was killed.
    match unlinkat(dir, temporary.as_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(dir, temporary.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let done = fchmod(&fd, mode)
        .map_err(std::io::Error::from)
        .and_then(|()| {
            let mut file = File::from(fd);
            file.write_all(bytes)?;
            file.sync_data()
        })
        .and_then(|()| Ok(renameat(dir, temporary.as_str(), dir, file)?));
    if done.is_err()
        && let Err(e) = unlinkat(dir, temporary.as_str(), UnlinkatFlags::NoRemoveDir)
    {
        tracing::debug!(error = %e, temporary, "a temporary file stays");
    }
    done
}

/// A folder that is the person's: it, and all above it up to their home folder.
#[derive(Debug)]
pub struct Place {
    dir: OwnedFd,
    path: PathBuf,
}

/// A file as it was read.
#[derive(Debug)]
pub struct Kept {
    /// What stands in it.
    pub text: String,
    stat: FileStat,
}

impl Place {
    /// The folder `parts` below `base`, the person's home folder; `None` when it is missing and is
    /// not to be made.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] when one of them is a symbolic link, somebody else's, or can be
    /// written by others.
    pub fn open(base: &Path, parts: &[&str], make: bool) -> Result<Option<Place>, Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // What leads to the home folder is the administrator's.
        let dir = openat(AT_FDCWD, base, flags, Mode::empty()).map_err(|e| failed(base, e))?;
        let mut place = Place { dir, path: base.to_owned() };
        check(&place.dir, &place.path, SFlag::S_IFDIR)?;
        for part in parts {
            let path = place.path.join(part);
            if make {
                match mkdirat(&place.dir, *part, Mode::S_IRWXU) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(e) => return Err(failed(&path, e)),
                }
            }
            let dir = match openat(&place.dir, *part, flags | OFlag::O_NOFOLLOW, Mode::empty()) {
                Ok(dir) => dir,
                Err(Errno::ENOENT) => return Ok(None),
                Err(e) => return Err(failed(&path, e)),
            };
            check(&dir, &path, SFlag::S_IFDIR)?;
            place = Place { dir, path };
        }
        Ok(Some(place))
    }

    /// Where `file` is.
    pub fn path(&self, file: &str) -> PathBuf {
        self.path.join(file)
    }

    /// Reads a file; `None` when there is none.
    ///
    /// # Errors
    /// As [`Place::open`]; [`xos_base::Kind::Invalid`] when it is no text.
    pub fn read(&self, file: &str) -> Result<Option<Kept>, Error> {
        let path = self.path(file);
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let fd = match openat(&self.dir, file, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(failed(&path, e)),
        };
        let stat = check(&fd, &path, SFlag::S_IFREG)?;
        let mut bytes = Vec::new();
        File::from(fd).take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|e| failed(&path, e))?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(Error::too_large(format!("{} is too large", path.display())));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(Kept { text, stat })),
            Err(_) => Err(Error::invalid(format!("{} is no text in UTF-8", path.display()))),
        }
    }

    /// Writes a file in place of what [`Place::read`] found, with the same rights; a new one is the
    /// person's alone.
    ///
    /// # Errors
    /// [`xos_base::Kind::Conflict`] when somebody changed it meanwhile.
    pub fn write(&self, file: &str, was: Option<&Kept>, text: &str) -> Result<(), Error> {
        self.unchanged(file, was)?;
        let mode = was.map_or(Mode::S_IRUSR | Mode::S_IWUSR, |k| {
            Mode::from_bits_truncate(k.stat.st_mode & 0o777)
        });
        replace(&self.dir, file, text.as_bytes(), mode).map_err(|e| failed(&self.path(file), e))
    }

    /// Removes a file that [`Place::read`] found.
    ///
    /// # Errors
    /// As [`Place::write`].
    pub fn remove(&self, file: &str, was: &Kept) -> Result<(), Error> {
        self.unchanged(file, Some(was))?;
        unlinkat(&self.dir, file, UnlinkatFlags::NoRemoveDir)
            .map_err(|e| failed(&self.path(file), e))
    }

    fn unchanged(&self, file: &str, was: Option<&Kept>) -> Result<(), Error> {
        let now = match fstatat(&self.dir, file, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat),
            Err(Errno::ENOENT) => None,
            Err(e) => return Err(failed(&self.path(file), e)),
        };
        let look =
            |s: &FileStat| (s.st_dev, s.st_ino, s.st_size, s.st_ctime, s.st_ctime_nsec, s.st_mode);
        if now.as_ref().map(look) == was.map(|k| look(&k.stat)) {
            return Ok(());
        }
        Err(Error::conflict(format!("{} was changed meanwhile", self.path(file).display()))
            .hint("do it again"))
    }
}

/// Refuses what is not the person's own.
fn check(fd: impl AsFd, path: &Path, kind: SFlag) -> Result<FileStat, Error> {
    let stat = fstat(fd).map_err(|e| failed(path, e))?;
    let refuse =
        |why: &str| Err(Error::denied(format!("{} {why}, so it is left alone", path.display())));
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != kind {
        return refuse("is no ordinary file or folder");
    }
    if stat.st_uid != geteuid().as_raw() {
        return refuse("belongs to another user");
    }
    if stat.st_mode & WRITABLE != 0 {
        return refuse("can be written by other users");
    }
    // Another name of the file would keep the old text.
    if kind == SFlag::S_IFREG && stat.st_nlink != 1 {
        return refuse("has several names (hard links)");
    }
    Ok(stat)
}

fn failed(path: &Path, e: impl Into<std::io::Error>) -> Error {
    let e: std::io::Error = e.into();
    let shown = path.display();
    match e.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ELOOP | Errno::ENOTDIR) => {
            Error::denied(format!("{shown} is a symbolic link or no folder, so it is left alone"))
        }
        _ => Error::unavailable(format!("cannot use {shown}: {e}"))
            .hint("check the folder's rights and the free space"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use xos_base::Kind;

    fn place(base: &Path) -> Place {
        Place::open(base, &[".ssh"], true).unwrap().unwrap()
    }

    /// A home folder as it is on any machine, whatever this process's umask is.
    fn base() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        dir
    }

    /// If it failed, the person's file would be open to others, or closed to whom it was open.
    #[test]
    fn a_file_keeps_its_rights_and_a_new_one_is_its_owners() {
        let base = base();
        let place = place(base.path());
        assert!(place.read("config").unwrap().is_none());
        place.write("config", None, "a").unwrap();
        let mode = || std::fs::metadata(place.path("config")).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(place.path("config"), PermissionsExt::from_mode(0o644)).unwrap();
        let kept = place.read("config").unwrap().unwrap();
        place.write("config", Some(&kept), "b").unwrap();
        assert_eq!(mode(), 0o644);
        assert_eq!(place.read("config").unwrap().unwrap().text, "b");
        assert_eq!(std::fs::read_dir(base.path().join(".ssh")).unwrap().count(), 1);
    }

    /// If it failed, what an editor saved at the same moment would be lost.
    #[test]
    fn what_was_changed_meanwhile_is_not_written_over() {
        let base = base();
        let place = place(base.path());
        place.write("config", None, "a").unwrap();
        let kept = place.read("config").unwrap().unwrap();
        std::fs::write(place.path("config"), "mine").unwrap();
        assert_eq!(place.write("config", Some(&kept), "b").unwrap_err().kind, Kind::Conflict);
        assert_eq!(place.write("config", None, "b").unwrap_err().kind, Kind::Conflict);
        assert_eq!(place.remove("config", &kept).unwrap_err().kind, Kind::Conflict);
        assert_eq!(std::fs::read_to_string(place.path("config")).unwrap(), "mine");
    }

    /// If it failed, somebody who plants a link would have the person write over another file of
    /// theirs, or put their settings where others write them.
    #[test]
    fn links_and_what_others_write_are_left_alone() {
        let base = base();
        let elsewhere = base.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, base.path().join(".ssh")).unwrap();
        let open = || Place::open(base.path(), &[".ssh"], true);
        assert_eq!(open().unwrap_err().kind, Kind::Denied);
        std::fs::remove_file(base.path().join(".ssh")).unwrap();

        let place = place(base.path());
        std::fs::write(elsewhere.join("file"), "kept").unwrap();
        symlink(elsewhere.join("file"), place.path("config")).unwrap();
        assert_eq!(place.read("config").unwrap_err().kind, Kind::Denied);
        assert!(place.write("config", None, "x").is_err());
        assert_eq!(std::fs::read_to_string(elsewhere.join("file")).unwrap(), "kept");
        std::fs::remove_file(place.path("config")).unwrap();

        std::fs::hard_link(elsewhere.join("file"), place.path("config")).unwrap();
        assert_eq!(place.read("config").unwrap_err().kind, Kind::Denied);
        std::fs::remove_file(place.path("config")).unwrap();

        place.write("config", None, "x").unwrap();
        std::fs::set_permissions(place.path("config"), PermissionsExt::from_mode(0o660)).unwrap();
        assert_eq!(place.read("config").unwrap_err().kind, Kind::Denied);
        std::fs::set_permissions(base.path().join(".ssh"), PermissionsExt::from_mode(0o770))
            .unwrap();
        assert_eq!(open().unwrap_err().kind, Kind::Denied);
    }
}
