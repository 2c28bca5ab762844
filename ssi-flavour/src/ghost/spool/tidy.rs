//! What stays of the output of trees that are over, and for how long.

use super::spools::{Spools, locked};
use super::{KEPT_FILE, Kept, OUTCOME_FILE};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;
use xos_base::Millis;

/// In a spool's folder: it stays until somebody has it removed ([`Spools::forget`]).
pub const WANTED_FILE: &str = "wanted";

/// How much stays of trees that are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// For how long after they ended.
    pub age: Duration,
    /// Of how many.
    pub count: usize,
    /// How many bytes of all together.
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        let age = Duration::from_secs(7 * 24 * 3600);
        Bounds { age, count: 1000, bytes: 4 << 30 }
    }
}

/// What a spool's folder has.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    tree: u64,
    /// When it was written last.
    at: Millis,
    bytes: u64,
    owner: u32,
    wanted: bool,
    /// It is known that the tree is over.
    over: bool,
    /// The last copy that wrote to it.
    epoch: u64,
}

impl Spools {
    /// Removes what is over the bounds of trees that are over, the oldest first. Those of which
    /// nobody was heard since this program began go by their age: their relays come back soon, or
    /// are gone. What each person has is counted anew.
    ///
    /// # Errors
    /// Those of the folders.
    pub fn tidy(&self, bounds: Bounds, now: Millis) -> io::Result<()> {
        let old = self.old(self.counted()?);
        let (mut count, mut bytes) = (old.len(), old.iter().map(|old| old.bytes).sum::<u64>());
        for old in old {
            let kept = now.since(old.at) < bounds.age;
            if kept && (!old.over || count <= bounds.count && bytes <= bounds.bytes) {
                continue;
            }
            self.drop_closed(old.tree)?;
            (count, bytes) = (count - 1, bytes - old.bytes);
        }
        Ok(())
    }

    /// Counts what each person has.
    ///
    /// # Errors
    /// Those of the folders.
    pub fn count(&self) -> io::Result<()> {
        self.counted().map(drop)
    }

    fn counted(&self) -> io::Result<Vec<Seen>> {
        let all = self.seen()?;
        let mut used: BTreeMap<u32, u64> = BTreeMap::new();
        let mut seconds = Vec::new();
        for tree in self.seconds()? {
            seconds.extend(look(tree, &self.second_folder(tree))?);
        }
        for seen in all.iter().chain(&seconds).filter(|seen| !seen.wanted) {
            *used.entry(seen.owner).or_default() += seen.bytes;
        }
        self.quota.counted(used);
        Ok(all)
    }

    /// Removes what is over of a person who has too much, the oldest first. What they have is
    /// counted anew.
    pub(super) fn shed(&self, owner: u32) -> io::Result<()> {
        let mut own = self.seen()?;
        own.retain(|seen| seen.owner == owner && !seen.wanted);
        let mut bytes: u64 = own.iter().map(|seen| seen.bytes).sum();
        self.quota.counted_of(owner, bytes);
        for old in self.old(own).into_iter().filter(|old| old.over) {
            if bytes <= self.quota.limits.person {
                return Ok(());
            }
            self.drop_closed(old.tree)?;
            bytes = bytes.saturating_sub(old.bytes);
        }
        Ok(())
    }

    /// Removes a spool, unless somebody opened it meanwhile.
    fn drop_closed(&self, tree: u64) -> io::Result<()> {
        // Nobody opens it now.
        let open = locked(&self.open);
        if open.contains_key(&tree) { Ok(()) } else { self.forget(tree) }
    }

    /// Of these, those that may go, the oldest first.
    fn old(&self, mut all: Vec<Seen>) -> Vec<Seen> {
        let open = locked(&self.open);
        all.retain(|seen| !seen.wanted && !open.contains_key(&seen.tree));
        all.sort_by_key(|seen| (seen.at, seen.tree));
        all
    }

    /// The spools of trees of which it is not known here that they are over, and for which no ghost
    /// stands here: each with the last copy that wrote to it.
    ///
    /// # Errors
    /// Those of the folders.
    pub fn unfinished(&self) -> io::Result<Vec<(u64, u64)>> {
        let mut all = self.seen()?;
        all.retain(|seen| !seen.over && !self.stands(seen.tree));
        Ok(all.into_iter().map(|seen| (seen.tree, seen.epoch)).collect())
    }

    fn seen(&self) -> io::Result<Vec<Seen>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Some(tree) = entry.file_name().to_str().and_then(|n| n.parse::<u64>().ok()) else {
                continue;
            };
            all.extend(look(tree, &entry.path())?);
        }
        Ok(all)
    }

    /// Whose the output of a tree is, and how much: what goes with it is counted no more.
    pub(super) fn measured(&self, tree: u64) -> io::Result<(u32, u64)> {
        let seen = look(tree, &self.folder(tree))?.unwrap_or_default();
        Ok((seen.owner, if seen.wanted { 0 } else { seen.bytes }))
    }
}

