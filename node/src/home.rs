//! Home folders, made when an account first works here.
//!
//! A person who was removed from a VO and admitted again has the same account name and another
//! uid: member numbers are never given twice. What lies in the old home was written under the
//! old membership and stays that uid's; it is moved aside to `<name>+<old uid>`, and the person
//! begins with an empty home. Nothing is ever given to somebody because a name is the same. The
//! node's administrator can hand the old files over (docs/site-admin.md).

use crate::spec::Account;
use rustix::fs::{AtFlags, Dir, Gid, Mode, OFlags, RenameFlags, Uid, renameat_with, symlinkat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// How folders are opened.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

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
        /// Whose folder it is, if it is one.
        owner: Option<u32>,
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
    let name = name_in(base, account)?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(base)
        .map_err(at("make", base))?;
    let base_fd = open_base(base)?;
    let me = rustix::process::getuid().as_raw();
    let made = match rustix::fs::mkdirat(&base_fd, name, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(e) => return Err(at("make", &account.home)(e)),
    };
    let (fd, owner) = open_home(&base_fd, name, account)?;
    if owner == account.uid {
        return Ok(false);
    }
    // An earlier start may have died between making it and giving it away.
    let ours = owner == me && (made || is_empty(fd.as_fd(), &account.home)?);
    if !ours {
        return Err(taken(account, Some(owner)));
    }
    give(&fd, account).map_err(at("give away", &account.home))?;
    Ok(true)
}

/// Moves the folder of uid `old`, which has the place of the account's home, to `<home>+<old>` as
/// it is. The caller knows that `old` was a member's number of the same VO and is nobody's now.
///
/// # Errors
/// [`HomeError::Taken`] when the folder is another's, or something has the new name.
pub fn set_aside(base: &Path, account: &Account, old: u32) -> Result<PathBuf, HomeError> {
    let name = name_in(base, account)?;
    // Nobody but root changes this folder: what was looked at is what is moved.
    let base_fd = open_base(base)?;
    let (_, owner) = open_home(&base_fd, name, account)?;
    if owner != old || owner == account.uid || owner == rustix::process::getuid().as_raw() {
        return Err(taken(account, Some(owner)));
    }
    // No account's name has a plus sign.
    let mut aside = name.to_owned();
    aside.push(format!("+{old}"));
    let path = base.join(&aside);
    match renameat_with(&base_fd, name, &base_fd, &aside, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(path),
        Err(Errno::EXIST) => Err(HomeError::Taken { path, uid: old, owner: None }),
        Err(e) => Err(at("move aside", &account.home)(e)),
    }
}

/// Makes the link `vo` to `target` in the account's home, unless something has that name. It is
/// root's, so that nothing the person puts there meanwhile is given away; they may remove it.
///
/// # Errors
/// [`HomeError`]; the home must be there, and the account's.
pub fn link_vo(base: &Path, account: &Account, target: &Path) -> Result<(), HomeError> {
    let name = name_in(base, account)?;
    let (home, owner) = open_home(&open_base(base)?, name, account)?;
    if owner != account.uid {
        return Err(taken(account, Some(owner)));
    }
    match symlinkat(target, &home, "vo") {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(at("make the link vo in", &account.home)(e)),
    }
}

fn name_in<'a>(base: &Path, account: &'a Account) -> Result<&'a OsStr, HomeError> {
    match (account.home.parent(), account.home.file_name()) {
        (Some(parent), Some(name)) if parent == base => Ok(name),
        _ => Err(HomeError::Outside(account.home.clone())),
    }
}

fn taken(account: &Account, owner: Option<u32>) -> HomeError {
    HomeError::Taken { path: account.home.clone(), uid: account.uid, owner }
}

/// The folder of homes, if it is root's alone.
fn open_base(base: &Path) -> Result<OwnedFd, HomeError> {
    let fd = rustix::fs::open(base, FOLDER, Mode::empty()).map_err(at("open", base))?;
    let stat = rustix::fs::fstat(&fd).map_err(at("look at", base))?;
    if stat.st_uid != rustix::process::getuid().as_raw() || stat.st_mode & 0o022 != 0 {
        return Err(HomeError::OpenBase(base.to_owned()));
    }
    Ok(fd)
}

