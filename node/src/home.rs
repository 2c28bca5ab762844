//! Home folders, made when an account first works here.

use crate::spec::Account;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Why a home cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The folder of homes, or a folder in its way, could be changed by others than root.
    #[error("{0} is not root's alone: homes are not safe there; choose another folder or chown it")]
    OpenBase(PathBuf),
    /// Something lies where the home should be, and it is not this account's folder.
    #[error("{path} exists and is not a folder of uid {uid}: the administrator removes it")]
    Taken {
        /// Where.
        path: PathBuf,
        /// Whose it should be.
        uid: u32,
    },
    /// The home does not lie in the folder of homes.
    #[error("{0} is not directly inside the folder of homes")]
    Outside(PathBuf),
    /// The machine refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl From<HomeError> for xos_base::Error {
    fn from(e: HomeError) -> xos_base::Error {
        xos_base::Error::internal(e.to_string())
    }
}

fn at<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> HomeError {
    let path = path.to_owned();
    move |e| HomeError::Io { doing, path, source: e.into() }
}

/// Makes the account's home, `<base>/<name>`, mode 0700, if it is not there; makes `base` too.
/// Whether it was made. Follows no link on the way from `base` on.
///
/// # Errors
/// [`HomeError`]: a thing prepared by somebody else is refused, never taken over.
pub fn ensure(base: &Path, account: &Account) -> Result<bool, HomeError> {
    let name = match (account.home.parent(), account.home.file_name()) {
        (Some(parent), Some(name)) if parent == base => name,
        _ => return Err(HomeError::Outside(account.home.clone())),
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(base)
        .map_err(at("make", base))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base_fd = rustix::fs::open(base, flags, Mode::empty()).map_err(at("open", base))?;
    let stat = rustix::fs::fstat(&base_fd).map_err(at("look at", base))?;
    let me = rustix::process::getuid().as_raw();
    if stat.st_uid != me || stat.st_mode & 0o022 != 0 {
        return Err(HomeError::OpenBase(base.to_owned()));
    }
    let made = match rustix::fs::mkdirat(&base_fd, name, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(e) => return Err(at("make", &account.home)(e)),
    };
    let taken = || HomeError::Taken { path: account.home.clone(), uid: account.uid };
    let fd = match rustix::fs::openat(&base_fd, name, flags | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::LOOP | Errno::NOTDIR) => return Err(taken()),
        Err(e) => return Err(at("open", &account.home)(e)),
    };
    let stat = rustix::fs::fstat(&fd).map_err(at("look at", &account.home))?;
    if owned_by(&stat, account.uid) {
        return Ok(false);
    }
    // An earlier start may have died between making it and giving it away.
    let ours = owned_by(&stat, me) && (made || is_empty(fd.as_fd(), &account.home)?);
    if !ours {
        return Err(taken());
    }
    give(&fd, account).map_err(at("give away", &account.home))?;
    Ok(true)
}

fn owned_by(stat: &Stat, uid: u32) -> bool {
    stat.st_uid == uid && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn give(fd: &OwnedFd, account: &Account) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    rustix::fs::fchmod(fd, Mode::RWXU)?;
    rustix::fs::chownat(fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}

fn is_empty(fd: BorrowedFd<'_>, path: &Path) -> Result<bool, HomeError> {
    for entry in Dir::read_from(fd).map_err(at("list", path))? {
        let entry = entry.map_err(at("list", path))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn account(base: &Path, uid: u32) -> Account {
        let home = base.join("ann.demo");
        Account { uid, gid: uid, groups: vec![], name: "ann.demo".into(), home }
    }

    fn root() -> bool {
        let root = rustix::process::getuid().is_root();
        if !root {
            println!("skipped: needs root to give folders away");
        }
        root
    }

    #[test]
    fn a_home_is_made_once_and_is_the_persons_alone() {
        // wrong: others could read a person's files, or a second start would fail
        if !root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("homes");
        let a = account(&base, 70001);
        assert!(ensure(&base, &a).unwrap());
        assert!(!ensure(&base, &a).unwrap());
        let m = std::fs::metadata(&a.home).unwrap();
        assert_eq!((m.uid(), m.gid(), m.mode() & 0o7777), (70001, 70001, 0o700));
        // made by a start that died before it gave the folder away
        let b = Account { home: base.join("b"), ..account(&base, 70002) };
        std::fs::create_dir(&b.home).unwrap();
        assert!(ensure(&base, &b).unwrap());
    }

    #[test]
    fn what_somebody_prepared_is_refused() {
        // wrong: root would give /etc, or another person's folder, to the account
        if !root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("homes");
        std::fs::create_dir(&base).unwrap();
        let a = account(&base, 70001);
        let victim = dir.path().join("victim");
        std::fs::create_dir(&victim).unwrap();
        symlink(&victim, &a.home).unwrap();
        assert!(matches!(ensure(&base, &a), Err(HomeError::Taken { .. })));
        assert_eq!(std::fs::metadata(&victim).unwrap().uid(), 0);
        std::fs::remove_file(&a.home).unwrap();

        std::fs::create_dir(&a.home).unwrap();
        std::fs::write(a.home.join("f"), "x").unwrap();
        assert!(matches!(ensure(&base, &a), Err(HomeError::Taken { .. })), "root's, in use");
        std::fs::remove_dir_all(&a.home).unwrap();

        std::fs::write(&a.home, "x").unwrap();
        assert!(matches!(ensure(&base, &a), Err(HomeError::Taken { .. })), "a file");
        std::fs::remove_file(&a.home).unwrap();

        std::fs::set_permissions(&base, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(matches!(ensure(&base, &a), Err(HomeError::OpenBase(_))));
        let outside = Account { home: "/etc".into(), ..a };
        assert!(matches!(ensure(&base, &outside), Err(HomeError::Outside(_))));
    }
}
