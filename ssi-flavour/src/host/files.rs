//! The files of programs: seen when they are saved, and brought back before they go on from there.

use super::wait;
use crate::cell::proto::Tree;
use crate::cluster::messages::CutFile;
use crate::driver::files::{self, Cut};
use crate::driver::images::origin;
use crate::driver::{Cell, DriverError, Dumped, Person};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why no copy was made, for the person whose tree it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NotMade {
    pub(super) reason: String,
    /// Whether trying again changes nothing.
    pub(super) stays: bool,
    /// Files that were cut back for it.
    pub(super) cut: Vec<CutFile>,
}

impl From<String> for NotMade {
    fn from(reason: String) -> NotMade {
        NotMade { reason, ..NotMade::default() }
    }
}

impl From<DriverError> for NotMade {
    fn from(error: DriverError) -> NotMade {
        NotMade { reason: error.to_string(), stays: error.is_of_files(), cut: Vec::new() }
    }
}

/// Writes down what the files are that a tree had open when it was saved; it stands still since.
pub(super) async fn record(
    mut dumped: Dumped,
    (root, cell): (i32, Cell),
    person: Person,
    limit: Duration,
) -> Result<Dumped, String> {
    if dumped.open_files.is_empty() {
        return Ok(dumped);
    }
    let seen = wait(move || {
        files::record(&mut dumped.open_files, root, Some(cell), &person).map(|()| dumped)
    });
    let failed = |e: &dyn std::fmt::Display| format!("its files cannot be looked at: {e}");
    // A volume that hangs does not have the program stand still for ever.
    match tokio::time::timeout(limit, seen).await {
        Ok(seen) => seen.flatten().map_err(|e| failed(&e)),
        Err(late) => Err(failed(&late)),
    }
}

/// Brings files back to what they were when a tree was saved. Images that are no good are left to
/// who restores them.
pub(super) async fn bring_back(
    folder: &Path,
    cell: Cell,
    person: &Person,
    (tree, limit): (Tree, Duration),
) -> Result<Vec<CutFile>, NotMade> {
    let (folder, person): (PathBuf, Person) = (folder.to_owned(), person.clone());
    let mark = format!("{}-{}", tree.id, tree.epoch);
    let back = wait(move || match origin(&folder) {
        Ok(origin) if origin.owner == person.uid => {
            files::bring_back(&origin.open_files, Some(cell), &person, &mark)
        }
        _ => Ok(Vec::new()),
    });
    match tokio::time::timeout(limit, back).await {
        Ok(Ok(Ok(cut))) => Ok(cut.into_iter().map(told).collect()),
        Ok(Ok(Err(error))) => {
            let stays = matches!(error, files::FilesError::Changed { .. });
            Err(NotMade { reason: error.to_string(), stays, cut: Vec::new() })
        }
        Ok(Err(lost)) => Err(lost.to_string().into()),
        Err(late) => Err(format!("the files that it had open cannot be looked at: {late}").into()),
    }
}

fn told(cut: Cut) -> CutFile {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    CutFile { path: text(cut.path), kept: text(cut.kept), bytes: cut.bytes }
}