/// The folder at the home's place and its owner.
fn open_home(base: &OwnedFd, name: &OsStr, account: &Account) -> Result<(OwnedFd, u32), HomeError> {
    let fd = match rustix::fs::openat(base, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::LOOP | Errno::NOTDIR) => return Err(taken(account, None)),
        Err(e) => return Err(at("open", &account.home)(e)),
    };
    let stat = rustix::fs::fstat(&fd).map_err(at("look at", &account.home))?;
    Ok((fd, stat.st_uid))
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
    #[test]
    fn an_old_home_is_set_aside_as_it_is_and_nothing_else_is() {
        // wrong: a person who comes back could not work, would get the files of an ended
        // membership, or could have somebody else's folder moved
        if !root() {
            return;
        }
        const OLD: u32 = 70001;
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("homes");
        let old = account(&base, OLD);
        ensure(&base, &old).unwrap();
        std::fs::write(old.home.join("secret"), "x").unwrap();
        let new = account(&base, 70009);
        let Err(HomeError::Taken { owner: Some(OLD), .. }) = ensure(&base, &new) else {
            panic!("whose it is must be told")
        };
        let aside = base.join(format!("ann.demo+{OLD}"));
        // the owner is not the one that was meant: another VO's uid, a local user's, root's
        for other in [70002, 1000, 0] {
            assert!(matches!(set_aside(&base, &new, other), Err(HomeError::Taken { .. })));
        }
        // something lies where it would go
        std::fs::create_dir(&aside).unwrap();
        assert!(matches!(set_aside(&base, &new, OLD), Err(HomeError::Taken { .. })));
        std::fs::remove_dir(&aside).unwrap();
        // a link that the old owner's folder was replaced by
        let victim = dir.path().join("victim");
        std::fs::create_dir(&victim).unwrap();
        std::os::unix::fs::chown(&victim, Some(OLD), Some(OLD)).unwrap();
        let link = Account { home: base.join("link"), ..new.clone() };
        symlink(&victim, &link.home).unwrap();
        assert!(matches!(set_aside(&base, &link, OLD), Err(HomeError::Taken { .. })));
        assert!(victim.exists() && link.home.is_symlink());
        // others could change the folder of homes
        std::fs::set_permissions(&base, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(matches!(set_aside(&base, &new, OLD), Err(HomeError::OpenBase(_))));
        std::fs::set_permissions(&base, PermissionsExt::from_mode(0o755)).unwrap();

        assert_eq!(set_aside(&base, &new, OLD).unwrap(), aside);
        assert!(ensure(&base, &new).unwrap());
        assert_eq!(std::fs::read_dir(&new.home).unwrap().count(), 0);
        let m = std::fs::metadata(aside.join("secret")).unwrap();
        assert_eq!(m.uid(), 0, "written by this test as root, and given to nobody");
        let m = std::fs::metadata(&aside).unwrap();
        assert_eq!((m.uid(), m.mode() & 0o7777), (OLD, 0o700));
        // never one's own
        assert!(set_aside(&base, &new, new.uid).is_err());
    }

    /// If it failed, a person could have root make a link in a folder that is not theirs, or lose
    /// what they called `vo`.
    #[test]
    fn the_link_to_the_volume_is_made_in_the_home_and_nowhere_else() {
        if !root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("homes");
        let a = account(&base, 70001);
        let volume = Path::new("/xtreemfs/demo.rennes");
        assert!(link_vo(&base, &a, volume).is_err(), "there is no home yet");
        ensure(&base, &a).unwrap();
        link_vo(&base, &a, volume).unwrap();
        link_vo(&base, &a, volume).unwrap();
        assert_eq!(std::fs::read_link(a.home.join("vo")).unwrap(), volume);
        // the person's own thing stays
        std::fs::remove_file(a.home.join("vo")).unwrap();
        std::fs::write(a.home.join("vo"), "mine").unwrap();
        link_vo(&base, &a, volume).unwrap();
        assert_eq!(std::fs::read_to_string(a.home.join("vo")).unwrap(), "mine");
        // a home that is a link elsewhere, and one that is another's
        let victim = dir.path().join("victim");
        std::fs::create_dir(&victim).unwrap();
        let b = Account { home: base.join("b"), ..a.clone() };
        symlink(&victim, &b.home).unwrap();
        assert!(matches!(link_vo(&base, &b, volume), Err(HomeError::Taken { .. })));
        let other = Account { uid: 70002, ..a };
        assert!(matches!(link_vo(&base, &other, volume), Err(HomeError::Taken { .. })));
        assert!(!victim.join("vo").exists());
    }
}
