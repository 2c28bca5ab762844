//! The files of programs: seen when they are saved, and brought back before they go on from there.
//! A volume that does not answer holds threads of [`FILES`] only.

use super::apart::FILES;
use super::cell::Calls;
use super::work::root_of;
use crate::cell::proto::Tree;
use crate::cluster::messages::CutFile;
use crate::driver::files::{self, Cut};
use crate::driver::images::origin;
use crate::driver::{Cell, DriverError, Dumped, Person};
use std::path::{Path, PathBuf};
use std::sync::Arc;
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

/// Has what a tree wrote to its files reach the disk while it runs yet, so that little is left for
/// [`record`], for which it stands still. What fails here fails there again.
pub(super) async fn flush(
    calls: Arc<Calls>,
    (tree, cell): (Tree, Cell),
    person: Person,
    limit: Duration,
) {
    let flushed = FILES.run(move || -> Result<(), String> {
        let root = root_of(&calls, tree, cell)?;
        files::flush(root, Some(cell), &person).map_err(|e| e.to_string())
    });
    let why = match tokio::time::timeout(limit, flushed).await {
        Ok(Ok(Ok(()))) => return,
        Ok(Ok(Err(why))) => why,
        Ok(Err(lost)) => lost.to_string(),
        Err(late) => late.to_string(),
    };
    tracing::info!(%tree, why, "what it wrote to files is not on the disk before it stands still");
}

/// Writes down what the files are that a tree had open when it was saved; it stands still since. An
/// image of a move needs that too: it becomes a checkpoint later.
pub(super) async fn record(
    mut dumped: Dumped,
    (root, cell): (i32, Cell),
    person: Person,
    limit: Duration,
) -> Result<Dumped, String> {
    if dumped.open_files.is_empty() {
        return Ok(dumped);
    }
    let seen = FILES.run(move || {
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
    let back = FILES.run(move || match origin(&folder) {
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
