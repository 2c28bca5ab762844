//! `~/.xos`: the sites, tokens and keys that this person's computer keeps.
//!
//! Whoever reads these files is the person, so they belong to their owner alone: the folder has
//! mode 0700 and files 0600, symbolic links are refused, and each file is replaced whole.

use super::place;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use xos_base::{Error, VoId};

/// Longest file that is read, in bytes.
pub const FILE_MAX: u64 = 4 * 1024 * 1024;
/// Most VOs that are listed.
pub const VOS_MAX: usize = 1000;

/// The folder. Opening it anew for each file costs microseconds and holds nothing open.
#[derive(Clone, Debug)]
pub struct Home {
    path: PathBuf,
}

impl Home {
    /// The folder at `path`; nothing is read or made yet.
    pub fn new(path: &Path) -> Home {
        // Without a trailing slash or dot, which would follow a symbolic link.
        let path = path.components().filter(|c| *c != Component::CurDir).collect();
        Home { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is, from the root on: for programs that are started elsewhere.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when this process's folder is gone.
    pub fn absolute(&self) -> Result<PathBuf, Error> {
        std::path::absolute(&self.path).map_err(|e| self.failed("find", "", e))
    }

    /// Reads a JSON file; `None` when there is none.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] when the file or a folder above is not this person's alone,
    /// [`xos_base::Kind::Invalid`] when it is not what was written.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| self.damaged(name, &e))
    }

    /// Reads a file of text; `None` when there is none.
    ///
    /// # Errors
    /// As [`Home::read`].
    pub fn read_text(&self, name: &str) -> Result<Option<String>, Error> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|e| self.damaged(name, &e))
    }

    fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some((dir, file)) = self.folder(name, false)? else { return Ok(None) };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let fd = match openat(&dir, file, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(self.failed("read", name, e)),
        };
        self.check(&fd, name, SFlag::S_IFREG)?;
        let mut bytes = Vec::new();
        File::from(fd)
            .take(FILE_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| self.failed("read", name, e))?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(Error::too_large(format!("{} is too large", self.shown(name))));
        }
        Ok(Some(bytes))
    }

    fn damaged(&self, name: &str, e: &dyn std::error::Error) -> Error {
        Error::invalid(format!("{} is damaged: {e}", self.shown(name)))
            .hint("remove the file and sign in again with `xos login`")
    }

    /// Writes a JSON file, whole or not at all; makes the folders above it.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] and [`xos_base::Kind::Unavailable`] with the cause.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(value)
            .map_err(|e| Error::internal(format!("cannot encode {name}: {e}")))?;
        self.put(name, &bytes)
    }

    /// Writes a file of text, as [`Home::write`] does.
    ///
    /// # Errors
    /// As [`Home::write`].
    pub fn write_text(&self, name: &str, text: &str) -> Result<(), Error> {
        self.put(name, text.as_bytes())
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let Some((dir, file)) = self.folder(name, true)? else {
            return Err(self.failed("write", name, Errno::ENOENT));
        };
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        place::replace(&dir, file, bytes, mode).map_err(|e| self.failed("write", name, e))
    }

    /// Removes a file, and its folder when that is empty then; whether there was one.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] with the cause.
    pub fn remove(&self, name: &str) -> Result<bool, Error> {
        let Some((dir, file)) = self.folder(name, false)? else { return Ok(false) };
        match unlinkat(&dir, file, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => {}
            Err(Errno::ENOENT) => return Ok(false),
            Err(e) => return Err(self.failed("remove", name, e)),
        }
        if let Some((folder, _)) = name.rsplit_once('/')
            && let Some((above, last)) = self.folder(folder, false)?
        {
            match unlinkat(&above, last, UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOENT) => {}
                Err(e) => return Err(self.failed("remove", folder, e)),
            }
        }
        Ok(true)
    }

    /// The VOs that have a folder here, by id.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when the folder cannot be read.
    pub fn vos(&self) -> Result<Vec<VoId>, Error> {
        // Checks the folders on the way.
        if self.folder("vo/x", false)?.is_none() {
            return Ok(Vec::new());
        }
        let fail = |e: std::io::Error| self.failed("read", "vo", e);
        let mut vos = Vec::new();
        for entry in std::fs::read_dir(self.path.join("vo")).map_err(fail)?.take(VOS_MAX) {
            let name = entry.map_err(fail)?.file_name();
            if let Some(vo) = name.to_str().and_then(|n| n.parse().ok()) {
                vos.push(vo);
            }
        }
        vos.sort();
        Ok(vos)
    }

    /// The folder that `name` (`a`, or `a/b/c`) is in, and the last part of `name`; `None` when
    /// the folder is missing and is not to be made.
    fn folder<'n>(&self, name: &'n str, make: bool) -> Result<Option<(OwnedFd, &'n str)>, Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let all = Mode::S_IRWXU;
        let cwd = nix::fcntl::AT_FDCWD;
        if make {
            match mkdirat(cwd, &self.path, all) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(self.failed("make", "", e)),
            }
        }
        let mut dir = match openat(cwd, &self.path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(self.failed("open", "", e)),
        };
        self.check(&dir, "", SFlag::S_IFDIR)?;
        let mut parts = name.split('/').peekable();
        let mut path = String::new();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return Ok(Some((dir, part)));
            }
            path = if path.is_empty() { part.to_owned() } else { format!("{path}/{part}") };
            if make {
                match mkdirat(&dir, part, all) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(e) => return Err(self.failed("make", &path, e)),
                }
            }
            dir = match openat(&dir, part, flags, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::ENOENT) => return Ok(None),
                Err(e) => return Err(self.failed("open", &path, e)),
            };
            self.check(&dir, &path, SFlag::S_IFDIR)?;
        }
        Ok(None)
    }

    /// Refuses what others could have written, or could read.
    fn check(&self, fd: impl AsFd, name: &str, kind: SFlag) -> Result<(), Error> {
        let stat = fstat(fd).map_err(|e| self.failed("look at", name, e))?;
        let shown = self.shown(name);
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != kind {
            return Err(Error::denied(format!("{shown} is no ordinary file or folder"))
                .hint("remove it and sign in again with `xos login`"));
        }
        if stat.st_uid != geteuid().as_raw() {
            return Err(Error::denied(format!("{shown} belongs to another user"))
                .hint("name a folder of your own with --home"));
        }
        if stat.st_mode & 0o077 != 0 {
            return Err(Error::denied(format!(
                "other users may read or change {shown}, which holds your keys"
            ))
            .hint(format!("run: chmod go-rwx {shown}")));
        }
        Ok(())
    }

    fn shown(&self, name: &str) -> String {
        if name.is_empty() {
            return self.path.display().to_string();
        }
        self.path.join(name).display().to_string()
    }

    fn failed(&self, what: &str, name: &str, e: impl Into<std::io::Error>) -> Error {
        let e: std::io::Error = e.into();
        let shown = self.shown(name);
        match e.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP | Errno::ENOTDIR) => {
                Error::denied(format!("{shown} is a symbolic link or no folder, which is refused"))
                    .hint("keep a real folder there, or name another with --home")
            }
            _ => Error::unavailable(format!("cannot {what} {shown}: {e}"))
                .hint("check the folder's rights and the free space"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(&dir.path().join("xos/"));
        (dir, home)
    }

    #[test]
    fn files_are_their_owners_alone() {
        // Otherwise another user of the machine could act as this person.
        let (_dir, home) = home();
        assert_eq!(home.read::<u8>("sites.json").unwrap(), None);
        home.write("vo/demo.rennes/credential.json", &7).unwrap();
        home.write("vo/demo.rennes/credential.json", &8).unwrap();
        assert_eq!(home.read::<u8>("vo/demo.rennes/credential.json").unwrap(), Some(8));
        assert_eq!(mode(home.path()), 0o700);
        assert_eq!(mode(&home.path().join("vo/demo.rennes")), 0o700);
        assert_eq!(mode(&home.path().join("vo/demo.rennes/credential.json")), 0o600);
        let left = std::fs::read_dir(home.path().join("vo/demo.rennes")).unwrap().count();
        assert_eq!(left, 1, "a temporary file stayed");
        assert_eq!(home.vos().unwrap(), ["demo.rennes".parse().unwrap()]);
        assert!(home.remove("vo/demo.rennes/credential.json").unwrap());
        assert!(!home.remove("vo/demo.rennes/credential.json").unwrap());
    }

    #[test]
    fn symbolic_links_are_refused() {
        // A link planted in a shared folder would send keys to, or take them from, elsewhere.
        let (dir, home) = home();
        home.write("login.json", &1).unwrap();
        std::fs::rename(home.path(), dir.path().join("real")).unwrap();
        symlink(dir.path().join("real"), home.path()).unwrap();
        assert_eq!(home.read::<u8>("login.json").unwrap_err().kind, xos_base::Kind::Denied);
        assert!(home.write("login.json", &2).is_err());

        let home = Home::new(&dir.path().join("real"));
        std::fs::write(dir.path().join("other"), "3").unwrap();
        std::fs::remove_file(home.path().join("login.json")).unwrap();
        symlink(dir.path().join("other"), home.path().join("login.json")).unwrap();
        assert!(home.read::<u8>("login.json").is_err());
        home.write("login.json", &4).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("other")).unwrap(), "3");
        symlink(dir.path(), home.path().join("vo")).unwrap();
        assert!(home.write("vo/x.y/credential.json", &5).is_err());
    }

    #[test]
    fn what_others_may_read_is_refused() {
        // Keys that were readable for a while may be known to others: the person must learn it.
        let (_dir, home) = home();
        home.write("login.json", &1).unwrap();
        let file = home.path().join("login.json");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        let e = home.read::<u8>("login.json").unwrap_err();
        assert!(e.to_string().contains("chmod"), "{e}");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755)).unwrap();
        assert!(home.read::<u8>("login.json").is_err());
    }

    /// If it failed, an SSH key or a token in plain text would be less guarded than the rest.
    #[test]
    fn text_is_kept_as_json_is() {
        let (_dir, home) = home();
        home.write_text("vo/demo.rennes/token", "a.b.c\n").unwrap();
        assert_eq!(home.read_text("vo/demo.rennes/token").unwrap().as_deref(), Some("a.b.c\n"));
        let file = home.path().join("vo/demo.rennes/token");
        assert_eq!(mode(&file), 0o600);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o604)).unwrap();
        assert_eq!(
            home.read_text("vo/demo.rennes/token").unwrap_err().kind,
            xos_base::Kind::Denied
        );
        std::fs::remove_file(&file).unwrap();
        symlink(home.path().join("other"), &file).unwrap();
        assert!(home.read_text("vo/demo.rennes/token").is_err());
        home.write_text("vo/demo.rennes/token", "d").unwrap();
        assert!(!home.path().join("other").exists(), "a planted link was followed");
    }

    #[test]
    fn a_damaged_file_says_so() {
        let (_dir, home) = home();
        home.write("login.json", &"text").unwrap();
        let e = home.read::<u8>("login.json").unwrap_err();
        assert!(e.message.contains("damaged") && e.message.contains("login.json"), "{e}");
    }
}
