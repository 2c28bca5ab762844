//! Who was let in before, and until when that counts without this daemon
//! ([`xos_base::local::SEEN_DIR`]).

use crate::agent::keep;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use xos_base::{Error, Millis};

/// A later end is not written as long as it is later by no more: a login need not wait for the
/// disk.
const STEP: Duration = Duration::from_secs(5 * 60);

/// The folder, and what is in it.
pub(in crate::agent) struct Seen {
    folder: PathBuf,
    until: Mutex<BTreeMap<u32, Millis>>,
}

impl Seen {
    /// Opens the folder. What is no record of this program's goes.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when the folder is not root's alone, or cannot be read.
    pub(in crate::agent) fn open(folder: &Path) -> Result<Seen, Error> {
        keep::own_folder(folder, 0o700)?;
        let fail =
            |e: std::io::Error| Error::internal(format!("cannot read {}: {e}", folder.display()));
        let mut until = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let uid = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok());
            let is_file = entry.file_type().map_err(fail)?.is_file();
            let read = match uid {
                Some(uid) if is_file => {
                    keep::read::<u64>(&entry.path()).map(|at| at.map(|at| (uid, Millis(at))))
                }
                _ => Ok(None),
            };
            match read {
                Ok(Some((uid, at))) => {
                    until.insert(uid, at);
                }
                Ok(None) | Err(_) => {
                    tracing::warn!(path = %entry.path().display(), "no record of a login: removed");
                    remove(&entry.path())?;
                }
            }
        }
        Ok(Seen { folder: folder.to_owned(), until: Mutex::new(until) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Millis>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when an account may be let in.
    pub(super) fn until(&self, uid: u32) -> Option<Millis> {
        self.lock().get(&uid).copied()
    }

    /// Every account, and until when.
    pub(super) fn all(&self) -> BTreeMap<u32, Millis> {
        self.lock().clone()
    }

    /// An account was let in, and may be until `until`. Whether that was written.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] naming the file.
    pub(super) fn put(&self, uid: u32, until: Millis) -> Result<bool, Error> {
        let mut all = self.lock();
        let known = all.get(&uid).copied();
        if known.is_some_and(|at| at <= until && until.since(at) < STEP) {
            return Ok(false);
        }
        keep::write(&self.folder.join(uid.to_string()), &until.0)?;
        all.insert(uid, until);
        Ok(true)
    }

    /// Forgets all accounts but those that `stays` names. Whether there were any.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] naming the first file that stays.
    pub(super) fn retain(&self, stays: impl Fn(u32) -> bool) -> Result<bool, Error> {
        let mut all = self.lock();
        let gone: Vec<u32> = all.keys().copied().filter(|uid| !stays(*uid)).collect();
        for uid in &gone {
            remove(&self.folder.join(uid.to_string()))?;
            all.remove(uid);
        }
        Ok(!gone.is_empty())
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    let is_folder = path.symlink_metadata().is_ok_and(|m| m.is_dir());
    let removed = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::internal(format!("cannot remove {}: {e}", path.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, people who were removed would be let in while the daemon is down, or those
    /// who may come in would not.
    #[test]
    fn records_are_written_kept_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("seen");
        let seen = Seen::open(&folder).unwrap();
        assert!(seen.put(7, Millis(1000)).unwrap() && seen.put(8, Millis(5)).unwrap());
        assert_eq!(fs::read_to_string(folder.join("7")).unwrap(), "1000");
        assert!(!seen.put(7, Millis(2000)).unwrap(), "a little later is not worth a write");
        assert!(seen.put(7, Millis(10_000_000)).unwrap());
        assert!(seen.put(7, Millis(900)).unwrap(), "an earlier end counts at once");
        let again = Seen::open(&folder).unwrap();
        assert_eq!((again.until(7), again.until(9)), (Some(Millis(900)), None));
        assert!(again.retain(|uid| uid == 8).unwrap());
        assert!(!again.retain(|uid| uid == 8).unwrap());
        assert!(!folder.join("7").exists());
        assert_eq!(again.all(), BTreeMap::from([(8, Millis(5))]));
    }

    /// If it failed, what somebody put into the folder would be followed, or taken for a record.
    #[test]
    fn links_and_nonsense_in_the_folder_are_no_records() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, victim) = (dir.path().join("seen"), dir.path().join("victim"));
        Seen::open(&folder).unwrap();
        fs::write(&victim, "99999999999999").unwrap();
        std::os::unix::fs::symlink(&victim, folder.join("7")).unwrap();
        fs::write(folder.join("8"), "soon").unwrap();
        fs::write(folder.join("8.new"), "1").unwrap();
        fs::create_dir(folder.join("9")).unwrap();
        let seen = Seen::open(&folder).unwrap();
        assert_eq!(seen.all(), BTreeMap::new());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        assert!(victim.exists(), "the link was followed");
        fs::remove_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink(dir.path(), &folder).unwrap();
        assert!(Seen::open(&folder).is_err());
    }
}
