//! Where the node keeps what it knows of VOs: a file for each, so that news of one VO are written
//! without the others.

use super::{Vo, Vos};
use crate::agent::keep;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use xos_base::{Error, VoId};

/// The files' folder, below the node's.
const FOLDER: &str = "vos";
/// Below the node's folder too: the file of all VOs that earlier versions wrote.
const FORMER: &str = "vos.json";

/// The files.
#[derive(Debug)]
pub struct Kept {
    folder: PathBuf,
    /// The VOs whose file could not be written. Held over the writing: the newest must be written
    /// last.
    failed: Mutex<BTreeSet<VoId>>,
}

impl Kept {
    /// The files below the node's folder, and what is in them. What is in an earlier version's file
    /// goes into them.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] naming the file that cannot be read or is damaged.
    pub fn open(node: &Path) -> Result<(Kept, Vos), Error> {
        let folder = node.join(FOLDER);
        keep::own_folder(&folder, 0o700)?;
        let kept = Kept { folder, failed: Mutex::default() };
        let vos = Mutex::new(Vos { vos: kept_vos(node)?, ..Vos::default() });
        let former = node.join(FORMER);
        if former.exists() {
            let all: BTreeSet<VoId> = lock(&vos).vos.keys().cloned().collect();
            lock(&vos).changed = all;
            // On a full disk it stays, and counts at the next start too.
            if let Err(error) = kept.write(&vos).and_then(|()| keep::remove(&former)) {
                tracing::error!(%error, "what is known of VOs stays in an earlier version's file");
            }
        }
        Ok((kept, vos.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Writes what has changed of VOs, and what could not be written before; the accounts are
    /// locked only while they are looked at. What a file says already is not written again.
    ///
    /// # Errors
    /// The first that could not be written; the others are.
    pub fn write(&self, vos: &Mutex<Vos>) -> Result<(), Error> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = std::mem::take(&mut lock(vos).changed);
        let mut first = Ok(());
        // What failed before may lie there and not be on the disk.
        let again = std::mem::take(&mut *failed);
        for id in again.union(&changed) {
            let known = lock(vos).vos.get(id).map(serde_json::to_vec).transpose();
            let written = known
                .map_err(|e| Error::internal(format!("cannot write what is known of {id}: {e}")))
                .and_then(|known| self.write_one(id, known, again.contains(id)));
            if written.is_err() {
                failed.insert(id.clone());
            }
            first = first.and(written);
        }
        first
    }

    fn write_one(&self, id: &VoId, known: Option<Vec<u8>>, doubtful: bool) -> Result<(), Error> {
        let path = self.folder.join(format!("{id}.json"));
        match known {
            None => keep::remove(&path),
            Some(bytes) if !doubtful && std::fs::read(&path).is_ok_and(|is| is == bytes) => Ok(()),
            Some(bytes) => keep::write_bytes(&path, &bytes),
        }
    }
}

fn lock(vos: &Mutex<Vos>) -> MutexGuard<'_, Vos> {
    vos.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is kept of VOs below a node's folder.
///
/// # Errors
/// [`xos_base::Kind::Internal`] naming the file that cannot be read or is damaged.
pub fn kept_vos(node: &Path) -> Result<BTreeMap<VoId, Vo>, Error> {
    let mut vos = keep::read::<BTreeMap<VoId, Vo>>(&node.join(FORMER))?.unwrap_or_default();
    let folder = node.join(FOLDER);
    let fail =
        |e: std::io::Error| Error::internal(format!("cannot read {}: {e}", folder.display()));
    let entries = match std::fs::read_dir(&folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(vos),
        entries => entries.map_err(fail)?,
    };
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        // What else is there was being written when the machine stopped.
        let Some(id) = named(&path) else { continue };
        let Some(vo) = keep::read::<Vo>(&path)? else { continue };
        // An earlier version, which ran again meanwhile, may have heard more.
        if vos.get(&id).is_none_or(|former| former.number <= vo.number) {
            vos.insert(id, vo);
        }
    }
    Ok(vos)
}

/// The VO whose file this is.
fn named(path: &Path) -> Option<VoId> {
    path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{BASE, accounts, member};
    use std::os::unix::fs::MetadataExt;
    use xos_api::vom::{AccountMember, VoAccounts};

    const DEMO: &str = "demo.rennes";
    const OTHER: &str = "other.pisa";

    /// A VO whose only member may have a name that the site gave.
    fn told(vo: &str, given: Option<&str>) -> VoAccounts {
        let given = given.map(|name| name.parse().unwrap());
        let base = if vo == DEMO { BASE } else { BASE + 65_536 };
        let ann = AccountMember { given, ..member(1, "ann", "active") };
        VoAccounts { vo: vo.parse().unwrap(), base, ..accounts(vec![ann]) }
    }

    fn path(node: &Path, vo: &str) -> PathBuf {
        node.join(FOLDER).join(format!("{vo}.json"))
    }

    /// Which files there are: each that is written is another one.
    fn files(node: &Path) -> [Option<u64>; 2] {
        [DEMO, OTHER].map(|vo| std::fs::metadata(path(node, vo)).ok().map(|m| m.ino()))
    }

    fn reads(node: &Path, expected: &Mutex<Vos>) {
        assert_eq!(kept_vos(node).unwrap(), lock(expected).vos);
    }

    /// If it failed, each word about one account would have a node write those of all its VOs, or
    /// a restart would know something else than was told.
    #[test]
    fn only_what_changed_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, vos) = Kept::open(dir.path()).unwrap();
        let vos = Mutex::new(vos);
        let tell = |accounts| {
            lock(&vos).apply(accounts);
            kept.write(&vos).unwrap();
            reads(dir.path(), &vos);
            files(dir.path())
        };
        let [demo, none] = tell(told(DEMO, None));
        assert!(demo.is_some() && none.is_none());
        let [same, other] = tell(told(OTHER, Some("annie")));
        assert!(other.is_some());
        assert_eq!(same, demo, "nothing was told of it");
        assert_eq!(tell(told(DEMO, None)), [demo, other], "nothing new, as when a core is back");
        let [both, of_it] = tell(told(DEMO, Some("annie")));
        assert!(both != demo && of_it != other, "a name went from one VO to the other");
        // A VO that may have no accounts here.
        let [gone, stays] = tell(VoAccounts { base: 1000, ..told(DEMO, None) });
        assert_eq!((gone, stays), (None, of_it));
    }

    /// If it failed, what could not be written on a full disk would be missing after the next
    /// restart, or one VO's file would keep those of others from being written.
    #[test]
    fn what_could_not_be_written_is_written_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, vos) = Kept::open(dir.path()).unwrap();
        let vos = Mutex::new(vos);
        std::fs::create_dir(path(dir.path(), DEMO)).unwrap();
        lock(&vos).apply(told(DEMO, None));
        lock(&vos).apply(told(OTHER, None));
        let e = kept.write(&vos).unwrap_err();
        assert!(e.message.contains("demo.rennes.json"), "{e}");
        assert!(files(dir.path())[1].is_some(), "the other one");
        std::fs::remove_dir(path(dir.path(), DEMO)).unwrap();
        kept.write(&vos).unwrap();
        reads(dir.path(), &vos);
    }

    /// If it failed, a node would forget its accounts by an update, or take half a file for one.
    #[test]
    fn an_earlier_versions_file_is_taken_over_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut former = Vos::default();
        former.apply(told(DEMO, None));
        former.apply(told(OTHER, None));
        keep::write(&dir.path().join(FORMER), &former).unwrap();
        assert_eq!(kept_vos(dir.path()).unwrap(), former.vos);
        let (_, vos) = Kept::open(dir.path()).unwrap();
        assert_eq!(vos.vos, former.vos);
        assert!(!dir.path().join(FORMER).exists());
        // The machine stopped while this was written.
        std::fs::write(path(dir.path(), DEMO).with_extension("new"), "{").unwrap();
        reads(dir.path(), &Mutex::new(former));
        std::fs::write(path(dir.path(), DEMO), "{").unwrap();
        let e = Kept::open(dir.path()).unwrap_err();
        assert!(e.message.contains("demo.rennes.json"), "{e}");
    }

    /// If it failed, who was removed while an earlier version ran again would have their account
    /// back at the next update.
    #[test]
    fn of_two_versions_files_the_one_that_heard_more_counts() {
        let dir = tempfile::tempdir().unwrap();
        let at = |number| {
            let mut vos = Vos::default();
            vos.apply(VoAccounts { number, ..told(DEMO, None) });
            vos
        };
        for (former, own, counts) in [(45, 40, 45), (40, 45, 45)] {
            keep::own_folder(&dir.path().join(FOLDER), 0o700).unwrap();
            keep::write(&dir.path().join(FORMER), &at(former)).unwrap();
            keep::write(&path(dir.path(), DEMO), &at(own).vos[&DEMO.parse().unwrap()]).unwrap();
            let (_, vos) = Kept::open(dir.path()).unwrap();
            assert_eq!(vos.vos, at(counts).vos);
            assert!(!dir.path().join(FORMER).exists());
        }
    }
}