/// `None`: it is gone.
fn look(tree: u64, folder: &Path) -> io::Result<Option<Seen>> {
    match looked(tree, folder) {
        Ok(seen) => Ok(Some(seen)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn looked(tree: u64, folder: &Path) -> io::Result<Seen> {
    let mut seen = Seen { tree, ..Seen::default() };
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        seen.wanted |= file.file_name() == WANTED_FILE;
        seen.over |= file.file_name() == OUTCOME_FILE;
        // Its oldest part may have gone meanwhile.
        let Ok(data) = file.metadata() else { continue };
        seen.at = seen.at.max(Millis::of(data.modified()?));
        if file.file_name() != KEPT_FILE && file.file_name() != OUTCOME_FILE {
            seen.bytes = seen.bytes.saturating_add(data.len());
        }
    }
    if let Ok(bytes) = std::fs::read(folder.join(KEPT_FILE)) {
        // What cannot be read is nobody's, and goes with its time.
        if let Ok(kept) = serde_json::from_slice::<Kept>(&bytes) {
            (seen.owner, seen.epoch) = (kept.owner, kept.epoch);
            seen.over |= kept.exit.is_some();
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ghost::spool::{Limits, OUTPUT_FILE};
    use std::fs::File;
    use std::time::SystemTime;

    const WEEK: Bounds =
        Bounds { age: Duration::from_secs(7 * 24 * 3600), count: 10, bytes: 1 << 20 };

    /// Spools of trees 1 to 4, each a minute younger than the one before it.
    fn spools() -> (tempfile::TempDir, Spools, SystemTime) {
        let dir = tempfile::tempdir().unwrap();
        let spools = Spools::new(dir.path());
        let newest = SystemTime::now();
        for tree in 1..=4_u32 {
            let folder = spools.folder(tree.into());
            std::fs::create_dir(&folder).unwrap();
            for (name, bytes) in [(OUTPUT_FILE, 100), (OUTCOME_FILE, 0)] {
                let file = File::create(folder.join(name)).unwrap();
                file.set_len(bytes).unwrap();
                file.set_modified(newest - Duration::from_secs(60) * (4 - tree)).unwrap();
            }
        }
        (dir, spools, newest)
    }

    fn left(spools: &Spools) -> Vec<u64> {
        (1..=4).filter(|tree| spools.folder(*tree).exists()).collect()
    }

    #[test]
    fn the_oldest_output_goes_first() {
        // wrong: a node's disk would fill, or what somebody still reads would be gone
        let (_dir, spools, newest) = spools();
        let now = Millis::of(newest);
        spools.tidy(WEEK, now).unwrap();
        assert_eq!(left(&spools), [1, 2, 3, 4]);
        spools.tidy(Bounds { count: 3, ..WEEK }, now).unwrap();
        assert_eq!(left(&spools), [2, 3, 4]);
        spools.tidy(Bounds { bytes: 250, ..WEEK }, now).unwrap();
        assert_eq!(left(&spools), [3, 4]);
        spools.tidy(WEEK, now.plus(WEEK.age).minus(Duration::from_secs(30))).unwrap();
        assert_eq!(left(&spools), [4]);
    }

    #[test]
    fn what_may_still_run_elsewhere_goes_by_age_alone() {
        // wrong: a node whose agent was started anew would throw away the output of programs that
        // run on other nodes, just before they are heard again
        let (dir, _, newest) = spools();
        let spools = Spools::within(dir.path(), Limits { person: 0, ..Limits::default() });
        std::fs::remove_file(spools.folder(1).join(OUTCOME_FILE)).unwrap();
        spools.tidy(Bounds { count: 0, ..WEEK }, Millis::of(newest)).unwrap();
        assert_eq!(left(&spools), [1]);
        spools.shed(0).unwrap();
        assert_eq!(left(&spools), [1]);
        spools.tidy(WEEK, Millis::of(newest).plus(WEEK.age)).unwrap();
        assert!(left(&spools).is_empty());
    }

    #[test]
    fn what_is_wanted_or_written_stays() {
        // wrong: a unit's output would be gone before its job has it, or a program lose its own
        let (dir, spools, newest) = spools();
        spools.begin(2, 100_001, true).unwrap();
        let spools = Spools::new(dir.path());
        let _open = spools.state(3);
        spools.tidy(Bounds { count: 0, ..WEEK }, Millis::of(newest)).unwrap();
        assert_eq!(left(&spools), [2, 3]);
        spools.forget(2).unwrap();
        assert_eq!(left(&spools), [3]);
    }
}
