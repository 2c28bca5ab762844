//! What stays of the output of trees that are over, and for how long.

use super::spools::{Spools, locked};
use std::fs::{DirBuilder, DirEntry, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
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

/// A spool that may go.
struct Old {
    tree: u64,
    /// When it was written last.
    at: Millis,
    bytes: u64,
}

impl Spools {
    /// The output of a tree that begins is kept until [`Spools::forget`].
    ///
    /// # Errors
    /// Those of the folder.
    pub fn want(&self, tree: u64) -> io::Result<()> {
        let folder = self.folder(tree);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        File::create(folder.join(WANTED_FILE)).map(drop)
    }

    /// Removes what is over the bounds of trees that are over, the oldest first. Those of which
    /// nobody was heard since this program began are over: their relays are gone with the one
    /// before it.
    ///
    /// # Errors
    /// Those of the folders.
    pub fn tidy(&self, bounds: Bounds, now: Millis) -> io::Result<()> {
        let mut all = self.old()?;
        all.sort_by_key(|old| (old.at, old.tree));
        let (mut count, mut bytes) = (all.len(), all.iter().map(|old| old.bytes).sum::<u64>());
        for old in all {
            let kept = now.since(old.at) < bounds.age;
            if kept && count <= bounds.count && bytes <= bounds.bytes {
                return Ok(());
            }
            // Nobody opens it meanwhile.
            let open = locked(&self.open);
            if !open.contains_key(&old.tree) {
                self.forget(old.tree)?;
            }
            (count, bytes) = (count - 1, bytes - old.bytes);
        }
        Ok(())
    }

    fn old(&self) -> io::Result<Vec<Old>> {
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
            if !locked(&self.open).contains_key(&tree) {
                all.extend(old(tree, &entry)?);
            }
        }
        Ok(all)
    }
}

/// `None`: it is wanted, or gone.
fn old(tree: u64, folder: &DirEntry) -> io::Result<Option<Old>> {
    let gone = |e: io::Error| match e.kind() {
        ErrorKind::NotFound => Ok(None),
        _ => Err(e),
    };
    let files = match std::fs::read_dir(folder.path()) {
        Ok(files) => files,
        Err(e) => return gone(e),
    };
    let mut old = Old { tree, at: Millis(0), bytes: 0 };
    for file in files {
        let file = file?;
        if file.file_name() == WANTED_FILE {
            return Ok(None);
        }
        let data = match file.metadata() {
            Ok(data) => data,
            Err(e) => return gone(e),
        };
        old.at = old.at.max(Millis::of(data.modified()?));
        old.bytes = old.bytes.saturating_add(data.len());
    }
    Ok(Some(old))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ghost::spool::OUTPUT_FILE;
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
            let file = File::create(folder.join(OUTPUT_FILE)).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(newest - Duration::from_secs(60) * (4 - tree)).unwrap();
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
    fn what_is_wanted_or_written_stays() {
        // wrong: a unit's output would be gone before its job has it, or a program lose its own
        let (_dir, spools, newest) = spools();
        spools.want(2).unwrap();
        let _open = spools.state(3);
        spools.tidy(Bounds { count: 0, ..WEEK }, Millis::of(newest)).unwrap();
        assert_eq!(left(&spools), [2, 3]);
        spools.forget(2).unwrap();
        assert_eq!(left(&spools), [3]);
    }
}
